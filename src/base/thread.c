#include "base/thread.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/pace.h"
#include "base/spin.h"

/*
 * round names the run: a count of runs, and how many threads take part. Workers wait for it to
 * change; those that take no part sleep until a run has more threads than the one before. The
 * barrier is a counter of arrivals and a phase that the last arrival advances. Both words are
 * futexes: a waiter announces itself in *_sleepers before sleeping, so that the waker makes a
 * system call only when needed.
 */
struct pool {
    uint32_t n_threads, n_started, n_cores;
    bool adapt;
    enum pool_order order;
    _Atomic uint32_t turn; /* in an order: which thread's, counted from the first */
    _Atomic bool may_spin; /* this run: a core for every thread */
    uint32_t n_here;       /* threads of this run */
    struct pace pace;
    pthread_t caller;   /* thread 0 of this run */
    uint64_t waited_ns; /* by thread 0 in this run */
    struct patience round_patience, phase_patience;
    cpu_set_t *places;
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

/* Low bits of round: threads that take part. */
enum { ROUND_BITS = 11, ROUND_STEP = 1 << ROUND_BITS };
/* Who sleeps on a futex: those that wait for the next change, and those that have no part. */
enum { WAITING = 1, IDLE = 2 };

struct worker_start {
    struct pool *pool;
    uint32_t index;
};

static void futex(_Atomic uint32_t *word, int op, uint32_t value, uint32_t who)
{
    syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, who);
}

static void sleep_while(_Atomic uint32_t *word, uint32_t value, uint32_t who)
{
    futex(word, FUTEX_WAIT_BITSET, value, who);
}

static void wake(_Atomic uint32_t *word, uint32_t who)
{
    futex(word, FUTEX_WAKE_BITSET, INT32_MAX, who);
}

static void sleep_until_change(_Atomic uint32_t *word, _Atomic uint32_t *sleepers, uint32_t old)
{
    atomic_fetch_add(sleepers, 1);
    while (atomic_load(word) == old) sleep_while(word, old, WAITING);
    atomic_fetch_sub(sleepers, 1);
}

/* Returns how long it took. */
static uint64_t wait_change(const struct pool *pool, _Atomic uint32_t *word,
                            _Atomic uint32_t *sleepers, uint32_t old, struct patience *patience)
{
    if (atomic_load_explicit(word, memory_order_acquire) != old) return 0;
    struct spin spin = spin_begin(patience);
    bool changed = false;
    while (!changed && atomic_load_explicit(&pool->may_spin, memory_order_relaxed) &&
           spin_on(&spin))
        changed = atomic_load_explicit(word, memory_order_acquire) != old;
    if (!changed) sleep_until_change(word, sleepers, old);
    return spin_end(&spin, patience);
}

/* This thread's place in the order. */
static uint32_t place_of(const struct pool *pool)
{
    uint32_t thread = 0;
    const pthread_t self = pthread_self();
    if (!pthread_equal(self, pool->caller))
        for (thread = 1; !pthread_equal(self, pool->threads[thread - 1]);) thread++;
    return pool->order == POOL_RISING ? thread : pool->n_here - 1 - thread;
}

static void wait_turn(const struct pool *pool)
{
    if (pool->order == POOL_TOGETHER) return;
    const uint32_t place = place_of(pool);
    while (atomic_load(&pool->turn) != place) sched_yield();
}

/* With n threads of the run. The last one in the order is the last to arrive. */
static void pass_turn(struct pool *pool, uint32_t n)
{
    if (pool->order == POOL_TOGETHER) return;
    atomic_store(&pool->turn, (atomic_load(&pool->turn) + 1) % n);
}

static void meet(struct pool *pool, struct patience *patience)
{
    /* Not to be read after the arrival: thread 0 may be on its way to the next run then. */
    uint32_t n = pool->n_here;
    if (n == 1) return;
    bool is_caller = pthread_equal(pthread_self(), pool->caller);
    uint32_t phase = atomic_load_explicit(&pool->phase, memory_order_relaxed);
    if (atomic_fetch_add(&pool->arrived, 1) + 1 == n) {
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        pass_turn(pool, n);
        atomic_fetch_add(&pool->phase, 1);
        if (atomic_load(&pool->phase_sleepers)) wake(&pool->phase, WAITING);
        return;
    }
    pass_turn(pool, n);
    uint64_t ns = wait_change(pool, &pool->phase, &pool->phase_sleepers, phase, patience);
    if (is_caller) pool->waited_ns += ns;
}

void pool_barrier(struct pool *pool)
{
    meet(pool, &pool->phase_patience);
    wait_turn(pool);
}

