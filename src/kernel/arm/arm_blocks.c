/* Rows of GGUF's blocks, MXFP4 and FP8 as floats. */
#include "base/bits.h"
#include "kernel/arm/block_rows.h"

/* Sixteen integers, with their sub-scale, as floats. */
INLINE void widen(int8x16_t q, int16_t sub, vf out[4])
{
    int16x8_t halves[2] = {vmovl_s8(vget_low_s8(q)), vmovl_high_s8(q)};
    for (uint32_t i = 0; i < 2; i++) {
        out[2 * i] = vf_from_int(vmull_n_s16(vget_low_s16(halves[i]), sub));
        out[2 * i + 1] = vf_from_int(vmull_high_n_s16(halves[i], sub));
    }
}

INLINE void dequant_group(enum wtype type, const struct block *b, uint32_t g, float *y)
{
    for (uint32_t i = 0; i < 2; i++) {
        vf v[4];
        widen(b->q[g][i], block_has_sub(type) ? b->sub[2 * g + i] : 1, v);
        for (uint32_t j = 0; j < 4; j++, y += LANES) {
            v[j] = vf_mul(v[j], vf_set(b->scale[g]));
            if (block_has_bias(type)) v[j] = vf_add(v[j], vf_set(b->bias[g]));
            if (block_has_min(type))
                v[j] = vf_sub(v[j], vf_set((float)b->min[2 * g + i] * b->bias[g]));
            vf_store(y, v[j]);
        }
    }
}

INLINE void dequant_row(enum wtype type, const struct wmat *w, uint32_t row, float *y)
{
    const uint8_t *data = w->data + row * row_bytes(w), *scales = split_scales(w, row);
    const uint32_t values = wtype_block_values(type);
    struct block block;
    for (uint32_t n = 0; n < w->cols / values; n++) {
        load_block(type, data, scales, n, &block);
        for (uint32_t g = 0; g < values / ACT8_GROUP; g++, y += ACT8_GROUP)
            dequant_group(type, &block, g, y);
    }
}

/*
 * Eight values of e4m3. With exponent and fraction moved to where f16 has them they are 2^-8 of
 * what they are worth, denormals included.
 */
INLINE void e4m3_values(uint8x8_t bytes, float scale, vf out[2])
{
    uint16x8_t v = vmovl_u8(bytes);
    uint16x8_t magnitude = vandq_u16(v, vdupq_n_u16(0x7f));
    uint16x8_t nan = vceqq_u16(magnitude, vdupq_n_u16(0x7f));
    uint16x8_t sign = vshlq_n_u16(vandq_u16(v, vdupq_n_u16(0x80)), 8);
    uint16x8_t half = vorrq_u16(vorrq_u16(vshlq_n_u16(magnitude, 7), sign), nan);
    uint16x4_t parts[2] = {vget_low_u16(half), vget_high_u16(half)};
    for (uint32_t i = 0; i < 2; i++) {
        vf value = vf_mul(vcvt_f32_f16(vreinterpret_f16_u16(parts[i])), vf_set(256));
        out[i] = vf_mul(value, vf_set(scale));
    }
}

INLINE void dequant_tile(const uint8_t *p, uint32_t n, float scale, float *y)
{
    vf v[2];
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        e4m3_values(vld1_u8(p + i), scale, v);
        vf_store(y + i, v[0]);
        vf_store(y + i + LANES, v[1]);
    }
    if (i < n) {
        uint8_t bytes[8] = {0};
        float values[2 * LANES];
        memcpy(bytes, p + i, n - i);
        e4m3_values(vld1_u8(bytes), scale, v);
        vf_store(values, v[0]);
        vf_store(values + LANES, v[1]);
        memcpy(y + i, values, (n - i) * sizeof *y);
    }
}

static void dequant_row_F8_E4M3(const struct wmat *w, uint32_t row, float *y)
{
    dequant_tiles(w, row, y, dequant_tile);
}

#define DEQUANT_ROW(type)                                                                          \
    static void dequant_row_##type(const struct wmat *w, uint32_t row, float *y)                   \
    {                                                                                              \
        dequant_row(WTYPE_##type, w, row, y);                                                      \
    }

BLOCK_TYPES(DEQUANT_ROW)

void SET(dequant_block_row)(const struct wmat *w, uint32_t row, float *y)
{
    switch ((int)w->type) {
#define CASE(type)                                                                                 \
    case WTYPE_##type: dequant_row_##type(w, row, y); break;
        BLOCK_TYPES(CASE)
        CASE(F8_E4M3)
#undef CASE
    }
}
