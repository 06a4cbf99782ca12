/* The reader: the same bytes by every driver, the order of reads, and what becomes of bad ones. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/bits.h"
#include "fault_run.h"

enum { ROOMS = 96, ROOM_BYTES = 64 << 10, LARGEST_ALIGN = 4096 };

static struct sluice_error err;

static bool corpus_make(struct corpus *c)
{
    *c = (struct corpus){0};
    return tempdir_make(&c->dir) && corpus_add(c, (1 << 20) + 123, 1) &&
           corpus_add(c, 50 * 4096, 2) && corpus_add(c, 333, 3) && corpus_add(c, 700001, 4);
}

/* A reader over the corpus that must open. */
static struct reader *open_reader(const struct corpus *c, const struct reader_options *o)
{
    const char *paths[MAX_FILES];
    struct reader *r;
    for (uint32_t f = 0; f < c->n; f++) paths[f] = c->paths[f];
    CHECK_OK(reader_open(&r, paths, c->n, o, &err));
    return must(r);
}

/* A window somewhere in a file; many end where it ends. */
static struct read_op random_op(const struct corpus *c, const struct reader *r, struct rng *rng)
{
    struct read_op op = {.file = rng_below(rng, c->n), .prefetch = rng_below(rng, 3) == 0};
    uint32_t align = reader_alignment(r, op.file);
    size_t len = c->len[op.file];
    op.offset = rng_below(rng, (uint32_t)len) / align * align;
    bool to_end = rng_below(rng, 4) == 0;
    if (to_end && len > ROOM_BYTES / 2) op.offset = (len - ROOM_BYTES / 2) / align * align;
    size_t most = min_size(len - op.offset, ROOM_BYTES - LARGEST_ALIGN);
    op.need = to_end ? (uint32_t)most : 1 + rng_below(rng, (uint32_t)most);
    op.bytes = (uint32_t)align_up(op.need, align);
    return op;
}

/* Windows read one after the other or many at once, each checked when it arrives. */
struct traffic {
    const struct corpus *corpus;
    struct reader *reader;
    struct rng rng;
    uint8_t *memory;
    struct read_op ops[ROOMS];
    bool busy[ROOMS];
    uint32_t n_busy;
    uint64_t n_done, bytes;
};

static void traffic_submit(struct traffic *t)
{
    uint32_t room = 0;
    while (t->busy[room]) room++;
    struct read_op op = random_op(t->corpus, t->reader, &t->rng);
    op.into = t->memory + (size_t)room * ROOM_BYTES;
    op.tag = room;
    memset(op.into, 0xa5, op.bytes);
    t->ops[room] = op;
    t->busy[room] = true;
    t->n_busy++;
    CHECK_OK(reader_submit(t->reader, &op, &err));
}

static void traffic_poll(struct traffic *t, bool wait)
{
    struct read_result results[7];
    size_t n = reader_poll(t->reader, results, 1 + rng_below(&t->rng, 7), wait);
    CHECK(n <= 7 && (n > 0 || !wait));
    for (size_t i = 0; i < n; i++) {
        const struct read_result *res = &results[i];
        REQUIRE(res->tag < ROOMS && t->busy[res->tag]);
        const struct read_op *op = &t->ops[res->tag];
        CHECK(res->error == 0 && res->file == op->file && res->offset == op->offset,
              "error %d of file %u at %" PRIu64, res->error, res->file, res->offset);
        CHECK(memcmp(op->into, t->corpus->bytes[op->file] + op->offset, op->need) == 0,
              "file %u at %" PRIu64 ", %u bytes", op->file, op->offset, op->need);
        t->busy[res->tag] = false;
        t->n_busy--;
        t->n_done++;
        t->bytes += op->need;
    }
}

