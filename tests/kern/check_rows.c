/* Kernels that map or normalise one row. */
#include "kerncheck.h"

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* exp overflows f32 where the true quotient is still 1e-37. */
static double silu_bound(double x)
{
    return 8 * EPS * fabs(x * sigmoid(x)) + 1e-36;
}

/* A NaN at a random place every sixth round; returns its index or n. */
static uint32_t plant_nan(struct check *c, float *x, uint32_t n)
{
    if (c->round % 6 != 5) return n;
    uint32_t at = rng_below(&c->rng, n);
    x[at] = NAN;
    return at;
}

void check_add(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    for (c->round = 0; c->round < LENGTH_ROUNDS; c->round++) {
        operands_reset(c);
        uint32_t n = length_of(c);
        float *a = in_f32(c, "a", n), *b = in_f32(c, "b", n), *y = out_f32(c, "y", n);
        fill(c, a, n, pattern_of(c));
        fill(c, b, n, PATTERN_MIXED);
        plant_nan(c, b, n);
        operands_begin(c);
        k->add(a, b, n, y);
        operands_end(c);
        for (uint32_t i = 0; i < n; i++) expect_bits(c, "y", i, y[i], a[i] + b[i]);
    }
}

void check_scale(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    for (c->round = 0; c->round < LENGTH_ROUNDS; c->round++) {
        operands_reset(c);
        uint32_t n = length_of(c);
        float factor = rng_float(&c->rng, -3, 3);
        float *x = in_f32(c, "x", n), *y = out_f32(c, "y", n), *same = out_f32(c, "x as y", n);
        fill(c, x, n, pattern_of(c));
        plant_nan(c, x, n);
        memcpy(same, x, n * sizeof *x);
        operands_begin(c);
        k->scale(x, factor, n, y);
        k->scale(same, factor, n, same);
        operands_end(c);
        for (uint32_t i = 0; i < n; i++) {
            expect_bits(c, "y", i, y[i], x[i] * factor);
            expect_bits(c, "x as y", i, same[i], y[i]);
        }
    }
}

/* swiglu and sigmoid_gate: values, then the same bits when the row is cut in two. */
static void check_gate(struct check *c, bool silu,
                       void (*kernel)(const float *, const float *, uint32_t, float *))
{
    for (c->round = 0; c->round < LENGTH_ROUNDS; c->round++) {
        operands_reset(c);
        uint32_t n = length_of(c), cut = rng_below(&c->rng, n + 1);
        float *gate = in_f32(c, "the gate", n), *x = in_f32(c, "x", n);
        float *y = out_f32(c, "y", n), *parts = out_f32(c, "y in two parts", n);
        fill(c, x, n, c->round % 2 ? PATTERN_UNIFORM : PATTERN_MIXED);
        fill_uniform(c, gate, n, -20, 20);
        if (c->round % 3 == 1) fill_uniform(c, gate, n, -1e4f, 1e4f);
        if (c->round % 3 == 2) fill_uniform(c, gate, n, -110, 110);
        uint32_t nan = plant_nan(c, c->round % 12 == 5 ? gate : x, n);
        const float *a = silu ? gate : x, *b = silu ? x : gate;
        operands_begin(c);
        kernel(a, b, n, y);
        kernel(a, b, cut, parts);
        kernel(a + cut, b + cut, n - cut, parts + cut);
        operands_end(c);
        for (uint32_t i = 0; i < n; i++) {
            double g = (double)gate[i], s = silu ? g * sigmoid(g) : sigmoid(g);
            double bound = (silu ? silu_bound(g) : 8 * EPS * s + 1e-38) * fabs((double)x[i]);
            if (i != nan) expect_near(c, "y", i, y[i], s * (double)x[i], bound + 0x1p-148);
            if (i == nan) expect_nan(c, "y", i, y[i]);
            expect_bits(c, "y in two parts", i, parts[i], y[i]);
        }
    }
}

void check_swiglu(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    check_gate(c, true, k->swiglu);
}

