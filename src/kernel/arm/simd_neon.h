/* simd.h for NEON, as every 64-bit ARM processor has it. */
#ifndef SLUICE_KERNEL_SIMD_NEON_H
#define SLUICE_KERNEL_SIMD_NEON_H

#include <arm_neon.h>

enum { LANES = 4 };
typedef float32x4_t vf;
typedef int32x4_t vi;
typedef uint8x16x2_t dwords; /* eight */

INLINE vf vf_set(float x)
{
    return vdupq_n_f32(x);
}
INLINE vf vf_load(const void *p)
{
    return vreinterpretq_f32_u8(vld1q_u8(p));
}
INLINE vf vf_load_tail(const void *p, uint32_t n)
{
    uint8_t lanes[4 * LANES] = {0};
    memcpy(lanes, p, n * 4);
    return vf_load(lanes);
}
INLINE void vf_store(float *p, vf v)
{
    vst1q_u8((uint8_t *)p, vreinterpretq_u8_f32(v));
}
INLINE void vf_store_tail(float *p, uint32_t n, vf v)
{
    float lanes[LANES];
    vf_store(lanes, v);
    memcpy(p, lanes, n * sizeof lanes[0]);
}
/*
 * To memory: processors find out by themselves that whole lines are written, and read none of them
 * before. The order of stores is the usual one.
 */
INLINE void vf_stream(float *p, vf v)
{
    vf_store(p, v);
}
INLINE void vf_stream_end(void)
{
}

INLINE vf vf_add(vf a, vf b)
{
    return vaddq_f32(a, b);
}
INLINE vf vf_sub(vf a, vf b)
{
    return vsubq_f32(a, b);
}
INLINE vf vf_mul(vf a, vf b)
{
    return vmulq_f32(a, b);
}
INLINE vf vf_div(vf a, vf b)
{
    return vdivq_f32(a, b);
}
INLINE vf vf_fma(vf a, vf b, vf c)
{
    return vfmaq_f32(c, a, b);
}
/* The second operand where one is NaN. */
INLINE vf vf_min(vf a, vf b)
{
    return vbslq_f32(vcltq_f32(a, b), a, b);
}
INLINE vf vf_max(vf a, vf b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
INLINE vf vf_abs(vf a)
{
    return vabsq_f32(a);
}
INLINE vf vf_round(vf a)
{
    return vrndnq_f32(a);
}
/* p * 2^n for integral n in -150 .. 128, in two steps: 2^n alone may be out of range. */
INLINE vf vf_scale2(vf p, vf n)
{
    const vi bias = vdupq_n_s32(127);
    vi whole = vcvtnq_s32_f32(n);
    vi half = vshrq_n_s32(whole, 1);
    vi rest = vsubq_s32(whole, half);
    vf first = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
    vf second = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23));
    return vmulq_f32(vmulq_f32(p, first), second);
}
/* a > b ? x : y */
INLINE vf vf_if_greater(vf a, vf b, vf x, vf y)
{
    return vbslq_f32(vcgtq_f32(a, b), x, y);
}
/* LANES / 2 values, each in two lanes */
INLINE vf vf_load_twice(const float *p)
{
    float32x2_t v = vreinterpret_f32_u8(vld1_u8((const uint8_t *)p));
    return vcombine_f32(vdup_lane_f32(v, 0), vdup_lane_f32(v, 1));
}
INLINE vf vf_swap_pairs(vf v)
{
    return vrev64q_f32(v);
}
/* a - b in even lanes, a + b in odd ones */
INLINE vf vf_sub_add(vf a, vf b)
{
    return vtrn1q_f32(vsubq_f32(a, b), vrev64q_f32(vaddq_f32(a, b)));
}

/* The sum of all lanes, always by the same tree. */
INLINE float vf_sum(vf v)
{
    return vaddvq_f32(v);
}
/* The sums of four vectors, each by the tree of vf_sum. */
INLINE void vf_sum4(const vf v[4], float *out)
{
    vf_store(out, vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3])));
}
/* Lane i: the sum of v[i] by the tree of vf_sum. */
INLINE vf vf_sums(const vf v[LANES])
{
    return vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3]));
}
INLINE float vf_max_lane(vf v)
{
    return vmaxvq_f32(v);
}

