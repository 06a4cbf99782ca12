/*
 * A file with results. It gets its name when it is complete; until then it has a temporary one
 * beside it. What exists under the name but is no regular file (a device) is written in place.
 */
#ifndef APPS_RESULT_FILE_H
#define APPS_RESULT_FILE_H

#include "buffer.h"
#include "sluice/sluice.h"

struct result_file {
    int fd;
    struct buffer target; /* the name that the complete file gets */
    struct buffer temp;   /* the name until then; empty: target is written in place */
    uint64_t written;     /* bytes that result_file_append wrote */
};

/* Errors: IO, NOMEM; nothing is left then. */
SLUICE_NODISCARD enum sluice_status result_file_open(struct result_file *file, const char *path,
                                                     struct sluice_error *err);
SLUICE_NODISCARD enum sluice_status result_file_write_at(struct result_file *file, const void *data,
                                                         size_t len, uint64_t offset,
                                                         struct sluice_error *err);
/* Writes behind what was appended so far; a sluice_write_fn for a struct result_file. */
SLUICE_NODISCARD enum sluice_status result_file_append(void *file, const void *data, size_t len,
                                                       struct sluice_error *err);
/* Gives the file its name. */
SLUICE_NODISCARD enum sluice_status result_file_close(struct result_file *file,
                                                      struct sluice_error *err);
/* Removes what was written; does nothing after close, or on a zeroed struct. */
void result_file_abort(struct result_file *file);

#endif
