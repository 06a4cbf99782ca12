/*
 * Exact products of groups of 32 signed weights of four rows, laid out by put_group, with signed
 * activations: one sum for each half of the group, since some types scale halves by themselves.
 */
#ifndef SLUICE_KERNEL_DOT_HALVES_H
#define SLUICE_KERNEL_DOT_HALVES_H

#include "kernel/arm/dot_groups.h"

struct half_dots {
    vi first, second;
};

#if defined(__ARM_FEATURE_MATMUL_INT8)

/* Half h of two tokens. */
INLINE void half_of_two(const int8_t *group, uint32_t h, const int8_t *x0, const int8_t *x1,
                        vi *dot0, vi *dot1)
{
    vi upper = vi_set(0), lower = vi_set(0);
    for (uint32_t i = 2 * h; i < 2 * h + 2; i++) {
        int8x16_t x = vcombine_s8(vld1_s8(x0 + 8 * i), vld1_s8(x1 + 8 * i));
        upper = vmmlaq_s32(upper, vld1q_s8(group + 16 * i), x);
        lower = vmmlaq_s32(lower, vld1q_s8(group + 64 + 16 * i), x);
    }
    *dot0 = vuzp1q_s32(upper, lower);
    *dot1 = vuzp2q_s32(upper, lower);
}

INLINE void dot_halves(const uint8_t *group, const int8_t *x, size_t ldx, uint32_t tokens,
                       struct half_dots *d)
{
    const int8_t *w = (const int8_t *)group;
    for (uint32_t t = 0; t < tokens; t += 2) {
        struct half_dots same, *other = t + 1 < tokens ? &d[t + 1] : &same;
        const int8_t *x0 = x + t * ldx, *x1 = t + 1 < tokens ? x0 + ldx : x0;
        half_of_two(w, 0, x0, x1, &d[t].first, &other->first);
        half_of_two(w, 1, x0, x1, &d[t].second, &other->second);
    }
}

#elif defined(__ARM_FEATURE_DOTPROD)

INLINE void dot_halves(const uint8_t *group, const int8_t *x, size_t ldx, uint32_t tokens,
                       struct half_dots *d)
{
    const int8_t *quads = (const int8_t *)group;
    for (uint32_t t = 0; t < tokens; t++) {
        struct activations a = load_activations(x + t * ldx);
        d[t].first = dot_half(vi_set(0), quads, a.half[0]);
        d[t].second = dot_half(vi_set(0), quads + 64, a.half[1]);
    }
}

#else

/* Two products of magnitude 128 * 127 fit 16 bits. */
INLINE vi dot_sixteen(int8x16_t w, int8x16_t x)
{
    int16x8_t pairs = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    return vpaddlq_s16(vmlal_high_s8(pairs, w, x));
}

INLINE void dot_halves(const uint8_t *group, const int8_t *x, size_t ldx, uint32_t tokens,
                       struct half_dots *d)
{
    const int8_t *rows = (const int8_t *)group;
    for (uint32_t t = 0; t < tokens; t++) {
        struct activations a = load_activations(x + t * ldx);
        vi sums[2][ROWS];
        for (uint32_t r = 0; r < ROWS; r++)
            for (uint32_t i = 0; i < 2; i++)
                sums[i][r] = dot_sixteen(vld1q_s8(rows + 32 * r + 16 * i), a.half[i]);
        d[t] = (struct half_dots){fold_rows(sums[0]), fold_rows(sums[1])};
    }
}

#endif

#endif