void pool_barrier_asleep(struct pool *pool)
{
    struct patience none = {false};
    meet(pool, &none);
    wait_turn(pool);
}

uint64_t pool_waited_ns(const struct pool *pool)
{
    return pool->waited_ns;
}

static uint32_t threads_of(uint32_t round)
{
    return round % ROUND_STEP;
}

/* Waits for a run in which this worker has a part, and returns its round. */
static uint32_t wait_round(struct pool *pool, uint32_t index, uint32_t seen)
{
    (void)wait_change(pool, &pool->round, &pool->round_sleepers, seen, &pool->round_patience);
    for (;;) {
        uint32_t round = atomic_load(&pool->round);
        if (index < threads_of(round)) return round;
        sleep_while(&pool->round, round, IDLE);
    }
}

static void begin_round(struct pool *pool, uint32_t n)
{
    uint32_t old = atomic_load_explicit(&pool->round, memory_order_relaxed);
    atomic_store(&pool->round, old - threads_of(old) + ROUND_STEP + n);
    uint32_t who = n > threads_of(old) ? WAITING | IDLE : WAITING;
    if (who & IDLE || atomic_load(&pool->round_sleepers)) wake(&pool->round, who);
}

static void *worker(void *arg)
{
    struct worker_start start = *(struct worker_start *)arg;
    free(arg);
    struct pool *pool = start.pool;
    /* Where the place is no more, anywhere else will do. */
    if (pool->places)
        (void)pthread_setaffinity_np(pthread_self(), sizeof *pool->places,
                                     &pool->places[start.index]);
    for (uint32_t seen = 0;;) {
        seen = wait_round(pool, start.index, seen);
        if (atomic_load(&pool->stop)) return NULL;
        wait_turn(pool);
        pool->fn(pool->arg, start.index, pool->n_here);
        meet(pool, &pool->phase_patience);
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

static int copy_places(struct pool *pool, const cpu_set_t *places)
{
    if (!places) return 0;
    pool->places = calloc(pool->n_threads, sizeof *places);
    if (!pool->places) return ENOMEM;
    memcpy(pool->places, places, pool->n_threads * sizeof *places);
    return 0;
}

enum sluice_status pool_open(struct pool **out, const struct pool_options *o,
                             struct sluice_error *err)
{
    *out = NULL;
    if (o->n_threads == 0 || o->n_threads >= ROUND_STEP)
        return err_set(err, SLUICE_E_INTERNAL, "a pool of %u threads", o->n_threads);
    struct pool *pool = aligned_alloc(64, sizeof *pool);
    if (!pool) return err_nomem(err, "thread pool", sizeof *pool);
    memset(pool, 0, sizeof *pool);
    pool->n_threads = o->n_threads;
    pool->n_cores = o->n_cores ? o->n_cores : thread_cores();
    pool->adapt = o->adapt;
    pool->order = o->order;
    atomic_store(&pool->may_spin, o->n_threads <= pool->n_cores);
    pace_init(&pool->pace, o->n_threads, pool->n_cores);
    pool->threads = calloc(o->n_threads, sizeof *pool->threads);
    int e = pool->threads ? copy_places(pool, o->places) : ENOMEM;
    for (uint32_t i = 1; i < o->n_threads && !e; i++) {
        e = start_worker(pool, i);
        if (!e) pool->n_started++;
    }
    if (e) {
        pool_close(&pool);
        return err_set(err, SLUICE_E_SYSTEM, "starting %u threads: %s", o->n_threads, strerror(e));
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
    begin_round(pool, pool->n_threads);
    for (uint32_t i = 0; i < pool->n_started; i++) pthread_join(pool->threads[i], NULL);
    free(pool->places);
    free(pool->threads);
    free(pool);
}

uint32_t pool_size(const struct pool *pool)
{
    return pool->n_threads;
}

void pool_run(struct pool *pool, pool_fn *fn, void *arg, uint64_t work)
{
    uint64_t begin = pool->adapt ? clock_ns() : 0;
    pool->fn = fn;
    pool->arg = arg;
    pool->n_here = pool->adapt ? pool->pace.n : pool->n_threads;
    atomic_store_explicit(&pool->may_spin, pool->n_here <= pool->n_cores, memory_order_relaxed);
    pool->caller = pthread_self();
    pool->waited_ns = 0;
    if (pool->n_threads > 1) begin_round(pool, pool->n_here);
    wait_turn(pool);
    fn(arg, 0, pool->n_here);
    meet(pool, &pool->phase_patience);
    if (!pool->adapt) return;
    uint64_t end = clock_ns();
    pace_note(&pool->pace, end, end - begin, pool->waited_ns, work);
}

uint32_t thread_cores(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? (uint32_t)n : 1;
}
