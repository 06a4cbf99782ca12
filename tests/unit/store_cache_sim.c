/* Replays: the optimum is one, policies stay under it, prefill does not flush, `auto` keeps up. */
#include "base/rng.h"
#include "check.h"
#include "fail_alloc.h"
#include "store/cache_sim.h"
#include "store/route.h"
#include "store/trace.h"

static struct sluice_error err;

static struct sim_result run(const struct cache_sim *sim, unsigned kind, uint32_t capacity)
{
    struct sim_result result;
    const struct sim_options options = {.capacity = capacity, .entry_bytes = 10};
    CHECK_OK(cache_sim_run(sim, kind, &options, &result, &err));
    return result;
}

static uint64_t misses(const struct cache_sim *sim, unsigned kind, uint32_t capacity)
{
    struct sim_result result = run(sim, kind, capacity);
    CHECK(result.missed_bytes == 10 * (result.misses[0] + result.misses[1]));
    return result.misses[0] + result.misses[1];
}

static void add(struct cache_sim *sim, uint32_t layer, uint32_t expert)
{
    CHECK_OK(cache_sim_add(sim, layer, &expert, 1, false, &err));
}

static void test_classic_sequence(void)
{
    /* 1 2 3 4 1 2 5 1 2 3 4 5 with three slots: the optimum misses 7 times, LRU 10. */
    static const char sequence[] = "123412512345";
    struct cache_sim sim;
    CHECK_OK(cache_sim_init(&sim, 1, 6, &err));
    for (const char *p = sequence; *p; p++) add(&sim, 0, (uint32_t)(*p - '0'));
    CHECK(misses(&sim, SIM_OPTIMUM, 3) == 7);
    CHECK(misses(&sim, POLICY_LRU, 3) == 10);
    CHECK(misses(&sim, SIM_OPTIMUM, 5) == 5 && misses(&sim, POLICY_AUTO, 5) == 5);
    struct sim_result result = run(&sim, POLICY_LRU, 5);
    CHECK(result.hits[0] == 7 && result.hits[1] == 0 && sim_hit_rate(&result) > 7 / 12.1);
    CHECK(strcmp(cache_sim_name(SIM_OPTIMUM), "optimum") == 0);
    CHECK(strcmp(cache_sim_name(POLICY_LRU), "lru") == 0);
    cache_sim_release(&sim);
}

/* Fewest misses from step i on with the keys of `held`, by trying every choice of victims. */
static uint32_t fewest(const struct cache_sim *sim, size_t i, uint32_t held, uint32_t capacity)
{
    if (i == sim->steps.n) return 0;
    const struct sim_step *step = &sim->steps.items[i];
    uint32_t need = 0, best = UINT32_MAX;
    for (uint32_t j = 0; j < step->n; j++) need |= 1u << sim->keys.items[step->first + j];
    uint32_t missed = (uint32_t)__builtin_popcount(need & ~held), others = held & ~need;
    uint32_t room = capacity - (uint32_t)__builtin_popcount(need);
    if (missed == 0) return fewest(sim, i + 1, held, capacity);
    for (uint32_t keep = others;; keep = (keep - 1) & others) { /* every subset */
        if ((uint32_t)__builtin_popcount(keep) <= room) {
            uint32_t more = fewest(sim, i + 1, keep | need, capacity);
            if (more < best) best = more;
        }
        if (keep == 0) break;
    }
    return missed + best;
}

static void test_optimum_is_the_best_there_is(void)
{
    struct rng rng = {1};
    for (int round = 0; round < 150; round++) {
        struct cache_sim sim;
        CHECK_OK(cache_sim_init(&sim, 2, 4, &err));
        for (uint32_t i = 0; i < 9; i++) {
            uint32_t experts[2] = {rng_below(&rng, 4), 0}, n = 1;
            if (experts[0] < 3 && rng_below(&rng, 2))
                experts[n++] = experts[0] + 1 + rng_below(&rng, 3 - experts[0]);
            CHECK_OK(cache_sim_add(&sim, i % 2, experts, n, rng_below(&rng, 2), &err));
        }
        uint32_t capacity = 2 + rng_below(&rng, 3);
        CHECK(misses(&sim, SIM_OPTIMUM, capacity) == fewest(&sim, 0, 0, capacity));
        cache_sim_release(&sim);
    }
}

