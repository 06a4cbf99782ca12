#include "backend/cpu/cpu_backend.h"

#include <stdlib.h>

#include "backend/cpu/attend.h"
#include "backend/layout.h"
#include "base/bits.h"
#include "base/clock.h"
#include "base/mem.h"

static node_fn *const node_fns[OP_COUNT] = {
#define P(op) [OP_KIND_##op] = cpu_##op,
    OPS(P)
#undef P
};

/*
 * Routing and decay are steep functions of few values: the rows they cost in f32 are nothing beside
 * the rest, and an expert chosen differently is not a rounding error.
 */
static enum node_mode mode_of(const struct cpu_backend *be, const struct weight_decl *decl,
                              const struct wmat *w)
{
    switch ((int)decl->role) {
    case WEIGHT_router_proj:
    case WEIGHT_shared_gate_proj:
    case WEIGHT_alpha_proj:
    case WEIGHT_beta_proj:
    case WEIGHT_ba_proj: return NODE_F32;
    default: break;
    }
    if (be->options.int8 && wtype_is_packed(w->type)) return NODE_INT8;
    return cpu_takes_bf16(be, w) ? NODE_BF16 : NODE_F32;
}

/*
 * Walks the nodes once: how projections run, and which find their input already in act_dense.
 * max_values: of any input.
 */
static void mark_modes(struct cpu_backend *be, uint64_t *max_values)
{
    const struct graph *g = be->graph;
    const struct buffer *held = NULL;
    uint8_t act = 0;
    *max_values = 0;
    for (uint32_t n = 0; n < g->nodes.n; n++) {
        const struct node *node = &g->nodes.items[n];
        struct projection p;
        if (!cpu_projection(be, node, &p)) continue;
        be->node_mode[n] = (uint8_t)mode_of(be, &g->weights.items[p.w], &be->weights[p.w].matrix);
        if (be->node_mode[n] != NODE_INT8) continue;
        const struct buffer *x = p.x;
        if (x != held) be->node_mode[n] = NODE_QUANTIZE;
        if (x != held) act = (uint8_t)((act + 1) % N_DENSE_ACTS);
        be->node_act[n] = act;
        held = x;
        uint64_t rows = plan_rows(role_rows(x->role), be->options.dims, g->n_picks);
        if (rows * x->width > *max_values) *max_values = rows * x->width;
    }
}

/* The widest expert matrices decide how much the int8 copies of their inputs need. */
static void measure_experts(struct cpu_backend *be)
{
    const struct graph *g = be->graph;
    for (size_t w = 0; w < g->weights.n; w++) {
        const struct weight_decl *decl = &g->weights.items[w];
        if (weight_role_kind(decl->role) != WEIGHT_KIND_BANK) continue;
        be->most_in = max_u32(be->most_in, (uint32_t)align_up(decl->cols, ACT8_GROUP));
        be->most_inter = max_u32(be->most_inter, (uint32_t)align_up(decl->n_inter, ACT8_GROUP));
    }
}

/* Whether every matrix that reads an expert's input, and every one that reads its activation, reads
 * int8. */
static void find_packed(const struct expert_bank *bank, bool *in, bool *mid)
{
    *in = *mid = bank && !bank->transposed;
    for (uint32_t e = 0; *in + *mid > 0 && e < bank->n_experts; e++) {
        const struct expert_view *v = &bank->experts[e];
        bool up = bank->paired || wtype_is_packed(v->up.type);
        *in = *in && up && wtype_is_packed(v->gate.type);
        *mid = *mid && wtype_is_packed(v->down.type);
    }
}

/*
 * Buffers that need no storage: blocks of gate and up stay in scratch, and so do activations that
 * are wanted in int8 alone; rows that are wanted so are found in the int8 copy of all tokens.
 */
