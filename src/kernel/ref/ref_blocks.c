/*
 * Blocks of weights, one activation group at a time. The layouts are those of GGUF's tensor types
 * and of the OCP microscaling formats (MXFP4: e2m1 codes, e8m0 scales).
 */
#include <math.h>
#include <string.h>

#include "base/fp16.h"
#include "kernel/ref/ref.h"

enum { SUPER = 256, HALF_GROUP = ACT8_GROUP / 2 };

static float f16_at(const uint8_t *p)
{
    return f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)(p[0] | p[1] << 8 | p[2] << 16) | (uint32_t)p[3] << 24;
}

/* Sixteen bytes: first all low halves, then all high ones. */
static void halves_apart(const uint8_t *bytes, int16_t *q)
{
    for (uint32_t i = 0; i < HALF_GROUP; i++) {
        q[i] = bytes[i] & 15;
        q[i + HALF_GROUP] = bytes[i] >> 4;
    }
}

static void add_to_all(int16_t *q, int offset)
{
    for (uint32_t i = 0; i < ACT8_GROUP; i++) q[i] = (int16_t)(q[i] + offset);
}

static void look_up(int16_t *q, const int8_t table[16])
{
    for (uint32_t i = 0; i < ACT8_GROUP; i++) q[i] = table[q[i]];
}

/* Blocks of 32 values */

static void q4_group(const uint8_t *block, struct ref_group *g)
{
    g->scale = f16_at(block);
    halves_apart(block + 2, g->q);
    add_to_all(g->q, -8);
}

static void q4_bias_group(const uint8_t *block, struct ref_group *g)
{
    g->scale = f16_at(block);
    g->bias = f16_at(block + 2);
    halves_apart(block + 4, g->q);
}

/* The fifth bits are one word, value i's at bit i. */
static void q5_values(const uint8_t *fifth, const uint8_t *low, int16_t *q)
{
    uint32_t bits = u32_at(fifth);
    halves_apart(low, q);
    for (uint32_t i = 0; i < ACT8_GROUP; i++) q[i] = (int16_t)(q[i] + (int)(bits >> i & 1) * 16);
}

static void q5_group(const uint8_t *block, struct ref_group *g)
{
    g->scale = f16_at(block);
    q5_values(block + 2, block + 6, g->q);
    add_to_all(g->q, -16);
}

static void q5_bias_group(const uint8_t *block, struct ref_group *g)
{
    g->scale = f16_at(block);
    g->bias = f16_at(block + 2);
    q5_values(block + 4, block + 8, g->q);
}

static void q8_group(const uint8_t *block, struct ref_group *g)
{
    g->scale = f16_at(block);
    for (uint32_t i = 0; i < ACT8_GROUP; i++) g->q[i] = (int8_t)block[2 + i];
}

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};

static void iq4_group(const uint8_t *block, struct ref_group *g)
{
    g->scale = f16_at(block);
    halves_apart(block + 2, g->q);
    look_up(g->q, iq4_values);
}

/* Twice the value of each e2m1 code, so that all are whole. */
static const int8_t e2m1_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* 2^(e - 128): half of the scale that e8m0 means. 255 is NaN. */
static float e8m0_half(uint8_t e)
{
    return e == 255 ? NAN : ldexpf(1, e - 128);
}

static void mxfp4_group(const uint8_t *block, struct ref_group *g)
{
    g->scale = e8m0_half(block[0]);
    halves_apart(block + 1, g->q);
    look_up(g->q, e2m1_values);
}

static void mxfp4_split_group(const uint8_t *codes, uint8_t scale, struct ref_group *g)
{
    g->scale = e8m0_half(scale);
    for (uint32_t i = 0; i < ACT8_GROUP; i++) g->q[i] = codes[i / 2] >> i % 2 * 4 & 15;
    look_up(g->q, e2m1_values);
}

/* Blocks of 256 values; n is the group within, 0 .. 7 */

/* The pairs of bits of group n: byte i of the 32 of its half has value i of four groups. */
static void pair_values(const uint8_t *bytes, uint32_t n, int16_t *q)
{
    for (uint32_t i = 0; i < ACT8_GROUP; i++) q[i] = bytes[n / 4 * 32 + i] >> n % 4 * 2 & 3;
}

static void times_halves(int16_t *q, int first, int second)
{
    for (uint32_t i = 0; i < ACT8_GROUP; i++)
        q[i] = (int16_t)(q[i] * (i < HALF_GROUP ? first : second));
}

