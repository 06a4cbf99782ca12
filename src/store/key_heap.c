#include "store/key_heap.h"

static void put(struct key_heap *heap, uint32_t i, uint32_t key)
{
    heap->keys[i] = key;
    heap->pos[key] = i;
}

/* Moves the key at i towards the root as far as it goes; gives its place. */
static uint32_t sift_up(struct key_heap *heap, uint32_t i)
{
    uint32_t key = heap->keys[i];
    while (i > 0 && heap->before(heap->ranks, key, heap->keys[(i - 1) / 2])) {
        put(heap, i, heap->keys[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put(heap, i, key);
    return i;
}

static void sift_down(struct key_heap *heap, uint32_t i)
{
    uint32_t key = heap->keys[i];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= heap->n) break;
        if (child + 1 < heap->n &&
            heap->before(heap->ranks, heap->keys[child + 1], heap->keys[child]))
            child++;
        if (!heap->before(heap->ranks, heap->keys[child], key)) break;
        put(heap, i, heap->keys[child]);
        i = child;
    }
    put(heap, i, key);
}

void heap_push(struct key_heap *heap, uint32_t key)
{
    heap->keys[heap->n] = key;
    sift_up(heap, heap->n++);
}

void heap_fix(struct key_heap *heap, uint32_t key)
{
    sift_down(heap, sift_up(heap, heap->pos[key]));
}

void heap_remove(struct key_heap *heap, uint32_t key)
{
    uint32_t i = heap->pos[key];
    uint32_t last = heap->keys[--heap->n];
    if (last == key) return;
    put(heap, i, last);
    heap_fix(heap, last);
}

/*
 * Walks down from the root, below keys that are not evictable only: all that lies below an
 * evictable key leaves later than that key.
 */
uint32_t heap_first(const struct key_heap *heap, policy_evictable_fn *evictable, const void *user)
{
    enum { DEPTH_MAX = 33 }; /* one waiting sibling for each level of 2^32 keys */
    uint32_t waiting[DEPTH_MAX];
    uint32_t n_waiting = 0, best = NO_KEY;
    if (heap->n) waiting[n_waiting++] = 0;
    while (n_waiting) {
        uint32_t i = waiting[--n_waiting], key = heap->keys[i];
        if (best != NO_KEY && !heap->before(heap->ranks, key, best)) continue;
        if (!evictable || evictable(user, key)) {
            best = key;
            continue;
        }
        for (uint64_t child = 2 * (uint64_t)i + 2; child > 2 * (uint64_t)i; child--)
            if (child < heap->n) waiting[n_waiting++] = (uint32_t)child;
    }
    return best;
}
