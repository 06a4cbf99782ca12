/* Reading experts ahead: right bytes whatever is guessed, counts, faults, and who may take a slot.
 */
#include <errno.h>

#include "expert_files.h"
#include "store/prefetch.h"

static struct sluice_error err;

static const struct bank_shape all_shapes[] = {
    {PACKED, 24, 96, 64, WTYPE_Q4, WTYPE_Q4},     {STACKED, 10, 160, 32, WTYPE_Q3, WTYPE_Q3},
    {SCATTERED, 7, 64, 32, WTYPE_BF16, WTYPE_Q8}, {STACKED, 24, 96, 64, WTYPE_Q4, WTYPE_Q4},
    {SCATTERED, 3, 32, 9, WTYPE_F32, WTYPE_F32},  {PACKED, 1, 64, 96, WTYPE_Q5, WTYPE_Q6},
};
/* One size of slots, one read an expert. */
static const struct bank_shape packed_shapes[] = {
    {PACKED, 16, 96, 64, WTYPE_Q4, WTYPE_Q4},
    {PACKED, 16, 96, 64, WTYPE_Q4, WTYPE_Q4},
    {PACKED, 16, 96, 64, WTYPE_Q4, WTYPE_Q4},
};

static struct expert_store *open_store(const struct world *w, const struct store_options *o)
{
    struct expert_store *s;
    CHECK_OK(store_open(&s, w->maps, MAX_FILES, w->list, w->n_banks, o, &err));
    return must(s);
}

static struct store_stats stats_of(const struct expert_store *s)
{
    struct store_stats stats;
    store_get_stats(s, &stats);
    return stats;
}

/* Every read that was begun is over. */
static void settle(struct expert_store *s)
{
    for (uint32_t i = 0; i < 200; i++) store_poll(s);
}

static void guess(struct expert_store *s, const struct world *w, uint32_t bank,
                  const uint32_t *experts, uint32_t n)
{
    store_guess(s, w->list[bank], experts, n);
}

/* A step of these experts; the stepper compares every byte. */
static enum sluice_status run_step(struct stepper *t, uint32_t bank, const uint32_t *experts,
                                   uint32_t n)
{
    t->bank = bank;
    t->n_wanted = n;
    memcpy(t->wanted, experts, n * sizeof *experts);
    return stepper_run(t);
}

/* The same as one of decoding. */
static void decode_step(struct stepper *t, uint32_t bank, const uint32_t *experts, uint32_t n)
{
    bool given[MAX_EXPERTS] = {0};
    t->bank = bank;
    t->n_wanted = n;
    t->n_held = 0;
    memcpy(t->wanted, experts, n * sizeof *experts);
    CHECK_OK(store_begin(t->store, t->world->list[bank], experts, n, USE_DECODE, &err));
    while (t->n_held < n && !check_failures)
        CHECK(stepper_take(t, n, true, given) == SLUICE_OK, "%s", t->err.message);
    stepper_compare(t);
    stepper_give_back(t, n);
}

/* Some of what the chosen step wants, in any order, and some it does not; or another bank's. */
static uint32_t make_guess(struct stepper *t)
{
    uint32_t list[MAX_EXPERTS], n = 0;
    uint32_t bank = rng_below(&t->rng, 5) ? t->bank : rng_below(&t->rng, t->world->n_banks);
    uint32_t share = rng_below(&t->rng, 4);
    if (rng_below(&t->rng, 6) == 0) {
        store_read_on(t->store, t->world->list[bank]);
        return t->world->banks[bank].n_experts;
    }
    for (uint32_t e = 0; e < t->world->banks[bank].n_experts; e++) {
        bool wanted = false;
        for (uint32_t i = 0; i < t->n_wanted; i++) wanted |= t->wanted[i] == e;
        if (rng_below(&t->rng, wanted ? 4 : 12) >= (wanted ? share : 1)) continue;
        uint32_t at = rng_below(&t->rng, n + 1);
        list[n++] = list[at];
        list[at] = e;
    }
    guess(t->store, t->world, bank, list, n);
    return n;
}

