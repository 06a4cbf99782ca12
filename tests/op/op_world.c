/* Where things are in a world: buffers, rows, caches, states, weights decoded bit by bit. */
#include <math.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/fp16.h"
#include "opcheck.h"

uint32_t index_of(uint32_t id)
{
    return (id & 0xfffff) - 1;
}

float *floats(const struct world *w, uint32_t id)
{
    return (float *)(void *)w->at[index_of(id)];
}

int32_t *ints(const struct world *w, uint32_t id)
{
    return (int32_t *)(void *)w->at[index_of(id)];
}

uint32_t width_of(const struct world *w, uint32_t id)
{
    return w->g->buffers.items[index_of(id)].width;
}

uint32_t rows_of(const struct world *w, uint32_t id)
{
    switch (role_rows(w->g->buffers.items[index_of(id)].role)) {
    case ROWS_TOKENS: return w->batch.n_tokens;
    case ROWS_OUTPUTS: return w->batch.n_outputs;
    case ROWS_PICKS: return w->batch.n_tokens * w->g->n_picks;
    default: return 1;
    }
}

const struct weight_data *weight_of(const struct world *w, uint32_t id)
{
    return &w->weights[index_of(id)];
}

void fill(struct world *w, uint32_t id, float lo, float hi)
{
    float *x = floats(w, id);
    size_t n = (size_t)rows_of(w, id) * width_of(w, id);
    for (size_t i = 0; i < n; i++)
        x[i] = rng_below(&w->rng, 50) == 0 ? 0 : rng_float(&w->rng, lo, hi);
}

const struct batch_segment *segment_at(const struct world *w, uint32_t row, uint32_t *position)
{
    for (uint32_t s = 0; s < w->batch.n_segments; s++) {
        const struct batch_segment *seg = &w->batch.segments[s];
        if (row < seg->first || row >= seg->first + seg->count) continue;
        *position = seg->sequence->position + row - seg->first;
        return seg;
    }
    abort();
}

static bool is_paged(const struct state_decl *state)
{
    return state->kind == STATE_kv || state->kind == STATE_latent;
}

/* The place among states of the same home: pages, or recurrent floats. */
static uint32_t place_of(const struct world *w, uint32_t s)
{
    const struct state_decl *states = w->g->states.items;
    uint32_t place = 0, self = index_of(s);
    for (uint32_t i = 0; i < self; i++) place += is_paged(&states[i]) == is_paged(&states[self]);
    return place;
}

size_t cache_at(const struct world *w, uint32_t s, uint32_t position, uint32_t head, bool values)
{
    const struct kv_shape *kv = &w->layout->kv[place_of(w, s)];
    size_t bytes = w->layout->kv_type == KV_F16 ? 2 : 4, page = position / SEQUENCE_PAGE;
    size_t row = (size_t)head * SEQUENCE_PAGE + position % SEQUENCE_PAGE;
    return page * w->layout->page_bytes + (values ? kv->values_off : kv->keys_off) +
           row * kv->head_dim * bytes;
}

double cache_value(const struct world *w, const unsigned char *pages, size_t at, uint32_t i)
{
    if (w->layout->kv_type == KV_F16) {
        uint16_t half;
        memcpy(&half, pages + at + 2 * (size_t)i, sizeof half);
        return f16_to_f32(half);
    }
    float value;
    memcpy(&value, pages + at + 4 * (size_t)i, sizeof value);
    return value;
}

void cache_store(const struct world *w, unsigned char *pages, size_t at, uint32_t i, float value)
{
    if (w->layout->kv_type == KV_F16) {
        uint16_t half = f32_to_f16(value);
        memcpy(pages + at + 2 * (size_t)i, &half, sizeof half);
    } else {
        memcpy(pages + at + 4 * (size_t)i, &value, sizeof value);
    }
}

const struct recurrent_shape *recurrent_of(const struct world *w, uint32_t s, uint32_t *index)
{
    *index = place_of(w, s);
    return &w->layout->recurrent[*index];
}

