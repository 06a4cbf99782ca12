/* Whole files: read into memory or mapped read-only. Messages name the path and the reason. */
#ifndef SLUICE_IO_FILE_H
#define SLUICE_IO_FILE_H

#include "base/err.h"
#include "base/span.h"

/* Which file it is and when it was written last: another one of these is another content. */
struct file_version {
    uint64_t device, inode, bytes;
    int64_t modified_ns;
    bool nameless; /* no path leads to it any more; it is read on all the same */
};

/* Of the open file. False: the system does not say. */
bool file_version_of(int fd, struct file_version *version);
static inline bool file_version_equal(const struct file_version *a, const struct file_version *b)
{
    return a->device == b->device && a->inode == b->inode && a->bytes == b->bytes &&
           a->modified_ns == b->modified_ns;
}

/* What is behind the last slash of path. */
const char *file_base_name(const char *path);

/* What became of a file whose version changed, in words: it was cut, or else written to. */
const char *file_change_text(bool cut);

struct file_map {
    char *path;
    const uint8_t *data; /* NULL for an empty file */
    uint64_t bytes;
    struct file_version version; /* when it was mapped */
};

/* Maps the regular file at path read-only. On error *map is empty. Errors: NOT_FOUND, IO, NOMEM. */
enum sluice_status file_map_open(struct file_map *map, const char *path, struct sluice_error *err);
/*
 * A mapped file that was cut raises SIGBUS when what is gone is read. This looks whether the
 * file was cut or written to since it was mapped; another one that took its path does no harm.
 * Errors: IO.
 */
enum sluice_status file_map_check(const struct file_map *map, struct sluice_error *err);
void file_map_release(struct file_map *map);

/*
 * These bytes of a mapped file are read next, and what lies around them is not: they may come into
 * the page cache now, all at once. Whoever touches a mapped file without having said so waits for
 * as much as the device reads ahead, which may be MiBs. Advice that the system does not take is no
 * error.
 */
void file_want(const uint8_t *data, uint64_t bytes);

/*
 * Reads a whole regular file of at most max_bytes, NUL-terminated behind *len. The caller frees.
 * Errors: NOT_FOUND, FORMAT (larger than max_bytes), IO, NOMEM; then *data is NULL.
 */
enum sluice_status file_read(const char *path, uint64_t max_bytes, char **data, size_t *len,
                             struct sluice_error *err);

/* True when something exists at path (links followed). */
bool file_exists(const char *path);

#endif
