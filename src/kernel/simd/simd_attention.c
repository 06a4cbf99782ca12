/* One query head against one block of positions, with the softmax kept online (arXiv:1805.02867).
 */
#include "kernel/simd/softmax.h"

enum { KEYS = 4, CHUNK = 4 };

INLINE void score_keys(const float *q, const void *keys, uint32_t first, uint32_t count,
                       uint32_t head_dim, float scale, bool half, float *scores)
{
    vf acc[KEYS];
    for (uint32_t j = 0; j < count; j++) acc[j] = vf_set(0);
    for (uint32_t d = 0; d < head_dim; d += LANES) {
        uint32_t left = head_dim - d;
        vf query = vf_load_upto(q + d, left);
        for (uint32_t j = 0; j < count; j++) {
            vf key = load_cache(keys, (size_t)(first + j) * head_dim + d, left, half);
            acc[j] = vf_fma(query, key, acc[j]);
        }
    }
    for (uint32_t j = 0; j < count; j++) scores[first + j] = vf_sum(acc[j]) * scale;
}

/* acc[d ..] of `vectors` vectors, a constant at every call; the last may be a tail. */
INLINE void add_values(const float *scores, const void *values, uint32_t count, uint32_t head_dim,
                       uint32_t d, uint32_t vectors, vf rescale, bool half, float *acc)
{
    vf sum[CHUNK];
    for (uint32_t c = 0; c < vectors; c++) {
        uint32_t at = d + c * LANES;
        sum[c] = vf_mul(vf_load_upto(acc + at, head_dim - at), rescale);
    }
    for (uint32_t j = 0; j < count; j++) {
        vf weight = vf_set(scores[j]);
        for (uint32_t c = 0; c < vectors; c++) {
            uint32_t at = d + c * LANES;
            vf value = load_cache(values, (size_t)j * head_dim + at, head_dim - at, half);
            sum[c] = vf_fma(weight, value, sum[c]);
        }
    }
    for (uint32_t c = 0; c < vectors; c++) {
        uint32_t at = d + c * LANES;
        vf_store_upto(acc + at, head_dim - at, sum[c]);
    }
}

INLINE void attention_block(const float *q, const void *keys, const void *values, uint32_t count,
                            uint32_t head_dim, float scale, struct softmax_state *st, bool half,
                            float *acc)
{
    float scores[ATTENTION_BLOCK];
    uint32_t j = 0, d = 0;
    for (; j + KEYS <= count; j += KEYS)
        score_keys(q, keys, j, KEYS, head_dim, scale, half, scores);
    for (; j < count; j++) score_keys(q, keys, j, 1, head_dim, scale, half, scores);
    for (; j % LANES != 0; j++) scores[j] = -INFINITY;
    vf rescale = vf_set(softmax_update(scores, count, st));
    for (; d + CHUNK * LANES <= head_dim; d += CHUNK * LANES)
        add_values(scores, values, count, head_dim, d, CHUNK, rescale, half, acc);
    for (; d < head_dim; d += LANES)
        add_values(scores, values, count, head_dim, d, 1, rescale, half, acc);
}

static void attention_block_f32(const float *q, const float *keys, const float *values,
                                uint32_t count, uint32_t head_dim, float scale,
                                struct softmax_state *st, float *acc)
{
    attention_block(q, keys, values, count, head_dim, scale, st, false, acc);
}

static void attention_block_f16(const float *q, const uint16_t *keys, const uint16_t *values,
                                uint32_t count, uint32_t head_dim, float scale,
                                struct softmax_state *st, float *acc)
{
    attention_block(q, keys, values, count, head_dim, scale, st, true, acc);
}

void SET(init_attention)(struct kernels *k)
{
    k->attention_block_f32 = attention_block_f32;
    k->attention_block_f16 = attention_block_f16;
}
