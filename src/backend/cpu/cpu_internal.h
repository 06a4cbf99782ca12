/* What the files of the CPU backend share. */
#ifndef SLUICE_BACKEND_CPU_INTERNAL_H
#define SLUICE_BACKEND_CPU_INTERNAL_H

#include <stdatomic.h>

#include "backend/cpu/cpu_backend.h"
#include "store/bank.h"
#include "store/prefetch.h"

/*
 * How a projection runs: in f32, with its input rounded to bf16 on the way, or in int8 with its
 * input quantised before or already.
 */
enum node_mode { NODE_F32, NODE_BF16, NODE_QUANTIZE, NODE_INT8 };
/* Bits of bank_int8: the input of gate and up, the input of down. */
enum { BANK_INT8_IN = 1, BANK_INT8_MID = 2 };
/* Inputs of projections that are there in int8 at a time: one is written while one is read. */
enum { N_DENSE_ACTS = 2 };
/* Kinds of rows that buffers have. */
enum { N_ROWS_OF = ROWS_FIXED + 1 };
/* Most taps a convolution may have. */
enum { CONV_MAX_WIDTH = 64 };

/* The experts that all threads compute next; chosen by thread 0 between barriers. */
struct experts_round {
    uint32_t n;
    uint32_t n_left; /* experts of the layer still to come after this round */
    uint32_t *experts;
    uint32_t *active; /* all experts of the layer's batch */
    uint32_t n_active;
    _Atomic uint32_t gate_up_turn, down_turn; /* what threads have taken of this round */
    uint32_t n_held; /* of them the first, which are to be given back after a barrier */
    const struct expert_bank *next; /* to be read on with when this layer has been; or NULL */
};

/* Which threads compute a node of a batch with one token (sharing.c). */
enum who {
    WHO_ALL,     /* as the op has it */
    WHO_FIRST,   /* thread 0 */
    WHO_LAST,    /* the last thread */
    WHO_COLUMNS, /* all by columns of the result */
};

struct sharing {
    enum who who;
    uint32_t grain; /* WHO_COLUMNS: columns that go together */
};

/* A node, or the int8 copy of the input of projection node (program.c). */
struct step {
    uint32_t node, input;   /* input: the buffer, if quantize */
    struct sharing sharing; /* if quantize: of one token; of nodes, see the backend */
    bool quantize;
    bool barrier[2]; /* before it, in a batch of many tokens and of one */
};

/* What is known of a step when it is over, for a profile. */
struct step_note {
    uint64_t ns, waited_ns;
    uint64_t expert_bytes; /* of the experts that it used */
};

/*
 * Picks of an expert whose gate and up are computed at a time: more than the 64 that an expert of
 * 256 has on average in the longest batch, since each block unpacks the weights again.
 */
enum { PICK_BLOCK = 96 };

/* A thread's memory for a block of picks, in its scratch behind what kernels use. */
struct pick_block {
    int8_t *q; /* the rows of the picks, one after the other, with their scales and sums */
    float *scale, *sum;
    float *gate_up; /* [PICK_BLOCK][cpu_block_stride()] */
    float *act;     /* of one pick */
};

/* Rows of int8 activations and the one piece of memory they are in. */
struct act8_storage {
    struct act8 act;
    size_t bytes;
};

