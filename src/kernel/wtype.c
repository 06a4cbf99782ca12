#include "kernel/wtype.h"

#include "base/bits.h"

static const struct type_row {
    const char *name;
    enum wkind kind;
    uint16_t values, bytes;
} types[] = {
#define T(name, text, kind, values, bytes) {text, WKIND_##kind, values, bytes},
#include "kernel/wtype.def"
#undef T
};

const char *wtype_name(enum wtype type)
{
    return types[type].name;
}

enum wkind wtype_kind(enum wtype type)
{
    return types[type].kind;
}

uint32_t wtype_block_values(enum wtype type)
{
    return types[type].values;
}

uint32_t wtype_block_bytes(enum wtype type)
{
    return types[type].bytes;
}

uint32_t wtype_bits(enum wtype type)
{
    return types[type].bytes * 8u / types[type].values;
}

size_t wtype_row_bytes(enum wtype type, uint32_t cols)
{
    return (size_t)(cols / types[type].values) * types[type].bytes;
}

/* Bytes of a row of scales; TILED: of a row of tiles. */
static uint64_t scale_row_bytes(const struct wmat *w)
{
    switch (types[w->type].kind) {
    case WKIND_TILED: return (uint64_t)div_up_u32(w->cols, WTILE) * (w->f32_scales ? 4 : 2);
    case WKIND_AFFINE: return (uint64_t)(w->cols / w->group) * 2;
    case WKIND_SPLIT: return w->cols / 32;
    case WKIND_FLOAT:
    case WKIND_BLOCK: break;
    }
    return 0;
}

struct wmat_bytes wmat_array_bytes(const struct wmat *w)
{
    uint64_t scales = scale_row_bytes(w), rows = w->rows;
    if (types[w->type].kind == WKIND_TILED) rows = (w->tile_row + rows + WTILE - 1) / WTILE;
    return (struct wmat_bytes){
        .data = w->rows * (uint64_t)wtype_row_bytes(w->type, w->cols),
        .scales = rows * scales,
        .biases = types[w->type].kind == WKIND_AFFINE ? rows * scales : 0,
    };
}

uint64_t wmat_bytes(const struct wmat *w)
{
    struct wmat_bytes b = wmat_array_bytes(w);
    return b.data + b.scales + b.biases;
}

struct wmat wmat_rows(const struct wmat *all, uint64_t row0, uint32_t rows)
{
    struct wmat w = *all;
    uint64_t scale_rows = row0;
    w.rows = rows;
    w.data += row0 * wtype_row_bytes(w.type, w.cols);
    if (types[w.type].kind == WKIND_TILED) {
        scale_rows = (w.tile_row + row0) / WTILE;
        w.tile_row = (uint32_t)((w.tile_row + row0) % WTILE);
    }
    if (w.scales) w.scales += scale_rows * scale_row_bytes(all);
    if (w.biases) w.biases += row0 * scale_row_bytes(all);
    return w;
}