/* n random windows through a reader with these options, which it closes. */
static void run_traffic(const struct corpus *c, const struct reader_options *o, uint64_t n,
                        uint64_t seed)
{
    struct traffic *t = must(calloc(1, sizeof *t));
    *t = (struct traffic){.corpus = c, .reader = open_reader(c, o), .rng = {seed}};
    t->memory = must(aligned_alloc(LARGEST_ALIGN, (size_t)ROOMS * ROOM_BYTES));
    if (seed % 2) reader_register_buffer(t->reader, t->memory, (size_t)ROOMS * ROOM_BYTES);
    for (uint64_t sent = 0; t->n_done < n && !check_failures;) {
        uint32_t burst = rng_below(&t->rng, ROOMS);
        for (uint32_t i = 0; i < burst && sent < n && t->n_busy < ROOMS; i++, sent++)
            traffic_submit(t);
        CHECK(reader_pending(t->reader) == t->n_busy);
        if (t->n_busy) traffic_poll(t, t->n_busy == ROOMS || rng_below(&t->rng, 2));
    }
    CHECK(t->n_busy == 0 && reader_pending(t->reader) == 0);
    CHECK(reader_bytes(t->reader) >= t->bytes);
    struct read_result none;
    CHECK(reader_poll(t->reader, &none, 1, true) == 0 && reader_poll(t->reader, &none, 1, 0) == 0);
    reader_close(&t->reader);
    CHECK(t->reader == NULL);
    free(t->memory);
    free(t);
}

static const uint32_t depths[] = {1, 2, 7, 32, 64};

static void test_uring_reads_windows(void)
{
    struct corpus c;
    if (!has_uring()) SKIP("io_uring is refused here");
    REQUIRE(corpus_make(&c));
    for (uint32_t i = 0; i < COUNT_OF(depths); i++) {
        struct reader_options o = {.kind = READER_URING, .depth = depths[i], .buffered = i == 2};
        run_traffic(&c, &o, 1500, 10 + i);
    }
    corpus_release(&c);
}

static void test_pread_reads_windows(void)
{
    struct corpus c;
    REQUIRE(corpus_make(&c));
    for (uint32_t i = 0; i < COUNT_OF(depths); i++) {
        struct reader_options o = {
            .kind = READER_PREAD, .depth = depths[i], .workers = 1u << i, .buffered = i == 3};
        run_traffic(&c, &o, 1500, 20 + i);
    }
    corpus_release(&c);
}

/* Every fault that can be retried, together, over every way to read. */
static void test_faults_change_no_byte(void)
{
    struct corpus c;
    REQUIRE(corpus_make(&c));
    for (uint32_t i = 0; i < 3 * COUNT_OF(depths); i++) {
        struct fault_options faults = {.seed = i,
                                       .short_chance = 40,
                                       .eintr_chance = 15,
                                       .eagain_chance = 15,
                                       .refuse_chance = i % 2 ? 30 : 0,
                                       .delay = i % 4,
                                       .reorder = i % 3 != 0};
        struct reader_options o = {.depth = depths[i / 3], .buffered = i % 5 == 4};
        if (use_faults(&o, (enum inner_kind)(i % 3), &faults)) run_traffic(&c, &o, 700, 30 + i);
    }
    corpus_release(&c);
}

/* One read with faults that last; its buffer stays readable until the call after this one. */
static struct read_result read_once(struct reader *r, const struct read_op *op, uint8_t **into)
{
    static _Alignas(LARGEST_ALIGN) uint8_t room[ROOM_BYTES];
    struct read_op here = *op;
    struct read_result result = {.error = -99};
    memset(room, 0xa5, sizeof room);
    here.into = *into = room;
    CHECK_OK(reader_submit(r, &here, &err));
    CHECK(reader_poll(r, &result, 1, true) == 1);
    CHECK(reader_pending(r) == 0);
    return result;
}

static const struct read_op some_op = {
    .file = 0, .offset = 8192, .bytes = 32768, .need = 30000, .tag = 77};

static void expect_read(struct reader *r, const struct corpus *c)
{
    uint8_t *into;
    struct read_result result = read_once(r, &some_op, &into);
    CHECK(result.error == 0 && result.tag == 77, "error %d", result.error);
    CHECK(memcmp(into, c->bytes[0] + some_op.offset, some_op.need) == 0);
}

static void expect_error(struct reader *r, int error)
{
    uint8_t *into;
    uint64_t before = reader_bytes(r);
    struct read_result result = read_once(r, &some_op, &into);
    CHECK(result.error == error, "error %d", result.error);
    CHECK(result.tag == 77 && result.file == 0 && result.offset == some_op.offset);
    CHECK(reader_bytes(r) == before);
}