static void run_steps(struct stepper *t, uint32_t n)
{
    uint64_t guessed = 0;
    for (uint32_t i = 0; i < n && !check_failures; i++) {
        stepper_choose_any(t);
        for (uint32_t k = rng_below(&t->rng, 3); k; k--) guessed += make_guess(t);
        for (uint32_t k = rng_below(&t->rng, 12); k; k--) store_poll(t->store);
        CHECK(stepper_run(t) == SLUICE_OK, "%s", t->err.message);
    }
    struct store_stats stats = stats_of(t->store);
    CHECK(stats.hits + stats.misses == t->n_asked);
    CHECK(stats.guesses == guessed && stats.guesses_right <= guessed);
    CHECK(stats.guesses_useful <= stats.guesses_read && stats.guesses_useful <= stats.hits);
    CHECK(stats.guesses_late <= stats.misses && stats.guesses_wasted_bytes <= stats.bytes_read);
}

struct way {
    enum reader_kind kind;
    uint32_t depth;
    bool faulty;
    enum inner_kind inner;
};

static const struct way ways[] = {
    {READER_AUTO, 0, false, INNER_NONE},  {READER_PREAD, 64, false, INNER_NONE},
    {READER_PREAD, 1, false, INNER_NONE}, {READER_AUTO, 64, true, INNER_NONE},
    {READER_AUTO, 16, true, INNER_PREAD}, {READER_AUTO, 8, true, INNER_URING},
};

static struct reader_options way_options(const struct way *way, uint64_t seed)
{
    struct reader_options o = {.kind = way->kind, .depth = way->depth};
    struct fault_options faults = {.seed = seed,
                                   .short_chance = 25,
                                   .eintr_chance = 10,
                                   .eagain_chance = 5,
                                   .refuse_chance = 10,
                                   .delay = 4,
                                   .reorder = true};
    /* without io_uring the row is one of plain reads */
    if (way->faulty) (void)use_faults(&o, way->inner, &faults);
    return o;
}

static void test_right_bytes(void)
{
    static const uint32_t slots[] = {1, 7, 12, 30, 68, 1000};
    static const uint32_t threads[] = {1, 2, 8};
    struct world w;
    uint32_t round = 0;
    uint64_t useful = 0, late = 0, wasted = 0;
    for (uint32_t i = 0; i < COUNT_OF(slots); i++) {
        REQUIRE(world_make(&w, all_shapes, COUNT_OF(all_shapes), 70 + i));
        for (uint32_t k = 0; k < COUNT_OF(ways) && !check_failures; k++, round++) {
            struct store_options o = {.n_slots = slots[i],
                                      .policy = (enum policy_kind)(round % POLICY_COUNT),
                                      .reader = way_options(&ways[k], round)};
            struct stepper t = {.world = &w, .rng = {round}, .store = open_store(&w, &o)};
            CHECK_OK(
                pool_open(&t.pool, &(struct pool_options){.n_threads = threads[round % 3]}, &err));
            run_steps(&t, 150);
            CHECK(!check_failures, "%u slots, way %u", slots[i], k);
            struct store_stats stats = stats_of(t.store);
            useful += stats.guesses_useful;
            late += stats.guesses_late;
            wasted += stats.guesses_wasted_bytes;
            pool_close(&t.pool);
            store_close(&t.store);
        }
        world_release(&w);
    }
    CHECK(useful > 20 && late > 20 && wasted > 100000, "%" PRIu64 ", %" PRIu64 ", %" PRIu64, useful,
          late, wasted);
}

