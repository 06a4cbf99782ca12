/* Matrix kernels with one bug each. Where the rest is not the point, the reference does it. */
#include <signal.h>

#include "kerncheck.h"

#define F32_PARAMS                                                                                 \
    const struct wmat *w, uint32_t row0, uint32_t row1, const float *x, size_t ldx, uint32_t n,    \
        float *y, size_t ldy, void *scratch
#define F32_ARGS w, row0, row1, x, ldx, n, y, ldy, scratch
#define I8_PARAMS                                                                                  \
    const struct wmat *w, uint32_t row0, uint32_t row1, const struct act8 *x, uint32_t t0,         \
        uint32_t n, float *y, size_t ldy, void *scratch
#define I8_ARGS w, row0, row1, x, t0, n, y, ldy, scratch

static void f32_right(F32_PARAMS)
{
    struct kernels k;
    kernels_init(&k, 0);
    k.matmul_f32[w->type](F32_ARGS);
}

static void i8_right(I8_PARAMS)
{
    struct kernels k;
    kernels_init(&k, 0);
    k.matmul_i8[w->type](I8_ARGS);
}

/* Drops what is left after the last eight columns. */
static void f32_no_tail(F32_PARAMS)
{
    (void)scratch;
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t r = row0; r < row1; r++) {
            float sum = 0, weight;
            for (uint32_t i = 0; i < w->cols / 8 * 8; i++) {
                memcpy(&weight, w->data + ((size_t)r * w->cols + i) * 4, 4);
                sum += weight * x[t * ldx + i];
            }
            y[t * ldy + r] = sum;
        }
}

/* Right values from loads of four, of which the last may lie past the row. */
static void f32_over_read(F32_PARAMS)
{
    volatile uint8_t sink;
    for (uint32_t r = row0; r < row1; r++) {
        const volatile uint8_t *row = w->data + (size_t)r * w->cols * 4;
        for (uint32_t i = 0; i < w->cols; i += 4) sink = row[i * 4 + 15];
    }
    (void)sink;
    f32_right(F32_ARGS);
}

static void f32_over_write(F32_PARAMS)
{
    f32_right(F32_ARGS);
    y[(n - 1) * ldy + w->rows] = 0;
}

/* Writes the rows before the range as well. */
static void f32_ignores_row0(F32_PARAMS)
{
    (void)row0;
    f32_right(w, 0, row1, x, ldx, n, y, ldy, scratch);
}

static void f32_scratch_overrun(F32_PARAMS)
{
    f32_right(F32_ARGS);
    ((volatile uint8_t *)scratch)[matmul_scratch_bytes(w->cols)] = 1;
}

static void f32_writes_input(F32_PARAMS)
{
    union {
        const float *in;
        float *out;
    } alias = {x};
    ((volatile float *)alias.out)[0] = x[0];
    f32_right(F32_ARGS);
}

/* Faults on an address that is not a multiple of 4, as an aligned vector load does. */
static void f32_wants_alignment(F32_PARAMS)
{
    if ((uintptr_t)w->data % 4 != 0) raise(SIGBUS);
    f32_right(F32_ARGS);
}

/* Sums in another order from four tokens on. */
static void f32_depends_on_n(F32_PARAMS)
{
    f32_right(F32_ARGS);
    if (n < 4) return;
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t r = row0; r < row1; r++) {
            float sum = 0, weight;
            for (uint32_t i = w->cols; i-- > 0;) {
                memcpy(&weight, w->data + ((size_t)r * w->cols + i) * 4, 4);
                sum += weight * x[t * ldx + i];
            }
            y[t * ldy + r] = sum;
        }
}

static void f32_loses_nan(F32_PARAMS)
{
    f32_right(F32_ARGS);
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t r = row0; r < row1; r++)
            if (isnan(y[t * ldy + r])) y[t * ldy + r] = 0;
}

static void f32_skips_last_token(F32_PARAMS)
{
    f32_right(w, row0, row1, x, ldx, n - 1, y, ldy, scratch);
}

/* What a variant makes of an activation: the bits of a number of bf16. */
typedef uint16_t rounding(uint32_t bits);

static uint16_t to_nearest_even(uint32_t bits)
{
    return f32_to_bf16(f32_from_bits(bits));
}

/* The products of some columns of bf16, where they begin and how far apart they are; x in a way. */
static void bf16_variant(F32_PARAMS, rounding *round, uint32_t first, uint32_t step)
{
    (void)scratch;
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t r = row0; r < row1; r++) {
            float sum = 0;
            for (uint32_t i = first; i < w->cols; i += step) {
                uint16_t weight;
                memcpy(&weight, w->data + ((size_t)r * w->cols + i) * 2, sizeof weight);
                sum += bf16_to_f32(weight) * bf16_to_f32(round(f32_bits(x[t * ldx + i])));
            }
            y[t * ldy + r] = sum;
        }
}