/* Decode steps of made-up routing, after n_prompt tokens of prefill in one batch. */
static void load_route(struct cache_sim *sim, const struct route_options *o, uint32_t n_prompt,
                       uint32_t n_tokens)
{
    struct route *route;
    uint32_t experts[512], counts[512];
    CHECK_OK(route_open(&route, o, &err));
    CHECK_OK(cache_sim_init(sim, o->n_layers, o->n_experts, &err));
    for (uint32_t l = 0; n_prompt && l < o->n_layers; l++) {
        uint32_t n = route_batch(route, l, n_prompt, experts, counts);
        CHECK_OK(cache_sim_add(sim, l, experts, n, true, &err));
    }
    for (uint32_t t = 0; t < n_tokens; t++)
        for (uint32_t l = 0; l < o->n_layers; l++) {
            route_pick(route, l, experts);
            CHECK_OK(cache_sim_add(sim, l, experts, o->k, false, &err));
        }
    route_close(&route);
}

static const struct {
    const char *name;
    struct route_options options;
} loads[] = {
    {"uniform", {8, 64, 4, .zipf = 0, .reuse = -1, .seed = 1}},
    {"zipf 1", {8, 64, 4, .zipf = 1, .reuse = -1, .seed = 2}},
    {"zipf 0.7", {8, 64, 4, .zipf = 0.7, .reuse = -1, .seed = 3}},
    {"drift", {8, 64, 4, .zipf = 1, .reuse = -1, .drift = 0.15, .seed = 4}},
    {"reuse 0.5", {8, 64, 4, .zipf = 0, .reuse = 0.5, .seed = 5}},
    {"both", {8, 64, 4, .zipf = 0.6, .reuse = 0.3, .seed = 6}},
};
enum { N_LOADS = sizeof loads / sizeof *loads, N_KEYS = 8 * 64 };

static void test_none_beats_the_optimum(void)
{
    static const uint32_t capacities[] = {1, 3, 4, 17, 40, 128, 256, 480, N_KEYS};
    for (int i = 0; i < N_LOADS; i++) {
        struct cache_sim sim;
        load_route(&sim, &loads[i].options, 40, 300);
        uint64_t last = UINT64_MAX;
        for (size_t c = 0; c < sizeof capacities / sizeof *capacities; c++) {
            uint64_t least = misses(&sim, SIM_OPTIMUM, capacities[c]);
            CHECK(least <= last, "%s: %u slots", loads[i].name, capacities[c]);
            last = least;
            for (unsigned kind = 0; kind < POLICY_COUNT; kind++)
                CHECK(misses(&sim, kind, capacities[c]) >= least, "%s: %s: %u slots", loads[i].name,
                      cache_sim_name(kind), capacities[c]);
        }
        CHECK(misses(&sim, POLICY_LRU, N_KEYS) == last, "%s", loads[i].name);
        cache_sim_release(&sim);
    }
}

static void test_auto_is_near_the_best(void)
{
    for (int i = 0; i < N_LOADS; i++) {
        struct cache_sim sim;
        double best = 0, worst = 1;
        load_route(&sim, &loads[i].options, 0, 1000);
        for (unsigned kind = 0; kind < POLICY_SINGLES; kind++) {
            struct sim_result result = run(&sim, kind, N_KEYS / 4);
            double rate = sim_hit_rate(&result);
            if (rate > best) best = rate;
            if (rate < worst) worst = rate;
        }
        struct sim_result result = run(&sim, POLICY_AUTO, N_KEYS / 4);
        CHECK(sim_hit_rate(&result) >= best - 0.01, "%s: %.4f, best %.4f", loads[i].name,
              sim_hit_rate(&result), best);
        CHECK(i == 0 || worst < best - 0.01, "%s tells nothing", loads[i].name);
        cache_sim_release(&sim);
    }
}

enum { DEEP_LAYERS = 32, DEEP_EXPERTS = 16, DEEP_K = 2, DEEP_KEYS = DEEP_LAYERS * DEEP_EXPERTS };

/* Appends one token's steps, or all experts of all layers as a prompt does. */
static void add_pass(struct cache_sim *sim, struct route *route)
{
    for (uint32_t l = 0; l < DEEP_LAYERS; l++) {
        uint32_t experts[DEEP_EXPERTS];
        for (uint32_t e = 0; e < DEEP_EXPERTS; e++) experts[e] = e;
        if (route) route_pick(route, l, experts);
        CHECK_OK(cache_sim_add(sim, l, experts, route ? DEEP_K : DEEP_EXPERTS, !route, &err));
    }
}

