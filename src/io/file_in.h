/* Reading a file at offsets, in pieces of the caller's choice, without mapping it. */
#ifndef SLUICE_IO_FILE_IN_H
#define SLUICE_IO_FILE_IN_H

#include "base/err.h"

struct file_in {
    int fd;           /* -1: not open */
    const char *path; /* the caller's, for messages */
    uint64_t bytes;
    int64_t modified_ns;
};

/* Errors: NOT_FOUND, IO; in is then not open. path must outlive it. */
enum sluice_status file_in_open(struct file_in *in, const char *path, struct sluice_error *err);
void file_in_close(struct file_in *in);

/* All of [offset, offset + len). Errors: IO, also when the file has become shorter. */
enum sluice_status file_in_read(const struct file_in *in, uint64_t offset, void *into, size_t len,
                                struct sluice_error *err);
/* Lets the system forget what it keeps of the file in memory, so that reads come from the disk. */
void file_in_drop_cache(const struct file_in *in);

#endif
