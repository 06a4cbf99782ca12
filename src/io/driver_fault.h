/*
 * A driver for tests: reads go through another driver, and what comes back is what a bad day
 * brings. Short reads tell how many bytes came and spoil the rest of the buffer; failed ones spoil
 * all of it. What happens to a read is decided by the seed and its number among the reads started,
 * so that a run over driver_fault's own reads (inner NULL) repeats exactly.
 */
#ifndef SLUICE_IO_DRIVER_FAULT_H
#define SLUICE_IO_DRIVER_FAULT_H

#include "io/reader_driver.h"

/* Chances are in percent of reads. */
struct fault_options {
    uint64_t seed;
    uint32_t most_bytes;    /* a read brings no more; 0: no limit */
    uint32_t short_chance;  /* any number of bytes from 1 up, aligned or not */
    uint32_t eintr_chance;  /* nothing is read */
    uint32_t eagain_chance; /* nothing is read */
    uint32_t refuse_chance; /* no room, when others are in flight */
    bool refuse_all;        /* no room, ever */
    uint64_t fail_first;    /* reads of these numbers, from 1, fail; 0: none */
    uint64_t fail_last;     /* below fail_first: only that one */
    int fail_error;         /* errno value, READER_EOF: nothing is left to read; 0: EIO */
    uint32_t delay;         /* a result is held back for up to this many calls of reap */
    bool reorder;           /* results come in any order */
};

/* A read that was started. */
struct fault_read {
    uint64_t tag;
    uint64_t offset; /* of the rest that was asked for */
    uint32_t file_fd;
    bool prefetch;
};

/*
 * At most depth reads are in flight. inner reads; NULL: pread, when results are asked for. The
 * state of inner is taken, also when memory runs out and NULL is returned.
 */
void *driver_fault_open(uint32_t depth, const struct fault_options *options,
                        const struct driver *inner, void *inner_state);
extern const struct driver driver_fault;

/* Other faults from now on; reads are numbered from 1 again, and the list of them is emptied. */
void driver_fault_set(void *state, const struct fault_options *options);
/* Reads started, in order; valid until the next call that starts one. */
const struct fault_read *driver_fault_reads(const void *state, size_t *n);
/* Most reads that were in flight together. */
uint32_t driver_fault_most(const void *state);

#endif
