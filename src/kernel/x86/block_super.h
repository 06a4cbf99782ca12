/*
 * Eight groups of 32 packed weights of one row, a super-group, from GGUF's blocks or MXFP4 to
 * bytes. What a weight is worth: kernel/ref/ref_blocks.c. 256-bit vectors at every instruction
 * set: these rows come from memory, which is slower.
 *
 * A vector has halves of two groups, g in its lower lane and g + 4 in the upper one: what is then
 * added across a lane gives each group's sum in its own place, and fields of both lie in the same
 * bits of their bytes.
 *
 * Everything is inlined with the type as a constant.
 */
#ifndef SLUICE_KERNEL_BLOCK_SUPER_H
#define SLUICE_KERNEL_BLOCK_SUPER_H

#include "base/bits.h"
#include "kernel/simd/block_types.h"

enum { SUPER = 256, SUPER_GROUPS = SUPER / ACT8_GROUP, PAIRS = SUPER_GROUPS / 2 };

struct super {
    __m256i q[SUPER_GROUPS]; /* [g * 2 + h]: halves h of groups g, g + 4; the offset is still in */
    __m256i sub, min;        /* 16-bit integer scales and minima of sixteen values */
    __m256 scale;            /* of each group */
    __m256 bias;             /* of each group, or the scale of the minima */
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

/* Sixteen bytes for each lane. */
INLINE __m256i load_two(const uint8_t *lower, const uint8_t *upper)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load_128(lower)), load_128(upper), 1);
}

INLINE __m256i load_twice(const uint8_t *p)
{
    return _mm256_broadcastsi128_si256(load_128(p));
}

INLINE __m256 load_half(const uint8_t *p)
{
    return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(load_u16(p))));
}

/* The first words of eight blocks, and the second ones. A block has sixteen bytes at least. */
INLINE void gather_words(const uint8_t *p, size_t step, __m128i *first, __m128i *second)
{
    __m128i two[PAIRS], four[2];
    UNROLL
    for (uint32_t i = 0; i < PAIRS; i++, p += 2 * step)
        two[i] = _mm_unpacklo_epi16(load_128(p), load_128(p + step));
    for (uint32_t i = 0; i < 2; i++) four[i] = _mm_unpacklo_epi32(two[2 * i], two[2 * i + 1]);
    *first = _mm_unpacklo_epi64(four[0], four[1]);
    *second = _mm_unpackhi_epi64(four[0], four[1]);
}

/* The half-precision numbers at p, p + step, ... of eight blocks. */
INLINE __m256 load_halves(const uint8_t *p, size_t step)
{
    __m128i halves, others;
    gather_words(p, step, &halves, &others);
    return _mm256_cvtph_ps(halves);
}

/* Two of them in each block. */
INLINE void load_scale_and_bias(const uint8_t *p, size_t step, struct super *s)
{
    __m128i scales, biases;
    gather_words(p, step, &scales, &biases);
    s->scale = _mm256_cvtph_ps(scales);
    s->bias = _mm256_cvtph_ps(biases);
}

/* Fields of `bits` bits in every byte, moved so that `to` bits are below. */
INLINE __m256i field(__m256i v, uint32_t from, uint32_t bits, uint32_t to)
{
    const __m256i mask = _mm256_set1_epi8((char)(((1u << bits) - 1) << to));
    if (from > to) v = _mm256_srli_epi16(v, (int)(from - to));
    if (from < to) v = _mm256_slli_epi16(v, (int)(to - from));
    return _mm256_and_si256(v, mask);
}

/* Sixteen bytes of each of groups g and g + 4 at p, p + apart: low halves, then high ones. */
INLINE void halves_apart(const uint8_t *p, size_t apart, __m256i q[2])
{
    __m256i v = load_two(p, p + apart);
    q[0] = field(v, 0, 4, 0);
    q[1] = field(v, 4, 4, 0);
}

/* The same where the lower half of a byte has the value before that of the higher one. */
INLINE void halves_in_turn(const uint8_t *p, size_t apart, __m256i q[2])
{
    __m256i v[2];
    halves_apart(p, apart, v);
    q[0] = _mm256_unpacklo_epi8(v[0], v[1]);
    q[1] = _mm256_unpackhi_epi8(v[0], v[1]);
}

/* Bit i of the words at p, p + apart as 16 in byte i of 32; adds them to q. */
INLINE void add_fifth_bits(const uint8_t *p, size_t apart, __m256i q[2])
{
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    uint32_t lower = load_u32(p), upper = load_u32(p + apart);
    __m256i v = _mm256_inserti128_si256(_mm256_set1_epi32((int32_t)lower),
                                        _mm_set1_epi32((int32_t)upper), 1);
    for (uint32_t h = 0; h < 2; h++) {
        const char a = (char)(2 * h), b = (char)(2 * h + 1);
        const __m256i spread = _mm256_broadcastsi128_si256(
            _mm_setr_epi8(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b));
        __m256i set = _mm256_and_si256(_mm256_shuffle_epi8(v, spread), bit);
        set = _mm256_and_si256(_mm256_cmpeq_epi8(set, bit), _mm256_set1_epi8(16));
        q[h] = _mm256_or_si256(q[h], set);
    }
}

