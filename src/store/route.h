/*
 * Made-up routing, to study caches and measure streaming without a trained router: for each token
 * and layer, k distinct experts drawn by popularity (Zipf's law over an order of its own for each
 * layer), with a chosen chance that an expert of the layer's last token is used again. Layers are
 * independent of each other and may be asked in any order: a seed fixes the picks of every layer's
 * n-th token.
 */
#ifndef SLUICE_STORE_ROUTE_H
#define SLUICE_STORE_ROUTE_H

#include "base/err.h"

struct route_options {
    uint32_t n_layers, n_experts, k;
    double zipf;  /* exponent: an expert of rank r is drawn with weight r^-zipf; 0: uniform */
    double reuse; /* chance that an expert of the last token is used again; below 0: as drawn */
    double drift; /* chance per token and layer that two ranks change places */
    uint64_t seed;
};

struct route;

/* Errors: ARGUMENT, naming the option; NOMEM. */
enum sluice_status route_open(struct route **route, const struct route_options *options,
                              struct sluice_error *err);
void route_close(struct route **route);
/* The experts that the layer's next token picks: [k], ascending. */
void route_pick(struct route *route, uint32_t layer, uint32_t *experts);
/*
 * The next n_tokens tokens of the layer together: [n] distinct experts, ascending, and how many
 * tokens picked each; both have room for min(n_experts, k * n_tokens). Returns n.
 */
uint32_t route_batch(struct route *route, uint32_t layer, uint32_t n_tokens, uint32_t *experts,
                     uint32_t *counts);

#endif
