/* Ops of softmax attention. */
#include <math.h>
#include <string.h>

#include "backend/cpu/attend.h"

void cpu_rope_angles(const struct task *t, const struct node *node)
{
    const struct op_rope_angles *op = &node->u.rope_angles;
    const float *freqs = BUF(t, op->freqs);
    float *y = BUF(t, op->y);
    uint32_t half = WIDTH(t, op->freqs), begin, end;
    share(t, N_ROWS(t, op->y), 1, &begin, &end);
    for (uint32_t r = begin; r < end; r++) {
        const struct batch_segment *s = batch_segment_of(t->be->batch, r);
        float position = (float)(s->sequence->position + (r - s->first));
        float *row = y + (size_t)r * 2 * half;
        for (uint32_t i = 0; i < half; i++) {
            float angle = position * freqs[i];
            row[i] = op->scale * cosf(angle);
            row[half + i] = op->scale * sinf(angle);
        }
    }
}

void cpu_split_q_gate(const struct task *t, const struct node *node)
{
    const struct op_split_q_gate *op = &node->u.split_q_gate;
    const float *x = BUF(t, op->x);
    float *q = BUF(t, op->q);
    float *gate = BUF(t, op->gate);
    size_t dim = op->head_dim;
    uint32_t begin, end;
    share(t, N_ROWS(t, op->x) * (WIDTH(t, op->q) / op->head_dim), 1, &begin, &end);
    for (size_t h = begin; h < end; h++) {
        memcpy(q + h * dim, x + h * 2 * dim, dim * sizeof *q);
        memcpy(gate + h * dim, x + h * 2 * dim + dim, dim * sizeof *gate);
    }
}

void cpu_rope(const struct task *t, const struct node *node)
{
    const struct op_rope *op = &node->u.rope;
    const float *x = BUF(t, op->x);
    const float *table = BUF(t, op->table);
    float *y = BUF(t, op->y);
    uint32_t heads = WIDTH(t, op->x) / op->head_dim, begin, end;
    share(t, N_ROWS(t, op->x) * heads, 1, &begin, &end);
    for (size_t i = begin; i < end; i++)
        (op->pairs ? t->k->rope_pairs
                   : t->k->rope)(x + i * op->head_dim, table + i / heads * op->rotary_dim,
                                 op->head_dim, op->rotary_dim, y + i * op->head_dim);
}

static void store_row(const struct task *t, const struct sequence *seq, const float *x,
                      uint32_t dim, uint32_t slot, void *block)
{
    if (seq->layout->kv_type == KV_F16)
        t->k->f32_to_f16_row(x, dim, (uint16_t *)block + (size_t)slot * dim);
    else
        memcpy((float *)block + (size_t)slot * dim, x, dim * sizeof *x);
}

void cpu_kv_append(const struct task *t, const struct node *node)
{
    const struct op_kv_append *op = &node->u.kv_append;
    const float *k = BUF(t, op->k);
    const float *v = BUF(t, op->v);
    uint32_t kv = STATE_INDEX(t, op->cache), heads = op->n_kv_heads, begin, end;
    share(t, N_ROWS(t, op->k) * heads, 1, &begin, &end);
    for (uint32_t i = begin; i < end; i++) {
        uint32_t row = i / heads, head = i % heads;
        const struct batch_segment *s = batch_segment_of(t->be->batch, row);
        uint32_t position = s->sequence->position + (row - s->first);
        uint32_t page = position / SEQUENCE_PAGE, slot = position % SEQUENCE_PAGE;
        size_t at = (size_t)i * op->head_dim;
        store_row(t, s->sequence, k + at, op->head_dim, slot,
                  sequence_keys(s->sequence, kv, page, head));
        store_row(t, s->sequence, v + at, op->head_dim, slot,
                  sequence_values(s->sequence, kv, page, head));
    }
}

/* What both ops of attention have in common, by the same names. */
#define ATTENDING(t, op)                                                                           \
    {                                                                                              \
        .q = BUF(t, (op)->q), .y = BUF(t, (op)->y), .kv = STATE_INDEX(t, (op)->cache),             \
        .n_heads = (op)->n_heads, .n_kv_heads = (op)->n_kv_heads, .head_dim = (op)->head_dim,      \
        .window = (op)->window, .scale = (op)->scale                                               \
    }

void cpu_attention(const struct task *t, const struct node *node)
{
    const struct op_attention *op = &node->u.attention;
    const struct attending a = ATTENDING(t, op);
    cpu_attend(t, node, &a, N_ROWS(t, op->q));
}

void cpu_sink_attention(const struct task *t, const struct node *node)
{
    const struct op_sink_attention *op = &node->u.sink_attention;
    struct attending a = ATTENDING(t, op);
    a.sinks = WT(t, op->sinks)->values;
    cpu_attend(t, node, &a, N_ROWS(t, op->q));
}

void cpu_sigmoid_gate(const struct task *t, const struct node *node)
{
    const struct op_sigmoid_gate *op = &node->u.sigmoid_gate;
    const float *x = BUF(t, op->x);
    const float *gate = BUF(t, op->gate);
    float *y = BUF(t, op->y);
    const uint32_t width = WIDTH(t, op->y);
    uint32_t begin, end, first, last;
    share_columns(t, sharing_of(t, node), N_ROWS(t, op->y), width, &begin, &end, &first, &last);
    for (size_t r = begin; r < end; r++) {
        size_t at = r * width + first;
        t->k->sigmoid_gate(x + at, gate + at, last - first, y + at);
    }
}
