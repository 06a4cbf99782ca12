/* One element in, one element out: any split of the operands gives the same bits. */
#include "kernel/simd/sets.h"

static void add(const float *a, const float *b, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i += LANES) {
        uint32_t left = n - i;
        vf_store_upto(y + i, left, vf_add(vf_load_upto(a + i, left), vf_load_upto(b + i, left)));
    }
}

static void scale(const float *x, float factor, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i += LANES)
        vf_store_upto(y + i, n - i, vf_mul(vf_load_upto(x + i, n - i), vf_set(factor)));
}

static void swiglu(const float *gate, const float *up, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i += LANES) {
        vf g = vf_load_upto(gate + i, n - i), u = vf_load_upto(up + i, n - i);
        vf_store_upto(y + i, n - i, vf_mul(vf_silu(g), u));
    }
}

/* The second operand of vf_min and vf_max is what a NaN may be. */
static void swiglu_clamped(const float *gate, const float *up, uint32_t n, float limit, float *y)
{
    vf high = vf_set(limit), low = vf_set(-limit), one = vf_set(1);
    for (uint32_t i = 0; i < n; i += LANES) {
        vf g = vf_min(high, vf_load_upto(gate + i, n - i));
        vf u = vf_max(low, vf_min(high, vf_load_upto(up + i, n - i)));
        vf glu = vf_mul(g, vf_sigmoid(vf_mul(g, vf_set(1.702f))));
        vf_store_upto(y + i, n - i, vf_mul(glu, vf_add(u, one)));
    }
}

static void sigmoid_gate(const float *x, const float *gate, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i += LANES) {
        vf g = vf_load_upto(gate + i, n - i), v = vf_load_upto(x + i, n - i);
        vf_store_upto(y + i, n - i, vf_mul(v, vf_sigmoid(g)));
    }
}

/* Rounds each product, as the reference does. */
static void rope(const float *x, const float *cos_sin, uint32_t head_dim, uint32_t rotary_dim,
                 float *y)
{
    uint32_t half = rotary_dim / 2;
    for (uint32_t i = 0; i < half; i += LANES) {
        uint32_t left = half - i;
        vf a = vf_load_upto(x + i, left), b = vf_load_upto(x + half + i, left);
        vf c = vf_load_upto(cos_sin + i, left), s = vf_load_upto(cos_sin + half + i, left);
        vf_store_upto(y + i, left, vf_sub(vf_mul(a, c), vf_mul(b, s)));
        vf_store_upto(y + half + i, left, vf_add(vf_mul(b, c), vf_mul(a, s)));
    }
    for (uint32_t i = rotary_dim; i < head_dim; i += LANES)
        vf_store_upto(y + i, head_dim - i, vf_load_upto(x + i, head_dim - i));
}

static void rope_pairs(const float *x, const float *cos_sin, uint32_t head_dim, uint32_t rotary_dim,
                       float *y)
{
    uint32_t half = rotary_dim / 2, i = 0;
    for (; i + LANES / 2 <= half; i += LANES / 2) {
        vf v = vf_load(x + 2 * i), c = vf_load_twice(cos_sin + i);
        vf s = vf_load_twice(cos_sin + half + i);
        vf_store(y + 2 * i, vf_sub_add(vf_mul(v, c), vf_mul(vf_swap_pairs(v), s)));
    }
    for (; i < half; i++) {
        float a = x[2 * i], b = x[2 * i + 1], c = cos_sin[i], s = cos_sin[half + i];
        y[2 * i] = a * c - b * s;
        y[2 * i + 1] = b * c + a * s;
    }
    for (i = rotary_dim; i < head_dim; i += LANES)
        vf_store_upto(y + i, head_dim - i, vf_load_upto(x + i, head_dim - i));
}

void SET(init_elementwise)(struct kernels *k)
{
    k->add = add;
    k->scale = scale;
    k->swiglu = swiglu;
    k->swiglu_clamped = swiglu_clamped;
    k->sigmoid_gate = sigmoid_gate;
    k->rope = rope;
    k->rope_pairs = rope_pairs;
}
