/* Weight matrices as they lie in files: bit streams and small floats at any byte address. */
#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "base/fp16.h"
#include "kernel/ref/ref.h"

static uint16_t load_u16(const uint8_t *array, size_t i)
{
    uint16_t h;
    memcpy(&h, array + i * 2, sizeof h);
    return h;
}

float ref_bf16_at(const uint8_t *array, size_t i)
{
    return bf16_to_f32(load_u16(array, i));
}

float ref_affine_at(const struct wmat *w, const uint8_t *array, size_t i)
{
    return w->f16_scales ? f16_to_f32(load_u16(array, i)) : ref_bf16_at(array, i);
}

static const uint8_t *row_at(const struct wmat *w, uint32_t row)
{
    return w->data + row * wtype_row_bytes(w->type, w->cols);
}

/* Value i is bits [i * bits, (i + 1) * bits) of the row read as one little-endian number. */
static uint8_t stream_value(const uint8_t *stream, size_t i, uint32_t bits)
{
    size_t first = i * bits;
    uint32_t shift = (uint32_t)(first % 8);
    uint32_t window = stream[first / 8];
    if (shift + bits > 8) window |= (uint32_t)stream[first / 8 + 1] << 8;
    return (uint8_t)(window >> shift & ((1u << bits) - 1));
}

void ref_unpack_row(const struct wmat *w, uint32_t row, uint8_t *q)
{
    const uint8_t *stream = row_at(w, row);
    uint32_t bits = wtype_bits(w->type);
    if (bits == 8) {
        memcpy(q, stream, w->cols);
    } else if (bits == 4) {
        for (uint32_t i = 0; i < w->cols; i++) q[i] = stream[i / 2] >> i % 2 * 4 & 15;
    } else {
        for (uint32_t i = 0; i < w->cols; i++) q[i] = stream_value(stream, i, bits);
    }
}

static void dequant_affine(const struct wmat *w, uint32_t row, float *y)
{
    const uint8_t *stream = row_at(w, row);
    uint32_t bits = wtype_bits(w->type);
    uint32_t groups = w->cols / w->group;
    for (uint32_t g = 0; g < groups; g++) {
        float scale = ref_affine_at(w, w->scales, (size_t)row * groups + g);
        float bias = ref_affine_at(w, w->biases, (size_t)row * groups + g);
        for (uint32_t i = g * w->group; i < (g + 1) * w->group; i++)
            y[i] = (float)stream_value(stream, i, bits) * scale + bias;
    }
}

/* e4m3 without infinities (OCP 8-bit floating point): bias 7, all ones NaN. */
static float e4m3_to_f32(uint8_t v)
{
    uint32_t exponent = v >> 3 & 15, fraction = v & 7;
    float magnitude =
        exponent ? ldexpf((float)(8 + fraction), (int)exponent - 10) : ldexpf((float)fraction, -9);
    if (exponent == 15 && fraction == 7) magnitude = NAN;
    return v & 128 ? -magnitude : magnitude;
}

static float tile_scale(const struct wmat *w, uint32_t row, uint32_t col)
{
    size_t across = div_up_u32(w->cols, WTILE);
    size_t at = (w->tile_row + row) / WTILE * across + col / WTILE;
    float scale;
    if (!w->f32_scales) return ref_bf16_at(w->scales, at);
    memcpy(&scale, w->scales + at * sizeof scale, sizeof scale);
    return scale;
}

static void dequant_tiled(const struct wmat *w, uint32_t row, const uint8_t *data, float *y)
{
    for (uint32_t i = 0; i < w->cols; i++) y[i] = e4m3_to_f32(data[i]) * tile_scale(w, row, i);
}

void ref_dequant_row(const struct wmat *w, uint32_t row, float *y)
{
    const uint8_t *data = row_at(w, row);
    switch ((int)w->type) {
    case WTYPE_F32: memcpy(y, data, (size_t)w->cols * sizeof *y); break;
    case WTYPE_F16:
        for (uint32_t i = 0; i < w->cols; i++) y[i] = f16_to_f32(load_u16(data, i));
        break;
    case WTYPE_BF16:
        for (uint32_t i = 0; i < w->cols; i++) y[i] = ref_bf16_at(data, i);
        break;
    case WTYPE_F8_E4M3: dequant_tiled(w, row, data, y); break;
    default:
        if (wtype_kind(w->type) == WKIND_AFFINE) {
            dequant_affine(w, row, y);
        } else {
            ref_dequant_blocks(w, row, y);
        }
    }
}
