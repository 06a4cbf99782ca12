#include "kernel/levels.h"
#include "kernel/simd/sets.h"

/* Sets that change the integer products only; VBMI does not change those of blocks. */
void SET(kernels_init)(struct kernels *k, uint32_t features)
{
    SET(init_matmul_i8)(k, features);
#if !defined(__AVX512VBMI__)
    SET(init_blocks_i8)(k);
#endif
}