static void find_unused(struct cpu_backend *be, const struct node *node)
{
    const struct graph *g = be->graph;
    const struct op_experts *op = &node->u.experts;
    const struct buffer *x = BUFFER_DECL(be, op->x);
    bool in, mid;
    find_packed(be->weights[WEIGHT_INDEX(op->bank)].bank, &in, &mid);
    bool gathered = x->writer < g->nodes.n && g->nodes.items[x->writer].op == OP_KIND_gather_rows;
    be->unused[BUFFER_DECL(be, op->gate_up) - g->buffers.items] = true;
    if (be->options.int8 && mid) be->unused[BUFFER_DECL(be, op->act) - g->buffers.items] = true;
    if (be->options.int8 && in && gathered && x->lifetime == LIFE_TRANSIENT)
        be->unused[x - g->buffers.items] = true;
}

/* Nodes in which a layer has barriers enough, and less storage than a first-level cache. */
enum { SLOT_REST = 12 };

static enum sluice_status plan_buffers(struct cpu_backend *be, struct sluice_error *err)
{
    const struct graph *g = be->graph;
    const struct cpu_options *o = &be->options;
    be->unused = calloc(g->buffers.n + 1, sizeof *be->unused);
    if (!be->unused) return err_nomem(err, "backend", g->buffers.n);
    for (uint32_t n = 0; n < g->nodes.n && o->share_buffers; n++)
        if (g->nodes.items[n].op == OP_KIND_experts) find_unused(be, &g->nodes.items[n]);
    const struct plan_dims one = {min_u32(o->dims.tokens, 1), min_u32(o->dims.outputs, 1)};
    TRY(plan_init_without(&be->plan[0], g, o->dims, o->share_buffers, be->unused, 0, err));
    TRY(plan_init_without(&be->plan[1], g, one, o->share_buffers, be->unused, SLOT_REST, err));
    return cpu_alloc_buffers(be, err);
}

static uint8_t bank_flags(const struct expert_bank *bank)
{
    uint8_t flags = 0;
    for (uint32_t e = 0; e < bank->n_experts; e++) {
        const struct expert_view *v = &bank->experts[e];
        if (wtype_is_packed(v->gate.type) || wtype_is_packed(v->up.type)) flags |= BANK_INT8_IN;
        if (wtype_is_packed(v->down.type)) flags |= BANK_INT8_MID;
    }
    return flags;
}

static enum sluice_status alloc_round(struct cpu_backend *be, struct sluice_error *err)
{
    uint32_t most = 0;
    for (size_t w = 0; w < be->graph->weights.n; w++)
        most = max_u32(most, be->graph->weights.items[w].n_experts);
    be->round.experts = calloc(most + 1, sizeof *be->round.experts);
    be->round.active = calloc(most + 1, sizeof *be->round.active);
    be->guess = calloc(most + 1, sizeof *be->guess);
    be->guessed = calloc(most + 1, sizeof *be->guessed);
    bool ok = be->round.experts && be->round.active && be->guess && be->guessed;
    return ok ? SLUICE_OK : err_nomem(err, "backend", most);
}

/* Banks by their index, which says in which order layers come to them. */
static void list_banks(struct cpu_backend *be)
{
    const struct graph *g = be->graph;
    for (uint32_t w = 0; w < g->weights.n; w++) {
        if (weight_role_kind(g->weights.items[w].role) != WEIGHT_KIND_BANK) continue;
        const struct expert_bank *bank = be->weights[w].bank;
        if (!bank) continue;
        if (bank->index < g->weights.n) be->banks[bank->index] = bank;
        be->n_banks++;
    }
}

/*
 * The experts op that reads the offsets of a group_picks node tells the bank, of that node and of
 * the router before it.
 */
static void find_banks(struct cpu_backend *be)
{
    const struct graph *g = be->graph;
    const struct node *grouped = NULL, *router = NULL;
    for (uint32_t n = 0; n < g->nodes.n; n++) {
        const struct node *node = &g->nodes.items[n];
        if (node->op == OP_KIND_router || node->op == OP_KIND_sigmoid_router) router = node;
        if (node->op == OP_KIND_group_picks) grouped = node;
        if (node->op != OP_KIND_experts || !grouped) continue;
        if (BUFFER_DECL(be, grouped->u.group_picks.offsets) !=
            BUFFER_DECL(be, node->u.experts.offsets))
            continue;
        uint32_t w = WEIGHT_INDEX(node->u.experts.bank);
        be->next_bank[grouped - g->nodes.items] = be->weights[w].bank;
        if (router) be->next_bank[router - g->nodes.items] = be->weights[w].bank;
    }
}

