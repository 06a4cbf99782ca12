/*
 * What each stored weight is worth, one at a time, from the descriptions of the formats: GGUF's
 * tensor types, the OCP formats e2m1, e8m0 and e4m3, and MLX's affine groups. Shares nothing with
 * the kernels.
 */
#include "formats.h"

static uint32_t bits_at(const uint8_t *p, uint32_t first, uint32_t n)
{
    uint32_t v = 0;
    for (uint32_t b = 0; b < n; b++)
        v |= (uint32_t)(p[(first + b) / 8] >> (first + b) % 8 & 1) << b;
    return v;
}

/* IEEE half precision. */
static double half(const uint8_t *p)
{
    uint32_t exponent = bits_at(p, 10, 5), fraction = bits_at(p, 0, 10);
    double v = exponent ? ldexp(1024 + fraction, (int)exponent - 25) : ldexp(fraction, -24);
    if (exponent == 31) v = fraction ? (double)NAN : (double)INFINITY;
    return p[1] & 128 ? -v : v;
}

static double brain(const uint8_t *p)
{
    uint32_t bits = bits_at(p, 0, 16) << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return (double)f;
}

static int signed_byte(uint8_t b)
{
    return b < 128 ? b : b - 256;
}

/* Of 32 values in 16 bytes the first half are in the low nibbles. */
static uint32_t nibble(const uint8_t *p, uint32_t i)
{
    return bits_at(p, i < 16 ? 8 * i : 8 * (i - 16) + 4, 4);
}

