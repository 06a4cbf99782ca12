/*
 * The positions that a row sees are cut into spans at absolute positions, at most MAX_SPANS of a
 * size that depends on the row's position alone. Each span has a softmax of its own, kept online
 * over its pages; then the spans are added up in ascending order. Rows of a prompt do one span
 * after the other. Where there are few rows, threads share the spans, and what they found is added
 * up behind a barrier: the same operations in the same order, whoever does them.
 */
#include "backend/cpu/attend.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"

_Static_assert((int)SEQUENCE_PAGE == (int)ATTENTION_BLOCK, "a page is one block of attention");

enum { MIN_SPAN = 256, MAX_SPANS = 32 };
/* Heads that share keys and values, and rows, that go over the pages together. */
enum { UNIT_HEADS = 16, UNIT_ROWS = 8 };
/* Most rows whose spans threads share, and how many units each should have to choose from. */
enum { SPLIT_ROWS = 8, UNITS_EACH = 4 };

struct unit {
    const struct sequence *sequence;
    uint32_t row, position, n_rows; /* of the first row; n_rows <= UNIT_ROWS */
    uint32_t kv_head, first, n;     /* heads [first, first + n), n <= UNIT_HEADS */
    uint32_t span;                  /* positions of a span, for all rows */
    uint32_t index;                 /* the span, where spans are shared */
};

/* Unnormalised sums of a unit's rows, stride apart, each of its heads. */
struct sums {
    struct softmax_state (*st)[UNIT_HEADS];
    float *acc;
    size_t stride;
};

/* Units of a node in the order in which threads take them. */
struct queue {
    const struct task *task;
    const struct attending *a;
    _Atomic uint32_t *turn;
    uint32_t parts;   /* units of a row's key head */
    struct unit next; /* taken, if any is left */
    bool more;
};

/* Positions of a span, for a row at this position. */
static uint32_t span_size(uint32_t position)
{
    uint32_t span = MIN_SPAN;
    while (position / span >= MAX_SPANS) span *= 2;
    return span;
}

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

/* What a row of a unit sees of a page; ahead: see struct attention_query. */
static void attend_page(const struct task *t, const struct attending *a, const struct unit *u,
                        uint32_t r, uint32_t page, ptrdiff_t ahead, const struct sums *to)
{
    const struct sequence *seq = u->sequence;
    const uint32_t position = u->position + r, begin = page * SEQUENCE_PAGE;
    uint32_t at = max_u32(first_seen(position, a->window), begin);
    if (at > position || at >= begin + SEQUENCE_PAGE) return;
    uint32_t count = min_u32(position + 1, begin + SEQUENCE_PAGE) - at;
    const void *keys = sequence_keys(seq, a->kv, page, u->kv_head);
    const void *values = sequence_values(seq, a->kv, page, u->kv_head);
    keys = block_from(seq, keys, at - begin, a->head_dim);
    values = block_from(seq, values, at - begin, a->head_dim);
    struct attention_query q = {.q = a->q +
                                     ((size_t)(u->row + r) * a->n_heads + u->first) * a->head_dim,
                                .heads = u->n,
                                .head_dim = a->head_dim,
                                .scale = a->scale,
                                .ahead = ahead};
    if (seq->layout->kv_type == KV_F16)
        t->k->attention_block_f16(&q, keys, values, count, to->st[r], to->acc + r * to->stride);
    else
        t->k->attention_block_f32(&q, keys, values, count, to->st[r], to->acc + r * to->stride);
}

static bool sees(const struct attending *a, const struct unit *u, uint32_t r, uint32_t index)
{
    uint32_t position = u->position + r;
    return position / u->span >= index && first_seen(position, a->window) / u->span <= index;
}

/* The first span of a row begins with the sink: a score of which only the weight counts. */
static void begin_sums(const struct attending *a, const struct unit *u, uint32_t r, uint32_t index,
                       const struct sums *to)
{
    bool sink = a->sinks && first_seen(u->position + r, a->window) / u->span == index;
    for (uint32_t h = 0; h < u->n; h++)
        to->st[r][h] = sink ? (struct softmax_state){a->sinks[u->first + h], 1.0f}
                            : (struct softmax_state){-INFINITY, 0.0f};
    memset(to->acc + r * to->stride, 0, (size_t)u->n * a->head_dim * sizeof *to->acc);
}

static uint32_t first_page(const struct attending *a, const struct unit *u, uint32_t index)
{
    return max_u32(first_seen(u->position, a->window), index * u->span) / SEQUENCE_PAGE;
}

