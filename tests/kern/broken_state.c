/* Kernels with state and one bug each. */
#include "kerncheck.h"

static float silu(float x)
{
    return x / (1 + expf(-x));
}

static void conv_reversed(const float *const *rows, const float *w, size_t ldw, uint32_t width,
                          uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float sum = 0;
        for (uint32_t j = 0; j < width; j++) sum += w[(width - 1 - j) * ldw + i] * rows[j][i];
        y[i] = silu(sum);
    }
}

static void conv_no_silu(const float *const *rows, const float *w, size_t ldw, uint32_t width,
                         uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float sum = 0;
        for (uint32_t j = 0; j < width; j++) sum += w[j * ldw + i] * rows[j][i];
        y[i] = sum;
    }
}

/* A part of the channels finds the weights of its first row only. */
static void conv_dense(const float *const *rows, const float *w, size_t ldw, uint32_t width,
                       uint32_t n, float *y)
{
    (void)ldw;
    for (uint32_t i = 0; i < n; i++) {
        float sum = 0;
        for (uint32_t j = 0; j < width; j++) sum += w[(size_t)j * n + i] * rows[j][i];
        y[i] = silu(sum);
    }
}

/* log(1 + exp(x)) overflows. */
static void decay_overflows(const float *alpha, const float *beta, const float *neg_a,
                            const float *dt_bias, uint32_t n, float *g, float *b)
{
    for (uint32_t i = 0; i < n; i++) {
        g[i] = expf(neg_a[i] * logf(1 + expf(alpha[i] + dt_bias[i])));
        b[i] = 1 / (1 + expf(-beta[i]));
    }
}

enum delta_bug { DECAYS_LATE = 1, READS_EARLY = 2, FORGETS = 4 };

static void delta_row(float *s, const struct delta_tokens *x, size_t t, uint32_t i, uint32_t dk,
                      unsigned bugs)
{
    const float *q = x->q + t * x->ld, *k = x->k + t * x->ld;
    float memory = 0, result = 0, g = x->g[t * x->ldg], beta = x->b[t * x->ldg];
    for (uint32_t j = 0; j < dk; j++) {
        if (!(bugs & DECAYS_LATE)) s[j] *= g;
        memory += s[j] * k[j];
    }
    for (uint32_t j = 0; j < dk; j++) {
        float before = s[j];
        if (bugs & DECAYS_LATE) s[j] *= g;
        s[j] += beta * (x->v[t * x->ld + i] - memory) * k[j];
        result += (bugs & READS_EARLY ? before : s[j]) * q[j];
    }
    x->out[t * x->ldo + i] = result;
}

static void delta_variant(const float *from, float *to, const struct delta_tokens *x, uint32_t dk,
                          uint32_t dv, unsigned bugs)
{
    const size_t bytes = (size_t)dk * dv * sizeof *to;
    float *first = malloc(bytes);
    if (!first) exit(2);
    memcpy(first, from, bytes);
    memmove(to, from, bytes);
    for (size_t t = 0; t < x->n; t++) {
        if (bugs & FORGETS) memcpy(to, first, bytes);
        for (uint32_t i = 0; i < dv; i++) delta_row(to + (size_t)i * dk, x, t, i, dk, bugs);
    }
    free(first);
}

/* The memory is read before it decays. */
static void delta_decays_late(const float *from, float *to, const struct delta_tokens *x,
                              uint32_t dk, uint32_t dv)
{
    delta_variant(from, to, x, dk, dv, DECAYS_LATE);
}

/* The output is that of the state before its update. */
static void delta_reads_early(const float *from, float *to, const struct delta_tokens *x,
                              uint32_t dk, uint32_t dv)
{
    delta_variant(from, to, x, dk, dv, READS_EARLY);
}

/* Every token begins with the state before the first. */
static void delta_forgets(const float *from, float *to, const struct delta_tokens *x, uint32_t dk,
                          uint32_t dv)
{
    delta_variant(from, to, x, dk, dv, FORGETS);
}