/* What every read comes back with: retried for a while, then an error; no longer: it works. */
static void test_lasting_faults_end(void)
{
    static const struct {
        struct fault_options faults;
        int error;
    } rows[] = {
        {{.eintr_chance = 100}, EINTR},
        {{.eagain_chance = 100}, EAGAIN},
        {{.refuse_all = true}, EAGAIN},
        {{.fail_first = 1}, EIO},
        {{.fail_first = 1, .fail_error = EINVAL}, EINVAL},
        {{.fail_first = 1, .fail_error = READER_EOF}, READER_EOF},
        {{.fail_first = 1, .fail_last = UINT64_MAX}, EIO},
        {{.short_chance = 100}, 0},
        {{.most_bytes = 100}, 0},
    };
    struct corpus c;
    REQUIRE(corpus_make(&c));
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct reader_options o = {.depth = 4, .buffered = rows[i].faults.most_bytes > 0};
        REQUIRE(use_faults(&o, INNER_NONE, &rows[i].faults));
        struct reader *r = open_reader(&c, &o);
        if (rows[i].error)
            expect_error(r, rows[i].error);
        else
            expect_read(r, &c);
        driver_fault_set(o.driver_state, &(struct fault_options){.eintr_chance = 50});
        for (uint32_t again = 0; again < 5; again++) expect_read(r, &c);
        reader_close(&r);
    }
    corpus_release(&c);
}

/* One of forty reads fails; it is that one, and all others bring their bytes. */
static void test_failure_is_of_one_read(void)
{
    enum { N = 40 };
    struct corpus c;
    REQUIRE(corpus_make(&c));
    uint8_t *memory = must(aligned_alloc(LARGEST_ALIGN, N * 4096));
    for (uint32_t k = 1; k <= N; k++) {
        struct fault_options faults = {.seed = k, .fail_first = k, .reorder = true, .delay = 3};
        struct reader_options o = {.depth = 8};
        REQUIRE(use_faults(&o, INNER_NONE, &faults));
        struct reader *r = open_reader(&c, &o);
        for (uint32_t i = 0; i < N; i++) {
            struct read_op op = {.offset = 4096 * i,
                                 .bytes = 4096,
                                 .need = 4096,
                                 .into = memory + 4096 * i,
                                 .tag = i};
            CHECK_OK(reader_submit(r, &op, &err));
        }
        struct read_result res;
        uint32_t n_failed = 0;
        while (reader_poll(r, &res, 1, true)) {
            CHECK(res.error == (res.tag + 1 == k ? EIO : 0) && res.offset == 4096 * res.tag);
            n_failed += res.error != 0;
            CHECK(res.error || memcmp(memory + res.offset, c.bytes[0] + res.offset, 4096) == 0);
        }
        CHECK(n_failed == 1);
        reader_close(&r);
    }
    free(memory);
    corpus_release(&c);
}

static void submit_many(struct reader *r, uint8_t *memory, uint32_t n, uint32_t first_tag,
                        bool prefetch)
{
    for (uint32_t i = 0; i < n; i++) {
        struct read_op op = {.offset = 4096 * (uint64_t)(first_tag + i),
                             .bytes = 4096,
                             .need = 4096,
                             .into = memory + 4096 * (first_tag + i),
                             .tag = first_tag + i,
                             .prefetch = prefetch};
        CHECK_OK(reader_submit(r, &op, &err));
    }
}

/*
 * Prefetch has an eighth of the depth; demand reads that come later start before the rest of it,
 * and as long as one of them is in flight no prefetch read starts.
 */
