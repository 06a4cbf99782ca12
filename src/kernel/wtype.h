/*
 * How a weight matrix lies in a file: the one description that models, stores and kernels share.
 * wtype.def is the table.
 */
#ifndef SLUICE_KERNEL_WTYPE_H
#define SLUICE_KERNEL_WTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum wtype {
#define T(name, text, kind, values, bytes) WTYPE_##name,
#include "kernel/wtype.def"
#undef T
    WTYPE_COUNT
};

/* Which arrays there are beside the data; wtype.def says what is in them. */
enum wkind { WKIND_FLOAT, WKIND_TILED, WKIND_AFFINE, WKIND_SPLIT, WKIND_BLOCK };

/* Rows and columns of a tile of WKIND_TILED. */
enum { WTILE = 128 };

/* "q4_k" and so on. */
const char *wtype_name(enum wtype type);
enum wkind wtype_kind(enum wtype type);
/* Values and bytes of a block; the columns of a matrix are whole blocks. */
uint32_t wtype_block_values(enum wtype type);
uint32_t wtype_block_bytes(enum wtype type);
/* Bits of a value: FLOAT, TILED and AFFINE types. */
uint32_t wtype_bits(enum wtype type);
/* Integers with scales: matmul_i8 has them. */
static inline bool wtype_is_packed(enum wtype type)
{
    return type >= WTYPE_Q2;
}

/* A weight matrix [rows][cols] where it lies in a file: rows contiguous, any byte address. */
struct wmat {
    enum wtype type;
    uint32_t rows, cols;
    uint32_t group;        /* AFFINE: values per scale; divides cols; 32, 64 or 128 */
    const uint8_t *data;   /* rows of whole blocks */
    const uint8_t *scales; /* AFFINE: [rows][cols / group]; SPLIT: e8m0 [rows][cols / 32];
                              TILED: [tiles of rows][tiles of cols] */
    const uint8_t *biases; /* AFFINE: as the scales */
    uint32_t tile_row;     /* TILED: rows of the first tile that lie before row 0 */
    bool f32_scales;       /* TILED: scales are f32, else bf16 */
    bool f16_scales;       /* AFFINE: scales and biases are f16, else bf16 */
};

/* Bytes of the data of a row. */
size_t wtype_row_bytes(enum wtype type, uint32_t cols);

/* Bytes of each array of a matrix; 0: there is none. */
struct wmat_bytes {
    uint64_t data, scales, biases;
};
struct wmat_bytes wmat_array_bytes(const struct wmat *w);
/* Of all arrays together. */
uint64_t wmat_bytes(const struct wmat *w);
/* Rows [row0, row0 + rows) of a matrix. */
struct wmat wmat_rows(const struct wmat *all, uint64_t row0, uint32_t rows);

#endif