/* From the keys of a page to those of another unit of the same sequence; 0: it has no such. */
static ptrdiff_t distance(const struct attending *a, const struct unit *u, uint32_t page,
                          const struct unit *next)
{
    if (next->sequence != u->sequence) return 0;
    const uint8_t *from = sequence_keys(u->sequence, a->kv, page, u->kv_head);
    const uint8_t *to =
        sequence_keys(next->sequence, a->kv, first_page(a, next, next->index), next->kv_head);
    return to - from;
}

/* The unit of a number, of those that rows are split into: span by span, of these head by head. */
static bool find_unit(const struct queue *queue, uint32_t number, struct unit *u)
{
    const struct attending *a = queue->a;
    const struct batch *batch = queue->task->be->batch;
    const uint32_t groups = a->n_kv_heads * queue->parts, group = a->n_heads / a->n_kv_heads;
    const uint32_t each = div_up_u32(group, queue->parts);
    for (uint32_t row = 0; row < batch->n_tokens; row++) {
        const struct batch_segment *s = batch_segment_of(batch, row);
        uint32_t position = s->sequence->position + (row - s->first), span = span_size(position);
        uint32_t begin = first_seen(position, a->window) / span;
        uint32_t n = (position / span - begin + 1) * groups, part = number % queue->parts;
        if (number >= n) {
            number -= n;
            continue;
        }
        uint32_t kv_head = number % groups / queue->parts;
        *u = (struct unit){.sequence = s->sequence,
                           .row = row,
                           .position = position,
                           .n_rows = 1,
                           .kv_head = kv_head,
                           .first = kv_head * group + part * each,
                           .n = min_u32(each, group - part * each),
                           .span = span,
                           .index = begin + number / groups};
        return true;
    }
    return false;
}

static void take_unit(struct queue *queue)
{
    uint32_t number = atomic_fetch_add_explicit(queue->turn, 1, memory_order_relaxed);
    queue->more = find_unit(queue, number, &queue->next);
}

/*
 * One span of a unit, page by page, so that a page is read from memory once. Each head of each row
 * does what it would do alone. queue: takes the next unit when the last page begins; or NULL.
 */
static void attend_span(const struct task *t, const struct attending *a, const struct unit *u,
                        uint32_t index, const struct sums *to, struct queue *queue)
{
    const uint32_t last = u->position + u->n_rows - 1; /* of the last row */
    const uint32_t end = min_u32(last, index * u->span + (u->span - 1)) / SEQUENCE_PAGE;
    for (uint32_t r = 0; r < u->n_rows; r++)
        if (sees(a, u, r, index)) begin_sums(a, u, r, index, to);
    for (uint32_t page = first_page(a, u, index); page <= end; page++) {
        ptrdiff_t ahead = (ptrdiff_t)u->sequence->layout->page_bytes;
        if (page == last / SEQUENCE_PAGE) ahead = 0;
        if (queue && page == end) {
            take_unit(queue);
            ahead = queue->more ? distance(a, u, page, &queue->next) : 0;
        }
        for (uint32_t r = 0; r < u->n_rows; r++) attend_page(t, a, u, r, page, r ? 0 : ahead, to);
    }
}

/* total += part, both brought to the larger maximum. */
static void add_head(const struct task *t, uint32_t dim, struct softmax_state *total, float *y,
                     const struct softmax_state *part, float *acc)
{
    bool raises = part->max > total->max;
    float max = raises ? part->max : total->max;
    float older = raises ? expf(total->max - max) : 1, newer = raises ? 1 : expf(part->max - max);
    if (raises) t->k->scale(y, older, dim, y);
    if (!raises) t->k->scale(acc, newer, dim, acc);
    t->k->add(y, acc, dim, y);
    *total = (struct softmax_state){max, total->sum * older + part->sum * newer};
}

/* All spans of a unit; later ones are summed up in scratch. */
static void attend(const struct task *t, const struct attending *a, const struct unit *u)
{
    const size_t dim = a->head_dim, stride = a->n_heads * dim;
    struct softmax_state st[UNIT_ROWS][UNIT_HEADS], more[UNIT_ROWS][UNIT_HEADS];
    const struct sums total = {st, a->y + u->row * stride + u->first * dim, stride};
    const struct sums part = {more, scratch_of(t), u->n * dim};
    const uint32_t begin = first_seen(u->position, a->window) / u->span;
    for (uint32_t i = begin; i <= (u->position + u->n_rows - 1) / u->span; i++) {
        attend_span(t, a, u, i, i == begin ? &total : &part, NULL);
        for (uint32_t r = 0; i > begin && r < u->n_rows; r++) {
            float *y = total.acc + r * stride, *acc = part.acc + r * part.stride;
            bool first = first_seen(u->position + r, a->window) / u->span == i;
            if (!sees(a, u, r, i)) continue;
            if (first) memcpy(y, acc, u->n * dim * sizeof *y);
            if (first) memcpy(st[r], more[r], u->n * sizeof **st);
            for (uint32_t h = 0; !first && h < u->n; h++)
                add_head(t, a->head_dim, &st[r][h], y + h * dim, &more[r][h], acc + h * dim);
        }
    }
    for (uint32_t r = 0; r < u->n_rows; r++)
        for (uint32_t h = 0; h < u->n; h++) {
            float *y = total.acc + r * stride + h * dim;
            t->k->scale(y, 1.0f / st[r][h].sum, a->head_dim, y);
        }
}

