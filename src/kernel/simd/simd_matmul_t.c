/*
 * Products with a matrix that lies the other way round: y = W^T x. Rows of the matrix are added up
 * in order, each times one value of x, so that it is read from beginning to end. Panels of rows,
 * vectors of columns and tiles of tokens change how often y is loaded and stored between additions,
 * not the additions.
 */
#include "base/bits.h"
#include "kernel/simd/sets.h"

enum { PANEL = 8, TOKENS = 4, VECTORS = 2 };

enum source { SOURCE_F32, SOURCE_F16, SOURCE_BF16 };

/* Rows `stride` bytes apart, from the first column that is wanted. */
struct rows {
    const uint8_t *data;
    size_t stride;
    uint32_t n, cols;
};

INLINE vf load(const uint8_t *row, size_t i, uint32_t left, enum source source)
{
    switch (source) {
    case SOURCE_F32: return vf_load_upto((const float *)(const void *)(row + i * 4), left);
    case SOURCE_F16:
        return left >= LANES ? vf_load_f16(row + i * 2) : vf_load_f16_tail(row + i * 2, left);
    default:
        return left >= LANES ? vf_load_bf16(row + i * 2) : vf_load_bf16_tail(row + i * 2, left);
    }
}

/* Adds the rows to y[t][c ..]; tokens, vectors, first and source are constants at every call. */
INLINE void tile(const struct rows *w, const float *x, size_t ldx, uint32_t tokens, float *y,
                 size_t ldy, uint32_t c, uint32_t vectors, bool first, enum source source)
{
    vf acc[TOKENS][VECTORS];
    for (uint32_t t = 0; t < tokens; t++)
        for (uint32_t v = 0; v < vectors; v++) {
            uint32_t at = c + v * LANES;
            acc[t][v] = first ? vf_set(0) : vf_load_upto(y + t * ldy + at, w->cols - at);
        }
    for (uint32_t r = 0; r < w->n; r++) {
        vf weight[VECTORS];
        for (uint32_t v = 0; v < vectors; v++) {
            uint32_t at = c + v * LANES;
            weight[v] = load(w->data + r * w->stride, at, w->cols - at, source);
        }
        for (uint32_t t = 0; t < tokens; t++) {
            vf value = vf_set(x[t * ldx + r]);
            for (uint32_t v = 0; v < vectors; v++) acc[t][v] = vf_fma(weight[v], value, acc[t][v]);
        }
    }
    for (uint32_t t = 0; t < tokens; t++)
        for (uint32_t v = 0; v < vectors; v++) {
            uint32_t at = c + v * LANES;
            vf_store_upto(y + t * ldy + at, w->cols - at, acc[t][v]);
        }
}

INLINE void tiles(const struct rows *w, const float *x, size_t ldx, uint32_t tokens, float *y,
                  size_t ldy, bool first, enum source source)
{
    uint32_t c = 0;
    for (; c + VECTORS * LANES <= w->cols; c += VECTORS * LANES)
        tile(w, x, ldx, tokens, y, ldy, c, VECTORS, first, source);
    for (; c < w->cols; c += LANES) tile(w, x, ldx, tokens, y, ldy, c, 1, first, source);
}

INLINE void add_rows(const struct rows *w, const float *x, size_t ldx, uint32_t n, float *y,
                     size_t ldy, bool first, enum source source)
{
    for (; n >= TOKENS; n -= TOKENS) {
        tiles(w, x, ldx, TOKENS, y, ldy, first, source);
        x += TOKENS * ldx;
        y += TOKENS * ldy;
    }
    for (; n > 0; n--) {
        tiles(w, x, ldx, 1, y, ldy, first, source);
        x += ldx;
        y += ldy;
    }
}

INLINE void product(const struct wmat *w, uint32_t col0, uint32_t col1, const float *x, size_t ldx,
                    uint32_t n, float *y, size_t ldy, enum source source)
{
    size_t value = source == SOURCE_F32 ? 4 : 2;
    for (uint32_t r = 0; r < w->rows; r += PANEL) {
        struct rows rows = {w->data + r * row_bytes(w) + col0 * value, row_bytes(w),
                            min_u32(PANEL, w->rows - r), col1 - col0};
        if (r == 0)
            add_rows(&rows, x, ldx, n, y + col0, ldy, true, source);
        else
            add_rows(&rows, x + r, ldx, n, y + col0, ldy, false, source);
    }
}

static void matmul_t_f32_f32(const struct wmat *w, uint32_t col0, uint32_t col1, const float *x,
                             size_t ldx, uint32_t n, float *y, size_t ldy, void *scratch)
{
    (void)scratch;
    product(w, col0, col1, x, ldx, n, y, ldy, SOURCE_F32);
}

static void matmul_t_f32_f16(const struct wmat *w, uint32_t col0, uint32_t col1, const float *x,
                             size_t ldx, uint32_t n, float *y, size_t ldy, void *scratch)
{
    (void)scratch;
    product(w, col0, col1, x, ldx, n, y, ldy, SOURCE_F16);
}

static void matmul_t_f32_bf16(const struct wmat *w, uint32_t col0, uint32_t col1, const float *x,
                              size_t ldx, uint32_t n, float *y, size_t ldy, void *scratch)
{
    (void)scratch;
    product(w, col0, col1, x, ldx, n, y, ldy, SOURCE_BF16);
}

/* Other types become rows of f32 first. */
static void matmul_t_f32_converted(const struct wmat *w, uint32_t col0, uint32_t col1,
                                   const float *x, size_t ldx, uint32_t n, float *y, size_t ldy,
                                   void *scratch)
{
    float *weights = scratch_aligned(scratch);
    size_t stride = align_up(w->cols, LANES);
    for (uint32_t r = 0; r < w->rows; r += PANEL) {
        struct rows rows = {(const uint8_t *)(weights + col0), stride * sizeof *weights,
                            min_u32(PANEL, w->rows - r), col1 - col0};
        for (uint32_t i = 0; i < rows.n; i++)
            SET(dequant_packed_row)(w, r + i, weights + i * stride);
        add_rows(&rows, x + r, ldx, n, y + col0, ldy, r == 0, SOURCE_F32);
    }
}

void SET(init_matmul_t)(struct kernels *k)
{
    for (int type = 0; type < WTYPE_COUNT; type++) k->matmul_t_f32[type] = matmul_t_f32_converted;
    k->matmul_t_f32[WTYPE_F32] = matmul_t_f32_f32;
    k->matmul_t_f32[WTYPE_F16] = matmul_t_f32_f16;
    k->matmul_t_f32[WTYPE_BF16] = matmul_t_f32_bf16;
}