static uint16_t truncated(uint32_t bits)
{
    return (uint16_t)(bits >> 16);
}

static void bf16_truncates(F32_PARAMS)
{
    bf16_variant(F32_ARGS, truncated, 0, 1);
}

static uint16_t ties_away(uint32_t bits)
{
    if ((bits & 0x7fffffff) >= 0x7f800000) return to_nearest_even(bits);
    return (uint16_t)((bits + 0x8000) >> 16);
}

static void bf16_wrong_ties(F32_PARAMS)
{
    bf16_variant(F32_ARGS, ties_away, 0, 1);
}

/* Rounds NaN as if it were a number: some become infinity, some zero. */
static uint16_t carries_over(uint32_t bits)
{
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void bf16_loses_nan(F32_PARAMS)
{
    bf16_variant(F32_ARGS, carries_over, 0, 1);
}

static void bf16_half_of_pairs(F32_PARAMS)
{
    bf16_variant(F32_ARGS, to_nearest_even, 1, 2);
}

static void bf16_right(F32_PARAMS)
{
    struct kernels k;
    kernels_init(&k, 0);
    k.matmul_bf16[w->type](F32_ARGS);
}

/* Tokens behind the first 64 get the activations of those. */
static void bf16_one_block(F32_PARAMS)
{
    bf16_right(F32_ARGS);
    if (n > 64) bf16_right(w, row0, row1, x, ldx, n - 64, y + 64 * ldy, ldy, scratch);
}

/* A row of the scratch for each token, however many there are. */
static void bf16_scratch_overrun(F32_PARAMS)
{
    bf16_right(F32_ARGS);
    volatile uint8_t *rows = scratch;
    rows[(size_t)n * w->cols * 2 + matmul_scratch_bytes(w->cols) - 2 * (size_t)w->cols] = 1;
}

static float affine_of(const struct wmat *w, const uint8_t *array, size_t i)
{
    uint16_t half = (uint16_t)(array[2 * i] | array[2 * i + 1] << 8);
    return w->f16_scales ? f16_to_f32(half) : bf16_to_f32(half);
}

/* The integer product of an activation group as a variant computes it. */
typedef int32_t group_product(const uint8_t *w, const int8_t *x);
/* The index of the weight group of activation group a of row r. */
typedef size_t group_index(const struct wmat *w, uint32_t r, uint32_t a);

static int32_t product_right(const uint8_t *w, const int8_t *x)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < ACT8_GROUP; i++) sum += w[i] * x[i];
    return sum;
}

static size_t index_right(const struct wmat *w, uint32_t r, uint32_t a)
{
    return (size_t)r * (w->cols / w->group) + a * ACT8_GROUP / w->group;
}

/* Adds up the groups of a weight group, then scales, as the contract says. */
static float i8_row(const struct wmat *w, const struct act8 *x, uint32_t r, uint32_t t,
                    group_product *product, group_index *index, float bias_factor)
{
    uint32_t act_groups = w->cols / ACT8_GROUP, per_group = w->group / ACT8_GROUP;
    uint32_t bits = wtype_bits(w->type);
    float acc = 0, part = 0, total = 0;
    for (uint32_t a = 0; a < act_groups; a++) {
        uint8_t q[ACT8_GROUP];
        const uint8_t *row = w->data + (size_t)r * w->cols * bits / 8;
        for (uint32_t i = 0; i < ACT8_GROUP; i++) {
            uint32_t at = a * ACT8_GROUP + i;
            q[i] = (uint8_t)(bits == 8 ? row[at] : row[at / 2] >> at % 2 * 4 & 15);
        }
        size_t g = index(w, r, a), at = (size_t)t * act_groups + a;
        const int8_t *xq = x->q + (size_t)t * w->cols + a * ACT8_GROUP;
        float idot = (float)product(q, xq);
        bool first = a % per_group == 0;
        part = first ? idot * x->scale[at] : fmaf(idot, x->scale[at], part);
        total = first ? x->sum[at] : total + x->sum[at];
        if ((a + 1) % per_group != 0) continue;
        acc = fmaf(part, affine_of(w, w->scales, g), acc);
        acc = fmaf(bias_factor * affine_of(w, w->biases, g), total, acc);
    }
    return acc;
}

static void i8_variant(I8_PARAMS, group_product *product, group_index *index, float bias_factor)
{
    (void)scratch;
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t r = row0; r < row1; r++)
            y[t * ldy + r] = i8_row(w, x, r, t0 + t, product, index, bias_factor);
}

/* What pmaddubsw does to pairs of 8-bit weights. */
static int32_t product_saturating(const uint8_t *w, const int8_t *x)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < ACT8_GROUP; i += 2) {
        int32_t pair = w[i] * x[i] + w[i + 1] * x[i + 1];
        sum += pair > INT16_MAX ? INT16_MAX : pair < INT16_MIN ? INT16_MIN : pair;
    }
    return sum;
}

