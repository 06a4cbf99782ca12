/*
 * Ops of multi-head latent attention in its absorbed form: the cache has one latent a position for
 * all heads, and queries and results are brought to its space and back by a matrix for each head.
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu_internal.h"
#include "base/bits.h"

void cpu_split_mla_q(const struct task *t, const struct node *node)
{
    const struct op_split_mla_q *op = &node->u.split_mla_q;
    size_t rotated = op->rotated, nope = WIDTH(t, op->nope) / op->n_heads;
    uint32_t begin, end;
    share(t, N_ROWS(t, op->x) * op->n_heads, 1, &begin, &end);
    for (size_t h = begin; h < end; h++) {
        const float *x = BUF(t, op->x) + h * (nope + rotated);
        memcpy(BUF(t, op->nope) + h * nope, x, nope * sizeof *x);
        memcpy(BUF(t, op->rot) + h * rotated, x + nope, rotated * sizeof *x);
    }
}

void cpu_split_latent(const struct task *t, const struct node *node)
{
    const struct op_split_latent *op = &node->u.split_latent;
    size_t rank = op->rank, rotated = WIDTH(t, op->rot);
    uint32_t begin, end;
    share(t, N_ROWS(t, op->x), 1, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        const float *x = BUF(t, op->x) + r * (rank + rotated);
        memcpy(BUF(t, op->latent) + r * rank, x, rank * sizeof *x);
        memcpy(BUF(t, op->rot) + r * rotated, x + rank, rotated * sizeof *x);
    }
}

/* The matrix of one head, rows as they are stored. */
static struct wmat head_matrix(const struct weight_data *w, uint32_t head, uint32_t rows)
{
    return wmat_rows(&w->matrix, w->heads.first + (uint64_t)head * w->heads.stride, rows);
}

/* y[t] = W x[t] or W^T x[t] for n rows that are x_width and y_width apart. */
static void head_product(const struct task *t, const struct wmat *w, bool transposed,
                         const float *x, size_t x_width, uint32_t n, float *y, size_t y_width)
{
    if (transposed)
        t->k->matmul_t_f32[w->type](w, 0, w->cols, x, x_width, n, y, y_width, scratch_of(t));
    else
        t->k->matmul_f32[w->type](w, 0, w->rows, x, x_width, n, y, y_width, scratch_of(t));
}

void cpu_absorb(const struct task *t, const struct node *node)
{
    const struct op_absorb *op = &node->u.absorb;
    const struct weight_data *w = WT(t, op->w);
    size_t in = WIDTH(t, op->x), out = WIDTH(t, op->y);
    uint32_t nope = (uint32_t)in / op->n_heads, rank = (uint32_t)out / op->n_heads, begin, end;
    share(t, op->n_heads, 1, &begin, &end);
    for (uint32_t h = begin; h < end; h++) {
        struct wmat m = head_matrix(w, h, w->heads.transposed ? rank : nope);
        head_product(t, &m, !w->heads.transposed, BUF(t, op->x) + (size_t)h * nope, in,
                     N_ROWS(t, op->x), BUF(t, op->y) + (size_t)h * rank, out);
    }
}

void cpu_expand(const struct task *t, const struct node *node)
{
    const struct op_expand *op = &node->u.expand;
    const struct weight_data *w = WT(t, op->w);
    size_t in = WIDTH(t, op->x), out = WIDTH(t, op->y);
    uint32_t rank = (uint32_t)in / op->n_heads, values = (uint32_t)out / op->n_heads, begin, end;
    share(t, op->n_heads, 1, &begin, &end);
    for (uint32_t h = begin; h < end; h++) {
        struct wmat m = head_matrix(w, h, values);
        head_product(t, &m, false, BUF(t, op->x) + (size_t)h * rank, in, N_ROWS(t, op->x),
                     BUF(t, op->y) + (size_t)h * values, out);
    }
}

static void store_part(const struct task *t, const struct sequence *seq, const float *x, uint32_t n,
                       void *rows, size_t at)
{
    if (seq->layout->kv_type == KV_F16)
        t->k->f32_to_f16_row(x, n, (uint16_t *)rows + at);
    else
        memcpy((float *)rows + at, x, n * sizeof *x);
}

void cpu_latent_append(const struct task *t, const struct node *node)
{
    const struct op_latent_append *op = &node->u.latent_append;
    uint32_t kv = STATE_INDEX(t, op->cache), begin, end;
    share(t, N_ROWS(t, op->latent), 1, &begin, &end);
    for (uint32_t r = begin; r < end; r++) {
        const struct batch_segment *s = batch_segment_of(t->be->batch, r);
        uint32_t position = s->sequence->position + (r - s->first);
        void *rows = sequence_keys(s->sequence, kv, position / SEQUENCE_PAGE, 0);
        size_t at = (size_t)(position % SEQUENCE_PAGE) * (op->rank + op->rotated);
        store_part(t, s->sequence, BUF(t, op->latent) + (size_t)r * op->rank, op->rank, rows, at);
        store_part(t, s->sequence, BUF(t, op->rot) + (size_t)r * op->rotated, op->rotated, rows,
                   at + op->rank);
    }
}

/* Query heads of a row that go over the blocks together. */
enum { HEAD_GROUP = 8 };

static void attend(const struct task *t, const struct latent_query *q, uint32_t kv,
                   const struct sequence *seq, uint32_t position, float *y)
{
    struct softmax_state st[HEAD_GROUP];
    for (uint32_t h = 0; h < q->heads; h++) st[h] = (struct softmax_state){-INFINITY, 0.0f};
    memset(y, 0, (size_t)q->heads * q->rank * sizeof *y);
    for (uint32_t page = 0; page * SEQUENCE_PAGE <= position; page++) {
        uint32_t count = min_u32(position + 1 - page * SEQUENCE_PAGE, SEQUENCE_PAGE);
        const void *rows = sequence_keys(seq, kv, page, 0);
        if (seq->layout->kv_type == KV_F16)
            t->k->latent_block_f16(q, rows, count, st, y);
        else
            t->k->latent_block_f32(q, rows, count, st, y);
    }
    for (uint32_t h = 0; h < q->heads; h++) {
        float *row = y + (size_t)h * q->rank;
        t->k->scale(row, 1.0f / st[h].sum, q->rank, row);
    }
}

void cpu_latent_attention(const struct task *t, const struct node *node)
{
    const struct op_latent_attention *op = &node->u.latent_attention;
    uint32_t groups = div_up_u32(op->n_heads, HEAD_GROUP), n = N_ROWS(t, op->q) * groups;
    /* Later rows see more positions: threads take them in turns, not in halves. */
    for (uint32_t i = t->thread; i < n; i += t->n_threads) {
        uint32_t row = i / groups, head = i % groups * HEAD_GROUP;
        const struct batch_segment *s = batch_segment_of(t->be->batch, row);
        size_t at = (size_t)row * op->n_heads + head;
        struct latent_query q = {.latent = BUF(t, op->q) + at * op->rank,
                                 .rot = BUF(t, op->rot) + at * op->rotated,
                                 .heads = min_u32(op->n_heads - head, HEAD_GROUP),
                                 .rank = op->rank,
                                 .rotated = op->rotated,
                                 .scale = op->scale};
        attend(t, &q, STATE_INDEX(t, op->cache), s->sequence,
               s->sequence->position + (row - s->first), BUF(t, op->y) + at * op->rank);
    }
}
