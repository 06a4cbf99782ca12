#include "output.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "report.h"

void output_init(struct output *out, int fd)
{
    *out = (struct output){.fd = fd, .last = '\n', .is_terminal = isatty(fd)};
}

bool output_write(struct output *out, const char *data, size_t len)
{
    size_t done = 0;
    while (done < len && !out->error) {
        ssize_t n = write(out->fd, data + done, len - done);
        if (n >= 0) {
            done += (size_t)n;
        } else if (errno == EAGAIN) {
            struct pollfd wait = {.fd = out->fd, .events = POLLOUT};
            poll(&wait, 1, -1);
        } else if (errno != EINTR) {
            out->error = errno;
        }
    }
    if (done) out->last = data[done - 1];
    return !out->error;
}

bool output_buffer(struct output *out, const struct buffer *b)
{
    if (b->failed && !out->error) out->error = ENOMEM;
    return output_write(out, b->data, b->len);
}

void output_end_line(struct output *out)
{
    if (out->is_terminal && out->last != '\n') output_write(out, "\n", 1);
}

enum sluice_status output_status(const struct output *out, struct sluice_error *err)
{
    if (!out->error || out->error == EPIPE) return SLUICE_OK;
    return fail(err, SLUICE_E_IO, "standard output: %s", strerror(out->error));
}
