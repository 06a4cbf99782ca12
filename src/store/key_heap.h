/*
 * A binary heap of keys that knows where each key is, so that a key's rank can change. The first
 * key is the one that no other comes before.
 */
#ifndef SLUICE_STORE_KEY_HEAP_H
#define SLUICE_STORE_KEY_HEAP_H

#include "store/policy.h"

/* Whether a leaves before b: a strict total order. */
typedef bool key_before_fn(const void *ranks, uint32_t a, uint32_t b);

struct key_heap {
    uint32_t *keys; /* room for every key that can be in it */
    uint32_t *pos;  /* [n_keys]; heaps over different keys may share it */
    uint32_t n;
    key_before_fn *before;
    const void *ranks;
};

void heap_push(struct key_heap *heap, uint32_t key);
/* The rank of a key in the heap has changed. */
void heap_fix(struct key_heap *heap, uint32_t key);
void heap_remove(struct key_heap *heap, uint32_t key);
/* The first key that evictable (NULL: all) accepts, or NO_KEY. */
uint32_t heap_first(const struct key_heap *heap, policy_evictable_fn *evictable, const void *user);

#endif
