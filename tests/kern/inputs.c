#include "kerncheck.h"

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

void write_packed(uint8_t *row, uint32_t i, uint32_t bits, uint32_t value_)
{
    for (uint32_t b = 0; b < bits; b++) {
        size_t at = (size_t)i * bits + b;
        uint8_t one = (uint8_t)(1u << at % 8);
        row[at / 8] = (uint8_t)((row[at / 8] & ~one) | (value_ >> b & 1 ? one : 0));
    }
}

static uint32_t read_packed(const uint8_t *row, uint32_t i, uint32_t bits)
{
    uint32_t v = 0;
    for (uint32_t b = 0; b < bits; b++) {
        size_t at = (size_t)i * bits + b;
        v |= (uint32_t)(row[at / 8] >> at % 8 & 1) << b;
    }
    return v;
}

static void put_bf16(uint8_t *array, size_t i, float f)
{
    uint16_t h = f32_to_bf16(f);
    memcpy(array + i * 2, &h, sizeof h);
}

static float get_bf16(const uint8_t *array, size_t i)
{
    uint16_t h;
    memcpy(&h, array + i * 2, sizeof h);
    return bf16_to_f32(h);
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

static void fill_floats(struct check *c, uint8_t *data, struct weights *m)
{
    enum pattern pattern = (enum pattern)rng_below(&c->rng, PATTERN_COUNT);
    for (size_t i = 0; i < (size_t)m->w.rows * m->w.cols; i++) {
        float f = value(c, i, pattern);
        uint16_t h = m->w.type == WTYPE_F16 ? f32_to_f16(f) : f32_to_bf16(f);
        if (m->w.type == WTYPE_F32) {
            memcpy(data + i * 4, &f, 4);
            m->dense[i] = f;
        } else {
            memcpy(data + i * 2, &h, 2);
            m->dense[i] = m->w.type == WTYPE_F16 ? f16_to_f32(h) : bf16_to_f32(h);
        }
    }
}

/* Random bits; a third of the matrices holds the largest or the smallest integers only. */
static void fill_packed(struct check *c, uint8_t *data, size_t bytes, uint8_t *scales,
                        uint8_t *biases, struct weights *m)
{
    uint32_t bits = wtype_bits(m->w.type), groups = m->w.cols / m->w.group;
    uint32_t mode = rng_below(&c->rng, 6);
    for (size_t i = 0; i < bytes; i++)
        data[i] = mode == 0 ? 0xff : mode == 1 ? 0 : (uint8_t)rng_u64(&c->rng);
    for (size_t g = 0; g < (size_t)m->w.rows * groups; g++) {
        float s = rng_float(&c->rng, -0.05f, 0.05f);
        put_bf16(scales, g, s);
        put_bf16(biases, g, -s * (float)(1u << (bits - 1)) + rng_float(&c->rng, -0.01f, 0.01f));
    }
    for (size_t i = 0; i < (size_t)m->w.rows * m->w.cols; i++) {
        size_t row = i / m->w.cols, g = row * groups + i % m->w.cols / m->w.group;
        uint32_t q = read_packed(data + row * (m->w.cols * (size_t)bits / 8),
                                 (uint32_t)(i % m->w.cols), bits);
        m->ints[i] = (uint8_t)q;
        m->dense[i] =
            (float)((double)q * (double)get_bf16(scales, g) + (double)get_bf16(biases, g));
    }
}

struct weights random_weights(struct check *c, enum wtype type, uint32_t rows, uint32_t cols,
                              uint32_t group)
{
    static void *dense, *ints;
    struct weights m = {.w = {.type = type, .rows = rows, .cols = cols}};
    size_t bytes = (size_t)rows * (cols * (size_t)wtype_bits(type) / 8);
    uint8_t *data = operand_in("the weights", c, bytes, 1);
    m.w.data = data;
    m.dense = room(&dense, (size_t)rows * cols * sizeof *m.dense);
    m.ints = room(&ints, (size_t)rows * cols);
    if (!wtype_is_packed(type)) {
        fill_floats(c, data, &m);
        return m;
    }
    m.w.group = group;
    uint8_t *scales = operand_in("the scales", c, (size_t)rows * (cols / group) * 2, 1);
    uint8_t *biases = operand_in("the biases", c, (size_t)rows * (cols / group) * 2, 1);
    m.w.scales = scales;
    m.w.biases = biases;
    fill_packed(c, data, bytes, scales, biases, &m);
    return m;
}
