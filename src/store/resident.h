/*
 * Dense weights in memory of our own: every token reads them, so they must not depend on what the
 * page cache keeps. Matrices are read once, in large pieces, by a thread of its own, while the
 * caller does what needs no weights.
 */
#ifndef SLUICE_STORE_RESIDENT_H
#define SLUICE_STORE_RESIDENT_H

#include "io/file.h"
#include "io/reader.h"
#include "kernel/wtype.h"

struct resident {
    void *slab;
    size_t slab_bytes;
};

struct resident_options {
    struct reader_options reader;
    uint32_t n_populaters; /* threads that take the slab's memory ahead of reads; 0: none */
};

/* Bytes the slab for these matrices takes. */
size_t resident_bytes(struct wmat *const *matrices, uint32_t n, uint32_t align);

struct resident_load;

/*
 * Begins to read the matrices, whose pointers lie in mapped files, and lets them point into the
 * slab; their bytes are there once resident_end() says so. files stay open until then. Errors:
 * NOMEM, SYSTEM, IO, INTERNAL (a matrix lies in no file): the matrices may point nowhere then.
 */
enum sluice_status resident_begin(struct resident *resident, struct resident_load **load,
                                  const struct file_map *files, uint32_t n_files,
                                  struct wmat *const *matrices, uint32_t n,
                                  const struct resident_options *options, struct sluice_error *err);
struct resident_progress {
    uint64_t done, total; /* bytes of matrices */
    uint32_t n_read;      /* matrices, the first ones of the list, that are there */
    bool has_memory;      /* nothing takes the slab's memory ahead of reads any more */
};
/* Waits until more has been read than last time. False: nothing more will be. */
bool resident_next(struct resident_load *load, struct resident_progress *progress);
/*
 * Waits until all has been read. After an error the slab is gone and the matrices point nowhere.
 * *failed, unless NULL, becomes a mapped byte of the array that could not be read, or NULL. Errors:
 * NOMEM, IO (file and offset are named).
 */
enum sluice_status resident_end(struct resident *resident, struct resident_load **load,
                                const uint8_t **failed, struct sluice_error *err);
/* Ends it after the reads under way. The slab stays. */
void resident_abandon(struct resident_load **load);

/* Bytes of the slab that are memory by now. */
uint64_t resident_held(const struct resident *resident);
void resident_release(struct resident *resident);

#endif
