/*
 * Hash table from a pair of u32 to a pair of u32, for merges (left, right) and for tries (node,
 * byte). Open addressing, at most three quarters full, no removal, no growing.
 */
#ifndef SLUICE_TOKEN_PAIR_TABLE_H
#define SLUICE_TOKEN_PAIR_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pair_slot {
    uint64_t key; /* left << 32 | right; PAIR_EMPTY: free */
    uint32_t first, second;
};

#define PAIR_EMPTY UINT64_MAX

struct pair_table {
    struct pair_slot *slots;
    uint32_t shift; /* 64 - log2(number of slots) */
    size_t mask;
    size_t n;
};

/* Room for n pairs. False: out of memory. */
bool pair_table_init(struct pair_table *table, size_t n);
void pair_table_release(struct pair_table *table);

static inline struct pair_slot *pair_table_probe(const struct pair_table *table, uint32_t left,
                                                 uint32_t right)
{
    uint64_t key = (uint64_t)left << 32 | right;
    size_t at = (size_t)(key * 0x9e3779b97f4a7c15u >> table->shift);
    for (;; at = (at + 1) & table->mask) {
        struct pair_slot *slot = &table->slots[at];
        if (slot->key == key || slot->key == PAIR_EMPTY) return slot;
    }
}

/* The slot of the pair, or NULL. left is never UINT32_MAX. */
static inline const struct pair_slot *pair_table_find(const struct pair_table *table, uint32_t left,
                                                      uint32_t right)
{
    const struct pair_slot *slot = pair_table_probe(table, left, right);
    return slot->key == PAIR_EMPTY ? NULL : slot;
}

/* Sets the values of a pair, old or new; the caller keeps to the room asked for at init. */
void pair_table_put(struct pair_table *table, uint32_t left, uint32_t right, uint32_t first,
                    uint32_t second);

#endif