/* A tail of 16-bit elements goes through memory. */
INLINE uint16x4_t load_half(const void *p)
{
    return vreinterpret_u16_u8(vld1_u8(p));
}
INLINE uint16x4_t load_half_tail(const void *p, uint32_t n)
{
    uint16_t h[LANES] = {0};
    memcpy(h, p, n * sizeof h[0]);
    return vld1_u16(h);
}
INLINE vf bf16_to_vf(uint16x4_t h)
{
    return vreinterpretq_f32_u32(vshll_n_u16(h, 16));
}
INLINE vf vf_load_bf16(const uint8_t *p)
{
    return bf16_to_vf(load_half(p));
}
INLINE vf vf_load_bf16_tail(const uint8_t *p, uint32_t n)
{
    return bf16_to_vf(load_half_tail(p, n));
}
INLINE vf vf_load_f16(const void *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(load_half(p)));
}
INLINE vf vf_load_f16_tail(const void *p, uint32_t n)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(load_half_tail(p, n)));
}
INLINE void vf_store_f16(uint16_t *p, vf v)
{
    vst1_u8((uint8_t *)p, vreinterpret_u8_f16(vcvt_f16_f32(v)));
}
INLINE void vf_store_f16_tail(uint16_t *p, uint32_t n, vf v)
{
    uint16_t h[LANES];
    vf_store_f16(h, v);
    memcpy(p, h, n * sizeof h[0]);
}

INLINE vi vi_set(int32_t x)
{
    return vdupq_n_s32(x);
}
INLINE vi vi_load(const void *p)
{
    return vreinterpretq_s32_u8(vld1q_u8(p));
}
INLINE vi vi_load_tail(const void *p, uint32_t n, vi others)
{
    uint8_t lanes[4 * LANES];
    vst1q_u8(lanes, vreinterpretq_u8_s32(others));
    memcpy(lanes, p, n * 4);
    return vi_load(lanes);
}
INLINE vi vi_add(vi a, vi b)
{
    return vaddq_s32(a, b);
}
INLINE vi vi_sub(vi a, vi b)
{
    return vsubq_s32(a, b);
}
INLINE vi vi_and(vi a, vi b)
{
    return vandq_s32(a, b);
}
INLINE vi vi_or(vi a, vi b)
{
    return vorrq_s32(a, b);
}
INLINE vi vi_srlv(vi a, vi bits)
{
    return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vnegq_s32(bits)));
}
INLINE vi vi_sllv(vi a, vi bits)
{
    return vshlq_s32(a, bits);
}
INLINE vi vi_srl(vi a, uint32_t bits)
{
    return vi_srlv(a, vdupq_n_s32((int32_t)bits));
}
INLINE vi vi_sll(vi a, uint32_t bits)
{
    return vi_sllv(a, vdupq_n_s32((int32_t)bits));
}
INLINE vi vi_mul(vi a, vi b)
{
    return vmulq_s32(a, b);
}
INLINE vi vi_max(vi a, vi b)
{
    return vmaxq_s32(a, b);
}
INLINE int32_t vi_max_lane(vi v)
{
    return vmaxvq_s32(v);
}
INLINE int32_t vi_sum(vi v)
{
    return vaddvq_s32(v);
}
/* Bit i is set where lane i is equal. */
INLINE uint32_t vi_equal(vi a, vi b)
{
    const uint32_t bits[LANES] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(vceqq_s32(a, b), vld1q_u32(bits)));
}
INLINE vi vi_if_greater(vi a, vi b, vi x, vi y)
{
    return vbslq_s32(vcgtq_s32(a, b), x, y);
}
/* Lane i becomes table[index i], index < 8. */
INLINE vi vi_lookup(dwords table, vi index)
{
    vi bytes = vmlaq_s32(vdupq_n_s32(0x03020100), index, vdupq_n_s32(0x04040404));
    return vreinterpretq_s32_u8(vqtbl2q_u8(table, vreinterpretq_u8_s32(bytes)));
}
INLINE vi vi_iota(void)
{
    const int32_t lane[LANES] = {0, 1, 2, 3};
    return vld1q_s32(lane);
}
/* count <= 8 dwords */
INLINE dwords load_dwords(const uint8_t *p, uint32_t count)
{
    uint8_t bytes[32] = {0};
    memcpy(bytes, p, count * 4);
    return (dwords){{vld1q_u8(bytes), vld1q_u8(bytes + 16)}};
}
/* LANES bytes without a sign */
INLINE vi load_bytes(const uint8_t *p)
{
    uint32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(bytes)))));
}
INLINE vf vf_from_int(vi v)
{
    return vcvtq_f32_s32(v);
}
INLINE vi vi_from_float(vf v)
{
    return vcvtnq_s32_f32(v);
}
INLINE vi vi_bits(vf v)
{
    return vreinterpretq_s32_f32(v);
}
INLINE vf vf_bits(vi v)
{
    return vreinterpretq_f32_s32(v);
}
/* Two vectors of integers in -128 .. 127 as bytes, in order. */
INLINE void store_bytes(int8_t *p, vi a, vi b)
{
    vst1_s8(p, vmovn_s16(vcombine_s16(vmovn_s32(a), vmovn_s32(b))));
}

#endif