struct cpu_backend {
    const struct graph *graph;
    const struct weight_data *weights;
    struct cpu_options options;
    struct kernels kernels;
    struct pool *pool;
    /* Of batches of many tokens and of one: what waits for storage would cost one token more. */
    struct plan plan[2];
    void **slots;      /* per slot of the plan of many tokens */
    void **places[2];  /* per buffer of the graph: where it is */
    void *one_storage; /* of all slots of one token */
    size_t one_bytes;
    void **buffers;           /* of the run in progress */
    uint8_t *rows_of;         /* per buffer of the graph: enum rows */
    uint32_t rows[N_ROWS_OF]; /* per enum rows: how many there are in the run in progress */
    bool *unused; /* per buffer of the graph: it has no storage, since nobody reads it */
    /* int8 rows: of a projection's input, of the experts' inputs, of their activations */
    struct act8_storage act_dense[N_DENSE_ACTS], act_expert_in, act_expert_mid;
    const struct expert_bank **banks; /* by their index; NULL where the graph has none */
    uint32_t n_banks;
    enum prefetch_kind prefetch; /* of the next runs */
    struct cpu_profile profile;
    uint32_t *guess; /* experts of a guess in the making */
    bool *guessed;   /* per expert: it is in the list; all false between guesses */
    struct step *steps;
    struct sharing *sharing; /* per node */
    uint32_t *first_step;    /* per node, and of the end */
    uint32_t n_steps;
    uint8_t *node_mode;                   /* per node: enum node_mode */
    uint8_t *node_act;                    /* per node: which of act_dense it reads */
    bool *in_pieces;                      /* per node: threads take its rows in pieces */
    const struct expert_bank **next_bank; /* per router and group_picks node: its experts */
    uint8_t *bank_int8;    /* per weight: which inputs of a bank's matrices are quantised */
    uint32_t *state_index; /* per state of the graph: its place in the layout */
    int32_t *pick_rows;    /* per pick, where experts find their rows by it: the token */
    uint8_t *scratch;      /* per thread, scratch_bytes each: of kernels, then a pick_block */
    size_t scratch_bytes, block_at;
    uint32_t most_in, most_inter; /* the widest rows of experts' inputs and activations */
    _Atomic uint32_t *turns;      /* per node: units that threads have taken in this run */
    float *partials;              /* attend.c: sums of spans, of so many rows */
    size_t partial_bytes;
    uint32_t partial_rows;
    size_t total_bytes;
    bool bf16_inputs;    /* products of weights in bf16 round their inputs to it */
    bool streams_states; /* recurrent states are in no cache when the next token comes */
    uint64_t expert_uses;
    uint64_t tokens; /* that earlier runs evaluated */
    /* of the run in progress */
    const struct batch *batch;
    bool one; /* every op that has a row per token has one */
    uint32_t begin, end;
    struct step_note *notes;      /* per step, with a profile */
    uint64_t noted_ns, waited_ns; /* when the last step ended, and what was waited until then */
    struct experts_round round;
    enum sluice_status status; /* first error; set by thread 0 between barriers */
    bool cancelled;            /* thread 0's */
    /*
     * The step that failed. After a barrier the threads may not look at status: thread 0 may be
     * further on already, and set it there.
     */
    _Atomic uint32_t stopped_at;
    struct sluice_error error;
};

/* Runs a node's part of a thread. */
struct task {
    struct cpu_backend *be;
    const struct kernels *k;
    uint32_t thread, n_threads;
};
typedef void node_fn(const struct task *task, const struct node *node);

/* Ids become pointers here and nowhere else. */
static inline uint32_t cpu_index(uint32_t id)
{
    return (id & ((1u << 20) - 1)) - 1;
}
#define BUF(task, b) cpu_resolve((task)->be, (b).id)
static inline float *cpu_resolve(const struct cpu_backend *be, uint32_t id)
{
    return be->buffers[cpu_index(id)];
}
#define BUF_I32(task, b) ((int32_t *)(void *)cpu_resolve((task)->be, (b).id))
#define WIDTH(task, b) cpu_width((task)->be, (b).id)
static inline uint32_t cpu_width(const struct cpu_backend *be, uint32_t id)
{
    return be->graph->buffers.items[cpu_index(id)].width;
}
/* Rows of the buffer in this run. */
#define N_ROWS(task, b) cpu_rows((task)->be, (b).id)
static inline uint32_t cpu_rows(const struct cpu_backend *be, uint32_t id)
{
    return be->rows[be->rows_of[cpu_index(id)]];
}
#define WT(task, w) cpu_weight((task)->be, (w).id)
static inline const struct weight_data *cpu_weight(const struct cpu_backend *be, uint32_t id)
{
    return &be->weights[cpu_index(id)];
}
#define BANK_INT8(task, w) cpu_bank_int8((task)->be, (w).id)
uint8_t cpu_bank_int8(const struct cpu_backend *be, uint32_t id);
/* The declaration behind an id: what may be compared, and asked for its shape. */
#define BUFFER_DECL(be, b) cpu_buffer_decl((be), (b).id)
const struct buffer *cpu_buffer_decl(const struct cpu_backend *be, uint32_t id);
#define WEIGHT_INDEX(w) cpu_weight_index((w).id)
uint32_t cpu_weight_index(uint32_t id);
#define STATE_INDEX(task, s) cpu_state_index((task)->be, (s).id)
uint32_t cpu_state_index(const struct cpu_backend *be, uint32_t id);