/* What was read ahead is there: the step reads nothing. */
static void test_right_guess(void)
{
    static const uint32_t list[] = {9, 2, 5}, sorted[] = {2, 5, 9};
    struct world w;
    REQUIRE(world_make(&w, packed_shapes, COUNT_OF(packed_shapes), 21));
    struct store_options o = {.n_slots = 24};
    REQUIRE(use_faults(&o.reader, INNER_NONE, &(struct fault_options){0}));
    struct stepper t = {.world = &w, .rng = {1}, .store = open_store(&w, &o)};
    guess(t.store, &w, 1, list, 3);
    settle(t.store);
    size_t n;
    const struct fault_read *reads = driver_fault_reads(o.reader.driver_state, &n);
    CHECK(n == 3 && reads[0].prefetch && reads[2].prefetch);
    CHECK(run_step(&t, 1, sorted, 3) == SLUICE_OK, "%s", t.err.message);
    (void)driver_fault_reads(o.reader.driver_state, &n);
    struct store_stats s = stats_of(t.store);
    CHECK(n == 3 && s.hits == 3 && s.misses == 0 && s.bytes_read > 0);
    CHECK(s.guesses == 3 && s.guesses_right == 3 && s.guesses_read == 3);
    CHECK(s.guesses_useful == 3 && s.guesses_late == 0 && s.guesses_wasted_bytes == 0);
    /* what is there already is not read, and counts as guessed right */
    guess(t.store, &w, 1, list, 3);
    CHECK(run_step(&t, 1, sorted, 3) == SLUICE_OK, "%s", t.err.message);
    s = stats_of(t.store);
    CHECK(s.guesses == 6 && s.guesses_right == 6 && s.guesses_read == 3 && s.guesses_useful == 3);
    store_close(&t.store);
    world_release(&w);
}

/* A step that comes before the reads have: each expert is read once, and first of all. */
static void test_joined(void)
{
    static const uint32_t list[] = {0, 1, 2, 3, 4, 5}, wanted[] = {3, 4, 5, 12};
    struct world w;
    REQUIRE(world_make(&w, packed_shapes, COUNT_OF(packed_shapes), 22));
    struct store_options o = {.n_slots = 48, .reader = {.depth = 16}};
    REQUIRE(use_faults(&o.reader, INNER_NONE, &(struct fault_options){.delay = 3}));
    struct stepper t = {.world = &w, .rng = {1}, .store = open_store(&w, &o)};
    guess(t.store, &w, 0, list, 6);
    CHECK(run_step(&t, 0, wanted, 4) == SLUICE_OK, "%s", t.err.message);
    settle(t.store);
    size_t n;
    const struct fault_read *reads = driver_fault_reads(o.reader.driver_state, &n);
    /* 0 and 1 had begun; 2 was dropped */
    CHECK(n == 6 && reads[0].prefetch && reads[1].prefetch, "%zu reads", n);
    for (size_t i = 2; i < n; i++) CHECK(!reads[i].prefetch, "read %zu", i);
    struct store_stats s = stats_of(t.store);
    CHECK(s.misses == 4 && s.hits == 0 && s.guesses_late == 3 && s.guesses_right == 3);
    CHECK(s.bytes_read >= 6 * world_expert_bytes(&w, 0) && s.guesses_wasted_bytes == 0);
    /* the two that had begun are there, and useful when they are asked for later */
    CHECK(run_step(&t, 0, list, 2) == SLUICE_OK, "%s", t.err.message);
    s = stats_of(t.store);
    CHECK(s.hits == 2 && s.guesses_useful == 2);
    (void)driver_fault_reads(o.reader.driver_state, &n);
    CHECK(n == 6, "%zu reads", n);
    store_close(&t.store);
    world_release(&w);
}

/*
 * Wrong guesses take an eighth of the slots and no more, whatever the policy; they leave before
 * anything that a step has used, and their bytes are counted as wasted.
 */
