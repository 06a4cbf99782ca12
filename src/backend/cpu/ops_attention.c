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

/* Heads of one row that share keys and values, and rows that go over the blocks together. */
enum { UNIT_HEADS = 16, UNIT_ROWS = 8 };
struct unit {
    const struct sequence *sequence;
    uint32_t row, position, n_rows; /* of the first row; n_rows <= UNIT_ROWS */
    uint32_t kv_head, first, n;     /* heads [first, first + n), n <= UNIT_HEADS */
};

/* A sink is a score of which only the weight counts. */
static struct softmax_state begin_softmax(const struct attending *a, uint32_t head)
{
    return a->sinks ? (struct softmax_state){a->sinks[head], 1.0f}
                    : (struct softmax_state){-INFINITY, 0.0f};
}

/* What a row of a unit sees of a page. */
static void attend_page(const struct task *t, const struct attending *a, const struct unit *u,
                        uint32_t r, uint32_t page, struct softmax_state *st)
{
    const struct sequence *seq = u->sequence;
    const uint32_t position = u->position + r, begin = page * SEQUENCE_PAGE;
    uint32_t at = first_seen(position, a->window);
    if (at < begin) at = begin;
    if (at > position || at >= begin + SEQUENCE_PAGE) return;
    uint32_t count = min_u32(position + 1, begin + SEQUENCE_PAGE) - at;
    const void *keys = sequence_keys(seq, a->kv, page, u->kv_head);
    const void *values = sequence_values(seq, a->kv, page, u->kv_head);
    keys = block_from(seq, keys, at - begin, a->head_dim);
    values = block_from(seq, values, at - begin, a->head_dim);
    size_t first = ((size_t)(u->row + r) * a->n_heads + u->first) * a->head_dim;
    bool last = (page + 1) * SEQUENCE_PAGE >= u->position + u->n_rows;
    struct attention_query q = {.q = a->q + first,
                                .heads = u->n,
                                .head_dim = a->head_dim,
                                .scale = a->scale,
                                .ahead = last || r > 0 ? 0 : seq->layout->page_bytes};
    if (seq->layout->kv_type == KV_F16)
        t->k->attention_block_f16(&q, keys, values, count, st, a->y + first);
    else
        t->k->attention_block_f32(&q, keys, values, count, st, a->y + first);
}

/*
 * The heads and rows of a unit over the pages that their windows touch, page by page, so that a
 * page is read from memory once. Each head of each row does what it would do alone.
 */
static void attend(const struct task *t, const struct attending *a, const struct unit *u)
{
    const size_t dim = a->head_dim, stride = a->n_heads * dim;
    struct softmax_state st[UNIT_ROWS][UNIT_HEADS];
    float *y = a->y + u->row * stride + u->first * dim;
    uint32_t page = first_seen(u->position, a->window) / SEQUENCE_PAGE;
    for (uint32_t r = 0; r < u->n_rows; r++) {
        for (uint32_t h = 0; h < u->n; h++) st[r][h] = begin_softmax(a, u->first + h);
        memset(y + r * stride, 0, u->n * dim * sizeof *y);
    }
    for (; page * SEQUENCE_PAGE < u->position + u->n_rows; page++)
        for (uint32_t r = 0; r < u->n_rows; r++) attend_page(t, a, u, r, page, st[r]);
    for (uint32_t r = 0; r < u->n_rows; r++)
        for (uint32_t h = 0; h < u->n; h++) {
            float *head = y + r * stride + h * dim;
            t->k->scale(head, 1.0f / st[r][h].sum, a->head_dim, head);
        }
}

/* Into how many parts the heads of a key head are cut: enough for the threads, none too large. */
static uint32_t parts_per_kv_head(const struct task *t, const struct attending *a, uint32_t n_rows)
{
    uint32_t group = a->n_heads / a->n_kv_heads, parts = div_up_u32(group, UNIT_HEADS);
    uint64_t whole = (uint64_t)n_rows * a->n_kv_heads;
    while (whole * parts < t->n_threads && parts < group) parts++;
    return parts;
}

/* The rows of a segment; later rows see more positions, so threads take units in turns. */
static void attend_segment(const struct task *t, const struct attending *a,
                           const struct batch_segment *s, uint32_t rows, uint32_t each,
                           uint32_t *turn)
{
    const uint32_t group = a->n_heads / a->n_kv_heads, parts = div_up_u32(group, each);
    for (uint32_t row = 0; row < s->count; row += rows)
        for (uint32_t i = 0; i < a->n_kv_heads * parts; i++) {
            if ((*turn)++ % t->n_threads != t->thread) continue;
            uint32_t kv_head = i / parts, part = i % parts;
            struct unit u = {.sequence = s->sequence,
                             .row = s->first + row,
                             .position = s->sequence->position + row,
                             .n_rows = min_u32(rows, s->count - row),
                             .kv_head = kv_head,
                             .first = kv_head * group + part * each,
                             .n = min_u32(each, group - part * each)};
            attend(t, a, &u);
        }
}

static void attend_rows(const struct task *t, const struct attending *a, uint32_t n_rows)
{
    const struct batch *batch = t->be->batch;
    uint32_t group = a->n_heads / a->n_kv_heads, turn = 0;
    /* Some units for every thread. */
    uint32_t rows = n_rows * a->n_kv_heads / (4 * t->n_threads);
    rows = rows < 1 ? 1 : min_u32(rows, UNIT_ROWS);
    uint32_t each = div_up_u32(group, parts_per_kv_head(t, a, n_rows));
    for (uint32_t i = 0; i < batch->n_segments; i++)
        attend_segment(t, a, &batch->segments[i], rows, each, &turn);
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
