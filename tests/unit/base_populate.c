/* Memory taken ahead of its first touch: all of it comes, what is in it stays, it stops at once. */
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/populate.h"
#include "check.h"

enum { PAGE = 4096, MOST_PAGES = 16384 };

static struct mem_range reserve(size_t bytes)
{
    struct mem_range r = {.bytes = bytes};
    CHECK(mem_reserve(bytes, &r.base));
    return r;
}

static size_t pages_there(const struct mem_range *r)
{
    static unsigned char there[MOST_PAGES];
    size_t pages = r->bytes / PAGE, n = 0;
    bool asked = pages <= MOST_PAGES && mincore(r->base, r->bytes, there) == 0;
    CHECK(asked);
    if (!asked) return 0;
    for (size_t i = 0; i < pages; i++) n += there[i] & 1;
    return n;
}

/* Old kernels cannot, and emulators say that they did. */
static bool system_can(void)
{
    struct mem_range r = reserve(PAGE);
    bool can =
        mem_held(r.base, PAGE) == 0 && madvise(r.base, PAGE, 23) == 0 && pages_there(&r) == 1;
    mem_unreserve(r.base, r.bytes);
    return can;
}

static bool comes(const struct mem_range *r)
{
    uint64_t end = clock_ns() + UINT64_C(20000000000);
    while (clock_ns() < end && pages_there(r) < r->bytes / PAGE)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return pages_there(r) == r->bytes / PAGE && mem_held(r->base, r->bytes) == r->bytes;
}

static void test_all_comes(void)
{
    struct mem_range r[3] = {reserve(39 << 20), reserve(5 << 20), reserve(3 * PAGE)};
    unsigned char *bytes = r[0].base;
    for (size_t i = 0; i < r[0].bytes; i += 3 * PAGE)
        bytes[i] = (unsigned char)(1 + i / PAGE % 255);
    for (uint32_t n_threads = 1; n_threads <= 3; n_threads++) {
        struct populate *p = populate_start(r, 3, n_threads, 0);
        for (uint32_t i = 0; i < 3; i++) CHECK(!system_can() || comes(&r[i]), "range %u", i);
        while (populate_runs(p)) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        populate_stop(&p);
        CHECK(p == NULL && !populate_runs(p));
        for (size_t i = 0; i < r[0].bytes; i += 3 * PAGE)
            CHECK(bytes[i] == (unsigned char)(1 + i / PAGE % 255) && bytes[i + PAGE] == 0);
        CHECK(madvise(r[1].base, r[1].bytes, MADV_DONTNEED) == 0);
    }
    for (uint32_t i = 0; i < 3; i++) mem_unreserve(r[i].base, r[i].bytes);
}

/* What is left to others comes in the end, whatever they touch and whenever they say so. */
static void test_all_comes_around_others(void)
{
    struct mem_range r[2] = {reserve(41 << 20), reserve(20 << 20)};
    for (uint32_t k = 0; k < 8; k++) {
        struct populate *p = populate_start(r, 1 + k % 2, 1 + k % 3, 0);
        for (size_t i = 0; i < 12; i++) {
            const struct mem_range *at = &r[(i + k) % 2];
            size_t offset = k < 4 ? i << 20 : (i * 7 << 20) % at->bytes;
            populate_avoid(p, (char *)at->base + offset, 3 << 20);
            populate_avoid(p, (char *)at->base + at->bytes, 1);
            populate_avoid(p, &r, sizeof r);
        }
        for (uint32_t i = 0; i < 1 + k % 2; i++)
            CHECK(!system_can() || comes(&r[i]), "%u: range %u", k, i);
        populate_stop(&p);
        for (uint32_t i = 0; i < 2; i++) CHECK(madvise(r[i].base, r[i].bytes, MADV_DONTNEED) == 0);
    }
    populate_avoid(NULL, r[0].base, 1);
    for (uint32_t i = 0; i < 2; i++) mem_unreserve(r[i].base, r[i].bytes);
}

static bool has_at_least(const struct mem_range *r, size_t bytes)
{
    uint64_t end = clock_ns() + UINT64_C(20000000000);
    while (clock_ns() < end && mem_held(r->base, r->bytes) < bytes)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return mem_held(r->base, r->bytes) >= bytes;
}

/* So much is there ahead of use; when half is used it comes again, and all of it in the end. */
static void test_stays_ahead(void)
{
    enum { MIB = 1 << 20, ALL = 64 * MIB, AHEAD = 32 * MIB, PIECE = 2 * MIB };
    for (uint32_t n_threads = 1; n_threads <= 3 && system_can(); n_threads++) {
        struct mem_range r = reserve(ALL);
        struct populate *p = populate_start(&r, 1, n_threads, AHEAD);
        size_t most = AHEAD + (n_threads - 1) * PIECE;
        CHECK(has_at_least(&r, AHEAD));
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        CHECK(mem_held(r.base, ALL) <= most && populate_runs(p), "%u threads", n_threads);
        populate_avoid(p, (char *)r.base + 26 * MIB, 1);
        CHECK(has_at_least(&r, 26 * MIB + AHEAD), "%u threads", n_threads);
        populate_avoid(p, (char *)r.base + ALL - 1, 1);
        CHECK(comes(&r), "%u threads", n_threads);
        populate_stop(&p);
        mem_unreserve(r.base, r.bytes);
    }
}

/* Ranges may go as soon as it has stopped, and what lies behind their ends is left alone. */
static void test_stops(void)
{
    for (uint32_t i = 0; i < 20; i++) {
        struct mem_range r = reserve(64 << 20), half = {r.base, (32 << 20) - PAGE};
        struct populate *p = populate_start(&half, 1, 1 + i % 4, i % 3 << 22);
        if (i % 2) nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
        populate_stop(&p);
        struct mem_range rest = {(char *)r.base + half.bytes, r.bytes - half.bytes};
        CHECK(pages_there(&rest) < (2 << 20) / PAGE); /* a huge page at the end */
        mem_unreserve(r.base, r.bytes);
    }
}

static void test_nothing_to_do(void)
{
    struct mem_range empty = {0};
    struct populate *p = populate_start(NULL, 0, 2, 0);
    CHECK(p == NULL);
    populate_stop(&p);
    p = populate_start(&empty, 1, 0, 0);
    CHECK(p == NULL);
    p = populate_start(&empty, 1, 2, 1);
    populate_stop(&p);
    CHECK(p == NULL);
}

#define CASES(C)                                                                                   \
    C(all_comes)                                                                                   \
    C(all_comes_around_others)                                                                     \
    C(stays_ahead)                                                                                 \
    C(stops)                                                                                       \
    C(nothing_to_do)

CHECK_MAIN(CASES)
