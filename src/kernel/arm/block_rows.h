/*
 * One block of a row, from GGUF's layouts or MXFP4 to signed bytes and scales of its groups. What a
 * weight is worth: kernel/ref/ref_blocks.c. Everything is inlined with the type as a constant.
 */
#ifndef SLUICE_KERNEL_BLOCK_ROWS_H
#define SLUICE_KERNEL_BLOCK_ROWS_H

#include "kernel/simd/block_types.h"

enum { BLOCK_GROUPS = 8 };

struct block {
    int8x16_t q[BLOCK_GROUPS][2];
    float scale[BLOCK_GROUPS];
    float bias[BLOCK_GROUPS];      /* or the scale of the minima */
    int16_t sub[2 * BLOCK_GROUPS]; /* integer scales of sixteen values */
    int16_t min[2 * BLOCK_GROUPS]; /* their minima */
};

INLINE float f16_at(const uint8_t *p)
{
    uint16x4_t bits = vdup_n_u16(load_u16(p));
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(bits)), 0);
}

/* Fields of `bits` bits from bit `from` of every byte. */
INLINE uint8x16_t field(uint8x16_t v, uint32_t from, uint32_t bits)
{
    v = vshlq_u8(v, vdupq_n_s8((int8_t) - (int)from));
    return vandq_u8(v, vdupq_n_u8((uint8_t)((1u << bits) - 1)));
}

INLINE uint8x16_t with_bit(uint8x16_t v, uint8x16_t bit, uint32_t place)
{
    return vorrq_u8(v, vshlq_u8(bit, vdupq_n_s8((int8_t)place)));
}

INLINE int8x16_t less(uint8x16_t v, int offset)
{
    return vsubq_s8(vreinterpretq_s8_u8(v), vdupq_n_s8((int8_t)offset));
}

/* Sixteen bytes: all low halves, then all high ones. */
INLINE void halves_apart(const uint8_t *p, uint8x16_t out[2])
{
    uint8x16_t v = vld1q_u8(p);
    out[0] = vandq_u8(v, vdupq_n_u8(15));
    out[1] = vshrq_n_u8(v, 4);
}

/* Sixteen bytes: the halves where they are, the lower one first. */
INLINE void halves_in_turn(const uint8_t *p, uint8x16_t out[2])
{
    uint8x16_t v[2];
    halves_apart(p, v);
    out[0] = vzip1q_u8(v[0], v[1]);
    out[1] = vzip2q_u8(v[0], v[1]);
}

INLINE int8x16_t iq4_bytes(uint8x16_t codes)
{
    const int8_t table[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                              1,    13,   25,  38,  53,  69,  89,  113};
    return vqtbl1q_s8(vld1q_s8(table), codes);
}