/* Minus zero counts as zero: a product with the integers of such codes gives no other. */
static double e2m1(uint32_t code)
{
    static const double values[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    return code & 8 && code != 8 ? -values[code & 7] : values[code & 7];
}

static double e8m0(uint8_t e)
{
    return e == 255 ? (double)NAN : ldexp(1, e - 127);
}

static double e4m3(uint8_t v)
{
    uint32_t exponent = v >> 3 & 15, fraction = v & 7;
    double m = exponent ? ldexp(1 + fraction / 8.0, (int)exponent - 7) : ldexp(fraction / 8.0, -6);
    if ((v & 127) == 127) m = (double)NAN;
    return v & 128 ? -m : m;
}

static double iq4(uint32_t code)
{
    static const int8_t values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
    return values[code];
}

/* The two bits of value i of 256: four values a byte, 32 bytes for each 128 values. */
static uint32_t pair(const uint8_t *p, uint32_t i)
{
    return bits_at(p, (i / 128 * 32 + i % 32) * 8 + i % 128 / 32 * 2, 2);
}

/* The four bits of value i of 256: 32 bytes for each 64 values. */
static uint32_t nibble_of_256(const uint8_t *p, uint32_t i)
{
    return bits_at(p, (i / 64 * 32 + i % 32) * 8 + i % 64 / 32 * 4, 4);
}

/* Number n of the eight scales (minima: of the eight minima) of six bits in 12 bytes. */
static uint32_t scale_of_12(const uint8_t *p, uint32_t n, bool minimum)
{
    if (n < 4) return bits_at(p, 8 * (n + (minimum ? 4 : 0)), 6);
    uint32_t low = bits_at(p, 8 * (n + 4) + (minimum ? 4 : 0), 4);
    return low | bits_at(p, 8 * (n - (minimum ? 0 : 4)) + 6, 2) << 4;
}

static struct format_value block_value(enum wtype type, const uint8_t *p, uint32_t i)
{
    uint32_t n = i / 32, high;
    switch ((int)type) {
    case WTYPE_Q4_0: return (struct format_value){half(p) * ((int)nibble(p + 2, i) - 8), 0};
    case WTYPE_Q4_1: return (struct format_value){half(p) * nibble(p + 4, i), -half(p + 2)};
    case WTYPE_Q5_0:
        high = bits_at(p + 2, i, 1) << 4;
        return (struct format_value){half(p) * ((int)(nibble(p + 6, i) | high) - 16), 0};
    case WTYPE_Q5_1:
        high = bits_at(p + 4, i, 1) << 4;
        return (struct format_value){half(p) * (nibble(p + 8, i) | high), -half(p + 2)};
    case WTYPE_Q8_0: return (struct format_value){half(p) * signed_byte(p[2 + i]), 0};
    case WTYPE_IQ4_NL: return (struct format_value){half(p) * iq4(nibble(p + 2, i)), 0};
    case WTYPE_MXFP4: return (struct format_value){e8m0(p[0]) * e2m1(nibble(p + 1, i)), 0};
    case WTYPE_Q2_K:
        return (struct format_value){half(p + 80) * bits_at(p, i / 16 * 8, 4) * pair(p + 16, i),
                                     half(p + 82) * bits_at(p, i / 16 * 8 + 4, 4)};
    case WTYPE_Q3_K: {
        uint32_t s = i / 16;
        uint32_t scale = bits_at(p + 96, s % 8 * 8 + s / 8 * 4, 4) |
                         bits_at(p + 104, s % 4 * 8 + s / 4 * 2, 2) << 4;
        int q = (int)pair(p + 32, i) - (bits_at(p, i % 32 * 8 + n, 1) ? 0 : 4);
        return (struct format_value){half(p + 108) * (((int)scale - 32) * q), 0};
    }
    case WTYPE_Q4_K:
        return (struct format_value){half(p) * scale_of_12(p + 4, n, false) *
                                         nibble_of_256(p + 16, i),
                                     half(p + 2) * scale_of_12(p + 4, n, true)};
    case WTYPE_Q5_K:
        high = bits_at(p + 16, i % 32 * 8 + n, 1) << 4;
        return (struct format_value){half(p) * scale_of_12(p + 4, n, false) *
                                         (nibble_of_256(p + 48, i) | high),
                                     half(p + 2) * scale_of_12(p + 4, n, true)};
    case WTYPE_Q6_K: {
        uint32_t byte = i / 128 * 64 + i % 64;
        uint32_t low = bits_at(p, byte * 8 + i % 128 / 64 * 4, 4);
        int q = (int)(low | pair(p + 128, i) << 4) - 32;
        return (struct format_value){half(p + 208) * (signed_byte(p[192 + i / 16]) * q), 0};
    }
    case WTYPE_IQ4_XS: {
        uint32_t scale = bits_at(p + 4, n * 4, 4) | bits_at(p + 2, n * 2, 2) << 4;
        return (struct format_value){
            half(p) * ((int)scale - 32) * iq4(nibble(p + 8 + (size_t)n * 16, i % 32)), 0};
    }
    default: return (struct format_value){(double)NAN, (double)NAN};
    }
}

static struct format_value affine_value(const struct wmat *w, uint32_t row, uint32_t col)
{
    uint32_t bits = wtype_bits(w->type);
    const uint8_t *stream = w->data + (size_t)row * w->cols * bits / 8;
    size_t g = (size_t)row * (w->cols / w->group) + col / w->group;
    double (*number)(const uint8_t *) = w->f16_scales ? half : brain;
    return (struct format_value){bits_at(stream, col * bits, bits) * number(w->scales + 2 * g),
                                 -number(w->biases + 2 * g)};
}

static double tile_scale(const struct wmat *w, uint32_t row, uint32_t col)
{
    size_t at = (w->tile_row + row) / 128 * (((size_t)w->cols + 127) / 128) + col / 128;
    float f;
    if (!w->f32_scales) return brain(w->scales + 2 * at);
    memcpy(&f, w->scales + 4 * at, 4);
    return (double)f;
}

struct format_value format_value(const struct wmat *w, uint32_t row, uint32_t col)
{
    size_t i = (size_t)row * w->cols + col;
    uint32_t values = 32, bytes;
    float f;
    switch ((int)w->type) {
    case WTYPE_F32: memcpy(&f, w->data + 4 * i, 4); return (struct format_value){(double)f, 0};
    case WTYPE_F16: return (struct format_value){half(w->data + 2 * i), 0};
    case WTYPE_BF16: return (struct format_value){brain(w->data + 2 * i), 0};
    case WTYPE_F8_E4M3: return (struct format_value){e4m3(w->data[i]) * tile_scale(w, row, col), 0};
    case WTYPE_MXFP4_SPLIT:
        return (struct format_value){
            e8m0(w->scales[i / 32]) * e2m1(bits_at(w->data + i / 2, i % 2 * 4, 4)), 0};
    case WTYPE_Q2:
    case WTYPE_Q3:
    case WTYPE_Q4:
    case WTYPE_Q5:
    case WTYPE_Q6:
    case WTYPE_Q8: return affine_value(w, row, col);
    case WTYPE_Q4_0:
    case WTYPE_IQ4_NL: bytes = 18; break;
    case WTYPE_Q4_1: bytes = 20; break;
    case WTYPE_Q5_0: bytes = 22; break;
    case WTYPE_Q5_1: bytes = 24; break;
    case WTYPE_Q8_0: bytes = 34; break;
    case WTYPE_MXFP4: bytes = 17; break;
    case WTYPE_Q2_K: values = 256, bytes = 84; break;
    case WTYPE_Q3_K: values = 256, bytes = 110; break;
    case WTYPE_Q4_K: values = 256, bytes = 144; break;
    case WTYPE_Q5_K: values = 256, bytes = 176; break;
    case WTYPE_Q6_K: values = 256, bytes = 210; break;
    case WTYPE_IQ4_XS: values = 256, bytes = 136; break;
    default: return (struct format_value){(double)NAN, 0};
    }
    return block_value(w->type, w->data + i / values * bytes, col % values);
}

bool format_has_sub(enum wtype type)
{
    switch ((int)type) {
    case WTYPE_Q4_1:
    case WTYPE_Q5_1:
    case WTYPE_Q2_K:
    case WTYPE_Q4_K:
    case WTYPE_Q5_K: return true;
    default: return wtype_kind(type) == WKIND_AFFINE;
    }
}

uint32_t format_halves(enum wtype type, uint32_t at[2])
{
    switch ((int)type) {
    case WTYPE_Q4_0:
    case WTYPE_Q5_0:
    case WTYPE_Q8_0:
    case WTYPE_IQ4_NL:
    case WTYPE_IQ4_XS: at[0] = 0; return 1;
    case WTYPE_Q3_K: at[0] = 108; return 1;
    case WTYPE_Q6_K: at[0] = 208; return 1;
    case WTYPE_Q4_1:
    case WTYPE_Q5_1:
    case WTYPE_Q4_K:
    case WTYPE_Q5_K:
        at[0] = 0;
        at[1] = 2;
        return 2;
    case WTYPE_Q2_K:
        at[0] = 80;
        at[1] = 82;
        return 2;
    default: return 0;
    }
}