/* What runs look up: the flags of banks, the places of states. */
static enum sluice_status prepare_tables(struct cpu_backend *be, struct sluice_error *err)
{
    const struct graph *g = be->graph;
    be->node_mode = calloc(g->nodes.n, 1);
    be->node_act = calloc(g->nodes.n, 1);
    be->bank_int8 = calloc(g->weights.n + 1, 1);
    be->state_index = calloc(g->states.n + 1, sizeof *be->state_index);
    be->next_bank = calloc(g->nodes.n, sizeof *be->next_bank);
    be->banks = calloc(g->weights.n + 1, sizeof *be->banks);
    if (!be->banks || !be->node_mode || !be->node_act || !be->bank_int8 || !be->state_index ||
        !be->next_bank)
        return err_nomem(err, "backend", g->nodes.n);
    list_banks(be);
    find_banks(be);
    for (uint32_t w = 0; w < g->weights.n && be->options.int8; w++)
        if (weight_role_kind(g->weights.items[w].role) == WEIGHT_KIND_BANK)
            be->bank_int8[w] = bank_flags(be->weights[w].bank);
    for (uint32_t s = 0; s < g->states.n; s++) {
        be->state_index[s] = layout_index(g, s);
        const struct state_decl *state = &g->states.items[s];
        if (state->kind == STATE_conv && state->dims[0] >= CONV_MAX_WIDTH)
            return err_set(err, SLUICE_E_UNSUPPORTED, "layer %u: a convolution of width %u",
                           state->layer, state->dims[0] + 1);
    }
    return SLUICE_OK;
}

/* Rows of experts' inputs in int8: of tokens, unless a bank wants them gathered. */
static uint64_t rows_in(const struct cpu_backend *be, uint64_t picks)
{
    const struct graph *g = be->graph;
    for (uint32_t n = 0; n < g->nodes.n; n++) {
        const struct node *node = &g->nodes.items[n];
        if (node->op != OP_KIND_experts) continue;
        const struct op_experts *op = &node->u.experts;
        bool int8 = be->bank_int8[WEIGHT_INDEX(op->bank)] & BANK_INT8_IN;
        if (int8 && !cpu_finds_rows(be, BUFFER_DECL(be, op->x))) return picks;
    }
    return picks ? be->options.dims.tokens : 0;
}

static enum sluice_status alloc_int8(struct cpu_backend *be, struct sluice_error *err)
{
    uint64_t max_dense;
    mark_modes(be, &max_dense);
    if (!be->options.int8) return SLUICE_OK;
    uint64_t picks = (uint64_t)be->options.dims.tokens * be->graph->n_picks;
    size_t *total = &be->total_bytes;
    be->pick_rows = calloc(picks + 1, sizeof *be->pick_rows);
    if (!be->pick_rows) return err_nomem(err, "rows of picks", picks * sizeof *be->pick_rows);
    *total += picks * sizeof *be->pick_rows;
    for (uint32_t i = 0; i < N_DENSE_ACTS; i++)
        TRY(cpu_alloc_act8(&be->act_dense[i], 1 + max_dense / ACT8_GROUP, ACT8_GROUP, total, err));
    TRY(cpu_alloc_act8(&be->act_expert_in, rows_in(be, picks), be->most_in, total, err));
    return cpu_alloc_act8(&be->act_expert_mid, picks, be->most_inter, total, err);
}

/* Of a thread's pick_block. */
static size_t block_bytes(const struct cpu_backend *be)
{
    size_t in = be->most_in, groups = in / ACT8_GROUP, inter = be->most_inter;
    size_t rows = PICK_BLOCK * (in + 2 * groups * sizeof(float));
    return rows + (PICK_BLOCK * cpu_block_stride(be) + inter) * sizeof(float);
}