static void attention_right(const struct attention_query *q, const float *keys, const float *values,
                            uint32_t count, struct softmax_state *st, float *acc)
{
    struct kernels right;
    kernels_init(&right, 0);
    right.attention_block_f32(q, keys, values, count, st, acc);
}

/* Older sums are not brought to the new maximum. */
static void attention_no_rescale(const struct attention_query *q, const float *keys,
                                 const float *values, uint32_t count, struct softmax_state *st,
                                 float *acc)
{
    for (uint32_t h = 0; h < q->heads; h++) {
        struct attention_query one = {q->q + (size_t)h * q->head_dim, 1, q->head_dim, q->scale, 0};
        float max = st[h].max, sum = st[h].sum;
        attention_right(&one, keys, values, count, st + h, acc + (size_t)h * q->head_dim);
        if (sum > 0 && st[h].max > max) st[h].sum += sum * (1 - expf(max - st[h].max));
    }
}

/* exp(score) without the maximum: finite sums for small scores only. */
static void attention_overflows(const struct attention_query *q, const float *keys,
                                const float *values, uint32_t count, struct softmax_state *st,
                                float *acc)
{
    attention_right(q, keys, values, count, st, acc);
    for (uint32_t h = 0; h < q->heads; h++)
        st[h].sum = expf(st[h].max) * st[h].sum / expf(st[h].max);
}

static void attention_drops_last(const struct attention_query *q, const float *keys,
                                 const float *values, uint32_t count, struct softmax_state *st,
                                 float *acc)
{
    attention_right(q, keys, values, count > 1 ? count - 1 : 1, st, acc);
}

/* The second head looks with the query of the first. */
static void attention_wrong_head(const struct attention_query *q, const float *keys,
                                 const float *values, uint32_t count, struct softmax_state *st,
                                 float *acc)
{
    struct attention_query first = {q->q, 1, q->head_dim, q->scale, 0};
    attention_right(q, keys, values, count, st, acc);
    if (q->heads > 1) attention_right(&first, keys, values, count, st + 1, acc + q->head_dim);
}

/* Takes a cache of f16 to be bf16. */
static void attention_wrong_format(const struct attention_query *q, const uint16_t *keys,
                                   const uint16_t *values, uint32_t count, struct softmax_state *st,
                                   float *acc)
{
    size_t n = (size_t)count * q->head_dim;
    float *k = malloc(2 * n * sizeof *k);
    if (!k) exit(2);
    for (size_t i = 0; i < n; i++) {
        k[i] = bf16_to_f32(keys[i]);
        k[n + i] = bf16_to_f32(values[i]);
    }
    attention_right(q, k, k + n, count, st, acc);
    free(k);
}

#define BROKEN(slot_, bug_, says, function)                                                        \
    {                                                                                              \
        slot_, bug_, says, (any_kernel)function, WTYPE_F32                                         \
    }

const struct broken broken_state[] = {
    BROKEN("conv_silu", "the newest row first", "*: y*, not *", conv_reversed),
    BROKEN("conv_silu", "no activation", "*: y*, not *", conv_no_silu),
    BROKEN("conv_silu", "rows of weights without their distance", "*: y*, not *", conv_dense),
    BROKEN("decay_beta", "an overflow", "*: g*, not *", decay_overflows),
    BROKEN("delta_net", "a late decay", "*: state*, not *", delta_decays_late),
    BROKEN("delta_net", "an early output", "*: out*, not *", delta_reads_early),
    BROKEN("delta_net", "each token the first", "*: out*, not *", delta_forgets),
    BROKEN("attention_block_f32", "an old sum not rescaled", "*: sum*, not *",
           attention_no_rescale),
    BROKEN("attention_block_f32", "an overflow", "*: sum* is *, not *", attention_overflows),
    BROKEN("attention_block_f32", "the last position left out", "*: *, not *",
           attention_drops_last),
    BROKEN("attention_block_f32", "the first head's query", "*: *, not *", attention_wrong_head),
    BROKEN("attention_block_f16", "another format", "*: *, not *", attention_wrong_format),
};
const size_t broken_state_count = COUNT_OF(broken_state);
