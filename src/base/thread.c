#include "base/thread.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/spin.h"

/*
 * round counts calls of pool_run; workers wait for it to change. The barrier is a counter of
 * arrivals and a phase that the last arrival advances. Both words are futexes: a waiter announces
 * itself in *_sleepers before sleeping, so that the waker makes a system call only when needed.
 */
struct pool {
    uint32_t n_threads;
    uint32_t n_started;
    bool may_spin; /* a core for every thread */
    struct patience round_patience, phase_patience;
    pthread_t *threads;
    pool_fn *fn;
    void *arg;
    _Alignas(64) _Atomic uint32_t round;
    _Atomic uint32_t round_sleepers;
    _Alignas(64) _Atomic uint32_t arrived;
    _Alignas(64) _Atomic uint32_t phase;
    _Atomic uint32_t phase_sleepers;
    _Atomic bool stop;
};

struct worker_start {
    struct pool *pool;
    uint32_t index;
};

static void futex(_Atomic uint32_t *word, int op, uint32_t value)
{
    syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void sleep_until_change(_Atomic uint32_t *word, _Atomic uint32_t *sleepers, uint32_t old)
{
    atomic_fetch_add(sleepers, 1);
    while (atomic_load(word) == old) futex(word, FUTEX_WAIT, old);
    atomic_fetch_sub(sleepers, 1);
}

static void wait_change(const struct pool *pool, _Atomic uint32_t *word, _Atomic uint32_t *sleepers,
                        uint32_t old, struct patience *patience)
{
    struct spin spin = spin_begin(patience);
    bool changed = false;
    do {
        changed = atomic_load_explicit(word, memory_order_acquire) != old;
    } while (!changed && pool->may_spin && spin_on(&spin));
    if (!changed) sleep_until_change(word, sleepers, old);
    spin_end(&spin, patience);
}

static void advance(_Atomic uint32_t *word, _Atomic uint32_t *sleepers)
{
    atomic_fetch_add(word, 1);
    if (atomic_load(sleepers)) futex(word, FUTEX_WAKE, INT32_MAX);
}

void pool_barrier(struct pool *pool)
{
    if (pool->n_threads == 1) return;
    uint32_t phase = atomic_load_explicit(&pool->phase, memory_order_relaxed);
    if (atomic_fetch_add(&pool->arrived, 1) + 1 == pool->n_threads) {
        atomic_store(&pool->arrived, 0);
        advance(&pool->phase, &pool->phase_sleepers);
    } else {
        wait_change(pool, &pool->phase, &pool->phase_sleepers, phase, &pool->phase_patience);
    }
}

static void *worker(void *arg)
{
    struct worker_start start = *(struct worker_start *)arg;
    free(arg);
    struct pool *pool = start.pool;
    for (uint32_t seen = 0;; seen++) {
        wait_change(pool, &pool->round, &pool->round_sleepers, seen, &pool->round_patience);
        if (atomic_load(&pool->stop)) return NULL;
        pool->fn(pool->arg, start.index, pool->n_threads);
        pool_barrier(pool);
    }
}

static int start_worker(struct pool *pool, uint32_t index)
{
    struct worker_start *start = malloc(sizeof *start);
    if (!start) return ENOMEM;
    *start = (struct worker_start){pool, index};
    int e = pthread_create(&pool->threads[index - 1], NULL, worker, start);
    if (e) free(start);
    return e;
}

enum sluice_status pool_open(struct pool **out, uint32_t n_threads, struct sluice_error *err)
{
    *out = NULL;
    struct pool *pool = aligned_alloc(64, sizeof *pool);
    if (!pool) return err_nomem(err, "thread pool", sizeof *pool);
    memset(pool, 0, sizeof *pool);
    pool->n_threads = n_threads;
    pool->may_spin = n_threads <= thread_cores();
    pool->threads = calloc(n_threads, sizeof *pool->threads);
    int e = pool->threads ? 0 : ENOMEM;
    for (uint32_t i = 1; i < n_threads && !e; i++) {
        e = start_worker(pool, i);
        if (!e) pool->n_started++;
    }
    if (e) {
        pool_close(&pool);
        return err_set(err, SLUICE_E_SYSTEM, "starting %u threads: %s", n_threads, strerror(e));
    }
    *out = pool;
    return SLUICE_OK;
}

void pool_close(struct pool **out)
{
    struct pool *pool = *out;
    if (!pool) return;
    *out = NULL;
    atomic_store(&pool->stop, true);
    advance(&pool->round, &pool->round_sleepers);
    for (uint32_t i = 0; i < pool->n_started; i++) pthread_join(pool->threads[i], NULL);
    free(pool->threads);
    free(pool);
}

uint32_t pool_size(const struct pool *pool)
{
    return pool->n_threads;
}

void pool_run(struct pool *pool, pool_fn *fn, void *arg)
{
    pool->fn = fn;
    pool->arg = arg;
    if (pool->n_threads > 1) advance(&pool->round, &pool->round_sleepers);
    fn(arg, 0, pool->n_threads);
    pool_barrier(pool);
}

uint32_t thread_cores(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? (uint32_t)n : 1;
}
