#include "safetensors_out.h"

#include <inttypes.h>
#include <string.h>

#include "report.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rows are written as they lie in memory");

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

enum sluice_status safetensors_out_open(struct safetensors_out *out, const char *path,
                                        struct out_tensor *tensors, size_t n,
                                        struct sluice_error *err)
{
    *out = (struct safetensors_out){.tensors = tensors, .n_tensors = n};
    struct buffer header = {0};
    enum sluice_status status =
        make_header(tensors, n, &header)
            ? result_file_open(&out->file, path, err)
            : fail(err, SLUICE_E_NOMEM, "%s: too large or out of memory", path);
    if (status == SLUICE_OK)
        status = result_file_write_at(&out->file, header.data, header.len, 0, err);
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
                    out->file.target.data, t->name, t->rows);
    size_t bytes = (size_t)(n_rows * t->columns * sizeof *rows);
    TRY(result_file_write_at(&out->file, rows, bytes, t->offset, err));
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
                     out->file.target.data, t->name, t->written, t->rows);
    }
    if (status == SLUICE_OK) return result_file_close(&out->file, err);
    safetensors_out_abort(out);
    return status;
}

void safetensors_out_abort(struct safetensors_out *out)
{
    result_file_abort(&out->file);
    out->n_tensors = 0;
}
