/*
 * Query heads against one block of positions whose keys and values they share, with the softmax
 * kept online (arXiv:1805.02867). Tiles of heads by positions, and of heads by vectors of values,
 * stay in registers, so that a key or value is converted once for as many heads as these hold.
 * How many heads are done at once changes no operation of any.
 */
#include "base/bits.h"
#include "kernel/simd/softmax.h"

/*
 * A register tile of 8, 4, 2 or 1 heads. Additions take four cycles and two begin in each, so eight
 * sums must be under way. What HEADS leaves of the heads is done by smaller tiles.
 */
#if defined(__AVX512F__) || defined(__aarch64__)
enum { HEADS = 8, WIDTH_8 = 2, WIDTH_4 = 4, WIDTH_2 = 8, WIDTH_1 = 8 }; /* of 32 registers */
#else
enum { HEADS = 4, WIDTH_8 = 1, WIDTH_4 = 3, WIDTH_2 = 4, WIDTH_1 = 8 }; /* of 16 */
#endif
enum {
    WIDEST = 8,
    STEP = LANES > 8 ? LANES : 8, /* positions whose products are added up together */
    PIECE = 4,  /* positions whose values are added between two steps of fetching */
    SPAN = 64,  /* columns whose products are, whole vectors */
    GROUP = 16, /* heads whose scores are kept at once */
    LINE = 64
};

/* Positions, or vectors of values, in a tile of so many heads. */
INLINE uint32_t width_of(uint32_t heads)
{
    static const uint8_t widths[] = {[1] = WIDTH_1, [2] = WIDTH_2, [4] = WIDTH_4, [8] = WIDTH_8};
    return widths[heads];
}

/* The block that all this is about; `half` is a constant at every call. */
struct rows {
    const void *keys, *values;
    uint32_t count;
    bool half;
};

INLINE const void *value_at(const void *rows, size_t i, bool half)
{
    return (const uint8_t *)rows + i * (half ? sizeof(uint16_t) : sizeof(float));
}

/*
 * Keys or values of the next block. They are fetched in equal steps of a few lines: many at once
 * would hold up what this block needs.
 */
struct ahead {
    const uint8_t *at, *end;
    size_t step;
};

INLINE struct ahead begin_ahead(const struct attention_query *q, const void *rows, uint32_t count,
                                bool half, uint32_t steps)
{
    const uint8_t *at = (const uint8_t *)rows + q->ahead;
    const uint8_t *end = value_at(at, (size_t)count * q->head_dim, half);
    return (struct ahead){at, q->ahead ? end : at, align_up((size_t)(end - at) / steps, LINE)};
}

INLINE void prefetch_step(struct ahead *a)
{
    const uint8_t *to = a->at + a->step;
    if (a->at >= a->end) return;
    do __builtin_prefetch(a->at, 0, 2);
    while ((a->at += LINE) < to);
}

/* acc[h][j] += query h . key j, the values from d on of which up to LANES are left. */
INLINE void add_products(vf acc[HEADS][WIDEST], const float *query, uint32_t heads,
                         const void *keys, uint32_t n, size_t dim, size_t d, uint32_t left,
                         bool half)
{
    vf y[WIDEST];
    for (uint32_t j = 0; j < n; j++) y[j] = load_cache(keys, j * dim + d, left, half);
    for (uint32_t h = 0; h < heads; h++) {
        vf x = vf_load_upto(query + h * dim + d, left);
        for (uint32_t j = 0; j < n; j++) acc[h][j] = vf_fma(x, y[j], acc[h][j]);
    }
}

/* sums[h][first + j] = the products of query h and key j, added up in lanes. */
INLINE void multiply_keys(const float *query, uint32_t heads, const void *keys, uint32_t n,
                          size_t dim, bool half, struct ahead *next, vf sums[HEADS][STEP],
                          uint32_t first)
{
    vf acc[HEADS][WIDEST];
    size_t d = 0;
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t j = 0; j < n; j++) acc[h][j] = vf_set(0);
    /* Whole spans by themselves: one loop for all that is left costs a seventh of the speed. */
    for (size_t to = SPAN; to <= dim; to += SPAN) {
        prefetch_step(next);
        UNROLL_TWICE for (; d < to; d += LANES)
            add_products(acc, query, heads, keys, n, dim, d, LANES, half);
    }
    if (d < dim) prefetch_step(next);
    for (; d + LANES <= dim; d += LANES)
        add_products(acc, query, heads, keys, n, dim, d, LANES, half);
    if (d < dim) add_products(acc, query, heads, keys, n, dim, d, (uint32_t)(dim - d), half);
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t j = 0; j < n; j++) sums[h][first + j] = acc[h][j];
}

