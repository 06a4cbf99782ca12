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

static void conv_rows(const struct task *t, const struct op_conv *op, const float *state,
                      const float *x, uint32_t begin, uint32_t end, float *y)
{
    size_t channels = WIDTH(t, op->x);
    const float *rows[CONV_MAX_WIDTH];
    for (uint32_t r = begin; r < end; r++) {
        for (uint32_t j = 0; j < op->width; j++)
            rows[j] = window_row(state, x, op->width - 1, r + j, channels);
        t->k->conv_silu(rows, WT(t, op->w)->values, op->width, (uint32_t)channels,
                        y + r * channels);
    }
}

/* The last width - 1 rows of [state; batch rows] become the state. */
static void conv_next(const struct op_conv *op, const float *state, const float *x, uint32_t count,
                      size_t channels, float *next)
{
    uint32_t keep = op->width - 1;
    for (uint32_t j = 0; j < keep; j++)
        memcpy(next + j * channels, window_row(state, x, keep, count + j, channels),
               channels * sizeof *next);
}

void cpu_conv(const struct task *t, const struct node *node)
{
    const struct op_conv *op = &node->u.conv;
    size_t channels = WIDTH(t, op->x);
    uint32_t index = STATE_INDEX(t, op->state);
    for (uint32_t i = 0; i < t->be->batch->n_segments; i++) {
        const struct batch_segment *s = &t->be->batch->segments[i];
        const float *state = sequence_recurrent(s->sequence, index);
        const float *x = BUF(t, op->x) + s->first * channels;
        float *y = BUF(t, op->y) + s->first * channels;
        uint32_t begin, end;
        share(t, s->count, 1, &begin, &end);
        conv_rows(t, op, state, x, begin, end, y);
        if (i % t->n_threads == t->thread)
            conv_next(op, state, x, s->count, channels,
                      sequence_recurrent_next(s->sequence, index));
    }
}

void cpu_delta_norm(const struct task *t, const struct node *node)
{
    const struct op_delta_norm *op = &node->u.delta_norm;
    size_t width = WIDTH(t, op->x), dk = op->dk;
    uint32_t heads = 2 * op->n_k_heads, begin, end;
    share(t, N_ROWS(t, op->x), 1, &begin, &end);
    float q_scale = 1.0f / sqrtf((float)op->dk);
    for (uint32_t r = begin; r < end; r++) {
        const float *x = BUF(t, op->x) + r * width;
        float *y = BUF(t, op->y) + r * width;
        for (uint32_t h = 0; h < heads; h++)
            t->k->l2_norm(x + h * dk, op->dk, op->eps, h < op->n_k_heads ? q_scale : 1.0f,
                          y + h * dk);
        memcpy(y + heads * dk, x + heads * dk, (width - heads * dk) * sizeof *y);
    }
}

void cpu_decay_beta(const struct task *t, const struct node *node)
{
    const struct op_decay_beta *op = &node->u.decay_beta;
    size_t heads = WIDTH(t, op->alpha);
    uint32_t begin, end;
    share(t, N_ROWS(t, op->alpha), 1, &begin, &end);
    for (size_t r = begin; r < end; r++)
        t->k->decay_beta(BUF(t, op->alpha) + r * heads, BUF(t, op->beta) + r * heads,
                         WT(t, op->neg_a)->values, WT(t, op->dt_bias)->values, (uint32_t)heads,
                         BUF(t, op->g) + r * heads, BUF(t, op->b) + r * heads);
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
