/*
 * Standard output, written at once. The first failure is remembered and later writes do nothing;
 * a reader that closed the pipe has what it wanted, so that failure is not reported.
 */
#ifndef APPS_OUTPUT_H
#define APPS_OUTPUT_H

#include "buffer.h"
#include "sluice/sluice.h"

struct output {
    int fd;
    int error; /* errno of the first failure, or 0 */
    char last; /* the last byte written */
    bool is_terminal;
};

void output_init(struct output *out, int fd);
/* False: nothing can be written any more. */
bool output_write(struct output *out, const char *data, size_t len);
bool output_buffer(struct output *out, const struct buffer *b);
/* On a terminal, ends the line that is begun. */
void output_end_line(struct output *out);
/* The error to report, if any. */
enum sluice_status output_status(const struct output *out, struct sluice_error *err);

#endif
