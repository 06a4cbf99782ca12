#include "nearest.h"

#include <string.h>

enum { MAX_LEN = 64 };

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
    size_t d[MAX_LEN + 1][MAX_LEN + 1];
    for (size_t i = 0; i <= n_a; i++) d[i][0] = i;
    for (size_t j = 0; j <= n_b; j++) d[0][j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        for (size_t j = 1; j <= n_b; j++) {
            size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            best = least(best, least(d[i - 1][j], d[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = least(best, d[i - 2][j - 2] + 1);
            d[i][j] = best;
        }
    }
    return d[n_a][n_b];
}

const char *nearest(const char *word, size_t len, const char *const *candidates, size_t n)
{
    const char *best = NULL;
    size_t best_distance = len / 3 > 2 ? len / 3 + 1 : 3;
    if (len > MAX_LEN) return NULL;
    for (size_t i = 0; i < n; i++) {
        size_t n_c = strlen(candidates[i]);
        if (n_c > MAX_LEN) continue;
        size_t d = distance(word, len, candidates[i], n_c);
        if (d >= best_distance || d >= n_c) continue;
        best = candidates[i];
        best_distance = d;
    }
    return best;
}