INLINE __m256i look_up(__m128i table, __m256i index)
{
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), index);
}

INLINE void iq4_bytes(__m256i q[2])
{
    const __m128i table =
        _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
    for (uint32_t h = 0; h < 2; h++) q[h] = look_up(table, q[h]);
}

/* Twice e2m1, plus 12. */
INLINE void e2m1_bytes(__m256i q[2])
{
    const __m128i table = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    for (uint32_t h = 0; h < 2; h++) q[h] = look_up(table, q[h]);
}

/* 2^(e - 128), the half of 2^(e - 127), which is denormal for 0; NaN for 255. */
INLINE __m256 e8m0_halves(__m128i bytes)
{
    __m256i e = _mm256_cvtepu8_epi32(bytes);
    __m256i bits = _mm256_max_epi32(_mm256_slli_epi32(e, 23), _mm256_set1_epi32(0x00400000));
    bits = _mm256_or_si256(bits, _mm256_cmpgt_epi32(e, _mm256_set1_epi32(254)));
    return _mm256_mul_ps(_mm256_castsi256_ps(bits), _mm256_set1_ps(0.5f));
}

/* The first bytes of eight blocks. */
INLINE __m128i gather_bytes(const uint8_t *p, size_t step)
{
    __m128i two[PAIRS], four[2];
    UNROLL
    for (uint32_t i = 0; i < PAIRS; i++, p += 2 * step)
        two[i] = _mm_unpacklo_epi8(load_128(p), load_128(p + step));
    for (uint32_t i = 0; i < 2; i++) four[i] = _mm_unpacklo_epi16(two[2 * i], two[2 * i + 1]);
    return _mm_unpacklo_epi32(four[0], four[1]);
}

/* Blocks of 32 values: eight of them from p on. */

INLINE void load_4_bits(enum wtype type, const uint8_t *p, struct super *s)
{
    const size_t step = block_has_bias(type) ? 20 : 18, at = step - 16;
    UNROLL
    for (uint32_t g = 0; g < PAIRS; g++) {
        halves_apart(p + g * step + at, 4 * step, s->q + (size_t)2 * g);
        if (type == WTYPE_IQ4_NL) iq4_bytes(s->q + (size_t)2 * g);
    }
    if (block_has_bias(type)) {
        load_scale_and_bias(p, step, s);
    } else {
        s->scale = load_halves(p, step);
    }
}

INLINE void load_5_bits(enum wtype type, const uint8_t *p, struct super *s)
{
    const size_t step = block_has_bias(type) ? 24 : 22, at = step - 16;
    UNROLL
    for (uint32_t g = 0; g < PAIRS; g++) {
        halves_apart(p + g * step + at, 4 * step, s->q + (size_t)2 * g);
        add_fifth_bits(p + g * step + at - 4, 4 * step, s->q + (size_t)2 * g);
    }
    if (block_has_bias(type)) {
        load_scale_and_bias(p, step, s);
    } else {
        s->scale = load_halves(p, step);
    }
}

INLINE void load_q8(const uint8_t *p, struct super *s)
{
    UNROLL
    for (uint32_t i = 0; i < SUPER_GROUPS; i++) {
        const uint8_t *half = p + i / 2 * 34ul + 2 + i % 2 * 16;
        s->q[i] = load_two(half, half + 4 * 34ul);
    }
    s->scale = load_halves(p, 34);
}

INLINE void load_mxfp4(const uint8_t *p, struct super *s)
{
    UNROLL
    for (uint32_t g = 0; g < PAIRS; g++) {
        halves_apart(p + g * 17ul + 1, 4 * 17ul, s->q + (size_t)2 * g);
        e2m1_bytes(s->q + (size_t)2 * g);
    }
    s->scale = e8m0_halves(gather_bytes(p, 17));
}

INLINE void load_mxfp4_split(const uint8_t *p, const uint8_t *scales, struct super *s)
{
    UNROLL
    for (uint32_t g = 0; g < PAIRS; g++) {
        halves_in_turn(p + g * 16ul, 4 * 16ul, s->q + (size_t)2 * g);
        e2m1_bytes(s->q + (size_t)2 * g);
    }
    s->scale = e8m0_halves(_mm_loadl_epi64((const void *)scales));
}

/* Blocks of 256 values */

INLINE void load_q2_k(const uint8_t *p, struct super *s)
{
    const __m128i low = _mm_set1_epi8(15);
    __m128i scales = load_128(p);
    UNROLL
    for (uint32_t i = 0; i < SUPER_GROUPS; i++) {
        const uint8_t *half = p + 16 + i % 2 * 16;
        s->q[i] = field(load_two(half, half + 32), i / 2 * 2, 2, 0);
    }
    s->sub = _mm256_cvtepu8_epi16(_mm_and_si128(scales, low));
    s->min = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(scales, 4), low));
    s->scale = load_half(p + 80);
    s->bias = load_half(p + 82);
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

