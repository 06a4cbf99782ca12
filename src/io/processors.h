/*
 * Which processors this process should compute on: of those its affinity mask and the quota of its
 * cgroup leave it, one thread per core, and where cores differ in speed, the fast ones.
 */
#ifndef SLUICE_IO_PROCESSORS_H
#define SLUICE_IO_PROCESSORS_H

#include <sched.h>

#include "base/err.h"

enum { MOST_PROCESSORS = CPU_SETSIZE };

/* One core: its logical processors that may be used, and where it is. */
struct core {
    cpu_set_t threads;
    uint32_t speed; /* in any unit, 0: unknown */
    uint16_t node;
    bool slow; /* much slower than the fastest, or of the small kind */
};

struct processors {
    struct core *cores; /* fast ones first, and of those one from each node in turn */
    uint32_t n_cores, n_fast, n_logical;
    uint32_t n_nodes;   /* that fast cores are on */
    uint64_t nodes;     /* a bit each, of the first 64 */
    uint32_t quota;     /* whole processors' worth of time the cgroup grants; 0: no limit */
    uint32_t n_threads; /* that make sense: n_fast, or quota if that is less */
};

/*
 * root stands before /proc and /sys: "" in earnest, a folder in tests; allowed: the affinity mask.
 * Processors without topology count as a core each. Errors: NOMEM.
 */
SLUICE_NODISCARD enum sluice_status processors_read(struct processors *out, const char *root,
                                                    const cpu_set_t *allowed,
                                                    struct sluice_error *err);
/* Of this thread, on this machine. */
SLUICE_NODISCARD enum sluice_status processors_here(struct processors *out,
                                                    struct sluice_error *err);
void processors_release(struct processors *p);

/*
 * Where each of n_threads threads should run, in out; false: the system knows better. A place is
 * worth naming when cores are of several kinds (shared by two logical processors, of several nodes,
 * fast and slow) and the threads take all the fast ones: fewer would meet those of another process
 * that chose the same.
 */
bool processors_place(const struct processors *p, uint32_t n_threads, cpu_set_t *out);

#endif
