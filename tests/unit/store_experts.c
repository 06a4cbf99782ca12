/* The expert store over files of every layout: right bytes, waves, counts, faults, refusals. */
#include <errno.h>
#include <fcntl.h>

#include "expert_files.h"

static struct sluice_error err;

/* Sizes that fill no sector; the first and the fourth have slots of one size. */
static const struct bank_shape all_shapes[] = {
    {PACKED, 24, 96, 64, WTYPE_Q4, WTYPE_Q4},     {STACKED, 10, 160, 32, WTYPE_Q3, WTYPE_Q3},
    {SCATTERED, 7, 64, 32, WTYPE_BF16, WTYPE_Q8}, {STACKED, 24, 96, 64, WTYPE_Q4, WTYPE_Q4},
    {SCATTERED, 3, 32, 9, WTYPE_F32, WTYPE_F32},  {PACKED, 1, 64, 96, WTYPE_Q5, WTYPE_Q6},
};
/* One size of slots. */
static const struct bank_shape plain_shapes[] = {
    {PACKED, 16, 96, 64, WTYPE_Q4, WTYPE_Q4},
    {STACKED, 16, 96, 64, WTYPE_Q4, WTYPE_Q4},
    {SCATTERED, 16, 96, 64, WTYPE_Q4, WTYPE_Q4},
};

static struct expert_store *open_store(const struct world *w, const struct store_options *o)
{
    struct expert_store *s;
    CHECK_OK(store_open(&s, w->maps, MAX_FILES, w->list, w->n_banks, o, &err));
    return must(s);
}

static uint32_t count_experts(const struct world *w)
{
    uint32_t n = 0;
    for (uint32_t b = 0; b < w->n_banks; b++) n += w->banks[b].n_experts;
    return n;
}

/* Steps over random banks; the store's counts must be those of what was asked for. */
static void run_steps(struct stepper *t, uint32_t n)
{
    struct store_stats stats;
    bool seen[MAX_BANKS][MAX_EXPERTS] = {{0}};
    uint64_t distinct = 0, least_bytes = 0;
    for (uint32_t i = 0; i < n && !check_failures; i++) {
        stepper_choose_any(t);
        CHECK(stepper_run(t) == SLUICE_OK, "%s", t->err.message);
        for (uint32_t k = 0; k < t->n_wanted; k++) {
            if (seen[t->bank][t->wanted[k]]) continue;
            seen[t->bank][t->wanted[k]] = true;
            least_bytes += world_expert_bytes(t->world, t->bank);
            distinct++;
        }
    }
    store_get_stats(t->store, &stats);
    CHECK(stats.hits + stats.misses == t->n_asked);
    CHECK(stats.misses >= distinct && stats.bytes_read >= least_bytes);
    if (store_slots(t->store) == count_experts(t->world)) CHECK(stats.misses == distinct);
}

struct way {
    enum reader_kind kind;
    uint32_t depth, workers;
    bool buffered, faulty;
    enum inner_kind inner;
};

static const struct way ways[] = {
    {READER_AUTO, 0, 0, false, false, INNER_NONE},   {READER_AUTO, 1, 0, true, false, INNER_NONE},
    {READER_PREAD, 64, 8, false, false, INNER_NONE}, {READER_PREAD, 4, 1, true, false, INNER_NONE},
    {READER_PREAD, 16, 2, false, false, INNER_NONE}, {READER_AUTO, 8, 0, false, true, INNER_NONE},
    {READER_AUTO, 64, 8, false, true, INNER_PREAD},  {READER_AUTO, 8, 0, true, true, INNER_URING},
};

