#include "store/ghost.h"

/* Of the layer that has most. */
static uint32_t max_layer_keys(const struct policy_shape *shape, uint32_t *n)
{
    uint32_t max = 0;
    for (uint32_t i = 0; i < shape->n_keys; i++) {
        uint32_t in_layer = ++n[shape->layer_of[i]];
        if (in_layer > max) max = in_layer;
    }
    return max;
}

enum sluice_status ghost_open(struct ghost *ghost, const struct policy_ops *ops,
                              const struct policy_shape *shape, uint32_t capacity,
                              struct sluice_error *err)
{
    *ghost = (struct ghost){0};
    TRY(policy_open_with(&ghost->policy, ops, shape, capacity, err));
    struct arena *arena = &ghost->policy->arena;
    uint32_t *n = arena_alloc(arena, shape->n_layers, sizeof *n);
    ghost->pinned = arena_alloc(arena, shape->n_keys, sizeof *ghost->pinned);
    if (n) ghost->missing = arena_alloc(arena, max_layer_keys(shape, n), sizeof *ghost->missing);
    if (ghost->pinned && ghost->missing) return SLUICE_OK;
    ghost_release(ghost);
    return err_nomem(err, "ghost cache", shape->n_keys);
}

void ghost_release(struct ghost *ghost)
{
    policy_close(&ghost->policy);
}

size_t ghost_bytes(const struct ghost *ghost)
{
    return policy_bytes(ghost->policy);
}

static bool not_pinned(const void *user, uint32_t key)
{
    const struct ghost *ghost = user;
    return !ghost->pinned[key];
}

static void drop_until(struct ghost *ghost, uint32_t n)
{
    struct policy *p = ghost->policy;
    while (p->n > n) {
        uint32_t key = policy_victim(p, not_pinned, ghost);
        if (key == NO_KEY) key = policy_victim(p, NULL, NULL);
        policy_remove(p, key);
    }
}

uint32_t ghost_step(struct ghost *ghost, uint32_t layer, const uint32_t *keys, uint32_t n,
                    enum policy_use use)
{
    struct policy *p = ghost->policy;
    uint32_t n_missing = 0;
    policy_step(p, layer, keys, n, use);
    for (uint32_t i = 0; i < n; i++) {
        ghost->pinned[keys[i]] = true;
        if (policy_has(p, keys[i]))
            policy_hit(p, keys[i], use);
        else
            ghost->missing[n_missing++] = keys[i];
    }
    for (uint32_t i = 0; i < n_missing && p->capacity; i++) {
        drop_until(ghost, p->capacity - 1);
        policy_insert(p, ghost->missing[i], use);
    }
    for (uint32_t i = 0; i < n; i++) ghost->pinned[keys[i]] = false;
    ghost->hits += n - n_missing;
    ghost->misses += n_missing;
    ghost->missed_bytes += n_missing * p->shape.entry_bytes;
    return n - n_missing;
}

void ghost_set_capacity(struct ghost *ghost, uint32_t capacity)
{
    policy_set_capacity(ghost->policy, capacity);
    drop_until(ghost, capacity);
}
