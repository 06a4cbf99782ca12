/*
 * opcheck: every op of the CPU backend against a reference in double precision that shares no code
 * with it. An op runs alone, as one node of a graph that the push functions made, with buffers and
 * states filled by the op's generator. Each op of op.def needs gen_<op>, ref_<op> and a row in
 * limits.def, or this does not build.
 */
#ifndef TESTS_OPCHECK_H
#define TESTS_OPCHECK_H

#include "backend/cpu/cpu_backend.h"
#include "backend/layout.h"
#include "base/rng.h"
#include "store/bank.h"

enum { MAX_SEGMENTS = 5, MAX_RESULTS = 3 };

/* What an op sees: a graph, its weights, a batch, and where each buffer lies. */
struct world {
    const struct graph *g;
    const struct weight_data *weights;
    const struct state_layout *layout;
    struct batch batch;
    struct batch_segment segments[MAX_SEGMENTS];
    unsigned char **at; /* per buffer */
    size_t *bytes;      /* per buffer, rows of no batch included */
    bool int8;          /* inputs of packed weights, in precision fast */
    bool bf16;          /* inputs of weights in bf16 */
    struct rng rng;
};

/* What an op must make of it. */
struct expected {
    double *out[MAX_RESULTS];           /* per OUT operand, in order: [rows][width] */
    float *recurrent[MAX_SEGMENTS];     /* per segment: all recurrent states of the step */
    float *committed[MAX_SEGMENTS];     /* and those it starts from, which stay */
    unsigned char *pages[MAX_SEGMENTS]; /* per segment: the whole cache */
    uint32_t changed_recurrent;         /* index + 1 of the recurrent state that changes */
};

/* Bit by bit as the reference rounded to f32; limits.def. */
#define EXACT 0.0
#define INT8_EXPERTS_LIMIT 1e-5

/* One generator and one reference per op; opref_*.c by family. */
#define P(op)                                                                                      \
    void gen_##op(struct world *w, const struct op_##op *o);                                       \
    void ref_##op(const struct world *w, const struct op_##op *o, struct expected *e);
OPS(P)
#undef P

/* op_world.c: where things are. */
uint32_t index_of(uint32_t id);
float *floats(const struct world *w, uint32_t id);
int32_t *ints(const struct world *w, uint32_t id);
uint32_t width_of(const struct world *w, uint32_t id);
uint32_t rows_of(const struct world *w, uint32_t id);
const struct weight_data *weight_of(const struct world *w, uint32_t id);
/* Fills the rows of the batch with numbers in [lo, hi); some are zero. */
void fill(struct world *w, uint32_t id, float lo, float hi);
/* The segment and position of a row of the batch. */
const struct batch_segment *segment_at(const struct world *w, uint32_t row, uint32_t *position);
/* Which row of the cache is (position, head) of state s: keys or values, stored or to be stored. */
size_t cache_at(const struct world *w, uint32_t s, uint32_t position, uint32_t head, bool values);
double cache_value(const struct world *w, const unsigned char *pages, size_t at, uint32_t i);
void cache_store(const struct world *w, unsigned char *pages, size_t at, uint32_t i, float value);
/* The place of a recurrent state of the graph in a sequence's recurrent floats. */
const struct recurrent_shape *recurrent_of(const struct world *w, uint32_t s, uint32_t *index);
/* Element of a weight matrix, decoded bit by bit. */
double weight_at(const struct wmat *m, uint32_t row, uint32_t col);
/* What a product makes of its input first. */
enum inputs { IN_F32, IN_INT8, IN_BF16 };
/* Of a projection; of a matrix of experts. */
enum inputs inputs_of(const struct world *w, uint32_t weight_id);
enum inputs inputs_of_matrix(const struct world *w, const struct wmat *m);
/* y[t][r] = sum over k of m[r][k] x[t][k] */
void product(const struct wmat *m, const float *x, uint32_t n, enum inputs inputs, double *y);

/* op_compare.c: running a node on a backend and comparing. */
struct verdict {
    char text[256]; /* "" when all is well */
    double worst;   /* of the limit's measure */
};
void gen_node(struct world *w, const struct node *node);
/* node NULL: the states as they are, no results. */
struct expected *expect(const struct world *w, const struct node *node);
void expected_free(struct expected *e);
/*
 * Compares what a node left in have (per buffer) and in the sequences with what was expected, and
 * with before (NULL: not looked at): only declared results may differ from it.
 */
struct verdict judge(const struct world *w, const struct node *node, unsigned char *const *have,
                     unsigned char *const *before, const struct expected *e);
double limit_of(const struct world *w, const struct node *node);

/* Who hears of every node that was checked; where says in which world and how it ran. */
/* node NULL: something else went wrong. */
typedef void report_fn(const struct node *node, const char *where, const struct verdict *v);

/* op_random.c: all ops in worlds of random shapes, weights, states and inputs. */
void check_random_worlds(report_fn *report);
/* Faults planted in good results: how many were judged good. */
uint32_t check_the_checker(void);
/* op_recorded.c: the ops of a real model on its own activations. */
void check_recorded(const char *path, bool int8, report_fn *report);

#endif
