#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"

/* The system's words for error, thread-safe. */
static enum sluice_status system_error(struct sluice_error *err, const char *path, const char *verb,
                                       int error)
{
    char text[128];
    enum sluice_status code = SLUICE_E_IO;
    if (error == ENOENT || error == ENOTDIR) code = SLUICE_E_NOT_FOUND;
    if (error == ENOMEM) code = SLUICE_E_NOMEM;
    return err_set(err, code, "'%s': %s: %s", path, verb, strerror_r(error, text, sizeof text));
}

static enum sluice_status open_error(struct sluice_error *err, const char *path, int error)
{
    struct stat st;
    if (error == ENOENT && lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
        return err_set(
            err, SLUICE_E_NOT_FOUND,
            "'%s' is a symbolic link to a file that does not exist; incomplete download?", path);
    if (error == ENOENT) return err_set(err, SLUICE_E_NOT_FOUND, "'%s' does not exist", path);
    return system_error(err, path, "cannot open", error);
}

static struct file_version version_of(const struct stat *st)
{
    return (struct file_version){.device = (uint64_t)st->st_dev,
                                 .inode = (uint64_t)st->st_ino,
                                 .bytes = (uint64_t)st->st_size,
                                 .modified_ns =
                                     (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec,
                                 .nameless = st->st_nlink == 0};
}

bool file_version_of(int fd, struct file_version *version)
{
    struct stat st;
    if (fstat(fd, &st) != 0) return false;
    *version = version_of(&st);
    return true;
}

/* O_NONBLOCK: opening a pipe must not wait for its other end. */
static enum sluice_status open_regular(const char *path, int *fd, struct file_version *version,
                                       struct sluice_error *err)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return open_error(err, path, errno);
    struct stat st;
    enum sluice_status status = SLUICE_OK;
    if (fstat(*fd, &st) != 0)
        status = system_error(err, path, "cannot look at", errno);
    else if (S_ISDIR(st.st_mode))
        status = err_set(err, SLUICE_E_IO, "'%s' is a folder, not a file", path);
    else if (!S_ISREG(st.st_mode))
        status = err_set(err, SLUICE_E_IO, "'%s' is not a regular file", path);
    if (status == SLUICE_OK)
        *version = version_of(&st);
    else
        close(*fd);
    return status;
}

enum sluice_status file_map_open(struct file_map *map, const char *path, struct sluice_error *err)
{
    *map = (struct file_map){0};
    int fd;
    struct file_version version;
    TRY(open_regular(path, &fd, &version, err));
    uint64_t bytes = version.bytes;
    void *data = bytes ? mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    int error = errno;
    close(fd);
    if (data == MAP_FAILED) return system_error(err, path, "cannot map", error);
    *map =
        (struct file_map){.path = strdup(path), .data = data, .bytes = bytes, .version = version};
    if (map->path) return SLUICE_OK;
    file_map_release(map);
    return err_nomem(err, path, strlen(path) + 1);
}

const char *file_base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

const char *file_change_text(bool cut)
{
    return cut ? "the file is shorter than when it was opened"
               : "the file was written to since it was opened";
}

enum sluice_status file_map_check(const struct file_map *map, struct sluice_error *err)
{
    struct stat st;
    if (stat(map->path, &st) != 0) return SLUICE_OK;
    struct file_version now = version_of(&st);
    bool same_file = now.device == map->version.device && now.inode == map->version.inode;
    if (!same_file || file_version_equal(&now, &map->version)) return SLUICE_OK;
    return err_set(err, SLUICE_E_IO, "'%s': %s", map->path,
                   file_change_text(now.bytes < map->bytes));
}

void file_map_release(struct file_map *map)
{
    /* The last page as a whole: the thread sanitizer forgets no part of one, and would hold what
     * is mapped there later for this map still. */
    size_t pages = align_up(map->bytes, (size_t)sysconf(_SC_PAGESIZE));
    if (map->data) munmap((void *)(uintptr_t)map->data, pages);
    free(map->path);
    *map = (struct file_map){0};
}

/* Whole pages, which a mapped file has around every byte. */
void file_want(const uint8_t *data, uint64_t bytes)
{
    uintptr_t at = (uintptr_t)data, before = at % (uintptr_t)sysconf(_SC_PAGESIZE);
    if (bytes) (void)madvise((void *)(at - before), bytes + before, MADV_WILLNEED);
}

/* Reads until the buffer is full or the file ends. */
static enum sluice_status read_fully(int fd, const char *path, char *data, size_t bytes,
                                     struct sluice_error *err)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = read(fd, data + done, bytes - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return system_error(err, path, "cannot read", errno);
        if (n == 0)
            return err_set(err, SLUICE_E_IO, "'%s' ended after %zu of %zu bytes", path, done,
                           bytes);
        done += (size_t)n;
    }
    return SLUICE_OK;
}

enum sluice_status file_read(const char *path, uint64_t max_bytes, char **data, size_t *len,
                             struct sluice_error *err)
{
    *data = NULL;
    *len = 0;
    int fd;
    struct file_version version;
    TRY(open_regular(path, &fd, &version, err));
    uint64_t bytes = version.bytes;
    enum sluice_status status = SLUICE_OK;
    char *buffer = NULL;
    if (bytes > max_bytes || bytes > SIZE_MAX - 1)
        status = err_set(err, SLUICE_E_FORMAT,
                         "'%s' has %" PRIu64 " bytes, more than the limit of %" PRIu64, path, bytes,
                         max_bytes);
    else if (!(buffer = malloc((size_t)bytes + 1)))
        status = err_nomem(err, path, (size_t)bytes + 1);
    else
        status = read_fully(fd, path, buffer, (size_t)bytes, err);
    close(fd);
    if (status != SLUICE_OK) {
        free(buffer);
        return status;
    }
    buffer[bytes] = '\0';
    *data = buffer;
    *len = (size_t)bytes;
    return SLUICE_OK;
}

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}
