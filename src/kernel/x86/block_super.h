/*
 * Eight groups of 32 packed weights of one row, a super-group, from GGUF's blocks or MXFP4 to
 * bytes. What a weight is worth: kernel/ref/ref_blocks.c. 256-bit vectors at every instruction
 * set: these rows come from memory, which is slower.
 *
 * Everything is inlined with the type as a constant.
 */
#ifndef SLUICE_KERNEL_BLOCK_SUPER_H
#define SLUICE_KERNEL_BLOCK_SUPER_H

#include "base/bits.h"
#include "kernel/simd/block_types.h"

enum { SUPER = 256, SUPER_GROUPS = SUPER / ACT8_GROUP };

struct super {
    __m256i q[SUPER_GROUPS]; /* value i of the group in byte i; the offset is still in it */
    __m256i sub, min;        /* 16-bit integer scales and minima of sixteen values */
    __m256 scale;            /* of each group */
    __m256 bias;             /* of each group; Q2_K: scale of the minima */
};

/* What is subtracted from each byte. */
INLINE int32_t block_offset(enum wtype type)
{
    switch ((int)type) {
    case WTYPE_Q4_0: return 8;
    case WTYPE_Q5_0: return 16;
    case WTYPE_Q3_K: return 4;
    case WTYPE_Q6_K: return 32;
    case WTYPE_MXFP4:
    case WTYPE_MXFP4_SPLIT: return 12;
    default: return 0;
    }
}

/* Signed bytes; else they are at most block_most. */
INLINE bool block_signed(enum wtype type)
{
    return type == WTYPE_Q8_0 || type == WTYPE_IQ4_NL || type == WTYPE_IQ4_XS;
}

INLINE uint32_t block_most(enum wtype type)
{
    switch ((int)type) {
    case WTYPE_Q2_K: return 3;
    case WTYPE_Q3_K: return 7;
    case WTYPE_MXFP4:
    case WTYPE_MXFP4_SPLIT: return 24;
    case WTYPE_Q5_0:
    case WTYPE_Q5_1:
    case WTYPE_Q5_K: return 31;
    case WTYPE_Q6_K: return 63;
    default: return 15;
    }
}

INLINE __m128i load_128(const uint8_t *p)
{
    return _mm_loadu_si128((const void *)p);
}

INLINE __m256i load_256(const uint8_t *p)
{
    return _mm256_loadu_si256((const void *)p);
}

INLINE float load_half(const uint8_t *p)
{
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(load_u16(p))));
}

/* The half-precision numbers at p, p + step, ... of eight blocks. */
INLINE __m256 load_halves(const uint8_t *p, size_t step)
{
    return _mm256_cvtph_ps(_mm_setr_epi16(
        (short)load_u16(p), (short)load_u16(p + step), (short)load_u16(p + 2 * step),
        (short)load_u16(p + 3 * step), (short)load_u16(p + 4 * step), (short)load_u16(p + 5 * step),
        (short)load_u16(p + 6 * step), (short)load_u16(p + 7 * step)));
}

/* Sixteen bytes: all low halves, then all high ones. */
INLINE __m256i halves_apart(const uint8_t *p)
{
    const __m256i shifts = _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4);
    __m256i v = _mm256_broadcastsi128_si256(load_128(p));
    return _mm256_and_si256(_mm256_srlv_epi32(v, shifts), _mm256_set1_epi8(15));
}

/* Sixteen bytes: the halves where they are, the lower one first. */
INLINE __m256i halves_in_turn(const uint8_t *p)
{
    __m256i v = _mm256_cvtepu8_epi16(load_128(p));
    return _mm256_and_si256(_mm256_or_si256(v, _mm256_slli_epi16(v, 4)), _mm256_set1_epi8(15));
}

/* Bit i of the word at p as 16 in byte i. */
INLINE __m256i fifth_bits(const uint8_t *p)
{
    const __m256i spread =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i v = _mm256_shuffle_epi8(_mm256_set1_epi32((int32_t)load_u32(p)), spread);
    v = _mm256_cmpeq_epi8(_mm256_and_si256(v, bit), bit);
    return _mm256_and_si256(v, _mm256_set1_epi8(16));
}