static double half_at(const uint8_t *data, size_t i, bool brain)
{
    uint32_t u = (uint32_t)data[2 * i] | (uint32_t)data[2 * i + 1] << 8;
    uint32_t bits = brain ? 7 : 10, top = brain ? 255 : 31;
    uint32_t fraction = u & ((1u << bits) - 1), exponent = u >> bits & top;
    double m = exponent ? fraction + (double)(1u << bits) : fraction;
    double value = ldexp(m, (int)(exponent ? exponent : 1) - (int)(top / 2) - (int)bits);
    return u >> 15 ? -value : value;
}

double weight_at(const struct wmat *m, uint32_t row, uint32_t col)
{
    size_t i = (size_t)row * m->cols + col;
    float value;
    switch (m->type) {
    case WTYPE_F32: memcpy(&value, m->data + 4 * i, 4); return value;
    case WTYPE_F16: return half_at(m->data, i, false);
    case WTYPE_BF16: return half_at(m->data, i, true);
    default: break;
    }
    uint32_t bits = wtype_bits(m->type), q = 0;
    const uint8_t *stream = m->data + (size_t)row * (m->cols * bits / 8);
    for (uint32_t b = 0; b < bits; b++) {
        size_t at = (size_t)col * bits + b;
        q |= ((uint32_t)stream[at / 8] >> at % 8 & 1) << b;
    }
    size_t group = i / m->group;
    return q * half_at(m->scales, group, !m->f16_scales) +
           half_at(m->biases, group, !m->f16_scales);
}

enum inputs inputs_of_matrix(const struct world *w, const struct wmat *m)
{
    if (w->int8 && wtype_is_packed(m->type)) return IN_INT8;
    return w->bf16 && m->type == WTYPE_BF16 ? IN_BF16 : IN_F32;
}

enum inputs inputs_of(const struct world *w, uint32_t weight_id)
{
    switch ((int)w->g->weights.items[index_of(weight_id)].role) {
    case WEIGHT_router_proj:
    case WEIGHT_shared_gate_proj:
    case WEIGHT_alpha_proj:
    case WEIGHT_beta_proj:
    case WEIGHT_ba_proj: return IN_F32;
    default: return inputs_of_matrix(w, &weight_of(w, weight_id)->matrix);
    }
}

/* Each 32 values in steps of 1/127 of the largest. */
static void round_to_int8(float *x, uint32_t n)
{
    for (uint32_t at = 0; at + 32 <= n; at += 32) {
        float largest = 0;
        for (uint32_t i = 0; i < 32; i++) largest = fmaxf(largest, fabsf(x[at + i]));
        float step = largest / 127;
        for (uint32_t i = 0; i < 32 && step > 0; i++)
            x[at + i] = step * fminf(fmaxf(rintf(x[at + i] / step), -127), 127);
    }
}

/* To eight significant bits, half to even. */
static void round_to_bf16(float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        int exponent;
        (void)frexp(x[i], &exponent);
        x[i] = (float)ldexp(nearbyint(ldexp(x[i], 8 - exponent)), exponent - 8);
    }
}

static void round_inputs(float *x, uint32_t n, enum inputs inputs)
{
    switch (inputs) {
    case IN_F32: return;
    case IN_INT8: round_to_int8(x, n); return;
    case IN_BF16: round_to_bf16(x, n); return;
    }
}

void product(const struct wmat *m, const float *x, uint32_t n, enum inputs inputs, double *y)
{
    double *row = calloc(m->cols, sizeof *row);
    float *in = calloc((size_t)n * m->cols + 1, sizeof *in);
    if (!row || !in) abort();
    memcpy(in, x, (size_t)n * m->cols * sizeof *in);
    for (uint32_t t = 0; t < n; t++) round_inputs(in + (size_t)t * m->cols, m->cols, inputs);
    for (uint32_t r = 0; r < m->rows; r++) {
        for (uint32_t k = 0; k < m->cols; k++) row[k] = weight_at(m, r, k);
        for (uint32_t t = 0; t < n; t++) {
            double sum = 0;
            for (uint32_t k = 0; k < m->cols; k++) sum += row[k] * in[(size_t)t * m->cols + k];
            y[(size_t)t * m->rows + r] = sum;
        }
    }
    free(in);
    free(row);
}
