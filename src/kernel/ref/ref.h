/* The reference: each subject fills its slots. Inside src/kernel/ref only. */
#ifndef SLUICE_KERNEL_REF_H
#define SLUICE_KERNEL_REF_H

#include "kernel/kernel.h"

void ref_init_matmul(struct kernels *k);
void ref_init_elementwise(struct kernels *k);
void ref_init_norm(struct kernels *k);
void ref_init_moe(struct kernels *k);
void ref_init_delta(struct kernels *k);
void ref_init_attention(struct kernels *k);
void ref_init_latent(struct kernels *k);

/*
 * Turns scores into exp(score - max) with the maximum of st and scores, and brings st and acc to
 * that maximum.
 */
void ref_softmax_update(float *scores, uint32_t count, uint32_t width, struct softmax_state *st,
                        float *acc);

/* W[row][0 .. cols) as f32: exact for every type but the one rounding of a sum. */
void ref_dequant_row(const struct wmat *w, uint32_t row, float *y);

/* The integers of a row of an affine type, one byte each. */
void ref_unpack_row(const struct wmat *w, uint32_t row, uint8_t *q);

/*
 * A row of another packed type under one activation group: value i is scale * q[i] + bias, or with
 * minima scale * q[i] + min_scale * min[i / 16]. Integers have the integer scales of their
 * sub-blocks in them; bias is 0 for types without one. Products of scale and q are exact in f32.
 */
struct ref_group {
    int16_t q[ACT8_GROUP];
    float scale, bias;
    int16_t min[2];
    float min_scale;
};
void ref_unpack_group(const struct wmat *w, uint32_t row, uint32_t a, struct ref_group *g);
void ref_dequant_blocks(const struct wmat *w, uint32_t row, float *y);
/* matmul_i8's order of operations for these types, on a row's groups: kernel.h has it. */
float ref_row_dot_i8(enum wtype type, const struct ref_group *groups, const struct act8 *x,
                     size_t t);

/* bf16 element i of an array at any address. */
float ref_bf16_at(const uint8_t *array, size_t i);
/* Element i of the scales or biases of an affine matrix. */
float ref_affine_at(const struct wmat *w, const uint8_t *array, size_t i);

/* Eight partial sums let the compiler use vectors without reordering anything. */
static inline float ref_sum_lanes(const float lane[8])
{
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static inline float ref_dot(const float *a, const float *b, uint32_t n)
{
    float lane[8] = {0};
    uint32_t whole = n / 8 * 8;
    for (uint32_t i = 0; i < whole; i += 8)
        for (uint32_t j = 0; j < 8; j++) lane[j] += a[i + j] * b[i + j];
    for (uint32_t i = whole; i < n; i++) lane[i - whole] += a[i] * b[i];
    return ref_sum_lanes(lane);
}

float ref_sigmoid(float x);
float ref_silu(float x);

#endif
