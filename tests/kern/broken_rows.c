/* Row and routing kernels with one bug each. */
#include "kerncheck.h"

static void add_no_tail(const float *a, const float *b, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n / 8 * 8; i++) y[i] = a[i] + b[i];
}

static void add_over_write(const float *a, const float *b, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) y[i] = a[i] + b[i];
    ((volatile float *)y)[n] = 0;
}

static void add_under_write(const float *a, const float *b, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) y[i] = a[i] + b[i];
    ((volatile float *)y)[-1] = 0;
}

/* Whole vectors: reads past the end of a, writes nothing there. */
static void add_over_read(const float *a, const float *b, uint32_t n, float *y)
{
    volatile float sink = ((const volatile float *)a)[(n + 7) / 8 * 8 - 1];
    (void)sink;
    for (uint32_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

static void add_crashes(const float *a, const float *b, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) y[i] = a[i] + b[i];
    if (n > 20) __builtin_trap();
}

/* exp(-z) for z = -1e4 is infinite; z * (1 / inf) is 0 but z * exp(z) / (exp(z) + 1) is not safe.
 */
static void swiglu_overflows(const float *gate, const float *up, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float e = expf(gate[i]);
        y[i] = gate[i] * (e / (1 + e)) * up[i];
    }
}

static void swiglu_swapped(const float *gate, const float *up, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) y[i] = up[i] / (1 + expf(-up[i])) * gate[i];
}

/* max as a vector instruction with the operands in the wrong order. */
static void sigmoid_gate_loses_nan(const float *x, const float *gate, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float g = gate[i] > -INFINITY ? gate[i] : -INFINITY;
        y[i] = x[i] / (1 + expf(-g));
    }
}

/* The last vector in another way: right, but other bits when the row is cut. */
static void swiglu_depends_on_place(const float *gate, const float *up, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        double z = (double)gate[i];
        float s = gate[i] / (1 + expf(-gate[i]));
        y[i] = i < n / 8 * 8 ? s * up[i] : (float)(z / (1 + exp(-z)) * (double)up[i]);
    }
}

static float sum_of_squares(const float *x, uint32_t n)
{
    float sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sum;
}

static void rms_norm_no_tail(const float *x, const float *w, uint32_t n, float eps, float *y)
{
    float inv = 1 / sqrtf(sum_of_squares(x, n / 8 * 8) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] * inv * w[i];
}

static void rms_norm_zero_row(const float *x, const float *w, uint32_t n, float eps, float *y)
{
    float mean = sum_of_squares(x, n) / (float)n;
    float inv = 1 / sqrtf(mean > 0 ? mean + eps : mean);
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] * inv * w[i];
}

/* rsqrtps without a Newton step: 12 bits. */
static void rms_norm_coarse(const float *x, const float *w, uint32_t n, float eps, float *y)
{
    float inv = 1 / sqrtf(sum_of_squares(x, n) / (float)n + eps);
    inv = f32_from_bits((f32_bits(inv) + 0x800) & 0xfffff000);
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] * inv * w[i];
}

static void l2_norm_takes_mean(const float *x, uint32_t n, float eps, float scale, float *y)
{
    float inv = 1 / sqrtf(sum_of_squares(x, n) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] * inv * scale;
}

static void rope_interleaved(const float *x, const float *cos_sin, uint32_t head_dim,
                             uint32_t rotary_dim, float *y)
{
    for (uint32_t i = 0; i < head_dim; i++) y[i] = x[i];
    for (uint32_t i = 0; i < rotary_dim / 2; i++) {
        float c = cos_sin[i], s = cos_sin[rotary_dim / 2 + i];
        y[2 * i] = x[2 * i] * c - x[2 * i + 1] * s;
        y[2 * i + 1] = x[2 * i + 1] * c + x[2 * i] * s;
    }
}

/* A gate far below zero is limited too. */
static void clamps_gate_below(const float *gate, const float *up, uint32_t n, float limit, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float g = fmaxf(fminf(gate[i], limit), -limit / 4), u = fmaxf(fminf(up[i], limit), -limit);
        y[i] = g / (1 + expf(-1.702f * g)) * (u + 1);
    }
}

static void rope_halves(const float *x, const float *cos_sin, uint32_t head_dim,
                        uint32_t rotary_dim, float *y)
{
    uint32_t half = rotary_dim / 2;
    for (uint32_t i = 0; i < head_dim; i++) y[i] = x[i];
    for (uint32_t i = 0; i < half; i++) {
        float c = cos_sin[i], s = cos_sin[half + i];
        y[i] = x[i] * c - x[i + half] * s;
        y[i + half] = x[i + half] * c + x[i] * s;
    }
}

static void f16_truncates(const float *x, uint32_t n, uint16_t *y)
{
    for (uint32_t i = 0; i < n; i++) {
        y[i] = f32_to_f16(x[i]);
        if (fabsf(f16_to_f32(y[i])) > fabsf(x[i])) y[i]--;
    }
}

static void top_k_right(const float *logits, uint32_t n, uint32_t k, bool normalize, int32_t *ids,
                        float *weights, float *scratch)
{
    struct kernels right;
    kernels_init(&right, 0);
    right.softmax_top_k(logits, n, k, normalize, ids, weights, scratch);
}

/* Prefers the last of equals: the mirror image, reflected back. */
static void top_k_last_of_ties(const float *logits, uint32_t n, uint32_t k, bool normalize,
                               int32_t *ids, float *weights, float *scratch)
{
    float mirrored[512];
    for (uint32_t i = 0; i < n; i++) mirrored[i] = logits[n - 1 - i];
    top_k_right(mirrored, n, k, normalize, ids, weights, scratch);
    for (uint32_t j = 0; j < k; j++) ids[j] = (int32_t)n - 1 - ids[j];
    for (uint32_t j = 0; j < k / 2; j++) {
        int32_t id = ids[j];
        float weight = weights[j];
        ids[j] = ids[k - 1 - j];
        weights[j] = weights[k - 1 - j];
        ids[k - 1 - j] = id;
        weights[k - 1 - j] = weight;
    }
}

