/*
 * Comparing text with a committed file. Run with --update, the test writes the file instead, to be
 * looked at in the diff.
 */
#ifndef TESTS_GOLDEN_H
#define TESTS_GOLDEN_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The whole file with a NUL, to be freed; NULL when it cannot be read. */
static inline char *golden_read(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    char *text = NULL;
    size_t n = 0, got;
    do {
        char *grown = realloc(text, n + 65537);
        if (!grown) abort();
        text = grown;
        got = fread(text + n, 1, 65536, f);
        n += got;
    } while (got > 0);
    text[n] = '\0';
    fclose(f);
    return text;
}

static inline bool golden_write(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    if (!f) return false;
    bool ok = fputs(text, f) >= 0;
    return fclose(f) == 0 && ok;
}

/* Prints the first line in which the texts differ. */
static inline void golden_explain(const char *path, const char *want, const char *have)
{
    int line = 1;
    while (*want && *have) {
        size_t a = strcspn(want, "\n"), b = strcspn(have, "\n");
        if (a != b || memcmp(want, have, a) != 0) break;
        want += a + (want[a] == '\n');
        have += b + (have[b] == '\n');
        line++;
    }
    printf("# %s:%d: differs\n", path, line);
    printf("# file: %.*s\n", (int)strcspn(want, "\n"), want);
    printf("# now:  %.*s\n", (int)strcspn(have, "\n"), have);
}

/* Whether text is what the file holds; with update, the file is made so. */
static inline bool golden_check(const char *path, const char *text, bool update)
{
    if (update) return golden_write(path, text);
    char *want = golden_read(path);
    bool same = want && strcmp(want, text) == 0;
    if (!want)
        printf("# %s cannot be read\n", path);
    else if (!same)
        golden_explain(path, want, text);
    free(want);
    return same;
}

#endif