static void i8_saturates(I8_PARAMS)
{
    i8_variant(I8_ARGS, product_saturating, index_right, 1);
}

/* Takes the weights for signed. */
static int32_t product_signed(const uint8_t *w, const int8_t *x)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < ACT8_GROUP; i++) sum += (int8_t)w[i] * x[i];
    return sum;
}

static void i8_signed_weights(I8_PARAMS)
{
    i8_variant(I8_ARGS, product_signed, index_right, 1);
}

static int32_t product_without_last(const uint8_t *w, const int8_t *x)
{
    return product_right(w, x) - w[ACT8_GROUP - 1] * x[ACT8_GROUP - 1];
}

static void i8_short_group(I8_PARAMS)
{
    i8_variant(I8_ARGS, product_without_last, index_right, 1);
}

/* One scale per activation group, which is right for groups of 32 only: of the last of each. */
static size_t index_of_32(const struct wmat *w, uint32_t r, uint32_t a)
{
    uint32_t groups = w->cols / w->group;
    return (size_t)r * groups + min_u32(a, groups - 1);
}

static void i8_wrong_scale(I8_PARAMS)
{
    i8_variant(I8_ARGS, product_right, index_of_32, 1);
}

static void i8_wrong_bias(I8_PARAMS)
{
    i8_variant(I8_ARGS, product_right, index_right, -1);
}

static void i8_ignores_t0(I8_PARAMS)
{
    (void)t0;
    i8_right(w, row0, row1, x, 0, n, y, ldy, scratch);
}

/* Reads the two bytes after the last scale. */
static void i8_over_read_scale(I8_PARAMS)
{
    volatile uint8_t sink = w->scales[(size_t)w->rows * (w->cols / w->group) * 2 + 1];
    (void)sink;
    i8_right(I8_ARGS);
}

/* NaN only where an activation scale is NaN: a zero there hides it. */
static void i8_loses_nan(I8_PARAMS)
{
    i8_right(I8_ARGS);
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t r = row0; r < row1; r++)
            if (isnan(y[t * ldy + r])) y[t * ldy + r] = 0;
}

/* Two roundings where the contract fuses. */
static void i8_rounds_twice(I8_PARAMS)
{
    (void)scratch;
    uint32_t act_groups = w->cols / ACT8_GROUP;
    for (uint32_t t = t0; t < t0 + n; t++)
        for (uint32_t r = row0; r < row1; r++) {
            float sum = 0;
            for (uint32_t a = 0; a < act_groups; a++) {
                size_t g = index_right(w, r, a), at = (size_t)t * act_groups + a;
                int32_t idot = product_right(w->data + (size_t)r * w->cols + a * ACT8_GROUP,
                                             x->q + (size_t)t * w->cols + a * ACT8_GROUP);
                float scale = affine_of(w, w->scales, g) * x->scale[at];
                sum += (float)idot * scale + affine_of(w, w->biases, g) * x->sum[at];
            }
            y[(t - t0) * ldy + r] = sum;
        }
}

/* Takes scales that are f16 for bf16. */
static void i8_forgets_f16(I8_PARAMS)
{
    struct wmat other = *w;
    other.f16_scales = false;
    i8_right(&other, row0, row1, x, t0, n, y, ldy, scratch);
}

static void dequant_forgets_f16(const struct wmat *w, uint32_t row, float *y)
{
    struct kernels right;
    struct wmat other = *w;
    other.f16_scales = false;
    kernels_init(&right, 0);
    right.dequant_row[w->type](&other, row, y);
}

static void act8_truncates(const float *x, uint32_t k, int8_t *q, float *scale, float *sum)
{
    struct kernels right;
    kernels_init(&right, 0);
    right.quantize_act8(x, k, q, scale, sum);
    for (uint32_t a = 0; a < k / ACT8_GROUP; a++) {
        int32_t total = 0;
        for (uint32_t i = a * ACT8_GROUP; i < (a + 1) * ACT8_GROUP; i++) {
            if (scale[a] > 0) q[i] = (int8_t)(x[i] / scale[a]);
            total += q[i];
        }
        sum[a] = scale[a] * (float)total;
    }
}

/* Rounds halves away from zero. */
static void act8_wrong_ties(const float *x, uint32_t k, int8_t *q, float *scale, float *sum)
{
    struct kernels right;
    kernels_init(&right, 0);
    right.quantize_act8(x, k, q, scale, sum);
    for (uint32_t a = 0; a < k / ACT8_GROUP; a++) {
        int32_t total = 0;
        for (uint32_t i = a * ACT8_GROUP; i < (a + 1) * ACT8_GROUP; i++) {
            if (scale[a] > 0) q[i] = (int8_t)fminf(fmaxf(roundf(x[i] / scale[a]), -127), 127);
            total += q[i];
        }
        sum[a] = scale[a] * (float)total;
    }
}

