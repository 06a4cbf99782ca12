/*
 * A super-group of one row with activations: eight terms, one for each group, as kernel.h defines
 * them.
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

/* One row of activations; halves are the sums of sixteen. */
struct token {
    const int8_t *q;
    const float *scale, *sum;
    const int16_t *halves;
};

/* The sums of four groups by half, and of four others, to the eight sums in order. */
INLINE __m256i join_sums(__m256i a, __m256i b)
{
    return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20),
                            _mm256_permute2x128_si256(a, b, 0x31));
}

/* Lane g is the sum of v[g]. */
INLINE __m256i sum_each(const __m256i v[SUPER_GROUPS])
{
    return join_sums(
        _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3])),
        _mm256_hadd_epi32(_mm256_hadd_epi32(v[4], v[5]), _mm256_hadd_epi32(v[6], v[7])));
}

/* Of 16-bit integers that may be added in fours without overflow. */
INLINE __m256i sum_each_short(const __m256i v[SUPER_GROUPS])
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i a = _mm256_hadd_epi16(_mm256_hadd_epi16(v[0], v[1]), _mm256_hadd_epi16(v[2], v[3]));
    __m256i b = _mm256_hadd_epi16(_mm256_hadd_epi16(v[4], v[5]), _mm256_hadd_epi16(v[6], v[7]));
    return join_sums(_mm256_madd_epi16(a, ones), _mm256_madd_epi16(b, ones));
}

/*
 * Sums of pairs of products in 16 bits: bytes are at most 63, or of magnitude 128 at most with an
 * activation of 127.
 */
INLINE __m256i dot_pairs(__m256i q, __m256i x, bool is_signed)
{
    if (!is_signed) return _mm256_maddubs_epi16(q, x);
    return _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q));
}

/* Scales of sixteen, those of the first halves of groups in the lower lane, then the others. */
INLINE __m256i halves_by_lane(__m256i sub)
{
    const __m256i evens_first = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
    return _mm256_permute4x64_epi64(_mm256_shuffle_epi8(sub, evens_first), 0xd8);
}

/* Word g of each lane in all words of it. */
INLINE __m256i repeat_word(__m256i v, uint32_t g)
{
    return _mm256_shuffle_epi8(v, _mm256_set1_epi16((short)(g * 0x0202 + 0x0100)));
}

/* The exact integers of the eight groups, but for the offset. */
INLINE __m256i group_dots(enum wtype type, const struct super *s, const int8_t *x)
{
    __m256i sums[SUPER_GROUPS], by_lane = _mm256_setzero_si256();
    const bool pairs_fit = !block_has_sub(type) && !block_signed(type);
    if (block_has_sub(type)) by_lane = halves_by_lane(s->sub);
    UNROLL
    for (uint32_t g = 0; g < SUPER_GROUPS; g++) {
        __m256i v = load_256((const uint8_t *)x + (size_t)g * ACT8_GROUP);
        __m256i by = block_has_sub(type) ? repeat_word(by_lane, g) : _mm256_set1_epi16(1);
        sums[g] = dot_pairs(s->q[g], v, block_signed(type));
        if (!pairs_fit) sums[g] = _mm256_madd_epi16(sums[g], by);
    }
    return pairs_fit ? sum_each_short(sums) : sum_each(sums);
}

INLINE __m256 super_terms(enum wtype type, const struct super *s, const struct token *t)
{
    __m256i dots = group_dots(type, s, t->q);
    __m256i halves = load_256((const uint8_t *)t->halves);
    __m256 act_scale = _mm256_loadu_ps(t->scale);
    int32_t offset = block_offset(type);
    if (offset) {
        __m256i by = block_has_sub(type) ? s->sub : _mm256_set1_epi16((short)offset);
        __m256i part = _mm256_madd_epi16(by, halves);
        if (block_has_sub(type)) part = _mm256_slli_epi32(part, __builtin_ctz((uint32_t)offset));
        dots = _mm256_sub_epi32(dots, part);
    }
    __m256 terms = _mm256_mul_ps(_mm256_cvtepi32_ps(dots), _mm256_mul_ps(s->scale, act_scale));
    if (block_has_bias(type))
        terms = _mm256_add_ps(terms, _mm256_mul_ps(s->bias, _mm256_loadu_ps(t->sum)));
    if (type == WTYPE_Q2_K) {
        __m256 minima = _mm256_cvtepi32_ps(_mm256_madd_epi16(s->min, halves));
        terms = _mm256_add_ps(terms, _mm256_mul_ps(minima, _mm256_mul_ps(s->bias, act_scale)));
    }
    return terms;
}

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

#endif