static void test_demand_before_prefetch(void)
{
    enum { DEPTH = 16, AHEAD = DEPTH / 8, GUESSES = 20, WANTED = 30 };
    struct corpus c;
    struct read_result res;
    REQUIRE(corpus_make(&c));
    uint8_t *memory = must(aligned_alloc(LARGEST_ALIGN, (GUESSES + WANTED) * 4096));
    struct reader_options o = {.depth = DEPTH};
    REQUIRE(use_faults(&o, INNER_NONE, &(struct fault_options){.delay = 2, .reorder = true}));
    struct reader *r = open_reader(&c, &o);
    submit_many(r, memory, GUESSES, 0, true);
    size_t n, wanted_left = WANTED;
    (void)driver_fault_reads(o.driver_state, &n);
    CHECK(n == AHEAD, "%zu reads ahead", n);
    submit_many(r, memory, WANTED, GUESSES, false);
    while (reader_poll(r, &res, 1, true)) {
        (void)driver_fault_reads(o.driver_state, &n);
        wanted_left -= res.tag >= GUESSES;
        CHECK(wanted_left == 0 || n <= AHEAD + WANTED, "%zu reads", n);
    }
    const struct fault_read *reads = driver_fault_reads(o.driver_state, &n);
    CHECK(n == GUESSES + WANTED && driver_fault_most(o.driver_state) == DEPTH);
    for (size_t i = 0; i < n; i++) {
        bool wanted = i >= AHEAD && i < AHEAD + WANTED;
        CHECK(reads[i].prefetch == !wanted, "read %zu", i);
        uint64_t tag = wanted ? GUESSES + i - AHEAD : i < AHEAD ? i : i - WANTED;
        CHECK(reads[i].tag == tag && reads[i].offset == 4096 * tag);
    }
    reader_close(&r);
    free(memory);
    corpus_release(&c);
}

/* Reads without demand: never more of them in flight than their share, or the depth if sure. */
static void test_prefetch_alone(void)
{
    static const uint32_t some_depths[] = {1, 7, 16, 64};
    enum { GUESSES = 40 };
    struct corpus c;
    struct read_result results[8];
    REQUIRE(corpus_make(&c));
    uint8_t *memory = must(aligned_alloc(LARGEST_ALIGN, GUESSES * 4096));
    for (uint32_t i = 0; i < 2 * COUNT_OF(some_depths); i++) {
        bool sure = i % 2;
        uint32_t depth = some_depths[i / 2];
        struct reader_options o = {.depth = depth};
        REQUIRE(use_faults(&o, INNER_NONE, &(struct fault_options){.delay = 3}));
        struct reader *r = open_reader(&c, &o);
        size_t n, got = 0;
        memset(memory, 0, GUESSES * 4096);
        for (uint32_t k = 0; k < GUESSES; k++) {
            struct read_op op = {.offset = 4096ull * k,
                                 .bytes = 4096,
                                 .need = 4096,
                                 .into = memory + (size_t)4096 * k,
                                 .prefetch = true,
                                 .sure = sure};
            CHECK_OK(reader_submit(r, &op, &err));
        }
        while ((n = reader_poll(r, results, 8, true))) got += n;
        CHECK(got == GUESSES && memcmp(memory, c.bytes[0], GUESSES * 4096) == 0);
        uint32_t most = sure ? min_u32(depth, GUESSES) : max_u32(depth / 8, 1);
        CHECK(driver_fault_most(o.driver_state) == most, "%u of depth %u", most, depth);
        reader_close(&r);
    }
    free(memory);
    corpus_release(&c);
}

/* Without a depth, reads in flight are bounded by their bytes too, but for the second one. */
static void test_bytes_in_flight(void)
{
    static const struct {
        uint32_t depth, bytes, most;
    } cases[] = {
        {0, 1 << 20, 8}, {0, (1 << 20) + 4096, 7}, {0, 1600 << 10, 5}, {0, 4096, 14},
        {0, 8 << 20, 2}, {14, 8 << 20, 14},        {3, 4096, 3},
    };
    enum { READS = 14 };
    struct corpus c;
    struct read_result res;
    REQUIRE(corpus_make(&c));
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        uint32_t bytes = cases[i].bytes, need = bytes < 1 << 20 ? bytes : 1 << 20;
        uint8_t *memory = must(aligned_alloc(LARGEST_ALIGN, (size_t)READS * bytes));
        struct reader_options o = {.depth = cases[i].depth};
        REQUIRE(use_faults(&o, INNER_NONE, &(struct fault_options){.delay = 2, .reorder = true}));
        struct reader *r = open_reader(&c, &o);
        for (uint32_t k = 0; k < READS; k++) {
            struct read_op op = {
                .bytes = bytes, .need = need, .into = memory + (size_t)k * bytes, .tag = k};
            CHECK_OK(reader_submit(r, &op, &err));
        }
        uint32_t n = 0;
        for (; reader_poll(r, &res, 1, true); n++)
            CHECK(!res.error && memcmp(memory + res.tag * bytes, c.bytes[0], need) == 0);
        uint32_t most = driver_fault_most(o.driver_state);
        CHECK(n == READS && most == cases[i].most, "case %u: %u reads, %u together", i, n, most);
        reader_close(&r);
        free(memory);
    }
    corpus_release(&c);
}

