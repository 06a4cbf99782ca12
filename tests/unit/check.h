/*
 * The test runner. A file lists its cases in one macro, CASES(C) C(first) C(second) ..., defines
 * static void test_first(void) for each, and ends with CHECK_MAIN(CASES). A failed CHECK prints
 * and lets the case go on; REQUIRE ends it; SKIP counts the case as skipped. Output is TAP.
 * Arguments, if any, are names of cases to run.
 */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Whether a sanitizer that makes everything several times slower is in. */
static inline bool is_instrumented(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    return true;
#endif
#endif
    return false;
}

static int check_failures;
static const char *check_skipped;

#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            check_failures++;                                                                      \
            printf("# %s:%d: %s", __FILE__, __LINE__, #cond);                                      \
            printf(" " __VA_ARGS__);                                                               \
            printf("\n");                                                                          \
        }                                                                                          \
    } while (0)

#define REQUIRE(cond, ...)                                                                         \
    do {                                                                                           \
        bool require_ = (cond);                                                                    \
        CHECK(require_ &&#cond[0], __VA_ARGS__);                                                   \
        if (!require_) return;                                                                     \
    } while (0)

/* A call that must succeed; prints its message if not. Needs `struct sluice_error err`. */
#define CHECK_OK(expr)                                                                             \
    do {                                                                                           \
        enum sluice_status ok_ = (expr);                                                           \
        CHECK(ok_ == SLUICE_OK, "%s", err.message);                                                \
    } while (0)

#define SKIP(why)                                                                                  \
    do {                                                                                           \
        check_skipped = why;                                                                       \
        return;                                                                                    \
    } while (0)

struct check_case {
    const char *name;
    void (*run)(void);
};

static inline bool check_wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0) return true;
    return argc < 2;
}

static inline int check_run(const struct check_case *cases, int n, int argc, char **argv)
{
    int bad = 0;
    printf("1..%d\n", n);
    for (int i = 0; i < n; i++) {
        check_failures = 0;
        check_skipped = check_wanted(cases[i].name, argc, argv) ? NULL : "not asked for";
        if (!check_skipped) cases[i].run();
        printf("%s %d - %s", check_failures ? "not ok" : "ok", i + 1, cases[i].name);
        if (check_skipped && !check_failures) printf(" # SKIP %s", check_skipped);
        printf("\n");
        fflush(stdout);
        bad += check_failures != 0;
    }
    return bad ? 1 : 0;
}

#define CHECK_CASE(name) {#name, test_##name},
#define CHECK_MAIN(CASES)                                                                          \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        static const struct check_case cases[] = {CASES(CHECK_CASE)};                              \
        return check_run(cases, (int)(sizeof cases / sizeof cases[0]), argc, argv);                \
    }

#endif