static struct reader_options way_options(const struct way *way, uint64_t seed)
{
    struct reader_options o = {
        .kind = way->kind, .depth = way->depth, .workers = way->workers, .buffered = way->buffered};
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
    for (uint32_t i = 0; i < COUNT_OF(slots); i++) {
        REQUIRE(world_make(&w, all_shapes, COUNT_OF(all_shapes), 50 + i));
        for (uint32_t k = 0; k < COUNT_OF(ways) && !check_failures; k++, round++) {
            struct store_options o = {.n_slots = slots[i],
                                      .policy = (enum policy_kind)(round % POLICY_COUNT),
                                      .reader = way_options(&ways[k], round)};
            struct stepper t = {.world = &w, .rng = {round}, .store = open_store(&w, &o)};
            store_populate(t.store, round % 3, round % 2 << 22);
            CHECK_OK(
                pool_open(&t.pool, &(struct pool_options){.n_threads = threads[round % 3]}, &err));
            uint32_t n = store_slots(t.store), all = count_experts(&w);
            CHECK(n <= max_u32(slots[i], 5) && n <= all && n + 5 >= min_u32(slots[i], all));
            run_steps(&t, 120);
            CHECK(!check_failures, "%u slots, way %u", slots[i], k);
            pool_close(&t.pool);
            store_close(&t.store);
            CHECK(t.store == NULL);
        }
        world_release(&w);
    }
}

/* More experts than slots: they come in waves, every one of them exactly once. */
static void test_waves(void)
{
    struct world w;
    REQUIRE(world_make(&w, plain_shapes, COUNT_OF(plain_shapes), 7));
    for (uint32_t slots = 1; slots <= 16 && !check_failures; slots++) {
        struct store_options o = {.n_slots = slots};
        struct stepper t = {.world = &w, .rng = {slots}, .store = open_store(&w, &o)};
        CHECK(store_slots(t.store) == slots);
        for (uint32_t i = 0; i < 9; i++) {
            stepper_choose(&t, i % w.n_banks, 16);
            CHECK(t.n_wanted == 16 && stepper_run(&t) == SLUICE_OK, "%s", t.err.message);
        }
        store_close(&t.store);
    }
    world_release(&w);
}

/* A step that holds every slot and waits for one more is told so, and the store goes on. */
static void test_nobody_gives_back(void)
{
    struct world w;
    bool given[MAX_EXPERTS] = {0};
    REQUIRE(world_make(&w, plain_shapes, 1, 8));
    struct store_options o = {.n_slots = 3};
    struct stepper t = {.world = &w, .rng = {1}, .store = open_store(&w, &o)};
    stepper_choose(&t, 0, 5);
    CHECK_OK(store_begin(t.store, w.list[0], t.wanted, 5, USE_DECODE, &err));
    while (t.n_held < 3 && !check_failures)
        CHECK(stepper_take(&t, 9, true, given) == SLUICE_OK, "%s", t.err.message);
    CHECK(stepper_take(&t, 9, false, given) == SLUICE_OK && t.n_held == 3);
    CHECK(stepper_take(&t, 9, true, given) == SLUICE_E_INTERNAL);
    CHECK(strstr(t.err.message, "layer 5: 2 experts wait for slots"), "%s", t.err.message);
    for (uint32_t i = 0; i < 20; i++) {
        stepper_choose_any(&t);
        CHECK(stepper_run(&t) == SLUICE_OK, "%s", t.err.message);
    }
    store_close(&t.store);
    world_release(&w);
}

/* All of n experts in slots at once: none has been lost. */
static void expect_slots(struct stepper *t, uint32_t n)
{
    bool given[MAX_EXPERTS] = {0};
    stepper_choose(t, 0, n);
    t->n_held = 0;
    CHECK(store_begin(t->store, t->world->list[0], t->wanted, n, USE_DECODE, &t->err) == SLUICE_OK);
    while (t->n_held < n && !check_failures)
        CHECK(stepper_take(t, n, true, given) == SLUICE_OK, "%s", t->err.message);
    stepper_compare(t);
    stepper_give_back(t, n);
}

/* The message of a failed step names the layer, an expert of the step, and where its bytes lie. */
static void expect_message(const struct stepper *t, const char *why)
{
    unsigned layer = 0, expert = MAX_EXPERTS;
    unsigned long long offset = 0;
    char path[MAX_PATH] = "";
    int end = 0;
    CHECK(t->err.code == SLUICE_E_IO);
    CHECK(sscanf(t->err.message, "layer %u, expert %u: reading file '%500[^']' at offset %llu: %n",
                 &layer, &expert, path, &offset, &end) == 4,
          "%s", t->err.message);
    CHECK(layer == t->world->banks[t->bank].layer && strcmp(t->err.message + end, why) == 0, "%s",
          t->err.message);
    bool asked = false, placed = false;
    for (uint32_t k = 0; k < t->n_wanted; k++) asked |= t->wanted[k] == expert;
    for (uint32_t p = 0; asked && p < EXPERT_PARTS; p++) {
        const struct place *at = &t->world->places[t->bank][expert][p];
        placed |= strcmp(t->world->corpus.paths[at->file], path) == 0 && offset <= at->offset &&
                  at->offset - offset < 4096;
    }
    CHECK(asked && placed, "%s", t->err.message);
}

