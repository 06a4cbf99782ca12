/*
 * One group of 32 packed values of LANES rows, given as `bits` vectors of dwords (transpose.h), to
 * eight vectors of quads: four unsigned bytes per row. Quad i holds values 4i .. 4i + 3, but where
 * the fields of a dword come out cheaper in another order, it is that one: 4 bits: quads 2i and 2i
 * + 1 hold the even and the odd values of the i-th eight; 2 bits: quad 4i + j holds values j, j +
 * 4, j + 8, j + 12 of the i-th sixteen.
 */
#ifndef SLUICE_KERNEL_UNPACK_QUADS_H
#define SLUICE_KERNEL_UNPACK_QUADS_H

#include <stdbool.h>

#include "kernel/simd/simd.h"

enum { QUADS = 8 };

INLINE bool has_field_order(uint32_t bits)
{
    return bits == 4 || bits == 2;
}

INLINE void unpack2_fields(const vi *packed, vi *q)
{
    const vi mask = vi_set(0x03030303);
    for (uint32_t i = 0; i < 2; i++) {
        vi d = packed[i];
        q[4 * i] = vi_and(d, mask);
        q[4 * i + 1] = vi_and(vi_srl(d, 2), mask);
        q[4 * i + 2] = vi_and(vi_srl(d, 4), mask);
        q[4 * i + 3] = vi_and(vi_srl(d, 6), mask);
    }
}

INLINE void unpack4_fields(const vi *packed, vi *q)
{
    const vi mask = vi_set(0x0f0f0f0f);
    for (uint32_t i = 0; i < 4; i++) {
        vi d = packed[i];
        q[2 * i] = vi_and(d, mask);
        q[2 * i + 1] = vi_and(vi_srl(d, 4), mask);
    }
}

/* Four neighbouring fields at the bottom of each dword to one byte each. */
INLINE vi spread_fields(vi v, uint32_t bits)
{
    const int32_t mask = (1 << bits) - 1;
    uint32_t step = 8 - bits;
    vi q = vi_and(v, vi_set(mask));
    q = vi_and_or(vi_sll(v, step), vi_set(mask << 8), q);
    q = vi_and_or(vi_sll(v, 2 * step), vi_set(mask << 16), q);
    return vi_and_or(vi_sll(v, 3 * step), vi_set((int32_t)((uint32_t)mask << 24)), q);
}

/* 3, 5 or 6 bits; four values are 12, 20 or 24 bits and may begin in one dword and end in the next.
 */
INLINE void unpack_odd_width(const vi *packed, uint32_t bits, vi *q)
{
    for (uint32_t i = 0; i < QUADS; i++) {
        uint32_t first = 4 * bits * i, shift = first % 32;
        vi v = vi_srl(packed[first / 32], shift);
        if (shift + 4 * bits > 32) v = vi_or(v, vi_sll(packed[first / 32 + 1], 32 - shift));
        q[i] = spread_fields(v, bits);
    }
}

INLINE void unpack_quads(const vi *packed, uint32_t bits, vi *q)
{
    switch (bits) {
    case 2: unpack2_fields(packed, q); break;
    case 4: unpack4_fields(packed, q); break;
    case 8:
        for (uint32_t i = 0; i < QUADS; i++) q[i] = packed[i];
        break;
    default: unpack_odd_width(packed, bits, q);
    }
}

/* 32 activations from natural to field order. */
INLINE void order_activations(const int8_t *x, uint32_t bits, int8_t *out)
{
    const __m128i fours = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    const __m128i twos = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (uint32_t i = 0; i < 32; i += 16) {
        __m128i v = _mm_loadu_si128((const void *)(x + i));
        if (bits == 4) v = _mm_shuffle_epi8(v, fours);
        if (bits == 2) v = _mm_shuffle_epi8(v, twos);
        _mm_storeu_si128((void *)(out + i), v);
    }
}

#endif
