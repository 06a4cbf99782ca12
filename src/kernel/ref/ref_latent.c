/* Multi-head latent attention in its absorbed form (arXiv:2405.04434, section 2.1). */
#include <math.h>

#include "base/fp16.h"
#include "kernel/ref/ref.h"

/* Either format of the cache. */
struct latents {
    const float *f32;
    const uint16_t *f16; /* NULL: f32 */
    uint32_t stride;
};

static float latent_at(const struct latents *l, uint32_t row, uint32_t i)
{
    size_t at = (size_t)row * l->stride + i;
    return l->f16 ? f16_to_f32(l->f16[at]) : l->f32[at];
}

static float score(const struct latent_query *q, uint32_t head, const struct latents *l,
                   uint32_t row)
{
    const float *latent = q->latent + (size_t)head * q->rank;
    const float *rot = q->rot + (size_t)head * q->rotated;
    float lane[8] = {0};
    for (uint32_t i = 0; i < q->rank; i++) lane[i % 8] += latent[i] * latent_at(l, row, i);
    for (uint32_t i = 0; i < q->rotated; i++)
        lane[i % 8] += rot[i] * latent_at(l, row, q->rank + i);
    return ref_sum_lanes(lane) * q->scale;
}

static void head_block(const struct latent_query *q, uint32_t head, const struct latents *l,
                       uint32_t count, struct softmax_state *st, float *acc)
{
    float scores[ATTENTION_BLOCK];
    for (uint32_t j = 0; j < count; j++) scores[j] = score(q, head, l, j);
    ref_softmax_update(scores, count, q->rank, st, acc);
    for (uint32_t j = 0; j < count; j++)
        for (uint32_t i = 0; i < q->rank; i++) acc[i] += scores[j] * latent_at(l, j, i);
}

static void latent_block(const struct latent_query *q, const struct latents *l, uint32_t count,
                         struct softmax_state *st, float *acc)
{
    for (uint32_t h = 0; h < q->heads; h++)
        head_block(q, h, l, count, st + h, acc + (size_t)h * q->rank);
}

static void latent_block_f32(const struct latent_query *q, const float *rows, uint32_t count,
                             struct softmax_state *st, float *acc)
{
    struct latents l = {.f32 = rows, .stride = q->rank + q->rotated};
    latent_block(q, &l, count, st, acc);
}

static void latent_block_f16(const struct latent_query *q, const uint16_t *rows, uint32_t count,
                             struct softmax_state *st, float *acc)
{
    struct latents l = {.f16 = rows, .stride = q->rank + q->rotated};
    latent_block(q, &l, count, st, acc);
}

void ref_init_latent(struct kernels *k)
{
    k->latent_block_f32 = latent_block_f32;
    k->latent_block_f16 = latent_block_f16;
}
