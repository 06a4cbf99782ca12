/*
 * A pool of threads that run one function together. The caller is thread 0 and takes part. Waiting
 * threads spin for a short time, then sleep on a futex, so that a step costs no system call while
 * work is flowing and nothing while it is not.
 */
#ifndef SLUICE_BASE_THREAD_H
#define SLUICE_BASE_THREAD_H

#include <sched.h>

#include "base/err.h"

struct pool;

/*
 * How threads of a run go from barrier to barrier: as they can, or for tests one after the other,
 * by rising or falling index. What one leaves to another without a barrier then goes wrong every
 * time in one of these orders.
 */
enum pool_order { POOL_TOGETHER, POOL_RISING, POOL_FALLING };

struct pool_options {
    uint32_t n_threads; /* >= 1, the caller of pool_run included */
    uint32_t n_cores;   /* processors there are for them; 0: thread_cores(). Waiting threads spin
                           only while each has one */
    enum pool_order order;
    bool adapt;              /* runs may use fewer threads where that is faster (base/pace.h) */
    const cpu_set_t *places; /* per thread: where it may run; that of thread 0, the caller's, is not
                                used. NULL: wherever the system likes */
};

/* Starts n_threads - 1 threads. Errors: SYSTEM, NOMEM. */
enum sluice_status pool_open(struct pool **pool, const struct pool_options *options,
                             struct sluice_error *err);
void pool_close(struct pool **pool);
uint32_t pool_size(const struct pool *pool);

/*
 * Runs fn(arg, thread, n_threads) on n_threads threads and returns when all are done: all of the
 * pool, or fewer if the pool adapts. work: how much this run does, in any unit that is the same for
 * all runs of the pool; only an adapting pool reads it.
 */
typedef void pool_fn(void *arg, uint32_t thread, uint32_t n_threads);
void pool_run(struct pool *pool, pool_fn *fn, void *arg, uint64_t work);

/* Inside fn only: waits until every thread of the run is here. */
void pool_barrier(struct pool *pool);
/*
 * The same for threads that wait for one which waits for the drive: they sleep soon. On a virtual
 * machine the host's side of a read wants a core too, and gets none while all of ours spin.
 */
void pool_barrier_asleep(struct pool *pool);

/* Thread 0 inside fn only: how long it has waited for others in this run. */
uint64_t pool_waited_ns(const struct pool *pool);

/* The part of n items that thread has: [*begin, *end), parts differ by at most grain items. */
static inline void pool_share(uint32_t n, uint32_t grain, uint32_t thread, uint32_t n_threads,
                              uint32_t *begin, uint32_t *end)
{
    uint64_t grains = ((uint64_t)n + grain - 1) / grain;
    uint64_t b = grains * thread / n_threads * grain;
    uint64_t e = grains * (thread + 1) / n_threads * grain;
    *begin = (uint32_t)(b < n ? b : n);
    *end = (uint32_t)(e < n ? e : n);
}

/* Processors this process may run on, at least 1. */
uint32_t thread_cores(void);

#endif