/* The k-th read fails: one step ends with an error, and can be taken again. */
static void fail_read(const struct world *w, uint32_t k, uint32_t *n_failed)
{
    enum { SLOTS = 6 };
    static const struct {
        int error;
        const char *text;
    } kinds[] = {{EIO, "Input/output error"},
                 {ENODEV, "No such device"},
                 {READER_EOF, "the file is shorter than when it was opened"}};
    struct fault_options faults = {.seed = k,
                                   .fail_first = k,
                                   .fail_error = kinds[k % 3].error,
                                   .delay = k % 4,
                                   .reorder = true,
                                   .short_chance = 10};
    struct store_options o = {.n_slots = SLOTS,
                              .policy = (enum policy_kind)(k % POLICY_COUNT),
                              .reader = {.depth = 1 + k % 9}};
    CHECK(use_faults(&o.reader, k % 5 ? INNER_NONE : INNER_PREAD, &faults));
    struct stepper t = {.world = w, .rng = {k}, .store = open_store(w, &o)};
    store_populate(t.store, k % 2, 0);
    uint32_t last = 40; /* a few steps after the one that fails */
    for (uint32_t i = 0; i < last && !check_failures; i++) {
        stepper_choose_any(&t);
        if (stepper_run(&t) == SLUICE_OK) continue;
        ++*n_failed;
        last = i + 6;
        expect_message(&t, kinds[k % 3].text);
        CHECK(stepper_run(&t) == SLUICE_OK, "%s", t.err.message);
        expect_slots(&t, SLOTS);
    }
    expect_slots(&t, SLOTS);
    CHECK(!check_failures, "read %u failed", k);
    store_close(&t.store);
}

static void test_failed_reads(void)
{
    struct world w;
    uint32_t n_failed = 0;
    REQUIRE(world_make(&w, plain_shapes, COUNT_OF(plain_shapes), 9));
    for (uint32_t k = 1; k <= 200 && !check_failures; k++) fail_read(&w, k, &n_failed);
    CHECK(n_failed == 200, "%u steps failed", n_failed);
    world_release(&w);
}

/* A disk that is gone for a while: every step that needs it fails, later none does. */
static void test_lasting_failure(void)
{
    struct world w;
    struct fault_options faults = {.fail_first = 1, .fail_last = UINT64_MAX};
    struct store_options o = {.n_slots = 20};
    REQUIRE(world_make(&w, all_shapes, COUNT_OF(all_shapes), 10));
    REQUIRE(use_faults(&o.reader, INNER_NONE, &(struct fault_options){0}));
    struct stepper t = {.world = &w, .rng = {1}, .store = open_store(&w, &o)};
    run_steps(&t, 50);
    driver_fault_set(o.reader.driver_state, &faults);
    uint32_t failed = 0;
    for (uint32_t i = 0; i < 100; i++) {
        struct store_stats before, after;
        store_get_stats(t.store, &before);
        stepper_choose_any(&t);
        bool ok = stepper_run(&t) == SLUICE_OK;
        store_get_stats(t.store, &after);
        CHECK(ok == (after.misses == before.misses) && after.bytes_read == before.bytes_read);
        if (!ok) expect_message(&t, "Input/output error");
        failed += !ok;
    }
    CHECK(failed > 10);
    driver_fault_set(o.reader.driver_state, &(struct fault_options){0});
    for (uint32_t i = 0; i < 50; i++) {
        stepper_choose_any(&t);
        CHECK(stepper_run(&t) == SLUICE_OK, "%s", t.err.message);
    }
    store_close(&t.store);
    world_release(&w);
}

