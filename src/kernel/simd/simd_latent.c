/*
 * Query heads of multi-head latent attention against one block of latents, which all heads share: a
 * row of the cache is read once for up to four heads. How many heads are done at once changes no
 * operation of any.
 */
#include "base/bits.h"
#include "kernel/simd/softmax.h"

enum { HEADS = 4, ROWS = 2, CHUNK = 2 };

/* acc[h][j] += q[h] . (n values of row j from `at` on) */
INLINE void add_products(vf acc[HEADS][ROWS], const float *q, uint32_t heads, uint32_t n,
                         const void *rows, uint32_t count, size_t stride, bool half)
{
    for (uint32_t d = 0; d < n; d += LANES) {
        uint32_t left = n - d;
        vf row[ROWS];
        for (uint32_t j = 0; j < count; j++) row[j] = load_cache(rows, j * stride + d, left, half);
        for (uint32_t h = 0; h < heads; h++) {
            vf query = vf_load_upto(q + (size_t)h * n + d, left);
            for (uint32_t j = 0; j < count; j++) acc[h][j] = vf_fma(query, row[j], acc[h][j]);
        }
    }
}

INLINE const void *row_at(const void *rows, size_t i, bool half)
{
    return half ? (const void *)((const uint16_t *)rows + i)
                : (const void *)((const float *)rows + i);
}

/* heads <= HEADS and count <= ROWS are constants at every call. */
INLINE void score_rows(const struct latent_query *q, uint32_t head, uint32_t heads,
                       const void *rows, uint32_t first, uint32_t count, bool half,
                       float scores[HEADS][ATTENTION_BLOCK])
{
    vf acc[HEADS][ROWS];
    size_t stride = q->rank + q->rotated, at = first * stride;
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t j = 0; j < count; j++) acc[h][j] = vf_set(0);
    add_products(acc, q->latent + (size_t)head * q->rank, heads, q->rank, row_at(rows, at, half),
                 count, stride, half);
    add_products(acc, q->rot + (size_t)head * q->rotated, heads, q->rotated,
                 row_at(rows, at + q->rank, half), count, stride, half);
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t j = 0; j < count; j++) scores[h][first + j] = vf_sum(acc[h][j]) * q->scale;
}

/* acc[d ..] of each head; vectors <= CHUNK is a constant at every call, the last may be a tail. */
INLINE void add_latents(const struct latent_query *q, uint32_t heads,
                        float scores[HEADS][ATTENTION_BLOCK], const float *rescale,
                        const void *rows, uint32_t count, uint32_t d, uint32_t vectors, bool half,
                        float *acc)
{
    vf sum[HEADS][CHUNK];
    size_t stride = q->rank + q->rotated;
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t c = 0; c < vectors; c++) {
            uint32_t at = d + c * LANES;
            sum[h][c] = vf_mul(vf_load_upto(acc + (size_t)h * q->rank + at, q->rank - at),
                               vf_set(rescale[h]));
        }
    for (uint32_t j = 0; j < count; j++)
        for (uint32_t c = 0; c < vectors; c++) {
            uint32_t at = d + c * LANES;
            vf value = load_cache(rows, j * stride + at, q->rank - at, half);
            for (uint32_t h = 0; h < heads; h++)
                sum[h][c] = vf_fma(vf_set(scores[h][j]), value, sum[h][c]);
        }
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t c = 0; c < vectors; c++) {
            uint32_t at = d + c * LANES;
            vf_store_upto(acc + (size_t)h * q->rank + at, q->rank - at, sum[h][c]);
        }
}

/* heads is a constant at every call. */
INLINE void heads_block(const struct latent_query *q, uint32_t head, uint32_t heads,
                        const void *rows, uint32_t count, bool half, struct softmax_state *st,
                        float *acc)
{
    float scores[HEADS][ATTENTION_BLOCK], rescale[HEADS];
    uint32_t j = 0, d = 0;
    for (; j + ROWS <= count; j += ROWS) score_rows(q, head, heads, rows, j, ROWS, half, scores);
    for (; j < count; j++) score_rows(q, head, heads, rows, j, 1, half, scores);
    for (; j % LANES != 0; j++)
        for (uint32_t h = 0; h < heads; h++) scores[h][j] = -INFINITY;
    for (uint32_t h = 0; h < heads; h++)
        rescale[h] = softmax_update(scores[h], count, st + head + h);
    acc += (size_t)head * q->rank;
    for (; d + CHUNK * LANES <= q->rank; d += CHUNK * LANES)
        add_latents(q, heads, scores, rescale, rows, count, d, CHUNK, half, acc);
    for (; d < q->rank; d += LANES)
        add_latents(q, heads, scores, rescale, rows, count, d, 1, half, acc);
}

INLINE void latent_block(const struct latent_query *q, const void *rows, uint32_t count, bool half,
                         struct softmax_state *st, float *acc)
{
    uint32_t h = 0;
    for (; h + HEADS <= q->heads; h += HEADS) heads_block(q, h, HEADS, rows, count, half, st, acc);
    for (; h < q->heads; h++) heads_block(q, h, 1, rows, count, half, st, acc);
}

static void latent_block_f32(const struct latent_query *q, const float *rows, uint32_t count,
                             struct softmax_state *st, float *acc)
{
    latent_block(q, rows, count, false, st, acc);
}

static void latent_block_f16(const struct latent_query *q, const uint16_t *rows, uint32_t count,
                             struct softmax_state *st, float *acc)
{
    latent_block(q, rows, count, true, st, acc);
}

void SET(init_latent)(struct kernels *k)
{
    k->latent_block_f32 = latent_block_f32;
    k->latent_block_f16 = latent_block_f16;
}
