/* Ghost caches count as a cache would; `auto` follows them, and not too eagerly. */
#include "base/rng.h"
#include "check.h"
#include "fail_alloc.h"
#include "store/policy_auto.h"

enum { LAYERS = 4, EXPERTS = 16, KEYS = LAYERS * EXPERTS };

static struct sluice_error err;
static uint32_t layer_of[KEYS];

static struct policy_shape shape(void)
{
    for (uint32_t i = 0; i < KEYS; i++) layer_of[i] = i / EXPERTS;
    return (struct policy_shape){
        .n_keys = KEYS, .n_layers = LAYERS, .layer_of = layer_of, .entry_bytes = 100};
}

static struct ghost open_ghost(enum policy_kind kind, uint32_t capacity)
{
    struct ghost ghost;
    const struct policy_shape s = shape();
    CHECK_OK(ghost_open(&ghost, policy_ops_of(kind), &s, capacity, &err));
    return ghost;
}

static uint32_t step(struct ghost *ghost, const uint32_t *keys, uint32_t n)
{
    return ghost_step(ghost, layer_of[keys[0]], keys, n, USE_DECODE);
}

#define STEP(ghost, ...)                                                                           \
    step(ghost, (const uint32_t[]){__VA_ARGS__},                                                   \
         sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void test_counts_by_hand(void)
{
    struct ghost ghost = open_ghost(POLICY_LRU, 3);
    CHECK(STEP(&ghost, 1, 2) == 0);
    CHECK(STEP(&ghost, 20) == 0);
    CHECK(STEP(&ghost, 1, 3) == 1); /* 3 takes the place of 2 */
    CHECK(STEP(&ghost, 20) == 1);
    CHECK(STEP(&ghost, 2) == 0); /* takes the place of 1 */
    CHECK(STEP(&ghost, 3) == 1 && STEP(&ghost, 1) == 0);
    CHECK(ghost.hits == 3 && ghost.misses == 6 && ghost.missed_bytes == 600);
    CHECK(ghost.policy->n == 3 && ghost_bytes(&ghost) > KEYS);
    ghost_release(&ghost);
}

static void test_a_step_keeps_what_it_hits(void)
{
    struct ghost ghost = open_ghost(POLICY_LRU, 3);
    STEP(&ghost, 5);
    STEP(&ghost, 20);
    STEP(&ghost, 36);
    /* 5 is the oldest, and is asked for after 1 and 2, which need room. */
    CHECK(STEP(&ghost, 1, 2, 5) == 1);
    CHECK(STEP(&ghost, 1, 2, 5) == 3);
    ghost_release(&ghost);
}

static void test_steps_larger_than_the_cache(void)
{
    struct ghost ghost = open_ghost(POLICY_LRU, 2);
    CHECK(STEP(&ghost, 1, 2, 3, 4, 5) == 0);
    CHECK(ghost.policy->n == 2);
    CHECK(STEP(&ghost, 4, 5) == 2);
    ghost_release(&ghost);
}

static void test_capacity_changes(void)
{
    struct ghost ghost = open_ghost(POLICY_LRU, 4);
    STEP(&ghost, 1, 2, 3, 4);
    ghost_set_capacity(&ghost, 2);
    CHECK(ghost.policy->n == 2 && STEP(&ghost, 3, 4) == 2);
    ghost_set_capacity(&ghost, 0);
    CHECK(ghost.policy->n == 0 && STEP(&ghost, 3) == 0 && STEP(&ghost, 3) == 0);
    ghost_set_capacity(&ghost, 1);
    CHECK(STEP(&ghost, 3) == 0 && STEP(&ghost, 3) == 1);
    ghost_release(&ghost);
}

static bool opens(void)
{
    struct ghost ghost;
    const struct policy_shape s = shape();
    enum sluice_status status = ghost_open(&ghost, policy_ops_of(POLICY_LFU), &s, 4, &err);
    CHECK(status == SLUICE_OK || (status == SLUICE_E_NOMEM && !ghost.policy));
    ghost_release(&ghost);
    return status == SLUICE_OK;
}

static void test_open_errors(void)
{
    int failed;
    FAIL_SWEEP(opens(), &failed);
    CHECK(failed >= 2 && failed < 1000, "%d", failed);
    struct ghost ghost;
    struct policy_shape s = shape();
    s.n_layers = 1;
    CHECK(ghost_open(&ghost, policy_ops_of(POLICY_LRU), &s, 4, &err) == SLUICE_E_ARGUMENT);
    CHECK(!ghost.policy);
}

/* A cache that `auto` is in charge of, as the store would drive it. Returns the hits. */
static uint32_t live_step(struct policy *p, const uint32_t *keys, uint32_t n, enum policy_use use)
{
    uint32_t hits = 0;
    policy_step(p, layer_of[keys[0]], keys, n, use);
    for (uint32_t i = 0; i < n; i++) {
        if (policy_has(p, keys[i])) {
            policy_hit(p, keys[i], use);
            hits++;
            continue;
        }
        while (p->n >= p->capacity) policy_remove(p, policy_victim(p, NULL, NULL));
        policy_insert(p, keys[i], use);
    }
    return hits;
}

/* Reuse with wandering favourites; LFU's long memory is wrong for it. */
static uint32_t reused_key(uint32_t token, uint32_t layer)
{
    return layer * EXPERTS + (token / 4 * 5 + layer) % EXPERTS;
}

/* A few favourites of each layer among rare others; recency is wrong for it. */
static uint32_t popular_key(struct rng *rng, uint32_t layer)
{
    return layer * EXPERTS + (rng_below(rng, 2) ? rng_below(rng, 2) : rng_below(rng, EXPERTS));
}

static void test_auto_moves_with_the_load(void)
{
    struct rng rng = {3};
    struct policy *p;
    const struct policy_shape s = shape();
    CHECK_OK(policy_open(&p, POLICY_AUTO, &s, 12, &err));
    for (uint32_t token = 0; token < 2000; token++)
        for (uint32_t l = 0; l < LAYERS; l++) {
            uint32_t key = popular_key(&rng, l);
            live_step(p, &key, 1, USE_DECODE);
        }
    CHECK(policy_leader(p) == POLICY_LFU, "%s", policy_name(policy_leader(p)));
    uint64_t switches = policy_switches(p);
    for (uint32_t token = 0; token < 2000; token++)
        for (uint32_t l = 0; l < LAYERS; l++) {
            uint32_t key = reused_key(token, l);
            live_step(p, &key, 1, USE_DECODE);
        }
    CHECK(policy_leader(p) != POLICY_LFU && policy_switches(p) > switches);
    CHECK(policy_ghost(p, POLICY_LRU)->hits + policy_ghost(p, POLICY_LRU)->misses == 4000 * LAYERS);
    policy_close(&p);
}

static void test_auto_ignores_noise(void)
{
    struct rng rng = {5};
    struct policy *p;
    const struct policy_shape s = shape();
    CHECK_OK(policy_open(&p, POLICY_AUTO, &s, KEYS / 2, &err));
    for (uint32_t i = 0; i < 40000; i++) {
        uint32_t key = i % LAYERS * EXPERTS + rng_below(&rng, EXPERTS);
        live_step(p, &key, 1, USE_DECODE);
    }
    /* All policies are as good on uniform routing: 2,350 chances to change its mind. */
    CHECK(policy_switches(p) < 400, "%" PRIu64, policy_switches(p));
    policy_close(&p);
}

static void test_auto_ghosts_equal_lone_ghosts(void)
{
    struct rng rng = {11};
    struct policy *p;
    const struct policy_shape s = shape();
    struct ghost lone[POLICY_SINGLES];
    CHECK_OK(policy_open(&p, POLICY_AUTO, &s, 20, &err));
    for (unsigned i = 0; i < POLICY_SINGLES; i++) lone[i] = open_ghost((enum policy_kind)i, 20);
    for (uint32_t i = 0; i < 20000; i++) {
        uint32_t layer = i % LAYERS, key = popular_key(&rng, layer);
        enum policy_use use = i / 1000 % 5 == 4 ? USE_PREFILL : USE_DECODE;
        uint32_t guess = rng_below(&rng, KEYS);
        if (i % 7 == 0 && !policy_has(p, guess) && p->n < p->capacity)
            policy_insert(p, guess, USE_GUESS); /* ghosts know nothing of guesses */
        live_step(p, &key, 1, use);
        for (unsigned j = 0; j < POLICY_SINGLES; j++) ghost_step(&lone[j], layer, &key, 1, use);
        if (i % 3000 != 2999) continue;
        uint32_t capacity = 5 + rng_below(&rng, 40);
        policy_set_capacity(p, capacity);
        for (unsigned j = 0; j < POLICY_SINGLES; j++) ghost_set_capacity(&lone[j], capacity);
    }
    for (unsigned j = 0; j < POLICY_SINGLES; j++) {
        const struct ghost *ghost = policy_ghost(p, (enum policy_kind)j);
        CHECK(ghost->hits == lone[j].hits && ghost->missed_bytes == lone[j].missed_bytes);
        ghost_release(&lone[j]);
    }
    policy_close(&p);
}

static void test_single_policies_have_no_ghosts(void)
{
    struct policy *p;
    const struct policy_shape s = shape();
    CHECK_OK(policy_open(&p, POLICY_LFU, &s, 4, &err));
    CHECK(!policy_ghost(p, POLICY_LRU) && policy_switches(p) == 0 && policy_auto_bytes(p) == 0);
    CHECK(policy_leader(p) == POLICY_AUTO);
    policy_close(&p);
}

#define CASES(C)                                                                                   \
    C(counts_by_hand)                                                                              \
    C(a_step_keeps_what_it_hits)                                                                   \
    C(steps_larger_than_the_cache)                                                                 \
    C(capacity_changes)                                                                            \
    C(open_errors)                                                                                 \
    C(auto_moves_with_the_load)                                                                    \
    C(auto_ignores_noise)                                                                          \
    C(auto_ghosts_equal_lone_ghosts)                                                               \
    C(single_policies_have_no_ghosts)
CHECK_MAIN(CASES)
