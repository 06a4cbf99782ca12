/*
 * A super-group of one row with activations: eight terms, one for each group, as kernel.h defines
 * them. Halves of groups lie as in struct super.
 */
#ifndef SLUICE_KERNEL_BLOCK_DOT_H
#define SLUICE_KERNEL_BLOCK_DOT_H

#include "kernel/x86/block_super.h"

/* Sums of four products of bytes, unsigned by signed. */
#if defined(__AVX512VNNI__)
#define DPBUSD _mm512_dpbusd_epi32
#elif defined(__AVXVNNI__)
#define DPBUSD _mm256_dpbusd_avx_epi32
#endif

/* A super-group of a row of activations. */
struct token {
    int8_t q[SUPER];
    uint8_t magnitude[SUPER];
    int16_t halves[2 * SUPER_GROUPS]; /* sums of sixteen, group by group */
    float scale[SUPER_GROUPS], sum[SUPER_GROUPS];
};

/* The sums of sixteen of a super-group of activations, in order. */
INLINE __m256i half_sums(const int8_t *x)
{
    __m256i v[SUPER_GROUPS];
    UNROLL
    for (uint32_t g = 0; g < SUPER_GROUPS; g++)
        v[g] = _mm256_maddubs_epi16(_mm256_set1_epi8(1),
                                    load_256((const uint8_t *)x + (size_t)g * ACT8_GROUP));
    __m256i a = _mm256_hadd_epi16(_mm256_hadd_epi16(v[0], v[1]), _mm256_hadd_epi16(v[2], v[3]));
    __m256i b = _mm256_hadd_epi16(_mm256_hadd_epi16(v[4], v[5]), _mm256_hadd_epi16(v[6], v[7]));
    __m256i sums = _mm256_hadd_epi16(a, b);
    __m128i first = _mm256_castsi256_si128(sums), second = _mm256_extracti128_si256(sums, 1);
    return _mm256_set_m128i(_mm_unpackhi_epi16(first, second), _mm_unpacklo_epi16(first, second));
}

INLINE void make_token(const int8_t *x, const float *scale, const float *sum, struct token *t)
{
    const uint8_t *bytes = (const uint8_t *)x;
    for (uint32_t i = 0; i < SUPER_GROUPS; i++) {
        const uint8_t *half = bytes + (size_t)i * 16;
        __m256i v = load_two(half, half + SUPER / 2);
        _mm256_storeu_si256((void *)(t->q + (size_t)i * 32), v);
        _mm256_storeu_si256((void *)(t->magnitude + (size_t)i * 32), _mm256_abs_epi8(v));
    }
    _mm256_storeu_si256((void *)t->halves, half_sums(x));
    memcpy(t->scale, scale, sizeof t->scale);
    memcpy(t->sum, sum, sizeof t->sum);
}

/*
 * Sums of pairs of products in 16 bits: bytes are at most 63, or of magnitude 128 at most with an
 * activation of 127. Only Q8_0 has -128, which has no negative.
 */
INLINE __m256i dot_pairs(enum wtype type, __m256i q, const struct token *t, uint32_t i)
{
    __m256i x = load_256((const uint8_t *)t->q + (size_t)i * 32);
    if (!block_signed(type)) return _mm256_maddubs_epi16(q, x);
    if (type == WTYPE_Q8_0) return _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q));
    return _mm256_maddubs_epi16(load_256(t->magnitude + (size_t)i * 32), _mm256_sign_epi8(q, x));
}

/* Word i of each lane in all words of it. */
INLINE __m256i repeat_word(__m256i v, uint32_t i)
{
    return _mm256_shuffle_epi8(v, _mm256_set1_epi16((short)(i * 0x0202 + 0x0100)));
}

INLINE __m256i add_dwords_16(__m256i a, __m256i b)
{
    return _mm256_add_epi16(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
}

/*
 * The sums of each group's 32 products, from pairs in 16 bits. Bytes of at most 15 leave room for
 * sixteen products in 16 bits, others for eight; by: what each group's integer is multiplied with.
 */
INLINE __m256i sum_pairs(enum wtype type, const __m256i pairs[SUPER_GROUPS], __m256i by)
{
    __m256i v[PAIRS];
    for (uint32_t g = 0; g < PAIRS; g++) v[g] = _mm256_add_epi16(pairs[2 * g], pairs[2 * g + 1]);
    __m256i a = add_dwords_16(v[0], v[1]), b = add_dwords_16(v[2], v[3]);
    if (block_most(type) <= 15) {
        __m256i all = _mm256_add_epi16(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
        return _mm256_madd_epi16(all, by);
    }
    a = _mm256_madd_epi16(a, _mm256_shuffle_epi32(by, 0x44));
    b = _mm256_madd_epi16(b, _mm256_shuffle_epi32(by, 0xee));
    return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

/* The same from sums in 32 bits. */
INLINE __m256i sum_dwords(const __m256i d[SUPER_GROUPS])
{
    __m256i v[PAIRS], two[2];
    for (uint32_t g = 0; g < PAIRS; g++) v[g] = _mm256_add_epi32(d[2 * g], d[2 * g + 1]);
    for (uint32_t i = 0; i < 2; i++)
        two[i] = _mm256_add_epi32(_mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]),
                                  _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
    return _mm256_add_epi32(_mm256_unpacklo_epi64(two[0], two[1]),
                            _mm256_unpackhi_epi64(two[0], two[1]));
}

/* The exact integers of the eight groups, but for the offset. */
INLINE __m256i group_dots(enum wtype type, const struct super *s, const struct token *t)
{
    const bool by_half = block_has_sub(type) && !block_same_subs(type);
    __m256i v[SUPER_GROUPS];
    UNROLL
    for (uint32_t i = 0; i < SUPER_GROUPS; i++) {
        v[i] = dot_pairs(type, s->q[i], t, i);
        if (by_half) v[i] = _mm256_madd_epi16(v[i], repeat_word(s->sub, i));
        if (block_signed(type)) v[i] = _mm256_madd_epi16(v[i], _mm256_set1_epi16(1));
    }
    if (by_half || block_signed(type)) return sum_dwords(v);
    return sum_pairs(type, v, block_same_subs(type) ? s->sub : _mm256_set1_epi16(1));
}

INLINE __m256 super_terms(enum wtype type, const struct super *s, const struct token *t)
{
    __m256i dots = group_dots(type, s, t);
    __m256i halves = load_256((const uint8_t *)t->halves);
    __m256 act_scale = _mm256_loadu_ps(t->scale);
    int32_t offset = block_offset(type);
    if (offset) {
        __m256i by = block_has_sub(type) ? s->sub : _mm256_set1_epi16((short)offset);
        __m256i part = _mm256_madd_epi16(by, halves);
        if (block_has_sub(type)) part = _mm256_slli_epi32(part, __builtin_ctz((uint32_t)offset));
        dots = _mm256_sub_epi32(dots, part);
    }
    __m256 terms = _mm256_cvtepi32_ps(dots);
    if (block_has_min(type)) {
        __m256 minima = _mm256_cvtepi32_ps(_mm256_madd_epi16(s->min, halves));
        terms = _mm256_sub_ps(_mm256_mul_ps(terms, s->scale), _mm256_mul_ps(minima, s->bias));
        return _mm256_mul_ps(terms, act_scale);
    }
    terms = _mm256_mul_ps(terms, _mm256_mul_ps(s->scale, act_scale));
    if (block_has_bias(type))
        terms = _mm256_add_ps(terms, _mm256_mul_ps(s->bias, _mm256_loadu_ps(t->sum)));
    return terms;
}

#endif
