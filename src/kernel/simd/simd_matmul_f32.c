/*
 * Products in f32. Each (row, token) is one vector of partial sums that runs over k in order and
 * is then summed by one tree: a tile computes up to four rows by four tokens at a time, and how
 * many changes no operation. Weights that are not f32 become f32 rows in scratch first, unless
 * there are too few tokens to be worth it: simd_matmul_affine.c has one token for affine types.
 */
#include "base/bits.h"
#include "kernel/simd/sets.h"

enum { TILE_ROWS = 4, TILE_TOKENS = LANES == 8 ? 2 : 4, PASS_ROWS = 8 };
/* 16-bit values in a line of a cache. */
enum { LINE = 32 };
/* Passes over more tokens would read their activations from memory each time. */
enum { BLOCK_TOKENS = 256 };

enum source { SOURCE_F32, SOURCE_F16, SOURCE_BF16 };

INLINE vf load_weights(const uint8_t *row, size_t i, enum source source)
{
    switch (source) {
    case SOURCE_F32: return vf_load(row + i * 4);
    case SOURCE_F16: return vf_load_f16(row + i * 2);
    default: return vf_load_bf16(row + i * 2);
    }
}

INLINE vf load_weights_tail(const uint8_t *row, size_t i, uint32_t n, enum source source)
{
    switch (source) {
    case SOURCE_F32: return vf_load_tail(row + i * 4, n);
    case SOURCE_F16: return vf_load_f16_tail(row + i * 2, n);
    default: return vf_load_bf16_tail(row + i * 2, n);
    }
}

/* Rows `stride` bytes apart, all of cols values. */
struct panel {
    const uint8_t *first;
    size_t stride;
    uint32_t cols;
};

/* Columns from i on, LANES of them, of rows and tokens. */
INLINE void tile_lanes(const struct panel *p, uint32_t rows, enum source source, const float *x,
                       size_t ldx, uint32_t tokens, uint32_t i, vf acc[TILE_ROWS][TILE_TOKENS])
{
    vf w[TILE_ROWS];
    for (uint32_t r = 0; r < rows; r++) w[r] = load_weights(p->first + r * p->stride, i, source);
    for (uint32_t t = 0; t < tokens; t++) {
        vf v = vf_load(x + t * ldx + i);
        for (uint32_t r = 0; r < rows; r++) acc[r][t] = vf_fma(w[r], v, acc[r][t]);
    }
}

/*
 * The same for one token and 16-bit values, line by line, and the rows after these are prefetched.
 * Returns how many columns these were.
 */
INLINE uint32_t tile_lines(const struct panel *p, uint32_t rows, enum source source, const float *x,
                           vf acc[TILE_ROWS][TILE_TOKENS])
{
    uint32_t i = 0;
    for (; i + LINE <= p->cols; i += LINE) {
        for (uint32_t r = 0; r < rows; r++)
            __builtin_prefetch(p->first + (r + TILE_ROWS) * p->stride + (size_t)i * 2, 0, 2);
        for (uint32_t j = 0; j < LINE; j += LANES) tile_lanes(p, rows, source, x, 0, 1, i + j, acc);
    }
    return i;
}

/* rows <= TILE_ROWS, tokens <= TILE_TOKENS and source are constants at every call. */
INLINE void tile(const struct panel *p, uint32_t rows, enum source source, const float *x,
                 size_t ldx, uint32_t tokens, float *y, size_t ldy)
{
    vf acc[TILE_ROWS][TILE_TOKENS];
    vf w[TILE_ROWS];
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t t = 0; t < tokens; t++) acc[r][t] = vf_set(0);
    bool lines = source != SOURCE_F32 && tokens == 1;
    uint32_t i = lines ? tile_lines(p, rows, source, x, acc) : 0;
    for (; i + LANES <= p->cols; i += LANES) tile_lanes(p, rows, source, x, ldx, tokens, i, acc);
    if (i < p->cols) {
        uint32_t left = p->cols - i;
        for (uint32_t r = 0; r < rows; r++)
            w[r] = load_weights_tail(p->first + r * p->stride, i, left, source);
        for (uint32_t t = 0; t < tokens; t++) {
            vf v = vf_load_tail(x + t * ldx + i, left);
            for (uint32_t r = 0; r < rows; r++) acc[r][t] = vf_fma(w[r], v, acc[r][t]);
        }
    }
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t t = 0; t < tokens; t++) y[t * ldy + r] = vf_sum(acc[r][t]);
}

INLINE void panel_rows(const struct panel *p, uint32_t rows, enum source source, const float *x,
                       size_t ldx, uint32_t tokens, float *y, size_t ldy)
{
    struct panel at = *p;
    for (; rows >= TILE_ROWS; rows -= TILE_ROWS) {
        tile(&at, TILE_ROWS, source, x, ldx, tokens, y, ldy);
        at.first += TILE_ROWS * p->stride;
        y += TILE_ROWS;
    }
    for (; rows > 0; rows--) {
        tile(&at, 1, source, x, ldx, tokens, y, ldy);
        at.first += p->stride;
        y++;
    }
}

