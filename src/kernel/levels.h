/* Instruction sets: one function each that fills the slots it has a version for, given all
 * features. Inside src/kernel only. */
#ifndef SLUICE_KERNEL_LEVELS_H
#define SLUICE_KERNEL_LEVELS_H

#include "kernel/kernel.h"

/* Sets that this build has no kernels for (the option levels of the build). */
enum {
    LEVELS_LEFT_OUT = 0
#if defined(SLUICE_NO_AVX2)
                      | CPU_AVX2 | CPU_STREAMS
#endif
#if defined(SLUICE_NO_AVX512)
                      | CPU_AVX512
#endif
#if defined(SLUICE_NO_AVXVNNI)
                      | CPU_AVX_VNNI
#endif
#if defined(SLUICE_NO_VNNI)
                      | CPU_AVX512_VNNI
#endif
#if defined(SLUICE_NO_VBMI)
                      | CPU_AVX512_VBMI
#endif
#if defined(SLUICE_NO_BF16)
                      | CPU_AVX512_BF16 | CPU_BF16_PAIRS
#endif
#if defined(SLUICE_NO_DOTPROD)
                      | CPU_NEON_DOTPROD
#endif
#if defined(SLUICE_NO_I8MM)
                      | CPU_NEON_I8MM
#endif
};

void kernels_init_ref(struct kernels *k); /* every slot */
void kernels_init_avx2(struct kernels *k, uint32_t features);
void kernels_init_avxvnni(struct kernels *k, uint32_t features);
void kernels_init_avx512(struct kernels *k, uint32_t features);
void kernels_init_vnni(struct kernels *k, uint32_t features);
void kernels_init_vbmi(struct kernels *k, uint32_t features);
void kernels_init_bf16(struct kernels *k, uint32_t features);
void kernels_init_neon(struct kernels *k, uint32_t features);
void kernels_init_dotprod(struct kernels *k, uint32_t features);
void kernels_init_i8mm(struct kernels *k, uint32_t features);

#endif
