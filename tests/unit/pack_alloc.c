/*
 * Packing when memory runs out: linked with --wrap, and with the JSON library's memory in hand, so
 * that the k-th request fails. Each failure is a clean error, and packing goes on from there.
 */
#include <errno.h>
#include <jansson.h>

#include "check.h"
#include "sluice/sluice.h"
#include "tempdir.h"

enum { FAILURES = 150 };

static bool armed;
static long calls, fail_at;

static bool fails_now(void)
{
    return armed && calls++ == fail_at;
}

#define WRAP(ret, name, params, args)                                                              \
    ret __real_##name params;                                                                      \
    ret __wrap_##name params;                                                                      \
    ret __wrap_##name params                                                                       \
    {                                                                                              \
        if (!fails_now()) return __real_##name args;                                               \
        errno = ENOMEM;                                                                            \
        return NULL;                                                                               \
    }
WRAP(void *, malloc, (size_t n), (n))
WRAP(void *, calloc, (size_t n, size_t size), (n, size))
WRAP(void *, realloc, (void *p, size_t n), (p, n))
WRAP(void *, aligned_alloc, (size_t align, size_t n), (align, n))
WRAP(char *, strdup, (const char *text), (text))

static enum sluice_status pack(const char *folder, long k, struct sluice_error *err)
{
    static const char model[] = "tests/reference/mlx2-g32";
    struct sluice_pack_options options;
    sluice_pack_options_default(&options);
    options.shard_bytes = 100000;
    err->message[0] = '\0';
    calls = 0;
    fail_at = k;
    armed = true;
    enum sluice_status status = sluice_pack(model, folder, &options, err);
    armed = false;
    return status;
}

static void test_every_request_may_fail(void)
{
    struct tempdir dir;
    struct sluice_error err;
    json_set_alloc_funcs(__wrap_malloc, free);
    REQUIRE(tempdir_make(&dir));
    REQUIRE(pack(tempdir_path(&dir, "whole"), -1, &err) == SLUICE_OK, "%s", err.message);
    long n = calls, n_failed = 0;
    for (long i = 0; i < FAILURES; i++) {
        char name[32];
        snprintf(name, sizeof name, "p%ld", i / 10);
        enum sluice_status status = pack(tempdir_path(&dir, name), n * i / FAILURES, &err);
        bool named = status == SLUICE_E_NOMEM && err.code == status && err.message[0];
        /* The JSON library takes a lack of memory inside a text for a mistake in it, or for the end
         * of a string. */
        bool parsing = status == SLUICE_E_FORMAT &&
                       (strstr(err.message, ": line ") || strstr(err.message, " is malformed;"));
        CHECK(named || parsing || status == SLUICE_OK, "request %ld of %ld: %d %s",
              n * i / FAILURES, n, status, err.message);
        n_failed += status != SLUICE_OK;
        if (i % 10 != 9) continue;
        CHECK(pack(tempdir_path(&dir, name), -1, &err) == SLUICE_OK, "%s", err.message);
        struct sluice_pack_options verify;
        sluice_pack_options_default(&verify);
        verify.verify = true;
        CHECK_OK(sluice_pack("tests/reference/mlx2-g32", tempdir_path(&dir, name), &verify, &err));
    }
    CHECK(n_failed > FAILURES / 2, "%ld of %ld", n_failed, n);
    printf("# %ld requests, %ld of %d that failed ended a call\n", n, n_failed, FAILURES);
    tempdir_remove(&dir);
}

#define CASES(C) C(every_request_may_fail)
CHECK_MAIN(CASES)
