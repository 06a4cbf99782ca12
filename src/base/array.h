/*
 * Growable arrays: ARRAY(T) declares {T *items; size_t n, cap;}. array_push grows by doubling and
 * gives false when memory runs out, leaving the array as it was.
 */
#ifndef SLUICE_BASE_ARRAY_H
#define SLUICE_BASE_ARRAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#define ARRAY(T)                                                                                   \
    struct {                                                                                       \
        T *items;                                                                                  \
        size_t n, cap;                                                                             \
    }

/* Grows *items of item_bytes each so that n + 1 fit. */
static inline bool array_grow_(void **items, size_t *cap, size_t n, size_t item_bytes)
{
    if (n < *cap) return true;
    size_t new_cap = *cap ? *cap * 2 : 16;
    size_t bytes;
    if (new_cap < *cap || __builtin_mul_overflow(new_cap, item_bytes, &bytes)) return false;
    void *grown = realloc(*items, bytes);
    if (!grown) return false;
    *items = grown;
    *cap = new_cap;
    return true;
}

#define array_push(array, value)                                                                   \
    (array_grow_((void **)&(array)->items, &(array)->cap, (array)->n, sizeof *(array)->items)      \
         ? ((array)->items[(array)->n++] = (value), true)                                          \
         : false)

#define array_release(array)                                                                       \
    do {                                                                                           \
        free((array)->items);                                                                      \
        (array)->items = NULL;                                                                     \
        (array)->n = (array)->cap = 0;                                                             \
    } while (0)

#endif
