/*
 * Exact products of groups of 32 values: unsigned weights of four rows with signed activations.
 * Without i8mm no instruction multiplies unsigned with signed, so weights of 8 bits have 128 taken
 * off, which is added again 128 times the sum of the activations.
 */
#ifndef SLUICE_KERNEL_DOT_GROUPS_H
#define SLUICE_KERNEL_DOT_GROUPS_H

#include "kernel/arm/unpack_rows.h"

enum { ROWS = LANES, GROUP_BYTES = ROWS * 32, TILE_TOKENS = 4 };

struct activations {
    int8x16_t half[2];
};

INLINE struct activations load_activations(const int8_t *x)
{
    return (struct activations){{vld1q_s8(x), vld1q_s8(x + 16)}};
}

/* Lane i: the sum of the lanes of d[i]. */
INLINE vi fold_rows(const vi d[ROWS])
{
    return vpaddq_s32(vpaddq_s32(d[0], d[1]), vpaddq_s32(d[2], d[3]));
}

#if defined(__ARM_FEATURE_MATMUL_INT8)

INLINE void make_signed(uint8x16_t w[2], uint32_t bits)
{
    (void)w;
    (void)bits;
}

INLINE vi correction(struct activations x, uint32_t bits)
{
    (void)x;
    (void)bits;
    return vi_set(0);
}

INLINE vi dot_row(const uint8x16_t w[2], struct activations x)
{
    return vusdotq_s32(vusdotq_s32(vi_set(0), w[0], x.half[0]), w[1], x.half[1]);
}

/* Eight values of two rows in a vector: what usmmla multiplies. */
INLINE void put_group(uint8x16_t w[ROWS][2], uint8_t *out)
{
    for (uint32_t pair = 0; pair < 2; pair++)
        for (uint32_t i = 0; i < 2; i++, out += 32) {
            uint8x16_t a = w[2 * pair][i], b = w[2 * pair + 1][i];
            vst1q_u8(out, vcombine_u8(vget_low_u8(a), vget_low_u8(b)));
            vst1q_u8(out + 16, vcombine_u8(vget_high_u8(a), vget_high_u8(b)));
        }
}

/* Two tokens; of a single one the second is itself. */
INLINE void dot_two(const uint8_t *group, const int8_t *x0, const int8_t *x1, vi *idot0, vi *idot1)
{
    vi upper = vi_set(0), lower = vi_set(0);
    for (uint32_t i = 0; i < 4; i++) {
        int8x16_t x = vcombine_s8(vld1_s8(x0 + 8 * i), vld1_s8(x1 + 8 * i));
        upper = vusmmlaq_s32(upper, vld1q_u8(group + 16 * i), x);
        lower = vusmmlaq_s32(lower, vld1q_u8(group + 64 + 16 * i), x);
    }
    *idot0 = vuzp1q_s32(upper, lower);
    *idot1 = vuzp2q_s32(upper, lower);
}

INLINE void dot_group(const uint8_t *group, const int8_t *x, size_t ldx, uint32_t tokens,
                      uint32_t bits, vi idot[TILE_TOKENS])
{
    (void)bits;
    if (tokens == 1) {
        vi same;
        dot_two(group, x, x, &idot[0], &same);
        return;
    }
    for (uint32_t t = 0; t < tokens; t += 2)
        dot_two(group, x + t * ldx, x + (t + 1) * ldx, &idot[t], &idot[t + 1]);
}

#else

INLINE void make_signed(uint8x16_t w[2], uint32_t bits)
{
    if (bits != 8) return;
    for (uint32_t i = 0; i < 2; i++) w[i] = veorq_u8(w[i], vdupq_n_u8(0x80));
}

/* What is missing in every row. */
INLINE vi correction(struct activations x, uint32_t bits)
{
    if (bits != 8) return vi_set(0);
    return vi_set(128 * (vaddlvq_s8(x.half[0]) + vaddlvq_s8(x.half[1])));
}

#if defined(__ARM_FEATURE_DOTPROD)

