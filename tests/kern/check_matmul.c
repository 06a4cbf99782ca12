/* matmul_f32, matmul_i8, matmul_bf16, dequant_row, quantize_act8. */
#include <float.h>

#include "formats.h"

enum { TOKENS = 17, MAX_ROWS = 40, BYTE_ROUNDS = 16 };
static const uint8_t token_counts[] = {1, 2, 3, 5, 8, 17};

struct shape {
    uint32_t rows, cols, group;
};

static struct shape shape_of(struct check *c, enum wtype type)
{
    struct shape s = {.rows = 1 + rng_below(&c->rng, MAX_ROWS)};
    random_columns(c, type, &s.cols, &s.group);
    return s;
}

/* What a kernel makes of its activations. */
enum inputs { IN_F32, IN_INT8, IN_BF16 };

/* Runs one call on rows [row0, row1) and tokens [t0, t0 + n). */
struct product {
    struct check *c;
    const struct kernels *k;
    struct weights m;
    enum inputs inputs;
    const float *x; /* but for int8 */
    size_t ldx;
    struct act8 act; /* int8 */
};

static void run_product(const struct product *p, const struct kernels *k, uint32_t row0,
                        uint32_t row1, uint32_t t0, uint32_t n, float *y, size_t ldy, void *scratch)
{
    const struct wmat *w = &p->m.w;
    const float *x = p->inputs == IN_INT8 ? NULL : p->x + t0 * p->ldx;
    operands_begin(p->c);
    switch (p->inputs) {
    case IN_F32: k->matmul_f32[w->type](w, row0, row1, x, p->ldx, n, y, ldy, scratch); break;
    case IN_INT8: k->matmul_i8[w->type](w, row0, row1, &p->act, t0, n, y, ldy, scratch); break;
    case IN_BF16: k->matmul_bf16[w->type](w, row0, row1, x, p->ldx, n, y, ldy, scratch); break;
    }
    operands_end(p->c);
}

/* Every n, some row ranges: the bits of `all` [TOKENS][rows], and nothing written beside them. */
static void check_splits(const struct product *p, const float *all)
{
    const struct wmat *w = &p->m.w;
    for (size_t i = 0; i < COUNT_OF(token_counts); i++) {
        uint32_t n = token_counts[i], t0 = rng_below(&p->c->rng, TOKENS - n + 1);
        uint32_t row0 = rng_below(&p->c->rng, w->rows);
        uint32_t row1 = row0 + 1 + rng_below(&p->c->rng, w->rows - row0);
        size_t ldy = w->rows + rng_below(&p->c->rng, 3);
        float *y = out_f32(p->c, "y", (n - 1) * ldy + w->rows);
        void *scratch = operand_out("the scratch", p->c, matmul_scratch_bytes(w->cols), 1);
        run_product(p, p->k, row0, row1, t0, n, y, ldy, scratch);
        for (uint32_t t = 0; t < n; t++)
            for (uint32_t r = 0; r < w->rows; r++) {
                float got = y[t * ldy + r];
                bool inside = r >= row0 && r < row1;
                if (inside && f32_bits(got) == POISON)
                    fail(p->c, "y[%u][%u] was not written, n %u", t, r, n);
                if (inside && isnan(got) && isnan(all[(t0 + t) * w->rows + r])) continue;
                uint32_t want = inside ? f32_bits(all[(t0 + t) * w->rows + r]) : POISON;
                if (f32_bits(got) != want)
                    fail(p->c, "row %u token %u differs with n %u, rows %u to %u", r, t0 + t, n,
                         row0, row1);
            }
    }
}

static void check_f32_values(const struct product *p, const float *y)
{
    const struct wmat *w = &p->m.w;
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t r = 0; r < w->rows; r++) {
            double sum = 0, magnitude = 0;
            for (uint32_t i = 0; i < w->cols; i++) {
                double term =
                    (double)p->m.dense[(size_t)r * w->cols + i] * (double)p->x[t * p->ldx + i];
                sum += term;
                magnitude += fabs(term);
            }
            expect_near(p->c, "y", t * w->rows + r, y[t * w->rows + r], sum,
                        dot_bound(w->cols, magnitude));
        }
}

