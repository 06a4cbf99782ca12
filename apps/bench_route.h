/*
 * Routing that is forced on engines, so that caches can be studied with weights that mean nothing:
 * one table of picks for all engines of a run, hence the same experts for each of them.
 */
#ifndef APPS_BENCH_ROUTE_H
#define APPS_BENCH_ROUTE_H

#include "sluice/sluice.h"

struct forced_route {
    const char *spec; /* as given; NULL: the model's own routing */
    bool is_trace;
    uint32_t n_tokens, n_layers, k;
    int32_t *picks; /* [n_tokens][n_layers][k]; tokens beyond begin again */
};

/*
 * spec: "uniform", "zipf:S", "reuse:P", the path of a trace of a model of the same shape, or NULL.
 * n_tokens: how many to draw; a trace has its own number of decoded tokens. Errors: ARGUMENT,
 * MISMATCH (a trace of another shape), FORMAT, NOT_FOUND, IO, NOMEM.
 */
SLUICE_NODISCARD enum sluice_status forced_route_open(struct forced_route *route, const char *spec,
                                                      const struct sluice_engine_info *info,
                                                      uint32_t n_tokens, uint64_t seed,
                                                      struct sluice_error *err);
void forced_route_close(struct forced_route *route);
/* The experts, [k], that a token picks in a layer. */
const int32_t *forced_route_picks(const struct forced_route *route, uint64_t token, uint32_t layer);

#endif