static enum sluice_status alloc_scratch(struct cpu_backend *be, struct sluice_error *err)
{
    const struct graph *g = be->graph;
    uint32_t cols = SEQUENCE_PAGE, widest = SEQUENCE_PAGE;
    for (size_t w = 0; w < g->weights.n; w++) {
        const struct weight_decl *decl = &g->weights.items[w];
        cols = max_u32(cols, max_u32(decl->cols, decl->n_inter));
        widest = max_u32(widest, max_u32(decl->rows, decl->cols));
    }
    for (size_t b = 0; b < g->buffers.n; b++) widest = max_u32(widest, g->buffers.items[b].width);
    /* A choice of experts, or pointers to what a token's picks returned. */
    size_t choice = (size_t)widest * 3 * sizeof(float);
    size_t attend = cpu_attend_scratch(be) * sizeof(float);
    be->block_at =
        align_up(max_size(max_size(matmul_scratch_bytes(cols), choice), attend), MEM_ALIGN);
    be->scratch_bytes = align_up(be->block_at + block_bytes(be), MEM_ALIGN);
    size_t bytes;
    if (!mul_size(be->scratch_bytes, be->options.pool.n_threads, &bytes))
        return err_nomem(err, "scratch", SIZE_MAX);
    void *scratch;
    if (!mem_reserve(bytes, &scratch)) return err_nomem(err, "scratch", bytes);
    be->scratch = scratch;
    be->total_bytes += bytes;
    return SLUICE_OK;
}

/* Whether the matrices that every token reads push its states out of the caches. */
static bool pushes_states_out(const struct cpu_backend *be)
{
    const struct graph *g = be->graph;
    uint64_t bytes = 0;
    for (size_t w = 0; w < g->weights.n; w++) {
        const enum weight_role role = g->weights.items[w].role;
        if (weight_role_kind(role) == WEIGHT_KIND_MATRIX && role != WEIGHT_embed)
            bytes += wmat_bytes(&be->weights[w].matrix);
    }
    return bytes > be->options.cache_bytes;
}

static enum sluice_status open_parts(struct cpu_backend *be, struct sluice_error *err)
{
    const struct cpu_options *o = &be->options;
    const uint32_t pairs = CPU_AVX512_BF16 | CPU_BF16_PAIRS;
    kernels_init(&be->kernels, o->features);
    be->bf16_inputs = o->int8 && (o->features & pairs) == pairs;
    be->streams_states = pushes_states_out(be);
    TRY(prepare_tables(be, err));
    TRY(plan_buffers(be, err));
    measure_experts(be);
    TRY(alloc_round(be, err));
    TRY(alloc_int8(be, err));
    TRY(cpu_plan_pieces(be, err));
    TRY(cpu_plan_sharing(be, err));
    TRY(cpu_plan_steps(be, err));
    TRY(alloc_scratch(be, err));
    TRY(cpu_alloc_attend(be, err));
    return pool_open(&be->pool, &o->pool, err);
}

enum sluice_status cpu_open(struct cpu_backend **out, const struct graph *graph,
                            const struct weight_data *weights, const struct cpu_options *options,
                            struct sluice_error *err)
{
    *out = NULL;
    struct cpu_backend *be = calloc(1, sizeof *be);
    if (!be) return err_nomem(err, "backend", sizeof *be);
    be->graph = graph;
    be->weights = weights;
    be->options = *options;
    be->prefetch = options->prefetch;
    enum sluice_status status = open_parts(be, err);
    if (status != SLUICE_OK) cpu_close(&be);
    *out = be;
    return status;
}

void cpu_close(struct cpu_backend **backend)
{
    struct cpu_backend *be = *backend;
    if (!be) return;
    *backend = NULL;
    pool_close(&be->pool);
    cpu_free_buffers(be);
    for (int i = 0; i < 2; i++) plan_release(&be->plan[i]);
    free(be->steps);
    free(be->sharing);
    free(be->first_step);
    free(be->notes);
    free(be->node_mode);
    free(be->node_act);
    free(be->bank_int8);
    free(be->next_bank);
    free(be->banks);
    free(be->guess);
    free(be->guessed);
    free(be->state_index);
    free(be->unused);
    free(be->pick_rows);
    free(be->round.experts);
    free(be->round.active);
    free(be->turns);
    free(be->in_pieces);
    mem_unreserve(be->partials, be->partial_bytes);
    mem_unreserve(be->scratch, be->scratch_bytes * be->options.pool.n_threads);
    free(be);
}