/* Rows of activations, ldx apart, as p->x. */
static float *random_rows(struct product *p, uint32_t tokens)
{
    struct check *c = p->c;
    const uint32_t cols = p->m.w.cols;
    p->ldx = cols + rng_below(&c->rng, 4);
    float *x = in_f32(c, "x", (tokens - 1) * p->ldx + cols);
    fill(c, x, (tokens - 1) * p->ldx + cols, pattern_of(c));
    p->x = x;
    return x;
}

void check_matmul_f32(struct check *c, const struct kernels *k, enum wtype type)
{
    for (c->round = 0; c->round < 48; c->round++) {
        operands_reset(c);
        struct shape s = shape_of(c, type);
        struct product p = {.c = c, .k = k};
        p.m = random_weights(c, type, s.rows, s.cols, s.group);
        float *x = random_rows(&p, TOKENS);
        uint32_t nan_token = rng_below(&c->rng, TOKENS);
        bool with_nan = c->round % 6 == 5;
        if (with_nan) x[nan_token * p.ldx + rng_below(&c->rng, s.cols)] = NAN;
        float *y = out_f32(c, "y", (size_t)TOKENS * s.rows);
        void *scratch = operand_out("the scratch", c, matmul_scratch_bytes(s.cols), 1);
        run_product(&p, k, 0, s.rows, 0, TOKENS, y, s.rows, scratch);
        check_f32_values(&p, y);
        check_splits(&p, y);
    }
}

/* More tokens than any kernel takes at once: the bits that each has alone. */
static void check_many_tokens(const struct product *p, uint32_t tokens)
{
    const struct wmat *w = &p->m.w;
    float *y = out_f32(p->c, "y", (size_t)tokens * w->rows);
    float *alone = out_f32(p->c, "y of one token", w->rows);
    void *scratch = operand_out("the scratch", p->c, matmul_scratch_bytes(w->cols), 1);
    run_product(p, p->k, 0, w->rows, 0, tokens, y, w->rows, scratch);
    for (uint32_t t = 0; t < tokens; t++) {
        run_product(p, p->k, 0, w->rows, t, 1, alone, w->rows, scratch);
        for (uint32_t r = 0; r < w->rows; r++)
            if (!isnan(alone[r]) || !isnan(y[t * w->rows + r]))
                expect_bits(p->c, "y", t * w->rows + r, y[t * w->rows + r], alone[r]);
    }
}

/* Finite x to eight significant bits, half to even; fewer below the smallest normal number. */
static double round_to_bf16(double x)
{
    int exponent;
    frexp(x, &exponent);
    if (exponent < FLT_MIN_EXP) exponent = FLT_MIN_EXP;
    return ldexp(nearbyint(ldexp(x, 8 - exponent)), exponent - 8);
}

/* The value and the bound of a sum of products of bf16, of which denormals may count as zero. */
static void sum_bf16(const float *w, const float *x, uint32_t n, double *sum, double *bound)
{
    double magnitude = 0, flushed = 0;
    *sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        double a = (double)w[i], b = (double)x[i];
        if (isfinite(b)) b = round_to_bf16(b);
        *sum += a * b;
        magnitude += fabs(a * b);
        if (fabs(a) < (double)FLT_MIN || fabs(b) < (double)FLT_MIN) flushed += fabs(a * b);
    }
    *bound = dot_bound(n, magnitude) + flushed + n * (double)FLT_MIN;
}

static void check_bf16_values(const struct product *p, const float *y)
{
    const struct wmat *w = &p->m.w;
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t r = 0; r < w->rows; r++) {
            double sum, bound;
            float got = y[t * w->rows + r];
            sum_bf16(p->m.dense + (size_t)r * w->cols, p->x + t * p->ldx, w->cols, &sum, &bound);
            /* Infinity times a denormal may be NaN. */
            if (!isinf(sum))
                expect_near(p->c, "y", t * w->rows + r, got, sum, bound);
            else if (isfinite(got) || f32_bits(got) == POISON)
                fail(p->c, "y[%u] is %g where infinity went in", t * w->rows + r, (double)got);
        }
}

