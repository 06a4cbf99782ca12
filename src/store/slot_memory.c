/* How many slots there are, and the memory they lie in. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "base/mem.h"
#include "store/store_parts.h"

enum { PAGE = 4096 };

uint32_t slots_by_bytes(const struct expert_store *s, const struct slot_class *k,
                        uint64_t slot_bytes)
{
    uint64_t all = 0, least = 0;
    for (uint32_t c = 0; c < s->n_classes; c++) {
        all += s->classes[c].slot_bytes * s->classes[c].n_experts;
        least += s->classes[c].slot_bytes;
    }
    uint64_t part = slot_bytes > least ? slot_bytes - least : 0;
    uint32_t most = k->n_experts - 1;
    return 1 + (part >= all - least ? most : (uint32_t)(part * most / (all - least)));
}

/* Where addresses are counted as memory, there are some for what is wanted now only. */
bool slots_reserve(struct slot_class *k, uint32_t n)
{
    k->room = k->n_experts;
    if (!mul_size(k->slot_bytes, k->room, &k->slab_bytes) ||
        !mem_reserve(k->slab_bytes, &k->slab)) {
        k->room = n;
        if (!mul_size(k->slot_bytes, n, &k->slab_bytes) || !mem_reserve(k->slab_bytes, &k->slab))
            return false;
    }
    (void)madvise(k->slab, k->slab_bytes, MADV_HUGEPAGE);
    k->free_slots = calloc((size_t)k->room + 1, sizeof *k->free_slots);
    return k->free_slots != NULL;
}

static void move_pointer(const uint8_t **p, const uint8_t *from, const uint8_t *to)
{
    if (*p) *p = to + (*p - from);
}

/* What a slot holds goes into one that holds nothing. */
static void move_slot(struct expert_store *s, const struct slot_class *k, uint32_t from,
                      uint32_t to)
{
    struct slot *source = &s->slots[from], *target = &s->slots[to];
    uint8_t *data = target->data;
    struct wmat *mats[3] = {&target->view.gate, &target->view.up, &target->view.down};
    *target = *source;
    target->data = data;
    memcpy(data, source->data, k->slot_bytes);
    for (uint32_t m = 0; m < 3; m++) {
        move_pointer(&mats[m]->data, source->data, data);
        move_pointer(&mats[m]->scales, source->data, data);
        move_pointer(&mats[m]->biases, source->data, data);
    }
    s->slot_of[target->key] = to;
    source->key = (uint32_t)NONE;
}

/* Experts leave until the rest fits, and what lies behind the new end moves into the gaps. */
static void shrink(struct expert_store *s, struct slot_class *k, uint32_t n)
{
    uint32_t end = k->first + n, gap = k->first;
    while (k->policy->n > n) {
        uint32_t rank = policy_victim(k->policy, NULL, NULL);
        slot_free(s, s->slot_of[k->key_of[rank]]);
    }
    for (uint32_t i = end; i < k->first + k->n; i++) {
        if (s->slots[i].key == (uint32_t)NONE) continue;
        while (s->slots[gap].key != (uint32_t)NONE) gap++;
        move_slot(s, k, i, gap);
    }
    uint8_t *slab = k->slab;
    size_t keep = align_up((size_t)n * k->slot_bytes, PAGE), held = (size_t)k->n * k->slot_bytes;
    if (held > keep) (void)madvise(slab + keep, held - keep, MADV_DONTNEED);
}

static void grow(struct expert_store *s, struct slot_class *k, uint32_t n)
{
    for (uint32_t i = k->n; i < n; i++)
        s->slots[k->first + i] = (struct slot){
            .key = (uint32_t)NONE, .data = (uint8_t *)k->slab + (size_t)i * k->slot_bytes};
}

static void list_free_slots(const struct expert_store *s, struct slot_class *k)
{
    k->n_free = 0;
    for (uint32_t i = k->first + k->n; i-- > k->first;)
        if (s->slots[i].key == (uint32_t)NONE) k->free_slots[k->n_free++] = i;
}

void slots_set(struct expert_store *s, struct slot_class *k, uint32_t n)
{
    n = min_u32(n, k->room);
    if (n < k->n)
        shrink(s, k, n);
    else
        grow(s, k, n);
    s->n_slots += n - k->n;
    k->n = n;
    list_free_slots(s, k);
    if (k->policy) policy_set_capacity(k->policy, n);
}

static void populate(struct expert_store *s)
{
    struct mem_range *ranges = calloc((size_t)s->n_classes + 1, sizeof *ranges);
    for (uint32_t c = 0; ranges && c < s->n_classes; c++)
        ranges[c] = (struct mem_range){s->classes[c].slab,
                                       (size_t)s->classes[c].n * s->classes[c].slot_bytes};
    if (ranges)
        s->populate = populate_start(ranges, s->n_classes, s->n_populaters, s->populate_ahead);
    free(ranges);
}

void store_populate(struct expert_store *s, uint32_t n_threads, size_t ahead)
{
    populate_stop(&s->populate);
    s->n_populaters = n_threads;
    s->populate_ahead = ahead;
    populate(s);
}

void store_resize(struct expert_store *s, uint64_t slot_bytes)
{
    store_drain(s);
    populate_stop(&s->populate);
    for (uint32_t c = 0; c < s->n_classes; c++) {
        struct slot_class *k = &s->classes[c];
        uint32_t n = slots_by_bytes(s, k, slot_bytes);
        if (n == k->n) continue;
        reader_forget_buffer(s->reader);
        slots_set(s, k, n);
    }
    populate(s);
}
