/* How fast this machine reads memory with all compute threads: the limit of resident decoding. */
#ifndef APPS_BENCH_DRAM_H
#define APPS_BENCH_DRAM_H

#include "sluice/sluice.h"

struct dram_probe {
    unsigned char *data;
    size_t bytes;
    uint32_t n_threads;
    bool cached; /* so few bytes that a cache may hold them */
};

/*
 * Takes memory of several times the last cache, or only so many bytes if these are fewer: what is
 * less than a cache is read from there. Errors: NOMEM.
 */
SLUICE_NODISCARD enum sluice_status dram_open(struct dram_probe *probe, uint32_t n_threads,
                                              uint64_t bytes, struct sluice_error *err);
void dram_close(struct dram_probe *probe);
/*
 * Bytes a second, the best of several passes in which every thread reads its part as several
 * streams, asking ahead or not. Takes about 0.4 s. Errors: SYSTEM (no threads).
 */
SLUICE_NODISCARD enum sluice_status dram_measure(const struct dram_probe *probe, double *rate,
                                                 struct sluice_error *err);
/*
 * The same of copying one half to the other: bytes read and bytes written. A cache takes what is
 * written beside what it gives, so that this may be more.
 */
SLUICE_NODISCARD enum sluice_status dram_measure_copy(const struct dram_probe *probe, double *rate,
                                                      struct sluice_error *err);

#endif
