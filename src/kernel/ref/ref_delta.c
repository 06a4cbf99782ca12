/* Gated DeltaNet (arXiv:2412.06464): short convolution, gates, and one step of the recurrence. */
#include <math.h>
#include <string.h>

#include "kernel/ref/ref.h"

static void conv_silu(const float *const *rows, const float *w, size_t ldw, uint32_t width,
                      uint32_t n, float *y)
{
    for (uint32_t c = 0; c < n; c++) {
        float sum = 0;
        for (uint32_t j = 0; j < width; j++) sum += w[j * ldw + c] * rows[j][c];
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

static void delta_net(const float *from, float *to, const struct delta_tokens *x, uint32_t dk,
                      uint32_t dv)
{
    memmove(to, from, (size_t)dk * dv * sizeof *to);
    for (size_t t = 0; t < x->n; t++) {
        const float *q = x->q + t * x->ld, *k = x->k + t * x->ld, *v = x->v + t * x->ld;
        for (uint32_t i = 0; i < dv; i++) {
            float *s = to + (size_t)i * dk;
            for (uint32_t j = 0; j < dk; j++) s[j] *= x->g[t * x->ldg];
            float delta = x->b[t * x->ldg] * (v[i] - ref_dot(s, k, dk));
            for (uint32_t j = 0; j < dk; j++) s[j] += delta * k[j];
            x->out[t * x->ldo + i] = ref_dot(s, q, dk);
        }
    }
}

void ref_init_delta(struct kernels *k)
{
    k->conv_silu = conv_silu;
    k->decay_beta = decay_beta;
    k->delta_net = delta_net;
}
