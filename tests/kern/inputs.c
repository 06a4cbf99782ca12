#include "formats.h"

void fill_uniform(struct check *c, float *x, size_t n, float lo, float hi)
{
    for (size_t i = 0; i < n; i++) x[i] = rng_float(&c->rng, lo, hi);
}

/* Box and Muller. */
float gaussian(struct rng *rng)
{
    double radius = sqrt(-2 * log(1 - rng_unit(rng)));
    return (float)(radius * cos(6.283185307179586 * rng_unit(rng)));
}

enum pattern pattern_of(struct check *c)
{
    return (enum pattern)(c->round % PATTERN_COUNT);
}

static float value(struct check *c, size_t i, enum pattern pattern)
{
    float u = rng_float(&c->rng, -1, 1);
    switch (pattern) {
    case PATTERN_ZEROS: return i % 2 ? 0.0f : -0.0f;
    case PATTERN_DENORMAL: return u * 0x1p-127f;
    case PATTERN_LARGE: return u < 0 ? -1e15f : 1e15f;
    case PATTERN_ALTERNATING: return i % 2 ? 1.5f : -1.5f;
    case PATTERN_EQUAL: return 0.75f;
    case PATTERN_MIXED: return ldexpf(u, (int)rng_below(&c->rng, 60) - 40);
    default: return u;
    }
}

void fill(struct check *c, float *x, size_t n, enum pattern pattern)
{
    for (size_t i = 0; i < n; i++) x[i] = value(c, i, pattern);
    /* The last element is where a tail goes wrong. */
    if (pattern == PATTERN_ONE_HUGE && n > 0)
        x[rng_below(&c->rng, 2) ? n - 1 : rng_below(&c->rng, (uint32_t)n)] = 3e4f;
}

uint32_t length_of(struct check *c)
{
    static const uint16_t sizes[] = {64, 65, 100, 127, 128, 256, 511, 512, 768, 1024, 2048, 4099};
    if (c->round < 33) return c->round + 1;
    return sizes[rng_below(&c->rng, COUNT_OF(sizes))];
}

static void *room(void **buffer, size_t bytes)
{
    free(*buffer);
    *buffer = malloc(bytes);
    if (!*buffer) {
        perror("malloc");
        exit(2);
    }
    return *buffer;
}

static void put_float(uint8_t *data, size_t i, enum wtype type, float f)
{
    uint16_t h = type == WTYPE_F16 ? f32_to_f16(f) : f32_to_bf16(f);
    if (type == WTYPE_F32) {
        memcpy(data + i * 4, &f, 4);
    } else {
        memcpy(data + i * 2, &h, 2);
    }
}

static void fill_floats(struct check *c, uint8_t *data, const struct wmat *w)
{
    enum pattern pattern = (enum pattern)rng_below(&c->rng, PATTERN_COUNT);
    for (size_t i = 0; i < (size_t)w->rows * w->cols; i++)
        put_float(data, i, w->type, value(c, i, pattern));
}

/* Random bits; a third of the matrices holds the largest or the smallest integers only. */
static void fill_bits(struct check *c, uint8_t *data, size_t bytes)
{
    uint32_t mode = rng_below(&c->rng, 6);
    for (size_t i = 0; i < bytes; i++)
        data[i] = mode == 0 ? 0xff : mode == 1 ? 0 : (uint8_t)rng_u64(&c->rng);
}

static void fill_affine(struct check *c, uint8_t *scales, uint8_t *biases, const struct wmat *w)
{
    size_t n = (size_t)w->rows * (w->cols / w->group);
    float middle = (float)(1u << (wtype_bits(w->type) - 1));
    enum wtype type = w->f16_scales ? WTYPE_F16 : WTYPE_BF16;
    for (size_t g = 0; g < n; g++) {
        float s = rng_float(&c->rng, -0.05f, 0.05f);
        if (c->round % 3 == 2) s = ldexpf(s, -(int)rng_below(&c->rng, 20));
        put_float(scales, g, type, s);
        put_float(biases, g, type, -s * middle + rng_float(&c->rng, -0.01f, 0.01f));
    }
}

/* Powers of two around 1; in a third of the matrices down to the smallest there is. */
static uint8_t random_e8m0(struct check *c)
{
    return (uint8_t)(c->round % 3 == 2 ? rng_below(&c->rng, 150) : 110 + rng_below(&c->rng, 24));
}