/* Files cut under an open store, and made whole again. */
static void test_cut_files(void)
{
    struct world w;
    REQUIRE(world_make(&w, all_shapes, COUNT_OF(all_shapes), 11));
    for (uint32_t k = 0; k < COUNT_OF(ways); k++) {
        struct store_options o = {.n_slots = 8, .reader = way_options(&ways[k], k)};
        struct stepper t = {.world = &w, .rng = {k}, .store = open_store(&w, &o)};
        run_steps(&t, 10);
        uint32_t failed = 0;
        struct timespec written[MAX_FILES];
        for (uint32_t f = 0; f < MAX_FILES; f++) written[f] = tempdir_time(w.corpus.paths[f]);
        for (uint32_t f = 0; f < MAX_FILES; f++)
            CHECK(truncate(w.corpus.paths[f], (off_t)(w.corpus.len[f] / 4 + k)) == 0);
        for (uint32_t i = 0; i < 60 && !check_failures; i++) {
            stepper_choose_any(&t);
            if (stepper_run(&t) == SLUICE_OK) continue;
            expect_message(&t, "the file is shorter than when it was opened");
            failed++;
        }
        CHECK(failed > 10);
        for (uint32_t f = 0; f < MAX_FILES; f++) {
            const char *name = strrchr(w.corpus.paths[f], '/') + 1;
            CHECK(tempdir_write(&w.corpus.dir, name, w.corpus.bytes[f], w.corpus.len[f]));
            CHECK(tempdir_set_time(w.corpus.paths[f], written[f]));
        }
        for (uint32_t i = 0; i < 30 && !check_failures; i++) {
            stepper_choose_any(&t);
            CHECK(stepper_run(&t) == SLUICE_OK, "%s", t.err.message);
        }
        store_close(&t.store);
    }
    world_release(&w);
}

struct progress {
    uint64_t calls, done, total, most; /* most: calls, 0: any number */
};

static bool count_progress(void *user, uint64_t done, uint64_t total)
{
    struct progress *p = user;
    CHECK(done <= total && done >= p->done);
    *p = (struct progress){p->calls + 1, done, total, p->most};
    return p->calls != p->most;
}

static void test_preload(void)
{
    static const uint32_t slots[] = {1, 9, 1000};
    struct world w;
    REQUIRE(world_make(&w, all_shapes, COUNT_OF(all_shapes), 12));
    for (uint32_t i = 0; i < COUNT_OF(slots); i++) {
        struct store_options o = {.n_slots = slots[i]};
        struct stepper t = {.world = &w, .rng = {i}, .store = open_store(&w, &o)};
        struct progress p = {0};
        struct store_stats before, after;
        CHECK_OK(store_preload(t.store, count_progress, &p, &err));
        CHECK(p.calls > 0 && p.done == p.total);
        store_get_stats(t.store, &before);
        CHECK(before.hits == 0 && before.misses == 0 && before.bytes_read > 0);
        CHECK_OK(store_preload(t.store, NULL, NULL, &err));
        store_get_stats(t.store, &after);
        CHECK(after.bytes_read == before.bytes_read);
        for (uint32_t k = 0; k < 60; k++) {
            stepper_choose_any(&t);
            CHECK(stepper_run(&t) == SLUICE_OK, "%s", t.err.message);
        }
        store_get_stats(t.store, &after);
        CHECK(after.hits + after.misses == t.n_asked);
        if (slots[i] == 1000) CHECK(after.misses == 0 && after.bytes_read == before.bytes_read);
        store_close(&t.store);
    }
    world_release(&w);
}

static void test_preload_is_cancelled(void)
{
    struct world w;
    struct store_options o = {.n_slots = 1000};
    REQUIRE(world_make(&w, all_shapes, COUNT_OF(all_shapes), 14));
    struct stepper t = {.world = &w, .rng = {4}, .store = open_store(&w, &o)};
    struct progress p = {.most = 1};
    CHECK(store_preload(t.store, count_progress, &p, &err) == SLUICE_E_CANCELLED);
    CHECK(p.calls == 1 && p.done == 1 && strstr(err.message, "1 of"), "%s", err.message);
    CHECK_OK(store_preload(t.store, NULL, NULL, &err));
    stepper_choose_any(&t);
    CHECK(stepper_run(&t) == SLUICE_OK, "%s", t.err.message);
    store_close(&t.store);
    world_release(&w);
}