void check_swiglu_clamped(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    for (c->round = 0; c->round < LENGTH_ROUNDS; c->round++) {
        operands_reset(c);
        uint32_t n = length_of(c), cut = rng_below(&c->rng, n + 1);
        float limit = c->round % 2 ? 7 : rng_float(&c->rng, 0.5f, 20);
        float *gate = in_f32(c, "the gate", n), *up = in_f32(c, "up", n);
        float *y = out_f32(c, "y", n), *parts = out_f32(c, "y in two parts", n);
        fill_uniform(c, gate, n, -3 * limit, 3 * limit);
        fill_uniform(c, up, n, -2 * limit, 2 * limit);
        uint32_t nan = plant_nan(c, c->round % 12 == 5 ? gate : up, n);
        operands_begin(c);
        k->swiglu_clamped(gate, up, n, limit, y);
        k->swiglu_clamped(gate, up, cut, limit, parts);
        k->swiglu_clamped(gate + cut, up + cut, n - cut, limit, parts + cut);
        operands_end(c);
        for (uint32_t i = 0; i < n; i++) {
            double g = fmin((double)gate[i], (double)limit);
            double u = fmax(fmin((double)up[i], (double)limit), -(double)limit);
            double s = sigmoid(1.702 * g), want = g * s * (u + 1);
            /* The product that goes into the sigmoid is rounded. */
            double bound = (8 + 2 * fabs(1.702 * g)) * EPS * fabs(g * s) * (fabs(u) + 1) + 1e-35;
            if (i != nan) expect_near(c, "y", i, y[i], want, bound);
            if (i == nan) expect_nan(c, "y", i, y[i]);
            expect_bits(c, "y in two parts", i, parts[i], y[i]);
        }
    }
}

void check_sigmoid_gate(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    check_gate(c, false, k->sigmoid_gate);
}

struct norm {
    const float *x, *w, *z;
    uint32_t n;
    float eps, scale;
    bool mean;
};

/* Relative error: half of that of the sum of squares, then a few roundings. */
static void check_norm(struct check *c, const struct norm *m, uint32_t nan, const float *y)
{
    double sum = 0;
    for (uint32_t i = 0; i < m->n; i++) sum += (double)m->x[i] * (double)m->x[i];
    double inv = 1 / sqrt((m->mean ? sum / m->n : sum) + (double)m->eps);
    double relative = (m->n / 16.0 + 24) * EPS;
    for (uint32_t i = 0; i < m->n; i++) {
        double want = (double)m->x[i] * inv * (m->w ? (double)m->w[i] : (double)m->scale);
        double bound = relative * fabs(want) + 0x1p-120;
        if (m->z) {
            double z = (double)m->z[i];
            bound = bound * (fabs(z * sigmoid(z)) + 1) + fabs(want) * silu_bound(z);
            want *= z * sigmoid(z);
        }
        if (nan < m->n) {
            expect_nan(c, "y", i, y[i]);
        } else {
            expect_near(c, "y", i, y[i], want, bound);
        }
    }
}

static struct norm random_norm(struct check *c, uint32_t *nan)
{
    struct norm m = {.n = length_of(c), .eps = 1e-6f, .scale = 0.125f};
    float *x = in_f32(c, "x", m.n), *w = in_f32(c, "w", m.n);
    fill(c, x, m.n, pattern_of(c));
    fill_uniform(c, w, m.n, -2, 2);
    *nan = plant_nan(c, x, m.n);
    m.x = x;
    m.w = w;
    return m;
}

void check_rms_norm(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    for (c->round = 0; c->round < LENGTH_ROUNDS; c->round++) {
        operands_reset(c);
        uint32_t nan;
        struct norm m = random_norm(c, &nan);
        float *y = out_f32(c, "y", m.n);
        m.mean = true;
        operands_begin(c);
        k->rms_norm(m.x, m.w, m.n, m.eps, y);
        operands_end(c);
        check_norm(c, &m, nan, y);
    }
}