INLINE __m256i look_up(__m128i table, __m256i index)
{
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), index);
}

INLINE __m256i iq4_bytes(__m256i codes)
{
    return look_up(
        _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113),
        codes);
}

/* Twice e2m1, plus 12. */
INLINE __m256i e2m1_bytes(__m256i codes)
{
    return look_up(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0), codes);
}

/* 2^(e - 128), denormal for 0 and 1; NaN for 255. */
INLINE __m256 e8m0_halves(__m128i bytes)
{
    __m256i e = _mm256_cvtepu8_epi32(bytes);
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i denormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    __m256i is_denormal = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
    __m256i nan = _mm256_cmpeq_epi32(e, _mm256_set1_epi32(255));
    __m256i bits = _mm256_blendv_epi8(normal, denormal, is_denormal);
    return _mm256_castsi256_ps(_mm256_or_si256(bits, nan));
}

INLINE __m256 bytes_to_floats(uint32_t low, uint32_t high)
{
    __m128i v = _mm_cvtsi64_si128((long long)(low | (uint64_t)high << 32));
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v));
}

/* Blocks of 32 values: eight of them from p on. */

INLINE void load_q4(const uint8_t *p, struct super *s)
{
    UNROLL
    for (uint32_t g = 0; g < SUPER_GROUPS; g++) s->q[g] = halves_apart(p + g * 18ul + 2);
    s->scale = load_halves(p, 18);
}

INLINE void load_q4_bias(const uint8_t *p, struct super *s)
{
    UNROLL
    for (uint32_t g = 0; g < SUPER_GROUPS; g++) s->q[g] = halves_apart(p + g * 20ul + 4);
    s->scale = load_halves(p, 20);
    s->bias = load_halves(p + 2, 20);
}

INLINE void load_q5(const uint8_t *p, struct super *s)
{
    UNROLL
    for (uint32_t g = 0; g < SUPER_GROUPS; g++)
        s->q[g] = _mm256_or_si256(halves_apart(p + g * 22ul + 6), fifth_bits(p + g * 22ul + 2));
    s->scale = load_halves(p, 22);
}

INLINE void load_q5_bias(const uint8_t *p, struct super *s)
{
    UNROLL
    for (uint32_t g = 0; g < SUPER_GROUPS; g++)
        s->q[g] = _mm256_or_si256(halves_apart(p + g * 24ul + 8), fifth_bits(p + g * 24ul + 4));
    s->scale = load_halves(p, 24);
    s->bias = load_halves(p + 2, 24);
}

INLINE void load_q8(const uint8_t *p, struct super *s)
{
    UNROLL
    for (uint32_t g = 0; g < SUPER_GROUPS; g++) s->q[g] = load_256(p + g * 34ul + 2);
    s->scale = load_halves(p, 34);
}

INLINE void load_iq4(const uint8_t *p, struct super *s)
{
    UNROLL
    for (uint32_t g = 0; g < SUPER_GROUPS; g++) s->q[g] = iq4_bytes(halves_apart(p + g * 18ul + 2));
    s->scale = load_halves(p, 18);
}

INLINE void load_mxfp4(const uint8_t *p, struct super *s)
{
    UNROLL
    for (uint32_t g = 0; g < SUPER_GROUPS; g++)
        s->q[g] = e2m1_bytes(halves_apart(p + g * 17ul + 1));
    s->scale =
        e8m0_halves(_mm_setr_epi8((char)p[0], (char)p[17], (char)p[34], (char)p[51], (char)p[68],
                                  (char)p[85], (char)p[102], (char)p[119], 0, 0, 0, 0, 0, 0, 0, 0));
}

INLINE void load_mxfp4_split(const uint8_t *p, const uint8_t *scales, struct super *s)
{
    UNROLL
    for (uint32_t g = 0; g < SUPER_GROUPS; g++) s->q[g] = e2m1_bytes(halves_in_turn(p + g * 16ul));
    s->scale = e8m0_halves(_mm_loadl_epi64((const void *)scales));
}

