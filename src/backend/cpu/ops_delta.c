/* Ops of the gated DeltaNet layer. Recurrent state is read from the committed copy, written to
 * next. */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu_internal.h"
#include "base/bits.h"

void cpu_split_qkvz(const struct task *t, const struct node *node)
{
    const struct op_split_qkvz *op = &node->u.split_qkvz;
    size_t heads = op->n_k_heads, dk = op->dk, values = WIDTH(t, op->z), each = values / heads;
    size_t width = WIDTH(t, op->x);
    uint32_t begin, end;
    share(t, N_ROWS(t, op->x), 1, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        float *q = BUF(t, op->qkv) + r * WIDTH(t, op->qkv), *k = q + heads * dk,
              *v = k + heads * dk;
        float *z = BUF(t, op->z) + r * values;
        for (size_t h = 0; h < heads; h++) {
            const float *x = BUF(t, op->x) + r * width + h * (width / heads);
            memcpy(q + h * dk, x, dk * sizeof *q);
            memcpy(k + h * dk, x + dk, dk * sizeof *k);
            memcpy(v + h * each, x + 2 * dk, each * sizeof *v);
            memcpy(z + h * each, x + 2 * dk + each, each * sizeof *z);
        }
    }
}

void cpu_split_ba(const struct task *t, const struct node *node)
{
    const struct op_split_ba *op = &node->u.split_ba;
    size_t each = WIDTH(t, op->beta) / op->n_k_heads;
    uint32_t begin, end;
    share(t, N_ROWS(t, op->x) * op->n_k_heads, 1, &begin, &end);
    for (size_t h = begin; h < end; h++) {
        const float *x = BUF(t, op->x) + h * 2 * each;
        memcpy(BUF(t, op->beta) + h * each, x, each * sizeof *x);
        memcpy(BUF(t, op->alpha) + h * each, x + each, each * sizeof *x);
    }
}

/*
 * Row t of the convolution's window over [state rows; batch rows], t counted from the oldest state
 * row.
 */
static const float *window_row(const float *state, const float *x, uint32_t n_state, uint32_t i,
                               size_t channels)
{
    return i < n_state ? state + i * channels : x + (i - n_state) * channels;
}

/* Channels [first, last) of rows [begin, end). */
static void conv_rows(const struct task *t, const struct op_conv *op, const float *state,
                      const float *x, uint32_t begin, uint32_t end, uint32_t first, uint32_t last,
                      float *y)
{
    size_t channels = WIDTH(t, op->x);
    const float *rows[CONV_MAX_WIDTH];
    for (uint32_t r = begin; r < end && first < last; r++) {
        for (uint32_t j = 0; j < op->width; j++)
            rows[j] = window_row(state, x, op->width - 1, r + j, channels) + first;
        t->k->conv_silu(rows, WT(t, op->w)->values + first, channels, op->width, last - first,
                        y + r * channels + first);
    }
}

/* The last width - 1 rows of [state; batch rows] become the state: n channels from state, x on. */
static void conv_next(const struct op_conv *op, const float *state, const float *x, uint32_t count,
                      size_t channels, size_t n, float *next)
{
    uint32_t keep = op->width - 1;
    for (uint32_t j = 0; j < keep; j++)
        memcpy(next + j * channels, window_row(state, x, keep, count + j, channels),
               n * sizeof *next);
}

void cpu_conv(const struct task *t, const struct node *node)
{
    const struct op_conv *op = &node->u.conv;
    uint32_t channels = WIDTH(t, op->x), index = STATE_INDEX(t, op->state);
    for (uint32_t i = 0; i < t->be->batch->n_segments; i++) {
        const struct batch_segment *s = &t->be->batch->segments[i];
        const float *state = sequence_recurrent(s->sequence, index);
        const float *x = BUF(t, op->x) + s->first * channels;
        float *y = BUF(t, op->y) + s->first * channels;
        float *next = sequence_recurrent_next(s->sequence, index);
        uint32_t begin, end, first, last;
        share_columns(t, sharing_of(t, node), s->count, (uint32_t)channels, &begin, &end, &first,
                      &last);
        conv_rows(t, op, state, x, begin, end, first, last, y);
        if (t->be->one)
            conv_next(op, state + first, x + first, 1, channels, last - first, next + first);
        else if (i % t->n_threads == t->thread)
            conv_next(op, state, x, s->count, channels, channels, next);
    }
}

