/* The trial that chooses how to guess, on made-up times. */
#include "base/rng.h"
#include "check.h"
#include "store/prefetch_trial.h"

enum { BATCHES = 20000 };

/* What a batch takes in percent of one without guesses; noise in percent, drift per batch. */
struct machine {
    bool router;
    uint32_t last, ahead, noise;
    double drift;
};

/* How many of the batches were run in each way. */
static void run(const struct machine *m, uint32_t n[PREFETCH_KINDS])
{
    struct prefetch_trial t;
    struct rng rng = {7};
    uint32_t cost[PREFETCH_KINDS] = {100, m->last, m->ahead};
    prefetch_trial_init(&t, m->router);
    memset(n, 0, PREFETCH_KINDS * sizeof *n);
    for (uint32_t i = 0; i < BATCHES; i++) {
        enum prefetch_kind kind = prefetch_trial_kind(&t);
        CHECK(kind < PREFETCH_KINDS && kind == prefetch_trial_kind(&t));
        double noise = 1 + m->noise / 100.0 * (rng_below(&rng, 2001) / 1000.0 - 1);
        double ns = 1e6 * cost[kind] * noise * (1 + m->drift * i);
        n[kind]++;
        prefetch_trial_add(&t, (uint64_t)ns);
    }
}

static uint32_t leader_of(const struct machine *m)
{
    uint32_t n[PREFETCH_KINDS], best = 0;
    run(m, n);
    for (uint32_t k = 0; k < PREFETCH_KINDS; k++)
        if (n[k] > n[best]) best = k;
    CHECK(n[best] > BATCHES * 9 / 10, "%u of %u", n[best], BATCHES);
    return best;
}

static void test_gain_is_taken(void)
{
    CHECK(leader_of(&(struct machine){true, 100, 80, 5, 0}) == PREFETCH_ROUTER);
    CHECK(leader_of(&(struct machine){true, 85, 100, 5, 0}) == PREFETCH_LAST);
    CHECK(leader_of(&(struct machine){true, 90, 80, 2, 0}) == PREFETCH_ROUTER);
    CHECK(leader_of(&(struct machine){true, 80, 90, 2, 0}) == PREFETCH_LAST);
    CHECK(leader_of(&(struct machine){false, 80, 1, 5, 0}) == PREFETCH_LAST);
}

/* As fast as none, slower, or faster by too little to tell from chance. */
static void test_no_gain(void)
{
    CHECK(leader_of(&(struct machine){true, 100, 100, 0, 0}) == PREFETCH_OFF);
    CHECK(leader_of(&(struct machine){true, 100, 100, 20, 0}) == PREFETCH_OFF);
    CHECK(leader_of(&(struct machine){true, 99, 98, 1, 0}) == PREFETCH_OFF);
    CHECK(leader_of(&(struct machine){true, 150, 101, 10, 0}) == PREFETCH_OFF);
}

/* Batches that take longer and longer, as those of a growing context do, favour nobody. */
static void test_drift(void)
{
    CHECK(leader_of(&(struct machine){true, 100, 100, 1, 1e-3}) == PREFETCH_OFF);
    CHECK(leader_of(&(struct machine){true, 100, 90, 1, 1e-3}) == PREFETCH_ROUTER);
}

/* Routers that cannot be asked early are not. */
static void test_without_router(void)
{
    uint32_t n[PREFETCH_KINDS];
    run(&(struct machine){false, 100, 1, 0, 0}, n);
    CHECK(n[PREFETCH_ROUTER] == 0 && n[PREFETCH_LAST] > 0);
}

/* A machine that changes is tried again. */
static void test_tried_again(void)
{
    struct prefetch_trial t;
    uint32_t late[PREFETCH_KINDS] = {0};
    prefetch_trial_init(&t, true);
    for (uint32_t i = 0; i < BATCHES; i++) {
        enum prefetch_kind kind = prefetch_trial_kind(&t);
        bool gain = (kind == PREFETCH_ROUTER) == (i < BATCHES / 2);
        if (i >= BATCHES * 3 / 4) late[kind]++;
        prefetch_trial_add(&t, gain ? 700 : 1000);
    }
    CHECK(late[PREFETCH_ROUTER] < BATCHES / 40);
}

#define CASES(C) C(gain_is_taken) C(no_gain) C(drift) C(without_router) C(tried_again)
CHECK_MAIN(CASES)
