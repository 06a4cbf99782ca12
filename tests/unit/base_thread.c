/* The thread pool: every thread runs, barriers hold, memory is seen, idle threads wake up. */
#include <stdatomic.h>
#include <time.h>

#include "base/thread.h"
#include "check.h"

enum { MOST = 8 };

struct visits {
    uint32_t count[MOST];
    uint32_t n_threads;
    _Atomic uint32_t strangers;
};

static void visit(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct visits *v = arg;
    if (thread >= MOST || n_threads != v->n_threads)
        atomic_fetch_add(&v->strangers, 1);
    else
        v->count[thread]++;
}

static struct pool *pool_of(uint32_t n)
{
    struct sluice_error err = {0};
    struct pool *pool;
    CHECK_OK(pool_open(&pool, &(struct pool_options){.n_threads = n}, &err));
    return pool;
}

static void test_every_thread_runs_once(void)
{
    for (uint32_t n = 1; n <= MOST; n++) {
        struct visits v = {.n_threads = n};
        struct pool *pool = pool_of(n);
        REQUIRE(pool);
        CHECK(pool_size(pool) == n);
        for (uint32_t run = 1; run <= 200; run++) {
            pool_run(pool, visit, &v, 1);
            for (uint32_t t = 0; t < MOST; t++)
                CHECK(v.count[t] == (t < n ? run : 0), "thread %u of %u, run %u", t, n, run);
        }
        CHECK(v.strangers == 0);
        pool_close(&pool);
        CHECK(pool == NULL);
    }
}

/* Longer than waiting threads spin: they sleep, and must be woken. */
static void rest(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
}

static void test_sleepers_wake(void)
{
    struct visits v = {.n_threads = 4};
    struct pool *pool = pool_of(4);
    REQUIRE(pool);
    for (uint32_t run = 1; run <= 10; run++) {
        rest();
        pool_run(pool, visit, &v, 1);
        CHECK(v.count[0] == run && v.count[1] == run && v.count[2] == run && v.count[3] == run);
    }
    rest();
    pool_close(&pool);
}

struct march {
    struct pool *pool;
    uint32_t at[MOST];
    uint32_t rounds;
    uint32_t laggards[MOST];
    bool dawdle;
};

/* Between two barriers everyone writes its own place; then everyone reads all. */
static void march(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct march *m = arg;
    for (uint32_t round = 1; round <= m->rounds; round++) {
        m->at[thread] = round;
        if (m->dawdle && round % n_threads == thread) rest();
        pool_barrier(m->pool);
        for (uint32_t t = 0; t < n_threads; t++) m->laggards[thread] += m->at[t] != round;
        pool_barrier(m->pool);
    }
}

static void check_march(uint32_t n, uint32_t rounds, bool dawdle)
{
    struct march m = {.pool = pool_of(n), .rounds = rounds, .dawdle = dawdle};
    REQUIRE(m.pool);
    pool_run(m.pool, march, &m, 1);
    for (uint32_t t = 0; t < n; t++) {
        CHECK(m.laggards[t] == 0, "%u of %u saw others behind %u times", t, n, m.laggards[t]);
        CHECK(m.at[t] == rounds);
    }
    pool_close(&m.pool);
}

static void test_barriers_hold(void)
{
    for (uint32_t n = 1; n <= MOST; n++) check_march(n, 300, false);
    check_march(3, 12, true);
}

static void test_pools_side_by_side(void)
{
    struct visits a = {.n_threads = 3}, b = {.n_threads = 2};
    struct pool *first = pool_of(3), *second = pool_of(2);
    REQUIRE(first && second);
    for (int i = 0; i < 50; i++) {
        pool_run(first, visit, &a, 1);
        pool_run(second, visit, &b, 1);
    }
    CHECK(a.count[2] == 50 && b.count[1] == 50 && b.count[2] == 0);
    pool_close(&first);
    pool_run(second, visit, &b, 1);
    CHECK(b.count[1] == 51);
    pool_close(&second);
}

/* Every thread of a run adds one; the pool may give it fewer than there are. */
struct tally {
    struct pool *pool;
    _Atomic uint32_t visits;
    uint32_t n_threads, fewest;
    bool slow; /* thread 0 has nothing to do but wait */
};

