/* Values of affine matrices: a vector of them at a time, and the numbers that scale a group. */
#ifndef SLUICE_KERNEL_UNPACK_LANES_H
#define SLUICE_KERNEL_UNPACK_LANES_H

#include "base/fp16.h"
#include "kernel/simd/sets.h"

/* Values of which a vector's are whole bytes of one dword, the first of them in the lowest bits. */
INLINE vi unpack_dword(const uint8_t *p, uint32_t bits)
{
    uint32_t packed = 0;
    memcpy(&packed, p, LANES * bits / 8);
    vi shift = vi_mul(vi_iota(), vi_set((int32_t)bits));
    return vi_and(vi_srlv(vi_set((int32_t)packed), shift), vi_set((1 << bits) - 1));
}

/*
 * 32 values are `bits` dwords. Value i begins in dword i * bits / 32; what is left of it lies at
 * the bottom of the next, of which the mask drops the rest.
 */
INLINE vi unpack_lanes(dwords packed, uint32_t first, uint32_t bits)
{
    const vi low5 = vi_set(31), mask = vi_set((1 << bits) - 1);
    vi at = vi_mul(vi_add(vi_iota(), vi_set((int32_t)first)), vi_set((int32_t)bits));
    vi index = vi_srl(at, 5), shift = vi_and(at, low5);
    vi here = vi_srlv(vi_lookup(packed, index), shift);
    vi next = vi_lookup(packed, vi_and(vi_add(index, vi_set(1)), vi_set(7)));
    return vi_and(vi_or(here, vi_sllv(next, vi_sub(vi_set(32), shift))), mask);
}

/* Values [first, first + LANES) of 32; bits is a constant at every call. */
INLINE vi unpack(const uint8_t *data, uint32_t first, uint32_t bits)
{
    if (bits == 8) return load_bytes(data + first);
    if (LANES * bits <= 32 && LANES * bits % 8 == 0)
        return unpack_dword(data + first * bits / 8, bits);
    return unpack_lanes(load_dwords(data, bits), first, bits);
}

/* Those values, of one group; a product and a sum of their own. */
INLINE vf affine_lanes(const uint8_t *data, uint32_t first, uint32_t bits, vf scale, vf bias)
{
    return vf_add(vf_mul(vf_from_int(unpack(data, first, bits)), scale), bias);
}

/* Element i of the scales or biases of an affine matrix. */
INLINE float affine_at(const struct wmat *w, const uint8_t *array, size_t i)
{
    uint16_t half = (uint16_t)(array[2 * i] | array[2 * i + 1] << 8);
    return w->f16_scales ? f16_to_f32(half) : bf16_to_f32(half);
}

#endif
