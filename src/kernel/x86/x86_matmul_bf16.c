/*
 * Products of bf16 by vdpbf16ps, which adds a pair of them to each lane of f32. Each (row, token)
 * is one vector of partial sums that runs over the columns in order and is then summed by one tree;
 * how many a tile computes at a time changes no operation. Activations are rounded once a block of
 * tokens, to rows of whole steps with zeros behind them, so weights alone have tails. Rows of
 * weights stay in the first-level cache for all tokens of a block, whose rows come from the second:
 * a tile of four by six wants ten lines for 24 products.
 */
#include "base/bits.h"
#include "kernel/simd/sets.h"

enum { TILE_ROWS = 4, TILE_TOKENS = 6, BLOCK_TOKENS = 64 };
/* Columns that a vector takes: a line of a cache. */
enum { STEP = 32 };

/* Rows of weights `stride` bytes apart, all of cols values, and activations that ldx are apart. */
struct panel {
    const uint8_t *rows;
    size_t stride;
    uint32_t cols;
    const uint16_t *x;
    size_t ldx;
};

INLINE __m512bh load_pairs(const void *p)
{
    return (__m512bh)_mm512_loadu_si512(p);
}

/* n < STEP values, then zeros. */
INLINE __m512bh load_pairs_tail(const void *p, uint32_t n)
{
    return (__m512bh)_mm512_maskz_loadu_epi16((1u << n) - 1, p);
}

/* Columns from i on, STEP of them or as many as are left. rows and tokens are constants. */
INLINE void tile_step(const struct panel *p, uint32_t rows, uint32_t tokens, uint32_t i,
                      uint32_t left, vf acc[TILE_TOKENS][TILE_ROWS])
{
    __m512bh w[TILE_ROWS];
    UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        const uint8_t *at = p->rows + r * p->stride + (size_t)i * 2;
        w[r] = left < STEP ? load_pairs_tail(at, left) : load_pairs(at);
    }
    UNROLL
    for (uint32_t t = 0; t < tokens; t++) {
        const __m512bh x = load_pairs(p->x + t * p->ldx + i);
        UNROLL
        for (uint32_t r = 0; r < rows; r++) acc[t][r] = _mm512_dpbf16_ps(acc[t][r], w[r], x);
    }
}

/*
 * TILE_ROWS rows or one, and tokens <= TILE_TOKENS, are constants, and so is ahead: as many rows
 * behind these are prefetched, to the second-level cache.
 */
INLINE void tile(const struct panel *p, uint32_t rows, uint32_t tokens, bool ahead, float *y,
                 size_t ldy)
{
    vf acc[TILE_TOKENS][TILE_ROWS];
    uint32_t i = 0;
    UNROLL
    for (uint32_t t = 0; t < tokens; t++) {
        UNROLL
        for (uint32_t r = 0; r < rows; r++) acc[t][r] = vf_set(0);
    }
    for (; i + STEP <= p->cols; i += STEP) {
        UNROLL
        for (uint32_t r = 0; ahead && r < rows; r++)
            __builtin_prefetch(p->rows + (r + rows) * p->stride + (size_t)i * 2, 0, 2);
        tile_step(p, rows, tokens, i, STEP, acc);
    }
    if (i < p->cols) tile_step(p, rows, tokens, i, p->cols - i, acc);
    UNROLL
    for (uint32_t t = 0; t < tokens; t++, y += ldy) {
        if (rows == TILE_ROWS)
            vf_sum4(acc[t], y);
        else
            y[0] = vf_sum(acc[t][0]);
    }
}

/* The largest tile of up to n tokens. Returns how many these were. */
INLINE uint32_t largest_tile(const struct panel *p, uint32_t rows, uint32_t n, bool ahead, float *y,
                             size_t ldy)
{
    if (n >= TILE_TOKENS) {
        tile(p, rows, TILE_TOKENS, ahead, y, ldy);
        return TILE_TOKENS;
    }
    if (n >= 4) {
        tile(p, rows, 4, ahead, y, ldy);
        return 4;
    }
    if (n >= 2) {
        tile(p, rows, 2, ahead, y, ldy);
        return 2;
    }
    tile(p, rows, 1, ahead, y, ldy);
    return 1;
}

/* The first tile of tokens fetches the rows behind these, for the next panel. */
INLINE void panel_product(struct panel p, uint32_t rows, uint32_t n, float *y, size_t ldy)
{
    uint32_t t = largest_tile(&p, rows, n, true, y, ldy);
    while (t < n) {
        struct panel at = p;
        at.x += t * p.ldx;
        t += largest_tile(&at, rows, n - t, false, y + t * ldy, ldy);
    }
}

static void four_rows(struct panel p, uint32_t n, float *y, size_t ldy)
{
    panel_product(p, TILE_ROWS, n, y, ldy);
}

static void one_row(struct panel p, uint32_t n, float *y, size_t ldy)
{
    panel_product(p, 1, n, y, ldy);
}

/* A row of activations, and zeros to a whole step. */
static void round_row(const float *x, uint32_t cols, uint16_t *y)
{
    for (uint32_t i = 0; i < cols; i += STEP) {
        const uint32_t left = cols - i;
        vf low = vf_load_upto(x + i, left), high = vf_set(0);
        if (left > LANES) high = vf_load_upto(x + i + LANES, left - LANES);
        _mm512_storeu_si512(y + i, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
}

/* A line more than a row has keeps rows of tokens from meeting in the same sets of a cache. */
static size_t stride_of(uint32_t cols)
{
    return align_up(cols, STEP) + STEP;
}

/* As many tokens as the scratch holds, in whole tiles where there are some. */
static uint32_t tokens_of_block(uint32_t cols)
{
    size_t room = (matmul_scratch_bytes(cols) - 64) / (stride_of(cols) * sizeof(uint16_t));
    return (uint32_t)min_size(room, BLOCK_TOKENS) / TILE_TOKENS * TILE_TOKENS;
}

static void matmul_bf16(const struct wmat *w, uint32_t row0, uint32_t row1, const float *x,
                        size_t ldx, uint32_t n, float *y, size_t ldy, void *scratch)
{
    uint16_t *rounded = scratch_aligned(scratch);
    const uint32_t block = tokens_of_block(w->cols);
    struct panel p = {NULL, row_bytes(w), w->cols, rounded, stride_of(w->cols)};
    for (uint32_t t = 0; t < n; t += block, x += block * ldx, y += block * ldy) {
        const uint32_t tokens = min_u32(block, n - t);
        uint32_t r = row0;
        for (uint32_t i = 0; i < tokens; i++) round_row(x + i * ldx, w->cols, rounded + i * p.ldx);
        for (; r < row1; r += row1 - r >= TILE_ROWS ? TILE_ROWS : 1) {
            p.rows = w->data + r * p.stride;
            if (row1 - r >= TILE_ROWS)
                four_rows(p, tokens, y + r, ldy);
            else
                one_row(p, tokens, y + r, ldy);
        }
    }
}

void SET(init_matmul_bf16)(struct kernels *k)
{
    k->matmul_bf16[WTYPE_BF16] = matmul_bf16;
}
