/* Ops of the MoE block. Every expert's results are kept per pick, so that order changes no bit. */
#include <string.h>

#include "backend/cpu/cpu_internal.h"
#include "base/bits.h"
#include "store/mapped.h"
#include "store/prefetch.h"

/* The caller's choice instead of the router's, with equal weights. */
static void route_by_hook(const struct task *t, uint32_t layer, uint32_t n, uint32_t k,
                          int32_t *ids, float *weights)
{
    const struct cpu_routing *routing = &t->be->options.routing;
    for (uint32_t r = 0; r < n; r++)
        routing->route(routing->user, layer, t->be->tokens + r, k, ids + (size_t)r * k);
    for (size_t i = 0; i < (size_t)n * k; i++) weights[i] = 1.0f / (float)k;
}

/* Hooks count the layers that have routed experts. */
static uint32_t expert_layer(const struct task *t, const struct node *node)
{
    const struct expert_bank *bank = t->be->next_bank[node - t->be->graph->nodes.items];
    return bank ? bank->index : node->layer;
}

/* Whether a hook chooses; thread 0 asks it. */
static bool is_hooked(const struct task *t, const struct node *node, uint32_t n, uint32_t k,
                      int32_t *ids, float *weights)
{
    bool hooked = t->be->options.routing.route != NULL;
    if (hooked && t->thread == 0) route_by_hook(t, expert_layer(t, node), n, k, ids, weights);
    return hooked;
}

void cpu_router(const struct task *t, const struct node *node)
{
    const struct op_router *op = &node->u.router;
    int32_t *ids = BUF_I32(t, op->ids);
    float *weights = BUF(t, op->weights);
    size_t n_experts = WIDTH(t, op->logits);
    uint32_t n = N_ROWS(t, op->logits), begin, end;
    if (is_hooked(t, node, n, op->k, ids, weights)) return;
    share(t, n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++)
        t->k->softmax_top_k(BUF(t, op->logits) + r * n_experts, (uint32_t)n_experts, op->k,
                            op->normalize, ids + r * op->k, weights + r * op->k, scratch_of(t));
}

void cpu_sigmoid_router(const struct task *t, const struct node *node)
{
    const struct op_sigmoid_router *op = &node->u.sigmoid_router;
    int32_t *ids = BUF_I32(t, op->ids);
    float *weights = BUF(t, op->weights);
    size_t n_experts = WIDTH(t, op->logits);
    uint32_t n = N_ROWS(t, op->logits), begin, end;
    if (is_hooked(t, node, n, op->k, ids, weights)) return;
    struct sigmoid_choice how = {WT(t, op->correction)->values,
                                 op->k,
                                 op->n_groups,
                                 op->top_groups,
                                 op->normalize,
                                 op->scale};
    share(t, n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++)
        t->k->sigmoid_top_k(BUF(t, op->logits) + r * n_experts, (uint32_t)n_experts, &how,
                            ids + r * op->k, weights + r * op->k, scratch_of(t));
}

/* The experts with picks, ascending. */
static void list_active(struct cpu_backend *be, const int32_t *offsets, uint32_t n_experts)
{
    struct experts_round *round = &be->round;
    round->n_active = 0;
    for (uint32_t e = 0; e < n_experts; e++)
        if (offsets[e] != offsets[e + 1]) round->active[round->n_active++] = e;
    be->expert_uses += round->n_active;
}

/* A prompt that needs nearly all experts of a layer will of the next. */
static const struct expert_bank *bank_to_read_on(const struct cpu_backend *be,
                                                 const struct expert_bank *bank)
{
    bool nearly_all = (uint64_t)be->round.n_active * 8 >= (uint64_t)bank->n_experts * 7;
    bool last = bank->index + 1 >= be->n_banks;
    return batch_is_prompt(be->batch) && nearly_all && !last ? be->banks[bank->index + 1] : NULL;
}

/*
 * Reads of missing experts start as soon as the picks are known, so that the shared expert is
 * computed meanwhile.
 */
static void request_experts(struct cpu_backend *be, const struct node *node)
{
    const struct expert_bank *bank = be->next_bank[node - be->graph->nodes.items];
    struct expert_store *store = be->options.store;
    if (!store && bank && be->options.will_need)
        mapped_will_need(bank, be->round.active, be->round.n_active);
    if (!store || !bank) return;
    be->round.next = bank_to_read_on(be, bank);
    be->status = store_begin(store, bank, be->round.active, be->round.n_active,
                             batch_is_prompt(be->batch) ? USE_PREFILL : USE_DECODE, &be->error);
    if (be->status == SLUICE_OK && be->prefetch == PREFETCH_LAST) cpu_guess_last(be, bank);
}

