/*
 * Query heads against one block of positions whose keys and values they share, with the softmax
 * kept online (arXiv:1805.02867): a position is read once for up to four heads. How many heads are
 * done at once changes no operation of any.
 */
#include "base/bits.h"
#include "kernel/simd/softmax.h"

enum { HEADS = 4, KEYS = 2, KEYS_ALONE = 4, CHUNK = 2, CHUNK_ALONE = 4 };

/* acc[h][j] += query of head h . key j, the values from d on of which up to LANES are left. */
INLINE void add_products(vf acc[HEADS][KEYS_ALONE], const float *query, uint32_t heads,
                         const void *keys, size_t first, uint32_t count, size_t dim, size_t d,
                         uint32_t left, bool half)
{
    vf key[KEYS_ALONE];
    for (uint32_t j = 0; j < count; j++)
        key[j] = load_cache(keys, (first + j) * dim + d, left, half);
    for (uint32_t h = 0; h < heads; h++) {
        vf x = vf_load_upto(query + h * dim + d, left);
        for (uint32_t j = 0; j < count; j++) acc[h][j] = vf_fma(x, key[j], acc[h][j]);
    }
}

/* heads and count are constants at every call. */
INLINE void score_keys(const struct attention_query *q, uint32_t head, uint32_t heads,
                       const void *keys, uint32_t first, uint32_t count, bool half,
                       float scores[HEADS][ATTENTION_BLOCK])
{
    const uint32_t dim = q->head_dim;
    const float *query = q->q + (size_t)head * dim;
    vf acc[HEADS][KEYS_ALONE];
    uint32_t d = 0;
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t j = 0; j < count; j++) acc[h][j] = vf_set(0);
    for (; d + LANES <= dim; d += LANES)
        add_products(acc, query, heads, keys, first, count, dim, d, LANES, half);
    if (d < dim) add_products(acc, query, heads, keys, first, count, dim, d, dim - d, half);
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t j = 0; j < count; j++) scores[h][first + j] = vf_sum(acc[h][j]) * q->scale;
}

/* `vectors` vectors of each head's acc from d on; one that is a tail has `left` values. */
INLINE void add_values(uint32_t heads, float scores[HEADS][ATTENTION_BLOCK], const float *rescale,
                       const void *values, uint32_t count, size_t dim, size_t d, uint32_t vectors,
                       uint32_t left, bool half, float *acc)
{
    vf sum[HEADS][CHUNK_ALONE];
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t c = 0; c < vectors; c++)
            sum[h][c] =
                vf_mul(vf_load_upto(acc + h * dim + d + c * LANES, left), vf_set(rescale[h]));
    for (uint32_t j = 0; j < count; j++)
        for (uint32_t c = 0; c < vectors; c++) {
            vf value = load_cache(values, j * dim + d + c * LANES, left, half);
            for (uint32_t h = 0; h < heads; h++)
                sum[h][c] = vf_fma(vf_set(scores[h][j]), value, sum[h][c]);
        }
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t c = 0; c < vectors; c++)
            vf_store_upto(acc + h * dim + d + c * LANES, left, sum[h][c]);
}

/* heads, n_keys and chunk are constants at every call. */
INLINE void heads_block(const struct attention_query *q, uint32_t head, uint32_t heads,
                        uint32_t n_keys, uint32_t chunk, const void *keys, const void *values,
                        uint32_t count, bool half, struct softmax_state *st, float *acc)
{
    float scores[HEADS][ATTENTION_BLOCK], rescale[HEADS];
    const uint32_t dim = q->head_dim;
    uint32_t j = 0, d = 0;
    for (; j + n_keys <= count; j += n_keys)
        score_keys(q, head, heads, keys, j, n_keys, half, scores);
    for (; j < count; j++) score_keys(q, head, heads, keys, j, 1, half, scores);
    for (; j % LANES != 0; j++)
        for (uint32_t h = 0; h < heads; h++) scores[h][j] = -INFINITY;
    for (uint32_t h = 0; h < heads; h++)
        rescale[h] = softmax_update(scores[h], count, st + head + h);
    acc += (size_t)head * dim;
    for (; d + chunk * LANES <= dim; d += chunk * LANES)
        add_values(heads, scores, rescale, values, count, dim, d, chunk, LANES, half, acc);
    for (; d < dim; d += LANES)
        add_values(heads, scores, rescale, values, count, dim, d, 1, min_u32(LANES, dim - d), half,
                   acc);
}

INLINE void attention_block(const struct attention_query *q, const void *keys, const void *values,
                            uint32_t count, bool half, struct softmax_state *st, float *acc)
{
    uint32_t h = 0;
    for (; h + HEADS <= q->heads; h += HEADS)
        heads_block(q, h, HEADS, KEYS, CHUNK, keys, values, count, half, st, acc);
    for (; h < q->heads; h++)
        heads_block(q, h, 1, KEYS_ALONE, CHUNK_ALONE, keys, values, count, half, st, acc);
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
