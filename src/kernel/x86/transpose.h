/*
 * LANES rows of bytes, `stride` apart, to vectors that hold the same dword of every row. Addresses
 * are a base and one, four or eight strides, so that they need no table in memory.
 */
#ifndef SLUICE_KERNEL_TRANSPOSE_H
#define SLUICE_KERNEL_TRANSPOSE_H

#include "kernel/simd/simd.h"

INLINE __m128i load_16(const uint8_t *p)
{
    return _mm_loadu_si128((const void *)p);
}

#if defined(__AVX512F__)

/* 16 bytes of each of rows 0, 4, 8 and 12 from p on. */
INLINE vi every_fourth_row(const uint8_t *p, size_t stride)
{
    const uint8_t *last = p + 12 * stride;
    vi v = _mm512_castsi128_si512(load_16(p));
    v = _mm512_mask_broadcast_i32x4(v, 0x00f0, load_16(p + 4 * stride));
    v = _mm512_mask_broadcast_i32x4(v, 0x0f00, load_16(p + 8 * stride));
    return _mm512_mask_broadcast_i32x4(v, 0xf000, load_16(last));
}

#define UNPACK_LOW_32 _mm512_unpacklo_epi32
#define UNPACK_HIGH_32 _mm512_unpackhi_epi32
#define UNPACK_LOW_64 _mm512_unpacklo_epi64
#define UNPACK_HIGH_64 _mm512_unpackhi_epi64

#else

/* 16 bytes of each of rows 0 and 4 from p on. */
INLINE vi every_fourth_row(const uint8_t *p, size_t stride)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load_16(p)), load_16(p + 4 * stride), 1);
}

#define UNPACK_LOW_32 _mm256_unpacklo_epi32
#define UNPACK_HIGH_32 _mm256_unpackhi_epi32
#define UNPACK_LOW_64 _mm256_unpacklo_epi64
#define UNPACK_HIGH_64 _mm256_unpackhi_epi64

#endif

/* Four dwords of each row: out[i] is dword i of all of them. */
INLINE void transpose_quad(const uint8_t *p, size_t stride, vi *out)
{
    vi a = every_fourth_row(p, stride), b = every_fourth_row(p + stride, stride);
    vi c = every_fourth_row(p + 2 * stride, stride), d = every_fourth_row(p + 3 * stride, stride);
    vi ab_low = UNPACK_LOW_32(a, b), ab_high = UNPACK_HIGH_32(a, b);
    vi cd_low = UNPACK_LOW_32(c, d), cd_high = UNPACK_HIGH_32(c, d);
    out[0] = UNPACK_LOW_64(ab_low, cd_low);
    out[1] = UNPACK_HIGH_64(ab_low, cd_low);
    out[2] = UNPACK_LOW_64(ab_high, cd_high);
    out[3] = UNPACK_HIGH_64(ab_high, cd_high);
}

#undef UNPACK_LOW_32
#undef UNPACK_HIGH_32
#undef UNPACK_LOW_64
#undef UNPACK_HIGH_64

/* One dword of each row. */
INLINE vi gather_dword(const uint8_t *p, size_t stride)
{
    uint8_t lanes[4 * LANES];
    for (uint32_t r = 0; r < LANES; r++) memcpy(lanes + r * 4, p + r * stride, 4);
    return vi_load(lanes);
}

/* count dwords of each row; a constant at the calls that matter. */
INLINE void transpose_dwords(const uint8_t *p, size_t stride, uint32_t count, vi *out)
{
    uint32_t i = 0;
    for (; i + 4 <= count; i += 4) transpose_quad(p + i * 4, stride, out + i);
    for (; i < count; i++) out[i] = gather_dword(p + i * 4, stride);
}

#endif
