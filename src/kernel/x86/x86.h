/* What each subject fills in, once per instruction set. Inside src/kernel/x86 only. */
#ifndef SLUICE_KERNEL_X86_H
#define SLUICE_KERNEL_X86_H

#include "kernel/kernel.h"
#include "kernel/x86/simd.h"

void SET(x86_init_matmul_f32)(struct kernels *k);
void SET(x86_init_matmul_i8)(struct kernels *k);
void SET(x86_init_weights)(struct kernels *k);
void SET(x86_init_elementwise)(struct kernels *k);
void SET(x86_init_norm)(struct kernels *k);
void SET(x86_init_moe)(struct kernels *k);
void SET(x86_init_delta)(struct kernels *k);
void SET(x86_init_attention)(struct kernels *k);
void SET(x86_init_latent)(struct kernels *k);
void SET(x86_init_matmul_t)(struct kernels *k);

/* The first address in scratch that is a multiple of 64. */
INLINE void *scratch_aligned(void *scratch)
{
    unsigned char *bytes = scratch;
    return bytes + (64 - (uintptr_t)bytes % 64) % 64;
}

INLINE size_t row_bytes(const struct wmat *w)
{
    return wtype_row_bytes(w->type, w->cols);
}

void SET(dequant_packed_row)(const struct wmat *w, uint32_t row, float *y);

#endif
