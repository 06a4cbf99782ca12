/* Medians and spreads of repeated measurements. */
#ifndef APPS_BENCH_STATS_H
#define APPS_BENCH_STATS_H

#include <stddef.h>

struct spread {
    double median, low, high;
};

/* Sorts values. All zero for no values. */
struct spread spread_of(double *values, size_t n);

#endif