static void test_preload_fails(void)
{
    struct world w;
    struct store_options o = {.n_slots = 30};
    REQUIRE(world_make(&w, all_shapes, COUNT_OF(all_shapes), 13));
    REQUIRE(use_faults(&o.reader, INNER_NONE, &(struct fault_options){.fail_first = 50}));
    struct stepper t = {.world = &w, .rng = {3}, .store = open_store(&w, &o)};
    CHECK(store_preload(t.store, NULL, NULL, &err) == SLUICE_E_IO);
    CHECK(strstr(err.message, "layer ") && strstr(err.message, "Input/output error"), "%s",
          err.message);
    CHECK_OK(store_preload(t.store, NULL, NULL, &err));
    run_steps(&t, 60);
    store_close(&t.store);
    world_release(&w);
}

/* Slots never take more than they may, whatever sizes there are; too little is refused. */
static void test_slot_bytes(void)
{
    struct world w;
    struct expert_store *s;
    struct rng rng = {4};
    REQUIRE(world_make(&w, all_shapes, COUNT_OF(all_shapes), 14));
    struct store_options o = {.n_slots = 1};
    s = open_store(&w, &o);
    uint64_t least = store_bytes(s), all;
    CHECK(store_slots(s) > 1 && store_slots(s) <= 5); /* sizes */
    store_close(&s);
    o = (struct store_options){.slot_bytes = store_least_bytes(w.list, w.n_banks, 4096)};
    CHECK(o.slot_bytes >= least);
    s = open_store(&w, &o);
    store_close(&s);
    o = (struct store_options){.slot_bytes = UINT64_MAX};
    s = open_store(&w, &o);
    all = store_bytes(s);
    CHECK(store_slots(s) == count_experts(&w));
    store_close(&s);
    for (uint32_t i = 0; i < 200; i++) {
        o.slot_bytes = i == 0 ? least : least + rng_below(&rng, (uint32_t)(all - least + 5000));
        s = open_store(&w, &o);
        CHECK(store_bytes(s) <= o.slot_bytes, "%" PRIu64 " of %" PRIu64, store_bytes(s),
              o.slot_bytes);
        CHECK(o.slot_bytes < all || store_bytes(s) == all);
        struct stepper t = {.world = &w, .rng = {i}, .store = s};
        run_steps(&t, 10);
        store_close(&s);
    }
    o.slot_bytes = least - 1;
    CHECK(store_open(&s, w.maps, MAX_FILES, w.list, w.n_banks, &o, &err) == SLUICE_E_BUDGET && !s);
    char said[64];
    snprintf(said, sizeof said, "at least %.1f MiB are needed", (double)least / 1048576.0);
    CHECK(strstr(err.message, said), "%s", err.message);
    world_release(&w);
}

/* With slots of one size, all that fit are used. */
static void test_budget_is_used(void)
{
    struct world w;
    struct expert_store *s;
    REQUIRE(world_make(&w, plain_shapes, COUNT_OF(plain_shapes), 15));
    struct store_options o = {.n_slots = 1};
    s = open_store(&w, &o);
    uint64_t one = store_bytes(s);
    store_close(&s);
    for (uint32_t n = 1; n <= 48; n++) {
        for (uint32_t more = 0; more < 2; more++) {
            o = (struct store_options){.slot_bytes = n * one + more * (one - 1)};
            s = open_store(&w, &o);
            CHECK(store_slots(s) == n && store_bytes(s) == n * one);
            store_close(&s);
        }
        o = (struct store_options){.n_slots = n};
        s = open_store(&w, &o);
        CHECK(store_slots(s) == n);
        store_close(&s);
    }
    world_release(&w);
}

static void expect_refused(const struct world *w, enum sluice_status status, const char *says)
{
    struct expert_store *s;
    struct store_options o = {.n_slots = 2};
    err.message[0] = '\0';
    enum sluice_status got = store_open(&s, w->maps, MAX_FILES, w->list, w->n_banks, &o, &err);
    CHECK(got == status && !s && strstr(err.message, says), "%s", err.message);
    store_close(&s);
}

