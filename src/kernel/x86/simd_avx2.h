/* simd.h for AVX2 with FMA and F16C. */
#ifndef SLUICE_KERNEL_SIMD_AVX2_H
#define SLUICE_KERNEL_SIMD_AVX2_H

#include <immintrin.h>

enum { LANES = 8 };
typedef __m256 vf;
typedef __m256i vi;
typedef __m256i dwords; /* eight */

INLINE __m256i first_lanes(uint32_t n)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int32_t)n), lane);
}

INLINE vf vf_set(float x)
{
    return _mm256_set1_ps(x);
}
INLINE vf vf_load(const void *p)
{
    return _mm256_loadu_ps(p);
}
INLINE vf vf_load_tail(const void *p, uint32_t n)
{
    return _mm256_maskload_ps(p, first_lanes(n));
}
INLINE void vf_store(float *p, vf v)
{
    _mm256_storeu_ps(p, v);
}
INLINE void vf_store_tail(float *p, uint32_t n, vf v)
{
    _mm256_maskstore_ps(p, first_lanes(n), v);
}
/* To memory, past the caches; p is a multiple of the vector. */
INLINE void vf_stream(float *p, vf v)
{
    _mm256_stream_ps(p, v);
}
/* Such stores are in no order with others: what comes after this comes after them. */
INLINE void vf_stream_end(void)
{
    _mm_sfence();
}

INLINE vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
INLINE vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}
INLINE vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
INLINE vf vf_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}
INLINE vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
/* The second operand where one is NaN. */
INLINE vf vf_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}
INLINE vf vf_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}
INLINE vf vf_abs(vf a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
INLINE vf vf_round(vf a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* p * 2^n for integral n in -150 .. 128, in two steps: 2^n alone may be out of range. */
INLINE vf vf_scale2(vf p, vf n)
{
    const __m256i bias = _mm256_set1_epi32(127);
    __m256i whole = _mm256_cvtps_epi32(n);
    __m256i half = _mm256_srai_epi32(whole, 1);
    __m256i rest = _mm256_sub_epi32(whole, half);
    __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i second = _mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}
/* a > b ? x : y */
INLINE vf vf_if_greater(vf a, vf b, vf x, vf y)
{
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
}

/* LANES / 2 values, each in two lanes */
INLINE vf vf_load_twice(const float *p)
{
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), twice);
}
INLINE vf vf_swap_pairs(vf v)
{
    return _mm256_permute_ps(v, 0xb1);
}
/* a - b in even lanes, a + b in odd ones */
INLINE vf vf_sub_add(vf a, vf b)
{
    return _mm256_addsub_ps(a, b);
}

