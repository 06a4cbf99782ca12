/* Weight rows and activations from one number format to another. */
#include "kernel/simd/unpack_lanes.h"

INLINE void dequant_group(const uint8_t *data, uint32_t group, uint32_t bits, vf scale, vf bias,
                          float *y)
{
    for (uint32_t i = 0; i < group; i += 32)
        for (uint32_t j = 0; j < 32; j += LANES) {
            vf_store(y + i + j, affine_lanes(data + i / 8 * bits, j, bits, scale, bias));
        }
}

INLINE float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

INLINE void dequant_row_of(const struct wmat *w, uint32_t row, uint32_t bits, float *y)
{
    const uint8_t *data = w->data + row * ((size_t)w->cols / 8 * bits);
    size_t groups = w->cols / w->group;
    for (size_t g = 0; g < groups; g++) {
        vf scale = vf_set(affine_at(w, w->scales, row * groups + g));
        vf bias = vf_set(affine_at(w, w->biases, row * groups + g));
        dequant_group(data, w->group, bits, scale, bias, y);
        data += w->group / 8 * bits;
        y += w->group;
    }
}

void SET(dequant_packed_row)(const struct wmat *w, uint32_t row, float *y)
{
    switch (w->type) {
    case WTYPE_Q2: dequant_row_of(w, row, 2, y); break;
    case WTYPE_Q3: dequant_row_of(w, row, 3, y); break;
    case WTYPE_Q4: dequant_row_of(w, row, 4, y); break;
    case WTYPE_Q5: dequant_row_of(w, row, 5, y); break;
    case WTYPE_Q6: dequant_row_of(w, row, 6, y); break;
    case WTYPE_Q8: dequant_row_of(w, row, 8, y); break;
    default: SET(dequant_block_row)(w, row, y);
    }
}

static void dequant_f16_row(const struct wmat *w, uint32_t row, float *y)
{
    const uint8_t *data = w->data + row * row_bytes(w);
    uint32_t i = 0;
    for (; i + LANES <= w->cols; i += LANES) vf_store(y + i, vf_load_f16(data + i * 2ul));
    if (i < w->cols)
        vf_store_tail(y + i, w->cols - i, vf_load_f16_tail(data + i * 2ul, w->cols - i));
}

static void dequant_bf16_row(const struct wmat *w, uint32_t row, float *y)
{
    const uint8_t *data = w->data + row * row_bytes(w);
    uint32_t i = 0;
    for (; i + LANES <= w->cols; i += LANES) vf_store(y + i, vf_load_bf16(data + i * 2ul));
    if (i < w->cols)
        vf_store_tail(y + i, w->cols - i, vf_load_bf16_tail(data + i * 2ul, w->cols - i));
}

static void f32_to_f16_row(const float *x, uint32_t n, uint16_t *y)
{
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES) vf_store_f16(y + i, vf_load(x + i));
    if (i < n) vf_store_f16_tail(y + i, n - i, vf_load_tail(x + i, n - i));
}

/* As integers, the magnitudes of floats are in order, and infinity and NaN come last. */
INLINE float largest_magnitude(const vf *v, uint32_t vectors)
{
    vi max = vi_bits(vf_abs(v[0]));
    for (uint32_t i = 1; i < vectors; i++) max = vi_max(max, vi_bits(vf_abs(v[i])));
    int32_t bits = vi_max_lane(max);
    if (bits >= 0x7f800000) bits = 0x7fc00000;
    return float_of((uint32_t)bits);
}

/* Division gives what the reference gives; where scale is denormal it may exceed 127. */
INLINE vi quantize_lanes(vf x, vf scale)
{
    vf v = vf_div(x, scale);
    return vi_from_float(vf_min(vf_max(v, vf_set(-127)), vf_set(127)));
}

static void quantize_act8(const float *x, uint32_t k, int8_t *q, float *scale, float *sum)
{
    enum { VECTORS = ACT8_GROUP / LANES };
    for (uint32_t a = 0; a < k / ACT8_GROUP; a++, x += ACT8_GROUP, q += ACT8_GROUP) {
        vf v[VECTORS];
        vi ints[VECTORS];
        for (uint32_t i = 0; i < VECTORS; i++) v[i] = vf_load(x + i * LANES);
        float s = largest_magnitude(v, VECTORS) / 127;
        bool finite_scale = s > 0;
        vi total = vi_set(0);
        for (uint32_t i = 0; i < VECTORS; i++) {
            ints[i] = finite_scale ? quantize_lanes(v[i], vf_set(s)) : vi_set(0);
            total = vi_add(total, ints[i]);
        }
        for (uint32_t i = 0; i < VECTORS; i += 2) store_bytes(q + i * LANES, ints[i], ints[i + 1]);
        scale[a] = s;
        sum[a] = s * (float)vi_sum(total);
    }
}

void SET(init_weights)(struct kernels *k)
{
    k->dequant_row[WTYPE_F16] = dequant_f16_row;
    k->dequant_row[WTYPE_BF16] = dequant_bf16_row;
    for (int type = 0; type < WTYPE_COUNT; type++)
        if (wtype_kind((enum wtype)type) != WKIND_FLOAT)
            k->dequant_row[type] = SET(dequant_packed_row);
    k->f32_to_f16_row = f32_to_f16_row;
    k->quantize_act8 = quantize_act8;
}
