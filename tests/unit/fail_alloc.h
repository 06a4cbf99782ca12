/*
 * Allocations that fail on request: replaces calloc, realloc and aligned_alloc of the program that
 * includes it. FAIL_SWEEP(call) repeats the call with its first, second, ... allocation failing
 * until it needs no more; the call's value is true once it succeeded.
 */
#ifndef TESTS_FAIL_ALLOC_H
#define TESTS_FAIL_ALLOC_H

#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static long fail_after = -1; /* allocations until one fails; below 0: none does */

static bool fail_now(void)
{
    return fail_after >= 0 && fail_after-- == 0;
}

/* Out of sight of the optimiser, which would make calloc call itself. */
static void *(*volatile fail_malloc)(size_t) = malloc;

void *calloc(size_t n, size_t item_bytes)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, item_bytes, &bytes) || fail_now()) return NULL;
    void *p = fail_malloc(bytes ? bytes : 1);
    if (p) memset(p, 0, bytes);
    return p;
}

void *realloc(void *old, size_t bytes)
{
    if (fail_now()) return NULL;
    void *p = fail_malloc(bytes ? bytes : 1);
    if (!p || !old) return p;
    size_t had = malloc_usable_size(old);
    memcpy(p, old, had < bytes ? had : bytes);
    free(old);
    return p;
}

void *aligned_alloc(size_t align, size_t bytes)
{
    void *p = NULL;
    if (fail_now() || posix_memalign(&p, align, bytes) != 0) return NULL;
    return p;
}

#define FAIL_SWEEP(call, n_failed)                                                                 \
    do {                                                                                           \
        *(n_failed) = 0;                                                                           \
        for (bool done_ = false; !done_ && *(n_failed) < 1000;) {                                  \
            fail_after = *(n_failed);                                                              \
            done_ = (call);                                                                        \
            fail_after = -1;                                                                       \
            *(n_failed) += !done_;                                                                 \
        }                                                                                          \
    } while (0)

#endif
