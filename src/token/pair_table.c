#include "token/pair_table.h"

#include <stdlib.h>

bool pair_table_init(struct pair_table *table, size_t n)
{
    unsigned log2 = 4;
    while (log2 < 40 && ((size_t)1 << log2) / 4 * 3 < n) log2++;
    size_t n_slots = (size_t)1 << log2;
    *table = (struct pair_table){.shift = 64 - log2, .mask = n_slots - 1};
    table->slots = malloc(n_slots * sizeof *table->slots);
    if (!table->slots) return false;
    for (size_t i = 0; i < n_slots; i++) table->slots[i] = (struct pair_slot){.key = PAIR_EMPTY};
    return true;
}

void pair_table_release(struct pair_table *table)
{
    free(table->slots);
    *table = (struct pair_table){0};
}

void pair_table_put(struct pair_table *table, uint32_t left, uint32_t right, uint32_t first,
                    uint32_t second)
{
    struct pair_slot *slot = pair_table_probe(table, left, right);
    if (slot->key == PAIR_EMPTY) table->n++;
    *slot = (struct pair_slot){(uint64_t)left << 32 | right, first, second};
}
