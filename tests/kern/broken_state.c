/* Kernels with state and one bug each. */
#include "kerncheck.h"

static float silu(float x)
{
    return x / (1 + expf(-x));
}

static void conv_reversed(const float *const *rows, const float *w, uint32_t width, uint32_t n,
                          float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float sum = 0;
        for (uint32_t j = 0; j < width; j++) sum += w[(size_t)(width - 1 - j) * n + i] * rows[j][i];
        y[i] = silu(sum);
    }
}

static void conv_no_silu(const float *const *rows, const float *w, uint32_t width, uint32_t n,
                         float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float sum = 0;
        for (uint32_t j = 0; j < width; j++) sum += w[(size_t)j * n + i] * rows[j][i];
        y[i] = sum;
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

static void delta_variant(float *state, const float *q, const float *k, const float *v, float g,
                          float beta, uint32_t dk, uint32_t dv, float *out, bool decay_late,
                          bool read_early)
{
    for (uint32_t i = 0; i < dv; i++) {
        float *s = state + (size_t)i * dk, memory = 0, result = 0;
        for (uint32_t j = 0; j < dk; j++) {
            if (!decay_late) s[j] *= g;
            memory += s[j] * k[j];
        }
        for (uint32_t j = 0; j < dk; j++) {
            float before = s[j];
            if (decay_late) s[j] *= g;
            s[j] += beta * (v[i] - memory) * k[j];
            result += (read_early ? before : s[j]) * q[j];
        }
        out[i] = result;
    }
}

/* The memory is read before it decays. */
static void delta_decays_late(float *state, const float *q, const float *k, const float *v, float g,
                              float beta, uint32_t dk, uint32_t dv, float *out)
{
    delta_variant(state, q, k, v, g, beta, dk, dv, out, true, false);
}

/* The output is that of the state before its update. */
static void delta_reads_early(float *state, const float *q, const float *k, const float *v, float g,
                              float beta, uint32_t dk, uint32_t dv, float *out)
{
    delta_variant(state, q, k, v, g, beta, dk, dv, out, false, true);
}

static void attention_right(const float *q, const float *keys, const float *values, uint32_t count,
                            uint32_t head_dim, float scale, struct softmax_state *st, float *acc)
{
    struct kernels right;
    kernels_init(&right, 0);
    right.attention_block_f32(q, keys, values, count, head_dim, scale, st, acc);
}

/* Older sums are not brought to the new maximum. */
static void attention_no_rescale(const float *q, const float *keys, const float *values,
                                 uint32_t count, uint32_t head_dim, float scale,
                                 struct softmax_state *st, float *acc)
{
    float max = st->max, sum = st->sum;
    attention_right(q, keys, values, count, head_dim, scale, st, acc);
    if (sum > 0 && st->max > max) st->sum += sum * (1 - expf(max - st->max));
}

/* exp(score) without the maximum: finite sums for small scores only. */
static void attention_overflows(const float *q, const float *keys, const float *values,
                                uint32_t count, uint32_t head_dim, float scale,
                                struct softmax_state *st, float *acc)
{
    attention_right(q, keys, values, count, head_dim, scale, st, acc);
    st->sum = expf(st->max) * st->sum / expf(st->max);
}

static void attention_drops_last(const float *q, const float *keys, const float *values,
                                 uint32_t count, uint32_t head_dim, float scale,
                                 struct softmax_state *st, float *acc)
{
    attention_right(q, keys, values, count > 1 ? count - 1 : 1, head_dim, scale, st, acc);
}

/* Takes a cache of f16 to be bf16. */
static void attention_wrong_format(const float *q, const uint16_t *keys, const uint16_t *values,
                                   uint32_t count, uint32_t head_dim, float scale,
                                   struct softmax_state *st, float *acc)
{
    size_t n = (size_t)count * head_dim;
    float *k = malloc(2 * n * sizeof *k);
    if (!k) exit(2);
    for (size_t i = 0; i < n; i++) {
        k[i] = bf16_to_f32(keys[i]);
        k[n + i] = bf16_to_f32(values[i]);
    }
    attention_right(q, k, k + n, count, head_dim, scale, st, acc);
    free(k);
}

#define BROKEN(slot_, bug_, says, function)                                                        \
    {                                                                                              \
        slot_, bug_, says, (any_kernel)function, WTYPE_F32                                         \
    }

const struct broken broken_state[] = {
    BROKEN("conv_silu", "the newest row first", "*: y*, not *", conv_reversed),
    BROKEN("conv_silu", "no activation", "*: y*, not *", conv_no_silu),
    BROKEN("decay_beta", "an overflow", "*: g*, not *", decay_overflows),
    BROKEN("delta_step", "a late decay", "*: state*, not *", delta_decays_late),
    BROKEN("delta_step", "an early output", "*: out*, not *", delta_reads_early),
    BROKEN("attention_block_f32", "an old sum not rescaled", "*: sum*, not *",
           attention_no_rescale),
    BROKEN("attention_block_f32", "an overflow", "*: sum* is *, not *", attention_overflows),
    BROKEN("attention_block_f32", "the last position left out", "*: *, not *",
           attention_drops_last),
    BROKEN("attention_block_f16", "another format", "*: *, not *", attention_wrong_format),
};
const size_t broken_state_count = COUNT_OF(broken_state);