void check_matmul_bf16(struct check *c, const struct kernels *k, enum wtype type)
{
    enum { MANY = 71 };
    static const uint32_t not_finite[] = {0x7fc00000, 0xff800000, 0x7fffffff, 0x7f800001};
    for (c->round = 0; c->round < 64; c->round++) {
        operands_reset(c);
        struct shape s = shape_of(c, type);
        struct product p = {.c = c, .k = k, .inputs = IN_BF16};
        p.m = random_weights(c, type, s.rows, s.cols, s.group);
        bool many = c->round % 8 == 7;
        float *x = random_rows(&p, many ? MANY : TOKENS);
        /* Halfway between two numbers of bf16. */
        for (uint32_t i = 0; i < s.cols && c->round % 4 == 1; i++)
            x[i] = f32_from_bits((f32_bits(x[i]) & 0xffff0000u) | 0x8000u);
        float *at = x + rng_below(&c->rng, TOKENS) * p.ldx + rng_below(&c->rng, s.cols);
        const uint32_t *bits = &not_finite[c->round / 6 % COUNT_OF(not_finite)];
        if (c->round % 6 == 5) memcpy(at, bits, sizeof *at);
        float *y = out_f32(c, "y", (size_t)TOKENS * s.rows);
        void *scratch = operand_out("the scratch", c, matmul_scratch_bytes(s.cols), 1);
        run_product(&p, k, 0, s.rows, 0, TOKENS, y, s.rows, scratch);
        check_bf16_values(&p, y);
        check_splits(&p, y);
        if (many) check_many_tokens(&p, MANY);
    }
}

/* Activations of some rows as quantize_act8 of the reference gives them. */
static struct act8 random_act8(struct check *c, uint32_t cols, uint32_t tokens)
{
    uint32_t groups = cols / ACT8_GROUP;
    struct act8 a = {.cols = cols,
                     .q = operand_in("the activations", c, (size_t)tokens * cols, 1),
                     .scale = in_f32(c, "the act scales", (size_t)tokens * groups),
                     .sum = in_f32(c, "the act sums", (size_t)tokens * groups)};
    float *x = temporary(cols * sizeof *x);
    for (uint32_t t = 0; t < tokens; t++) {
        enum pattern pattern = (enum pattern)((c->round + t) % PATTERN_COUNT);
        fill(c, x, cols, pattern);
        if (rng_below(&c->rng, 16) == 0) x[rng_below(&c->rng, cols)] = t % 2 ? NAN : INFINITY;
        c->ref->quantize_act8(x, cols, a.q + (size_t)t * cols, a.scale + (size_t)t * groups,
                              a.sum + (size_t)t * groups);
    }
    return a;
}

/*
 * The sum of the groups in double, and its bound: four operations a group, then one sum. Within a
 * group sums are exact.
 */
static void check_i8_value(const struct product *p, uint32_t r, uint32_t t, float got)
{
    const struct wmat *w = &p->m.w;
    uint32_t act_groups = w->cols / ACT8_GROUP;
    double sum = 0, magnitude = 0;
    for (uint32_t a = 0; a < act_groups; a++) {
        const struct format_value *v = p->m.raw + (size_t)r * w->cols + a * ACT8_GROUP;
        const int8_t *q = p->act.q + (size_t)t * w->cols + a * ACT8_GROUP;
        double product = 0, bias = 0;
        for (uint32_t i = 0; i < ACT8_GROUP; i++) {
            product += v[i].mul * q[i];
            bias -= v[i].sub * q[i];
        }
        product *= (double)p->act.scale[t * act_groups + a];
        bias *= (double)p->act.scale[t * act_groups + a];
        sum += product + bias;
        magnitude += fabs(product) + fabs(bias);
    }
    double bound = (act_groups + 5) * 1.01 * EPS * magnitude + act_groups * 0x1p-120;
    expect_near(p->c, "y", t * w->rows + r, got, sum, bound);
}

