/* How fast this machine reads memory with all compute threads: the limit of resident decoding. */
#ifndef APPS_BENCH_DRAM_H
#define APPS_BENCH_DRAM_H

#include "sluice/sluice.h"

struct dram_probe {
    unsigned char *data;
    size_t bytes;
    uint32_t n_threads;
};

/* Takes memory of several times the last cache. Errors: NOMEM. */
SLUICE_NODISCARD enum sluice_status dram_open(struct dram_probe *probe, uint32_t n_threads,
                                              struct sluice_error *err);
void dram_close(struct dram_probe *probe);
/*
 * Bytes a second, the median of several passes in which every thread reads its part as several
 * streams. Takes about 0.2 s. Errors: SYSTEM (no threads).
 */
SLUICE_NODISCARD enum sluice_status dram_measure(const struct dram_probe *probe, double *rate,
                                                 struct sluice_error *err);

#endif
