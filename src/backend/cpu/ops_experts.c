/*
 * Experts and the rows they take. Every expert's results are kept per pick, so that order changes
 * no bit.
 */
#include <string.h>

#include "backend/cpu/cpu_internal.h"
#include "base/bits.h"

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
        if (t->be->one) share(t, N_ROWS(t, op->y), N_ROWS(t, op->y), &begin, &end);
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
    else if (cpu_takes_bf16(t->be, w))
        t->k->matmul_bf16[w->type](w, begin, end, x, in->width, n, y, ldy, scratch_of(t));
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
    struct pieces gate_up, down;
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
    atomic_store_explicit(&round->gate_up_turn, 0, memory_order_relaxed);
    atomic_store_explicit(&round->down_turn, 0, memory_order_relaxed);
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

/* Columns of the activation, whole groups of int8, for all picks of an expert of the round. */
static void gate_and_up(const struct task *t, const struct experts_run *run, uint32_t e,
                        uint32_t begin, uint32_t end)
{
    uint32_t p1 = (uint32_t)run->offsets[e + 1];
    for (uint32_t p = (uint32_t)run->offsets[e]; p < p1; p += PICK_BLOCK)
        activate_picks(t, run, e, p, min_u32(PICK_BLOCK, p1 - p), begin, end);
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

/* Columns of the result for all picks of an expert of the round. */
static void down(const struct task *t, const struct experts_run *run, uint32_t e, uint32_t begin,
                 uint32_t end)
{
    const struct expert_bank *bank = run->bank;
    float *y = BUF(t, run->op->y);
    uint32_t hidden = WIDTH(t, run->op->y);
    uint32_t p0 = (uint32_t)run->offsets[e], p1 = (uint32_t)run->offsets[e + 1];
    expert_matmul(t, &view_of(t, run, e)->down, bank->transposed, begin, end, &run->mid, p0,
                  p1 - p0, y + (size_t)p0 * hidden, hidden);
    if (bank->down_bias)
        add_bias(t, bank->down_bias + (size_t)e * hidden, begin, end, hidden, p0, p1, y);
}

/* A half of an expert: what it computes of columns [begin, end), ROW_GRAIN or more of them. */
typedef void half_fn(const struct task *t, const struct experts_run *run, uint32_t e,
                     uint32_t begin, uint32_t end);

/* Pieces of the experts of a round, one expert after the other; each: grains of one. */
static void half_in_pieces(const struct task *t, const struct experts_run *run, half_fn *half,
                           uint32_t width, const struct pieces *each)
{
    const struct experts_round *round = &t->be->round;
    const struct pieces all = {each->turn, each->n * round->n, each->least};
    uint32_t begin, end, next;
    while (cpu_next_piece(t, &all, &begin, &end))
        for (; begin < end; begin = next) {
            uint32_t i = begin / each->n, first = i * each->n;
            next = min_u32(end, first + each->n);
            half(t, run, round->experts[i], (begin - first) * ROW_GRAIN,
                 min_u32((next - first) * ROW_GRAIN, width));
            keep_reading(t);
        }
}

/* This thread's part of a half of all experts of the round. */
static void compute_half(const struct task *t, const struct experts_run *run, half_fn *half,
                         uint32_t width, const struct pieces *each)
{
    uint32_t begin, end;
    if (each->turn) {
        half_in_pieces(t, run, half, width, each);
        return;
    }
    share(t, width, ROW_GRAIN, &begin, &end);
    for (uint32_t i = 0; i < t->be->round.n && begin < end; i++) {
        half(t, run, t->be->round.experts[i], begin, end);
        keep_reading(t);
    }
}

/*
 * This thread's experts of the round, each from its input to its result: where threads get equally
 * many, rows that follow each other are read by one of them, and nobody waits between the halves.
 */
static void compute_whole(const struct task *t, const struct experts_run *run, uint32_t hidden)
{
    const struct experts_round *round = &t->be->round;
    uint32_t begin, end;
    pool_share(round->n, 1, t->thread, t->n_threads, &begin, &end);
    for (uint32_t i = begin; i < end; i++) {
        gate_and_up(t, run, round->experts[i], 0, run->mid.width);
        down(t, run, round->experts[i], 0, hidden);
        keep_reading(t);
    }
}

/* How the two halves are divided: in pieces where experts are large. */
static void divide(const struct task *t, struct experts_run *run, const struct node *node)
{
    struct cpu_backend *be = t->be;
    const struct expert_view *v = &run->bank->experts[0];
    if (!cpu_is_in_pieces(be, node)) return;
    uint32_t n = div_up_u32(run->mid.width, ROW_GRAIN);
    uint64_t bytes = wmat_bytes(&v->gate) + wmat_bytes(&v->up);
    run->gate_up = (struct pieces){&be->round.gate_up_turn, n, cpu_least_piece(be, bytes / n, 1)};
    n = div_up_u32(WIDTH(t, run->op->y), ROW_GRAIN);
    bytes = wmat_bytes(&v->down);
    run->down = (struct pieces){&be->round.down_turn, n, cpu_least_piece(be, bytes / n, 1)};
}

void cpu_give_back(struct cpu_backend *be)
{
    for (uint32_t i = 0; be->options.store && i < be->round.n_held; i++)
        store_done(be->options.store, be->round.experts[i]);
    be->round.n_held = 0;
}

/*
 * Rounds of experts that are there, until all were. Every pick has rows of its own, so the order of
 * rounds changes no bit. After the last one threads go on to what they make of their columns.
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
    divide(t, &run, node);
    if (t->thread == 0) begin_rounds(be, &run);
    if (run.in.act && !finds) quantize_rows(t, &run.in, N_ROWS(t, op->x));
    for (;;) {
        if (t->thread == 0) next_round(be);
        pool_barrier_asleep(be->pool);
        if (be->status != SLUICE_OK) return;
        if (be->one && cpu_whole_experts(be, node) && be->round.n % t->n_threads == 0) {
            compute_whole(t, &run, WIDTH(t, op->y));
        } else {
            compute_half(t, &run, gate_and_up, run.mid.width, &run.gate_up);
            pool_barrier(be->pool);
            compute_half(t, &run, down, WIDTH(t, op->y), &run.down);
        }
        if (t->thread == 0) be->round.n_held = be->round.n;
        if (be->round.n_left == 0) return;
        pool_barrier(be->pool);
        if (t->thread == 0) cpu_give_back(be);
    }
}