/* The rows of a segment, cut where the size of spans changes; `mine` is the unit to do next. */
static void attend_segment(const struct task *t, const struct attending *a,
                           const struct batch_segment *s, uint32_t rows, uint32_t parts,
                           _Atomic uint32_t *turn, uint32_t *number, uint32_t *mine)
{
    const uint32_t group = a->n_heads / a->n_kv_heads, each = div_up_u32(group, parts);
    struct unit u = {.sequence = s->sequence};
    for (uint32_t row = 0; row < s->count; row += u.n_rows) {
        u.row = s->first + row;
        u.position = s->sequence->position + row;
        u.span = span_size(u.position);
        uint64_t left = (uint64_t)u.span * MAX_SPANS - u.position;
        u.n_rows = min_u32(rows, s->count - row);
        if (u.n_rows > left) u.n_rows = (uint32_t)left;
        for (uint32_t i = 0; i < a->n_kv_heads * parts; i++) {
            if ((*number)++ != *mine) continue;
            u.kv_head = i / parts;
            u.first = u.kv_head * group + i % parts * each;
            u.n = min_u32(each, group - i % parts * each);
            attend(t, a, &u);
            *mine = atomic_fetch_add_explicit(turn, 1, memory_order_relaxed);
        }
    }
}

/* Into how many parts the heads of a key head are cut: enough for the threads, none too large. */
static uint32_t parts_per_kv_head(const struct task *t, const struct attending *a, uint32_t n_rows)
{
    uint32_t group = a->n_heads / a->n_kv_heads, parts = div_up_u32(group, UNIT_HEADS);
    uint64_t whole = (uint64_t)n_rows * a->n_kv_heads;
    while (whole * parts < t->n_threads && parts < group) parts++;
    return div_up_u32(group, div_up_u32(group, parts));
}

/* Later rows see more positions and no thread is as fast as another: each takes what is next. */
static void attend_units(const struct task *t, const struct attending *a, _Atomic uint32_t *turn,
                         uint32_t n_rows)
{
    const struct batch *batch = t->be->batch;
    uint32_t rows = n_rows * a->n_kv_heads / (UNITS_EACH * t->n_threads), number = 0;
    uint32_t parts = parts_per_kv_head(t, a, n_rows);
    uint32_t mine = atomic_fetch_add_explicit(turn, 1, memory_order_relaxed);
    rows = rows < 1 ? 1 : min_u32(rows, UNIT_ROWS);
    for (uint32_t i = 0; i < batch->n_segments; i++)
        attend_segment(t, a, &batch->segments[i], rows, parts, turn, &number, &mine);
}

/* Where the sums of a head of a row are kept for a span: head_dim floats of n heads, their states.
 */
static float *partial(const struct task *t, const struct attending *a, uint32_t row, uint32_t first,
                      uint32_t n, uint32_t index)
{
    size_t size = a->head_dim + sizeof(struct softmax_state) / sizeof(float);
    size_t head = (size_t)row * a->n_heads + first;
    return t->be->partials + (head * MAX_SPANS + (size_t)index * n) * size;
}

static void attend_unit(const struct task *t, const struct attending *a, const struct unit *u,
                        struct queue *queue)
{
    struct softmax_state st[1][UNIT_HEADS];
    size_t floats = (size_t)u->n * a->head_dim;
    float *acc = partial(t, a, u->row, u->first, u->n, u->index);
    attend_span(t, a, u, u->index, &(struct sums){st, acc, floats}, queue);
    memcpy(acc + floats, st[0], u->n * sizeof st[0][0]);
}

/* The spans of one head of a row, which lies at `head` of the n from `first` on. */
static void add_spans(const struct task *t, const struct attending *a, uint32_t row, uint32_t first,
                      uint32_t n, uint32_t head)
{
    const struct batch_segment *s = batch_segment_of(t->be->batch, row);
    const uint32_t position = s->sequence->position + (row - s->first), span = span_size(position);
    const uint32_t dim = a->head_dim, begin = first_seen(position, a->window) / span;
    float *y = a->y + ((size_t)row * a->n_heads + first + head) * dim;
    struct softmax_state total = {0}, part;
    for (uint32_t i = begin; i <= position / span; i++) {
        float *acc = partial(t, a, row, first, n, i);
        memcpy(&part, acc + (size_t)n * dim + head * sizeof part / sizeof *acc, sizeof part);
        acc += (size_t)head * dim;
        if (i == begin) {
            memcpy(y, acc, dim * sizeof *y);
            total = part;
        } else {
            add_head(t, dim, &total, y, &part, acc);
        }
    }
    t->k->scale(y, 1.0f / total.sum, dim, y);
}