enum sluice_status cpu_alloc_buffers(struct cpu_backend *be, struct sluice_error *err);
enum sluice_status cpu_alloc_act8(struct act8_storage *store, uint64_t rows, uint32_t cols,
                                  size_t *total, struct sluice_error *err);
void cpu_free_buffers(struct cpu_backend *be);
/* profile.c, thread 0: step s, with the barrier after it, is over. */
void cpu_note_step(struct cpu_backend *be, uint32_t s);
/* Tells the profile of steps [begin, end), which all are over. */
void cpu_profile_steps(const struct cpu_backend *be, uint32_t begin, uint32_t end);
/* Whether rows of experts' inputs are not gathered, but found by pick_rows in int8. */
static inline bool cpu_finds_rows(const struct cpu_backend *be, const struct buffer *expert_input)
{
    return be->unused[expert_input - be->graph->buffers.items];
}
/*
 * Between the gate and up of two picks of a block: lines of them that are written together fall
 * into different sets of a cache.
 */
static inline size_t cpu_block_stride(const struct cpu_backend *be)
{
    return 2 * (size_t)be->most_inter + 16;
}
/* Who computes which nodes of one token. */
enum sluice_status cpu_plan_sharing(struct cpu_backend *be, struct sluice_error *err);
/* The steps of all nodes and their barriers. Before: the plan, node_mode and sharing. */
enum sluice_status cpu_plan_steps(struct cpu_backend *be, struct sluice_error *err);
/*
 * The step before node begin that makes the int8 copy of a projection among [begin, end), NULL:
 * none. A run that does not begin with the writer of the input has to take it first.
 */
const struct step *cpu_step_before(const struct cpu_backend *be, uint32_t begin, uint32_t end);
/* Quantises the input of a projection. */
void cpu_quantize(const struct task *task, const struct step *step);

/* This thread's share of n items in grains: [*begin, *end). A single grain is thread 0's. */
static inline void share(const struct task *t, uint32_t n, uint32_t grain, uint32_t *begin,
                         uint32_t *end)
{
    pool_share(n, grain, t->thread, t->n_threads, begin, end);
    if (n > grain) return;
    *begin = t->thread == 0 ? 0 : n;
    *end = n;
}

/* Columns of a result that threads share: whole groups of int8. */
enum { ROW_GRAIN = 32 };

/* Whether node n is a projection that reads its input in int8. */
static inline bool cpu_reads_int8(const struct cpu_backend *be, uint32_t n)
{
    return be->node_mode[n] == NODE_QUANTIZE || be->node_mode[n] == NODE_INT8;
}

/* Whether products of w in floats round their inputs to bf16. */
static inline bool cpu_takes_bf16(const struct cpu_backend *be, const struct wmat *w)
{
    return be->bf16_inputs && be->kernels.matmul_bf16[w->type];
}

/* Rows of a matrix that threads share; a few that are long are worth it, too. */
static inline uint32_t row_grain(const struct wmat *w)
{
    return w->rows <= ROW_GRAIN && w->cols >= 1024 ? 8 : ROW_GRAIN;
}

