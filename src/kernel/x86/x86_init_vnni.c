#include "kernel/levels.h"
#include "kernel/x86/x86.h"

/* VNNI changes the integer products only. */
void kernels_init_vnni(struct kernels *k)
{
    x86_init_matmul_i8_vnni(k);
}