INLINE __m128 vf_fold(vf v)
{
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}
/* The sum of all lanes, always by the same tree. */
INLINE float vf_sum(vf v)
{
    __m128 quad = vf_fold(v);
    quad = _mm_add_ps(quad, _mm_movehl_ps(quad, quad));
    return _mm_cvtss_f32(_mm_add_ss(quad, _mm_movehdup_ps(quad)));
}
/* The sums of four vectors, each by the tree of vf_sum. */
INLINE void vf_sum4(const vf v[4], float *out)
{
    __m128 a = vf_fold(v[0]), b = vf_fold(v[1]), c = vf_fold(v[2]), d = vf_fold(v[3]);
    __m128 ab = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
    __m128 cd = _mm_add_ps(_mm_movelh_ps(c, d), _mm_movehl_ps(d, c));
    _mm_storeu_ps(out, _mm_add_ps(_mm_shuffle_ps(ab, cd, 0x88), _mm_shuffle_ps(ab, cd, 0xdd)));
}
/* The first and the second pair of each four lanes of a, then of b. */
INLINE vf vf_low_pairs(vf a, vf b)
{
    return _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
}
INLINE vf vf_high_pairs(vf a, vf b)
{
    return _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
}
/* Lane i: the sum of v[i] by the tree of vf_sum. */
INLINE vf vf_sums(const vf v[LANES])
{
    vf quad[4]; /* of v[i] and v[i + 4] */
    for (int i = 0; i < 4; i++)
        quad[i] = _mm256_add_ps(_mm256_permute2f128_ps(v[i], v[i + 4], 0x20),
                                _mm256_permute2f128_ps(v[i], v[i + 4], 0x31));
    vf ab = _mm256_add_ps(vf_low_pairs(quad[0], quad[1]), vf_high_pairs(quad[0], quad[1]));
    vf cd = _mm256_add_ps(vf_low_pairs(quad[2], quad[3]), vf_high_pairs(quad[2], quad[3]));
    return _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x88), _mm256_shuffle_ps(ab, cd, 0xdd));
}
INLINE float vf_max_lane(vf v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/* There is no masked load of 16-bit elements: a tail goes through memory. */
INLINE __m128i load_half_tail(const void *p, uint32_t n)
{
    uint16_t h[LANES] = {0};
    memcpy(h, p, n * sizeof h[0]);
    return _mm_loadu_si128((const void *)h);
}
INLINE vf bf16_to_vf(__m128i h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
INLINE vf vf_load_bf16(const uint8_t *p)
{
    return bf16_to_vf(_mm_loadu_si128((const void *)p));
}
INLINE vf vf_load_bf16_tail(const uint8_t *p, uint32_t n)
{
    return bf16_to_vf(load_half_tail(p, n));
}
INLINE vf vf_load_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}
INLINE vf vf_load_f16_tail(const void *p, uint32_t n)
{
    return _mm256_cvtph_ps(load_half_tail(p, n));
}
INLINE void vf_store_f16(uint16_t *p, vf v)
{
    _mm_storeu_si128((void *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
INLINE void vf_store_f16_tail(uint16_t *p, uint32_t n, vf v)
{
    uint16_t h[LANES];
    vf_store_f16(h, v);
    memcpy(p, h, n * sizeof h[0]);
}

INLINE vi vi_set(int32_t x)
{
    return _mm256_set1_epi32(x);
}
INLINE vi vi_load(const void *p)
{
    return _mm256_loadu_si256(p);
}
INLINE vi vi_load_tail(const void *p, uint32_t n, vi others)
{
    __m256i mask = first_lanes(n);
    return _mm256_blendv_epi8(others, _mm256_maskload_epi32(p, mask), mask);
}
INLINE void vi_store(void *p, vi v)
{
    _mm256_storeu_si256(p, v);
}
INLINE vi vi_add(vi a, vi b)
{
    return _mm256_add_epi32(a, b);
}
INLINE vi vi_sub(vi a, vi b)
{
    return _mm256_sub_epi32(a, b);
}
INLINE vi vi_and(vi a, vi b)
{
    return _mm256_and_si256(a, b);
}
INLINE vi vi_or(vi a, vi b)
{
    return _mm256_or_si256(a, b);
}
/* (a & b) | c */
INLINE vi vi_and_or(vi a, vi b, vi c)
{
    return _mm256_or_si256(_mm256_and_si256(a, b), c);
}
INLINE vi vi_srl(vi a, uint32_t bits)
{
    return _mm256_srli_epi32(a, (int)bits);
}
INLINE vi vi_sll(vi a, uint32_t bits)
{
    return _mm256_slli_epi32(a, (int)bits);
}
INLINE vi vi_srlv(vi a, vi bits)
{
    return _mm256_srlv_epi32(a, bits);
}
INLINE vi vi_sllv(vi a, vi bits)
{
    return _mm256_sllv_epi32(a, bits);
}
INLINE vi vi_mul(vi a, vi b)
{
    return _mm256_mullo_epi32(a, b);
}
INLINE vi vi_max(vi a, vi b)
{
    return _mm256_max_epi32(a, b);
}
INLINE int32_t vi_max_lane(vi v)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return _mm_cvtsi128_si32(m);
}
INLINE int32_t vi_sum(vi v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
}
/* Bit i is set where lane i is equal. */
INLINE uint32_t vi_equal(vi a, vi b)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b)));
}
INLINE vi vi_if_greater(vi a, vi b, vi x, vi y)
{
    return _mm256_blendv_epi8(y, x, _mm256_cmpgt_epi32(a, b));
}
/* Lane i becomes table[index i], index < 8. */
INLINE vi vi_lookup(dwords table, vi index)
{
    return _mm256_permutevar8x32_epi32(table, index);
}
INLINE vi vi_iota(void)
{
    return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
}
/* count <= 8 dwords */
INLINE dwords load_dwords(const uint8_t *p, uint32_t count)
{
    return _mm256_maskload_epi32((const void *)p, first_lanes(count));
}
/* LANES bytes without a sign */
INLINE vi load_bytes(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
}
INLINE vf vf_from_int(vi v)
{
    return _mm256_cvtepi32_ps(v);
}
INLINE vi vi_from_float(vf v)
{
    return _mm256_cvtps_epi32(v);
}
INLINE vi vi_bits(vf v)
{
    return _mm256_castps_si256(v);
}
INLINE vf vf_bits(vi v)
{
    return _mm256_castsi256_ps(v);
}
/* Two vectors of integers in -128 .. 127 as bytes, in order. */
INLINE void store_bytes(int8_t *p, vi a, vi b)
{
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    __m128i low = _mm256_castsi256_si128(words), high = _mm256_extracti128_si256(words, 1);
    _mm_storeu_si128((void *)p, _mm_packs_epi16(low, high));
}

#endif
