#include "result_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "report.h"

static enum sluice_status io_error(const struct result_file *file, struct sluice_error *err)
{
    return fail(err, SLUICE_E_IO, "%s: %s", file->target.data, strerror(errno));
}

/* Follows links, so that the file behind one is replaced and not the link. */
static void find_target(struct result_file *file, const char *path)
{
    char *real = realpath(path, NULL);
    const char *target = real ? real : path;
    buffer_text(&file->target, target);
    struct stat info;
    if (stat(target, &info) != 0 || S_ISREG(info.st_mode))
        buffer_printf(&file->temp, "%s.%ld.tmp", target, (long)getpid());
    free(real);
}

static enum sluice_status create(struct result_file *file, struct sluice_error *err)
{
    bool in_place = file->temp.len == 0;
    const char *name = in_place ? file->target.data : file->temp.data;
    int flags = in_place ? O_WRONLY | O_CLOEXEC : O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
    file->fd = open(name, flags, 0666);
    if (file->fd >= 0) return SLUICE_OK;
    enum sluice_status status = io_error(file, err);
    buffer_release(&file->temp); /* it is another's */
    return status;
}

enum sluice_status result_file_open(struct result_file *file, const char *path,
                                    struct sluice_error *err)
{
    *file = (struct result_file){.fd = -1};
    find_target(file, path);
    enum sluice_status status =
        file->target.failed || file->temp.failed ? fail_nomem(err, path) : create(file, err);
    if (status != SLUICE_OK) result_file_abort(file);
    return status;
}

enum sluice_status result_file_write_at(struct result_file *file, const void *data, size_t len,
                                        uint64_t offset, struct sluice_error *err)
{
    const char *p = data;
    while (len) {
        ssize_t n = pwrite(file->fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return io_error(file, err);
        p += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return SLUICE_OK;
}

enum sluice_status result_file_append(void *user, const void *data, size_t len,
                                      struct sluice_error *err)
{
    struct result_file *file = user;
    TRY(result_file_write_at(file, data, len, file->written, err));
    file->written += len;
    return SLUICE_OK;
}

enum sluice_status result_file_close(struct result_file *file, struct sluice_error *err)
{
    enum sluice_status status = SLUICE_OK;
    /* Some file systems report a full disk only here. */
    int fd = file->fd;
    file->fd = -1;
    if (close(fd) != 0) status = io_error(file, err);
    if (status == SLUICE_OK && file->temp.len) {
        if (rename(file->temp.data, file->target.data) != 0)
            status = io_error(file, err);
        else
            buffer_release(&file->temp);
    }
    result_file_abort(file);
    return status;
}

void result_file_abort(struct result_file *file)
{
    if (!file->target.data) return;
    if (file->fd >= 0) close(file->fd);
    if (file->temp.len) unlink(file->temp.data);
    buffer_release(&file->temp);
    buffer_release(&file->target);
    file->fd = -1;
}