/* scales and minima of sixteen values in one byte [16], values [64], scale, scale of minima */
static void q2_k_group(const uint8_t *block, uint32_t n, struct ref_group *g)
{
    const uint8_t *scales = block + n * 2;
    g->scale = f16_at(block + 80);
    g->min_scale = -f16_at(block + 82);
    pair_values(block + 16, n, g->q);
    times_halves(g->q, scales[0] & 15, scales[1] & 15);
    g->min[0] = scales[0] >> 4;
    g->min[1] = scales[1] >> 4;
}

/* Sixteen numbers of six bits in twelve bytes: eight bytes of low halves, then the high pairs. */
static int q3_k_scale(const uint8_t *packed, uint32_t i)
{
    uint32_t low = packed[i % 8] >> i / 8 * 4 & 15;
    uint32_t high = packed[8 + i % 4] >> i / 4 * 2 & 3;
    return (int)(low | high << 4) - 32;
}

/* high bits [32], low pairs [64], scales [12], scale; a high bit that is not set means minus 4 */
static void q3_k_group(const uint8_t *block, uint32_t n, struct ref_group *g)
{
    const uint8_t *scales = block + 96;
    g->scale = f16_at(block + 108);
    pair_values(block + 32, n, g->q);
    for (uint32_t i = 0; i < ACT8_GROUP; i++)
        g->q[i] = (int16_t)(g->q[i] - (block[i] >> n & 1 ? 0 : 4));
    times_halves(g->q, q3_k_scale(scales, 2 * n), q3_k_scale(scales, 2 * n + 1));
}

/* Eight scales and eight minima of six bits in twelve bytes. */
static void q4_k_scale(const uint8_t *packed, uint32_t n, uint32_t *scale, uint32_t *min)
{
    if (n < 4) {
        *scale = packed[n] & 63;
        *min = packed[n + 4] & 63;
    } else {
        *scale = (packed[n + 4] & 15u) | (uint32_t)packed[n - 4] >> 6 << 4;
        *min = (uint32_t)packed[n + 4] >> 4 | (uint32_t)packed[n] >> 6 << 4;
    }
}

/* scale, scale of minima, scales and minima [12] */
static void scale_k_group(const uint8_t *block, uint32_t n, struct ref_group *g)
{
    uint32_t scale, min;
    q4_k_scale(block + 4, n, &scale, &min);
    g->scale = f16_at(block);
    g->min_scale = -f16_at(block + 2);
    times_halves(g->q, (int)scale, (int)scale);
    g->min[0] = g->min[1] = (int16_t)min;
}

/* Byte i of 32 has value i of two groups. */
static void half_values(const uint8_t *bytes, uint32_t n, int16_t *q)
{
    for (uint32_t i = 0; i < ACT8_GROUP; i++) q[i] = bytes[n / 2 * 32 + i] >> n % 2 * 4 & 15;
}

static void q4_k_group(const uint8_t *block, uint32_t n, struct ref_group *g)
{
    half_values(block + 16, n, g->q);
    scale_k_group(block, n, g);
}

/* as Q4_K, with the fifth bits [32] before the values: those of group n at bit n */
static void q5_k_group(const uint8_t *block, uint32_t n, struct ref_group *g)
{
    half_values(block + 48, n, g->q);
    for (uint32_t i = 0; i < ACT8_GROUP; i++)
        g->q[i] = (int16_t)(g->q[i] | (block[16 + i] >> n & 1) << 4);
    scale_k_group(block, n, g);
}

/*
 * low halves [128], high pairs [64], scales of sixteen values [16], scale. Of each 128 values the
 * low halves are 64 bytes: groups 0 and 1 in the low halves of the bytes, 2 and 3 in the high ones.
 */
static void q6_k_group(const uint8_t *block, uint32_t n, struct ref_group *g)
{
    const uint8_t *low = block + n / 4 * 64 + n % 2 * 32;
    const int8_t *scales = (const int8_t *)block + 192 + n * 2;
    uint32_t shift = n % 4 / 2 * 4;
    g->scale = f16_at(block + 208);
    pair_values(block + 128, n, g->q);
    for (uint32_t i = 0; i < ACT8_GROUP; i++)
        g->q[i] = (int16_t)((g->q[i] << 4 | (low[i] >> shift & 15)) - 32);
    times_halves(g->q, scales[0], scales[1]);
}

