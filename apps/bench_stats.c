#include "bench_stats.h"

#include <stdlib.h>

static int compare(const void *a, const void *b)
{
    const double *x = a;
    const double *y = b;
    return (*x > *y) - (*x < *y);
}

struct spread spread_of(double *values, size_t n)
{
    if (n == 0) return (struct spread){0};
    qsort(values, n, sizeof *values, compare);
    double middle = (values[(n - 1) / 2] + values[n / 2]) / 2;
    return (struct spread){.median = middle, .low = values[0], .high = values[n - 1]};
}
