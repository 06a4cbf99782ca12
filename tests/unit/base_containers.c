/* Arena, map, array: contents survive growth, failures leave things as they were. */
#include <stdint.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/array.h"
#include "base/bits.h"
#include "base/err.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "check.h"

static void test_arena_keeps_contents(void)
{
    struct arena arena = {0};
    struct rng rng = {1};
    char *p[200];
    for (int i = 0; i < 200; i++) {
        p[i] = arena_printf(&arena, "%d-%0*d", i, (int)rng_below(&rng, 3000) + 1, i);
        REQUIRE(p[i]);
        unsigned char *object = arena_alloc(&arena, 1 + (size_t)i % 70, 1 + (size_t)i % 3);
        REQUIRE(object);
        CHECK((uintptr_t)object % 64 == 0 && object[0] == 0);
        object[0] = 0xff;
    }
    for (int i = 0; i < 200; i++) CHECK(atoi(p[i]) == i);
    CHECK(arena_alloc(&arena, SIZE_MAX / 2, 4) == NULL);
    CHECK(arena_alloc(&arena, SIZE_MAX - 8, 1) == NULL);
    char *kept = malloc(100); /* a leak when the arena does not free it */
    REQUIRE(kept && arena_keep(&arena, kept));
    arena_release(&arena);
    CHECK(arena.blocks == NULL && arena.kept == NULL);
}

static void test_map_finds_what_was_put(void)
{
    struct map map;
    REQUIRE(map_init(&map, 0));
    enum { N = 5000 };
    static char keys[N][12];
    for (uint32_t i = 0; i < N; i++) {
        snprintf(keys[i], sizeof keys[i], "k%u", i * 7919u);
        CHECK(map_put(&map, span_str(keys[i]), i) == MAP_NEW);
    }
    CHECK(map_put(&map, span_str("k7919"), 3) == MAP_EXISTS);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t *v = map_find(&map, span_str(keys[i]));
        CHECK(v && *v == i);
    }
    CHECK(map_find(&map, span_str("absent")) == NULL);
    CHECK(map_put(&map, span_of("", 0), 77) == MAP_NEW);
    CHECK(*map_find(&map, span_of("", 0)) == 77);
    map_release(&map);
}

static void test_array_grows(void)
{
    ARRAY(uint32_t) a = {0};
    for (uint32_t i = 0; i < 1000; i++) REQUIRE(array_push(&a, i * i));
    for (uint32_t i = 0; i < 1000; i++) CHECK(a.items[i] == i * i);
    array_release(&a);
    CHECK(a.items == NULL && a.n == 0);
}

static void test_checked_arithmetic(void)
{
    size_t s;
    uint64_t u;
    CHECK(!mul_size(SIZE_MAX, 2, &s));
    CHECK(mul_size(SIZE_MAX, 1, &s) && s == SIZE_MAX);
    CHECK(!add_u64(UINT64_MAX, 1, &u));
    CHECK(align_up(65, 64) == 128 && align_up(64, 64) == 64);
    CHECK(div_up_u32(UINT32_MAX, 2) == 0x80000000u);
}

/* A long path must not push out the reason behind it. */
static void test_error_messages_keep_both_ends(void)
{
    struct sluice_error err;
    char path[8101];
    for (size_t i = 0; i < sizeof path - 1; i += 3) memcpy(path + i, "\xe2\x82\xac", 3);
    for (size_t len = 0; len < sizeof path; len += 3) {
        path[len] = '\0';
        err_set(&err, SLUICE_E_IO, "'%s': why", path);
        size_t n = strlen(err.message);
        CHECK(n < sizeof err.message && strcmp(err.message + n - 6, "': why") == 0, "%zu", len);
        CHECK(len + 7 >= sizeof err.message ? n > 490 && strstr(err.message, " ... ")
                                            : n == len + 7,
              "%zu gives %zu", len, n);
        struct span text = {(const uint8_t *)err.message, n};
        CHECK(utf8_valid(text), "%zu", len);
        path[len] = '\xe2';
    }
}

