#include "base/populate.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* of Linux 5.14, where headers are older */
#endif

/* A huge page: what one fault takes where there are some. */
#define PIECE ((size_t)2 << 20)

/* So many pieces behind what somebody else touches. */
enum { AHEAD = 8 };

/*
 * Piece i is the one with the number i / n_ranges of the range i % n_ranges. They are gone through
 * twice, since the first time some are left out.
 */
struct populate {
    struct mem_range *ranges;
    uint32_t n_ranges;
    size_t n_pieces;
    _Atomic size_t next;
    _Atomic size_t avoid; /* behind the last piece that somebody else touches */
    _Atomic bool stop;
    _Atomic uint32_t n_over; /* threads that have ended */
    pthread_t *threads;
    uint32_t n_threads;
};

/* Pieces end at multiples of their size, as huge pages do; the first may be smaller. */
static size_t pieces_of(const struct mem_range *r)
{
    size_t lead = (uintptr_t)r->base % PIECE;
    return r->bytes ? (lead + r->bytes + PIECE - 1) / PIECE : 0;
}

static bool populate_piece(const struct mem_range *r, size_t piece)
{
    if (piece >= pieces_of(r)) return true;
    size_t lead = (uintptr_t)r->base % PIECE;
    size_t begin = piece ? piece * PIECE - lead : 0;
    size_t end = min_size((piece + 1) * PIECE - lead, r->bytes);
    return madvise((char *)r->base + begin, end - begin, MADV_POPULATE_WRITE) == 0;
}

/* The piece whose turn it is; past the end when there is none left. */
static size_t next_piece(struct populate *p)
{
    for (;;) {
        size_t i = atomic_fetch_add(&p->next, 1), avoid = atomic_load(&p->avoid);
        if (i >= p->n_pieces) return i - p->n_pieces;
        if (i >= avoid) return i;
        size_t next = i + 1, further = min_size(avoid + AHEAD * p->n_ranges, p->n_pieces);
        while (next < further && !atomic_compare_exchange_weak(&p->next, &next, further)) {
        }
    }
}

static void *worker(void *arg)
{
    struct populate *p = arg;
    const struct sched_param none = {0};
    (void)pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
    while (!atomic_load(&p->stop)) {
        size_t i = next_piece(p);
        if (i >= p->n_pieces) break;
        if (!populate_piece(&p->ranges[i % p->n_ranges], i / p->n_ranges)) break;
    }
    atomic_fetch_add(&p->n_over, 1);
    return NULL;
}

static bool start_threads(struct populate *p, uint32_t n)
{
    p->threads = calloc(n, sizeof *p->threads);
    while (p->threads && p->n_threads < n &&
           pthread_create(&p->threads[p->n_threads], NULL, worker, p) == 0)
        p->n_threads++;
    return p->n_threads > 0;
}

struct populate *populate_start(const struct mem_range *ranges, uint32_t n, uint32_t n_threads)
{
    struct populate *p = n && n_threads ? calloc(1, sizeof *p) : NULL;
    if (!p) return NULL;
    p->ranges = calloc(n, sizeof *p->ranges);
    bool ok = p->ranges != NULL;
    if (ok) memcpy(p->ranges, ranges, n * sizeof *ranges);
    p->n_ranges = n;
    for (uint32_t i = 0; ok && i < n; i++)
        p->n_pieces = max_size(p->n_pieces, n * pieces_of(&ranges[i]));
    if (!ok || !start_threads(p, n_threads)) populate_stop(&p);
    return p;
}

void populate_avoid(struct populate *p, const void *at, size_t bytes)
{
    for (uint32_t r = 0; p && r < p->n_ranges; r++) {
        uintptr_t base = (uintptr_t)p->ranges[r].base, from = (uintptr_t)at;
        if (from < base || from - base >= p->ranges[r].bytes) continue;
        size_t piece = (base % PIECE + (from - base) + bytes) / PIECE;
        size_t end = (piece + 1) * p->n_ranges, was = atomic_load(&p->avoid);
        while (was < end && !atomic_compare_exchange_weak(&p->avoid, &was, end)) {
        }
    }
}

bool populate_runs(const struct populate *p)
{
    return p && atomic_load(&p->n_over) < p->n_threads;
}

void populate_stop(struct populate **out)
{
    struct populate *p = *out;
    if (!p) return;
    *out = NULL;
    atomic_store(&p->stop, true);
    for (uint32_t i = 0; i < p->n_threads; i++) pthread_join(p->threads[i], NULL);
    free(p->threads);
    free(p->ranges);
    free(p);
}