/* Scores of `heads` heads and n positions from j on: constants at every call, n is 1 or STEP. */
INLINE void score_tile(const struct attention_query *q, uint32_t head, uint32_t heads,
                       const struct rows *b, uint32_t j, uint32_t n, struct ahead *next,
                       float (*scores)[ATTENTION_BLOCK])
{
    const size_t dim = q->head_dim;
    const uint32_t width = width_of(heads);
    const float *query = q->q + head * dim;
    const vf scale = vf_set(q->scale);
    vf sums[HEADS][STEP];
    for (uint32_t i = 0; i < n; i += width) {
        const void *keys = value_at(b->keys, (j + i) * dim, b->half);
        if (i + width <= n)
            multiply_keys(query, heads, keys, width, dim, b->half, next, sums, i);
        else
            multiply_keys(query, heads, keys, n % width, dim, b->half, next, sums, i);
    }
    for (uint32_t h = 0; h < heads; h++) {
        if (n == 1) scores[h][j] = vf_sum(sums[h][0]) * q->scale;
        for (uint32_t i = 0; n > 1 && i < n; i += LANES)
            vf_store(scores[h] + j + i, vf_mul(vf_sums(sums[h] + i), scale));
    }
}

INLINE void score_heads(const struct attention_query *q, uint32_t head, uint32_t n_heads,
                        const struct rows *b, uint32_t j, uint32_t n, struct ahead *next,
                        float (*scores)[ATTENTION_BLOCK])
{
    uint32_t h = 0;
    for (; h + HEADS <= n_heads; h += HEADS)
        score_tile(q, head + h, HEADS, b, j, n, next, scores + h);
    for (; HEADS > 4 && h + 4 <= n_heads; h += 4)
        score_tile(q, head + h, 4, b, j, n, next, scores + h);
    for (; h + 2 <= n_heads; h += 2) score_tile(q, head + h, 2, b, j, n, next, scores + h);
    for (; h < n_heads; h++) score_tile(q, head + h, 1, b, j, n, next, scores + h);
}

/* The scores of all heads, padded with -infinity to whole vectors. */
INLINE void score_block(const struct attention_query *q, uint32_t head, uint32_t n_heads,
                        const struct rows *b, float (*scores)[ATTENTION_BLOCK])
{
    const uint32_t steps = div_up_u32(n_heads, HEADS) * div_up_u32(b->count, width_of(HEADS)) *
                           div_up_u32(q->head_dim, SPAN);
    struct ahead next = begin_ahead(q, b->keys, b->count, b->half, steps);
    uint32_t j = 0;
    for (; j + STEP <= b->count; j += STEP)
        score_heads(q, head, n_heads, b, j, STEP, &next, scores);
    for (; j < b->count; j++) score_heads(q, head, n_heads, b, j, 1, &next, scores);
    for (; j % LANES != 0; j++)
        for (uint32_t h = 0; h < n_heads; h++) scores[h][j] = -INFINITY;
}

/* sum[h][c] += score of h and j * value c of j, the values from d on. */
INLINE void add_position(vf sum[HEADS][WIDEST], uint32_t heads, float (*scores)[ATTENTION_BLOCK],
                         const struct rows *b, uint32_t j, size_t dim, size_t d, uint32_t vectors,
                         uint32_t left)
{
    vf value[WIDEST];
    for (uint32_t c = 0; c < vectors; c++)
        value[c] = load_cache(b->values, j * dim + d + c * LANES, left, b->half);
    for (uint32_t h = 0; h < heads; h++) {
        vf score = vf_set(scores[h][j]);
        for (uint32_t c = 0; c < vectors; c++) sum[h][c] = vf_fma(score, value[c], sum[h][c]);
    }
}

/*
 * acc += score * value for `heads` heads, all positions and `vectors` vectors from d on, of which
 * one that is a tail has `left` values.
 */