static void test_error_messages_nest(void)
{
    struct sluice_error err;
    CHECK(err_set(&err, SLUICE_E_FORMAT, "field '%s' is odd", "x") == SLUICE_E_FORMAT);
    CHECK(err_wrap(&err, SLUICE_E_IO, "file '%s'", "a.json") == SLUICE_E_IO);
    CHECK(strcmp(err.message, "file 'a.json': field 'x' is odd") == 0);
    CHECK(err.code == SLUICE_E_IO);
    for (int i = 0; i < 100; i++) err_wrap(&err, SLUICE_E_IO, "level %d", i);
    CHECK(strlen(err.message) == sizeof err.message - 1);
    CHECK(err_set(NULL, SLUICE_E_IO, "nobody listens") == SLUICE_E_IO);
}

static void test_mem_is_aligned_and_zero(void)
{
    unsigned char *p = mem_alloc(100);
    REQUIRE(p);
    CHECK((uintptr_t)p % MEM_ALIGN == 0);
    for (int i = 0; i < 100; i++) CHECK(p[i] == 0);
    mem_free(p, 100);
    const size_t large = (5 << 20) + 123;
    p = mem_alloc(large);
    REQUIRE(p);
    CHECK((uintptr_t)p % (2 << 20) == 0 && p[0] == 0 && p[large - 1] == 0);
    mem_free(p, large);
    CHECK(mem_alloc(SIZE_MAX - 3) == NULL);
    p = mem_alloc(0);
    CHECK(p);
    mem_free(p, 0);
}

static uint64_t address_space(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f || fscanf(f, "%llu", &pages) != 1) abort();
    fclose(f);
    return pages * 4096;
}

/* Where every page may be a large one, what lies behind the last would be taken with it. */
static void test_mem_takes_no_more_than_asked(void)
{
    const size_t bytes = (5 << 20) + 123;
    uint64_t before = address_space();
    void *p = mem_alloc(bytes);
    REQUIRE(p);
    uint64_t taken = address_space() - before;
    CHECK(taken >= bytes && taken <= bytes + 4096, "%" PRIu64, taken);
    mem_free(p, bytes);
    CHECK(address_space() == before);
}

static void test_reserved_ranges(void)
{
    static const size_t sizes[] = {1, 4096, (2 << 20) - 1, 2 << 20, (5 << 20) + 123};
    void *ranges[2][COUNT_OF(sizes)], *p;
    for (size_t round = 0; round < 2; round++)
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
            CHECK(mem_reserve(sizes[i], &ranges[round][i]));
            unsigned char *bytes = ranges[round][i];
            size_t huge = sizes[i] >= 2 << 20 ? 2 << 20 : 4096;
            CHECK(bytes && (uintptr_t)bytes % huge == 0 && bytes[0] == 0 &&
                  bytes[sizes[i] - 1] == 0);
            memset(bytes, (int)i + 1, sizes[i]);
        }
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        unsigned char *other = ranges[1][i];
        mem_unreserve(ranges[0][i], sizes[i]);
        CHECK(other[0] == i + 1 && other[sizes[i] - 1] == i + 1);
        mem_unreserve(ranges[1][i], sizes[i]);
    }
    CHECK(mem_reserve(0, &p) && !p);
    CHECK(!mem_reserve(SIZE_MAX - 3, &p) && !p);
    CHECK(!mem_reserve(SIZE_MAX / 2 - 3, &p) && !p);
}

#define CASES(C)                                                                                   \
    C(arena_keeps_contents)                                                                        \
    C(map_finds_what_was_put)                                                                      \
    C(array_grows)                                                                                 \
    C(checked_arithmetic)                                                                          \
    C(error_messages_keep_both_ends)                                                               \
    C(error_messages_nest)                                                                         \
    C(mem_is_aligned_and_zero) C(mem_takes_no_more_than_asked) C(reserved_ranges)
CHECK_MAIN(CASES)
