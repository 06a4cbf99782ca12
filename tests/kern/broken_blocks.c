/* Kernels of block types with one bug each; the reference does the rest. */
#include "kerncheck.h"

#define I8_PARAMS                                                                                  \
    const struct wmat *w, uint32_t row0, uint32_t row1, const struct act8 *x, uint32_t t0,         \
        uint32_t n, float *y, size_t ldy, void *scratch
#define I8_ARGS row0, row1, x, t0, n, y, ldy, scratch

enum { MAX_BYTES = 1 << 20 };

static void i8_right(I8_PARAMS)
{
    struct kernels k;
    kernels_init(&k, 0);
    k.matmul_i8[w->type](w, I8_ARGS);
}

static void dequant_right(const struct wmat *w, uint32_t row, float *y)
{
    struct kernels k;
    kernels_init(&k, 0);
    k.dequant_row[w->type](w, row, y);
}

/* The matrix with its bytes in a copy that may be changed. */
static struct wmat copy_of(const struct wmat *w, uint8_t copy[MAX_BYTES])
{
    struct wmat m = *w;
    size_t bytes = min_size(wmat_array_bytes(w).data, MAX_BYTES);
    memcpy(copy, w->data, bytes);
    m.data = copy;
    return m;
}

/* Without the term of the minima. */
static void i8_no_minimum(I8_PARAMS)
{
    static uint8_t copy[MAX_BYTES];
    struct wmat m = copy_of(w, copy);
    size_t blocks = (size_t)w->rows * (w->cols / 256);
    for (size_t b = 0; b < blocks; b++) memset(copy + b * 144 + 2, 0, 2);
    i8_right(&m, I8_ARGS);
}

/* The scale of the other sixteen values. */
static void i8_swaps_scales(I8_PARAMS)
{
    static uint8_t copy[MAX_BYTES];
    struct wmat m = copy_of(w, copy);
    size_t blocks = (size_t)w->rows * (w->cols / 256);
    for (size_t b = 0; b < blocks; b++)
        for (uint32_t i = 0; i < 16; i += 2) {
            uint8_t *scales = copy + b * 210 + 192 + i;
            uint8_t first = scales[0];
            scales[0] = scales[1];
            scales[1] = first;
        }
    i8_right(&m, I8_ARGS);
}

/* Loads of two bytes, of which the last may lie past the last block. */
static void i8_over_read(I8_PARAMS)
{
    const volatile uint8_t *data = w->data;
    volatile uint8_t sink = data[wmat_array_bytes(w).data + 1];
    (void)sink;
    i8_right(w, I8_ARGS);
}

static void i8_over_read_scale(I8_PARAMS)
{
    const volatile uint8_t *scales = w->scales;
    volatile uint8_t sink = scales[wmat_array_bytes(w).scales + 3];
    (void)sink;
    i8_right(w, I8_ARGS);
}

/* Adds the groups from the last to the first. */
static void i8_other_order(I8_PARAMS)
{
    (void)scratch;
    struct wmat one = *w;
    one.cols = ACT8_GROUP;
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t r = row0; r < row1; r++) {
            float sum = 0, part, room[256];
            for (uint32_t a = w->cols / ACT8_GROUP; a-- > 0;) {
                size_t at = (size_t)(t0 + t) * (w->cols / ACT8_GROUP) + a;
                struct act8 act = {ACT8_GROUP, x->q + at * ACT8_GROUP, x->scale + at, x->sum + at};
                one.data = w->data + (size_t)r * wtype_row_bytes(w->type, w->cols) +
                           a * wtype_row_bytes(w->type, ACT8_GROUP);
                one.rows = 1;
                i8_right(&one, 0, 1, &act, 0, 1, &part, 1, room);
                sum += part;
            }
            y[t * ldy + r] = sum;
        }
}

/* The fifth bits of the halves of a group exchanged. */
static void dequant_other_fifths(const struct wmat *w, uint32_t row, float *y)
{
    static uint8_t copy[MAX_BYTES];
    struct wmat m = copy_of(w, copy);
    for (size_t b = 0; b < (size_t)w->rows * (w->cols / 32); b++) {
        uint8_t *fifths = copy + b * 22 + 2;
        uint8_t first[2] = {fifths[0], fifths[1]};
        memmove(fifths, fifths + 2, 2);
        memcpy(fifths + 2, first, 2);
    }
    dequant_right(&m, row, y);
}

static void dequant_high_nibble_first(const struct wmat *w, uint32_t row, float *y)
{
    dequant_right(w, row, y);
    for (uint32_t i = 0; i < w->cols; i += 2) {
        float first = y[i];
        y[i] = y[i + 1];
        y[i + 1] = first;
    }
}

/* 2^127 for the scale that is NaN. */
static void dequant_finite_scale(const struct wmat *w, uint32_t row, float *y)
{
    dequant_right(w, row, y);
    for (uint32_t i = 0; i < w->cols; i++)
        if (isnan(y[i])) y[i] = 0x1p127f;
}

/* As if the matrix began with a tile. */
static void dequant_wrong_tile(const struct wmat *w, uint32_t row, float *y)
{
    struct wmat m = *w;
    m.tile_row = 0;
    dequant_right(&m, row, y);
}

#define BROKEN(slot_, type_, bug_, says, function)                                                 \
    {                                                                                              \
        slot_, bug_, says, (any_kernel)function, WTYPE_##type_                                     \
    }

const struct broken broken_blocks[] = {
    BROKEN("matmul_i8", Q4_K, "minima left out", "*: y* is *, not *", i8_no_minimum),
    BROKEN("matmul_i8", Q6_K, "the scale of the other half", "*: y* is *, not *", i8_swaps_scales),
    BROKEN("matmul_i8", Q6_K, "a read past the last block", "* past the end of the weights",
           i8_over_read),
    BROKEN("matmul_i8", MXFP4_SPLIT, "a read past the shared scales",
           "* past the end of the scales", i8_over_read_scale),
    BROKEN("matmul_i8", Q8_0, "another order of groups", "*: y* is *0x*, not *0x*", i8_other_order),
    BROKEN("dequant_row", Q5_0, "fifth bits of the other half", "*: y* is *0x*, not *0x*",
           dequant_other_fifths),
    BROKEN("dequant_row", MXFP4_SPLIT, "codes in the other order", "*: y* is *0x*, not *0x*",
           dequant_high_nibble_first),
    BROKEN("dequant_row", MXFP4, "a number for the scale that is none", "*: y* is *, not *nan*",
           dequant_finite_scale),
    BROKEN("dequant_row", F8_E4M3, "the scale of another tile", "*: y* is *0x*, not *0x*",
           dequant_wrong_tile),
};
const size_t broken_blocks_count = COUNT_OF(broken_blocks);
