#include "base/populate.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* of Linux 5.14, where headers are older */
#endif

/* A huge page: what one fault takes where there are some. */
#define PIECE ((size_t)2 << 20)

/* Piece i is the one with the number i / n_ranges of the range i % n_ranges. */
struct populate {
    struct mem_range *ranges;
    uint32_t n_ranges;
    size_t n_pieces;
    _Atomic size_t next;
    _Atomic bool stop;
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

static void *worker(void *arg)
{
    struct populate *p = arg;
    const struct sched_param none = {0};
    (void)pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
    while (!atomic_load(&p->stop)) {
        size_t i = atomic_fetch_add(&p->next, 1);
        if (i >= p->n_pieces) break;
        if (!populate_piece(&p->ranges[i % p->n_ranges], i / p->n_ranges)) break;
    }
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
