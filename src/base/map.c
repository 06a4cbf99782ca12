#include "base/map.h"

#include <stdlib.h>

/* FNV-1a over 8-byte steps, finished with a multiply-xorshift so that low bits are mixed. */
static uint32_t hash_bytes(struct span key)
{
    uint64_t h = 0xcbf29ce484222325u ^ key.len;
    size_t i = 0;
    for (; i + 8 <= key.len; i += 8) h = (h ^ load_u64le(key.data + i)) * 0x9fb21c651e98df25u;
    for (; i < key.len; i++) h = (h ^ key.data[i]) * 0x100000001b3u;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9u;
    return (uint32_t)(h >> 32);
}

static bool resize(struct map *map, size_t cap)
{
    struct map_slot *slots = calloc(cap, sizeof *slots);
    if (!slots) return false;
    for (size_t i = 0; i < map->cap; i++) {
        struct map_slot s = map->slots[i];
        if (!s.key.data) continue;
        size_t at = s.hash & (cap - 1);
        while (slots[at].key.data) at = (at + 1) & (cap - 1);
        slots[at] = s;
    }
    free(map->slots);
    map->slots = slots;
    map->cap = cap;
    return true;
}

bool map_init(struct map *map, size_t n)
{
    *map = (struct map){0};
    size_t cap = 16;
    while (cap / 4 * 3 < n && cap <= SIZE_MAX / 2) cap *= 2;
    return resize(map, cap);
}

void map_release(struct map *map)
{
    free(map->slots);
    *map = (struct map){0};
}

static struct map_slot *probe(const struct map *map, struct span key, uint32_t hash)
{
    size_t at = hash & (map->cap - 1);
    for (;; at = (at + 1) & (map->cap - 1)) {
        struct map_slot *s = &map->slots[at];
        if (!s->key.data || (s->hash == hash && span_equal(s->key, key))) return s;
    }
}

uint32_t *map_find(const struct map *map, struct span key)
{
    if (map->n == 0) return NULL;
    struct map_slot *s = probe(map, key, hash_bytes(key));
    return s->key.data ? &s->value : NULL;
}

void map_fetch(const struct map *map, struct span key)
{
    if (map->cap) __builtin_prefetch(&map->slots[hash_bytes(key) & (map->cap - 1)]);
}

enum map_put map_put(struct map *map, struct span key, uint32_t value)
{
    if ((map->cap == 0 || map->n + 1 > map->cap / 4 * 3) &&
        !resize(map, map->cap ? map->cap * 2 : 16))
        return MAP_NOMEM;
    uint32_t hash = hash_bytes(key);
    struct map_slot *s = probe(map, key, hash);
    if (s->key.data) return MAP_EXISTS;
    *s = (struct map_slot){.key = key, .hash = hash, .value = value};
    map->n++;
    return MAP_NEW;
}