/* Values [first, last) of a row: heads of q and k by their length, those of v as they are. */
static void norm_heads(const struct task *t, const struct op_delta_norm *op, const float *x,
                       uint32_t first, uint32_t last, float *y)
{
    const uint32_t dk = op->dk, values = 2 * op->n_k_heads * dk;
    const float q_scale = 1.0f / sqrtf((float)dk);
    for (uint32_t at = first; at < last && at < values; at += dk)
        t->k->l2_norm(x + at, dk, op->eps, at < values / 2 ? q_scale : 1.0f, y + at);
    first = max_u32(first, values);
    if (first < last) memcpy(y + first, x + first, (last - first) * sizeof *y);
}

void cpu_delta_norm(const struct task *t, const struct node *node)
{
    const struct op_delta_norm *op = &node->u.delta_norm;
    const uint32_t width = WIDTH(t, op->x);
    uint32_t begin, end, first, last;
    share_columns(t, sharing_of(t, node), N_ROWS(t, op->x), width, &begin, &end, &first, &last);
    for (size_t r = begin; r < end; r++)
        norm_heads(t, op, BUF(t, op->x) + r * width, first, last, BUF(t, op->y) + r * width);
}

void cpu_decay_beta(const struct task *t, const struct node *node)
{
    const struct op_decay_beta *op = &node->u.decay_beta;
    const uint32_t heads = WIDTH(t, op->alpha);
    uint32_t begin, end, first, last;
    share_columns(t, sharing_of(t, node), N_ROWS(t, op->alpha), heads, &begin, &end, &first, &last);
    for (size_t r = begin; r < end; r++) {
        size_t at = r * heads + first;
        t->k->decay_beta(BUF(t, op->alpha) + at, BUF(t, op->beta) + at,
                         WT(t, op->neg_a)->values + first, WT(t, op->dt_bias)->values + first,
                         last - first, BUF(t, op->g) + at, BUF(t, op->b) + at);
    }
}

/* All tokens of a segment through rows [begin, end) of the state of one head, in order. */
static void delta_rows(const struct task *t, const struct op_delta_net *op,
                       const struct batch_segment *s, uint32_t head, uint32_t begin, uint32_t end,
                       uint32_t index)
{
    size_t dk = op->dk, dv = op->dv, width = WIDTH(t, op->x), heads = op->n_v_heads;
    uint32_t k_head = op->tiled ? head % op->n_k_heads : head / (op->n_v_heads / op->n_k_heads);
    const float *row = BUF(t, op->x) + s->first * width;
    size_t at = (size_t)s->first * heads + head, first = (head * dv + begin) * dk;
    struct delta_tokens x = {.q = row + k_head * dk,
                             .k = row + (op->n_k_heads + k_head) * dk,
                             .v = row + 2 * op->n_k_heads * dk + head * dv + begin,
                             .g = BUF(t, op->g) + at,
                             .b = BUF(t, op->b) + at,
                             .out = BUF(t, op->y) + at * dv + begin,
                             .ld = width,
                             .ldg = heads,
                             .ldo = heads * dv,
                             .n = s->count,
                             .streams = t->be->streams_states};
    t->k->delta_net(sequence_recurrent(s->sequence, index) + first,
                    sequence_recurrent_next(s->sequence, index) + first, &x, op->dk, end - begin);
}

enum { STATE_ROWS = 32 };

/*
 * Rows of a state go their ways by themselves, so threads share rows. With one token whole heads:
 * the threads that gated_norm gives them to go on without a barrier.
 */
void cpu_delta_net(const struct task *t, const struct node *node)
{
    const struct op_delta_net *op = &node->u.delta_net;
    const struct batch *batch = t->be->batch;
    uint32_t index = STATE_INDEX(t, op->state), dv = op->dv, begin, end;
    share(t, batch->n_segments * op->n_v_heads * dv, batch->n_tokens == 1 ? dv : STATE_ROWS, &begin,
          &end);
    for (uint32_t at = begin, n; at < end; at += n) {
        uint32_t i = at / dv, row = at % dv;
        n = min_u32(end - at, dv - row);
        delta_rows(t, op, &batch->segments[i / op->n_v_heads], i % op->n_v_heads, row, row + n,
                   index);
    }
}

void cpu_gated_norm(const struct task *t, const struct node *node)
{
    const struct op_gated_norm *op = &node->u.gated_norm;
    const float *w = WT(t, op->w)->values;
    uint32_t begin, end;
    share(t, N_ROWS(t, op->x) * (WIDTH(t, op->x) / op->dv), 1, &begin, &end);
    for (size_t i = begin; i < end; i++)
        t->k->gated_rms_norm(BUF(t, op->x) + i * op->dv, BUF(t, op->z) + i * op->dv, w, op->dv,
                             op->eps, BUF(t, op->y) + i * op->dv);
}
