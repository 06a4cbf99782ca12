/* Gated DeltaNet: short convolution, gates, and the recurrence. */
#include "base/bits.h"
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

/* Rows of the state that a chunk of tokens goes through while they are in the first-level cache. */
enum { ROWS = 4, CHUNK = 16 };

/* One token: rows from `from` to `to`, which may be the same; rows is a constant at every call. */
INLINE void step_rows(const float *from, float *to, uint32_t rows, const float *q, const float *k,
                      const float *v, float g, float beta, uint32_t dk, float *out)
{
    vf memory[ROWS], result[ROWS], delta[ROWS], decay = vf_set(g);
    for (uint32_t r = 0; r < rows; r++) memory[r] = result[r] = vf_set(0);
    for (uint32_t j = 0; j < dk; j += LANES) {
        vf key = vf_load_upto(k + j, dk - j);
        for (uint32_t r = 0; r < rows; r++) {
            vf decayed = vf_mul(decay, vf_load_upto(from + (size_t)r * dk + j, dk - j));
            memory[r] = vf_fma(decayed, key, memory[r]);
        }
    }
    for (uint32_t r = 0; r < rows; r++) delta[r] = vf_set(beta * (v[r] - vf_sum(memory[r])));
    for (uint32_t j = 0; j < dk; j += LANES) {
        vf key = vf_load_upto(k + j, dk - j), query = vf_load_upto(q + j, dk - j);
        for (uint32_t r = 0; r < rows; r++) {
            size_t at = (size_t)r * dk + j;
            vf decayed = vf_mul(decay, vf_load_upto(from + at, dk - j));
            vf updated = vf_fma(delta[r], key, decayed);
            vf_store_upto(to + at, dk - j, updated);
            result[r] = vf_fma(updated, query, result[r]);
        }
    }
    for (uint32_t r = 0; r < rows; r++) out[r] = vf_sum(result[r]);
}

/* Rows from row i on through tokens [t0, t1). */
INLINE void chunk_rows(const float *from, float *to, const struct delta_tokens *x, uint32_t t0,
                       uint32_t t1, uint32_t i, uint32_t rows, uint32_t dk)
{
    size_t at = (size_t)i * dk;
    for (size_t t = t0; t < t1; t++)
        step_rows((t ? to : from) + at, to + at, rows, x->q + t * x->ld, x->k + t * x->ld,
                  x->v + t * x->ld + i, x->g[t * x->ldg], x->b[t * x->ldg], dk,
                  x->out + t * x->ldo + i);
}

static void delta_net(const float *from, float *to, const struct delta_tokens *x, uint32_t dk,
                      uint32_t dv)
{
    for (uint32_t t0 = 0; t0 < x->n; t0 += CHUNK) {
        uint32_t t1 = min_u32(x->n, t0 + CHUNK), i = 0;
        for (; i + ROWS <= dv; i += ROWS) chunk_rows(from, to, x, t0, t1, i, ROWS, dk);
        for (; i < dv; i++) chunk_rows(from, to, x, t0, t1, i, 1, dk);
    }
}

void SET(init_delta)(struct kernels *k)
{
    k->conv_silu = conv_silu;
    k->decay_beta = decay_beta;
    k->delta_net = delta_net;
}
