/* Dense weights read into memory: right bytes from odd places, progress, faults. */
#include <errno.h>

#include "base/bits.h"
#include "fault_run.h"
#include "store/resident.h"

static struct sluice_error err;

enum { MATRICES = 10 };

/* Matrices of all kinds: one of several pieces, some of a few bytes, the last at the files' ends.
 */
struct dense {
    struct corpus corpus;
    struct file_map maps[2];
    struct wmat mats[MATRICES];
    struct wmat *list[MATRICES];
    uint64_t bytes;
};

struct part {
    const uint8_t **pointer;
    uint64_t bytes;
};

static uint32_t parts_of(struct wmat *w, struct part out[3])
{
    struct wmat_bytes bytes = wmat_array_bytes(w);
    uint32_t n = 0;
    out[n++] = (struct part){&w->data, bytes.data};
    if (bytes.scales) out[n++] = (struct part){&w->scales, bytes.scales};
    if (bytes.biases) out[n++] = (struct part){&w->biases, bytes.biases};
    return n;
}

static bool dense_make(struct dense *d, uint64_t seed)
{
    static const struct wmat shapes[MATRICES] = {
        {.type = WTYPE_BF16, .rows = 1100, .cols = 4096},
        {.type = WTYPE_Q4, .rows = 33, .cols = 128, .group = 64},
        {.type = WTYPE_F32, .rows = 1, .cols = 1},
        {.type = WTYPE_Q3, .rows = 5, .cols = 32, .group = 32},
        {.type = WTYPE_Q8, .rows = 1024, .cols = 4096, .group = 32},
        {.type = WTYPE_F16, .rows = 3, .cols = 7},
        {.type = WTYPE_Q6, .rows = 17, .cols = 64, .group = 64},
        {.type = WTYPE_Q6_K, .rows = 11, .cols = 512},
        {.type = WTYPE_MXFP4_SPLIT, .rows = 9, .cols = 96},
        {.type = WTYPE_F8_E4M3, .rows = 200, .cols = 300, .f32_scales = true},
    };
    struct rng rng = {seed};
    size_t cursor[2] = {rng_below(&rng, 6000), 1};
    size_t at[MATRICES][3];
    *d = (struct dense){0};
    for (uint32_t i = 0; i < MATRICES; i++) {
        struct part parts[3];
        d->mats[i] = shapes[i];
        d->list[i] = &d->mats[i];
        uint32_t n = parts_of(&d->mats[i], parts);
        for (uint32_t p = 0; p < n; p++) {
            cursor[i % 2] += rng_below(&rng, 3) ? rng_below(&rng, 700) : 0;
            at[i][p] = cursor[i % 2];
            cursor[i % 2] += parts[p].bytes;
            d->bytes += parts[p].bytes;
        }
    }
    bool ok = tempdir_make(&d->corpus.dir);
    for (uint32_t f = 0; f < 2 && ok; f++)
        ok = corpus_add(&d->corpus, cursor[f], seed + f) &&
             file_map_open(&d->maps[f], d->corpus.paths[f], &err) == SLUICE_OK;
    for (uint32_t i = 0; i < MATRICES && ok; i++) {
        struct part parts[3];
        uint32_t n = parts_of(&d->mats[i], parts);
        for (uint32_t p = 0; p < n; p++) *parts[p].pointer = d->maps[i % 2].data + at[i][p];
    }
    return ok;
}

static void dense_release(struct dense *d)
{
    for (uint32_t f = 0; f < 2; f++) file_map_release(&d->maps[f]);
    corpus_release(&d->corpus);
}

/* A matrix of d as loaded, and as it was mapped. */
static void expect_matrix(struct dense *d, const struct wmat mapped[MATRICES],
                          const struct resident *resident, uint32_t i)
{
    const uint8_t *slab = resident->slab;
    struct wmat was = mapped[i];
    struct part parts[3], from[3];
    uint32_t n = parts_of(&d->mats[i], parts);
    parts_of(&was, from);
    for (uint32_t p = 0; p < n; p++) {
        const uint8_t *data = *parts[p].pointer;
        CHECK(data >= slab && data + parts[p].bytes <= slab + resident->slab_bytes);
        size_t offset = (size_t)(*from[p].pointer - d->maps[i % 2].data);
        CHECK(memcmp(data, d->corpus.bytes[i % 2] + offset, parts[p].bytes) == 0,
              "matrix %u, array %u", i, p);
    }
}