/* Sixteen bytes with a bit for each group: that of group g in bit g of both lanes, g < 4. */
INLINE __m256i bits_of_groups(const uint8_t *p)
{
    const __m256i shifts = _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4);
    return _mm256_srlv_epi32(load_twice(p), shifts);
}

INLINE void load_q3_k(const uint8_t *p, struct super *s)
{
    __m256i high[2] = {bits_of_groups(p), bits_of_groups(p + 16)};
    UNROLL
    for (uint32_t i = 0; i < SUPER_GROUPS; i++) {
        const uint8_t *half = p + 32 + i % 2 * 16;
        __m256i low = field(load_two(half, half + 32), i / 2 * 2, 2, 0);
        s->q[i] = _mm256_or_si256(low, field(high[i % 2], i / 2, 1, 2));
    }
    s->sub = q3_k_scales(p + 96);
    s->scale = load_half(p + 108);
}

/*
 * Eight scales and eight minima of six bits in twelve bytes behind their own two scales. In one
 * dword each: the first four scales, the others, the first four minima, the others.
 */
INLINE void load_k_scales(const uint8_t *p, struct super *s)
{
    const __m256i low_at = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
    const __m256i high_at = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(-1, -1, -1, -1, 4, 5, 6, 7, -1, -1, -1, -1, 8, 9, 10, 11));
    const __m256i low_shift = _mm256_setr_epi32(0, 0, 0, 4, 0, 0, 0, 4);
    const __m256i low_mask = _mm256_set1_epi64x(0x0f0f0f0f3f3f3f3f);
    const __m256i spread = _mm256_setr_epi8(0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1,
                                            4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1);
    const __m256i spread_minima = _mm256_or_si256(spread, _mm256_set1_epi16(8));
    __m256i head = load_twice(p);
    __m128 scales = _mm_cvtph_ps(_mm256_castsi256_si128(head));
    __m256i low = _mm256_srlv_epi32(_mm256_shuffle_epi8(head, low_at), low_shift);
    __m256i high = field(_mm256_shuffle_epi8(head, high_at), 6, 2, 4);
    __m256i all = _mm256_or_si256(_mm256_and_si256(low, low_mask), high);
    s->sub = _mm256_shuffle_epi8(all, spread);
    s->min = _mm256_shuffle_epi8(all, spread_minima);
    s->scale = _mm256_broadcastss_ps(scales);
    s->bias = _mm256_broadcastss_ps(_mm_movehdup_ps(scales));
}

/* Groups 0 and 1 are the halves of the bytes of the first 32, groups 2 and 3 of the next. */
INLINE void load_nibbles(const uint8_t *p, struct super *s)
{
    UNROLL
    for (uint32_t i = 0; i < PAIRS; i++) {
        __m256i two[2];
        halves_apart(p + i / 2 * 32 + i % 2 * 16, 64, two);
        s->q[i / 2 * 4 + i % 2] = two[0];
        s->q[i / 2 * 4 + i % 2 + 2] = two[1];
    }
}

INLINE void load_q4_k(const uint8_t *p, struct super *s)
{
    load_nibbles(p + 16, s);
    load_k_scales(p, s);
}

INLINE void load_q5_k(const uint8_t *p, struct super *s)
{
    __m256i fifth[2] = {bits_of_groups(p + 16), bits_of_groups(p + 32)};
    load_nibbles(p + 48, s);
    UNROLL
    for (uint32_t i = 0; i < SUPER_GROUPS; i++)
        s->q[i] = _mm256_or_si256(s->q[i], field(fifth[i % 2], i / 2, 1, 4));
    load_k_scales(p, s);
}

INLINE void load_q6_k(const uint8_t *p, struct super *s)
{
    UNROLL
    for (uint32_t i = 0; i < SUPER_GROUPS; i++) {
        const uint8_t *low = p + i / 2 % 2 * 32 + i % 2 * 16, *high = p + 128 + i % 2 * 16;
        __m256i bits = field(load_two(high, high + 32), i / 2 * 2, 2, 4);
        s->q[i] = _mm256_or_si256(field(load_two(low, low + 64), i / 4 * 4, 4, 0), bits);
    }
    s->sub = _mm256_cvtepi8_epi16(load_128(p + 192));
    s->scale = load_half(p + 208);
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
    for (uint32_t g = 0; g < PAIRS; g++) {
        halves_apart(p + 8 + g * 16ul, 64, s->q + (size_t)2 * g);
        iq4_bytes(s->q + (size_t)2 * g);
    }
    s->scale = _mm256_mul_ps(_mm256_cvtepi32_ps(scales), load_half(p));
}

/* scales: of the split type only. */
INLINE void load_super(enum wtype type, const uint8_t *p, const uint8_t *scales, struct super *s)
{
    switch ((int)type) {
    case WTYPE_MXFP4_SPLIT: load_mxfp4_split(p, scales, s); break;
    case WTYPE_Q4_0:
    case WTYPE_Q4_1:
    case WTYPE_IQ4_NL: load_4_bits(type, p, s); break;
    case WTYPE_Q5_0:
    case WTYPE_Q5_1: load_5_bits(type, p, s); break;
    case WTYPE_Q8_0: load_q8(p, s); break;
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