static void test_open_errors(void)
{
    static const uint8_t elsewhere[64];
    struct world w;
    REQUIRE(world_make(&w, plain_shapes, 2, 16));
    w.views[1][3].down.scales = elsewhere;
    expect_refused(&w, SLUICE_E_INTERNAL, "layer 8, expert 3 lies in no file");
    world_point(&w, 1, 3);
    w.views[1][9].up.rows <<= 16;
    expect_refused(&w, SLUICE_E_INTERNAL, "layer 8, expert 9 lies in no file");
    w.views[1][9].up.rows >>= 16;
    /* the last byte of the last part is behind the end of the file's mapping */
    struct file_map *map = &w.maps[w.places[1][3][6].file];
    map->bytes = w.places[1][3][6].offset + w.sizes[1][6] - 1;
    expect_refused(&w, SLUICE_E_INTERNAL, "layer 8, expert 3 lies in no file");
    map->bytes = map->version.bytes;
    map->version.bytes--;
    expect_refused(&w, SLUICE_E_IO, "was written to or replaced while it was opened");
    map->version.bytes++;
    map->version.modified_ns++;
    expect_refused(&w, SLUICE_E_IO, map->path);
    map->version.modified_ns--;
    map->version.inode++;
    expect_refused(&w, SLUICE_E_IO, map->path);
    map->version.inode--;
    CHECK(truncate(w.corpus.paths[2], 10) == 0);
    expect_refused(&w, SLUICE_E_IO, w.corpus.paths[2]);
    CHECK(remove(w.corpus.paths[2]) == 0);
    expect_refused(&w, SLUICE_E_NOT_FOUND, w.corpus.paths[2]);
    world_release(&w);
}

/* An expert larger than what a read can bring is no expert of half its bytes. */
static void test_huge_expert(void)
{
    struct tempdir dir;
    struct file_map map;
    struct expert_store *s;
    REQUIRE(tempdir_make(&dir));
    const char *path = tempdir_path(&dir, "huge.bin");
    int fd = open(path, O_CREAT | O_RDWR, 0600);
    bool sparse = fd >= 0 && ftruncate(fd, (5ll << 30)) == 0;
    close(fd);
    if (!sparse || file_map_open(&map, path, &err) != SLUICE_OK) {
        tempdir_remove(&dir);
        SKIP("no file of 5 GiB here");
    }
    struct wmat small = shape_matrix(WTYPE_F32, 4, 4), big = shape_matrix(WTYPE_F32, 1 << 20, 1025);
    small.data = map.data + 64;
    big.data = map.data + 4097;
    struct expert_view view = {small, big, small};
    struct expert_bank bank = {.layer = 7, .n_experts = 1, .experts = &view};
    const struct expert_bank *list = &bank;
    struct store_options o = {.n_slots = 1};
    CHECK(store_open(&s, &map, 1, &list, 1, &o, &err) == SLUICE_E_UNSUPPORTED && !s);
    CHECK(strstr(err.message, "layer 7, expert 0 has more bytes"), "%s", err.message);
    file_map_release(&map);
    tempdir_remove(&dir);
}

/* Parts that overlap, as when two matrices are one tensor, are read once and whole. */
static void test_shared_parts(void)
{
    struct world w;
    struct expert_view view;
    REQUIRE(world_make(&w, plain_shapes, 1, 17));
    view = w.views[0][0];
    view.up = view.gate;                   /* the same bytes */
    view.down.scales = view.down.data + 5; /* inside another part */
    view.down.biases = view.down.data + 1;
    w.views[0][0] = view;
    struct store_options o = {.n_slots = 1};
    struct expert_store *s = open_store(&w, &o);
    uint32_t expert = 0, n;
    CHECK_OK(store_begin(s, w.list[0], &expert, 1, USE_DECODE, &err));
    CHECK_OK(store_next(s, &expert, 1, true, &n, &err));
    REQUIRE(n == 1);
    struct part_ref got[EXPERT_PARTS], want[EXPERT_PARTS];
    extents_parts(store_view(s, w.list[0], 0), got);
    extents_parts(&view, want);
    for (uint32_t p = 0; p < EXPERT_PARTS; p++)
        CHECK(got[p].bytes == want[p].bytes &&
                  memcmp(got[p].data, want[p].data, want[p].bytes) == 0,
              "part %u", p);
    store_done(s, 0);
    store_close(&s);
    world_release(&w);
}

