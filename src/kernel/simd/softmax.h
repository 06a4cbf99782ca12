/* The softmax kept online over blocks (arXiv:1805.02867), for kernels of attention. */
#ifndef SLUICE_KERNEL_SOFTMAX_H
#define SLUICE_KERNEL_SOFTMAX_H

#include <math.h>

#include "kernel/simd/sets.h"

/*
 * Turns scores, padded with -infinity, into exp(score - max), moves st to the new maximum and
 * returns the factor that brings older sums to it.
 */
INLINE float softmax_update(float *scores, uint32_t count, struct softmax_state *st)
{
    vf max_lanes = vf_set(st->max);
    for (uint32_t j = 0; j < count; j += LANES) max_lanes = vf_max(vf_load(scores + j), max_lanes);
    float max = vf_max_lane(max_lanes);
    float rescale = max > st->max ? expf(st->max - max) : 1;
    vf sum = vf_set(0);
    for (uint32_t j = 0; j < count; j += LANES) {
        vf e = vf_exp(vf_sub(vf_load(scores + j), vf_set(max)));
        vf_store(scores + j, e);
        sum = vf_add(sum, e);
    }
    st->sum = st->sum * rescale + vf_sum(sum);
    st->max = max;
    return rescale;
}

/* Values of a cache in either format; `half` is a constant at every call. */
INLINE vf load_cache(const void *rows, size_t i, uint32_t left, bool half)
{
    if (!half) return vf_load_upto((const float *)rows + i, left);
    const uint16_t *p = (const uint16_t *)rows + i;
    return left >= LANES ? vf_load_f16(p) : vf_load_f16_tail(p, left);
}

#endif
