/* How many threads take part, on simulated machines. */
#include "base/pace.h"

#include "check.h"

/* A machine that does a unit of work in busy_ns on one thread, and makes n threads wait. */
struct machine {
    uint64_t busy_ns;
    uint64_t wait_ns[65]; /* per run, by threads */
    uint64_t now;
};

static void run(struct pace *pace, struct machine *m, uint64_t work)
{
    uint64_t busy = m->busy_ns * work / pace->n;
    uint64_t waited = m->wait_ns[pace->n];
    m->now += busy + waited;
    pace_note(pace, m->now, busy + waited, waited, work);
}

/* Runs for so long, and returns the share of runs that were of n threads, in percent. */
static uint32_t share_of(struct pace *pace, struct machine *m, uint32_t n, uint64_t ms)
{
    uint32_t runs = 0, of_n = 0;
    for (uint64_t end = m->now + ms * 1000000; m->now < end; runs++) {
        of_n += pace->n == n;
        run(pace, m, 1);
    }
    return runs ? 100 * of_n / runs : 0;
}

/* Nothing is tried where threads wait little. */
static void test_left_alone(void)
{
    struct machine m = {.busy_ns = 1000000};
    struct pace pace;
    pace_init(&pace, 2, 64);
    m.wait_ns[2] = 150000;
    CHECK(share_of(&pace, &m, 2, 5000) == 100);
    pace_init(&pace, 1, 64);
    CHECK(share_of(&pace, &m, 1, 5000) == 100);
}

/* Two threads that wait for a busy neighbour's time slices are slower than one. */
static void test_busy_neighbour(void)
{
    struct machine m = {.busy_ns = 1000000};
    struct pace pace;
    pace_init(&pace, 2, 64);
    m.wait_ns[2] = 4000000;
    (void)share_of(&pace, &m, 1, 200);
    CHECK(share_of(&pace, &m, 1, 20000) >= 90);
    /* it goes away: both are back before long */
    m.wait_ns[2] = 0;
    (void)share_of(&pace, &m, 2, 4000);
    CHECK(share_of(&pace, &m, 2, 5000) == 100);
}

/* Waiting that fewer threads would not make up for: two stay, with few trials. */
static void test_waits_that_pay(void)
{
    struct machine m = {.busy_ns = 1000000};
    struct pace pace;
    pace_init(&pace, 2, 64);
    m.wait_ns[2] = 300000;
    (void)share_of(&pace, &m, 2, 10000);
    CHECK(share_of(&pace, &m, 2, 60000) >= 98);
}

/* Eight threads where two have processors: soon two, and never eight again. */
static void test_too_many(void)
{
    struct machine m = {.busy_ns = 1000000};
    struct pace pace;
    pace_init(&pace, 8, 2);
    for (uint32_t n = 3; n <= 8; n++) m.wait_ns[n] = 500000 - m.busy_ns / n + 100000 * n;
    for (int i = 0; i < 4; i++) run(&pace, &m, 1);
    CHECK(pace.n == 2, "%u", pace.n);
    CHECK(share_of(&pace, &m, 2, 20000) == 100);
}

/* A trial that goes badly is over after a run, not after a window. */
static void test_gives_up_soon(void)
{
    struct machine m = {.busy_ns = 1000000};
    struct pace pace;
    pace_init(&pace, 2, 2);
    m.wait_ns[2] = 30000000;
    while (pace.n == 2) run(&pace, &m, 1);
    uint32_t runs = 0;
    for (int i = 0; i < 5000; i++) {
        runs += pace.n == 2;
        run(&pace, &m, 1);
    }
    CHECK(runs <= 8, "%u", runs);
}

/* From one to all, when it pays. */
static void test_climbs(void)
{
    struct machine m = {.busy_ns = 64000000};
    struct pace pace;
    pace_init(&pace, 64, 64);
    pace.n = 1;
    (void)share_of(&pace, &m, 64, 20000);
    CHECK(pace.n == 64 || pace.before == 64, "%u", pace.n);
}

/* A prompt between tokens is no reason to believe that its threads were faster. */
static void test_other_work(void)
{
    struct machine m = {.busy_ns = 1000000};
    struct pace pace;
    pace_init(&pace, 2, 64);
    m.wait_ns[2] = 400000;
    while (!pace.in_trial) run(&pace, &m, 1);
    m.wait_ns[2] = 0;
    while (pace.in_trial) {
        m.now += 5000000;
        pace_note(&pace, m.now, 5000000, 0, 512);
    }
    CHECK(pace.n == 2);
}

#define CASES(C)                                                                                   \
    C(left_alone)                                                                                  \
    C(busy_neighbour)                                                                              \
    C(waits_that_pay)                                                                              \
    C(too_many)                                                                                    \
    C(gives_up_soon)                                                                               \
    C(climbs)                                                                                      \
    C(other_work)
CHECK_MAIN(CASES)