INLINE void panel_product(const struct panel *p, uint32_t rows, enum source source, const float *x,
                          size_t ldx, uint32_t n, float *y, size_t ldy)
{
    for (; n >= TILE_TOKENS; n -= TILE_TOKENS) {
        panel_rows(p, rows, source, x, ldx, TILE_TOKENS, y, ldy);
        x += TILE_TOKENS * ldx;
        y += TILE_TOKENS * ldy;
    }
    for (; n > 0; n--) {
        panel_rows(p, rows, source, x, ldx, 1, y, ldy);
        x += ldx;
        y += ldy;
    }
}

/* f32 rows where they lie; a pass of few rows keeps them in cache for all tokens. */
static void matmul_f32_f32(const struct wmat *w, uint32_t row0, uint32_t row1, const float *x,
                           size_t ldx, uint32_t n, float *y, size_t ldy, void *scratch)
{
    (void)scratch;
    for (uint32_t t = 0; t < n; t += BLOCK_TOKENS)
        for (uint32_t r = row0; r < row1; r += PASS_ROWS) {
            struct panel p = {w->data + r * row_bytes(w), row_bytes(w), w->cols};
            panel_product(&p, min_u32(PASS_ROWS, row1 - r), SOURCE_F32, x + t * ldx, ldx,
                          min_u32(BLOCK_TOKENS, n - t), y + t * ldy + r, ldy);
        }
}

INLINE void dequant_row(const struct wmat *w, uint32_t row, float *y)
{
    const uint8_t *data = w->data + row * row_bytes(w);
    enum source source = w->type == WTYPE_F16 ? SOURCE_F16 : SOURCE_BF16;
    uint32_t i = 0;
    if (wtype_kind(w->type) != WKIND_FLOAT) {
        SET(dequant_packed_row)(w, row, y);
        return;
    }
    for (; i + LANES <= w->cols; i += LANES) vf_store(y + i, load_weights(data, i, source));
    if (i < w->cols) {
        uint32_t left = w->cols - i;
        vf_store_tail(y + i, left, load_weights_tail(data, i, left, source));
    }
}

static void convert_and_multiply(const struct wmat *w, uint32_t row0, uint32_t row1, const float *x,
                                 size_t ldx, uint32_t n, float *y, size_t ldy, void *scratch)
{
    float *weights = scratch_aligned(scratch);
    size_t stride = align_up(w->cols, LANES);
    struct panel p = {(const uint8_t *)weights, stride * sizeof *weights, w->cols};
    /* For few tokens the rows need not outlive the first-level cache. */
    uint32_t pass = n > TILE_TOKENS ? PASS_ROWS : TILE_ROWS;
    for (uint32_t r = row0; r < row1; r += pass) {
        uint32_t rows = min_u32(pass, row1 - r);
        for (uint32_t i = 0; i < rows; i++) dequant_row(w, r + i, weights + i * stride);
        panel_product(&p, rows, SOURCE_F32, x, ldx, n, y + r, ldy);
    }
}

static void matmul_f32_converted(const struct wmat *w, uint32_t row0, uint32_t row1, const float *x,
                                 size_t ldx, uint32_t n, float *y, size_t ldy, void *scratch)
{
    for (uint32_t t = 0; t < n; t += BLOCK_TOKENS)
        convert_and_multiply(w, row0, row1, x + t * ldx, ldx, min_u32(BLOCK_TOKENS, n - t),
                             y + t * ldy, ldy, scratch);
}

static void matmul_f32_affine(const struct wmat *w, uint32_t row0, uint32_t row1, const float *x,
                              size_t ldx, uint32_t n, float *y, size_t ldy, void *scratch)
{
    if (n == 1)
        SET(affine_times_one)(w, row0, row1, x, y, scratch);
    else
        matmul_f32_converted(w, row0, row1, x, ldx, n, y, ldy, scratch);
}

static void matmul_f32_f16(const struct wmat *w, uint32_t row0, uint32_t row1, const float *x,
                           size_t ldx, uint32_t n, float *y, size_t ldy, void *scratch)
{
    struct panel p = {w->data + row0 * row_bytes(w), row_bytes(w), w->cols};
    if (n > TILE_TOKENS) {
        matmul_f32_converted(w, row0, row1, x, ldx, n, y, ldy, scratch);
    } else {
        panel_product(&p, row1 - row0, SOURCE_F16, x, ldx, n, y + row0, ldy);
    }
}

static void matmul_f32_bf16(const struct wmat *w, uint32_t row0, uint32_t row1, const float *x,
                            size_t ldx, uint32_t n, float *y, size_t ldy, void *scratch)
{
    struct panel p = {w->data + row0 * row_bytes(w), row_bytes(w), w->cols};
    if (n > TILE_TOKENS) {
        matmul_f32_converted(w, row0, row1, x, ldx, n, y, ldy, scratch);
    } else {
        panel_product(&p, row1 - row0, SOURCE_BF16, x, ldx, n, y + row0, ldy);
    }
}

void SET(init_matmul_f32)(struct kernels *k)
{
    for (int type = 0; type < WTYPE_COUNT; type++)
        k->matmul_f32[type] =
            wtype_kind((enum wtype)type) == WKIND_AFFINE ? matmul_f32_affine : matmul_f32_converted;
    k->matmul_f32[WTYPE_F32] = matmul_f32_f32;
    k->matmul_f32[WTYPE_F16] = matmul_f32_f16;
    k->matmul_f32[WTYPE_BF16] = matmul_f32_bf16;
}