/* Counting sort: count, prefix sum, place. Picks of an expert stay in token order. */
void cpu_group_picks(const struct task *t, const struct node *node)
{
    if (t->thread != 0) return;
    const struct op_group_picks *op = &node->u.group_picks;
    const int32_t *ids = BUF_I32(t, op->ids);
    int32_t *offsets = BUF_I32(t, op->offsets);
    int32_t *rows = BUF_I32(t, op->rows);
    int32_t *places = BUF_I32(t, op->places);
    uint32_t k = WIDTH(t, op->ids), n = N_ROWS(t, op->ids) * k;
    const struct cpu_routing *routing = &t->be->options.routing;
    if (routing->routed)
        routing->routed(routing->user, expert_layer(t, node), N_ROWS(t, op->ids), k, ids);
    memset(offsets, 0, (op->n_experts + 1) * sizeof *offsets);
    for (uint32_t i = 0; i < n; i++) offsets[ids[i] + 1]++;
    for (uint32_t e = 0; e < op->n_experts; e++) offsets[e + 1] += offsets[e];
    /* offsets[e] walks through e's places, then all move up by one. */
    for (uint32_t i = 0; i < n; i++) {
        int32_t place = offsets[ids[i]]++;
        places[i] = place;
        rows[place] = (int32_t)(i / k);
    }
    memmove(offsets + 1, offsets, op->n_experts * sizeof *offsets);
    offsets[0] = 0;
    list_active(t->be, offsets, op->n_experts);
    cpu_remember_picks(t, node);
    request_experts(t->be, node);
}

/* Some rows of activations: floats, and their int8 form when a matrix wants it. */
struct rows_in {
    const float *x;
    struct act8 *act;    /* NULL: f32 */
    const int32_t *rows; /* per pick; NULL: the picks are the rows */
    uint32_t width;
};

static void quantize_row(const struct task *t, const struct rows_in *in, size_t r)
{
    size_t at = r * in->width, group = at / ACT8_GROUP;
    t->k->quantize_act8(in->x + at, in->width, in->act->q + at, in->act->scale + group,
                        in->act->sum + group);
}

static void quantize_rows(const struct task *t, const struct rows_in *in, uint32_t n)
{
    uint32_t begin, end;
    share(t, n, 1, &begin, &end);
    for (uint32_t r = begin; r < end; r++) quantize_row(t, in, r);
}

/* One row of tokens for each pick; where experts find rows by themselves, the tokens in int8. */
void cpu_gather_rows(const struct task *t, const struct node *node)
{
    const struct op_gather_rows *op = &node->u.gather_rows;
    const int32_t *rows = BUF_I32(t, op->rows);
    size_t width = WIDTH(t, op->x);
    uint32_t begin, end;
    share(t, N_ROWS(t, op->y), 1, &begin, &end);
    if (cpu_finds_rows(t->be, BUFFER_DECL(t->be, op->y))) {
        struct rows_in in = {
            .x = BUF(t, op->x), .act = &t->be->act_expert_in.act, .width = (uint32_t)width};
        for (size_t p = begin; p < end; p++) t->be->pick_rows[p] = rows[p];
        quantize_rows(t, &in, N_ROWS(t, op->x));
        return;
    }
    for (size_t p = begin; p < end; p++)
        memcpy(BUF(t, op->y) + p * width, BUF(t, op->x) + (size_t)rows[p] * width,
               width * sizeof(float));
}

/*
 * Rows [begin, end) of one expert's matrix, over n rows of activations from `row` on; results are
 * ldy apart. Transposed: its columns, of a matrix that has inputs for rows.
 */
static void expert_matmul(const struct task *t, const struct wmat *w, bool transposed,
                          uint32_t begin, uint32_t end, const struct rows_in *in, uint32_t row,
                          uint32_t n, float *y, size_t ldy)
{
    if (begin == end) return;
    if (!transposed && in->act && wtype_is_packed(w->type)) {
        t->k->matmul_i8[w->type](w, begin, end, in->act, row, n, y, ldy, scratch_of(t));
        return;
    }
    const float *x = in->x + (size_t)row * in->width;
    if (transposed)
        t->k->matmul_t_f32[w->type](w, begin, end, x, in->width, n, y, ldy, scratch_of(t));
    else
        t->k->matmul_f32[w->type](w, begin, end, x, in->width, n, y, ldy, scratch_of(t));
}

