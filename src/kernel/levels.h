/* Instruction sets: one function each that fills the slots it has a version for. Inside src/kernel
 * only. */
#ifndef SLUICE_KERNEL_LEVELS_H
#define SLUICE_KERNEL_LEVELS_H

#include "kernel/kernel.h"

/* Of the processor's features those that this build has kernels for. */
#if defined(SLUICE_LEAST_LEVEL)
#define LEVELS_BUILT ((uint32_t)(CPU_AVX2 | CPU_NEON))
#else
#define LEVELS_BUILT UINT32_MAX
#endif

void kernels_init_ref(struct kernels *k); /* every slot */
void kernels_init_avx2(struct kernels *k);
void kernels_init_avxvnni(struct kernels *k);
void kernels_init_avx512(struct kernels *k);
void kernels_init_vnni(struct kernels *k);
void kernels_init_neon(struct kernels *k);
void kernels_init_dotprod(struct kernels *k);
void kernels_init_i8mm(struct kernels *k);

#endif
