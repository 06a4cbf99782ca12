/* RMSNorm (arXiv:1910.07467), its gated form, and the L2 norm of DeltaNet's queries and keys. */
#include <math.h>

#include "kernel/ref/ref.h"

static float inverse_rms(const float *x, uint32_t n, float eps)
{
    return 1 / sqrtf(ref_dot(x, x, n) / (float)n + eps);
}

static void rms_norm(const float *x, const float *w, uint32_t n, float eps, float *y)
{
    float inv = inverse_rms(x, n, eps);
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] * inv * w[i];
}

static void l2_norm(const float *x, uint32_t n, float eps, float scale, float *y)
{
    float inv = 1 / sqrtf(ref_dot(x, x, n) + eps);
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] * inv * scale;
}

static void gated_rms_norm(const float *x, const float *z, const float *w, uint32_t n, float eps,
                           float *y)
{
    float inv = inverse_rms(x, n, eps);
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] * inv * w[i] * ref_silu(z[i]);
}

void ref_init_norm(struct kernels *k)
{
    k->rms_norm = rms_norm;
    k->l2_norm = l2_norm;
    k->gated_rms_norm = gated_rms_norm;
}