/* One experts op: what all its phases look at. */
struct experts_run {
    const struct op_experts *op;
    const struct expert_bank *bank;
    const int32_t *offsets;
    struct rows_in in, mid;
    struct pick_block block; /* this thread's */
};

static const struct expert_view *view_of(const struct task *t, const struct experts_run *run,
                                         uint32_t expert)
{
    if (t->be->options.store) return store_view(t->be->options.store, run->bank, expert);
    return &run->bank->experts[expert];
}

/* The drive goes on with the next layer as soon as it has no more to read for this one. */
static void read_on(struct cpu_backend *be)
{
    if (!be->round.next || !store_has_read(be->options.store)) return;
    store_read_on(be->options.store, be->round.next);
    be->round.next = NULL;
}

/* Thread 0 chooses what is computed next: what has arrived, or everything when it is mapped. */
static void next_round(struct cpu_backend *be)
{
    struct experts_round *round = &be->round;
    if (be->options.store) {
        be->status = store_next(be->options.store, round->experts, round->n_active, true, &round->n,
                                &be->error);
        if (be->status == SLUICE_OK) read_on(be);
    } else {
        memcpy(round->experts, round->active, round->n_active * sizeof *round->experts);
        round->n = round->n_active;
    }
    round->n_left -= round->n;
}

static void begin_rounds(struct cpu_backend *be, const struct experts_run *run)
{
    be->round.n_left = be->round.n_active;
    if (run->in.act) run->in.act->cols = run->in.width;
    if (run->mid.act) run->mid.act->cols = run->mid.width;
}

/* gate and up one after the other, of values that a joint matrix gives in pairs */
static void part_pairs(const float *pairs, size_t n, float *gate, float *up)
{
    for (size_t i = 0; i < n; i++) {
        gate[i] = pairs[2 * i];
        up[i] = pairs[2 * i + 1];
    }
}

/* What this thread computed of the gate and up of a pick of expert e, biases added. */
static void find_gate_and_up(const struct task *t, const struct experts_run *run, uint32_t e,
                             float *row, uint32_t begin, uint32_t end, float **gate, float **up)
{
    size_t inter = run->mid.width, n = end - begin;
    const float *bias = run->bank->gate_up_bias;
    if (bias) bias += e * 2 * inter;
    if (run->bank->paired) {
        float *pairs = row + (size_t)2 * begin;
        if (bias) t->k->add(pairs, bias + (size_t)2 * begin, (uint32_t)(2 * n), pairs);
        *gate = scratch_of(t);
        *up = *gate + n;
        part_pairs(pairs, n, *gate, *up);
        return;
    }
    *gate = row + begin;
    *up = row + inter + begin;
    if (!bias) return;
    t->k->add(*gate, bias + begin, (uint32_t)n, *gate);
    t->k->add(*up, bias + inter + begin, (uint32_t)n, *up);
}

/*
 * Values [begin, end) of the activation of pick p of expert e, whose gate and up are in row, and
 * their int8 form.
 */
static void activate(const struct task *t, const struct experts_run *run, uint32_t e, size_t p,
                     float *row, uint32_t begin, uint32_t end)
{
    size_t at = p * run->mid.width + begin, group = at / ACT8_GROUP;
    float *gate, *up, *y = run->mid.x ? BUF(t, run->op->act) + at : run->block.act;
    find_gate_and_up(t, run, e, row, begin, end, &gate, &up);
    if (run->op->limit > 0)
        t->k->swiglu_clamped(gate, up, end - begin, run->op->limit, y);
    else
        t->k->swiglu(gate, up, end - begin, y);
    struct act8 *act = run->mid.act;
    if (act) t->k->quantize_act8(y, end - begin, act->q + at, act->scale + group, act->sum + group);
}

/*
 * Between the experts of a round: a read that has finished makes room for the next, and the drive
 * is not to wait until the round is over.
 */
static void keep_reading(const struct task *t)
{
    if (t->thread != 0 || !t->be->options.store) return;
    store_poll(t->be->options.store);
    read_on(t->be);
}

