/* What a driver of the reader provides. Private to io and its tests. */
#ifndef SLUICE_IO_READER_DRIVER_H
#define SLUICE_IO_READER_DRIVER_H

#include "io/reader.h"

/*
 * A read in flight; done counts bytes that earlier tries brought, tries those since the last that
 * brought some.
 */
struct flight {
    struct read_op op;
    uint32_t done;
    uint32_t tries;
    int fd;
    uint32_t next; /* in the list of free or stalled flights */
};

struct flight_result {
    uint32_t flight;
    int64_t n; /* bytes read, or a negative errno value */
};

struct driver {
    const char *name;
    /*
     * Starts (the rest of) a flight; it may be batched until flush. False: no room now, which only
     * happens while others are in flight.
     */
    bool (*start)(void *state, uint32_t index, const struct flight *flight);
    void (*flush)(void *state);
    /* Finished flights, at most cap; wait: blocks for one. */
    size_t (*reap)(void *state, struct flight_result *out, size_t cap, bool wait);
    bool (*register_files)(void *state, const int *fds, uint32_t n);
    bool (*register_buffer)(void *state, void *base, size_t bytes);
    void (*forget_buffer)(void *state); /* what register_buffer took */
    void (*close)(void *state);
};

/* Drivers: NULL state when refused, with *why set to a literal. */
void *driver_uring_open(uint32_t depth, const char **why);
extern const struct driver driver_uring;
void *driver_pread_open(uint32_t workers, uint32_t depth, const char **why);
extern const struct driver driver_pread;

#endif