static void test_wrong_guesses(void)
{
    enum { SLOTS = 24, AHEAD = SLOTS / 8 };
    struct world w;
    uint32_t all[MAX_EXPERTS], wrong[AHEAD];
    for (uint32_t e = 0; e < MAX_EXPERTS; e++) all[e] = e;
    REQUIRE(world_make(&w, packed_shapes, COUNT_OF(packed_shapes), 23));
    for (unsigned policy = 0; policy < POLICY_COUNT; policy++) {
        struct store_options o = {.n_slots = SLOTS, .policy = (enum policy_kind)policy};
        REQUIRE(use_faults(&o.reader, INNER_NONE, &(struct fault_options){0}));
        struct stepper t = {.world = &w, .rng = {1}, .store = open_store(&w, &o)};
        for (uint32_t i = 0; i < 3; i++) decode_step(&t, 0, all, 8);
        for (uint32_t i = 0; i < 3; i++) decode_step(&t, 1, all, 16);
        struct store_stats full = stats_of(t.store);
        CHECK(full.misses == SLOTS);
        for (uint32_t i = 0; i < 20; i++) {
            for (uint32_t k = 0; k < AHEAD; k++) wrong[k] = (3 * i + k) % 16;
            guess(t.store, &w, 2, wrong, AHEAD);
            settle(t.store);
        }
        struct store_stats s = stats_of(t.store);
        CHECK(s.guesses == 20 * AHEAD && s.guesses_right == 0 && s.guesses_useful == 0);
        CHECK(s.guesses_read > AHEAD && s.guesses_wasted_bytes > 0, "policy %u", policy);
        uint64_t wasted = s.guesses_wasted_bytes / (s.guesses_read - AHEAD);
        uint64_t one = world_expert_bytes(&w, 2);
        CHECK(wasted >= one && wasted < one + 4096, "%" PRIu64 " bytes a guess", wasted);
        decode_step(&t, 1, all, 16);
        decode_step(&t, 0, all, 8);
        s = stats_of(t.store);
        CHECK(s.misses - full.misses == AHEAD, "policy %u: %" PRIu64, policy,
              s.misses - full.misses);
        decode_step(&t, 1, all, 16);
        decode_step(&t, 0, all, 8);
        CHECK(stats_of(t.store).misses == s.misses, "policy %u keeps guesses", policy);
        store_close(&t.store);
    }
    world_release(&w);
}

/* A whole layer ahead: an eighth of full slots, more than guesses get, and all that are free. */
static void test_read_on(void)
{
    static const struct bank_shape shapes[] = {
        {PACKED, 32, 32, 32, WTYPE_Q4, WTYPE_Q4}, {PACKED, 32, 32, 32, WTYPE_Q4, WTYPE_Q4},
        {PACKED, 32, 32, 32, WTYPE_Q4, WTYPE_Q4}, {PACKED, 32, 32, 32, WTYPE_Q4, WTYPE_Q4},
        {PACKED, 32, 32, 32, WTYPE_Q4, WTYPE_Q4}, {PACKED, 32, 32, 32, WTYPE_Q4, WTYPE_Q4},
    };
    enum { SLOTS = 160, EACH = 32, AHEAD = SLOTS / 8, DEPTH = 24 };
    struct world w;
    uint32_t all[MAX_EXPERTS];
    for (uint32_t e = 0; e < EACH; e++) all[e] = e;
    REQUIRE(world_make(&w, shapes, COUNT_OF(shapes), 26));
    struct store_options o = {.n_slots = SLOTS, .reader = {.depth = DEPTH}};
    REQUIRE(use_faults(&o.reader, INNER_NONE, &(struct fault_options){.delay = 3}));
    struct stepper t = {.world = &w, .rng = {1}, .store = open_store(&w, &o)};
    store_read_on(t.store, w.list[0]);
    CHECK(!store_has_read(t.store));
    settle(t.store);
    CHECK(store_has_read(t.store) && stats_of(t.store).guesses_read == AHEAD);
    CHECK(driver_fault_most(o.reader.driver_state) == AHEAD);
    for (uint32_t b = 0; b < 5; b++) decode_step(&t, b, all, EACH);
    struct store_stats full = stats_of(t.store), s;
    CHECK(full.guesses_useful == AHEAD && full.misses == SLOTS - AHEAD);
    store_read_on(t.store, w.list[5]);
    settle(t.store);
    CHECK(run_step(&t, 5, all, EACH) == SLUICE_OK, "%s", t.err.message);
    s = stats_of(t.store);
    CHECK(s.guesses_useful == 2 * AHEAD && s.hits - full.hits == AHEAD);
    CHECK(s.guesses_wasted_bytes == 0);
    store_close(&t.store);
    world_release(&w);
}

