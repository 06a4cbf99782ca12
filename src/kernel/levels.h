/* One function per instruction set that fills the slots it has a version for. Inside src/kernel
 * only. */
#ifndef SLUICE_KERNEL_LEVELS_H
#define SLUICE_KERNEL_LEVELS_H

#include "kernel/kernel.h"

void kernels_init_ref(struct kernels *k); /* every slot */
void kernels_init_avx2(struct kernels *k);
void kernels_init_avxvnni(struct kernels *k);
void kernels_init_avx512(struct kernels *k);
void kernels_init_vnni(struct kernels *k);
void kernels_init_neon(struct kernels *k);
void kernels_init_dotprod(struct kernels *k);
void kernels_init_i8mm(struct kernels *k);

#endif