/* A guess that is wanted joins the demand reads; one that is not is dropped before it starts. */
static void test_promote_and_withdraw(void)
{
    enum { GUESSES = 12, AHEAD = 2, JOINED = 7, DROPPED = 9 };
    struct corpus c;
    struct read_result res;
    REQUIRE(corpus_make(&c));
    uint8_t *memory = must(aligned_alloc(LARGEST_ALIGN, 2 * GUESSES * 4096));
    struct reader_options o = {.depth = 8 * AHEAD};
    REQUIRE(use_faults(&o, INNER_NONE, &(struct fault_options){.delay = 1}));
    struct reader *r = open_reader(&c, &o);
    submit_many(r, memory, GUESSES, 0, true);
    struct reads_moved dropped = reader_withdraw(r, DROPPED);
    CHECK(dropped.n == 1 && dropped.bytes == 4096 && reader_withdraw(r, DROPPED).n == 0);
    CHECK(reader_withdraw(r, 0).n == 0, "a read in flight was dropped");
    CHECK(reader_pending(r) == GUESSES - 1);
    CHECK_OK(reader_promote(r, JOINED, &err));
    CHECK_OK(reader_promote(r, 1, &err));           /* in flight */
    CHECK_OK(reader_promote(r, GUESSES + 5, &err)); /* never submitted */
    size_t n;
    const struct fault_read *reads = driver_fault_reads(o.driver_state, &n);
    CHECK(n == AHEAD + 1 && reads[AHEAD].tag == JOINED && !reads[AHEAD].prefetch);
    /* The one in flight is demand now: until it is there, nothing else is read ahead. */
    uint32_t seen = 0;
    while (reader_poll(r, &res, 1, true)) {
        CHECK(res.tag != DROPPED && !(seen >> res.tag & 1));
        seen |= 1u << res.tag;
        reads = driver_fault_reads(o.driver_state, &n);
        if (!(seen >> 1 & seen >> JOINED & 1)) CHECK(n == AHEAD + 1, "%zu reads", n);
    }
    CHECK(seen == (1u << GUESSES) - 1 - (1u << DROPPED), "%x", seen);
    for (uint32_t i = 0; i < GUESSES; i++)
        CHECK(i == DROPPED || memcmp(memory + i * 4096, c.bytes[0] + i * 4096, 4096) == 0);
    reader_close(&r);
    free(memory);
    corpus_release(&c);
}

/* A queue that grows while reads come and go keeps their order and loses none. */
static void test_queue_grows(void)
{
    enum { FIRST = 60, TAKEN = 40, ALL = 200 };
    struct corpus c;
    struct read_result res;
    REQUIRE(corpus_make(&c));
    uint8_t *memory = must(aligned_alloc(LARGEST_ALIGN, ALL * 4096));
    struct reader_options o = {.depth = 1};
    REQUIRE(use_faults(&o, INNER_NONE, &(struct fault_options){0}));
    struct reader *r = open_reader(&c, &o);
    submit_many(r, memory, FIRST, 0, false);
    for (uint32_t i = 0; i < TAKEN; i++) CHECK(reader_poll(r, &res, 1, true) == 1 && res.tag == i);
    submit_many(r, memory, ALL - FIRST, FIRST, false);
    CHECK(reader_pending(r) == ALL - TAKEN);
    for (uint32_t i = TAKEN; i < ALL; i++)
        CHECK(reader_poll(r, &res, 1, true) == 1 && res.tag == i);
    CHECK(reader_pending(r) == 0 && memcmp(memory, c.bytes[0], ALL * 4096) == 0);
    reader_close(&r);
    free(memory);
    corpus_release(&c);
}

