/*
 * Query heads against one block of positions whose keys and values they share, with the softmax
 * kept online (arXiv:1805.02867). Tiles of heads by positions stay in registers, tiles of positions
 * in the first-level cache while all heads go over them. How many heads are done at once changes no
 * operation of any.
 */
#include "base/bits.h"
#include "kernel/simd/softmax.h"

enum {
    HEADS = 4,  /* of a register tile; what is left goes one by one */
    KEYS = 2,   /* positions of a register tile */
    SUMS = 4,   /* positions that are summed up together, and of the tile of one head */
    CHUNK = 2,  /* vectors of values in a register tile */
    WIDE = 4,   /* the same for one head */
    TILE = 16,  /* positions whose values all heads add */
    GROUP = 16, /* heads whose scores are kept at once */
    LINE = 64
};

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
 * Keys or values of the next block. They are fetched in equal steps: many at once would hold up
 * what this block needs.
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
    return (struct ahead){at, q->ahead ? end : at, (size_t)(end - at) / steps + 1};
}

INLINE void prefetch_step(struct ahead *a)
{
    const uint8_t *to = a->at + a->step;
    for (; a->at < to && a->at < a->end; a->at += LINE) __builtin_prefetch(a->at, 0, 2);
}

/* acc[h][j] += query h . key j, the values from d on of which up to LANES are left. */
INLINE void add_products(vf acc[HEADS][SUMS], const float *const query[HEADS], uint32_t heads,
                         const void *const key[SUMS], uint32_t n, size_t d, uint32_t left,
                         bool half)
{
    vf y[SUMS];
    for (uint32_t j = 0; j < n; j++) y[j] = load_cache(key[j], d, left, half);
    for (uint32_t h = 0; h < heads; h++) {
        vf x = vf_load_upto(query[h] + d, left);
        for (uint32_t j = 0; j < n; j++) acc[h][j] = vf_fma(x, y[j], acc[h][j]);
    }
}

/* sums[h][first + j] = the products of query h and key j, added up in lanes. */
INLINE void multiply_keys(const float *query, uint32_t heads, const void *keys, size_t at,
                          uint32_t n, uint32_t dim, bool half, vf sums[HEADS][SUMS], uint32_t first)
{
    vf acc[HEADS][SUMS];
    const float *x[HEADS];
    const void *y[SUMS];
    uint32_t d = 0;
    for (uint32_t h = 0; h < heads; h++) x[h] = query + (size_t)h * dim;
    for (uint32_t j = 0; j < n; j++) y[j] = value_at(keys, at + (size_t)j * dim, half);
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t j = 0; j < n; j++) acc[h][j] = vf_set(0);
    for (; d + LANES <= dim; d += LANES) add_products(acc, x, heads, y, n, d, LANES, half);
    if (d < dim) add_products(acc, x, heads, y, n, d, dim - d, half);
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t j = 0; j < n; j++) sums[h][first + j] = acc[h][j];
}

/* Scores of `heads` heads and n positions from j on: constants at every call, n is 1 or SUMS. */
INLINE void score_tile(const struct attention_query *q, uint32_t head, uint32_t heads,
                       const struct rows *b, uint32_t j, uint32_t n, struct ahead *next,
                       float (*scores)[ATTENTION_BLOCK])
{
    const uint32_t dim = q->head_dim, each = n == 1 || heads == 1 ? n : KEYS;
    const float *query = q->q + (size_t)head * dim;
    vf sums[HEADS][SUMS];
    float sum[SUMS];
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t i = n; i < SUMS; i++) sums[h][i] = vf_set(0);
    UNROLL for (uint32_t i = 0; i < n; i += each)
    {
        prefetch_step(next);
        multiply_keys(query, heads, b->keys, (size_t)(j + i) * dim, each, dim, b->half, sums, i);
    }
    for (uint32_t h = 0; h < heads; h++) {
        vf_sum4(sums[h], sum);
        for (uint32_t i = 0; i < n; i++) scores[h][j + i] = sum[i] * q->scale;
    }
}