void check_l2_norm(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    for (c->round = 0; c->round < LENGTH_ROUNDS; c->round++) {
        operands_reset(c);
        uint32_t nan;
        struct norm m = random_norm(c, &nan);
        float *y = out_f32(c, "y", m.n), *same = out_f32(c, "x as y", m.n);
        memcpy(same, m.x, m.n * sizeof *same);
        m.w = NULL;
        operands_begin(c);
        k->l2_norm(m.x, m.n, m.eps, m.scale, y);
        k->l2_norm(same, m.n, m.eps, m.scale, same);
        operands_end(c);
        check_norm(c, &m, nan, y);
        for (uint32_t i = 0; i < m.n; i++) expect_bits(c, "x as y", i, same[i], y[i]);
    }
}

void check_gated_rms_norm(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    for (c->round = 0; c->round < LENGTH_ROUNDS; c->round++) {
        operands_reset(c);
        uint32_t nan;
        struct norm m = random_norm(c, &nan);
        float *z = in_f32(c, "z", m.n), *y = out_f32(c, "y", m.n);
        fill_uniform(c, z, m.n, -12, 12);
        m.z = z;
        m.mean = true;
        operands_begin(c);
        k->gated_rms_norm(m.x, z, m.w, m.n, m.eps, y);
        operands_end(c);
        check_norm(c, &m, nan, y);
    }
}

/* One head turned: value i with value i + half, or with its neighbour. */
static float rotated(const float *x, const float *cos_sin, uint32_t half, bool pairs, uint32_t i)
{
    if (i >= 2 * half) return x[i];
    uint32_t angle = pairs ? i / 2 : i % half;
    bool second = pairs ? i % 2 : i >= half;
    uint32_t apart = pairs ? 1 : half;
    float c = cos_sin[angle], s = cos_sin[half + angle];
    return second ? x[i] * c + x[i - apart] * s : x[i] * c - x[i + apart] * s;
}

static void check_rotation(struct check *c, const struct kernels *k, bool pairs)
{
    for (c->round = 0; c->round < LENGTH_ROUNDS; c->round++) {
        operands_reset(c);
        uint32_t head_dim = 1 + rng_below(&c->rng, 256);
        uint32_t half = rng_below(&c->rng, head_dim / 2 + 1);
        float *x = in_f32(c, "x", head_dim), *cos_sin = in_f32(c, "cos_sin", half * 2ul);
        float *y = out_f32(c, "y", head_dim);
        fill(c, x, head_dim, pattern_of(c));
        plant_nan(c, x, head_dim);
        fill_uniform(c, cos_sin, half * 2ul, -1, 1);
        operands_begin(c);
        (pairs ? k->rope_pairs : k->rope)(x, cos_sin, head_dim, half * 2, y);
        operands_end(c);
        for (uint32_t i = 0; i < head_dim; i++)
            expect_bits(c, "y", i, y[i], rotated(x, cos_sin, half, pairs, i));
    }
}

void check_rope(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    check_rotation(c, k, false);
}

void check_rope_pairs(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    check_rotation(c, k, true);
}

void check_f32_to_f16_row(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    for (c->round = 0; c->round < 4 * LENGTH_ROUNDS; c->round++) {
        operands_reset(c);
        uint32_t n = length_of(c);
        float *x = in_f32(c, "x", n);
        uint16_t *y = operand_out("y", c, n * 2ul, 2);
        for (uint32_t i = 0; i < n; i++) x[i] = f32_from_bits((uint32_t)rng_u64(&c->rng));
        if (c->round % 2)
            for (uint32_t i = 0; i < n; i++) {
                uint32_t h = rng_below(&c->rng, 0x10000);
                /* Halfway between two neighbours. */
                x[i] = (f16_to_f32((uint16_t)h) + f16_to_f32((uint16_t)(h ^ 1))) / 2;
            }
        operands_begin(c);
        k->f32_to_f16_row(x, n, y);
        operands_end(c);
        for (uint32_t i = 0; i < n; i++) {
            bool both_nan = isnan(x[i]) && isnan(f16_to_f32(y[i]));
            if (!both_nan && y[i] != f32_to_f16(x[i]))
                fail(c, "y[%u] is %04x for %a", i, y[i], (double)x[i]);
        }
    }
}