/* Twice e2m1. */
INLINE int8x16_t e2m1_bytes(uint8x16_t codes)
{
    const int8_t table[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    return vqtbl1q_s8(vld1q_s8(table), codes);
}

/* 2^(e - 128), denormal for 0 and 1; NaN for 255. */
INLINE float e8m0_half(uint8_t e)
{
    uint32_t bits = e < 2 ? 0x00200000u << e : (e - 1u) << 23;
    float scale;
    if (e == 255) bits = 0x7fc00000;
    memcpy(&scale, &bits, sizeof scale);
    return scale;
}

/* Blocks of 32 values */

INLINE void load_4_bits(enum wtype type, const uint8_t *p, struct block *b)
{
    uint8x16_t v[2];
    bool bias = block_has_bias(type);
    halves_apart(p + (bias ? 4 : 2), v);
    b->scale[0] = f16_at(p);
    if (bias) b->bias[0] = f16_at(p + 2);
    for (uint32_t i = 0; i < 2; i++)
        b->q[0][i] = type == WTYPE_IQ4_NL ? iq4_bytes(v[i]) : less(v[i], bias ? 0 : 8);
}

/* The fifth bits are one word, value i's at bit i. */
INLINE void load_5_bits(enum wtype type, const uint8_t *p, struct block *b)
{
    const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t v[2];
    bool bias = block_has_bias(type);
    const uint8_t *fifth = p + (bias ? 4 : 2);
    halves_apart(fifth + 4, v);
    b->scale[0] = f16_at(p);
    if (bias) b->bias[0] = f16_at(p + 2);
    for (uint32_t i = 0; i < 2; i++) {
        uint8x16_t two = vcombine_u8(vdup_n_u8(fifth[2 * i]), vdup_n_u8(fifth[2 * i + 1]));
        uint8x16_t set = vtstq_u8(two, vld1q_u8(bits));
        b->q[0][i] = less(vorrq_u8(v[i], vandq_u8(set, vdupq_n_u8(16))), bias ? 0 : 16);
    }
}

INLINE void load_q8(const uint8_t *p, struct block *b)
{
    b->scale[0] = f16_at(p);
    for (uint32_t i = 0; i < 2; i++) b->q[0][i] = vreinterpretq_s8_u8(vld1q_u8(p + 2 + 16 * i));
}

INLINE void load_mxfp4(const uint8_t *p, struct block *b)
{
    uint8x16_t v[2];
    halves_apart(p + 1, v);
    b->scale[0] = e8m0_half(p[0]);
    for (uint32_t i = 0; i < 2; i++) b->q[0][i] = e2m1_bytes(v[i]);
}

INLINE void load_mxfp4_split(const uint8_t *p, uint8_t scale, struct block *b)
{
    uint8x16_t v[2];
    halves_in_turn(p, v);
    b->scale[0] = e8m0_half(scale);
    for (uint32_t i = 0; i < 2; i++) b->q[0][i] = e2m1_bytes(v[i]);
}

/* Blocks of 256 values */

INLINE void same_scale(float scale, float out[BLOCK_GROUPS])
{
    for (uint32_t g = 0; g < BLOCK_GROUPS; g++) out[g] = scale;
}

/* The pairs of bits of group g: byte i of the 32 of its half has value i of four groups. */
INLINE uint8x16_t pairs(const uint8_t *p, uint32_t g, uint32_t i)
{
    return field(vld1q_u8(p + g / 4 * 32 + 16 * i), g % 4 * 2, 2);
}

INLINE void load_q2_k(const uint8_t *p, struct block *b)
{
    for (uint32_t g = 0; g < BLOCK_GROUPS; g++)
        for (uint32_t i = 0; i < 2; i++) b->q[g][i] = less(pairs(p + 16, g, i), 0);
    for (uint32_t i = 0; i < 2 * BLOCK_GROUPS; i++) {
        b->sub[i] = p[i] & 15;
        b->min[i] = p[i] >> 4;
    }
    same_scale(f16_at(p + 80), b->scale);
    same_scale(f16_at(p + 82), b->bias);
}

INLINE void load_q3_k(const uint8_t *p, struct block *b)
{
    const uint8_t *scales = p + 96;
    for (uint32_t g = 0; g < BLOCK_GROUPS; g++)
        for (uint32_t i = 0; i < 2; i++) {
            uint8x16_t high = field(vld1q_u8(p + 16 * i), g, 1);
            b->q[g][i] = less(with_bit(pairs(p + 32, g, i), high, 2), 4);
        }
    for (uint32_t i = 0; i < 2 * BLOCK_GROUPS; i++) {
        int low = scales[i % 8] >> i / 8 * 4 & 15, high = scales[8 + i % 4] >> i / 4 * 2 & 3;
        b->sub[i] = (int16_t)((low | high << 4) - 32);
    }
    same_scale(f16_at(p + 108), b->scale);
}

/* Eight scales and eight minima of six bits in twelve bytes behind their own two scales. */
INLINE void load_k_scales(const uint8_t *p, struct block *b)
{
    const uint32_t six = 0x3f3f3f3f, low = 0x0f0f0f0f, pair = 0x03030303;
    uint32_t s = load_u32(p + 4), m = load_u32(p + 8), rest = load_u32(p + 12);
    uint32_t scales[2] = {s & six, (rest & low) | (s >> 6 & pair) << 4};
    uint32_t minima[2] = {m & six, (rest >> 4 & low) | (m >> 6 & pair) << 4};
    for (uint32_t i = 0; i < 2 * BLOCK_GROUPS; i++) {
        uint32_t word = i / 2 / 4, shift = i / 2 % 4 * 8;
        b->sub[i] = (int16_t)(scales[word] >> shift & 63);
        b->min[i] = (int16_t)(minima[word] >> shift & 63);
    }
    same_scale(f16_at(p), b->scale);
    same_scale(f16_at(p + 2), b->bias);
}

/* Byte i of 32 has value i of two groups. */
INLINE uint8x16_t halves(const uint8_t *p, uint32_t g, uint32_t i)
{
    return field(vld1q_u8(p + g / 2 * 32 + 16 * i), g % 2 * 4, 4);
}

INLINE void load_q4_k(const uint8_t *p, struct block *b)
{
    load_k_scales(p, b);
    for (uint32_t g = 0; g < BLOCK_GROUPS; g++)
        for (uint32_t i = 0; i < 2; i++) b->q[g][i] = less(halves(p + 16, g, i), 0);
}

INLINE void load_q5_k(const uint8_t *p, struct block *b)
{
    load_k_scales(p, b);
    for (uint32_t g = 0; g < BLOCK_GROUPS; g++)
        for (uint32_t i = 0; i < 2; i++) {
            uint8x16_t fifth = field(vld1q_u8(p + 16 + 16 * i), g, 1);
            b->q[g][i] = less(with_bit(halves(p + 48, g, i), fifth, 4), 0);
        }
}

INLINE void load_q6_k(const uint8_t *p, struct block *b)
{
    for (uint32_t g = 0; g < BLOCK_GROUPS; g++)
        for (uint32_t i = 0; i < 2; i++) {
            const uint8_t *low = p + g / 4 * 64 + g % 2 * 32 + 16 * i;
            uint8x16_t v = field(vld1q_u8(low), g % 4 / 2 * 4, 4);
            b->q[g][i] = less(with_bit(v, pairs(p + 128, g, i), 4), 32);
        }
    for (uint32_t i = 0; i < 2 * BLOCK_GROUPS; i++) b->sub[i] = (int8_t)p[192 + i];
    same_scale(f16_at(p + 208), b->scale);
}

INLINE void load_iq4_xs(const uint8_t *p, struct block *b)
{
    uint32_t high = load_u16(p + 2), low = load_u32(p + 4);
    float scale = f16_at(p);
    for (uint32_t g = 0; g < BLOCK_GROUPS; g++) {
        int n = (int)((low >> 4 * g & 15) | (high >> 2 * g & 3) << 4) - 32;
        uint8x16_t v[2];
        b->scale[g] = scale * (float)n;
        halves_apart(p + 8 + 16 * g, v);
        for (uint32_t i = 0; i < 2; i++) b->q[g][i] = iq4_bytes(v[i]);
    }
}

/* Block n of a row; scales: of the split type only. */
INLINE void load_block(enum wtype type, const uint8_t *row, const uint8_t *scales, uint32_t n,
                       struct block *b)
{
    const uint8_t *p = row + (size_t)n * wtype_block_bytes(type);
    switch ((int)type) {
    case WTYPE_MXFP4_SPLIT: load_mxfp4_split(p, scales[n], b); break;
    case WTYPE_Q4_0:
    case WTYPE_Q4_1:
    case WTYPE_IQ4_NL: load_4_bits(type, p, b); break;
    case WTYPE_Q5_0:
    case WTYPE_Q5_1: load_5_bits(type, p, b); break;
    case WTYPE_Q8_0: load_q8(p, b); break;
    case WTYPE_MXFP4: load_mxfp4(p, b); break;
    case WTYPE_Q2_K: load_q2_k(p, b); break;
    case WTYPE_Q3_K: load_q3_k(p, b); break;
    case WTYPE_Q4_K: load_q4_k(p, b); break;
    case WTYPE_Q5_K: load_q5_k(p, b); break;
    case WTYPE_Q6_K: load_q6_k(p, b); break;
    case WTYPE_IQ4_XS: load_iq4_xs(p, b); break;
    }
}

INLINE const uint8_t *split_scales(const struct wmat *w, size_t row)
{
    return w->type == WTYPE_MXFP4_SPLIT ? w->scales + row * (w->cols / ACT8_GROUP) : NULL;
}

#endif