INLINE void score_heads(const struct attention_query *q, uint32_t head, uint32_t n_heads,
                        const struct rows *b, uint32_t j, uint32_t n, struct ahead *next,
                        float (*scores)[ATTENTION_BLOCK])
{
    uint32_t h = 0;
    for (; h + HEADS <= n_heads; h += HEADS)
        score_tile(q, head + h, HEADS, b, j, n, next, scores + h);
    for (; h < n_heads; h++) score_tile(q, head + h, 1, b, j, n, next, scores + h);
}

/* The scores of all heads, padded with -infinity to whole vectors. */
INLINE void score_block(const struct attention_query *q, uint32_t head, uint32_t n_heads,
                        const struct rows *b, float (*scores)[ATTENTION_BLOCK])
{
    const uint32_t steps = div_up_u32(n_heads, HEADS) * div_up_u32(b->count, KEYS);
    struct ahead next = begin_ahead(q, b->keys, b->count, b->half, steps);
    uint32_t j = 0;
    for (; j + SUMS <= b->count; j += SUMS)
        score_heads(q, head, n_heads, b, j, SUMS, &next, scores);
    for (; j < b->count; j++) score_heads(q, head, n_heads, b, j, 1, &next, scores);
    for (; j % LANES != 0; j++)
        for (uint32_t h = 0; h < n_heads; h++) scores[h][j] = -INFINITY;
}

/*
 * acc += score * value for `heads` heads, n positions from j on and `vectors` vectors from d on, of
 * which one that is a tail has `left` values.
 */
INLINE void add_tile(uint32_t heads, float (*scores)[ATTENTION_BLOCK], const struct rows *b,
                     uint32_t j, uint32_t n, size_t dim, size_t d, uint32_t vectors, uint32_t left,
                     float *acc)
{
    vf sum[HEADS][WIDE];
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t c = 0; c < vectors; c++)
            sum[h][c] = vf_load_upto(acc + h * dim + d + c * LANES, left);
    for (uint32_t i = j; i < j + n; i++)
        for (uint32_t c = 0; c < vectors; c++) {
            vf value = load_cache(b->values, i * dim + d + c * LANES, left, b->half);
            for (uint32_t h = 0; h < heads; h++)
                sum[h][c] = vf_fma(vf_set(scores[h][i]), value, sum[h][c]);
        }
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t c = 0; c < vectors; c++)
            vf_store_upto(acc + h * dim + d + c * LANES, left, sum[h][c]);
}

/* vectors is a constant at every call. */
INLINE void add_heads(uint32_t n_heads, float (*scores)[ATTENTION_BLOCK], const struct rows *b,
                      uint32_t j, uint32_t n, size_t dim, size_t d, uint32_t vectors, uint32_t left,
                      float *acc)
{
    uint32_t h = 0;
    for (; vectors <= CHUNK && h + HEADS <= n_heads; h += HEADS)
        add_tile(HEADS, scores + h, b, j, n, dim, d, vectors, left, acc + h * dim);
    for (; h < n_heads; h++) add_tile(1, scores + h, b, j, n, dim, d, vectors, left, acc + h * dim);
}

/* chunk is a constant at every call: WIDE for fewer than HEADS heads, else CHUNK. */
INLINE void add_block(const struct attention_query *q, uint32_t n_heads, uint32_t chunk,
                      float (*scores)[ATTENTION_BLOCK], const struct rows *b, float *acc)
{
    const uint32_t dim = q->head_dim, each = chunk * LANES;
    const uint32_t steps = div_up_u32(b->count, TILE) * div_up_u32(dim, each);
    struct ahead next = begin_ahead(q, b->values, b->count, b->half, steps);
    for (uint32_t j = 0; j < b->count; j += TILE) {
        uint32_t n = min_u32(b->count - j, TILE), d = 0;
        for (; d + each <= dim; d += each) {
            prefetch_step(&next);
            add_heads(n_heads, scores, b, j, n, dim, d, chunk, LANES, acc);
        }
        for (; d < dim; d += LANES)
            add_heads(n_heads, scores, b, j, n, dim, d, 1, min_u32(LANES, dim - d), acc);
    }
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
        if (n < HEADS)
            add_block(q, n, WIDE, scores, &b, acc + head * dim);
        else
            add_block(q, n, CHUNK, scores, &b, acc + head * dim);
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
