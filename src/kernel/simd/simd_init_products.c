#include "kernel/levels.h"
#include "kernel/simd/sets.h"

/* Sets that change the integer products only. */
void SET(kernels_init)(struct kernels *k)
{
    SET(init_matmul_i8)(k);
}
