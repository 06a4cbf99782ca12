/* Scalar conversions between f32, bf16 and IEEE f16, exact or rounded to nearest even. */
#ifndef SLUICE_BASE_FP16_H
#define SLUICE_BASE_FP16_H

#include <stdint.h>
#include <string.h>

static inline float f32_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t f32_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float bf16_to_f32(uint16_t h)
{
    return f32_from_bits((uint32_t)h << 16);
}

/* Rounds to nearest even; NaN stays NaN. */
static inline uint16_t f32_to_bf16(float f)
{
    uint32_t u = f32_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exp = h >> 10 & 31u;
    uint32_t frac = h & 0x3ffu;
    if (exp == 31) return f32_from_bits(sign | 0x7f800000u | frac << 13);
    if (exp != 0) return f32_from_bits(sign | (exp + 112) << 23 | frac << 13);
    float subnormal = (float)frac * 0x1p-24f;
    return f32_from_bits(sign | f32_bits(subnormal));
}

/* Rounds to nearest even; overflow gives infinity; NaN stays NaN. */
static inline uint16_t f32_to_f16(float f)
{
    uint32_t u = f32_bits(f);
    uint32_t sign = u >> 16 & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (u >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
    if (u < 0x38800000u) {
        /* Adding 0.5 puts the 10 bits of a subnormal result at the end of the mantissa. */
        float shifted = f32_from_bits(u) + 0.5f;
        return (uint16_t)(sign | (f32_bits(shifted) - 0x3f000000u));
    }
    u += 0xfffu + (u >> 13 & 1);
    return (uint16_t)(sign | ((u - 0x38000000u) >> 13));
}

#endif
