#include "safetensors_out.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "report.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rows are written as they lie in memory");

static enum sluice_status io_error(const struct safetensors_out *out, struct sluice_error *err)
{
    return fail(err, SLUICE_E_IO, "%s: %s", out->target.data, strerror(errno));
}

static bool write_at(int fd, const void *data, size_t len, uint64_t offset)
{
    const char *p = data;
    while (len) {
        ssize_t n = pwrite(fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        p += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

/* Sets the offsets and makes the header: its length, then JSON padded to a multiple of 8. */
static bool make_header(struct out_tensor *tensors, size_t n, struct buffer *header)
{
    buffer_add(header, "\0\0\0\0\0\0\0\0{", 9);
    uint64_t end = 0;
    for (size_t i = 0; i < n; i++) {
        struct out_tensor *t = &tensors[i];
        uint64_t bytes;
        t->offset = end;
        t->written = 0;
        if (__builtin_mul_overflow(t->rows, t->columns, &bytes) ||
            __builtin_mul_overflow(bytes, sizeof(float), &bytes) ||
            __builtin_add_overflow(end, bytes, &end) || end > INT64_MAX / 2)
            return false;
        buffer_printf(header,
                      "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%" PRIu64 ",%" PRIu64
                      "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}",
                      i ? "," : "", t->name, t->rows, t->columns, t->offset, end);
    }
    buffer_text(header, "}");
    while (header->len % 8) buffer_text(header, " ");
    if (header->failed) return false;
    uint64_t len = header->len - 8;
    memcpy(header->data, &len, sizeof len);
    for (size_t i = 0; i < n; i++) tensors[i].offset += header->len;
    return true;
}

/* Follows links, so that the file behind one is replaced and not the link. */
static void find_target(struct safetensors_out *out, const char *path)
{
    char *real = realpath(path, NULL);
    const char *target = real ? real : path;
    buffer_text(&out->target, target);
    struct stat info;
    if (stat(target, &info) != 0 || S_ISREG(info.st_mode))
        buffer_printf(&out->temp, "%s.%ld.tmp", target, (long)getpid());
    free(real);
}

static enum sluice_status create(struct safetensors_out *out, struct sluice_error *err)
{
    bool in_place = out->temp.len == 0;
    const char *name = in_place ? out->target.data : out->temp.data;
    int flags = in_place ? O_WRONLY | O_CLOEXEC : O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
    out->fd = open(name, flags, 0666);
    if (out->fd >= 0) return SLUICE_OK;
    enum sluice_status status = io_error(out, err);
    buffer_release(&out->temp);
    return status;
}

enum sluice_status safetensors_out_open(struct safetensors_out *out, const char *path,
                                        struct out_tensor *tensors, size_t n,
                                        struct sluice_error *err)
{
    *out = (struct safetensors_out){.fd = -1, .tensors = tensors, .n_tensors = n};
    struct buffer header = {0};
    find_target(out, path);
    bool good = make_header(tensors, n, &header);
    enum sluice_status status =
        !good || out->target.failed || out->temp.failed
            ? fail(err, SLUICE_E_NOMEM, "%s: too large or out of memory", path)
            : create(out, err);
    if (status == SLUICE_OK && !write_at(out->fd, header.data, header.len, 0))
        status = io_error(out, err);
    buffer_release(&header);
    if (status != SLUICE_OK) safetensors_out_abort(out);
    return status;
}

enum sluice_status safetensors_out_rows(struct safetensors_out *out, size_t tensor,
                                        const float *rows, uint64_t n_rows,
                                        struct sluice_error *err)
{
    struct out_tensor *t = &out->tensors[tensor];
    if (n_rows > t->rows - t->written)
        return fail(err, SLUICE_E_ARGUMENT, "%s: tensor '%s' has only %" PRIu64 " rows",
                    out->target.data, t->name, t->rows);
    size_t bytes = (size_t)(n_rows * t->columns * sizeof *rows);
    if (!write_at(out->fd, rows, bytes, t->offset)) return io_error(out, err);
    t->offset += bytes;
    t->written += n_rows;
    return SLUICE_OK;
}

enum sluice_status safetensors_out_close(struct safetensors_out *out, struct sluice_error *err)
{
    enum sluice_status status = SLUICE_OK;
    for (size_t i = 0; i < out->n_tensors && status == SLUICE_OK; i++) {
        const struct out_tensor *t = &out->tensors[i];
        if (t->written != t->rows)
            status =
                fail(err, SLUICE_E_STATE, "%s: tensor '%s' has %" PRIu64 " of its %" PRIu64 " rows",
                     out->target.data, t->name, t->written, t->rows);
    }
    /* Some file systems report a full disk only here. */
    if (status == SLUICE_OK) {
        int fd = out->fd;
        out->fd = -1;
        if (close(fd) != 0) status = io_error(out, err);
    }
    if (status == SLUICE_OK && out->temp.len) {
        if (rename(out->temp.data, out->target.data) != 0)
            status = io_error(out, err);
        else
            buffer_release(&out->temp);
    }
    safetensors_out_abort(out);
    return status;
}

void safetensors_out_abort(struct safetensors_out *out)
{
    if (out->fd >= 0) close(out->fd);
    if (out->temp.len) unlink(out->temp.data);
    buffer_release(&out->temp);
    buffer_release(&out->target);
    out->fd = -1;
    out->n_tensors = 0;
}
