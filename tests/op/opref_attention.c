/* Softmax attention: angles, rotation, cache, attention, gate. */
#include <math.h>
#include <stdlib.h>

#include "opcheck.h"

void gen_rope_angles(struct world *w, const struct op_rope_angles *o)
{
    uint32_t half = width_of(w, o->freqs.id);
    for (uint32_t i = 0; i < half; i++)
        floats(w, o->freqs.id)[i] = powf(10000.0f, -(float)i / (float)half);
}

/* The angle is rounded to f32, as the model's reference implementation does. */
void ref_rope_angles(const struct world *w, const struct op_rope_angles *o, struct expected *e)
{
    uint32_t half = width_of(w, o->freqs.id), position;
    for (uint32_t t = 0; t < w->batch.n_tokens; t++) {
        segment_at(w, t, &position);
        double *row = e->out[0] + (size_t)t * 2 * half;
        for (uint32_t i = 0; i < half; i++) {
            float angle = (float)position * floats(w, o->freqs.id)[i];
            row[i] = (double)o->scale * cos((double)angle);
            row[half + i] = (double)o->scale * sin((double)angle);
        }
    }
}

void gen_split_q_gate(struct world *w, const struct op_split_q_gate *o)
{
    fill(w, o->x.id, -9, 9);
}

void ref_split_q_gate(const struct world *w, const struct op_split_q_gate *o, struct expected *e)
{
    uint32_t dim = o->head_dim, heads = width_of(w, o->x.id) / dim / 2;
    for (size_t i = 0; i < (size_t)w->batch.n_tokens * heads * dim; i++) {
        size_t head = i / dim;
        e->out[0][i] = floats(w, o->x.id)[head * 2 * dim + i % dim];
        e->out[1][i] = floats(w, o->x.id)[(head * 2 + 1) * dim + i % dim];
    }
}

void gen_rope(struct world *w, const struct op_rope *o)
{
    fill(w, o->x.id, -4, 4);
    for (uint32_t t = 0; t < w->batch.n_tokens; t++)
        for (uint32_t i = 0; i < o->rotary_dim / 2; i++) {
            float *row = floats(w, o->table.id) + (size_t)t * o->rotary_dim;
            float angle = rng_float(&w->rng, 0, 300);
            row[i] = cosf(angle);
            row[i + o->rotary_dim / 2] = sinf(angle);
        }
}

void ref_rope(const struct world *w, const struct op_rope *o, struct expected *e)
{
    uint32_t half = o->rotary_dim / 2, heads = width_of(w, o->x.id) / o->head_dim;
    for (size_t h = 0; h < (size_t)w->batch.n_tokens * heads; h++) {
        const float *x = floats(w, o->x.id) + h * o->head_dim;
        const float *table = floats(w, o->table.id) + h / heads * o->rotary_dim;
        double *y = e->out[0] + h * o->head_dim;
        for (uint32_t i = 0; i < o->head_dim; i++) y[i] = x[i];
        for (uint32_t i = 0; i < half; i++) {
            uint32_t a = o->pairs ? 2 * i : i, b = o->pairs ? 2 * i + 1 : half + i;
            double c = table[i], s = table[half + i];
            y[a] = c * x[a] - s * x[b];
            y[b] = s * x[a] + c * x[b];
        }
    }
}

void gen_kv_append(struct world *w, const struct op_kv_append *o)
{
    fill(w, o->k.id, -8, 8);
    fill(w, o->v.id, -8, 8);
}

static void append(const struct world *w, const struct op_kv_append *o, uint32_t row,
                   struct expected *e, bool values)
{
    uint32_t position, dim = o->head_dim;
    const struct batch_segment *s = segment_at(w, row, &position);
    const float *x = floats(w, values ? o->v.id : o->k.id);
    for (uint32_t h = 0; h < o->n_kv_heads; h++)
        for (uint32_t i = 0; i < dim; i++)
            cache_store(w, e->pages[s - w->batch.segments],
                        cache_at(w, o->cache.id, position, h, values), i,
                        x[((size_t)row * o->n_kv_heads + h) * dim + i]);
}

void ref_kv_append(const struct world *w, const struct op_kv_append *o, struct expected *e)
{
    for (uint32_t t = 0; t < w->batch.n_tokens; t++) {
        append(w, o, t, e, false);
        append(w, o, t, e, true);
    }
}

/* What attention and sink_attention look at. */
struct heads {
    uint32_t q, cache, n, n_kv, dim, window;
    double scale;
    const float *sinks; /* NULL: none */
};

