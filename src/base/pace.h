/*
 * How many threads of a pool take part in a run. Threads that meet at barriers are as fast as the
 * one that the system lets wait, so beside a busy neighbour, or with more threads than processors,
 * fewer may be faster. When thread 0 waits for much of its time, fewer are tried; while fewer run,
 * more are tried now and then; whichever did more work in a window stays. A machine that is left
 * alone sees no trials. Pure logic: no clock, no threads.
 */
#ifndef SLUICE_BASE_PACE_H
#define SLUICE_BASE_PACE_H

#include <stdbool.h>
#include <stdint.h>

/* Runs that are looked at together. */
struct pace_window {
    uint64_t ns, waited_ns, work;
    uint32_t runs;
};

struct pace {
    uint32_t most;   /* threads that have a core each */
    uint32_t n;      /* that take part in the next run */
    uint32_t before; /* of a trial: what it is compared with */
    bool in_trial, up_next;
    uint64_t rest_ns, trial_at;
    struct pace_window window, steady;
};

/* Begins with all threads, but with more than there are cores for a few runs only. */
void pace_init(struct pace *pace, uint32_t n_threads, uint32_t n_cores);

/*
 * A run of n threads ended at now_ns. It took ns, of which thread 0 waited for others waited_ns;
 * work is in any unit, and runs are compared only with runs of about as much of it.
 */
void pace_note(struct pace *pace, uint64_t now_ns, uint64_t ns, uint64_t waited_ns, uint64_t work);

#endif