/* scale, high pairs of the scales [2], low halves of the scales [4], values [8][16] */
static void iq4_xs_group(const uint8_t *block, uint32_t n, struct ref_group *g)
{
    uint32_t high = (uint32_t)(block[2] | block[3] << 8) >> 2 * n & 3;
    uint32_t low = block[4 + n / 2] >> n % 2 * 4 & 15;
    g->scale = f16_at(block) * (float)((int)(low | high << 4) - 32);
    halves_apart(block + 8 + (size_t)n * HALF_GROUP, g->q);
    look_up(g->q, iq4_values);
}

static bool has_bias(enum wtype type)
{
    return type == WTYPE_Q4_1 || type == WTYPE_Q5_1;
}

static bool has_min(enum wtype type)
{
    return type == WTYPE_Q2_K || type == WTYPE_Q4_K || type == WTYPE_Q5_K;
}

static void block_group(enum wtype type, const uint8_t *block, uint32_t n, struct ref_group *g)
{
    switch ((int)type) {
    case WTYPE_Q4_0: q4_group(block, g); break;
    case WTYPE_Q4_1: q4_bias_group(block, g); break;
    case WTYPE_Q5_0: q5_group(block, g); break;
    case WTYPE_Q5_1: q5_bias_group(block, g); break;
    case WTYPE_Q8_0: q8_group(block, g); break;
    case WTYPE_IQ4_NL: iq4_group(block, g); break;
    case WTYPE_MXFP4: mxfp4_group(block, g); break;
    case WTYPE_Q2_K: q2_k_group(block, n, g); break;
    case WTYPE_Q3_K: q3_k_group(block, n, g); break;
    case WTYPE_Q4_K: q4_k_group(block, n, g); break;
    case WTYPE_Q5_K: q5_k_group(block, n, g); break;
    case WTYPE_Q6_K: q6_k_group(block, n, g); break;
    case WTYPE_IQ4_XS: iq4_xs_group(block, n, g); break;
    }
}

void ref_unpack_group(const struct wmat *w, uint32_t row, uint32_t a, struct ref_group *g)
{
    const uint8_t *data = w->data + row * wtype_row_bytes(w->type, w->cols);
    uint32_t per_block = wtype_block_values(w->type) / ACT8_GROUP;
    const uint8_t *block = data + (size_t)(a / per_block) * wtype_block_bytes(w->type);
    g->bias = g->min_scale = 0;
    g->min[0] = g->min[1] = 0;
    if (w->type == WTYPE_MXFP4_SPLIT) {
        mxfp4_split_group(block, w->scales[(size_t)row * (w->cols / ACT8_GROUP) + a], g);
    } else {
        block_group(w->type, block, a % per_block, g);
    }
}

void ref_dequant_blocks(const struct wmat *w, uint32_t row, float *y)
{
    bool bias = has_bias(w->type), min = has_min(w->type);
    struct ref_group g;
    for (uint32_t a = 0; a < w->cols / ACT8_GROUP; a++, y += ACT8_GROUP) {
        ref_unpack_group(w, row, a, &g);
        for (uint32_t i = 0; i < ACT8_GROUP; i++) {
            y[i] = (float)g.q[i] * g.scale;
            if (bias) y[i] += g.bias;
            if (min) y[i] += (float)g.min[i / HALF_GROUP] * g.min_scale;
        }
    }
}

static int32_t dot(const int16_t *q, const int8_t *x)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < ACT8_GROUP; i++) sum += q[i] * x[i];
    return sum;
}

static int32_t min_dot(const int16_t min[2], const int8_t *x)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < ACT8_GROUP; i++) sum += min[i / HALF_GROUP] * x[i];
    return sum;
}

float ref_row_dot_i8(enum wtype type, const struct ref_group *groups, const struct act8 *x,
                     size_t t)
{
    uint32_t act_groups = x->cols / ACT8_GROUP;
    const int8_t *xq = x->q + t * x->cols;
    bool bias = has_bias(type), min = has_min(type);
    float acc = 0;
    for (uint32_t a = 0; a < act_groups; a++, xq += ACT8_GROUP) {
        const struct ref_group *g = &groups[a];
        size_t at = t * act_groups + a;
        float term = (float)dot(g->q, xq);
        if (min) {
            term = term * g->scale + (float)min_dot(g->min, xq) * g->min_scale;
            term *= x->scale[at];
        } else {
            term *= g->scale * x->scale[at];
        }
        if (bias) term += g->bias * x->sum[at];
        acc += term;
    }
    return acc;
}
