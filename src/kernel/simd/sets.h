/* What each subject fills in, once per instruction set. Inside src/kernel only. */
#ifndef SLUICE_KERNEL_SETS_H
#define SLUICE_KERNEL_SETS_H

#include "kernel/kernel.h"
#include "kernel/simd/simd.h"

void SET(init_matmul_f32)(struct kernels *k);
void SET(init_matmul_i8)(struct kernels *k, uint32_t features);
void SET(init_blocks_i8)(struct kernels *k);
void SET(init_matmul_bf16)(struct kernels *k);
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
    return wtype_row_bytes(w->type, w->cols);
}

/* Any type but floats; of them GGUF's blocks, MXFP4 and FP8. */
void SET(dequant_packed_row)(const struct wmat *w, uint32_t row, float *y);
void SET(dequant_block_row)(const struct wmat *w, uint32_t row, float *y);

/* matmul_f32 of an affine type and one token. */
void SET(affine_times_one)(const struct wmat *w, uint32_t row0, uint32_t row1, const float *x,
                           float *y, void *scratch);

#endif