/* Blocks of 256 values */

/* Fields of `bits` bits in the low bits of every byte, shifted left so that `to` bits are below. */
INLINE __m256i field(__m256i v, uint32_t from, uint32_t bits, uint32_t to)
{
    const __m256i mask = _mm256_set1_epi8((char)(((1u << bits) - 1) << to));
    v = from > to ? _mm256_srli_epi16(v, (int)(from - to)) : _mm256_slli_epi16(v, (int)(to - from));
    return _mm256_and_si256(v, mask);
}

INLINE void load_q2_k(const uint8_t *p, struct super *s)
{
    __m128i scales = load_128(p);
    UNROLL
    for (uint32_t g = 0; g < SUPER_GROUPS; g++)
        s->q[g] = field(load_256(p + 16 + g / 4 * 32), g % 4 * 2, 2, 0);
    s->sub = _mm256_cvtepu8_epi16(_mm_and_si128(scales, _mm_set1_epi8(15)));
    s->min = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(scales, 4), _mm_set1_epi8(15)));
    s->scale = _mm256_set1_ps(load_half(p + 80));
    s->bias = _mm256_set1_ps(-load_half(p + 82));
}

INLINE __m256i q3_k_scales(const uint8_t *p)
{
    const uint32_t low = 0x0f0f0f0f, pair = 0x03030303;
    uint32_t a = load_u32(p), b = load_u32(p + 4), high = load_u32(p + 8);
    __m128i v = _mm_setr_epi32((int32_t)((a & low) | (high & pair) << 4),
                               (int32_t)((b & low) | (high >> 2 & pair) << 4),
                               (int32_t)((a >> 4 & low) | (high >> 4 & pair) << 4),
                               (int32_t)((b >> 4 & low) | (high >> 6 & pair) << 4));
    return _mm256_cvtepi8_epi16(_mm_sub_epi8(v, _mm_set1_epi8(32)));
}

INLINE void load_q3_k(const uint8_t *p, struct super *s)
{
    __m256i high = load_256(p);
    UNROLL
    for (uint32_t g = 0; g < SUPER_GROUPS; g++) {
        __m256i low = field(load_256(p + 32 + g / 4 * 32), g % 4 * 2, 2, 0);
        s->q[g] = _mm256_or_si256(low, field(high, g, 1, 2));
    }
    s->sub = q3_k_scales(p + 96);
    s->scale = _mm256_set1_ps(load_half(p + 108));
}

INLINE void load_k_scales(const uint8_t *p, struct super *s)
{
    const uint32_t six = 0x3f3f3f3f, low = 0x0f0f0f0f, pair = 0x03030303;
    uint32_t a = load_u32(p + 4), b = load_u32(p + 8), c = load_u32(p + 12);
    __m256 scales = bytes_to_floats(a & six, (c & low) | (a >> 6 & pair) << 4);
    __m256 minima = bytes_to_floats(b & six, (c >> 4 & low) | (b >> 6 & pair) << 4);
    s->scale = _mm256_mul_ps(scales, _mm256_set1_ps(load_half(p)));
    s->bias = _mm256_mul_ps(minima, _mm256_set1_ps(-load_half(p + 2)));
}

INLINE void load_q4_k(const uint8_t *p, struct super *s)
{
    UNROLL
    for (uint32_t g = 0; g < SUPER_GROUPS; g++)
        s->q[g] = field(load_256(p + 16 + g / 2 * 32), g % 2 * 4, 4, 0);
    load_k_scales(p, s);
}

INLINE void load_q5_k(const uint8_t *p, struct super *s)
{
    __m256i fifth = load_256(p + 16);
    UNROLL
    for (uint32_t g = 0; g < SUPER_GROUPS; g++) {
        __m256i low = field(load_256(p + 48 + g / 2 * 32), g % 2 * 4, 4, 0);
        s->q[g] = _mm256_or_si256(low, field(fifth, g, 1, 4));
    }
    load_k_scales(p, s);
}

