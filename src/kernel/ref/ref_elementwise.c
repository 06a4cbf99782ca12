#include <math.h>

#include "base/fp16.h"
#include "kernel/ref/ref.h"

float ref_sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

float ref_silu(float x)
{
    return x / (1 + expf(-x));
}

static void add(const float *a, const float *b, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

static void scale(const float *x, float factor, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] * factor;
}

static void swiglu(const float *gate, const float *up, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) y[i] = ref_silu(gate[i]) * up[i];
}

/* As fminf and fmaxf, but NaN stays. */
static float clamp(float x, float low, float high)
{
    return x < low ? low : x > high ? high : x;
}

static void swiglu_clamped(const float *gate, const float *up, uint32_t n, float limit, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float g = clamp(gate[i], -INFINITY, limit), u = clamp(up[i], -limit, limit);
        y[i] = g * ref_sigmoid(g * 1.702f) * (u + 1);
    }
}

static void sigmoid_gate(const float *x, const float *gate, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] * ref_sigmoid(gate[i]);
}

static void rope(const float *x, const float *cos_sin, uint32_t head_dim, uint32_t rotary_dim,
                 float *y)
{
    uint32_t half = rotary_dim / 2;
    const float *cosine = cos_sin, *sine = cos_sin + half;
    for (uint32_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        y[i] = a * cosine[i] - b * sine[i];
        y[i + half] = b * cosine[i] + a * sine[i];
    }
    for (uint32_t i = rotary_dim; i < head_dim; i++) y[i] = x[i];
}

static void rope_pairs(const float *x, const float *cos_sin, uint32_t head_dim, uint32_t rotary_dim,
                       float *y)
{
    uint32_t half = rotary_dim / 2;
    for (uint32_t i = 0; i < half; i++) {
        float a = x[2 * i], b = x[2 * i + 1], c = cos_sin[i], s = cos_sin[half + i];
        y[2 * i] = a * c - b * s;
        y[2 * i + 1] = b * c + a * s;
    }
    for (uint32_t i = rotary_dim; i < head_dim; i++) y[i] = x[i];
}

static void f32_to_f16_row(const float *x, uint32_t n, uint16_t *y)
{
    for (uint32_t i = 0; i < n; i++) y[i] = f32_to_f16(x[i]);
}

void ref_init_elementwise(struct kernels *k)
{
    k->add = add;
    k->scale = scale;
    k->swiglu = swiglu;
    k->swiglu_clamped = swiglu_clamped;
    k->sigmoid_gate = sigmoid_gate;
    k->rope = rope;
    k->rope_pairs = rope_pairs;
    k->f32_to_f16_row = f32_to_f16_row;
}
