/* Eight rows of a matrix with one token (dot_rows.h has the products of a few columns). */
#ifndef SLUICE_KERNEL_EIGHT_ROWS_H
#define SLUICE_KERNEL_EIGHT_ROWS_H

#include "kernel/x86/matmul_work.h"

/* A matrix and a row of activations, as all its rows meet them. */
struct one_token {
    struct rows rows; /* of the whole matrix */
    const int8_t *x;  /* ordered */
    const float *act_scale, *act_sum;
    float *scales, *biases; /* room for [groups][ROWS] */
    uint32_t acts, groups;
    bool f16_scales;
};

INLINE struct one_token begin_token(const struct work *k, size_t token, uint32_t bits)
{
    const struct wmat *w = k->w;
    const uint32_t acts = w->cols / ACT8_GROUP;
    order_row(k->x->q + token * w->cols, w->cols, bits, k->ordered);
    return (struct one_token){.rows = all_rows(w, bits),
                              .x = k->ordered,
                              .act_scale = k->x->scale + token * acts,
                              .act_sum = k->x->sum + token * acts,
                              .scales = k->scales,
                              .biases = k->biases,
                              .acts = acts,
                              .groups = w->cols / w->group,
                              .f16_scales = w->f16_scales};
}

INLINE uint8_t *pad(uint8_t *out, const uint8_t *rows, size_t stride, uint32_t count)
{
    memcpy(out, rows, count * stride);
    memset(out + count * stride, 0, (ROWS - count) * stride);
    return out + ROWS * stride;
}

/* Fewer rows than eight, and zero rows for the others. */
INLINE struct rows padded_rows(const struct rows *few, uint32_t count, uint8_t *out)
{
    struct rows padded = *few;
    uint8_t *scales = pad(out, few->data, few->stride, count);
    uint8_t *biases = pad(scales, few->scales, few->meta_stride, count);
    pad(biases, few->biases, few->meta_stride, count);
    padded.data = out;
    padded.scales = scales;
    padded.biases = biases;
    return padded;
}

INLINE void add_groups(struct sums *s, const struct one_token *one, const __m256i *idot, uint32_t a,
                       uint32_t count, uint32_t per_group, const float **scale, const float **bias)
{
    for (uint32_t j = 0; j < count; j++) {
        bool last = (a + j) % per_group == per_group - 1;
        add_group(s, idot[j], one->act_scale[a + j], one->act_sum[a + j], (a + j) % per_group == 0,
                  last, *scale, *bias);
        if (last) *scale += ROWS, *bias += ROWS;
    }
}

/*
 * Results of eight rows; bits is a constant at every call, and per_group where it is two. Before a
 * step uses some bytes of each, as many are fetched: of rows that follow each other from further
 * on, of streams from further on in each.
 */
INLINE __m256 rows_dot(const struct one_token *one, const struct rows *rows, bool streams,
                       uint32_t per_group, uint32_t bits)
{
    const float *scale = one->scales, *bias = one->biases;
    struct sums s = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    const uint8_t *ahead = rows->data + max_size(ROWS * rows->stride, PREFETCH_BYTES);
    uint32_t a = 0;
    turn_bf16_rows(rows->scales, rows->meta_stride, one->groups, one->scales);
    turn_bf16_rows(rows->biases, rows->meta_stride, one->groups, one->biases);
    if (one->f16_scales) {
        halves_to_floats(one->scales, (size_t)one->groups * ROWS);
        halves_to_floats(one->biases, (size_t)one->groups * ROWS);
    }
    /* The float part of a step waits until the products of the next are on their way. */
    const uint32_t step = groups_per_step(bits);
    __m256i idot[4], next[4];
    if (one->acts >= step) dot_groups(rows, one->x, 0, step, bits, next);
    for (; a + step <= one->acts; a += step) {
        if (streams)
            prefetch_streams(rows, ROWS, (size_t)a * bits * 4, (size_t)step * bits * 4);
        else
            prefetch(ahead + (size_t)a * ROWS * bits * 4, (size_t)step * ROWS * bits * 4);
        UNROLL
        for (uint32_t j = 0; j < step; j++) idot[j] = next[j]; /* in registers, as no memcpy() is */
        if (a + 2 * step <= one->acts) dot_groups(rows, one->x, a + step, step, bits, next);
        add_groups(&s, one, idot, a, step, per_group, &scale, &bias);
    }
    for (; a < one->acts; a++) {
        dot_groups(rows, one->x, a, 1, bits, idot);
        add_groups(&s, one, idot, a, 1, per_group, &scale, &bias);
    }
    return s.acc;
}

/*
 * What was asked for ahead and is in the second-level cache, to the first. Loads that nothing waits
 * for come many at once; those of the products come with what they feed, which fills the window of
 * a core.
 */
INLINE void touch(const uint8_t *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64) (void)*(const volatile uint8_t *)(p + i);
}

INLINE void touch_rows(const struct rows *rows)
{
    touch(rows->data, ROWS * rows->stride);
    touch(rows->scales, ROWS * rows->meta_stride);
    touch(rows->biases, ROWS * rows->meta_stride);
}

/* Rows [row0, row1), at least eight: the last ones again rather than fewer, the same bits twice. */
INLINE void whole_rows(const struct one_token *one, uint32_t row0, uint32_t row1,
                       uint32_t per_group, uint32_t bits, float *y)
{
    const bool from_memory = are_long(one->rows.stride, row1 - row0);
    for (uint32_t r = row0; r < row1; r += ROWS) {
        r = min_u32(r, row1 - ROWS);
        struct rows rows = rows_from(&one->rows, r);
        prefetch_meta(&rows, ROWS);
        if (from_memory) touch_rows(&rows);
        _mm256_storeu_ps(y + r, rows_dot(one, &rows, false, per_group, bits));
    }
}

INLINE void few_rows(const struct one_token *one, uint32_t row0, uint32_t row1, uint8_t *padded,
                     uint32_t per_group, uint32_t bits, float *y)
{
    struct rows few = rows_from(&one->rows, row0);
    few = padded_rows(&few, row1 - row0, padded);
    float results[ROWS];
    _mm256_storeu_ps(results, rows_dot(one, &few, false, per_group, bits));
    memcpy(y + row0, results, (row1 - row0) * sizeof *y);
}

/* Most of at least 16 rows in groups of 64 as eight streams. Returns the first row left. */
INLINE uint32_t eight_streams(const struct work *k, uint32_t row0, uint32_t row1, size_t token,
                              uint32_t bits, float *y)
{
    const struct one_token one = begin_token(k, token, bits);
    const uint32_t span = span_of(row1 - row0, ROWS);
    struct rows rows = rows_apart(&one.rows, row0, span);
    for (uint32_t i = 0; i < span; i++) {
        float results[ROWS];
        _mm256_storeu_ps(results, rows_dot(&one, &rows, true, 2, bits));
        for (uint32_t r = 0; r < ROWS; r++) y[row0 + r * span + i] = results[r];
        next_of_streams(&rows, &one.rows, ROWS);
    }
    return row0 + span * ROWS;
}

/* Any number of rows. */
INLINE void eight_rows(const struct work *k, uint32_t row0, uint32_t row1, size_t token,
                       uint32_t bits, float *y)
{
    struct one_token one = begin_token(k, token, bits);
    if (row1 - row0 < ROWS)
        few_rows(&one, row0, row1, k->padded, k->per_group, bits, y);
    else if (k->per_group == 2) /* the usual size is worth a version of its own */
        whole_rows(&one, row0, row1, 2, bits, y);
    else
        whole_rows(&one, row0, row1, k->per_group, bits, y);
}

#endif
