/* Passes of some work that all compute threads do together, timed one by one. */
#ifndef APPS_BENCH_PASSES_H
#define APPS_BENCH_PASSES_H

#include "sluice/sluice.h"

enum { PASSES = 15, PASSES_MOST_THREADS = 1024 };

/* One pass of a thread. */
typedef void pass_fn(void *user, uint32_t thread);

/* Nanoseconds of each pass, in their order; the caller is thread 0. Errors: NOMEM, SYSTEM. */
SLUICE_NODISCARD enum sluice_status passes_time(uint32_t n_threads, pass_fn *pass, void *user,
                                                double ns[PASSES], struct sluice_error *err);

#endif
