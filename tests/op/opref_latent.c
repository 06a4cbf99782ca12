/* Multi-head latent attention: splits, absorbed projections, cache, attention. */
#include <math.h>
#include <stdlib.h>

#include "opcheck.h"

void gen_split_mla_q(struct world *w, const struct op_split_mla_q *o)
{
    fill(w, o->x.id, -9, 9);
}

void ref_split_mla_q(const struct world *w, const struct op_split_mla_q *o, struct expected *e)
{
    uint32_t width = width_of(w, o->x.id) / o->n_heads, nope = width - o->rotated;
    for (size_t i = 0; i < (size_t)w->batch.n_tokens * o->n_heads * width; i++) {
        size_t head = i / width, at = i % width;
        if (at < nope)
            e->out[0][head * nope + at] = floats(w, o->x.id)[i];
        else
            e->out[1][head * o->rotated + at - nope] = floats(w, o->x.id)[i];
    }
}

void gen_split_latent(struct world *w, const struct op_split_latent *o)
{
    fill(w, o->x.id, -9, 9);
}

void ref_split_latent(const struct world *w, const struct op_split_latent *o, struct expected *e)
{
    uint32_t width = width_of(w, o->x.id), rotated = width - o->rank;
    for (size_t i = 0; i < (size_t)w->batch.n_tokens * width; i++) {
        size_t row = i / width, at = i % width;
        if (at < o->rank)
            e->out[0][row * o->rank + at] = floats(w, o->x.id)[i];
        else
            e->out[1][row * rotated + at - o->rank] = floats(w, o->x.id)[i];
    }
}

/* Element of a head's matrix as it is declared. */
static double head_weight(const struct weight_data *d, uint32_t head, uint32_t row, uint32_t col)
{
    uint32_t first = d->heads.first + head * d->heads.stride;
    return d->heads.transposed ? weight_at(&d->matrix, first + col, row)
                               : weight_at(&d->matrix, first + row, col);
}

void gen_absorb(struct world *w, const struct op_absorb *o)
{
    fill(w, o->x.id, -2, 2);
}

void ref_absorb(const struct world *w, const struct op_absorb *o, struct expected *e)
{
    const struct weight_data *d = weight_of(w, o->w.id);
    uint32_t nope = width_of(w, o->x.id) / o->n_heads, rank = width_of(w, o->y.id) / o->n_heads;
    for (size_t i = 0; i < (size_t)w->batch.n_tokens * o->n_heads; i++)
        for (uint32_t r = 0; r < nope; r++)
            for (uint32_t c = 0; c < rank; c++)
                e->out[0][i * rank + c] += head_weight(d, (uint32_t)(i % o->n_heads), r, c) *
                                           (double)floats(w, o->x.id)[i * nope + r];
}

void gen_expand(struct world *w, const struct op_expand *o)
{
    fill(w, o->x.id, -2, 2);
}

void ref_expand(const struct world *w, const struct op_expand *o, struct expected *e)
{
    const struct weight_data *d = weight_of(w, o->w.id);
    uint32_t rank = width_of(w, o->x.id) / o->n_heads, values = width_of(w, o->y.id) / o->n_heads;
    for (size_t i = 0; i < (size_t)w->batch.n_tokens * o->n_heads; i++)
        for (uint32_t r = 0; r < values; r++)
            for (uint32_t c = 0; c < rank; c++)
                e->out[0][i * values + r] += head_weight(d, (uint32_t)(i % o->n_heads), r, c) *
                                             (double)floats(w, o->x.id)[i * rank + c];
}

void gen_latent_append(struct world *w, const struct op_latent_append *o)
{
    fill(w, o->latent.id, -8, 8);
    fill(w, o->rot.id, -8, 8);
}

void ref_latent_append(const struct world *w, const struct op_latent_append *o, struct expected *e)
{
    for (uint32_t t = 0; t < w->batch.n_tokens; t++) {
        uint32_t position;
        const struct batch_segment *s = segment_at(w, t, &position);
        unsigned char *pages = e->pages[s - w->batch.segments];
        size_t at = cache_at(w, o->cache.id, position, 0, false);
        for (uint32_t i = 0; i < o->rank; i++)
            cache_store(w, pages, at, i, floats(w, o->latent.id)[(size_t)t * o->rank + i]);
        for (uint32_t i = 0; i < o->rotated; i++)
            cache_store(w, pages, at, o->rank + i,
                        floats(w, o->rot.id)[(size_t)t * o->rotated + i]);
    }
}

/* The batch's latents are in the cache by then. */
void gen_latent_attention(struct world *w, const struct op_latent_attention *o)
{
    fill(w, o->q.id, -2, 2);
    fill(w, o->rot.id, -2, 2);
    for (uint32_t t = 0; t < w->batch.n_tokens; t++) {
        uint32_t position;
        const struct batch_segment *s = segment_at(w, t, &position);
        size_t at = cache_at(w, o->cache.id, position, 0, false);
        for (uint32_t i = 0; i < o->rank + o->rotated; i++)
            cache_store(w, s->sequence->pages, at, i, rng_float(&w->rng, -2, 2));
    }
}

static void attend(const struct world *w, const struct op_latent_attention *o, uint32_t row,
                   uint32_t head, double *score, double *y)
{
    uint32_t last;
    const unsigned char *pages = segment_at(w, row, &last)->sequence->pages;
    size_t at = (size_t)row * o->n_heads + head;
    const float *q = floats(w, o->q.id) + at * o->rank;
    const float *rot = floats(w, o->rot.id) + at * o->rotated;
    double max = -INFINITY, sum = 0;
    for (uint32_t p = 0; p <= last; p++) {
        size_t key = cache_at(w, o->cache.id, p, 0, false);
        score[p] = 0;
        for (uint32_t i = 0; i < o->rank + o->rotated; i++)
            score[p] +=
                (double)(i < o->rank ? q[i] : rot[i - o->rank]) * cache_value(w, pages, key, i);
        score[p] *= (double)o->scale;
        max = fmax(max, score[p]);
    }
    for (uint32_t p = 0; p <= last; p++) {
        size_t value = cache_at(w, o->cache.id, p, 0, false);
        double weight = exp(score[p] - max);
        sum += weight;
        for (uint32_t i = 0; i < o->rank; i++) y[i] += weight * cache_value(w, pages, value, i);
    }
    for (uint32_t i = 0; i < o->rank; i++) y[i] /= sum;
}

void ref_latent_attention(const struct world *w, const struct op_latent_attention *o,
                          struct expected *e)
{
    double *score = calloc(w->segments[0].sequence->n_ctx, sizeof *score);
    if (!score) abort();
    for (uint32_t t = 0; t < w->batch.n_tokens; t++)
        for (uint32_t h = 0; h < o->n_heads; h++)
            attend(w, o, t, h, score, e->out[0] + ((size_t)t * o->n_heads + h) * o->rank);
    free(score);
}