INLINE void load_q6_k(const uint8_t *p, struct super *s)
{
    UNROLL
    for (uint32_t g = 0; g < SUPER_GROUPS; g++) {
        __m256i low = field(load_256(p + g / 4 * 64 + g % 2 * 32), g % 4 / 2 * 4, 4, 0);
        __m256i high = field(load_256(p + 128 + g / 4 * 32), g % 4 * 2, 2, 4);
        s->q[g] = _mm256_or_si256(low, high);
    }
    s->sub = _mm256_cvtepi8_epi16(load_128(p + 192));
    s->scale = _mm256_set1_ps(load_half(p + 208));
}

INLINE void load_iq4_xs(const uint8_t *p, struct super *s)
{
    const __m256i fours = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    const __m256i twos = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
    __m256i low = _mm256_srlv_epi32(_mm256_set1_epi32((int32_t)load_u32(p + 4)), fours);
    __m256i high = _mm256_srlv_epi32(_mm256_set1_epi32(load_u16(p + 2)), twos);
    low = _mm256_and_si256(low, _mm256_set1_epi32(15));
    high = _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4);
    __m256i scales = _mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32));
    UNROLL
    for (uint32_t g = 0; g < SUPER_GROUPS; g++) s->q[g] = iq4_bytes(halves_apart(p + 8 + g * 16ul));
    s->scale = _mm256_mul_ps(_mm256_cvtepi32_ps(scales), _mm256_set1_ps(load_half(p)));
}

/* scales: of the split type only. */
INLINE void load_super(enum wtype type, const uint8_t *p, const uint8_t *scales, struct super *s)
{
    switch ((int)type) {
    case WTYPE_MXFP4_SPLIT: load_mxfp4_split(p, scales, s); break;
    case WTYPE_Q4_0: load_q4(p, s); break;
    case WTYPE_Q4_1: load_q4_bias(p, s); break;
    case WTYPE_Q5_0: load_q5(p, s); break;
    case WTYPE_Q5_1: load_q5_bias(p, s); break;
    case WTYPE_Q8_0: load_q8(p, s); break;
    case WTYPE_IQ4_NL: load_iq4(p, s); break;
    case WTYPE_MXFP4: load_mxfp4(p, s); break;
    case WTYPE_Q2_K: load_q2_k(p, s); break;
    case WTYPE_Q3_K: load_q3_k(p, s); break;
    case WTYPE_Q4_K: load_q4_k(p, s); break;
    case WTYPE_Q5_K: load_q5_k(p, s); break;
    case WTYPE_Q6_K: load_q6_k(p, s); break;
    case WTYPE_IQ4_XS: load_iq4_xs(p, s); break;
    }
}

/* Bytes of a super-group, and of a block. */
INLINE size_t super_bytes(enum wtype type)
{
    switch (type) {
#define T(name, text, kind, values, bytes)                                                         \
    case WTYPE_##name:                                                                             \
        return SUPER / (values) * (bytes);
#include "kernel/wtype.def"
#undef T
    default: return 0;
    }
}

/* Whether a row may end within a super-group. */
INLINE bool may_end_within(enum wtype type)
{
    switch (type) {
#define T(name, text, kind, values, bytes)                                                         \
    case WTYPE_##name:                                                                             \
        return (values) < SUPER;
#include "kernel/wtype.def"
#undef T
    default: return false;
    }
}

/* The first `groups` groups of a super-group, the others zero; reads no byte behind them. */
INLINE void load_part(enum wtype type, const uint8_t *p, const uint8_t *scales, uint32_t groups,
                      struct super *s)
{
    uint8_t copy[SUPER_GROUPS * 34] = {0}, scale_copy[SUPER_GROUPS] = {0};
    memcpy(copy, p, groups * (super_bytes(type) / SUPER_GROUPS));
    if (type == WTYPE_MXFP4_SPLIT) memcpy(scale_copy, scales, groups);
    load_super(type, copy, scale_copy, s);
}

#endif
