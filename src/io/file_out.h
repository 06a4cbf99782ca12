/*
 * Writing a file that is either absent or whole, whatever happens: its bytes go to a temporary file
 * ".NAME.part" beside it, which gets the name when all of them are on the disk.
 */
#ifndef SLUICE_IO_FILE_OUT_H
#define SLUICE_IO_FILE_OUT_H

#include "base/err.h"

struct file_out {
    int fd; /* -1: not open */
    char *path, *temp;
    uint64_t written;
    uint64_t begun; /* of them, up to where the system was asked to write them to the disk */
};

/*
 * Begins the file; bytes is its size where that is known, else 0, so that its room can be taken at
 * once and in one piece. Errors: IO (also: no room), NOMEM.
 */
enum sluice_status file_out_open(struct file_out *out, const char *path, uint64_t bytes,
                                 struct sluice_error *err);
/* Errors: IO. */
enum sluice_status file_out_write(struct file_out *out, const void *data, size_t len,
                                  struct sluice_error *err);
/* Waits until all is on the disk and gives the file its name. Errors: IO; nothing is left then. */
enum sluice_status file_out_commit(struct file_out *out, struct sluice_error *err);
/* Removes the temporary file; does nothing after file_out_commit. */
void file_out_abort(struct file_out *out);

/* True for the name (without folder) of a temporary file. */
bool file_out_is_temporary(const char *name);

#endif
