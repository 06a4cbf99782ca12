/*
 * Dense weights in memory of our own: every token reads them, so they must not depend on what the
 * page cache keeps. Matrices are read once, in large pieces, and then point into the slab.
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
    void (*progress)(void *user, uint64_t done, uint64_t total); /* in bytes; NULL: not wanted */
    void *user;
};

/* Bytes the slab for these matrices takes. */
size_t resident_bytes(struct wmat *const *matrices, uint32_t n, uint32_t align);

/*
 * Reads the matrices, whose pointers lie in mapped files, and lets them point into the slab; after
 * an error they point nowhere. *failed, unless NULL, becomes a mapped byte of the array that could
 * not be read, or NULL. Errors: NOMEM, IO (file and offset are named), INTERNAL.
 */
enum sluice_status resident_load(struct resident *resident, const struct file_map *files,
                                 uint32_t n_files, struct wmat *const *matrices, uint32_t n,
                                 const struct resident_options *options, const uint8_t **failed,
                                 struct sluice_error *err);
void resident_release(struct resident *resident);

#endif
