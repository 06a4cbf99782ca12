/* Gated DeltaNet: short convolution, gates, and the recurrence. */
#include "base/bits.h"
#include "kernel/simd/sets.h"

static void conv_silu(const float *const *rows, const float *w, size_t ldw, uint32_t width,
                      uint32_t n, float *y)
{
    for (uint32_t c = 0; c < n; c += LANES) {
        vf sum = vf_set(0);
        for (uint32_t j = 0; j < width; j++)
            sum =
                vf_fma(vf_load_upto(w + j * ldw + c, n - c), vf_load_upto(rows[j] + c, n - c), sum);
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

/* Rows of the state that stay in the first-level cache for a chunk of tokens. */
enum { ROWS = 4, BLOCK_ROWS = 32, CHUNK = 16 };

/* What one token does to a row; next_k: of the token after it, if there is one. */
struct step {
    const float *q, *k, *next_k;
    float g, beta;
};

/* rows <= ROWS is a constant at every call. */
INLINE void sum_rows(const vf v[ROWS], uint32_t rows, float *out)
{
    if (rows == ROWS)
        vf_sum4(v, out);
    else
        for (uint32_t r = 0; r < rows; r++) out[r] = vf_sum(v[r]);
}

/* memory = S k, for the first token of a chunk: as step_rows has it for those after. */
INLINE void read_rows(const float *s, uint32_t rows, const float *k, uint32_t dk, float *memory)
{
    vf sum[ROWS];
    for (uint32_t r = 0; r < rows; r++) sum[r] = vf_set(0);
    for (uint32_t j = 0; j < dk; j += LANES) {
        vf key = vf_load_upto(k + j, dk - j);
        for (uint32_t r = 0; r < rows; r++)
            sum[r] = vf_fma(vf_load_upto(s + (size_t)r * dk + j, dk - j), key, sum[r]);
    }
    sum_rows(sum, rows, memory);
}

/* Rows that go through a token: S k of the next token and S q in the making. */
struct stepping {
    vf decay, delta[ROWS], next[ROWS], result[ROWS];
};

/* `left` values, of which up to LANES are taken, of each row. */
INLINE void step_lanes(struct stepping *s, const float *from, float *to, size_t dk, uint32_t rows,
                       bool more, const struct step *x, size_t j, uint32_t left)
{
    vf key = vf_load_upto(x->k + j, left), query = vf_load_upto(x->q + j, left);
    vf next_key = more ? vf_load_upto(x->next_k + j, left) : key;
    for (uint32_t r = 0; r < rows; r++) {
        vf decayed = vf_mul(s->decay, vf_load_upto(from + r * dk + j, left));
        vf updated = vf_fma(s->delta[r], key, decayed);
        vf_store_upto(to + r * dk + j, left, updated);
        s->result[r] = vf_fma(updated, query, s->result[r]);
        if (more) s->next[r] = vf_fma(updated, next_key, s->next[r]);
    }
}

/*
 * Rows from `from` to `to`, which may be the same. An element is read and written once a token: the
 * decay waits for this pass, and what the next token's key finds is summed up in it. memory becomes
 * that. rows and more, whether there is a next token, are constants at every call.
 */
INLINE void step_rows(const float *from, float *to, uint32_t rows, uint32_t dk, bool more,
                      const struct step *x, const float *v, float *memory, float *out)
{
    struct stepping s = {.decay = vf_set(x->g)};
    uint32_t j = 0;
    for (uint32_t r = 0; r < rows; r++) {
        s.delta[r] = vf_set(x->beta * (v[r] - x->g * memory[r]));
        s.result[r] = s.next[r] = vf_set(0);
    }
    for (; j + LANES <= dk; j += LANES) step_lanes(&s, from, to, dk, rows, more, x, j, LANES);
    if (j < dk) step_lanes(&s, from, to, dk, rows, more, x, j, dk - j);
    sum_rows(s.result, rows, out);
    if (more) sum_rows(s.next, rows, memory);
}

/* n <= BLOCK_ROWS rows. */
INLINE void step_block(const float *from, float *to, uint32_t n, uint32_t dk, bool more,
                       const struct step *x, const float *v, float *memory, float *out)
{
    uint32_t r = 0;
    for (; r + ROWS <= n; r += ROWS)
        step_rows(from + (size_t)r * dk, to + (size_t)r * dk, ROWS, dk, more, x, v + r, memory + r,
                  out + r);
    for (; r < n; r++)
        step_rows(from + (size_t)r * dk, to + (size_t)r * dk, 1, dk, more, x, v + r, memory + r,
                  out + r);
}

/* Rows [i, i + n) through tokens [t0, t1), n <= BLOCK_ROWS. */
INLINE void chunk_rows(const float *from, float *to, const struct delta_tokens *x, uint32_t t0,
                       uint32_t t1, uint32_t i, uint32_t n, uint32_t dk)
{
    const float *key = x->k + t0 * x->ld;
    float memory[BLOCK_ROWS];
    uint32_t r = 0;
    from = (t0 ? to : from) + (size_t)i * dk;
    to += (size_t)i * dk;
    for (; r + ROWS <= n; r += ROWS) read_rows(from + (size_t)r * dk, ROWS, key, dk, memory + r);
    for (; r < n; r++) read_rows(from + (size_t)r * dk, 1, key, dk, memory + r);
    for (size_t t = t0; t < t1; t++, from = to) {
        const bool more = t + 1 < t1;
        const struct step s = {.q = x->q + t * x->ld,
                               .k = x->k + t * x->ld,
                               .next_k = x->k + (t + more) * x->ld,
                               .g = x->g[t * x->ldg],
                               .beta = x->b[t * x->ldg]};
        const float *v = x->v + t * x->ld + i;
        float *out = x->out + t * x->ldo + i;
        if (more)
            step_block(from, to, n, dk, true, &s, v, memory, out);
        else
            step_block(from, to, n, dk, false, &s, v, memory, out);
    }
}

INLINE void all_rows(const float *from, float *to, const struct delta_tokens *x, uint32_t dk,
                     uint32_t dv)
{
    for (uint32_t t0 = 0; t0 < x->n; t0 += CHUNK)
        for (uint32_t i = 0; i < dv; i += BLOCK_ROWS)
            chunk_rows(from, to, x, t0, min_u32(x->n, t0 + CHUNK), i, min_u32(BLOCK_ROWS, dv - i),
                       dk);
}

enum {
    LINE = 16,         /* values in a line of a cache */
    AHEAD = ROWS * 512 /* values that reads run ahead of what is computed */
};

/* The rows of step_rows by whole lines, which go to memory as they are. */
INLINE void stream_lines(struct stepping *s, const float *from, float *to, size_t dk,
                         const struct step *x)
{
    for (size_t j = 0; j < dk; j += LINE) {
        vf key[LINE / LANES], query[LINE / LANES];
        for (uint32_t i = 0; i < LINE / LANES; i++) {
            key[i] = vf_load(x->k + j + i * LANES);
            query[i] = vf_load(x->q + j + i * LANES);
        }
        for (uint32_t r = 0; r < ROWS; r++)
            for (uint32_t i = 0; i < LINE / LANES; i++) {
                size_t at = r * dk + j + i * LANES;
                vf decayed = vf_mul(s->decay, vf_load(from + at));
                vf updated = vf_fma(s->delta[r], key[i], decayed);
                vf_stream(to + at, updated);
                s->result[r] = vf_fma(updated, query[i], s->result[r]);
            }
    }
}

/*
 * One token through ROWS rows from memory to memory, by the operations of read_rows and step_rows.
 * Prefetches run on into the rows after these: mostly those of the next head, which comes next.
 */
INLINE void stream_rows(const float *from, float *to, uint32_t dk, const struct step *x,
                        const float *v, float *out)
{
    struct stepping s = {.decay = vf_set(x->g)};
    float memory[ROWS];
    for (size_t j = 0; j < (size_t)ROWS * dk; j += LINE) __builtin_prefetch(from + AHEAD + j, 0, 2);
    read_rows(from, ROWS, x->k, dk, memory);
    for (uint32_t r = 0; r < ROWS; r++) {
        s.delta[r] = vf_set(x->beta * (v[r] - x->g * memory[r]));
        s.result[r] = vf_set(0);
    }
    stream_lines(&s, from, to, dk, x);
    sum_rows(s.result, ROWS, out);
}

static void stream_token(const float *from, float *to, const struct delta_tokens *x, uint32_t dk,
                         uint32_t dv)
{
    const struct step one = {.q = x->q, .k = x->k, .g = *x->g, .beta = *x->b};
    uint32_t i = 0;
    for (; i + ROWS <= dv; i += ROWS)
        stream_rows(from + (size_t)i * dk, to + (size_t)i * dk, dk, &one, x->v + i, x->out + i);
    vf_stream_end();
    if (i < dv) chunk_rows(from, to, x, 0, 1, i, dv - i, dk);
}

static void delta_net(const float *from, float *to, const struct delta_tokens *x, uint32_t dk,
                      uint32_t dv)
{
    bool lines = dk % LINE == 0 && (uintptr_t)to % (LINE * sizeof *to) == 0;
    if (x->streams && x->n == 1 && lines) stream_token(from, to, x, dk, dv);
    /* The usual width is worth a version of its own. */
    else if (dk == 128)
        all_rows(from, to, x, 128, dv);
    else
        all_rows(from, to, x, dk, dv);
}

void SET(init_delta)(struct kernels *k)
{
    k->conv_silu = conv_silu;
    k->decay_beta = decay_beta;
    k->delta_net = delta_net;
}