/* Once closed, nothing is written any more; what was queued is dropped. */
static void test_close_in_flight(void)
{
    enum { N = 90 };
    static const struct timespec moment = {.tv_nsec = 3000000};
    struct corpus c;
    REQUIRE(corpus_make(&c));
    uint8_t *memory = must(aligned_alloc(LARGEST_ALIGN, N * 4096));
    for (uint32_t i = 0; i < 40; i++) {
        struct reader_options o = {.kind = i % 2 ? READER_PREAD : READER_AUTO, .depth = 1 + i % 32};
        struct fault_options faults = {
            .seed = i, .delay = 5, .short_chance = 50, .refuse_chance = 20};
        if (i % 4 == 3) REQUIRE(use_faults(&o, INNER_PREAD, &faults));
        struct reader *r = open_reader(&c, &o);
        submit_many(r, memory, N, 0, false);
        struct read_result results[8];
        if (i % 3) CHECK(reader_poll(r, results, 8, true) > 0);
        reader_close(&r);
        memset(memory, 0x5a, N * 4096);
        nanosleep(&moment, NULL);
        uint32_t touched = 0;
        for (uint32_t b = 0; b < N * 4096; b++) touched += memory[b] != 0x5a;
        CHECK(touched == 0);
    }
    free(memory);
    corpus_release(&c);
}

/* A file cut while it is open: by every driver, at aligned and other lengths, that is the error. */
static void test_cut_file(void)
{
    static const size_t lengths[] = {0, 1, 8192, 8193, 9000, 12288, 30000, 8192 + 29999};
    for (uint32_t i = 0; i < 4 * COUNT_OF(lengths); i++) {
        struct corpus c;
        REQUIRE(corpus_make(&c));
        struct reader_options o = {.kind = i % 2 ? READER_PREAD : READER_AUTO,
                                   .buffered = i / 2 % 2};
        struct reader *r = open_reader(&c, &o);
        struct timespec written = tempdir_time(c.paths[0]);
        expect_read(r, &c);
        CHECK(truncate(c.paths[0], (off_t)lengths[i / 4]) == 0);
        expect_error(r, READER_EOF);
        CHECK(truncate(c.paths[0], 8192 + 30000) == 0);
        CHECK(tempdir_write(&c.dir, "part-0.bin", c.bytes[0], c.len[0]));
        CHECK(tempdir_set_time(c.paths[0], written));
        expect_read(r, &c);
        reader_close(&r);
        corpus_release(&c);
    }
}

/* Other bytes in a file of the same length are not given out, wherever they are. */
static void test_overwritten_file(void)
{
    for (uint32_t i = 0; i < 4; i++) {
        struct corpus c;
        REQUIRE(corpus_make(&c));
        struct reader_options o = {.kind = i % 2 ? READER_PREAD : READER_AUTO, .buffered = i / 2};
        struct reader *r = open_reader(&c, &o);
        struct timespec written = tempdir_time(c.paths[0]);
        expect_read(r, &c);
        FILE *f = must(fopen(c.paths[0], "r+b"));
        CHECK(fwrite(c.bytes[0] + 1, 1, 1, f) == 1 && fclose(f) == 0);
        written.tv_nsec = written.tv_nsec ? 0 : 1;
        CHECK(tempdir_set_time(c.paths[0], written)); /* a coarse clock could hide it */
        expect_error(r, READER_CHANGED);
        reader_close(&r);
        corpus_release(&c);
    }
}

/* Another file at the path: the reader keeps the one it opened. */
static void test_replaced_file(void)
{
    struct corpus c;
    REQUIRE(corpus_make(&c));
    struct reader_options o = {0};
    struct reader *r = open_reader(&c, &o);
    expect_read(r, &c);
    CHECK(reader_get_info(r)->nameless == -1);
    CHECK(rename(c.paths[1], c.paths[0]) == 0);
    expect_read(r, &c);
    CHECK(reader_get_info(r)->nameless == 0);
    CHECK(remove(c.paths[0]) == 0);
    expect_read(r, &c);
    CHECK(reader_file_version(r, 0)->bytes == c.len[0] &&
          reader_file_version(r, 1)->bytes == c.len[1]);
    reader_close(&r);
    corpus_release(&c);
}

