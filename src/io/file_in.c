#include "io/file_in.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum sluice_status failed(struct sluice_error *err, const char *path, int error)
{
    char text[128];
    return err_set(err, error == ENOENT ? SLUICE_E_NOT_FOUND : SLUICE_E_IO, "file '%s': %s", path,
                   strerror_r(error, text, sizeof text));
}

enum sluice_status file_in_open(struct file_in *in, const char *path, struct sluice_error *err)
{
    struct stat st;
    *in = (struct file_in){.fd = open(path, O_RDONLY | O_CLOEXEC), .path = path};
    if (in->fd < 0) return failed(err, path, errno);
    if (fstat(in->fd, &st) != 0) {
        enum sluice_status status = failed(err, path, errno);
        file_in_close(in);
        return status;
    }
    in->bytes = (uint64_t)st.st_size;
    in->modified_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    return SLUICE_OK;
}

void file_in_close(struct file_in *in)
{
    if (in->fd >= 0) close(in->fd);
    in->fd = -1;
}

enum sluice_status file_in_read(const struct file_in *in, uint64_t offset, void *into, size_t len,
                                struct sluice_error *err)
{
    char *to = into;
    while (len) {
        ssize_t n = pread(in->fd, to, len, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            char text[128];
            return err_set(err, SLUICE_E_IO, "reading file '%s' at offset %" PRIu64 ": %s",
                           in->path, offset,
                           n < 0 ? strerror_r(errno, text, sizeof text)
                                 : "the file is shorter than when it was opened");
        }
        to += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return SLUICE_OK;
}

void file_in_drop_cache(const struct file_in *in)
{
    (void)posix_fadvise(in->fd, 0, 0, POSIX_FADV_DONTNEED);
}
