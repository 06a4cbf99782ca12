/* Slots that shrink and grow between steps: right bytes, kept experts, memory given back. */
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "expert_files.h"
#include "store/prefetch.h"

static struct sluice_error err;

static const struct bank_shape shapes[] = {
    {PACKED, 24, 96, 64, WTYPE_Q4, WTYPE_Q4},
    {STACKED, 10, 160, 32, WTYPE_Q3, WTYPE_Q3},
    {SCATTERED, 7, 64, 32, WTYPE_BF16, WTYPE_Q8},
    {STACKED, 24, 96, 64, WTYPE_Q4, WTYPE_Q4},
};
static const struct bank_shape one_size[] = {
    {PACKED, 32, 512, 256, WTYPE_Q8, WTYPE_Q8},
    {PACKED, 32, 512, 256, WTYPE_Q8, WTYPE_Q8},
};

static struct expert_store *open_store(const struct world *w, const struct store_options *o)
{
    struct expert_store *s;
    CHECK_OK(store_open(&s, w->maps, MAX_FILES, w->list, w->n_banks, o, &err));
    return must(s);
}

static uint64_t all_bytes(const struct world *w)
{
    uint64_t bytes = 0;
    for (uint32_t b = 0; b < w->n_banks; b++)
        bytes += w->banks[b].n_experts * store_slot_bytes(w->list[b], 4096);
    return bytes;
}

/* Steps, guesses and sizes in any order; a guess may be under way when the size changes. */
static void run_ways(const struct world *w, enum policy_kind policy, uint64_t seed)
{
    struct store_options o = {.n_slots = 20, .policy = policy};
    o.reader.kind = seed % 2 ? READER_PREAD : READER_AUTO;
    struct fault_options faults = {
        .seed = seed, .short_chance = 20, .eintr_chance = 10, .delay = 3, .reorder = true};
    if (seed % 3 == 0) CHECK(use_faults(&o.reader, INNER_NONE, &faults));
    struct stepper t = {.world = w, .rng = {seed}, .store = open_store(w, &o)};
    store_populate(t.store, (uint32_t)(seed % 4), seed % 3 << 21);
    uint64_t all = all_bytes(w);
    store_resize(t.store, 0);
    uint32_t least = store_slots(t.store);
    CHECK(least >= 1 && least <= 4);
    for (uint32_t i = 0; i < 60 && !check_failures; i++) {
        stepper_choose_any(&t);
        if (rng_below(&t.rng, 3) == 0) store_guess(t.store, w->list[t.bank], t.wanted, t.n_wanted);
        if (rng_below(&t.rng, 3) == 0) {
            uint64_t bytes = rng_below(&t.rng, (uint32_t)(all + all / 4));
            store_resize(t.store, bytes);
            CHECK(store_slots(t.store) >= least);
            CHECK(store_bytes(t.store) <= bytes || store_slots(t.store) == least);
        }
        CHECK(stepper_run(&t) == SLUICE_OK, "%s", t.err.message);
    }
    store_resize(t.store, UINT64_MAX / 2);
    CHECK(store_slots(t.store) == 65);
    CHECK_OK(store_preload(t.store, NULL, NULL, &err));
    struct store_stats before, after;
    store_get_stats(t.store, &before);
    for (uint32_t i = 0; i < 20 && !check_failures; i++) {
        stepper_choose_any(&t);
        CHECK(stepper_run(&t) == SLUICE_OK, "%s", t.err.message);
    }
    store_get_stats(t.store, &after);
    CHECK(after.misses == before.misses && after.bytes_read == before.bytes_read);
    store_close(&t.store);
}

static void test_right_bytes(void)
{
    for (uint64_t seed = 0; seed < 12 && !check_failures; seed++) {
        struct world w;
        REQUIRE(world_make(&w, shapes, COUNT_OF(shapes), 80 + seed));
        run_ways(&w, (enum policy_kind)(seed % POLICY_COUNT), seed);
        world_release(&w);
    }
}