static struct heads heads_of(const struct op_attention *o)
{
    return (struct heads){.q = o->q.id,
                          .cache = o->cache.id,
                          .n = o->n_heads,
                          .n_kv = o->n_kv_heads,
                          .dim = o->head_dim,
                          .window = o->window,
                          .scale = o->scale};
}

static struct heads sink_heads_of(const struct world *w, const struct op_sink_attention *o)
{
    return (struct heads){.q = o->q.id,
                          .cache = o->cache.id,
                          .n = o->n_heads,
                          .n_kv = o->n_kv_heads,
                          .dim = o->head_dim,
                          .window = o->window,
                          .scale = o->scale,
                          .sinks = weight_of(w, o->sinks.id)->values};
}

/* The batch's keys and values are in the cache by then. */
static void gen_heads(struct world *w, const struct heads *o)
{
    fill(w, o->q, -3, 3);
    for (uint32_t t = 0; t < w->batch.n_tokens; t++) {
        uint32_t position;
        const struct batch_segment *s = segment_at(w, t, &position);
        for (uint32_t h = 0; h < o->n_kv; h++)
            for (uint32_t i = 0; i < o->dim; i++) {
                size_t k = cache_at(w, o->cache, position, h, false);
                size_t v = cache_at(w, o->cache, position, h, true);
                cache_store(w, s->sequence->pages, k, i, rng_float(&w->rng, -2, 2));
                cache_store(w, s->sequence->pages, v, i, rng_float(&w->rng, -2, 2));
            }
    }
}

static void attend(const struct world *w, const struct heads *o, uint32_t row, uint32_t head,
                   double *score, double *y)
{
    uint32_t last, kv_head = head / (o->n / o->n_kv);
    const unsigned char *pages = segment_at(w, row, &last)->sequence->pages;
    const float *q = floats(w, o->q) + ((size_t)row * o->n + head) * o->dim;
    double max = o->sinks ? (double)o->sinks[head] : -INFINITY, sum = 0;
    uint32_t first = o->window && last + 1 > o->window ? last + 1 - o->window : 0;
    for (uint32_t p = first; p <= last; p++) {
        size_t key = cache_at(w, o->cache, p, kv_head, false);
        score[p] = 0;
        for (uint32_t i = 0; i < o->dim; i++) score[p] += q[i] * cache_value(w, pages, key, i);
        score[p] *= o->scale;
        max = fmax(max, score[p]);
    }
    if (o->sinks) sum = exp((double)o->sinks[head] - max);
    for (uint32_t p = first; p <= last; p++) {
        size_t value = cache_at(w, o->cache, p, kv_head, true);
        double weight = exp(score[p] - max);
        sum += weight;
        for (uint32_t i = 0; i < o->dim; i++) y[i] += weight * cache_value(w, pages, value, i);
    }
    for (uint32_t i = 0; i < o->dim; i++) y[i] /= sum;
}

static void ref_heads(const struct world *w, const struct heads *o, double *y)
{
    double *score = calloc(w->segments[0].sequence->n_ctx, sizeof *score);
    if (!score) abort();
    for (uint32_t t = 0; t < w->batch.n_tokens; t++)
        for (uint32_t h = 0; h < o->n; h++)
            attend(w, o, t, h, score, y + ((size_t)t * o->n + h) * o->dim);
    free(score);
}

void gen_attention(struct world *w, const struct op_attention *o)
{
    struct heads h = heads_of(o);
    gen_heads(w, &h);
}

void ref_attention(const struct world *w, const struct op_attention *o, struct expected *e)
{
    struct heads h = heads_of(o);
    ref_heads(w, &h, e->out[0]);
}

void gen_sink_attention(struct world *w, const struct op_sink_attention *o)
{
    struct heads h = sink_heads_of(w, o);
    gen_heads(w, &h);
}

void ref_sink_attention(const struct world *w, const struct op_sink_attention *o,
                        struct expected *e)
{
    struct heads h = sink_heads_of(w, o);
    ref_heads(w, &h, e->out[0]);
}

void gen_sigmoid_gate(struct world *w, const struct op_sigmoid_gate *o)
{
    fill(w, o->x.id, -3, 3);
    fill(w, o->gate.id, -30, 30);
}

void ref_sigmoid_gate(const struct world *w, const struct op_sigmoid_gate *o, struct expected *e)
{
    size_t n = (size_t)w->batch.n_tokens * width_of(w, o->x.id);
    for (size_t i = 0; i < n; i++)
        e->out[0][i] = floats(w, o->x.id)[i] / (1 + exp(-(double)floats(w, o->gate.id)[i]));
}