static void check_i8_values(const struct product *p, const float *y)
{
    const struct wmat *w = &p->m.w;
    float *want = out_f32(p->c, "y of the reference", (size_t)TOKENS * w->rows);
    void *scratch = operand_out("the scratch", p->c, matmul_scratch_bytes(w->cols), 1);
    run_product(p, p->c->ref, 0, w->rows, 0, TOKENS, want, w->rows, scratch);
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t r = 0; r < w->rows; r++) {
            check_i8_value(p, r, t, y[t * w->rows + r]);
            expect_bits(p->c, "y", t * w->rows + r, y[t * w->rows + r], want[t * w->rows + r]);
        }
}

/* So many rows that a kernel may go through them as several streams: the bits of the reference. */
static void check_long_matrix(struct check *c, const struct kernels *k, enum wtype type)
{
    enum { LONG_BYTES = 128 << 10, GROUP = 64 };
    static const uint16_t some_cols[] = {512, 576, 1024, 2048};
    if (wtype_kind(type) != WKIND_AFFINE) return;
    for (c->round = 0; c->round < 2 * COUNT_OF(some_cols); c->round++) {
        operands_reset(c);
        uint32_t cols = some_cols[c->round / 2];
        uint32_t least = (uint32_t)(LONG_BYTES / wtype_row_bytes(type, cols)) + 1;
        uint32_t rows = least + rng_below(&c->rng, 80), row0 = rng_below(&c->rng, rows - least + 1);
        struct product p = {.c = c, .k = k, .inputs = IN_INT8};
        p.m = random_weights(c, type, rows, cols, GROUP);
        p.act = random_act8(c, cols, 1);
        float *y = out_f32(c, "y", rows), *want = out_f32(c, "y of the reference", rows);
        void *scratch = operand_out("the scratch", c, matmul_scratch_bytes(cols), 1);
        run_product(&p, k, row0, rows, 0, 1, y, rows, scratch);
        run_product(&p, c->ref, row0, rows, 0, 1, want, rows, scratch);
        for (uint32_t r = 0; r < rows; r++) expect_bits(c, "y", r, y[r], want[r]);
    }
}

void check_matmul_i8(struct check *c, const struct kernels *k, enum wtype type)
{
    enum { MANY = 67 };
    for (c->round = 0; c->round < 48; c->round++) {
        operands_reset(c);
        struct shape s = shape_of(c, type);
        struct product p = {.c = c, .k = k, .inputs = IN_INT8};
        p.m = random_weights(c, type, s.rows, s.cols, s.group);
        p.act = random_act8(c, s.cols, TOKENS);
        float *y = out_f32(c, "y", (size_t)TOKENS * s.rows);
        void *scratch = operand_out("the scratch", c, matmul_scratch_bytes(s.cols), 1);
        run_product(&p, k, 0, s.rows, 0, TOKENS, y, s.rows, scratch);
        check_i8_values(&p, y);
        check_splits(&p, y);
        if (c->round % 16 != 7) continue;
        p.act = random_act8(c, s.cols, MANY);
        check_many_tokens(&p, MANY);
    }
    check_long_matrix(c, k, type);
}

/*
 * Every byte of a block takes every value, beside random other bytes: row r of 256 has permutation
 * b of all values at byte b. So do the scales of split and tiled types.
 */
static void check_all_bytes(struct check *c, const struct kernels *k, enum wtype type)
{
    struct wmat w = {
        .type = type, .rows = 256, .cols = wtype_block_values(type), .f32_scales = true};
    struct wmat_bytes bytes = wmat_array_bytes(&w);
    operands_reset(c);
    uint8_t *data = operand_in("the weights", c, bytes.data, 1);
    uint8_t *scales = bytes.scales ? operand_in("the scales", c, bytes.scales, 1) : NULL;
    float *y = out_f32(c, "y", w.cols);
    size_t step = wtype_row_bytes(type, w.cols);
    w.data = data;
    w.scales = scales;
    for (size_t b = 0; b < step; b++) {
        uint32_t odd = rng_below(&c->rng, 128) * 2 + 1, add = rng_below(&c->rng, 256);
        for (uint32_t r = 0; r < 256; r++) data[r * step + b] = (uint8_t)(r * odd + add);
    }
    for (uint32_t r = 0; r < 256 && wtype_kind(type) == WKIND_SPLIT; r++) scales[r] = (uint8_t)r;
    if (wtype_kind(type) == WKIND_TILED) memset(scales, 0x3d, bytes.scales);
    for (uint32_t r = 0; r < 256; r++) {
        operands_begin(c);
        k->dequant_row[type](&w, r, y);
        operands_end(c);
        for (uint32_t i = 0; i < w.cols; i++)
            expect_bits(c, "y", i, y[i], format_f32(type, format_value(&w, r, i)));
    }
}

