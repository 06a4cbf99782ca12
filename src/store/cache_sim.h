/*
 * Replays routing against a cache: what each policy would have hit and read with a given number of
 * slots, and what the best possible choice of victims would have (Belady, IBM Systems Journal 5(2),
 * 1966), which needs to know the future. A step needs all its experts at once, as in the store:
 * none of them leaves for another, unless they outnumber the slots; then those that are done with
 * make room. Entries have one size; models with several sizes are replayed once per size, over the
 * layers that have it.
 */
#ifndef SLUICE_STORE_CACHE_SIM_H
#define SLUICE_STORE_CACHE_SIM_H

#include "base/array.h"
#include "base/span.h"
#include "store/policy.h"

enum { SIM_OPTIMUM = POLICY_COUNT, SIM_COUNT };

/* "lru" ... "auto", "optimum". */
const char *cache_sim_name(unsigned kind);

struct sim_step {
    uint32_t layer, n;
    size_t first; /* among keys */
    bool prefill;
};

struct cache_sim {
    uint32_t n_layers, n_experts;
    ARRAY(struct sim_step) steps;
    ARRAY(uint32_t) keys;     /* layer * n_experts + expert */
    ARRAY(uint32_t) next_use; /* per entry of keys: the step that uses it again, or NO_KEY */
    uint32_t *layer_of;       /* [n_keys] */
    uint32_t *last_use;       /* [n_keys]: entry of keys, plus 1; 0: none */
};

/* Errors: ARGUMENT, NOMEM. */
enum sluice_status cache_sim_init(struct cache_sim *sim, uint32_t n_layers, uint32_t n_experts,
                                  struct sluice_error *err);
void cache_sim_release(struct cache_sim *sim);
/* Appends one layer of one batch: its n distinct experts. Errors: ARGUMENT, NOMEM. */
enum sluice_status cache_sim_add(struct cache_sim *sim, uint32_t layer, const uint32_t *experts,
                                 uint32_t n, bool prefill, struct sluice_error *err);
/*
 * cache_sim_init and all steps of a trace (store/trace.h). Errors: those of the trace, NOMEM; the
 * simulation is then released.
 */
enum sluice_status cache_sim_load(struct cache_sim *sim, struct span trace,
                                  struct sluice_error *err);

struct sim_options {
    uint32_t capacity; /* slots, at least 1 */
    uint64_t entry_bytes;
    const bool *layers; /* [n_layers] those to replay; NULL: all */
    bool no_hints;      /* prefill counts as any use does */
};

struct sim_result {
    uint64_t hits[2], misses[2]; /* in decode steps, in prefill steps */
    uint64_t missed_bytes;
    uint64_t switches; /* of the leader, for auto */
};

/* kind: enum policy_kind or SIM_OPTIMUM. Errors: ARGUMENT (no capacity), NOMEM. */
enum sluice_status cache_sim_run(const struct cache_sim *sim, unsigned kind,
                                 const struct sim_options *options, struct sim_result *result,
                                 struct sluice_error *err);
/* Hits among all uses, 0 to 1; 0 when there were none. */
double sim_hit_rate(const struct sim_result *result);

#endif
