/* simd.h for AVX-512 F, BW, VL, DQ. */
#ifndef SLUICE_KERNEL_SIMD_AVX512_H
#define SLUICE_KERNEL_SIMD_AVX512_H

#include <immintrin.h>

enum { LANES = 16 };
typedef __m512 vf;
typedef __m512i vi;
typedef __m256i dwords; /* eight */

INLINE __mmask16 first_lanes(uint32_t n)
{
    return (__mmask16)((1u << n) - 1);
}

INLINE vf vf_set(float x)
{
    return _mm512_set1_ps(x);
}
INLINE vf vf_load(const void *p)
{
    return _mm512_loadu_ps(p);
}
INLINE vf vf_load_tail(const void *p, uint32_t n)
{
    return _mm512_maskz_loadu_ps(first_lanes(n), p);
}
INLINE void vf_store(float *p, vf v)
{
    _mm512_storeu_ps(p, v);
}
INLINE void vf_store_tail(float *p, uint32_t n, vf v)
{
    _mm512_mask_storeu_ps(p, first_lanes(n), v);
}
/* To memory, past the caches; p is a multiple of the vector. */
INLINE void vf_stream(float *p, vf v)
{
    _mm512_stream_ps(p, v);
}
/* Such stores are in no order with others: what comes after this comes after them. */
INLINE void vf_stream_end(void)
{
    _mm_sfence();
}

INLINE vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
INLINE vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
INLINE vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
INLINE vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
INLINE vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
/* The second operand where one is NaN. */
INLINE vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}
INLINE vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
INLINE vf vf_abs(vf a)
{
    return _mm512_abs_ps(a);
}
INLINE vf vf_round(vf a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* p * 2^n for integral n */
INLINE vf vf_scale2(vf p, vf n)
{
    return _mm512_scalef_ps(p, n);
}
/* a > b ? x : y */
INLINE vf vf_if_greater(vf a, vf b, vf x, vf y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x);
}

/* LANES / 2 values, each in two lanes */
INLINE vf vf_load_twice(const float *p)
{
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
}
INLINE vf vf_swap_pairs(vf v)
{
    return _mm512_permute_ps(v, 0xb1);
}
/* a - b in even lanes, a + b in odd ones */
INLINE vf vf_sub_add(vf a, vf b)
{
    return _mm512_mask_sub_ps(_mm512_add_ps(a, b), 0x5555, a, b);
}