/* Whether every op of the batch that has a row per token has one. */
static bool is_one_token(const struct batch *batch)
{
    return batch->n_tokens == 1 && batch->n_segments == 1 && batch->n_outputs <= 1;
}

/* Thread 0 asks when a layer begins. */
static bool is_cancelled(struct cpu_backend *be, uint32_t node)
{
    const struct node *nodes = be->graph->nodes.items;
    const struct batch *batch = be->batch;
    if (!batch->cancelled || node == be->begin || nodes[node].layer == nodes[node - 1].layer)
        return false;
    be->cancelled = be->cancelled || batch->cancelled(batch->user);
    return be->cancelled;
}

static void run_nodes(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct cpu_backend *be = arg;
    struct task task = {be, &be->kernels, thread, n_threads};
    const uint32_t begin = be->first_step[be->begin], end = be->first_step[be->end];
    const struct step *first = cpu_step_before(be, be->begin, be->end);
    const bool one = be->one, noted = thread == 0 && be->profile.step;
    if (first) {
        cpu_quantize(&task, first);
        pool_barrier(be->pool);
    }
    for (uint32_t s = begin; s < end; s++) {
        const struct step *step = &be->steps[s];
        const struct node *node = &be->graph->nodes.items[step->node];
        if (step->barrier[one] && s > begin) {
            pool_barrier(be->pool);
            if (thread == 0) cpu_give_back(be);
            if (atomic_load(&be->stopped_at) < s) return;
        }
        if (noted && s > begin) cpu_note_step(be, s - 1);
        if (thread == 0 && be->options.store) store_poll(be->options.store);
        if (step->quantize)
            cpu_quantize(&task, step);
        else
            node_fns[node->op](&task, node);
        if (thread == 0 && (be->status != SLUICE_OK || is_cancelled(be, step->node)))
            atomic_store(&be->stopped_at, s);
    }
}

enum sluice_status cpu_run(struct cpu_backend *be, const struct batch *batch, uint32_t begin,
                           uint32_t end, struct sluice_error *err)
{
    be->batch = batch;
    be->one = is_one_token(batch);
    be->buffers = be->places[be->one];
    for (uint32_t i = 0; i < N_ROWS_OF; i++)
        be->rows[i] =
            (uint32_t)plan_rows((enum rows)i, (struct plan_dims){batch->n_tokens, batch->n_outputs},
                                be->graph->n_picks);
    be->begin = begin;
    be->end = end;
    be->status = SLUICE_OK;
    be->cancelled = false;
    atomic_store(&be->stopped_at, UINT32_MAX);
    be->noted_ns = be->profile.step ? clock_ns() : 0;
    be->waited_ns = 0;
    for (size_t i = 0; i < be->graph->nodes.n; i++)
        atomic_store_explicit(&be->turns[i], 0, memory_order_relaxed);
    pool_run(be->pool, run_nodes, be, batch->n_tokens);
    cpu_give_back(be);
    if (be->cancelled && be->status == SLUICE_OK) be->status = SLUICE_E_CANCELLED;
    if (be->profile.step && be->status == SLUICE_OK) {
        cpu_note_step(be, be->first_step[end] - 1);
        cpu_profile_steps(be, be->first_step[begin], be->first_step[end]);
    }
    be->batch = NULL;
    if (begin == 0 && be->status == SLUICE_OK) be->tokens += batch->n_tokens;
    if (be->status != SLUICE_OK && err) *err = be->error;
    return be->status;
}

void cpu_use_store(struct cpu_backend *be, struct expert_store *store)
{
    be->options.store = store;
}

void cpu_set_prefetch(struct cpu_backend *be, enum prefetch_kind kind)
{
    be->prefetch = kind;
}

void cpu_set_profile(struct cpu_backend *be, struct cpu_profile profile)
{
    be->profile = profile;
}

size_t cpu_scratch_bytes(const struct cpu_backend *be)
{
    return be->total_bytes;
}

uint64_t cpu_expert_uses(const struct cpu_backend *be)
{
    return be->expert_uses;
}