/* Follows a load to its end; *last is what was told last. */
static enum sluice_status load(struct dense *d, struct resident *resident, uint32_t n,
                               const struct resident_options *o, const uint8_t **failed,
                               struct resident_progress *last)
{
    struct resident_load *load;
    struct resident_progress p;
    struct wmat mapped[MATRICES];
    memcpy(mapped, d->mats, sizeof mapped);
    *last = (struct resident_progress){0};
    TRY(resident_begin(resident, &load, d->maps, 2, d->list, n, o, &err));
    while (resident_next(load, &p)) {
        CHECK(p.done > last->done && p.done <= p.total && p.has_memory >= last->has_memory);
        CHECK(p.n_read >= last->n_read && p.n_read <= n && (p.n_read == n) == (p.done == p.total));
        for (; last->n_read < p.n_read; last->n_read++)
            expect_matrix(d, mapped, resident, last->n_read);
        *last = p;
    }
    CHECK(!resident_next(load, &p));
    enum sluice_status status = resident_end(resident, &load, failed, &err);
    CHECK(load == NULL);
    return status;
}

static void load_and_compare(struct dense *d, const struct reader_options *o)
{
    struct resident resident;
    struct resident_progress p;
    struct wmat mapped[MATRICES];
    memcpy(mapped, d->mats, sizeof mapped);
    struct resident_options options = {.reader = *o, .n_populaters = o->depth % 3};
    const uint8_t *failed = d->maps[0].data;
    CHECK_OK(load(d, &resident, MATRICES, &options, &failed, &p));
    CHECK(failed == NULL);
    CHECK(p.done == d->bytes && p.total == d->bytes);
    CHECK(resident_held(&resident) >= d->bytes);
    CHECK(resident.slab_bytes >= d->bytes &&
          resident.slab_bytes <= resident_bytes(d->list, MATRICES, 4096));
    CHECK(p.n_read == MATRICES);
    for (uint32_t i = 0; i < MATRICES; i++) expect_matrix(d, mapped, &resident, i);
    memcpy(d->mats, mapped, sizeof mapped);
    resident_release(&resident);
    CHECK(resident.slab == NULL && resident.slab_bytes == 0);
}

static void test_right_bytes(void)
{
    struct dense d;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        REQUIRE(dense_make(&d, seed));
        for (uint32_t i = 0; i < 8; i++) {
            struct reader_options o = {.kind = i % 2 ? READER_PREAD : READER_AUTO,
                                       .depth = i % 3 ? 1 + i : 0,
                                       .buffered = i / 4};
            load_and_compare(&d, &o);
        }
        dense_release(&d);
    }
}

static void test_faults_change_no_byte(void)
{
    struct dense d;
    REQUIRE(dense_make(&d, 9));
    for (uint32_t i = 0; i < 6; i++) {
        struct fault_options faults = {.seed = i,
                                       .short_chance = 30,
                                       .eintr_chance = 20,
                                       .eagain_chance = 10,
                                       .refuse_chance = 20,
                                       .delay = 3,
                                       .reorder = true};
        struct reader_options o = {.depth = 1 + 5 * i, .buffered = i % 2};
        REQUIRE(use_faults(&o, i % 2 ? INNER_PREAD : INNER_NONE, &faults));
        load_and_compare(&d, &o);
    }
    dense_release(&d);
}

static void expect_refused(struct dense *d, const struct reader_options *o,
                           enum sluice_status status, const char *says, const char *also)
{
    struct resident resident = {.slab_bytes = 7};
    struct wmat mapped[MATRICES];
    memcpy(mapped, d->mats, sizeof mapped);
    err.message[0] = '\0';
    struct resident_options options = {.reader = *o, .n_populaters = 1};
    struct resident_progress p;
    CHECK(load(d, &resident, MATRICES, &options, NULL, &p) == status);
    CHECK(strstr(err.message, says) && strstr(err.message, also), "%s", err.message);
    CHECK(resident.slab == NULL && resident.slab_bytes == 0);
    memcpy(d->mats, mapped, sizeof mapped);
}

static void test_failed_reads(void)
{
    struct dense d;
    REQUIRE(dense_make(&d, 5));
    for (uint32_t k = 1; k <= 16; k++) {
        struct reader_options o = {.depth = 1 + k % 5};
        struct fault_options faults = {.seed = k, .fail_first = k, .delay = 2, .reorder = true};
        REQUIRE(use_faults(&o, INNER_NONE, &faults));
        expect_refused(&d, &o, SLUICE_E_IO, "reading file '", ": Input/output error");
        CHECK(strstr(err.message, d.corpus.paths[0]) || strstr(err.message, d.corpus.paths[1]),
              "%s", err.message);
        CHECK(strstr(err.message, "' at offset "), "%s", err.message);
    }
    struct reader_options plain = {0};
    load_and_compare(&d, &plain);
    dense_release(&d);
}