/* Hit rate of the first tokens after a prompt over all experts, or after none. */
static double rate_after(unsigned kind, bool prompt, bool no_hints)
{
    enum { BEFORE = 800, AFTER = 12 };
    const struct route_options options = {DEEP_LAYERS, DEEP_EXPERTS, DEEP_K,
                                          .zipf = 1.1, .reuse = 0.2, .seed = 9};
    const struct sim_options o = {
        .capacity = DEEP_KEYS / 4, .entry_bytes = 1, .no_hints = no_hints};
    struct route *route;
    struct cache_sim sim;
    struct sim_result whole, before;
    CHECK_OK(route_open(&route, &options, &err));
    CHECK_OK(cache_sim_init(&sim, DEEP_LAYERS, DEEP_EXPERTS, &err));
    for (int i = 0; i < BEFORE; i++) add_pass(&sim, route);
    CHECK_OK(cache_sim_run(&sim, kind, &o, &before, &err));
    if (prompt) add_pass(&sim, NULL);
    for (int i = 0; i < AFTER; i++) add_pass(&sim, route);
    CHECK_OK(cache_sim_run(&sim, kind, &o, &whole, &err));
    cache_sim_release(&sim);
    route_close(&route);
    return (double)(whole.hits[0] - before.hits[0]) / (AFTER * DEEP_LAYERS * DEEP_K);
}

static double loss(unsigned kind, bool no_hints)
{
    return rate_after(kind, false, no_hints) - rate_after(kind, true, no_hints);
}

static void test_a_prompt_does_not_flush(void)
{
    double lru_loss = loss(POLICY_LRU, true);
    CHECK(lru_loss > 0.02, "%.4f", lru_loss);
    for (unsigned kind = 0; kind < POLICY_COUNT; kind++)
        CHECK(loss(kind, false) < lru_loss / 3, "%s: %.4f, lru untold %.4f", cache_sim_name(kind),
              loss(kind, false), lru_loss);
    /* Even when nobody says that it is one, the scan costs the resistant policies less. */
    for (unsigned kind = POLICY_LFU; kind <= POLICY_LFUDA; kind++)
        CHECK(loss(kind, true) < lru_loss / 2, "%s: %.4f, lru %.4f", cache_sim_name(kind),
              loss(kind, true), lru_loss);
}

static void test_a_longer_prompt_keeps_a_part(void)
{
    struct cache_sim sim;
    CHECK_OK(cache_sim_init(&sim, 8, 64, &err));
    uint32_t all[64];
    for (uint32_t e = 0; e < 64; e++) all[e] = e;
    for (int chunk = 0; chunk < 5; chunk++)
        for (uint32_t l = 0; l < 8; l++) CHECK_OK(cache_sim_add(&sim, l, all, 64, true, &err));
    /* Room for half: LRU alone would never hit; of the four later chunks, 3 layers of 8 do. */
    for (unsigned kind = 0; kind < POLICY_COUNT; kind++) {
        struct sim_result result = run(&sim, kind, N_KEYS / 2);
        CHECK(result.hits[1] >= 4 * 3 * 64 && result.hits[0] + result.misses[0] == 0, "%s: %d",
              cache_sim_name(kind), (int)result.hits[1]);
    }
    const struct sim_options o = {.capacity = N_KEYS / 2, .entry_bytes = 1, .no_hints = true};
    struct sim_result result;
    CHECK_OK(cache_sim_run(&sim, POLICY_LRU, &o, &result, &err));
    CHECK(result.hits[1] == 0);
    cache_sim_release(&sim);
}

static void test_layers_of_one_size(void)
{
    struct cache_sim sim, part;
    load_route(&sim, &loads[1].options, 0, 100);
    bool layers[8] = {false, true, false, true, true, false, false, false};
    CHECK_OK(cache_sim_init(&part, 8, 64, &err));
    for (size_t i = 0; i < sim.steps.n; i++) {
        const struct sim_step *step = &sim.steps.items[i];
        uint32_t experts[4];
        for (uint32_t j = 0; j < 4; j++) experts[j] = sim.keys.items[step->first + j] % 64;
        if (layers[step->layer])
            CHECK_OK(cache_sim_add(&part, step->layer, experts, 4, false, &err));
    }
    for (unsigned kind = 0; kind < SIM_COUNT; kind++) {
        struct sim_result some;
        const struct sim_options o = {.capacity = 50, .entry_bytes = 10, .layers = layers};
        CHECK_OK(cache_sim_run(&sim, kind, &o, &some, &err));
        CHECK(some.misses[0] == misses(&part, kind, 50) && some.hits[0] > 0);
        CHECK(some.hits[0] + some.misses[0] == 100 * 3 * 4);
    }
    cache_sim_release(&sim);
    cache_sim_release(&part);
}