static void test_open_errors(void)
{
    struct corpus c;
    REQUIRE(corpus_make(&c));
    const char *paths[3] = {c.paths[0], c.paths[1], tempdir_path(&c.dir, "gone.bin")};
    for (uint32_t i = 0; i < 2; i++) {
        struct reader_options o = {.kind = READER_PREAD};
        if (i) REQUIRE(use_faults(&o, INNER_PREAD, &(struct fault_options){0}));
        struct reader *r;
        CHECK(reader_open(&r, paths, 3, &o, &err) == SLUICE_E_NOT_FOUND && !r);
        CHECK(strstr(err.message, "gone.bin") && strstr(err.message, "No such file"), "%s",
              err.message);
    }
    struct reader_options deep = {.kind = READER_URING, .depth = 1 << 20};
    struct reader *r;
    CHECK(reader_open(&r, paths, 1, &deep, &err) == SLUICE_E_SYSTEM && !r);
    CHECK(strstr(err.message, "io_uring was asked for, but "), "%s", err.message);
    reader_close(&r);
    corpus_release(&c);
}

/* The kernel's own files refuse O_DIRECT; they are read through the cache, and that is said. */
static void test_no_direct_reads(void)
{
    const char *path = "/proc/cpuinfo";
    FILE *f = fopen(path, "r");
    if (!f) SKIP("no /proc");
    char text[64];
    CHECK(fread(text, 1, sizeof text, f) == sizeof text);
    fclose(f);
    static const enum reader_kind kinds[] = {READER_AUTO, READER_PREAD};
    for (uint32_t i = 0; i < COUNT_OF(kinds); i++) {
        struct reader_options o = {.kind = kinds[i]};
        struct reader *r;
        CHECK_OK(reader_open(&r, &path, 1, &o, &err));
        const struct reader_info *info = reader_get_info(must(r));
        CHECK(!info->direct && reader_alignment(r, 0) == 1);
        if (i || has_uring()) CHECK(strstr(info->reason, "refuses O_DIRECT"), "%s", info->reason);
        uint8_t *into;
        struct read_op op = {.bytes = 64, .need = 64};
        CHECK(read_once(r, &op, &into).error == 0 && memcmp(into, text, 64) == 0);
        reader_close(&r);
    }
}

/* In memory-backed file systems O_DIRECT works or not, by kernel; the bytes are the same. */
static void test_memory_file_system(void)
{
    struct corpus c = {0};
    snprintf(c.dir.path, sizeof c.dir.path, "/dev/shm/sluice-test-XXXXXX");
    if (!mkdtemp(c.dir.path)) SKIP("no /dev/shm");
    REQUIRE(corpus_add(&c, 300001, 5) && corpus_add(&c, 4096, 6));
    struct reader_options uring = {0}, pread = {.kind = READER_PREAD};
    run_traffic(&c, &uring, 500, 1);
    run_traffic(&c, &pread, 500, 2);
    corpus_release(&c);
}

static void test_says_what_it_uses(void)
{
    struct corpus c;
    REQUIRE(corpus_make(&c));
    struct reader_options o = {.kind = READER_PREAD};
    struct reader *r = open_reader(&c, &o);
    const struct reader_info *info = reader_get_info(r);
    CHECK(strcmp(info->engine, "pread") == 0 && info->depth == 32);
    CHECK(!info->registered_files && !info->registered_buffers);
    CHECK(info->direct == (info->reason[0] == '\0'));
    CHECK(info->direct == (reader_alignment(r, 0) > 1));
    reader_close(&r);
    o = (struct reader_options){.depth = 5, .buffered = true};
    r = open_reader(&c, &o);
    info = reader_get_info(r);
    CHECK(info->depth == 5 && !info->direct && reader_alignment(r, 3) == 1);
    if (has_uring()) {
        CHECK(strcmp(info->engine, "io_uring") == 0 && info->registered_files);
        CHECK(strcmp(info->reason, "buffered reads were asked for") == 0, "%s", info->reason);
    }
    reader_close(&r);
    corpus_release(&c);
}