static struct pick_block block_of(const struct task *t)
{
    const struct cpu_backend *be = t->be;
    size_t in = be->most_in, groups = in / ACT8_GROUP;
    uint8_t *at = (uint8_t *)scratch_of(t) + be->block_at;
    float *floats = (float *)(void *)(at + PICK_BLOCK * in);
    return (struct pick_block){.q = (int8_t *)at,
                               .scale = floats,
                               .sum = floats + PICK_BLOCK * groups,
                               .gate_up = floats + 2 * PICK_BLOCK * groups,
                               .act = floats + 2 * PICK_BLOCK * groups +
                                      PICK_BLOCK * cpu_block_stride(be)};
}

/* The rows of n picks from p on, one after the other: *row is the first, in *in. */
static void take_rows(const struct experts_run *run, uint32_t p, uint32_t n, struct act8 *copy,
                      struct rows_in *in, uint32_t *row)
{
    const struct pick_block *block = &run->block;
    const struct act8 *act = run->in.act;
    const size_t width = run->in.width, groups = width / ACT8_GROUP;
    *in = run->in;
    *row = in->rows ? (uint32_t)in->rows[p] : p;
    if (!in->rows || in->rows[p + n - 1] - in->rows[p] == (int32_t)n - 1) return;
    for (size_t i = 0; i < n; i++) {
        size_t from = (size_t)in->rows[p + i];
        memcpy(block->q + i * width, act->q + from * width, width);
        memcpy(block->scale + i * groups, act->scale + from * groups, groups * sizeof(float));
        memcpy(block->sum + i * groups, act->sum + from * groups, groups * sizeof(float));
    }
    *copy = (struct act8){run->in.width, block->q, block->scale, block->sum};
    in->act = copy;
    *row = 0;
}

/*
 * Columns [begin, end) of the activation for n picks of expert e from p on. Its gate and up lie one
 * after the other in a pick's row, or in pairs as a joint matrix gives them.
 */
static void activate_picks(const struct task *t, const struct experts_run *run, uint32_t e,
                           uint32_t p, uint32_t n, uint32_t begin, uint32_t end)
{
    const struct expert_bank *bank = run->bank;
    const struct expert_view *v = view_of(t, run, e);
    const size_t stride = cpu_block_stride(t->be);
    float *y = run->block.gate_up;
    uint32_t each = bank->paired ? 2 : 1, row;
    struct act8 copy;
    struct rows_in in;
    take_rows(run, p, n, &copy, &in, &row);
    expert_matmul(t, &v->gate, bank->transposed, each * begin, each * end, &in, row, n, y, stride);
    if (!bank->paired)
        expert_matmul(t, &v->up, bank->transposed, begin, end, &in, row, n, y + run->mid.width,
                      stride);
    for (uint32_t i = 0; i < n; i++) activate(t, run, e, p + i, y + i * stride, begin, end);
}

/*
 * This thread's values of the activation, whole groups of int8, for all picks of the round: what it
 * needs of gate and up is what it computed.
 */
static void gate_and_up(const struct task *t, const struct experts_run *run)
{
    uint32_t begin, end;
    share(t, run->mid.width, ACT8_GROUP, &begin, &end);
    for (uint32_t i = 0; i < t->be->round.n && begin < end; i++) {
        uint32_t e = t->be->round.experts[i], p1 = (uint32_t)run->offsets[e + 1];
        for (uint32_t p = (uint32_t)run->offsets[e]; p < p1; p += PICK_BLOCK)
            activate_picks(t, run, e, p, min_u32(PICK_BLOCK, p1 - p), begin, end);
        keep_reading(t);
    }
}

/* Rows [begin, end) of a bias, for picks [p0, p1). */
static void add_bias(const struct task *t, const float *bias, uint32_t begin, uint32_t end,
                     uint32_t width, uint32_t p0, uint32_t p1, float *y)
{
    for (size_t p = p0; p < p1; p++) {
        float *row = y + p * width + begin;
        t->k->add(row, bias + begin, end - begin, row);
    }
}

static void down(const struct task *t, const struct experts_run *run)
{
    const struct expert_bank *bank = run->bank;
    float *y = BUF(t, run->op->y);
    uint32_t hidden = WIDTH(t, run->op->y), begin, end;
    share(t, hidden, ROW_GRAIN, &begin, &end);
    for (uint32_t i = 0; i < t->be->round.n && begin < end; i++) {
        uint32_t e = t->be->round.experts[i];
        uint32_t p0 = (uint32_t)run->offsets[e], p1 = (uint32_t)run->offsets[e + 1];
        expert_matmul(t, &view_of(t, run, e)->down, bank->transposed, begin, end, &run->mid, p0,
                      p1 - p0, y + (size_t)p0 * hidden, hidden);
        if (bank->down_bias)
            add_bias(t, bank->down_bias + (size_t)e * hidden, begin, end, hidden, p0, p1, y);
        keep_reading(t);
    }
}

