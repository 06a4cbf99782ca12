/* Ops of the MoE block. Every expert's results are kept per pick, so that order changes no bit. */
#include <string.h>

#include "backend/cpu/cpu_internal.h"

void cpu_router(const struct task *t, const struct node *node)
{
    const struct op_router *op = &node->u.router;
    size_t n_experts = WIDTH(t, op->logits);
    uint32_t begin, end;
    share(t, N_ROWS(t, op->logits), 1, &begin, &end);
    for (size_t r = begin; r < end; r++)
        t->k->softmax_top_k(BUF(t, op->logits) + r * n_experts, (uint32_t)n_experts, op->k,
                            op->normalize, BUF_I32(t, op->ids) + r * op->k,
                            BUF(t, op->weights) + r * op->k, scratch_of(t));
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
    memset(offsets, 0, (op->n_experts + 1) * sizeof *offsets);
    for (uint32_t i = 0; i < n; i++) offsets[ids[i] + 1]++;
    for (uint32_t e = 0; e < op->n_experts; e++) {
        t->be->expert_uses += offsets[e + 1] != 0;
        offsets[e + 1] += offsets[e];
    }
    /* offsets[e] walks through e's places, then all move up by one. */
    for (uint32_t i = 0; i < n; i++) {
        int32_t place = offsets[ids[i]]++;
        places[i] = place;
        rows[place] = (int32_t)(i / k);
    }
    memmove(offsets + 1, offsets, op->n_experts * sizeof *offsets);
    offsets[0] = 0;
}

void cpu_gather_rows(const struct task *t, const struct node *node)
{
    const struct op_gather_rows *op = &node->u.gather_rows;
    const float *x = BUF(t, op->x);
    const int32_t *rows = BUF_I32(t, op->rows);
    float *y = BUF(t, op->y);
    size_t width = WIDTH(t, op->x);
    uint32_t begin, end;
    share(t, N_ROWS(t, op->y), 1, &begin, &end);
    for (size_t p = begin; p < end; p++)
        memcpy(y + p * width, x + (size_t)rows[p] * width, width * sizeof *y);
}

/* Some rows of activations: floats, and their int8 form when a matrix wants it. */
struct rows_in {
    const float *x;
    struct act8 *act; /* NULL: f32 */
    uint32_t width;
};

static void quantize_rows(const struct task *t, const struct rows_in *in, uint32_t n)
{
    if (t->thread == 0) in->act->cols = in->width;
    uint32_t begin, end;
    share(t, n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        size_t at = r * in->width, group = at / ACT8_GROUP;
        t->k->quantize_act8(in->x + at, in->width, in->act->q + at, in->act->scale + group,
                            in->act->sum + group);
    }
}

enum { ROW_GRAIN = 16 };

/* This thread's rows of one expert's matrix, over picks [p0, p1). */
static void expert_matmul(const struct task *t, const struct wmat *w, const struct rows_in *in,
                          uint32_t p0, uint32_t p1, float *y)
{
    uint32_t begin, end;
    share(t, w->rows, ROW_GRAIN, &begin, &end);
    if (begin == end) return;
    float *out = y + (size_t)p0 * w->rows;
    if (in->act && wtype_is_packed(w->type))
        t->k->matmul_i8[w->type](w, begin, end, in->act, p0, p1 - p0, out, w->rows, scratch_of(t));
    else
        t->k->matmul_f32[w->type](w, begin, end, in->x + (size_t)p0 * in->width, in->width, p1 - p0,
                                  out, w->rows, scratch_of(t));
}

/* act = silu(gate) * up of every pick, and its int8 form. */
static void activate(const struct task *t, const struct op_experts *op, const struct rows_in *mid,
                     uint32_t n)
{
    size_t inter = mid->width;
    uint32_t begin, end;
    share(t, n, 1, &begin, &end);
    for (size_t p = begin; p < end; p++)
        t->k->swiglu(BUF(t, op->gate) + p * inter, BUF(t, op->up) + p * inter, (uint32_t)inter,
                     BUF(t, op->act) + p * inter);
    if (mid->act) quantize_rows(t, mid, n);
}

void cpu_experts(const struct task *t, const struct node *node)
{
    const struct op_experts *op = &node->u.experts;
    const struct expert_bank *bank = WT(t, op->bank)->bank;
    const int32_t *offsets = BUF_I32(t, op->offsets);
    uint32_t n = N_ROWS(t, op->x);
    uint8_t int8 = cpu_bank_int8(t->be, op->bank.id);
    struct rows_in in = {BUF(t, op->x), int8 & BANK_INT8_IN ? &t->be->act_expert_in : NULL,
                         WIDTH(t, op->x)};
    struct rows_in mid = {BUF(t, op->act), int8 & BANK_INT8_MID ? &t->be->act_expert_mid : NULL,
                          WIDTH(t, op->act)};
    if (in.act) {
        quantize_rows(t, &in, n);
        pool_barrier(t->be->pool);
    }
    for (uint32_t e = 0; e < op->n_experts; e++) {
        uint32_t p0 = (uint32_t)offsets[e], p1 = (uint32_t)offsets[e + 1];
        if (p0 == p1) continue;
        expert_matmul(t, &bank->experts[e].gate, &in, p0, p1, BUF(t, op->gate));
        expert_matmul(t, &bank->experts[e].up, &in, p0, p1, BUF(t, op->up));
    }
    pool_barrier(t->be->pool);
    activate(t, op, &mid, n);
    pool_barrier(t->be->pool);
    for (uint32_t e = 0; e < op->n_experts; e++) {
        uint32_t p0 = (uint32_t)offsets[e], p1 = (uint32_t)offsets[e + 1];
        if (p0 != p1) expert_matmul(t, &bank->experts[e].down, &mid, p0, p1, BUF(t, op->y));
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
    size_t width = WIDTH(t, op->y);
    uint32_t begin, end;
    share(t, N_ROWS(t, op->y), 1, &begin, &end);
    for (size_t r = begin; r < end; r++)
        t->k->swiglu(BUF(t, op->gate) + r * width, BUF(t, op->up) + r * width, (uint32_t)width,
                     BUF(t, op->y) + r * width);
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
