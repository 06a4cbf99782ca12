#include "io/file_out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char suffix[] = ".part";
/* So much may wait in memory before the disk is set to work. */
static const uint64_t writeback_bytes = 32u << 20;

static enum sluice_status failed(const struct file_out *out, int error, struct sluice_error *err)
{
    char text[128];
    return err_set(err, SLUICE_E_IO, "writing file '%s': %s", out->path,
                   strerror_r(error, text, sizeof text));
}

/* Bytes of path up to the name, its slash included. */
static size_t folder_len(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

static char *temporary_path(const char *path)
{
    size_t folder = folder_len(path), cap = strlen(path) + sizeof suffix + 1;
    char *temp = malloc(cap);
    if (temp) snprintf(temp, cap, "%.*s.%s%s", (int)folder, path, path + folder, suffix);
    return temp;
}

enum sluice_status file_out_open(struct file_out *out, const char *path, uint64_t bytes,
                                 struct sluice_error *err)
{
    *out = (struct file_out){.fd = -1, .path = strdup(path), .temp = temporary_path(path)};
    if (!out->path || !out->temp) {
        file_out_abort(out);
        return err_nomem(err, path, strlen(path));
    }
    enum sluice_status status = SLUICE_OK;
    out->fd = open(out->temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool refused = out->fd < 0;
    if (!refused && bytes && fallocate(out->fd, 0, 0, (off_t)bytes) != 0)
        refused = errno != EOPNOTSUPP && errno != ENOSYS;
    if (refused) status = failed(out, errno, err);
    if (status != SLUICE_OK) file_out_abort(out);
    return status;
}

static void begin_writeback(struct file_out *out)
{
    if (out->written - out->begun < writeback_bytes) return;
    (void)sync_file_range(out->fd, (off_t)out->begun, (off_t)(out->written - out->begun),
                          SYNC_FILE_RANGE_WRITE);
    out->begun = out->written;
}

enum sluice_status file_out_write(struct file_out *out, const void *data, size_t len,
                                  struct sluice_error *err)
{
    const char *p = data;
    while (len) {
        ssize_t n = write(out->fd, p, len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return failed(out, n < 0 ? errno : ENOSPC, err);
        p += n;
        len -= (size_t)n;
        out->written += (uint64_t)n;
    }
    begin_writeback(out);
    return SLUICE_OK;
}

/* The new name is on the disk only when its folder is. */
static int sync_folder(const char *path)
{
    size_t len = folder_len(path);
    char *folder = len ? strndup(path, len) : strdup(".");
    if (!folder) return ENOMEM;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = fd < 0 || fsync(fd) != 0 ? errno : 0;
    if (fd >= 0) close(fd);
    free(folder);
    return error == EINVAL ? 0 : error; /* some file systems cannot sync a folder */
}

enum sluice_status file_out_commit(struct file_out *out, struct sluice_error *err)
{
    enum sluice_status status = SLUICE_OK;
    int error = fsync(out->fd) != 0 ? errno : 0;
    if (close(out->fd) != 0 && !error) error = errno;
    out->fd = -1;
    if (!error && rename(out->temp, out->path) != 0) error = errno;
    if (!error) {
        free(out->temp);
        out->temp = NULL;
        error = sync_folder(out->path);
    }
    if (error) status = failed(out, error, err);
    file_out_abort(out);
    return status;
}

void file_out_abort(struct file_out *out)
{
    if (out->fd >= 0) close(out->fd);
    if (out->temp) unlink(out->temp);
    free(out->temp);
    free(out->path);
    *out = (struct file_out){.fd = -1};
}

bool file_out_is_temporary(const char *name)
{
    size_t len = strlen(name), n = sizeof suffix - 1;
    return name[0] == '.' && len > n + 1 && strcmp(name + len - n, suffix) == 0;
}
