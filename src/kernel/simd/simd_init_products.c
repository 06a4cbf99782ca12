#include "kernel/levels.h"
#include "kernel/simd/sets.h"

/*
 * Sets that change some products only: BF16 those of bf16, the others those of integers, of which
 * VBMI leaves blocks as they are.
 */
void SET(kernels_init)(struct kernels *k, uint32_t features)
{
#if defined(__AVX512BF16__)
    (void)features;
    SET(init_matmul_bf16)(k);
#else
    SET(init_matmul_i8)(k, features);
#if !defined(__AVX512VBMI__)
    SET(init_blocks_i8)(k);
#endif
#endif
}
