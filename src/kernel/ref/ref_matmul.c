/* Matrix products. A weight row is made readable once, then serves all rows of the batch. */
#include <math.h>
#include <stdalign.h>

#include "base/bits.h"
#include "base/fp16.h"
#include "kernel/ref/ref.h"

/* matmul_scratch_bytes leaves room for this. */
static void *aligned_scratch(void *scratch)
{
    unsigned char *bytes = scratch;
    return bytes + (align_up((uintptr_t)bytes, alignof(max_align_t)) - (uintptr_t)bytes);
}

static void matmul_f32(const struct wmat *w, uint32_t row0, uint32_t row1, const float *x,
                       size_t ldx, uint32_t n, float *y, size_t ldy, void *scratch)
{
    float *weights = aligned_scratch(scratch);
    for (uint32_t r = row0; r < row1; r++) {
        ref_dequant_row(w, r, weights);
        for (uint32_t t = 0; t < n; t++) y[t * ldy + r] = ref_dot(weights, x + t * ldx, w->cols);
    }
}

static void matmul_bf16(const struct wmat *w, uint32_t row0, uint32_t row1, const float *x,
                        size_t ldx, uint32_t n, float *y, size_t ldy, void *scratch)
{
    float *weights = aligned_scratch(scratch), *rounded = weights + w->cols;
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t i = 0; i < w->cols; i++)
            rounded[i] = bf16_to_f32(f32_to_bf16(x[t * ldx + i]));
        for (uint32_t r = row0; r < row1; r++) {
            ref_dequant_row(w, r, weights);
            y[t * ldy + r] = ref_dot(weights, rounded, w->cols);
        }
    }
}

/* The matrix the other way round: rows are added up, in order. */
static void matmul_t_f32(const struct wmat *w, uint32_t col0, uint32_t col1, const float *x,
                         size_t ldx, uint32_t n, float *y, size_t ldy, void *scratch)
{
    float *weights = aligned_scratch(scratch);
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t c = col0; c < col1; c++) y[t * ldy + c] = 0;
    for (uint32_t r = 0; r < w->rows; r++) {
        ref_dequant_row(w, r, weights);
        for (uint32_t t = 0; t < n; t++)
            for (uint32_t c = col0; c < col1; c++) y[t * ldy + c] += weights[c] * x[t * ldx + r];
    }
}

static int32_t dot_i8(const uint8_t *w, const int8_t *x)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < ACT8_GROUP; i++) sum += w[i] * x[i];
    return sum;
}

/*
 * The one order of operations of matmul_i8, at every instruction set: the activation groups of a
 * weight group are added up, then scaled; idot is exact.
 */
static float row_dot_i8(const struct wmat *w, uint32_t row, const uint8_t *q, const struct act8 *x,
                        size_t t)
{
    uint32_t groups = w->cols / w->group, per_group = w->group / ACT8_GROUP;
    const int8_t *xq = x->q + t * w->cols;
    const float *x_scale = x->scale + t * groups * per_group;
    const float *x_sum = x->sum + t * groups * per_group;
    float acc = 0;
    for (uint32_t g = 0; g < groups; g++) {
        float part = 0, total = 0;
        for (uint32_t j = 0; j < per_group; j++, q += ACT8_GROUP, xq += ACT8_GROUP) {
            float idot = (float)dot_i8(q, xq);
            part = j == 0 ? idot * *x_scale++ : fmaf(idot, *x_scale++, part);
            total = j == 0 ? *x_sum++ : total + *x_sum++;
        }
        acc = fmaf(part, ref_affine_at(w, w->scales, (size_t)row * groups + g), acc);
        acc = fmaf(ref_affine_at(w, w->biases, (size_t)row * groups + g), total, acc);
    }
    return acc;
}

static void matmul_i8_affine(const struct wmat *w, uint32_t row0, uint32_t row1,
                             const struct act8 *x, uint32_t t0, uint32_t n, float *y, size_t ldy,
                             void *scratch)
{
    uint8_t *q = scratch;
    for (uint32_t r = row0; r < row1; r++) {
        ref_unpack_row(w, r, q);
        for (uint32_t t = 0; t < n; t++) y[t * ldy + r] = row_dot_i8(w, r, q, x, (size_t)t0 + t);
    }
}

static void matmul_i8_blocks(const struct wmat *w, uint32_t row0, uint32_t row1,
                             const struct act8 *x, uint32_t t0, uint32_t n, float *y, size_t ldy,
                             void *scratch)
{
    struct ref_group *groups = aligned_scratch(scratch);
    for (uint32_t r = row0; r < row1; r++) {
        for (uint32_t a = 0; a < w->cols / ACT8_GROUP; a++) ref_unpack_group(w, r, a, &groups[a]);
        for (uint32_t t = 0; t < n; t++)
            y[t * ldy + r] = ref_row_dot_i8(w->type, groups, x, (size_t)t0 + t);
    }
}

static float max_abs(const float *x, uint32_t n)
{
    float m = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) return NAN;
        m = fmaxf(m, fabsf(x[i]));
    }
    return m;
}

/* A quotient may exceed 127 where scale is denormal, hence the clamp. */
static int8_t quantize_value(float x, float scale)
{
    if (!(scale > 0)) return 0;
    return (int8_t)fminf(fmaxf(rintf(x / scale), -127), 127);
}

static void quantize_act8(const float *x, uint32_t k, int8_t *q, float *scale, float *sum)
{
    for (uint32_t a = 0; a < k / ACT8_GROUP; a++, x += ACT8_GROUP, q += ACT8_GROUP) {
        int32_t total = 0;
        scale[a] = max_abs(x, ACT8_GROUP) / 127;
        for (uint32_t i = 0; i < ACT8_GROUP; i++) {
            q[i] = quantize_value(x[i], scale[a]);
            total += q[i];
        }
        sum[a] = scale[a] * (float)total;
    }
}

void ref_init_matmul(struct kernels *k)
{
    for (int type = 0; type < WTYPE_COUNT; type++) {
        k->matmul_f32[type] = matmul_f32;
        k->matmul_t_f32[type] = matmul_t_f32;
        k->matmul_bf16[type] = type == WTYPE_BF16 ? matmul_bf16 : NULL;
        bool affine = wtype_kind((enum wtype)type) == WKIND_AFFINE;
        k->matmul_i8[type] = affine ? matmul_i8_affine : matmul_i8_blocks;
        if (!wtype_is_packed((enum wtype)type)) k->matmul_i8[type] = NULL;
        k->dequant_row[type] = ref_dequant_row;
    }
    k->quantize_act8 = quantize_act8;
}
