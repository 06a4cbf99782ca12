/* Ops of softmax attention. */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu_internal.h"
#include "base/bits.h"

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

_Static_assert((int)SEQUENCE_PAGE == (int)ATTENTION_BLOCK, "a page is one block of attention");

/* The first position that a query sees. */
static uint32_t first_seen(uint32_t position, uint32_t window)
{
    return window && position >= window ? position - window + 1 : 0;
}

/* Rows of a block begin at slot. */
static const void *block_from(const struct sequence *seq, const void *block, uint32_t slot,
                              uint32_t dim)
{
    size_t elem = seq->layout->kv_type == KV_F16 ? sizeof(uint16_t) : sizeof(float);
    return (const uint8_t *)block + slot * dim * elem;
}

/* What attention and sink_attention look at. */
struct attending {
    const float *q, *sinks; /* sinks NULL: none */
    float *y;
    uint32_t kv, n_heads, n_kv_heads, head_dim, window;
    float scale;
};

/* Heads of one row that share keys and values. */
enum { UNIT_HEADS = 16 };
struct unit {
    const struct sequence *sequence;
    uint32_t position, kv_head, first, n; /* heads [first, first + n), n <= UNIT_HEADS */
};

/* One query head over count positions from keys and values on. */
static void attend_block(const struct task *t, const struct attending *a, bool half, const float *q,
                         const void *keys, const void *values, uint32_t count,
                         struct softmax_state *st, float *y)
{
    if (half)
        t->k->attention_block_f16(q, keys, values, count, a->head_dim, a->scale, st, y);
    else
        t->k->attention_block_f32(q, keys, values, count, a->head_dim, a->scale, st, y);
}

/* A sink is a score of which only the weight counts. */
static struct softmax_state begin_softmax(const struct attending *a, uint32_t head)
{
    return a->sinks ? (struct softmax_state){a->sinks[head], 1.0f}
                    : (struct softmax_state){-INFINITY, 0.0f};
}

/*
 * The heads of a unit over the blocks of their sequence that the window touches, block by block, so
 * that a block is read from memory once. Each head does what it would do alone.
 */
static void attend(const struct task *t, const struct attending *a, const struct unit *u,
                   const float *q, float *y)
{
    const struct sequence *seq = u->sequence;
    const bool half = seq->layout->kv_type == KV_F16;
    const size_t dim = a->head_dim;
    uint32_t at = first_seen(u->position, a->window);
    struct softmax_state st[UNIT_HEADS];
    for (uint32_t h = 0; h < u->n; h++) st[h] = begin_softmax(a, u->first + h);
    memset(y, 0, u->n * dim * sizeof *y);
    while (at <= u->position) {
        uint32_t page = at / SEQUENCE_PAGE, slot = at % SEQUENCE_PAGE;
        uint32_t count = min_u32(u->position + 1 - at, SEQUENCE_PAGE - slot);
        const void *keys = sequence_keys(seq, a->kv, page, u->kv_head);
        const void *values = sequence_values(seq, a->kv, page, u->kv_head);
        keys = block_from(seq, keys, slot, a->head_dim);
        values = block_from(seq, values, slot, a->head_dim);
        at += count;
        for (uint32_t h = 0; h < u->n; h++)
            attend_block(t, a, half, q + h * dim, keys, values, count, &st[h], y + h * dim);
    }
    for (uint32_t h = 0; h < u->n; h++)
        t->k->scale(y + h * dim, 1.0f / st[h].sum, a->head_dim, y + h * dim);
}

/* Into how many units the heads of a key head are cut: enough for the threads, none too large. */
static uint32_t units_per_kv_head(const struct task *t, const struct attending *a, uint32_t n_rows)
{
    uint32_t group = a->n_heads / a->n_kv_heads, units = div_up_u32(group, UNIT_HEADS);
    uint64_t whole = (uint64_t)n_rows * a->n_kv_heads;
    while (whole * units < t->n_threads && units < group) units++;
    return units;
}

/* Later rows see more positions: threads take them in turns, not in halves. */
static void attend_rows(const struct task *t, const struct attending *a, uint32_t n_rows)
{
    uint32_t group = a->n_heads / a->n_kv_heads;
    uint32_t each = div_up_u32(group, units_per_kv_head(t, a, n_rows));
    uint32_t units = div_up_u32(group, each), per_row = a->n_kv_heads * units;
    for (uint32_t i = t->thread; i < n_rows * per_row; i += t->n_threads) {
        uint32_t row = i / per_row, kv_head = i % per_row / units, part = i % units;
        const struct batch_segment *s = batch_segment_of(t->be->batch, row);
        struct unit u = {.sequence = s->sequence,
                         .position = s->sequence->position + (row - s->first),
                         .kv_head = kv_head,
                         .first = kv_head * group + part * each,
                         .n = min_u32(each, group - part * each)};
        size_t at = ((size_t)row * a->n_heads + u.first) * a->head_dim;
        attend(t, a, &u, a->q + at, a->y + at);
    }
}

void cpu_attention(const struct task *t, const struct node *node)
{
    const struct op_attention *op = &node->u.attention;
    struct attending a = {.q = BUF(t, op->q),
                          .y = BUF(t, op->y),
                          .kv = STATE_INDEX(t, op->cache),
                          .n_heads = op->n_heads,
                          .n_kv_heads = op->n_kv_heads,
                          .head_dim = op->head_dim,
                          .window = op->window,
                          .scale = op->scale};
    attend_rows(t, &a, N_ROWS(t, op->q));
}

void cpu_sink_attention(const struct task *t, const struct node *node)
{
    const struct op_sink_attention *op = &node->u.sink_attention;
    struct attending a = {.q = BUF(t, op->q),
                          .sinks = WT(t, op->sinks)->values,
                          .y = BUF(t, op->y),
                          .kv = STATE_INDEX(t, op->cache),
                          .n_heads = op->n_heads,
                          .n_kv_heads = op->n_kv_heads,
                          .head_dim = op->head_dim,
                          .window = op->window,
                          .scale = op->scale};
    attend_rows(t, &a, N_ROWS(t, op->q));
}

void cpu_sigmoid_gate(const struct task *t, const struct node *node)
{
    const struct op_sigmoid_gate *op = &node->u.sigmoid_gate;
    const float *x = BUF(t, op->x);
    const float *gate = BUF(t, op->gate);
    float *y = BUF(t, op->y);
    size_t width = WIDTH(t, op->y);
    uint32_t begin, end;
    share(t, N_ROWS(t, op->y), 1, &begin, &end);
    for (size_t r = begin; r < end; r++)
        t->k->sigmoid_gate(x + r * width, gate + r * width, (uint32_t)width, y + r * width);
}