/* An expert whose parts follow one another is one read, and none is made twice. */
static void test_number_of_reads(void)
{
    struct world w;
    struct store_options o = {.n_slots = 48, .reader = {.buffered = true}};
    REQUIRE(world_make(&w, plain_shapes, COUNT_OF(plain_shapes), 19));
    REQUIRE(use_faults(&o.reader, INNER_NONE, &(struct fault_options){0}));
    struct stepper t = {.world = &w, .rng = {1}, .store = open_store(&w, &o)};
    size_t n;
    for (uint32_t i = 0; i < 3; i++) {
        stepper_choose(&t, 0, 8 + 4 * i);
        CHECK(stepper_run(&t) == SLUICE_OK, "%s", t.err.message);
        struct store_stats stats;
        store_get_stats(t.store, &stats);
        (void)driver_fault_reads(o.reader.driver_state, &n);
        CHECK(n == stats.misses && stats.bytes_read == n * world_expert_bytes(&w, 0));
    }
    CHECK(n == 16);
    stepper_choose(&t, 2, 16);
    CHECK(stepper_run(&t) == SLUICE_OK, "%s", t.err.message);
    (void)driver_fault_reads(o.reader.driver_state, &n);
    CHECK(n > 16 + 100 && n <= 16 + 16 * EXPERT_PARTS, "%zu reads", n);
    store_close(&t.store);
    world_release(&w);
}

/* What the check hook is shown, and what it refuses. */
struct checks {
    uint32_t seen[MAX_BANKS][MAX_EXPERTS];
    uint32_t bad_layer, bad_expert;
    uint32_t *n_checked;
};

static enum sluice_status check_expert(const void *user, const struct expert_bank *bank,
                                       uint32_t expert, const struct expert_view *view,
                                       struct sluice_error *e)
{
    const struct checks *c = user;
    ++*c->n_checked;
    if (!view->gate.data) return SLUICE_E_INTERNAL;
    if (bank->layer == c->bad_layer && expert == c->bad_expert)
        return err_set(e, SLUICE_E_FORMAT, "layer %u, expert %u: spoilt", bank->layer, expert);
    return SLUICE_OK;
}

static void test_check_hook(void)
{
    struct world w;
    uint32_t n_checked = 0;
    struct checks checks = {.bad_layer = 8, .bad_expert = 4, .n_checked = &n_checked};
    struct store_options o = {.n_slots = 1000, .check = check_expert, .check_user = &checks};
    REQUIRE(world_make(&w, plain_shapes, COUNT_OF(plain_shapes), 18));
    struct stepper t = {.world = &w, .rng = {1}, .store = open_store(&w, &o)};
    uint32_t failed = 0;
    for (uint32_t i = 0; i < 60; i++) {
        /* When reads end decides how many numbers a step draws. */
        t.rng = (struct rng){i + 1};
        stepper_choose(&t, i % 3, 5);
        bool bad = false;
        for (uint32_t k = 0; k < 5; k++) bad |= i % 3 == 1 && t.wanted[k] == 4;
        CHECK(stepper_run(&t) == (bad ? SLUICE_E_FORMAT : SLUICE_OK), "%s", t.err.message);
        if (bad)
            CHECK(strcmp(t.err.message, "layer 8, expert 4: spoilt") == 0, "%s", t.err.message);
        failed += bad;
    }
    CHECK(failed > 2);
    checks.bad_layer = 0;
    uint32_t before = n_checked;
    for (uint32_t b = 0; b < 3; b++) {
        stepper_choose(&t, b, 16);
        CHECK(stepper_run(&t) == SLUICE_OK, "%s", t.err.message);
    }
    CHECK(n_checked <= before + 3 && n_checked >= before + 1, "%u more", n_checked - before);
    store_close(&t.store);
    world_release(&w);
}

#define CASES(C)                                                                                   \
    C(right_bytes)                                                                                 \
    C(waves)                                                                                       \
    C(nobody_gives_back)                                                                           \
    C(failed_reads)                                                                                \
    C(lasting_failure)                                                                             \
    C(cut_files)                                                                                   \
    C(preload)                                                                                     \
    C(preload_is_cancelled)                                                                        \
    C(preload_fails)                                                                               \
    C(slot_bytes)                                                                                  \
    C(budget_is_used)                                                                              \
    C(open_errors)                                                                                 \
    C(huge_expert)                                                                                 \
    C(shared_parts)                                                                                \
    C(number_of_reads)                                                                             \
    C(check_hook)

CHECK_MAIN(CASES)