/* Scales that a quantiser would write; in a third of the matrices large or tiny ones. */
static void fill_block_scales(struct check *c, uint8_t *data, const struct wmat *w)
{
    uint32_t at[2], n = format_halves(w->type, at), step = wtype_block_bytes(w->type);
    size_t blocks = wmat_array_bytes(w).data / step;
    for (size_t b = 0; b < blocks; b++) {
        for (uint32_t i = 0; i < n; i++) {
            float f = ldexpf(rng_float(&c->rng, -1, 1), c->round % 3 == 2 ? 15 : -4);
            if (c->round % 6 == 2) f = ldexpf(f, -(int)rng_below(&c->rng, 40));
            put_float(data + b * step + at[i], 0, WTYPE_F16, f);
        }
        if (w->type == WTYPE_MXFP4) data[b * step] = random_e8m0(c);
    }
}

static void fill_tiles(struct check *c, uint8_t *scales, const struct wmat *w)
{
    size_t n = wmat_array_bytes(w).scales / (w->f32_scales ? 4 : 2);
    for (size_t i = 0; i < n; i++)
        put_float(scales, i, w->f32_scales ? WTYPE_F32 : WTYPE_BF16,
                  rng_float(&c->rng, -0.01f, 0.01f));
}

/* e4m3 with NaN in a few matrices only. */
static void fill_e4m3(struct check *c, uint8_t *data, size_t bytes)
{
    bool nan = rng_below(&c->rng, 8) == 0;
    fill_bits(c, data, bytes);
    for (size_t i = 0; i < bytes && !nan; i++)
        if ((data[i] & 127) == 127) data[i] ^= 1;
}

static void fill_weights(struct check *c, uint8_t *data, uint8_t *scales, uint8_t *biases,
                         const struct wmat *w)
{
    struct wmat_bytes bytes = wmat_array_bytes(w);
    switch (wtype_kind(w->type)) {
    case WKIND_FLOAT: fill_floats(c, data, w); return;
    case WKIND_TILED:
        fill_e4m3(c, data, bytes.data);
        fill_tiles(c, scales, w);
        return;
    case WKIND_AFFINE: fill_affine(c, scales, biases, w); break;
    case WKIND_SPLIT:
        for (size_t i = 0; i < bytes.scales; i++) scales[i] = random_e8m0(c);
        break;
    case WKIND_BLOCK: break;
    }
    fill_bits(c, data, bytes.data);
    if (wtype_kind(w->type) == WKIND_BLOCK) fill_block_scales(c, data, w);
}

void random_columns(struct check *c, enum wtype type, uint32_t *cols, uint32_t *group)
{
    static const uint8_t groups_of[] = {1, 2, 3, 4, 5, 8, 9, 16};
    static const uint16_t odd_cols[] = {24, 100, 64, 128, 257, 513, 2048};
    *group = 0;
    if (!wtype_is_packed(type)) {
        *cols = c->round < 35 ? c->round + 1 : odd_cols[rng_below(&c->rng, COUNT_OF(odd_cols))];
    } else if (wtype_block_values(type) == 256) {
        *cols = 256 * (1 + rng_below(&c->rng, 3));
    } else {
        uint32_t unit = 32;
        if (wtype_kind(type) == WKIND_AFFINE) unit = *group = 32u << rng_below(&c->rng, 3);
        *cols = unit * groups_of[rng_below(&c->rng, COUNT_OF(groups_of))];
    }
    if (wtype_is_packed(type) && c->round % 16 == 15) *cols = 2048;
}

struct weights random_weights(struct check *c, enum wtype type, uint32_t rows, uint32_t cols,
                              uint32_t group)
{
    static void *dense, *raw;
    struct weights m = {.w = {.type = type, .rows = rows, .cols = cols, .group = group}};
    struct wmat *w = &m.w;
    if (wtype_kind(type) == WKIND_TILED) {
        w->tile_row = rng_below(&c->rng, WTILE);
        w->f32_scales = rng_below(&c->rng, 2);
    }
    if (wtype_kind(type) == WKIND_AFFINE) w->f16_scales = rng_below(&c->rng, 2);
    struct wmat_bytes bytes = wmat_array_bytes(w);
    uint8_t *data = operand_in("the weights", c, bytes.data, 1);
    uint8_t *scales = bytes.scales ? operand_in("the scales", c, bytes.scales, 1) : NULL;
    uint8_t *biases = bytes.biases ? operand_in("the biases", c, bytes.biases, 1) : NULL;
    w->data = data;
    w->scales = scales;
    w->biases = biases;
    fill_weights(c, data, scales, biases, w);
    m.dense = room(&dense, (size_t)rows * cols * sizeof *m.dense);
    m.raw = room(&raw, (size_t)rows * cols * sizeof *m.raw);
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t i = 0; i < cols; i++) {
            size_t at = (size_t)r * cols + i;
            m.raw[at] = format_value(w, r, i);
            m.dense[at] = format_f32(type, m.raw[at]);
        }
    return m;
}