INLINE void add_tile(uint32_t heads, float (*scores)[ATTENTION_BLOCK], const struct rows *b,
                     size_t dim, size_t d, uint32_t vectors, uint32_t left, struct ahead *next,
                     float *acc)
{
    vf sum[HEADS][WIDEST];
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t c = 0; c < vectors; c++)
            sum[h][c] = vf_load_upto(acc + h * dim + d + c * LANES, left);
    for (uint32_t j = 0, to; j < b->count; j = to) {
        to = min_u32(j + PIECE, b->count);
        prefetch_step(next);
        for (uint32_t i = j; i < to; i++)
            add_position(sum, heads, scores, b, i, dim, d, vectors, left);
    }
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t c = 0; c < vectors; c++)
            vf_store_upto(acc + h * dim + d + c * LANES, left, sum[h][c]);
}

/* heads is a constant at every call. */
INLINE void add_values(uint32_t heads, float (*scores)[ATTENTION_BLOCK], const struct rows *b,
                       uint32_t dim, struct ahead *next, float *acc)
{
    const uint32_t width = width_of(heads);
    uint32_t d = 0;
    for (; d + width * LANES <= dim; d += width * LANES)
        add_tile(heads, scores, b, dim, d, width, LANES, next, acc);
    for (; width > 2 && d + 2 * LANES <= dim; d += 2 * LANES)
        add_tile(heads, scores, b, dim, d, 2, LANES, next, acc);
    for (; d < dim; d += LANES)
        add_tile(heads, scores, b, dim, d, 1, min_u32(LANES, dim - d), next, acc);
}

INLINE void add_block(const struct attention_query *q, uint32_t n_heads,
                      float (*scores)[ATTENTION_BLOCK], const struct rows *b, float *acc)
{
    const uint32_t dim = q->head_dim, each = width_of(HEADS) * LANES;
    const uint32_t tiles = div_up_u32(n_heads, HEADS) * max_u32(dim / each, 1);
    struct ahead next =
        begin_ahead(q, b->values, b->count, b->half, tiles * div_up_u32(b->count, PIECE));
    uint32_t h = 0;
    for (; h + HEADS <= n_heads; h += HEADS)
        add_values(HEADS, scores + h, b, dim, &next, acc + (size_t)h * dim);
    for (; HEADS > 4 && h + 4 <= n_heads; h += 4)
        add_values(4, scores + h, b, dim, &next, acc + (size_t)h * dim);
    for (; h + 2 <= n_heads; h += 2)
        add_values(2, scores + h, b, dim, &next, acc + (size_t)h * dim);
    for (; h < n_heads; h++) add_values(1, scores + h, b, dim, &next, acc + (size_t)h * dim);
}

/* As most blocks raise no maximum, most calls change nothing. */
INLINE void rescale_row(float *acc, uint32_t dim, float factor)
{
    for (uint32_t d = 0; factor != 1 && d < dim; d += LANES)
        vf_store_upto(acc + d, dim - d, vf_mul(vf_load_upto(acc + d, dim - d), vf_set(factor)));
}

INLINE void attention_block(const struct attention_query *q, const void *keys, const void *values,
                            uint32_t count, bool half, struct softmax_state *st, float *acc)
{
    const struct rows b = {keys, values, count, half};
    const size_t dim = q->head_dim;
    for (uint32_t head = 0; head < q->heads; head += GROUP) {
        float scores[GROUP][ATTENTION_BLOCK];
        uint32_t n = min_u32(q->heads - head, GROUP);
        score_block(q, head, n, &b, scores);
        for (uint32_t h = head; h < head + n; h++)
            rescale_row(acc + h * dim, q->head_dim,
                        softmax_update(scores[h - head], count, st + h));
        add_block(q, n, scores, &b, acc + head * dim);
    }
}

static void attention_block_f32(const struct attention_query *q, const float *keys,
                                const float *values, uint32_t count, struct softmax_state *st,
                                float *acc)
{
    attention_block(q, keys, values, count, false, st, acc);
}

static void attention_block_f16(const struct attention_query *q, const uint16_t *keys,
                                const uint16_t *values, uint32_t count, struct softmax_state *st,
                                float *acc)
{
    attention_block(q, keys, values, count, true, st, acc);
}

void SET(init_attention)(struct kernels *k)
{
    k->attention_block_f32 = attention_block_f32;
    k->attention_block_f16 = attention_block_f16;
}
