#include "base/populate.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
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
    size_t ahead; /* so many pieces are taken behind those that somebody else touches */
    _Atomic size_t next;
    _Atomic size_t avoid; /* behind the last piece that somebody else touches */
    _Atomic bool stop;
    sem_t wake;
    _Atomic uint32_t n_asleep; /* at most so many threads wait for it */
    _Atomic uint32_t n_over;   /* threads that have ended */
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

/* Fewer than so many pieces wait to be touched, or it ends. */
static bool is_short(struct populate *p, size_t pieces)
{
    size_t next = atomic_load(&p->next);
    return next >= p->n_pieces || next < atomic_load(&p->avoid) + pieces || atomic_load(&p->stop);
}

/*
 * Sleeps while enough is there, and then until half of it is used: work in long turns leaves long
 * times in which nobody else is held up. A thread that is woken for nothing looks again.
 */
static void wait_until_short(struct populate *p)
{
    if (p->ahead == 0 || is_short(p, p->ahead)) return;
    while (!is_short(p, p->ahead / 2)) {
        atomic_fetch_add(&p->n_asleep, 1);
        if (!is_short(p, p->ahead / 2)) (void)sem_wait(&p->wake);
    }
}

/* No lock: whoever held it might be a thread that gets no core for a while. */
static void wake_all(struct populate *p)
{
    for (uint32_t n = atomic_exchange(&p->n_asleep, 0); n > 0; n--) (void)sem_post(&p->wake);
}

/* The piece whose turn it is; past the end when there is none left. */
static size_t next_piece(struct populate *p)
{
    for (;;) {
        wait_until_short(p);
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

struct populate *populate_start(const struct mem_range *ranges, uint32_t n, uint32_t n_threads,
                                size_t ahead)
{
    struct populate *p = n && n_threads ? calloc(1, sizeof *p) : NULL;
    if (!p) return NULL;
    (void)sem_init(&p->wake, 0, 0);
    p->ahead = ahead / PIECE + (ahead % PIECE != 0);
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
    if (p && atomic_load(&p->n_asleep) && is_short(p, p->ahead / 2)) wake_all(p);
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
    wake_all(p);
    for (uint32_t i = 0; i < p->n_threads; i++) pthread_join(p->threads[i], NULL);
    (void)sem_destroy(&p->wake);
    free(p->threads);
    free(p->ranges);
    free(p);
}
