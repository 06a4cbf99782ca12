#include <math.h>

#include "kernel/simd/sets.h"

INLINE vf inverse_rms(const float *x, uint32_t n, float eps)
{
    return vf_set(1 / sqrtf(vf_dot(x, x, n) / (float)n + eps));
}

static void rms_norm(const float *x, const float *w, uint32_t n, float eps, float *y)
{
    vf inv = inverse_rms(x, n, eps);
    for (uint32_t i = 0; i < n; i += LANES) {
        vf normed = vf_mul(vf_load_upto(x + i, n - i), inv);
        vf_store_upto(y + i, n - i, vf_mul(normed, vf_load_upto(w + i, n - i)));
    }
}

static void l2_norm(const float *x, uint32_t n, float eps, float scale, float *y)
{
    vf inv = vf_set(1 / sqrtf(vf_dot(x, x, n) + eps));
    for (uint32_t i = 0; i < n; i += LANES) {
        vf normed = vf_mul(vf_load_upto(x + i, n - i), inv);
        vf_store_upto(y + i, n - i, vf_mul(normed, vf_set(scale)));
    }
}

static void gated_rms_norm(const float *x, const float *z, const float *w, uint32_t n, float eps,
                           float *y)
{
    vf inv = inverse_rms(x, n, eps);
    for (uint32_t i = 0; i < n; i += LANES) {
        uint32_t left = n - i;
        vf v = vf_mul(vf_mul(vf_load_upto(x + i, left), inv), vf_load_upto(w + i, left));
        vf_store_upto(y + i, left, vf_mul(v, vf_silu(vf_load_upto(z + i, left))));
    }
}

void SET(init_norm)(struct kernels *k)
{
    k->rms_norm = rms_norm;
    k->l2_norm = l2_norm;
    k->gated_rms_norm = gated_rms_norm;
}