INLINE __m128 vf_fold(vf v)
{
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
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
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
INLINE vf vf_high_pairs(vf a, vf b)
{
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
/* The halves of a and b, added: of each, 128 bits and 128 bits. */
INLINE vf vf_fold_halves(vf a, vf b)
{
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
}
/* Lane i: the sum of v[i] by the tree of vf_sum. */
INLINE vf vf_sums(const vf v[LANES])
{
    vf quad[4]; /* of v[i], v[i + 4], v[i + 8] and v[i + 12] */
    for (int i = 0; i < 4; i++) {
        vf a = vf_fold_halves(v[i], v[i + 4]), b = vf_fold_halves(v[i + 8], v[i + 12]);
        quad[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    }
    vf ab = _mm512_add_ps(vf_low_pairs(quad[0], quad[1]), vf_high_pairs(quad[0], quad[1]));
    vf cd = _mm512_add_ps(vf_low_pairs(quad[2], quad[3]), vf_high_pairs(quad[2], quad[3]));
    return _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x88), _mm512_shuffle_ps(ab, cd, 0xdd));
}
INLINE float vf_max_lane(vf v)
{
    return _mm512_reduce_max_ps(v);
}

INLINE vf vf_load_bf16(const uint8_t *p)
{
    __m256i h = _mm256_loadu_si256((const void *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
INLINE vf vf_load_bf16_tail(const uint8_t *p, uint32_t n)
{
    __m256i h = _mm256_maskz_loadu_epi16(first_lanes(n), p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
/* One instruction from memory: from a register it takes one more of the ports of multiply-adds. */
INLINE vf vf_load_f16(const void *p)
{
    vf v;
    __asm__("vcvtph2ps %1, %0" : "=v"(v) : "m"(*(const __m256i_u *)p));
    return v;
}
INLINE vf vf_load_f16_tail(const void *p, uint32_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}
INLINE void vf_store_f16(uint16_t *p, vf v)
{
    _mm256_storeu_si256((void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
INLINE void vf_store_f16_tail(uint16_t *p, uint32_t n, vf v)
{
    __m256i h = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
    _mm256_mask_storeu_epi16(p, first_lanes(n), h);
}

INLINE vi vi_set(int32_t x)
{
    return _mm512_set1_epi32(x);
}
INLINE vi vi_load(const void *p)
{
    return _mm512_loadu_si512(p);
}
INLINE vi vi_load_tail(const void *p, uint32_t n, vi others)
{
    return _mm512_mask_loadu_epi32(others, first_lanes(n), p);
}
INLINE void vi_store(void *p, vi v)
{
    _mm512_storeu_si512(p, v);
}
INLINE vi vi_add(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}
INLINE vi vi_sub(vi a, vi b)
{
    return _mm512_sub_epi32(a, b);
}
INLINE vi vi_and(vi a, vi b)
{
    return _mm512_and_si512(a, b);
}
INLINE vi vi_or(vi a, vi b)
{
    return _mm512_or_si512(a, b);
}
/* (a & b) | c */
INLINE vi vi_and_or(vi a, vi b, vi c)
{
    return _mm512_ternarylogic_epi32(a, b, c, 0xea);
}
INLINE vi vi_srl(vi a, uint32_t bits)
{
    return _mm512_srli_epi32(a, bits);
}
INLINE vi vi_sll(vi a, uint32_t bits)
{
    return _mm512_slli_epi32(a, bits);
}
INLINE vi vi_srlv(vi a, vi bits)
{
    return _mm512_srlv_epi32(a, bits);
}
INLINE vi vi_sllv(vi a, vi bits)
{
    return _mm512_sllv_epi32(a, bits);
}
INLINE vi vi_mul(vi a, vi b)
{
    return _mm512_mullo_epi32(a, b);
}
INLINE vi vi_max(vi a, vi b)
{
    return _mm512_max_epi32(a, b);
}
INLINE int32_t vi_max_lane(vi v)
{
    return _mm512_reduce_max_epi32(v);
}
INLINE int32_t vi_sum(vi v)
{
    return _mm512_reduce_add_epi32(v);
}
/* Bit i is set where lane i is equal. */
INLINE uint32_t vi_equal(vi a, vi b)
{
    return _mm512_cmpeq_epi32_mask(a, b);
}
INLINE vi vi_if_greater(vi a, vi b, vi x, vi y)
{
    return _mm512_mask_blend_epi32(_mm512_cmpgt_epi32_mask(a, b), y, x);
}
/* Lane i becomes table[index i], index < 8. */
INLINE vi vi_lookup(dwords table, vi index)
{
    return _mm512_permutexvar_epi32(index, _mm512_castsi256_si512(table));
}
INLINE vi vi_iota(void)
{
    return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
/* count <= 8 dwords */
INLINE dwords load_dwords(const uint8_t *p, uint32_t count)
{
    return _mm256_maskz_loadu_epi32((__mmask8)((1u << count) - 1), p);
}
/* LANES bytes without a sign */
INLINE vi load_bytes(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p));
}
INLINE vf vf_from_int(vi v)
{
    return _mm512_cvtepi32_ps(v);
}
INLINE vi vi_from_float(vf v)
{
    return _mm512_cvtps_epi32(v);
}
INLINE vi vi_bits(vf v)
{
    return _mm512_castps_si512(v);
}
INLINE vf vf_bits(vi v)
{
    return _mm512_castsi512_ps(v);
}
/* Two vectors of integers in -128 .. 127 as bytes, in order. */
INLINE void store_bytes(int8_t *p, vi a, vi b)
{
    _mm_storeu_si128((void *)p, _mm512_cvtepi32_epi8(a));
    _mm_storeu_si128((void *)(p + LANES), _mm512_cvtepi32_epi8(b));
}

#endif
