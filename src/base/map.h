/*
 * Hash map from byte strings to u32 values. Keys are not copied: they live as long as the map.
 * Open addressing with linear probing; no removal.
 */
#ifndef SLUICE_BASE_MAP_H
#define SLUICE_BASE_MAP_H

#include "base/span.h"

struct map_slot {
    struct span key; /* data NULL: empty */
    uint32_t hash;
    uint32_t value;
};

struct map {
    struct map_slot *slots;
    size_t n, cap; /* cap is 0 or a power of two */
};

/* Room for n keys without growing. False: out of memory. */
bool map_init(struct map *map, size_t n);
void map_release(struct map *map);

/* The slot's value, or NULL when the key is absent. */
uint32_t *map_find(const struct map *map, struct span key);

/* Has the place of a key brought to the caches, for a map_find or map_put that comes soon. */
void map_fetch(const struct map *map, struct span key);

enum map_put { MAP_NOMEM, MAP_NEW, MAP_EXISTS };
/* Inserts key -> value; an existing key keeps its value. Keys may be empty but not NULL. */
enum map_put map_put(struct map *map, struct span key, uint32_t value);

#endif
