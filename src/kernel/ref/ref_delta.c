/* Gated DeltaNet (arXiv:2412.06464): short convolution, gates, and one step of the recurrence. */
#include <math.h>

#include "kernel/ref/ref.h"

static void conv_silu(const float *const *rows, const float *w, uint32_t width, uint32_t n,
                      float *y)
{
    for (uint32_t c = 0; c < n; c++) {
        float sum = 0;
        for (uint32_t j = 0; j < width; j++) sum += w[(size_t)j * n + c] * rows[j][c];
        y[c] = ref_silu(sum);
    }
}

static float softplus(float x)
{
    return fmaxf(x, 0) + log1pf(expf(-fabsf(x)));
}

static void decay_beta(const float *alpha, const float *beta, const float *neg_a,
                       const float *dt_bias, uint32_t n, float *g, float *b)
{
    for (uint32_t i = 0; i < n; i++) {
        float sum = alpha[i] + dt_bias[i];
        g[i] = isnan(sum) ? NAN : expf(neg_a[i] * softplus(sum));
        b[i] = ref_sigmoid(beta[i]);
    }
}

static void delta_step(float *state, const float *q, const float *k, const float *v, float g,
                       float beta, uint32_t dk, uint32_t dv, float *out)
{
    for (uint32_t i = 0; i < dv; i++) {
        float *s = state + (size_t)i * dk;
        for (uint32_t j = 0; j < dk; j++) s[j] *= g;
        float delta = beta * (v[i] - ref_dot(s, k, dk));
        for (uint32_t j = 0; j < dk; j++) s[j] += delta * k[j];
        out[i] = ref_dot(s, q, dk);
    }
}

void ref_init_delta(struct kernels *k)
{
    k->conv_silu = conv_silu;
    k->decay_beta = decay_beta;
    k->delta_step = delta_step;
}