/* 0 / 0 for a group of zeros. */
static void act8_zero_group(const float *x, uint32_t k, int8_t *q, float *scale, float *sum)
{
    struct kernels right;
    kernels_init(&right, 0);
    right.quantize_act8(x, k, q, scale, sum);
    for (uint32_t a = 0; a < k / ACT8_GROUP; a++)
        if (scale[a] == 0) sum[a] = NAN;
}

static void dequant_high_nibble_first(const struct wmat *w, uint32_t row, float *y)
{
    struct kernels right;
    kernels_init(&right, 0);
    right.dequant_row[w->type](w, row, y);
    for (uint32_t i = 0; i < w->cols; i += 2) {
        float first = y[i];
        y[i] = y[i + 1];
        y[i + 1] = first;
    }
}

#define F32(type_, bug_, says, function)                                                           \
    {                                                                                              \
        "matmul_f32", bug_, says, (any_kernel)function, WTYPE_##type_                              \
    }
#define I8(type_, bug_, says, function)                                                            \
    {                                                                                              \
        "matmul_i8", bug_, says, (any_kernel)function, WTYPE_##type_                               \
    }
#define BF16(bug_, says, function)                                                                 \
    {                                                                                              \
        "matmul_bf16", bug_, says, (any_kernel)function, WTYPE_BF16                                \
    }
#define OTHER(slot_, type_, bug_, says, function)                                                  \
    {                                                                                              \
        slot_, bug_, says, (any_kernel)function, WTYPE_##type_                                     \
    }
#define VALUE "*: y* is *, not * within *"

const struct broken broken_matmul[] = {
    F32(F32, "a dropped tail", VALUE, f32_no_tail),
    F32(F32, "a read past the weights", "* past the end of the weights", f32_over_read),
    F32(BF16, "a write past y", "* past the end of y", f32_over_write),
    F32(Q4, "rows outside the range", "* differs with n *", f32_ignores_row0),
    F32(Q6, "a write past the scratch", "* past the end of the scratch", f32_scratch_overrun),
    F32(F16, "a write to an input", "* into the read-only x", f32_writes_input),
    F32(BF16, "a need for alignment", "signal *", f32_wants_alignment),
    F32(F32, "a result that depends on n", "* differs with n *", f32_depends_on_n),
    F32(Q8, "a NaN lost", "*, not *nan *", f32_loses_nan),
    F32(F32, "a token not written", "* was not written", f32_skips_last_token),
    I8(Q8, "a saturating product", "*: y* is *, not *", i8_saturates),
    I8(Q8, "signed weights", "*: y* is *, not *", i8_signed_weights),
    I8(Q4, "a value left out of a group", "*: y* is *, not *", i8_short_group),
    I8(Q4, "the scale of another group", "*: y* is *, not *", i8_wrong_scale),
    I8(Q4, "a bias of the wrong sign", "*: y* is *, not *", i8_wrong_bias),
    I8(Q3, "t0 ignored", "* differs with n *", i8_ignores_t0),
    I8(Q5, "a read past the scales", "* past the end of the scales", i8_over_read_scale),
    I8(Q2, "a NaN lost", "*, not *nan *", i8_loses_nan),
    I8(Q8, "a rounding too many", "*: y* is *0x*, not *0x*", i8_rounds_twice),
    I8(Q5, "f16 scales taken for bf16", "*: y* is *, not *", i8_forgets_f16),
    BF16("activations as they are", VALUE, f32_right),
    BF16("truncation", VALUE, bf16_truncates),
    BF16("ties away from zero", VALUE, bf16_wrong_ties),
    BF16("one of each pair left out", VALUE, bf16_half_of_pairs),
    BF16("a NaN lost", "*, not *nan *", bf16_loses_nan),
    BF16("the activations of another block", "*: y* is *0x*, not *0x*", bf16_one_block),
    BF16("a write past the scratch", "* past the end of the scratch", bf16_scratch_overrun),
    OTHER("quantize_act8", F32, "truncation", "*: q*, not *", act8_truncates),
    OTHER("quantize_act8", F32, "ties away from zero", "*: q*, not *", act8_wrong_ties),
    OTHER("quantize_act8", F32, "a division by the scale of a zero group",
          "*sum* is *nan, not *0x0p+0", act8_zero_group),
    OTHER("dequant_row", Q4, "the high nibble first", "*: y* is *0x*, not *0x*",
          dequant_high_nibble_first),
    OTHER("dequant_row", Q6, "f16 scales taken for bf16", "*: y* is *, not *", dequant_forgets_f16),
};
const size_t broken_matmul_count = COUNT_OF(broken_matmul);
