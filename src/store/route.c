#include "store/route.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/bits.h"
#include "base/rng.h"

enum { MAX_LAYERS = 4096, MAX_EXPERTS = 65536, TRIES = 64 };

struct route_layer {
    struct rng rng;
    uint32_t *by_rank; /* [n_experts]: experts from popular to rare */
    uint32_t *last;    /* [k]: picks of the last token */
    bool any;          /* there was a token */
};

struct route {
    struct route_options options;
    struct arena arena;
    struct route_layer *layers;
    double *upto;    /* [n_experts]: weight of the ranks up to and with this one */
    uint32_t *taken; /* [n_experts]: serial of the token that took or may not take it */
    uint32_t serial;
    uint32_t *n_picks; /* [n_experts], for route_batch; zero between calls */
    uint32_t *picks;   /* [k] */
};

static enum sluice_status check_options(const struct route_options *o, struct sluice_error *err)
{
    if (o->n_layers == 0 || o->n_layers > MAX_LAYERS)
        return err_set(err, SLUICE_E_ARGUMENT, "route: %u layers, not 1 to %d", o->n_layers,
                       MAX_LAYERS);
    if (o->n_experts == 0 || o->n_experts > MAX_EXPERTS)
        return err_set(err, SLUICE_E_ARGUMENT, "route: %u experts, not 1 to %d", o->n_experts,
                       MAX_EXPERTS);
    if (o->k == 0 || o->k > o->n_experts)
        return err_set(err, SLUICE_E_ARGUMENT, "route: %u experts per token, not 1 to %u", o->k,
                       o->n_experts);
    if (!(o->zipf >= 0 && o->zipf <= 16))
        return err_set(err, SLUICE_E_ARGUMENT, "route: Zipf exponent %g, not 0 to 16", o->zipf);
    if (!(o->drift >= 0 && o->drift <= 1))
        return err_set(err, SLUICE_E_ARGUMENT, "route: drift %g, not 0 to 1", o->drift);
    if (!(o->reuse <= 1))
        return err_set(err, SLUICE_E_ARGUMENT, "route: reuse %g, over 1", o->reuse);
    /* Experts that are not used again must be replaced by ones that were not in use. */
    if (o->reuse >= 0 && o->reuse < 1 && o->n_experts < 2 * (uint64_t)o->k)
        return err_set(
            err, SLUICE_E_ARGUMENT,
            "route: reuse %g needs twice as many experts as a token picks, not %u for %u", o->reuse,
            o->n_experts, o->k);
    return SLUICE_OK;
}

/* A random order of popularity: Fisher and Yates. */
static void shuffle(struct route_layer *layer, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) layer->by_rank[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = rng_below(&layer->rng, i), e = layer->by_rank[j];
        layer->by_rank[j] = layer->by_rank[i - 1];
        layer->by_rank[i - 1] = e;
    }
}

static bool init_layers(struct route *r)
{
    const struct route_options *o = &r->options;
    struct rng seeds = {o->seed};
    for (uint32_t l = 0; l < o->n_layers; l++) {
        struct route_layer *layer = &r->layers[l];
        layer->rng.state = rng_u64(&seeds);
        layer->by_rank = arena_alloc(&r->arena, o->n_experts, sizeof *layer->by_rank);
        layer->last = arena_alloc(&r->arena, o->k, sizeof *layer->last);
        if (!layer->by_rank || !layer->last) return false;
        shuffle(layer, o->n_experts);
    }
    return true;
}

static bool init(struct route *r)
{
    const struct route_options *o = &r->options;
    r->layers = arena_alloc(&r->arena, o->n_layers, sizeof *r->layers);
    r->upto = arena_alloc(&r->arena, o->n_experts, sizeof *r->upto);
    r->taken = arena_alloc(&r->arena, o->n_experts, sizeof *r->taken);
    r->n_picks = arena_alloc(&r->arena, o->n_experts, sizeof *r->n_picks);
    r->picks = arena_alloc(&r->arena, o->k, sizeof *r->picks);
    if (!r->layers || !r->upto || !r->taken || !r->n_picks || !r->picks) return false;
    double sum = 0;
    for (uint32_t i = 0; i < o->n_experts; i++) r->upto[i] = sum += pow(i + 1.0, -o->zipf);
    return init_layers(r);
}