/* A step holds its slots against any guess, and gets those that guesses have. */
static void test_slots_are_the_steps(void)
{
    static const uint32_t list[] = {15, 14, 13, 12, 11, 10, 9, 8};
    struct world w;
    REQUIRE(world_make(&w, packed_shapes, COUNT_OF(packed_shapes), 24));
    for (uint32_t slots = 1; slots <= 16 && !check_failures; slots++) {
        struct store_options o = {.n_slots = slots};
        REQUIRE(use_faults(&o.reader, INNER_NONE, &(struct fault_options){.delay = 5}));
        struct stepper t = {.world = &w, .rng = {slots}, .store = open_store(&w, &o)};
        for (uint32_t i = 0; i < 9; i++) {
            bool given[MAX_EXPERTS] = {0};
            guess(t.store, &w, i % 2, list, 8);
            stepper_choose(&t, i % 2, slots);
            CHECK_OK(store_begin(t.store, w.list[i % 2], t.wanted, slots, USE_DECODE, &err));
            t.n_held = 0;
            while (t.n_held < slots && !check_failures) {
                guess(t.store, &w, (i + 1) % 2, list + i % 4, 4);
                CHECK(stepper_take(&t, slots, true, given) == SLUICE_OK, "%s", t.err.message);
            }
            guess(t.store, &w, i % 2, list, 8);
            settle(t.store);
            stepper_compare(&t);
            stepper_give_back(&t, slots);
        }
        CHECK(slots >= 8 || stats_of(t.store).guesses_read == 0);
        store_close(&t.store);
    }
    world_release(&w);
}

/* A read ahead that fails: a step that does not need the expert never hears of it. */
static void test_failed_guess(void)
{
    static const uint32_t list[] = {8, 3}, other[] = {1}, wanted[] = {3};
    struct world w;
    REQUIRE(world_make(&w, packed_shapes, COUNT_OF(packed_shapes), 25));
    struct store_options o = {.n_slots = 16};
    struct fault_options faults = {.fail_first = 1, .fail_last = 2};
    REQUIRE(use_faults(&o.reader, INNER_NONE, &faults));
    struct stepper t = {.world = &w, .rng = {1}, .store = open_store(&w, &o)};
    guess(t.store, &w, 0, list, 2);
    settle(t.store);
    CHECK(run_step(&t, 0, other, 1) == SLUICE_OK, "%s", t.err.message);
    CHECK(run_step(&t, 0, wanted, 1) == SLUICE_OK, "%s", t.err.message);
    struct store_stats s = stats_of(t.store);
    CHECK(s.guesses_read == 0 && s.misses == 2 && s.hits == 0 && s.guesses_wasted_bytes == 0);
    /* the step is waiting for the read when it fails: it reads again */
    driver_fault_set(o.reader.driver_state, &(struct fault_options){.fail_first = 1, .delay = 2});
    guess(t.store, &w, 1, list, 2);
    CHECK(run_step(&t, 1, list, 1) == SLUICE_OK, "%s", t.err.message);
    s = stats_of(t.store);
    CHECK(s.guesses_late == 1 && s.misses == 3);
    /* and when that fails too, the call does */
    driver_fault_set(o.reader.driver_state,
                     &(struct fault_options){.fail_first = 1, .fail_last = UINT64_MAX});
    static const uint32_t lost[] = {11};
    guess(t.store, &w, 1, lost, 1);
    CHECK(run_step(&t, 1, lost, 1) == SLUICE_E_IO);
    CHECK(strstr(t.err.message, "layer 8, expert 11: reading file '"), "%s", t.err.message);
    driver_fault_set(o.reader.driver_state, &(struct fault_options){0});
    CHECK(run_step(&t, 1, lost, 1) == SLUICE_OK, "%s", t.err.message);
    store_close(&t.store);
    world_release(&w);
}