static void count_visit(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct tally *t = arg;
    atomic_fetch_add(&t->visits, 1);
    if (thread == 0) t->n_threads = n_threads;
    if (thread == 0 && n_threads < t->fewest) t->fewest = n_threads;
    if (t->slow && thread == 1) rest();
    pool_barrier(t->pool);
    if (thread == 0 && t->slow && n_threads == 1)
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

/* Threads that hold up the others have no part after a while, and have one again when they do not.
 */
static void test_adapts(void)
{
    struct sluice_error err = {0};
    struct tally t = {.fewest = 4, .slow = true};
    struct pool_options o = {.n_threads = 4, .n_cores = 4, .adapt = true};
    CHECK_OK(pool_open(&t.pool, &o, &err));
    REQUIRE(t.pool);
    for (int i = 0; i < 5000 && t.fewest > 1; i++) {
        atomic_store(&t.visits, 0);
        pool_run(t.pool, count_visit, &t, 1);
        CHECK(atomic_load(&t.visits) == t.n_threads, "run %d", i);
    }
    CHECK(t.fewest < 4, "%u", t.fewest);
    /* and all of them are there at the end, whether asleep or not */
    rest();
    pool_close(&t.pool);
}

static void test_places(void)
{
    struct sluice_error err = {0};
    cpu_set_t here[3];
    REQUIRE(sched_getaffinity(0, sizeof here[0], &here[0]) == 0);
    here[1] = here[0];
    CPU_ZERO(&here[2]); /* no such place: anywhere will do */
    struct visits v = {.n_threads = 3};
    struct pool *pool;
    struct pool_options o = {.n_threads = 3, .places = here};
    CHECK_OK(pool_open(&pool, &o, &err));
    REQUIRE(pool);
    for (uint32_t run = 1; run <= 20; run++) pool_run(pool, visit, &v, 1);
    CHECK(v.count[0] == 20 && v.count[1] == 20 && v.count[2] == 20);
    pool_close(&pool);
}

static void test_no_such_pool(void)
{
    struct sluice_error err = {0};
    struct pool *pool;
    CHECK(pool_open(&pool, &(struct pool_options){.n_threads = 0}, &err) == SLUICE_E_INTERNAL);
    CHECK(pool_open(&pool, &(struct pool_options){.n_threads = 2048}, &err) == SLUICE_E_INTERNAL);
    CHECK(pool == NULL);
}

static void test_closing(void)
{
    struct pool *pool = NULL;
    pool_close(&pool);
    for (uint32_t n = 1; n <= MOST; n++) {
        pool = pool_of(n);
        pool_close(&pool);
        CHECK(pool == NULL);
    }
}

/* Parts are in order, without gaps, whole grains but for the end, and as even as grains allow. */
static void check_shares(uint32_t n, uint32_t grain, uint32_t n_threads)
{
    uint32_t at = 0, least = UINT32_MAX, most = 0;
    bool whole = true, joined = true;
    for (uint32_t t = 0; t < n_threads; t++) {
        uint32_t begin, end;
        pool_share(n, grain, t, n_threads, &begin, &end);
        joined &= begin == at && end >= begin;
        whole &= end == n || end % grain == 0;
        at = end;
        least = end - begin < least ? end - begin : least;
        most = end - begin > most ? end - begin : most;
    }
    CHECK(joined && at == n, "n %u grain %u threads %u", n, grain, n_threads);
    CHECK(whole && most - least <= grain, "n %u grain %u threads %u", n, grain, n_threads);
}

static void test_shares_cover(void)
{
    static const uint32_t grains[] = {1, 2, 16, 64};
    for (uint32_t threads = 1; threads <= 9; threads++)
        for (int g = 0; g < 4; g++)
            for (uint32_t n = 0; n <= 300; n++) check_shares(n, grains[g], threads);
    for (int g = 0; g < 4; g++) {
        check_shares(UINT32_MAX, grains[g], 1024);
        check_shares(UINT32_MAX - 63, grains[g], 7);
    }
}

static void test_cores(void)
{
    CHECK(thread_cores() >= 1 && thread_cores() < 1u << 16);
}

#define CASES(C)                                                                                   \
    C(every_thread_runs_once)                                                                      \
    C(sleepers_wake)                                                                               \
    C(barriers_hold)                                                                               \
    C(pools_side_by_side)                                                                          \
    C(adapts)                                                                                      \
    C(places)                                                                                      \
    C(no_such_pool)                                                                                \
    C(closing)                                                                                     \
    C(shares_cover)                                                                                \
    C(cores)
CHECK_MAIN(CASES)