static void give_back(struct cpu_backend *be)
{
    for (uint32_t i = 0; be->options.store && i < be->round.n; i++)
        store_done(be->options.store, be->round.experts[i]);
}

/*
 * Rounds of experts that are there, until all were. Every pick has rows of its own, so the order of
 * rounds changes no bit.
 */
void cpu_experts(const struct task *t, const struct node *node)
{
    const struct op_experts *op = &node->u.experts;
    struct cpu_backend *be = t->be;
    uint8_t int8 = BANK_INT8(t, op->bank);
    bool finds = cpu_finds_rows(be, BUFFER_DECL(be, op->x));
    struct experts_run run = {
        .op = op,
        .bank = WT(t, op->bank)->bank,
        .offsets = BUF_I32(t, op->offsets),
        .in = {BUF(t, op->x), int8 & BANK_INT8_IN ? &be->act_expert_in.act : NULL,
               finds ? be->pick_rows : NULL, WIDTH(t, op->x)},
        .mid = {BUF(t, op->act), int8 & BANK_INT8_MID ? &be->act_expert_mid.act : NULL, NULL,
                WIDTH(t, op->act)},
        .block = block_of(t),
    };
    if (t->thread == 0) begin_rounds(be, &run);
    if (run.in.act && !finds) quantize_rows(t, &run.in, N_ROWS(t, op->x));
    for (;;) {
        if (t->thread == 0) next_round(be);
        pool_barrier_asleep(be->pool);
        if (be->status != SLUICE_OK) return;
        gate_and_up(t, &run);
        pool_barrier(be->pool);
        down(t, &run);
        bool last = be->round.n_left == 0;
        pool_barrier(be->pool);
        if (t->thread == 0) give_back(be);
        if (last) return;
    }
}

/* Slots of a token ascend in expert id, so the sum does. */
void cpu_expert_sum(const struct task *t, const struct node *node)
{
    const struct op_expert_sum *op = &node->u.expert_sum;
    const float *x = BUF(t, op->x);
    size_t width = WIDTH(t, op->y);
    uint32_t k = WIDTH(t, op->places), begin, end;
    share(t, N_ROWS(t, op->y), 1, &begin, &end);
    float *rows = scratch_of(t);
    for (size_t r = begin; r < end; r++) {
        const int32_t *places = BUF_I32(t, op->places) + r * k;
        for (uint32_t j = 0; j < k; j++)
            memcpy(rows + j * width, x + (size_t)places[j] * width, width * sizeof *rows);
        t->k->weighted_sum(rows, width, BUF(t, op->weights) + r * k, k, (uint32_t)width,
                           BUF(t, op->y) + r * width);
    }
}

void cpu_swiglu(const struct task *t, const struct node *node)
{
    const struct op_swiglu *op = &node->u.swiglu;
    uint32_t width = WIDTH(t, op->y), begin, end, first, last;
    share_columns(t, N_ROWS(t, op->y), width, ROW_GRAIN, &begin, &end, &first, &last);
    for (size_t r = begin; r < end; r++) {
        size_t at = r * width + first;
        t->k->swiglu(BUF(t, op->gate) + at, BUF(t, op->up) + at, last - first, BUF(t, op->y) + at);
    }
}

void cpu_combine(const struct task *t, const struct node *node)
{
    const struct op_combine *op = &node->u.combine;
    size_t width = WIDTH(t, op->y);
    uint32_t begin, end;
    share(t, N_ROWS(t, op->y), 1, &begin, &end);
    for (size_t r = begin; r < end; r++)
        t->k->combine(BUF(t, op->residual) + r * width, BUF(t, op->moe) + r * width,
                      BUF(t, op->shared) + r * width, BUF(t, op->gate)[r], (uint32_t)width,
                      BUF(t, op->y) + r * width);
}

void cpu_combine_ungated(const struct task *t, const struct node *node)
{
    const struct op_combine_ungated *op = &node->u.combine_ungated;
    size_t width = WIDTH(t, op->y);
    uint32_t begin, end;
    share(t, N_ROWS(t, op->y), 1, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        float *y = BUF(t, op->y) + r * width;
        t->k->add(BUF(t, op->moe) + r * width, BUF(t, op->shared) + r * width, (uint32_t)width, y);
        t->k->add(BUF(t, op->residual) + r * width, y, (uint32_t)width, y);
    }
}
