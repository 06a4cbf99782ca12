/*
 * What the integer products share: where a call works, and the rows of a matrix. Inside x86 only.
 */
#ifndef SLUICE_KERNEL_MATMUL_WORK_H
#define SLUICE_KERNEL_MATMUL_WORK_H

#include "base/bits.h"
#include "kernel/simd/sets.h"
#include "kernel/x86/dot_rows.h"

enum {
    PANEL_COLS = LANES == 16 ? 512 : 1024, /* unpacked, less than the first-level cache */
    PANEL_ACTS = PANEL_COLS / ACT8_GROUP,
    TOKEN_BLOCK = 64,
    PREFETCH_BYTES = 4096, /* at least so far ahead */
    MAX_DWORDS = 20,       /* of groups_at_once groups */
};

/* Scales and biases of eight rows, of sixteen or of a panel, unpacked rows, activations. */
struct work {
    const struct wmat *w;
    const struct act8 *x;
    uint32_t per_group;     /* activation groups of a weight group */
    float *scales, *biases; /* [groups][ROWS], [pairs of groups][16] or [groups][vectors * LANES] */
    uint8_t *quads;         /* of a panel: [PANEL_ACTS][planes][QUADS][vectors][4 * LANES] */
    uint8_t *padded;        /* 8 rows and what belongs to them */
    int8_t *ordered;        /* activations in the order that the weights want */
};

INLINE struct work plan_work(const struct wmat *w, const struct act8 *x, void *scratch)
{
    enum { PANEL_BYTES = PANEL_ACTS * 2 * QUADS * TILE_VECTORS * 4 * LANES };
    struct work k = {.w = w, .x = x, .scales = scratch_aligned(scratch)};
    const uint32_t groups = w->cols / w->group;
    size_t metas = max_u32((groups + groups % 2) * ROWS, PANEL_ACTS * TILE_VECTORS * LANES);
    k.per_group = w->group / ACT8_GROUP;
    k.biases = k.scales + metas;
    k.quads = (uint8_t *)(k.biases + metas);
    k.ordered = (int8_t *)k.quads + PANEL_BYTES;
    k.padded = (uint8_t *)k.ordered + 2 * (size_t)w->cols;
    return k;
}

/* The rows of a matrix from its first one on; no row has a part of a byte. */
INLINE struct rows all_rows(const struct wmat *w, uint32_t bits)
{
    return (struct rows){.data = w->data,
                         .scales = w->scales,
                         .biases = w->biases,
                         .stride = (size_t)w->cols / 8 * bits,
                         .meta_stride = w->cols / w->group * 2ul};
}

INLINE struct rows rows_from(const struct rows *all, size_t row)
{
    return (struct rows){.data = all->data + row * all->stride,
                         .scales = all->scales + row * all->meta_stride,
                         .biases = all->biases + row * all->meta_stride,
                         .stride = all->stride,
                         .meta_stride = all->meta_stride};
}

/* bytes from p on, to the second-level cache. */
INLINE void prefetch(const uint8_t *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)p + i, _MM_HINT_T1);
}

/*
 * Rows of a long matrix as several streams, each of `span` rows: a processor of CPU_STREAMS reads
 * ahead of several streams by itself, beyond what it lets a program ask for, and of one it does
 * less. An odd span keeps streams from meeting in the same sets of a cache.
 */
enum {
    LONG_FROM = 128 << 10, /* bytes of rows */
    STREAM_AHEAD = 512,
    STREAM_META_AHEAD = 3, /* rows */
};

/* Rows of `stride` bytes that no cache is likely to have. */
INLINE bool are_long(size_t stride, uint32_t rows)
{
    return rows * stride >= LONG_FROM;
}

/* The rows of each stream, where there are at least two for each. */
INLINE uint32_t span_of(uint32_t rows, uint32_t streams)
{
    return (rows / streams - 1) | 1;
}

/* The first row of each stream. */
INLINE struct rows rows_apart(const struct rows *all, size_t row, uint32_t span)
{
    struct rows rows = rows_from(all, row);
    rows.stride *= span;
    rows.meta_stride *= span;
    return rows;
}

/* `bytes` of each of some rows, to the first-level cache; all but addresses constants. */
INLINE void prefetch_each(const uint8_t *p, size_t stride, uint32_t rows, size_t bytes)
{
    UNROLL
    for (uint32_t r = 0; r < rows; r++, p += stride)
        for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)p + i, _MM_HINT_T0);
}

/* Of a step at byte `at` of each row: the lines that begin in it, from further on. */
INLINE void prefetch_streams(const struct rows *rows, uint32_t n_rows, size_t at, size_t bytes)
{
    if (bytes >= 64 || at % 64 < bytes)
        prefetch_each(rows->data + at + STREAM_AHEAD, rows->stride, n_rows, bytes);
}

/* The next row of each stream; scales and biases of rows further on are fetched. */
INLINE void next_of_streams(struct rows *rows, const struct rows *all, uint32_t n_rows)
{
    const size_t ahead = STREAM_META_AHEAD * all->meta_stride;
    prefetch_each(rows->scales + ahead, rows->meta_stride, n_rows, all->meta_stride);
    prefetch_each(rows->biases + ahead, rows->meta_stride, n_rows, all->meta_stride);
    rows->data += all->stride;
    rows->scales += all->meta_stride;
    rows->biases += all->meta_stride;
}

/* Scales and biases of the rows after these. */
INLINE void prefetch_meta(const struct rows *rows, uint32_t count)
{
    size_t bytes = count * rows->meta_stride;
    prefetch(rows->scales + bytes, bytes);
    prefetch(rows->biases + bytes, bytes);
}

#endif
