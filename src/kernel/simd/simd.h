/*
 * Vectors of the instruction set a file is compiled for: 16 lanes with AVX-512, 8 with AVX2, 4 with
 * NEON. The sources in this folder are written once against these names and built once per set. A
 * tail is loaded and stored by itself, so the lanes of a tail see the same operations as all others
 * and nothing outside the operand is touched.
 */
#ifndef SLUICE_KERNEL_SIMD_H
#define SLUICE_KERNEL_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
/* Before a loop of a constant count whose index must become constants. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#define UNROLL_TWICE _Pragma("clang loop unroll_count(2)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#define UNROLL_TWICE _Pragma("GCC unroll 2")
#endif

#if defined(__aarch64__)
#include "kernel/arm/simd_neon.h"
#elif defined(__AVX512F__)
#include "kernel/x86/simd_avx512.h"
#else
#include "kernel/x86/simd_avx2.h"
#endif

/*
 * Here and now v is in a register. Compilers turn a chain of integer additions into a tree, whose
 * leaves do not fit the registers; between two of these they cannot.
 */
#if defined(__AVX512F__)
#define PIN(v) __asm__ volatile("" : "+v"(v))
#else
#define PIN(v) __asm__ volatile("" : "+x"(v))
#endif
/* The same of an address: constants are added where it is used, not kept as sums. */
#define PIN_ADDRESS(p) __asm__("" : "+r"(p))

/* Names of this set's own functions. */
#if defined(__ARM_FEATURE_MATMUL_INT8)
#define SET(name) name##_i8mm
#elif defined(__ARM_FEATURE_DOTPROD)
#define SET(name) name##_dotprod
#elif defined(__aarch64__)
#define SET(name) name##_neon
#elif defined(__AVX512BF16__)
#define SET(name) name##_bf16
#elif defined(__AVX512VBMI__)
#define SET(name) name##_vbmi
#elif defined(__AVX512VNNI__)
#define SET(name) name##_vnni
#elif defined(__AVX512F__)
#define SET(name) name##_avx512
#elif defined(__AVXVNNI__)
#define SET(name) name##_avxvnni
#else
#define SET(name) name##_avx2
#endif

INLINE vf vf_load_upto(const float *p, uint32_t n)
{
    return n >= LANES ? vf_load(p) : vf_load_tail(p, n);
}

INLINE void vf_store_upto(float *p, uint32_t n, vf v)
{
    if (n >= LANES) {
        vf_store(p, v);
    } else {
        vf_store_tail(p, n, v);
    }
}

/*
 * exp within 1.01 ulp, by r = x - n ln 2 and Moshier's polynomial (Cephes expf). 0 below -103.97,
 * infinity above 88.73, NaN for NaN.
 */
INLINE vf vf_exp(vf x)
{
    x = vf_min(vf_set(89), x);
    x = vf_max(vf_set(-104), x);
    vf n = vf_round(vf_mul(x, vf_set(1.44269504088896341f)));
    vf r = vf_fma(n, vf_set(-0.693359375f), x);
    r = vf_fma(n, vf_set(2.12194440e-4f), r);
    vf p = vf_set(1.9875691500e-4f);
    p = vf_fma(p, r, vf_set(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set(5.0000001201e-1f));
    p = vf_fma(p, vf_mul(r, r), r);
    return vf_scale2(vf_add(p, vf_set(1)), n);
}

/* 1 + exp(-x) */
INLINE vf vf_one_plus_exp_neg(vf x)
{
    return vf_add(vf_set(1), vf_exp(vf_sub(vf_set(0), x)));
}

INLINE vf vf_sigmoid(vf x)
{
    return vf_div(vf_set(1), vf_one_plus_exp_neg(x));
}

INLINE vf vf_silu(vf x)
{
    return vf_div(x, vf_one_plus_exp_neg(x));
}

/* Four independent sums hide the latency of the additions. */
INLINE float vf_dot(const float *a, const float *b, uint32_t n)
{
    vf s0 = vf_set(0), s1 = s0, s2 = s0, s3 = s0;
    uint32_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        s0 = vf_fma(vf_load(a + i), vf_load(b + i), s0);
        s1 = vf_fma(vf_load(a + i + LANES), vf_load(b + i + LANES), s1);
        s2 = vf_fma(vf_load(a + i + 2 * LANES), vf_load(b + i + 2 * LANES), s2);
        s3 = vf_fma(vf_load(a + i + 3 * LANES), vf_load(b + i + 3 * LANES), s3);
    }
    for (; i < n; i += LANES)
        s0 = vf_fma(vf_load_upto(a + i, n - i), vf_load_upto(b + i, n - i), s0);
    return vf_sum(vf_add(vf_add(s0, s2), vf_add(s1, s3)));
}

#endif