INLINE vi dot_row(const uint8x16_t w[2], struct activations x)
{
    vi d = vdotq_s32(vi_set(0), vreinterpretq_s8_u8(w[0]), x.half[0]);
    return vdotq_s32(d, vreinterpretq_s8_u8(w[1]), x.half[1]);
}

/* Four values of four rows in a vector. */
INLINE void put_group(uint8x16_t w[ROWS][2], uint8_t *out)
{
    for (uint32_t i = 0; i < 2; i++) {
        uint32x4_t r[ROWS];
        for (uint32_t j = 0; j < ROWS; j++) r[j] = vreinterpretq_u32_u8(w[j][i]);
        uint64x2_t a = vreinterpretq_u64_u32(vtrn1q_u32(r[0], r[1]));
        uint64x2_t b = vreinterpretq_u64_u32(vtrn2q_u32(r[0], r[1]));
        uint64x2_t c = vreinterpretq_u64_u32(vtrn1q_u32(r[2], r[3]));
        uint64x2_t d = vreinterpretq_u64_u32(vtrn2q_u32(r[2], r[3]));
        vst1q_u8(out + 64 * i, vreinterpretq_u8_u64(vtrn1q_u64(a, c)));
        vst1q_u8(out + 64 * i + 16, vreinterpretq_u8_u64(vtrn1q_u64(b, d)));
        vst1q_u8(out + 64 * i + 32, vreinterpretq_u8_u64(vtrn2q_u64(a, c)));
        vst1q_u8(out + 64 * i + 48, vreinterpretq_u8_u64(vtrn2q_u64(b, d)));
    }
}

INLINE vi dot_half(vi sum, const int8_t *quads, int8x16_t x)
{
    sum = vdotq_laneq_s32(sum, vld1q_s8(quads), x, 0);
    sum = vdotq_laneq_s32(sum, vld1q_s8(quads + 16), x, 1);
    sum = vdotq_laneq_s32(sum, vld1q_s8(quads + 32), x, 2);
    return vdotq_laneq_s32(sum, vld1q_s8(quads + 48), x, 3);
}

INLINE void dot_group(const uint8_t *group, const int8_t *x, size_t ldx, uint32_t tokens,
                      uint32_t bits, vi idot[TILE_TOKENS])
{
    const int8_t *quads = (const int8_t *)group;
    for (uint32_t t = 0; t < tokens; t++) {
        struct activations a = load_activations(x + t * ldx);
        vi sum = dot_half(correction(a, bits), quads, a.half[0]);
        idot[t] = dot_half(sum, quads + 64, a.half[1]);
    }
}

#else

/* Two products of magnitude 128 * 127 fit 16 bits. */
INLINE vi dot_row(const uint8x16_t w[2], struct activations x)
{
    int16x8_t pairs[2];
    for (uint32_t i = 0; i < 2; i++) {
        int8x16_t v = vreinterpretq_s8_u8(w[i]);
        pairs[i] = vmull_s8(vget_low_s8(v), vget_low_s8(x.half[i]));
        pairs[i] = vmlal_high_s8(pairs[i], v, x.half[i]);
    }
    return vpadalq_s16(vpaddlq_s16(pairs[0]), pairs[1]);
}

/* Row after row. */
INLINE void put_group(uint8x16_t w[ROWS][2], uint8_t *out)
{
    for (uint32_t r = 0; r < ROWS; r++, out += 32) {
        vst1q_u8(out, w[r][0]);
        vst1q_u8(out + 16, w[r][1]);
    }
}

INLINE void dot_group(const uint8_t *group, const int8_t *x, size_t ldx, uint32_t tokens,
                      uint32_t bits, vi idot[TILE_TOKENS])
{
    for (uint32_t t = 0; t < tokens; t++) {
        struct activations a = load_activations(x + t * ldx);
        vi d[ROWS];
        for (uint32_t r = 0; r < ROWS; r++) {
            uint8x16_t w[2] = {vld1q_u8(group + 32 * r), vld1q_u8(group + 32 * r + 16)};
            d[r] = dot_row(w, a);
        }
        idot[t] = vi_add(fold_rows(d), correction(a, bits));
    }
}

#endif
#endif

#endif