/* Of one row of width values what is this thread's: columns [*first, *last). */
static inline void share_row(const struct task *t, const struct sharing *s, uint32_t width,
                             uint32_t *first, uint32_t *last)
{
    const uint32_t only = s->who == WHO_LAST ? t->n_threads - 1 : 0;
    *first = 0;
    *last = t->thread == only ? width : 0;
    if (s->who == WHO_COLUMNS) share(t, width, s->grain, first, last);
}

/*
 * What of n rows of width values is this thread's: columns [*first, *last) of rows [*begin, *end).
 * With one token that is a part of a row.
 */
static inline void share_columns(const struct task *t, const struct sharing *s, uint32_t n,
                                 uint32_t width, uint32_t *begin, uint32_t *end, uint32_t *first,
                                 uint32_t *last)
{
    *begin = *first = 0;
    *end = n;
    *last = width;
    if (!t->be->one) {
        share(t, n, 1, begin, end);
        return;
    }
    share_row(t, s, width, first, last);
    if (*first == *last) *end = 0;
}

/* The weight, input and result of a projection, with a bias or without. */
struct projection {
    uint32_t w; /* its index */
    const struct buffer *x, *y;
};
/* False: the node is none. */
bool cpu_projection(const struct cpu_backend *be, const struct node *node, struct projection *out);

static inline bool cpu_is_in_pieces(const struct cpu_backend *be, const struct node *node)
{
    return be->in_pieces[node - be->graph->nodes.items];
}
/* Whether threads take whole experts of one token, as many each, rather than rows of them all. */
static inline bool cpu_whole_experts(const struct cpu_backend *be, const struct node *node)
{
    const uint32_t n = be->options.pool.n_threads;
    return n && be->graph->n_picks % n == 0 && !cpu_is_in_pieces(be, node);
}

static inline const struct sharing *sharing_of(const struct task *t, const struct node *node)
{
    return &t->be->sharing[node - t->be->graph->nodes.items];
}

/*
 * pieces.c: grains of a step that threads take as they come to them, so that none waits for one
 * that was slower. Pieces are large at first and get smaller.
 */
struct pieces {
    _Atomic uint32_t *turn; /* grains taken; NULL: the step has shares instead */
    uint32_t n, least;      /* grains: all, and of a piece that is not the last */
};
/* Rows of a projection, in grains of row_grain(). */
struct pieces cpu_rows_in_pieces(const struct task *task, const struct node *node,
                                 const struct wmat *w, uint32_t n_tokens);
/* The next piece of this thread, [*begin, *end); false: there is no more. */
bool cpu_next_piece(const struct task *task, const struct pieces *pieces, uint32_t *begin,
                    uint32_t *end);
/* Grains of so many bytes that a thread takes at least, so that taking them costs little. */
uint32_t cpu_least_piece(const struct cpu_backend *be, uint64_t grain_bytes, uint32_t n_tokens);
/* Which steps are divided into pieces: those of large weights. Before: the plan. */
enum sluice_status cpu_plan_pieces(struct cpu_backend *be, struct sluice_error *err);

/* This thread's scratch. */
static inline void *scratch_of(const struct task *t)
{
    return t->be->scratch + t->be->scratch_bytes * t->thread;
}

/* One function per op, in files by family. */
#define P(op) void cpu_##op(const struct task *task, const struct node *node);
OPS(P)
#undef P

/* ops_experts.c: no thread looks at the experts of the last round any more. Thread 0. */
void cpu_give_back(struct cpu_backend *be);

/* ops_guess.c: the sequences of the batch remember what their last tokens used. Thread 0. */
void cpu_remember_picks(const struct task *task, const struct node *node);
/* The layer after this bank's may need what it needed for the last tokens. Thread 0. */
void cpu_guess_last(struct cpu_backend *be, const struct expert_bank *bank);

#endif
