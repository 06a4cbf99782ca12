#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "interrupt.h"
#include "report.h"

enum { STEP = 1 << 16 };

const char *input_name(const char *path)
{
    return strcmp(path, "-") == 0 ? "standard input" : path;
}

static enum sluice_status read_all(int fd, const char *name, struct buffer *out,
                                   struct sluice_error *err)
{
    for (;;) {
        if (interrupt_signal()) return fail(err, SLUICE_E_CANCELLED, "%s: interrupted", name);
        if (!buffer_reserve(out, STEP)) return fail_nomem(err, name);
        ssize_t n = read(fd, out->data + out->len, STEP);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail(err, SLUICE_E_IO, "%s: %s", name, strerror(errno));
        out->len += (size_t)n;
        out->data[out->len] = '\0';
        if (n == 0) return SLUICE_OK;
    }
}

enum sluice_status input_read(const char *path, struct buffer *out, struct sluice_error *err)
{
    const char *name = input_name(path);
    if (strcmp(path, "-") == 0) return read_all(STDIN_FILENO, name, out, err);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        enum sluice_status code = errno == ENOENT ? SLUICE_E_NOT_FOUND : SLUICE_E_IO;
        return fail(err, code, "%s: %s", name, strerror(errno));
    }
    enum sluice_status status = read_all(fd, name, out, err);
    close(fd);
    return status;
}
