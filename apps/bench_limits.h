/* Limits that rates stand beside, and what to do about one that was exceeded. */
#ifndef APPS_BENCH_LIMITS_H
#define APPS_BENCH_LIMITS_H

#include <stdbool.h>

#include "sluice/sluice.h"

enum { LIMIT_PROBES = 4 };

/* Measures a limit once more: so much a second. */
typedef enum sluice_status limit_probe_fn(void *user, double *rate, struct sluice_error *err);

/* No machine does 3 % more than it can: so the limit was measured badly. */
bool limit_suspect(double part);
/*
 * Raises *limit to the best of at most LIMIT_PROBES more measurements, as long as what was reached
 * makes it suspect. Errors: those of probe.
 */
SLUICE_NODISCARD enum sluice_status limit_settle(double reached, double *limit,
                                                 limit_probe_fn *probe, void *user,
                                                 struct sluice_error *err);

#endif
