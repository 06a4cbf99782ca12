/* What kinds of blocks there are: kernel.h has the sums that they make. */
#ifndef SLUICE_KERNEL_BLOCK_TYPES_H
#define SLUICE_KERNEL_BLOCK_TYPES_H

#include "base/bits.h"
#include "kernel/simd/sets.h"

/* Integer scales of sixteen values. */
INLINE bool block_has_sub(enum wtype type)
{
    return type == WTYPE_Q2_K || type == WTYPE_Q3_K || type == WTYPE_Q4_K || type == WTYPE_Q5_K ||
           type == WTYPE_Q6_K;
}

/* Those of a group are equal, and so are its minima. */
INLINE bool block_same_subs(enum wtype type)
{
    return type == WTYPE_Q4_K || type == WTYPE_Q5_K;
}

/* Integer minima of sixteen values, which count negative. */
INLINE bool block_has_min(enum wtype type)
{
    return type == WTYPE_Q2_K || type == WTYPE_Q4_K || type == WTYPE_Q5_K;
}

INLINE bool block_has_bias(enum wtype type)
{
    return type == WTYPE_Q4_1 || type == WTYPE_Q5_1;
}

INLINE uint32_t load_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE uint16_t load_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* The values of n codes of e4m3 of one tile. */
typedef void dequant_tile_fn(const uint8_t *codes, uint32_t n, float scale, float *y);

/* A row of FP8, tile after tile; tile is inlined. */
INLINE void dequant_tiles(const struct wmat *w, uint32_t row, float *y, dequant_tile_fn *tile)
{
    const uint8_t *p = w->data + row * row_bytes(w);
    size_t tiles = div_up_u32(w->cols, WTILE), at = (w->tile_row + row) / WTILE * tiles;
    for (uint32_t i = 0; i < w->cols; i += WTILE, at++) {
        uint32_t bits;
        float scale;
        if (w->f32_scales) {
            bits = load_u32(w->scales + at * 4);
        } else {
            bits = (uint32_t)load_u16(w->scales + at * 2) << 16;
        }
        memcpy(&scale, &bits, sizeof scale);
        tile(p + i, min_u32(WTILE, w->cols - i), scale, y + i);
    }
}

/* X(TYPE) for all of them. */
#define BLOCK_TYPES(X)                                                                             \
    X(MXFP4_SPLIT)                                                                                 \
    X(Q4_0)                                                                                        \
    X(Q4_1)                                                                                        \
    X(Q5_0)                                                                                        \
    X(Q5_1)                                                                                        \
    X(Q8_0)                                                                                        \
    X(Q2_K)                                                                                        \
    X(Q3_K)                                                                                        \
    X(Q4_K)                                                                                        \
    X(Q5_K)                                                                                        \
    X(Q6_K)                                                                                        \
    X(IQ4_NL)                                                                                      \
    X(IQ4_XS)                                                                                      \
    X(MXFP4)

#endif