/* Threads share the spans of each row, then its heads. */
static void attend_split(const struct task *t, const struct attending *a, _Atomic uint32_t *turn,
                         uint32_t n_rows)
{
    const uint32_t group = a->n_heads / a->n_kv_heads, parts = div_up_u32(group, UNIT_HEADS);
    const uint32_t each = div_up_u32(group, parts);
    struct queue queue = {.task = t, .a = a, .turn = turn, .parts = parts};
    uint32_t begin, end;
    take_unit(&queue);
    while (queue.more) {
        struct unit u = queue.next;
        attend_unit(t, a, &u, &queue);
    }
    pool_barrier(t->be->pool);
    share(t, n_rows * a->n_heads, 1, &begin, &end);
    for (uint32_t i = begin; i < end; i++) {
        uint32_t head = i % a->n_heads, first = head / group * group + head % group / each * each;
        uint32_t n = min_u32(each, group - (first - head / group * group));
        add_spans(t, a, i / a->n_heads, first, n, head - first);
    }
}

/* Whether there are too few units for the threads, and spans to make more of them. */
static bool is_split(const struct task *t, const struct attending *a, uint32_t n_rows)
{
    const struct batch *batch = t->be->batch;
    if (t->n_threads == 1 || n_rows > t->be->partial_rows ||
        (uint64_t)n_rows * a->n_kv_heads >= (uint64_t)UNITS_EACH * t->n_threads)
        return false;
    for (uint32_t row = 0; row < n_rows; row++) {
        const struct batch_segment *s = batch_segment_of(batch, row);
        uint32_t position = s->sequence->position + (row - s->first), span = span_size(position);
        if (first_seen(position, a->window) / span < position / span) return true;
    }
    return false;
}

void cpu_attend(const struct task *t, const struct node *node, const struct attending *a,
                uint32_t n_rows)
{
    _Atomic uint32_t *turn = &t->be->turns[node - t->be->graph->nodes.items];
    if (is_split(t, a, n_rows))
        attend_split(t, a, turn, n_rows);
    else
        attend_units(t, a, turn, n_rows);
}

/* False: no such node. */
static bool heads_of(const struct node *node, uint32_t *n_heads, uint32_t *n_kv_heads,
                     uint32_t *head_dim)
{
    if (node->op != OP_KIND_attention && node->op != OP_KIND_sink_attention) return false;
    bool plain = node->op == OP_KIND_attention;
    *n_heads = plain ? node->u.attention.n_heads : node->u.sink_attention.n_heads;
    *n_kv_heads = plain ? node->u.attention.n_kv_heads : node->u.sink_attention.n_kv_heads;
    *head_dim = plain ? node->u.attention.head_dim : node->u.sink_attention.head_dim;
    return true;
}

enum sluice_status cpu_alloc_attend(struct cpu_backend *be, struct sluice_error *err)
{
    const uint32_t n_threads = be->options.pool.n_threads;
    size_t most = 0, bytes;
    uint32_t rows = 0, n_heads, n_kv_heads, dim;
    for (size_t i = 0; i < be->graph->nodes.n; i++) {
        if (!heads_of(&be->graph->nodes.items[i], &n_heads, &n_kv_heads, &dim)) continue;
        most = max_size(most, (size_t)n_heads * MAX_SPANS *
                                  (dim * sizeof(float) + sizeof(struct softmax_state)));
        rows = max_u32(rows, (UNITS_EACH * n_threads - 1) / n_kv_heads);
    }
    rows = n_threads == 1 ? 0 : min_u32(min_u32(rows, SPLIT_ROWS), be->options.dims.tokens);
    if (!mul_size(most, rows, &bytes)) return err_nomem(err, "attention", SIZE_MAX);
    void *partials;
    if (!mem_reserve(bytes, &partials)) return err_nomem(err, "attention", bytes);
    be->partials = partials;
    be->partial_bytes = bytes;
    be->partial_rows = rows;
    be->total_bytes += bytes;
    return SLUICE_OK;
}

size_t cpu_attend_scratch(const struct cpu_backend *be)
{
    uint32_t widest = 0, n_heads, n_kv_heads, dim;
    for (size_t i = 0; i < be->graph->nodes.n; i++)
        if (heads_of(&be->graph->nodes.items[i], &n_heads, &n_kv_heads, &dim))
            widest = max_u32(widest, dim);
    return (size_t)UNIT_ROWS * UNIT_HEADS * widest;
}