/* The k-th read of all fails: when it was a guess's, all steps end well. */
static void test_failed_reads(void)
{
    struct world w;
    uint32_t n_failed = 0, n_hidden = 0;
    REQUIRE(world_make(&w, all_shapes, COUNT_OF(all_shapes), 26));
    for (uint32_t k = 1; k <= 200 && !check_failures; k++) {
        struct fault_options faults = {
            .seed = k, .fail_first = k, .delay = k % 4, .reorder = true, .short_chance = 10};
        struct store_options o = {.n_slots = 40,
                                  .policy = (enum policy_kind)(k % POLICY_COUNT),
                                  .reader = {.depth = 8 * (1 + k % 3)}};
        CHECK(use_faults(&o.reader, k % 5 ? INNER_NONE : INNER_PREAD, &faults));
        struct stepper t = {.world = &w, .rng = {k}, .store = open_store(&w, &o)};
        uint32_t failed = 0, last = 60;
        for (uint32_t i = 0; i < last && !check_failures; i++) {
            stepper_choose_any(&t);
            make_guess(&t);
            if (stepper_run(&t) == SLUICE_OK) continue;
            CHECK(t.err.code == SLUICE_E_IO && strstr(t.err.message, "Input/output error"), "%s",
                  t.err.message);
            failed++;
            last = i + 6;
            CHECK(stepper_run(&t) == SLUICE_OK, "%s", t.err.message);
        }
        size_t n;
        const struct fault_read *reads = driver_fault_reads(o.reader.driver_state, &n);
        CHECK(n >= k && failed <= 1);
        CHECK(!failed || !reads[k - 1].prefetch, "read %u was a guess's and failed a step", k);
        n_failed += failed;
        n_hidden += !failed;
        store_close(&t.store);
    }
    CHECK(n_failed > 20 && n_hidden > 5, "%u failed, %u did not", n_failed, n_hidden);
    world_release(&w);
}

/* The check hook sees what a guess has read; what it refuses is read and refused again on demand.
 */
struct checks {
    uint32_t bad_expert;
    uint32_t *n_checked;
};

static enum sluice_status check_expert(const void *user, const struct expert_bank *bank,
                                       uint32_t expert, const struct expert_view *view,
                                       struct sluice_error *e)
{
    const struct checks *c = user;
    ++*c->n_checked;
    if (!view->gate.data) return SLUICE_E_INTERNAL;
    if (expert == c->bad_expert)
        return err_set(e, SLUICE_E_FORMAT, "layer %u, expert %u: spoilt", bank->layer, expert);
    return SLUICE_OK;
}

static void test_refused_guess(void)
{
    static const uint32_t list[] = {4, 6}, good[] = {6}, bad[] = {4};
    struct world w;
    uint32_t n_checked = 0;
    struct checks checks = {.bad_expert = 4, .n_checked = &n_checked};
    struct store_options o = {.n_slots = 16, .check = check_expert, .check_user = &checks};
    REQUIRE(world_make(&w, packed_shapes, COUNT_OF(packed_shapes), 27));
    REQUIRE(use_faults(&o.reader, INNER_NONE, &(struct fault_options){0}));
    struct stepper t = {.world = &w, .rng = {1}, .store = open_store(&w, &o)};
    guess(t.store, &w, 1, list, 2);
    settle(t.store);
    CHECK(n_checked == 2 && stats_of(t.store).guesses_read == 1);
    CHECK(run_step(&t, 1, good, 1) == SLUICE_OK, "%s", t.err.message);
    CHECK(n_checked == 2);
    CHECK(run_step(&t, 1, bad, 1) == SLUICE_E_FORMAT);
    CHECK(strcmp(t.err.message, "layer 8, expert 4: spoilt") == 0, "%s", t.err.message);
    store_close(&t.store);
    world_release(&w);
}

#define CASES(C)                                                                                   \
    C(right_bytes)                                                                                 \
    C(right_guess)                                                                                 \
    C(joined)                                                                                      \
    C(wrong_guesses)                                                                               \
    C(read_on)                                                                                     \
    C(slots_are_the_steps)                                                                         \
    C(failed_guess)                                                                                \
    C(failed_reads)                                                                                \
    C(refused_guess)

CHECK_MAIN(CASES)
