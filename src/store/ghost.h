/*
 * A ghost cache: what a policy would have hit and read with the same room, had it been in charge
 * all the time. It has keys but no data, and sees every step of the live cache. As in the store, a
 * step needs all its experts at once: what it hits stays, and none of them leaves for another,
 * unless they outnumber the slots; then those that are done with make room.
 */
#ifndef SLUICE_STORE_GHOST_H
#define SLUICE_STORE_GHOST_H

#include "store/policy.h"

struct ghost {
    struct policy *policy; /* owned */
    bool *pinned;          /* [n_keys]: needed by the current step */
    uint32_t *missing;     /* keys of the current step; room for all of a layer */
    uint64_t hits, misses;
    uint64_t missed_bytes;
};

/* Errors: as policy_open; *ghost is then released. */
enum sluice_status ghost_open(struct ghost *ghost, const struct policy_ops *ops,
                              const struct policy_shape *shape, uint32_t capacity,
                              struct sluice_error *err);
void ghost_release(struct ghost *ghost);
/* Memory in use, for the plan. */
size_t ghost_bytes(const struct ghost *ghost);

/* A batch uses n keys of the layer, each once. Returns how many of them the ghost had. */
uint32_t ghost_step(struct ghost *ghost, uint32_t layer, const uint32_t *keys, uint32_t n,
                    enum policy_use use);
/* Shrinking drops entries at once. */
void ghost_set_capacity(struct ghost *ghost, uint32_t capacity);

#endif