/* From here on the process's io_uring_setup fails with that error. */
static bool forbid_uring(uint32_t error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {COUNT_OF(code), code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

struct refusal {
    const struct corpus *corpus;
    uint32_t error;
    const char *says;
};

static void try_refused(void *arg)
{
    const struct refusal *refusal = arg;
    const char *path = refusal->corpus->paths[0];
    if (!forbid_uring(refusal->error)) {
        printf("# this system has no filters for system calls\n");
        return;
    }
    struct reader_options o = {.kind = READER_URING};
    struct reader *r;
    CHECK(reader_open(&r, &path, 1, &o, &err) == SLUICE_E_SYSTEM && !r);
    CHECK(strstr(err.message, "io_uring was asked for, but") && strstr(err.message, refusal->says),
          "%s", err.message);
    o.kind = READER_AUTO;
    r = open_reader(refusal->corpus, &o);
    CHECK(strcmp(reader_get_info(r)->engine, "pread") == 0);
    CHECK(strcmp(reader_get_info(r)->reason, refusal->says) == 0, "%s", reader_get_info(r)->reason);
    expect_read(r, refusal->corpus);
    reader_close(&r);
}

static void test_uring_refused(void)
{
    struct corpus c;
    REQUIRE(corpus_make(&c));
    struct refusal rows[] = {
        {&c, EPERM, "io_uring is forbidden here"},
        {&c, ENOSYS, "this kernel has no io_uring"},
        {&c, ENOMEM, "io_uring needs more lockable memory than this user has"},
        {&c, EMFILE, "io_uring could not be set up"},
    };
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) check_in_child(try_refused, &rows[i]);
    corpus_release(&c);
}

/* An ordinary user who may lock 64 KiB: buffers are not registered, which is said; reads work. */
static void try_small_memlock(void *arg)
{
    enum { NOBODY = 65534 };
    const struct corpus *c = arg;
    struct rlimit limit = {64 << 10, 64 << 10};
    CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    bool user = geteuid() != 0 || (setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
    if (access(c->paths[0], R_OK) != 0) {
        printf("# another user cannot read here\n");
        return;
    }
    size_t bytes = (size_t)ROOMS * ROOM_BYTES;
    void *memory = must(aligned_alloc(LARGEST_ALIGN, bytes));
    struct reader_options o = {0};
    struct reader *r = open_reader(c, &o);
    const struct reader_info *info = reader_get_info(r);
    reader_register_buffer(r, memory, bytes);
    if (user) CHECK(!info->registered_buffers);
    expect_read(r, c);
    reader_close(&r);
    free(memory);
    run_traffic(c, &o, 500, 3);
}

static void test_small_memlock(void)
{
    struct corpus c;
    REQUIRE(corpus_make(&c));
    CHECK(chmod(c.dir.path, 0755) == 0);
    for (uint32_t f = 0; f < c.n; f++) CHECK(chmod(c.paths[f], 0644) == 0);
    check_in_child(try_small_memlock, &c);
    corpus_release(&c);
}

#define CASES(C)                                                                                   \
    C(uring_reads_windows)                                                                         \
    C(pread_reads_windows)                                                                         \
    C(faults_change_no_byte)                                                                       \
    C(lasting_faults_end)                                                                          \
    C(failure_is_of_one_read)                                                                      \
    C(demand_before_prefetch)                                                                      \
    C(bytes_in_flight)                                                                             \
    C(prefetch_alone)                                                                              \
    C(promote_and_withdraw)                                                                        \
    C(queue_grows)                                                                                 \
    C(close_in_flight)                                                                             \
    C(cut_file)                                                                                    \
    C(overwritten_file)                                                                            \
    C(replaced_file)                                                                               \
    C(open_errors)                                                                                 \
    C(no_direct_reads)                                                                             \
    C(memory_file_system)                                                                          \
    C(says_what_it_uses)                                                                           \
    C(uring_refused)                                                                               \
    C(small_memlock)

CHECK_MAIN(CASES)
