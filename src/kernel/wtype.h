/*
 * How a weight matrix lies in a file: the one description that models, graphs and kernels share.
 * wtype.def is the table.
 */
#ifndef SLUICE_KERNEL_WTYPE_H
#define SLUICE_KERNEL_WTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum wtype {
#define T(name, bits, text) WTYPE_##name,
#include "kernel/wtype.def"
#undef T
    WTYPE_COUNT
};

/* "q4" and so on. */
const char *wtype_name(enum wtype type);
uint32_t wtype_bits(enum wtype type);
static inline bool wtype_is_packed(enum wtype type)
{
    return type >= WTYPE_Q2;
}

/* A weight matrix [rows][cols] where it lies in a file: rows contiguous, any byte address. */
struct wmat {
    enum wtype type;
    uint32_t rows, cols;
    uint32_t group;        /* packed types: values per scale; divides cols; 32, 64 or 128 */
    const uint8_t *data;   /* rows of cols * bits / 8 bytes */
    const uint8_t *scales; /* packed types: bf16 [rows][cols / group] */
    const uint8_t *biases; /* the same */
};

/* Rows [row0, row0 + rows) of a matrix. */
struct wmat wmat_rows(const struct wmat *all, uint64_t row0, uint32_t rows);

#endif
