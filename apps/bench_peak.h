/* How many integer products this machine computes with all compute threads: the limit of prompts.
 */
#ifndef APPS_BENCH_PEAK_H
#define APPS_BENCH_PEAK_H

#include "sluice/sluice.h"

/*
 * Products a second of unsigned codes and signed bytes, added up exactly, in registers: the best of
 * several passes of the best instructions there are. *how says which, a string that is always
 * valid. Takes about 0.1 s. Errors: NOMEM, SYSTEM (no threads).
 */
SLUICE_NODISCARD enum sluice_status peak_measure(uint32_t n_threads, double *rate, const char **how,
                                                 struct sluice_error *err);

#endif
