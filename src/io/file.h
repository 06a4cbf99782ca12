/* Whole files: read into memory or mapped read-only. Messages name the path and the reason. */
#ifndef SLUICE_IO_FILE_H
#define SLUICE_IO_FILE_H

#include "base/err.h"
#include "base/span.h"

struct file_map {
    char *path;
    const uint8_t *data; /* NULL for an empty file */
    uint64_t bytes;
};

/* Maps the regular file at path read-only. On error *map is empty. Errors: NOT_FOUND, IO, NOMEM. */
enum sluice_status file_map_open(struct file_map *map, const char *path, struct sluice_error *err);
void file_map_release(struct file_map *map);

/*
 * Reads a whole regular file of at most max_bytes, NUL-terminated behind *len. The caller frees.
 * Errors: NOT_FOUND, FORMAT (larger than max_bytes), IO, NOMEM; then *data is NULL.
 */
enum sluice_status file_read(const char *path, uint64_t max_bytes, char **data, size_t *len,
                             struct sluice_error *err);

/* True when something exists at path (links followed). */
bool file_exists(const char *path);

#endif