static void test_refused(void)
{
    static const uint8_t elsewhere[8];
    struct reader_options o = {0};
    struct dense d;
    REQUIRE(dense_make(&d, 6));
    const uint8_t *was = d.mats[3].scales;
    d.mats[3].scales = elsewhere;
    expect_refused(&d, &o, SLUICE_E_INTERNAL, "a dense weight lies in no file", "");
    d.mats[3].scales = was;
    CHECK(truncate(d.corpus.paths[1], (off_t)d.corpus.len[1] - 1) == 0);
    expect_refused(&d, &o, SLUICE_E_IO, d.corpus.paths[1],
                   "was written to or replaced while it was opened");
    CHECK(remove(d.corpus.paths[0]) == 0);
    expect_refused(&d, &o, SLUICE_E_NOT_FOUND, d.corpus.paths[0], "No such file");
    dense_release(&d);
}

static void test_nothing_to_load(void)
{
    struct dense d;
    struct resident resident;
    REQUIRE(dense_make(&d, 7));
    struct resident_options options = {.n_populaters = 2};
    struct resident_progress p;
    CHECK_OK(load(&d, &resident, 0, &options, NULL, &p));
    CHECK(p.done == 0);
    CHECK(resident.slab == NULL && resident.slab_bytes == 0);
    resident_release(&resident);
    dense_release(&d);
}

/* Given up at any moment: nothing writes into the slab any more. */
static void test_abandoned(void)
{
    struct dense d;
    REQUIRE(dense_make(&d, 8));
    for (uint32_t i = 0; i < 30; i++) {
        struct wmat mapped[MATRICES];
        struct resident resident;
        struct resident_load *load;
        struct resident_progress p;
        memcpy(mapped, d.mats, sizeof mapped);
        struct resident_options options = {.reader = {.kind = i % 2 ? READER_PREAD : READER_AUTO},
                                           .n_populaters = i % 3};
        CHECK_OK(resident_begin(&resident, &load, d.maps, 2, d.list, MATRICES, &options, &err));
        for (uint32_t k = 0; k < i / 4; k++) (void)resident_next(load, &p);
        resident_abandon(&load);
        CHECK(load == NULL && resident.slab);
        memset(resident.slab, 1, resident.slab_bytes);
        resident_release(&resident);
        memcpy(d.mats, mapped, sizeof mapped);
    }
    dense_release(&d);
}

/* Within an array too, which may take the drive seconds. */
static void test_abandoned_within_an_array(void)
{
    static const char name[] = "hole.bin";
    struct wmat m = {.type = WTYPE_BF16, .rows = 1 << 17, .cols = 4096}, *list[] = {&m};
    struct tempdir dir;
    struct file_map map;
    struct resident resident;
    struct resident_load *load;
    struct resident_progress p;
    REQUIRE(tempdir_make(&dir) && tempdir_write(&dir, name, "", 0));
    const char *path = tempdir_path(&dir, name);
    REQUIRE(truncate(path, (off_t)wmat_bytes(&m)) == 0);
    REQUIRE(file_map_open(&map, path, &err) == SLUICE_OK, "%s", err.message);
    m.data = map.data;
    struct resident_options options = {0};
    struct fault_options faults = {.most_bytes = 64 << 10};
    REQUIRE(use_faults(&options.reader, INNER_NONE, &faults));
    CHECK_OK(resident_begin(&resident, &load, &map, 1, list, 1, &options, &err));
    CHECK(resident_next(load, &p));
    resident_abandon(&load);
    CHECK(resident_held(&resident) < resident.slab_bytes / 2);
    resident_release(&resident);
    file_map_release(&map);
    tempdir_remove(&dir);
}

#define CASES(C)                                                                                   \
    C(right_bytes)                                                                                 \
    C(faults_change_no_byte)                                                                       \
    C(failed_reads)                                                                                \
    C(refused)                                                                                     \
    C(abandoned)                                                                                   \
    C(abandoned_within_an_array)                                                                   \
    C(nothing_to_load)

CHECK_MAIN(CASES)
