/*
 * 32 packed values of a row to 32 unsigned bytes in order. Fields of 3, 5 and 6 bits begin at any
 * bit of a byte and end in the next one at the latest: a table lookup brings both bytes of each
 * value into 16 bits, and a shift of its own moves it down.
 */
#ifndef SLUICE_KERNEL_UNPACK_ROWS_H
#define SLUICE_KERNEL_UNPACK_ROWS_H

#include "kernel/simd/simd.h"

INLINE void unpack_2(const uint8_t *p, uint8x16_t out[2])
{
    const uint8_t places[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    const int8_t shifts[16] = {0, -2, -4, -6, 0, -2, -4, -6, 0, -2, -4, -6, 0, -2, -4, -6};
    uint8x16_t place = vld1q_u8(places), bytes = vcombine_u8(vld1_u8(p), vdup_n_u8(0));
    int8x16_t shift = vld1q_s8(shifts);
    for (uint8_t i = 0; i < 2; i++) {
        uint8x16_t repeated = vqtbl1q_u8(bytes, vaddq_u8(place, vdupq_n_u8((uint8_t)(4 * i))));
        out[i] = vandq_u8(vshlq_u8(repeated, shift), vdupq_n_u8(3));
    }
}

INLINE void unpack_4(const uint8_t *p, uint8x16_t out[2])
{
    uint8x16_t bytes = vld1q_u8(p);
    uint8x16_t even = vandq_u8(bytes, vdupq_n_u8(15)), odd = vshrq_n_u8(bytes, 4);
    out[0] = vzip1q_u8(even, odd);
    out[1] = vzip2q_u8(even, odd);
}

/* Where value i of eight begins, in whole bytes and in bits of the first. */
#define PLACE(bits, i) (uint8_t)((bits) * (i) / 8), (uint8_t)((bits) * (i) / 8 + 1)
#define SHIFT(bits, i) (int16_t)(-(int)((bits) * (i) % 8))
#define EIGHT(F, bits)                                                                             \
    F(bits, 0), F(bits, 1), F(bits, 2), F(bits, 3), F(bits, 4), F(bits, 5), F(bits, 6), F(bits, 7)

INLINE void unpack_odd_width(const uint8_t *p, uint32_t bits, uint8x16_t out[2])
{
    const uint8_t places[16] = {EIGHT(PLACE, bits)};
    const int16_t shifts[8] = {EIGHT(SHIFT, bits)};
    const uint16x8_t mask = vdupq_n_u16((uint16_t)((1u << bits) - 1));
    uint8x16_t place = vld1q_u8(places);
    int16x8_t shift = vld1q_s16(shifts);
    dwords bytes = load_dwords(p, bits);
    uint16x8_t v[4];
    for (uint32_t i = 0; i < 4; i++) {
        uint8x16_t at = vaddq_u8(place, vdupq_n_u8((uint8_t)(i * bits)));
        uint16x8_t both = vreinterpretq_u16_u8(vqtbl2q_u8(bytes, at));
        v[i] = vandq_u16(vshlq_u16(both, shift), mask);
    }
    for (uint32_t i = 0; i < 2; i++)
        out[i] = vuzp1q_u8(vreinterpretq_u8_u16(v[2 * i]), vreinterpretq_u8_u16(v[2 * i + 1]));
}

#undef PLACE
#undef SHIFT
#undef EIGHT

/* bits is a constant at every call. */
INLINE void unpack_32(const uint8_t *p, uint32_t bits, uint8x16_t out[2])
{
    switch (bits) {
    case 2: unpack_2(p, out); break;
    case 4: unpack_4(p, out); break;
    case 8:
        out[0] = vld1q_u8(p);
        out[1] = vld1q_u8(p + 16);
        break;
    default: unpack_odd_width(p, bits, out);
    }
}

#endif