/* Types whose values do not depend on random scales beside them. */
static bool has_own_scales(enum wtype type)
{
    enum wkind kind = wtype_kind(type);
    return kind == WKIND_BLOCK || kind == WKIND_SPLIT || kind == WKIND_TILED;
}

void check_dequant_row(struct check *c, const struct kernels *k, enum wtype type)
{
    for (c->round = 0; c->round < LENGTH_ROUNDS; c->round++) {
        operands_reset(c);
        struct shape s = shape_of(c, type);
        struct weights m = random_weights(c, type, s.rows, s.cols, s.group);
        for (uint32_t r = 0; r < s.rows; r += 1 + s.rows / 3) {
            float *y = out_f32(c, "y", s.cols);
            operands_begin(c);
            k->dequant_row[type](&m.w, r, y);
            operands_end(c);
            for (uint32_t i = 0; i < s.cols; i++)
                expect_bits(c, "y", i, y[i], m.dense[(size_t)r * s.cols + i]);
        }
    }
    for (; has_own_scales(type) && c->round < LENGTH_ROUNDS + BYTE_ROUNDS; c->round++)
        check_all_bytes(c, k, type);
}

static void check_group(struct check *c, const float *x, const int8_t *q, float scale, float sum)
{
    float max = 0;
    bool finite = true;
    int32_t total = 0;
    for (uint32_t i = 0; i < ACT8_GROUP; i++) {
        finite = finite && isfinite(x[i]);
        max = fmaxf(max, fabsf(x[i]));
        total += q[i];
    }
    if (!finite) {
        expect_nan(c, "scale", 0, scale);
        expect_nan(c, "sum", 0, sum);
        return;
    }
    expect_bits(c, "scale", 0, scale, max / 127);
    expect_bits(c, "sum", 0, sum, scale * (float)total);
    for (uint32_t i = 0; i < ACT8_GROUP; i++) {
        float want = scale > 0 ? fminf(fmaxf(rintf(x[i] / scale), -127), 127) : 0;
        if (q[i] != (int)want) fail(c, "q[%u] is %d, not %g", i, q[i], (double)want);
    }
}

void check_quantize_act8(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    for (c->round = 0; c->round < 200; c->round++) {
        operands_reset(c);
        uint32_t groups = 1 + rng_below(&c->rng, 9), n = groups * ACT8_GROUP;
        float *x = in_f32(c, "x", n);
        for (uint32_t a = 0; a < groups; a++)
            fill(c, x + a * ACT8_GROUP, ACT8_GROUP,
                 (enum pattern)rng_below(&c->rng, PATTERN_COUNT));
        /* Halves: 127 makes scale 1, and every k + 0.5 a tie. */
        if (c->round % 4 == 1) {
            for (uint32_t i = 0; i < n; i++) x[i] = (float)rng_below(&c->rng, 252) / 2 - 63;
            x[rng_below(&c->rng, ACT8_GROUP)] = -127;
        }
        if (c->round % 8 == 2) x[rng_below(&c->rng, n)] = c->round % 16 == 2 ? NAN : -INFINITY;
        int8_t *q = operand_out("q", c, n, 1);
        float *scale = out_f32(c, "scale", groups), *sum = out_f32(c, "sum", groups);
        operands_begin(c);
        k->quantize_act8(x, n, q, scale, sum);
        operands_end(c);
        for (uint32_t a = 0; a < groups; a++)
            check_group(c, x + a * ACT8_GROUP, q + a * ACT8_GROUP, scale[a], sum[a]);
    }
}
