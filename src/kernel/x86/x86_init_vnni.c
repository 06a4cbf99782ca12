#include "kernel/levels.h"
#include "kernel/x86/x86.h"

/* VNNI changes the integer products only. */
void SET(kernels_init)(struct kernels *k)
{
    SET(x86_init_matmul_i8)(k);
}
