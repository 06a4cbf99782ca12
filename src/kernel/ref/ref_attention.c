/* Query heads against one block of positions, the softmax kept online (arXiv:1805.02867). */
#include <math.h>

#include "base/fp16.h"
#include "kernel/ref/ref.h"

static float dot_f16(const float *a, const uint16_t *b, uint32_t n)
{
    float lane[8] = {0};
    uint32_t whole = n / 8 * 8;
    for (uint32_t i = 0; i < whole; i += 8)
        for (uint32_t j = 0; j < 8; j++) lane[j] += a[i + j] * f16_to_f32(b[i + j]);
    for (uint32_t i = whole; i < n; i++) lane[i - whole] += a[i] * f16_to_f32(b[i]);
    return ref_sum_lanes(lane);
}

/* Turns scores into exp(score - max), moves st to the new maximum, rescales acc to it. */
void ref_softmax_update(float *scores, uint32_t count, uint32_t head_dim, struct softmax_state *st,
                        float *acc)
{
    float max = st->max;
    for (uint32_t j = 0; j < count; j++) max = fmaxf(max, scores[j]);
    float rescale = max > st->max ? expf(st->max - max) : 1;
    float sum = st->sum * rescale;
    for (uint32_t j = 0; j < count; j++) {
        scores[j] = expf(scores[j] - max);
        sum += scores[j];
    }
    for (uint32_t d = 0; d < head_dim; d++) acc[d] *= rescale;
    st->max = max;
    st->sum = sum;
}

static void attention_block_f32(const struct attention_query *q, const float *keys,
                                const float *values, uint32_t count, struct softmax_state *st,
                                float *acc)
{
    float scores[ATTENTION_BLOCK];
    const uint32_t dim = q->head_dim;
    for (uint32_t h = 0; h < q->heads; h++, acc += dim) {
        for (uint32_t j = 0; j < count; j++)
            scores[j] = ref_dot(q->q + (size_t)h * dim, keys + (size_t)j * dim, dim) * q->scale;
        ref_softmax_update(scores, count, dim, st + h, acc);
        for (uint32_t j = 0; j < count; j++)
            for (uint32_t d = 0; d < dim; d++) acc[d] += scores[j] * values[(size_t)j * dim + d];
    }
}

static void attention_block_f16(const struct attention_query *q, const uint16_t *keys,
                                const uint16_t *values, uint32_t count, struct softmax_state *st,
                                float *acc)
{
    float scores[ATTENTION_BLOCK];
    const uint32_t dim = q->head_dim;
    for (uint32_t h = 0; h < q->heads; h++, acc += dim) {
        for (uint32_t j = 0; j < count; j++)
            scores[j] = dot_f16(q->q + (size_t)h * dim, keys + (size_t)j * dim, dim) * q->scale;
        ref_softmax_update(scores, count, dim, st + h, acc);
        for (uint32_t j = 0; j < count; j++)
            for (uint32_t d = 0; d < dim; d++)
                acc[d] += scores[j] * f16_to_f32(values[(size_t)j * dim + d]);
    }
}

void ref_init_attention(struct kernels *k)
{
    k->attention_block_f32 = attention_block_f32;
    k->attention_block_f16 = attention_block_f16;
}