/* The experts used last stay when the others must go, wherever they lie. */
static void test_what_stays(void)
{
    struct world w;
    REQUIRE(world_make(&w, one_size, 1, 70));
    struct store_options o = {.n_slots = 32, .policy = POLICY_LRU};
    struct stepper t = {.world = &w, .rng = {1}, .store = open_store(&w, &o), .n_wanted = 1};
    for (uint32_t e = 0; e < 32; e++) {
        t.wanted[0] = e * 7 % 32; /* order of use is not that of slots */
        uint32_t ready, n;
        CHECK_OK(store_begin(t.store, w.list[0], t.wanted, 1, USE_DECODE, &err));
        CHECK_OK(store_next(t.store, &ready, 1, true, &n, &err));
        store_done(t.store, ready);
    }
    store_resize(t.store, 5 * store_slot_bytes(w.list[0], 4096));
    CHECK(store_slots(t.store) == 5);
    struct store_stats before, after;
    store_get_stats(t.store, &before);
    t.n_wanted = 5;
    for (uint32_t i = 0; i < 5; i++) t.wanted[i] = (27 + i) * 7 % 32;
    for (uint32_t i = 0; i < 5; i++) /* ascending */
        for (uint32_t j = i + 1; j < 5; j++)
            if (t.wanted[j] < t.wanted[i]) {
                uint32_t e = t.wanted[i];
                t.wanted[i] = t.wanted[j];
                t.wanted[j] = e;
            }
    CHECK(stepper_run(&t) == SLUICE_OK, "%s", t.err.message);
    store_get_stats(t.store, &after);
    CHECK(after.hits == before.hits + 5 && after.misses == before.misses);
    store_close(&t.store);
    world_release(&w);
}

static uint64_t resident_bytes_now(void)
{
    unsigned long long total, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f && fscanf(f, "%llu %llu", &total, &resident) != 2) resident = 0;
    if (f) fclose(f);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void test_memory_goes_back(void)
{
    struct world w;
    REQUIRE(world_make(&w, one_size, 2, 71));
    struct store_options o = {.n_slots = 64};
    o.reader.kind = READER_PREAD;
    struct expert_store *s = open_store(&w, &o);
    uint64_t slot = store_slot_bytes(w.list[0], 4096), empty = resident_bytes_now();
    CHECK_OK(store_preload(s, NULL, NULL, &err));
    uint64_t full = resident_bytes_now();
    store_resize(s, 4 * slot);
    uint64_t small = resident_bytes_now();
    CHECK(full - empty > 50 * slot, "%u KiB", (unsigned)((full - empty) / 1024));
    CHECK(full - small > 50 * slot, "%u KiB", (unsigned)((full - small) / 1024));
    store_close(&s);
    world_release(&w);
}

/* Whether so many bytes more than then are there soon. */
static bool memory_comes(uint64_t then, uint64_t bytes)
{
    for (uint32_t i = 0; i < 20000 && resident_bytes_now() < then + bytes; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return resident_bytes_now() >= then + bytes;
}

static bool system_populates(void)
{
    void *page;
    if (!mem_reserve(4096, &page)) return false;
    unsigned char there = 0;
    bool can = madvise(page, 4096, 23) == 0 && mincore(page, 4096, &there) == 0 && there & 1;
    mem_unreserve(page, 4096);
    return can;
}

/* Memory of slots comes before they are used, of those that there are; what goes is not taken
 * again. */
static void test_memory_comes_ahead(void)
{
    struct world w;
    REQUIRE(world_make(&w, one_size, 2, 72));
    uint64_t slot = store_slot_bytes(w.list[0], 4096), before = resident_bytes_now();
    struct store_options o = {.n_slots = 40, .reader = {.kind = READER_PREAD}};
    struct expert_store *s = open_store(&w, &o);
    store_populate(s, 2, 0);
    bool can = system_populates();
    CHECK(!can || memory_comes(before, 30 * slot));
    store_resize(s, 4 * slot);
    uint64_t small = resident_bytes_now();
    CHECK(small < before + 20 * slot, "%u KiB", (unsigned)((small - before) / 1024));
    store_resize(s, 64 * slot);
    CHECK(!can || memory_comes(small, 50 * slot));
    CHECK_OK(store_preload(s, NULL, NULL, &err));
    store_close(&s);
    world_release(&w);
}

#define CASES(C)                                                                                   \
    C(right_bytes)                                                                                 \
    C(what_stays)                                                                                  \
    C(memory_goes_back)                                                                            \
    C(memory_comes_ahead)

CHECK_MAIN(CASES)