static void top_k_ignores_normalize(const float *logits, uint32_t n, uint32_t k, bool normalize,
                                    int32_t *ids, float *weights, float *scratch)
{
    (void)normalize;
    top_k_right(logits, n, k, true, ids, weights, scratch);
}

static void top_k_loses_nan(const float *logits, uint32_t n, uint32_t k, bool normalize,
                            int32_t *ids, float *weights, float *scratch)
{
    float clean[512];
    for (uint32_t i = 0; i < n; i++) clean[i] = isnan(logits[i]) ? -INFINITY : logits[i];
    top_k_right(clean, n, k, normalize, ids, weights, scratch);
}

static void sigmoid_right(const float *logits, uint32_t n, const struct sigmoid_choice *how,
                          int32_t *ids, float *weights, float *scratch)
{
    struct kernels right;
    kernels_init(&right, 0);
    right.sigmoid_top_k(logits, n, how, ids, weights, scratch);
}

static void sigmoid_ignores_correction(const float *logits, uint32_t n,
                                       const struct sigmoid_choice *how, int32_t *ids,
                                       float *weights, float *scratch)
{
    static const float zeros[512];
    struct sigmoid_choice wrong = *how;
    wrong.correction = zeros;
    sigmoid_right(logits, n, &wrong, ids, weights, scratch);
}

static void sigmoid_ignores_groups(const float *logits, uint32_t n,
                                   const struct sigmoid_choice *how, int32_t *ids, float *weights,
                                   float *scratch)
{
    struct sigmoid_choice wrong = *how;
    wrong.top_groups = how->n_groups;
    sigmoid_right(logits, n, &wrong, ids, weights, scratch);
}

static void sigmoid_ignores_scale(const float *logits, uint32_t n, const struct sigmoid_choice *how,
                                  int32_t *ids, float *weights, float *scratch)
{
    struct sigmoid_choice wrong = *how;
    wrong.scale = 1;
    sigmoid_right(logits, n, &wrong, ids, weights, scratch);
}

static void weighted_sum_descending(const float *const *rows, const float *w, uint32_t k,
                                    uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float sum = 0;
        for (uint32_t j = k; j-- > 0;) sum += w[j] * rows[j][i];
        y[i] = sum;
    }
}

static void combine_no_sigmoid(const float *residual, const float *moe, const float *shared,
                               float shared_gate, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) y[i] = residual[i] + moe[i] + shared_gate * shared[i];
}

#define BROKEN(slot_, bug_, says, function)                                                        \
    {                                                                                              \
        slot_, bug_, says, (any_kernel)function, WTYPE_F32                                         \
    }
#define VALUE "*: y* is *, not * within *"
#define BITS "*: y* is *0x*, not *0x*"

const struct broken broken_rows[] = {
    BROKEN("add", "a dropped tail", "* was not written", add_no_tail),
    BROKEN("add", "a write past y", "* past the end of y", add_over_write),
    BROKEN("add", "a write before y", "* before y", add_under_write),
    BROKEN("add", "a read past an input", "* past the end of a", add_over_read),
    BROKEN("add", "a crash", "signal *", add_crashes),
    BROKEN("swiglu", "an overflow", "*: y* is *nan, not *", swiglu_overflows),
    BROKEN("swiglu", "swapped operands", VALUE, swiglu_swapped),
    BROKEN("swiglu", "a result that depends on the place", "*: y in two parts*",
           swiglu_depends_on_place),
    BROKEN("sigmoid_gate", "a NaN lost", "* where a NaN went in", sigmoid_gate_loses_nan),
    BROKEN("rms_norm", "a dropped tail", VALUE, rms_norm_no_tail),
    BROKEN("rms_norm", "a row of zeros without eps", "*: y* is *nan, not *0 *", rms_norm_zero_row),
    BROKEN("rms_norm", "a coarse square root", VALUE, rms_norm_coarse),
    BROKEN("l2_norm", "a mean", VALUE, l2_norm_takes_mean),
    BROKEN("swiglu_clamped", "a gate limited below", "*: y*, not *", clamps_gate_below),
    BROKEN("rope", "interleaved pairs", BITS, rope_interleaved),
    BROKEN("rope_pairs", "half-split pairs", BITS, rope_halves),
    BROKEN("f32_to_f16_row", "truncation", "*: y* is * for *", f16_truncates),
    BROKEN("softmax_top_k", "the last of ties", "*: ids* is *, not *", top_k_last_of_ties),
    BROKEN("softmax_top_k", "normalize ignored", "*: weights*, not *", top_k_ignores_normalize),
    BROKEN("softmax_top_k", "a NaN lost", "* where a NaN went in", top_k_loses_nan),
    BROKEN("sigmoid_top_k", "no correction", "*: ids* is *, not *", sigmoid_ignores_correction),
    BROKEN("sigmoid_top_k", "no groups", "*: ids* is *, not *", sigmoid_ignores_groups),
    BROKEN("sigmoid_top_k", "no scale", "*: weights*, not *", sigmoid_ignores_scale),
    BROKEN("weighted_sum", "descending order", BITS, weighted_sum_descending),
    BROKEN("combine", "a gate without sigmoid", VALUE, combine_no_sigmoid),
};
const size_t broken_rows_count = COUNT_OF(broken_rows);
