/* Gated DeltaNet: short convolution, gates, and one step of the recurrence. */
#include "kernel/simd/sets.h"

static void conv_silu(const float *const *rows, const float *w, uint32_t width, uint32_t n,
                      float *y)
{
    for (uint32_t c = 0; c < n; c += LANES) {
        vf sum = vf_set(0);
        for (uint32_t j = 0; j < width; j++)
            sum = vf_fma(vf_load_upto(w + (size_t)j * n + c, n - c),
                         vf_load_upto(rows[j] + c, n - c), sum);
        vf_store_upto(y + c, n - c, vf_silu(sum));
    }
}

/*
 * log(1 + e) for e in [0, 1], within 2 ulp: with f = e, or (e - 1) / 2 and ln 2 above sqrt(2) - 1,
 * Moshier's polynomial (Cephes logf) of f in [sqrt(1/2) - 1, sqrt(2) - 1].
 */
INLINE vf log1p_unit(vf e)
{
    const vf split = vf_set(0.41421356f);
    vf f = vf_if_greater(e, split, vf_mul(vf_sub(e, vf_set(1)), vf_set(0.5f)), e);
    vf p = vf_set(7.0376836292e-2f);
    p = vf_fma(p, f, vf_set(-1.1514610310e-1f));
    p = vf_fma(p, f, vf_set(1.1676998740e-1f));
    p = vf_fma(p, f, vf_set(-1.2420140846e-1f));
    p = vf_fma(p, f, vf_set(1.4249322787e-1f));
    p = vf_fma(p, f, vf_set(-1.6668057665e-1f));
    p = vf_fma(p, f, vf_set(2.0000714765e-1f));
    p = vf_fma(p, f, vf_set(-2.4999993993e-1f));
    p = vf_fma(p, f, vf_set(3.3333331174e-1f));
    vf square = vf_mul(f, f);
    vf log = vf_fma(vf_mul(p, square), f, vf_fma(square, vf_set(-0.5f), f));
    return vf_if_greater(e, split, vf_add(log, vf_set(0.693147181f)), log);
}

INLINE vf softplus(vf x)
{
    vf e = vf_exp(vf_sub(vf_set(0), vf_abs(x)));
    return vf_add(vf_max(vf_set(0), x), log1p_unit(e));
}

static void decay_beta(const float *alpha, const float *beta, const float *neg_a,
                       const float *dt_bias, uint32_t n, float *g, float *b)
{
    for (uint32_t i = 0; i < n; i += LANES) {
        uint32_t left = n - i;
        vf step = softplus(vf_add(vf_load_upto(alpha + i, left), vf_load_upto(dt_bias + i, left)));
        vf_store_upto(g + i, left, vf_exp(vf_mul(vf_load_upto(neg_a + i, left), step)));
        vf_store_upto(b + i, left, vf_sigmoid(vf_load_upto(beta + i, left)));
    }
}

enum { ROWS = 4 };

/* `rows` consecutive rows of the state; a constant at every call. */
INLINE void step_rows(float *s, uint32_t rows, const float *q, const float *k, const float *v, vf g,
                      float beta, uint32_t dk, float *out)
{
    vf memory[ROWS], result[ROWS], delta[ROWS];
    for (uint32_t r = 0; r < rows; r++) memory[r] = result[r] = vf_set(0);
    for (uint32_t j = 0; j < dk; j += LANES) {
        vf key = vf_load_upto(k + j, dk - j);
        for (uint32_t r = 0; r < rows; r++) {
            vf decayed = vf_mul(g, vf_load_upto(s + (size_t)r * dk + j, dk - j));
            memory[r] = vf_fma(decayed, key, memory[r]);
        }
    }
    for (uint32_t r = 0; r < rows; r++) delta[r] = vf_set(beta * (v[r] - vf_sum(memory[r])));
    for (uint32_t j = 0; j < dk; j += LANES) {
        vf key = vf_load_upto(k + j, dk - j), query = vf_load_upto(q + j, dk - j);
        for (uint32_t r = 0; r < rows; r++) {
            float *at = s + (size_t)r * dk + j;
            vf decayed = vf_mul(g, vf_load_upto(at, dk - j));
            vf updated = vf_fma(delta[r], key, decayed);
            vf_store_upto(at, dk - j, updated);
            result[r] = vf_fma(updated, query, result[r]);
        }
    }
    for (uint32_t r = 0; r < rows; r++) out[r] = vf_sum(result[r]);
}

static void delta_step(float *state, const float *q, const float *k, const float *v, float g,
                       float beta, uint32_t dk, uint32_t dv, float *out)
{
    vf decay = vf_set(g);
    uint32_t i = 0;
    for (; i + ROWS <= dv; i += ROWS)
        step_rows(state + (size_t)i * dk, ROWS, q, k, v + i, decay, beta, dk, out + i);
    for (; i < dv; i++) step_rows(state + (size_t)i * dk, 1, q, k, v + i, decay, beta, dk, out + i);
}

void SET(init_delta)(struct kernels *k)
{
    k->conv_silu = conv_silu;
    k->decay_beta = decay_beta;
    k->delta_step = delta_step;
}