/* A trace of two batches: one token, then two. */
static const uint8_t trace[] = "SluiceRT\1\0\0\0FINGERPRINT.....\2\0\0\0\4\0\0\0\2\0\0\0"
                               "\2\0\1\1\0"
                               "\5\1\0\0\2\1\0\3\0";

static void test_load(void)
{
    struct cache_sim sim;
    CHECK_OK(cache_sim_load(&sim, span_of(trace, sizeof trace - 1), &err));
    CHECK(sim.n_layers == 2 && sim.n_experts == 4 && sim.steps.n == 4);
    static const uint32_t keys[] = {0, 2, 5, 6, 0, 1, 3, 4, 6};
    CHECK(sim.keys.n == sizeof keys / sizeof *keys);
    for (size_t i = 0; i < sim.keys.n && i < sizeof keys / sizeof *keys; i++)
        CHECK(sim.keys.items[i] == keys[i], "%zu: %u", i, sim.keys.items[i]);
    CHECK(!sim.steps.items[1].prefill && sim.steps.items[2].prefill);
    cache_sim_release(&sim);
    CHECK(cache_sim_load(&sim, span_of(trace, sizeof trace - 2), &err) == SLUICE_E_FORMAT);
    CHECK(!sim.layer_of && strstr(err.message, "batch 1, layer 1"), "%s", err.message);
    CHECK(cache_sim_load(&sim, span_of(trace, 10), &err) == SLUICE_E_FORMAT);
}

static void test_bad_arguments(void)
{
    struct cache_sim sim;
    struct sim_result result;
    CHECK(cache_sim_init(&sim, 0, 4, &err) == SLUICE_E_ARGUMENT);
    CHECK(cache_sim_init(&sim, 1u << 31, 4, &err) == SLUICE_E_ARGUMENT);
    CHECK_OK(cache_sim_init(&sim, 2, 4, &err));
    static const uint32_t fall[] = {2, 1}, high[] = {4};
    CHECK(cache_sim_add(&sim, 2, high, 0, false, &err) == SLUICE_E_ARGUMENT);
    CHECK(cache_sim_add(&sim, 0, fall, 2, false, &err) == SLUICE_E_ARGUMENT);
    CHECK(cache_sim_add(&sim, 0, high, 1, false, &err) == SLUICE_E_ARGUMENT);
    CHECK(strstr(err.message, "layer 0: expert 4 of 4"), "%s", err.message);
    CHECK_OK(cache_sim_add(&sim, 1, NULL, 0, false, &err));
    CHECK(sim_hit_rate(&(struct sim_result){0}) == 0);
    result = run(&sim, POLICY_AUTO, 1);
    CHECK(result.hits[0] + result.misses[0] == 0);
    const struct sim_options none = {.entry_bytes = 1};
    CHECK(cache_sim_run(&sim, POLICY_LRU, &none, &result, &err) == SLUICE_E_ARGUMENT);
    cache_sim_release(&sim);
}

static bool loads_and_runs(void)
{
    struct cache_sim sim;
    struct sim_result result;
    const struct sim_options o = {.capacity = 2, .entry_bytes = 1};
    enum sluice_status status = cache_sim_load(&sim, span_of(trace, sizeof trace - 1), &err);
    if (status == SLUICE_OK) status = cache_sim_run(&sim, SIM_OPTIMUM, &o, &result, &err);
    CHECK(status == SLUICE_OK || status == SLUICE_E_NOMEM);
    cache_sim_release(&sim);
    return status == SLUICE_OK;
}

static void test_out_of_memory(void)
{
    int failed;
    FAIL_SWEEP(loads_and_runs(), &failed);
    CHECK(failed >= 7 && failed < 1000, "%d", failed);
}

#define CASES(C)                                                                                   \
    C(classic_sequence)                                                                            \
    C(optimum_is_the_best_there_is)                                                                \
    C(none_beats_the_optimum)                                                                      \
    C(auto_is_near_the_best)                                                                       \
    C(a_prompt_does_not_flush)                                                                     \
    C(a_longer_prompt_keeps_a_part)                                                                \
    C(layers_of_one_size)                                                                          \
    C(load)                                                                                        \
    C(bad_arguments)                                                                               \
    C(out_of_memory)
CHECK_MAIN(CASES)
