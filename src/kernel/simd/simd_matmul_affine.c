/*
 * The product of an affine matrix and one token: values go from memory to registers, and each is
 * used once. The operations on them, and their order, are those of rows that became f32 first.
 */
#include "kernel/simd/unpack_lanes.h"

enum { TILE_ROWS = 4, LINE_BYTES = 64 };

/* Hides that memory is slow from the rows that come next. */
INLINE void prefetch(const uint8_t *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += LINE_BYTES) __builtin_prefetch(p + i, 0, 2);
}

/* Rows that go through a product together. */
struct affine_rows {
    const uint8_t *data;
    size_t stride;
    uint32_t group;
    /* [rows][groups] */
    const float *scales, *biases;
    size_t groups;
};

/* n scales or biases of consecutive rows, in f32. */
INLINE void convert(const struct wmat *w, const uint8_t *array, size_t n, float *y)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(y + i, w->f16_scales ? vf_load_f16(array + 2 * i) : vf_load_bf16(array + 2 * i));
    for (; i < n; i++) y[i] = affine_at(w, array, i);
}

/* Group g of rows, added to their sums. rows and bits are constants at every call. */
INLINE void add_group(const struct affine_rows *a, size_t g, uint32_t rows, uint32_t bits,
                      const float *x, vf acc[TILE_ROWS])
{
    const size_t bytes = a->group / 8 * bits;
    const uint8_t *data = a->data + g * bytes;
    vf scale[TILE_ROWS], bias[TILE_ROWS];
    UNROLL for (uint32_t r = 0; r < rows; r++)
    {
        scale[r] = vf_set(a->scales[r * a->groups + g]);
        bias[r] = vf_set(a->biases[r * a->groups + g]);
        prefetch(data + (r + TILE_ROWS) * a->stride, bytes);
    }
    for (uint32_t i = 0; i < a->group; i += 32, data += 4 * bits, x += 32)
        for (uint32_t j = 0; j < 32; j += LANES) {
            vf v = vf_load(x + j);
            UNROLL for (uint32_t r = 0; r < rows; r++)
            {
                vf w = affine_lanes(data + r * a->stride, j, bits, scale[r], bias[r]);
                acc[r] = vf_fma(w, v, acc[r]);
            }
        }
}

/* Rows [row, row + rows) of the product. */
INLINE void tile(const struct wmat *w, uint32_t row, uint32_t rows, uint32_t bits, const float *x,
                 float *y, float *scratch)
{
    const size_t groups = w->cols / w->group, stride = (size_t)w->cols / 8 * bits;
    const size_t meta = 2 * row * groups, next = meta + 2 * TILE_ROWS * groups;
    const struct affine_rows a = {.data = w->data + row * stride,
                                  .stride = stride,
                                  .group = w->group,
                                  .scales = scratch,
                                  .biases = scratch + TILE_ROWS * groups,
                                  .groups = groups};
    vf acc[TILE_ROWS];
    for (uint32_t r = 0; r < rows; r++) acc[r] = vf_set(0);
    convert(w, w->scales + meta, rows * groups, scratch);
    convert(w, w->biases + meta, rows * groups, scratch + TILE_ROWS * groups);
    prefetch(w->scales + next, 2 * rows * groups);
    prefetch(w->biases + next, 2 * rows * groups);
    for (size_t g = 0; g < groups; g++) add_group(&a, g, rows, bits, x + g * w->group, acc);
    for (uint32_t r = 0; r < rows; r++) y[row + r] = vf_sum(acc[r]);
}

INLINE void product(const struct wmat *w, uint32_t row0, uint32_t row1, uint32_t bits,
                    const float *x, float *y, float *scratch)
{
    uint32_t r = row0;
    for (; r + TILE_ROWS <= row1; r += TILE_ROWS) tile(w, r, TILE_ROWS, bits, x, y, scratch);
    for (; r < row1; r++) tile(w, r, 1, bits, x, y, scratch);
}

void SET(affine_times_one)(const struct wmat *w, uint32_t row0, uint32_t row1, const float *x,
                           float *y, void *scratch)
{
    float *floats = scratch_aligned(scratch);
    switch (wtype_bits(w->type)) {
    case 2: product(w, row0, row1, 2, x, y, floats); break;
    case 3: product(w, row0, row1, 3, x, y, floats); break;
    case 4: product(w, row0, row1, 4, x, y, floats); break;
    case 5: product(w, row0, row1, 5, x, y, floats); break;
    case 6: product(w, row0, row1, 6, x, y, floats); break;
    default: product(w, row0, row1, 8, x, y, floats);
    }
}