enum sluice_status route_open(struct route **route, const struct route_options *options,
                              struct sluice_error *err)
{
    *route = NULL;
    TRY(check_options(options, err));
    struct route *r = calloc(1, sizeof *r);
    if (!r) return err_nomem(err, "route", sizeof *r);
    r->options = *options;
    if (!init(r)) {
        route_close(&r);
        return err_nomem(err, "route", (size_t)options->n_layers * options->n_experts * 4);
    }
    *route = r;
    return SLUICE_OK;
}

void route_close(struct route **route)
{
    if (!*route) return;
    arena_release(&(*route)->arena);
    free(*route);
    *route = NULL;
}

static uint32_t draw_rank(const struct route *r, struct rng *rng)
{
    uint32_t lo = 0, hi = r->options.n_experts - 1;
    double at = rng_unit(rng) * r->upto[hi];
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (at < r->upto[mid])
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

/* An expert not taken yet; after TRIES draws, the most popular of those. */
static uint32_t draw_expert(struct route *r, struct route_layer *layer)
{
    uint32_t expert = 0;
    for (int i = 0; i < TRIES; i++) {
        expert = layer->by_rank[draw_rank(r, &layer->rng)];
        if (r->taken[expert] != r->serial) return expert;
    }
    for (uint32_t i = 0; i < r->options.n_experts; i++) {
        expert = layer->by_rank[i];
        if (r->taken[expert] != r->serial) break;
    }
    return expert;
}

static void drift_ranks(const struct route *r, struct route_layer *layer)
{
    uint32_t i = rng_below(&layer->rng, r->options.n_experts);
    uint32_t j = rng_below(&layer->rng, r->options.n_experts);
    uint32_t expert = layer->by_rank[i];
    layer->by_rank[i] = layer->by_rank[j];
    layer->by_rank[j] = expert;
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

/* Marks as taken what this token may not draw: the last token's experts, reused or not. */
static uint32_t reuse_last(struct route *r, struct route_layer *layer, uint32_t *experts)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->options.k; i++) {
        r->taken[layer->last[i]] = r->serial;
        if (rng_unit(&layer->rng) < r->options.reuse) experts[n++] = layer->last[i];
    }
    return n;
}

void route_pick(struct route *r, uint32_t l, uint32_t *experts)
{
    const struct route_options *o = &r->options;
    struct route_layer *layer = &r->layers[l];
    if (++r->serial == 0) { /* old marks would look new */
        memset(r->taken, 0, o->n_experts * sizeof *r->taken);
        r->serial = 1;
    }
    if (rng_unit(&layer->rng) < o->drift) drift_ranks(r, layer);
    uint32_t n = layer->any && o->reuse >= 0 ? reuse_last(r, layer, experts) : 0;
    for (; n < o->k; n++) {
        experts[n] = draw_expert(r, layer);
        r->taken[experts[n]] = r->serial;
    }
    qsort(experts, o->k, sizeof *experts, compare_u32);
    memcpy(layer->last, experts, o->k * sizeof *experts);
    layer->any = true;
}

uint32_t route_batch(struct route *r, uint32_t layer, uint32_t n_tokens, uint32_t *experts,
                     uint32_t *counts)
{
    for (uint32_t t = 0; t < n_tokens; t++) {
        route_pick(r, layer, r->picks);
        for (uint32_t i = 0; i < r->options.k; i++) r->n_picks[r->picks[i]]++;
    }
    uint32_t n = 0;
    for (uint32_t e = 0; e < r->options.n_experts; e++) {
        if (r->n_picks[e] == 0) continue;
        experts[n] = e;
        counts[n++] = r->n_picks[e];
        r->n_picks[e] = 0;
    }
    return n;
}
