/* What each subject fills in, once per instruction set. Inside src/kernel only. */
#ifndef SLUICE_KERNEL_SETS_H
#define SLUICE_KERNEL_SETS_H

#include "kernel/kernel.h"
#include "kernel/simd/simd.h"

void SET(init_matmul_f32)(struct kernels *k);
void SET(init_matmul_i8)(struct kernels *k);
void SET(init_weights)(struct kernels *k);
void SET(init_elementwise)(struct kernels *k);
void SET(init_norm)(struct kernels *k);
void SET(init_moe)(struct kernels *k);
void SET(init_delta)(struct kernels *k);
void SET(init_attention)(struct kernels *k);
void SET(init_latent)(struct kernels *k);
void SET(init_matmul_t)(struct kernels *k);

/* The first address in scratch that is a multiple of 64. */
INLINE void *scratch_aligned(void *scratch)
{
    unsigned char *bytes = scratch;
    return bytes + (64 - (uintptr_t)bytes % 64) % 64;
}

INLINE size_t row_bytes(const struct wmat *w)
{
    return (size_t)w->cols * wtype_bits(w->type) / 8;
}

void SET(dequant_packed_row)(const struct wmat *w, uint32_t row, float *y);

#endif
