#include "format/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/bits.h"
#include "format/json.h"

enum { LENGTH_BYTES = 8, NAME_MAX_BYTES = 256 };

/* The limit of the reference implementation. */
static const uint64_t header_max_bytes = 100000000;

struct reader {
    const char *file;
    struct arena *arena;
    struct sluice_error *err;
};

/* Every error of one tensor begins the same way. */
#define TENSOR_ERROR(r, name, fmt, ...)                                                            \
    err_set((r)->err, SLUICE_E_FORMAT, "%s: tensor '%s': " fmt, (r)->file, name, __VA_ARGS__)

/* The JSON text between the length and the data. */
static enum sluice_status find_header(const struct reader *r, struct span head, uint64_t file_bytes,
                                      struct span *text)
{
    if (head.len >= LENGTH_BYTES && memcmp(head.data, "version ", LENGTH_BYTES) == 0)
        return err_set(r->err, SLUICE_E_FORMAT,
                       "%s: is a Git LFS pointer, not the weights; 'git lfs pull' gets them",
                       r->file);
    uint64_t have = head.len < file_bytes ? head.len : file_bytes;
    if (have < LENGTH_BYTES)
        return err_set(r->err, SLUICE_E_FORMAT,
                       "%s: %" PRIu64 " bytes are too few for a safetensors file", r->file, have);
    uint64_t bytes = load_u64le(head.data);
    if (bytes > header_max_bytes)
        return err_set(r->err, SLUICE_E_FORMAT,
                       "%s: a header of %" PRIu64 " bytes is over the limit of %" PRIu64
                       "; not a safetensors file?",
                       r->file, bytes, header_max_bytes);
    if (bytes > have - LENGTH_BYTES)
        return err_set(r->err, SLUICE_E_FORMAT,
                       "%s: the header of %" PRIu64 " bytes ends %" PRIu64
                       " bytes past the end of the file; incomplete download?",
                       r->file, bytes, bytes - (have - LENGTH_BYTES));
    if (bytes == 0) return err_set(r->err, SLUICE_E_FORMAT, "%s: the header is empty", r->file);
    *text = span_of(head.data + LENGTH_BYTES, (size_t)bytes);
    return SLUICE_OK;
}

static enum sluice_status read_metadata(const struct reader *r, json_t *metadata,
                                        const char **format)
{
    *format = "";
    if (!metadata) return SLUICE_OK;
    TRY(json_expect_object(metadata, r->file, "__metadata__", r->err));
    void *it = json_object_iter(metadata);
    for (; it; it = json_object_iter_next(metadata, it))
        if (!json_is_string(json_object_iter_value(it)))
            return err_set(r->err, SLUICE_E_FORMAT, "%s: __metadata__ entry '%.80s' is no string",
                           r->file, json_object_iter_key(it));
    const json_t *value = json_object_get(metadata, "format");
    if (!value) return SLUICE_OK;
    *format = arena_copy(r->arena, json_string_value(value), json_string_length(value));
    return *format ? SLUICE_OK : err_nomem(r->err, r->file, json_string_length(value));
}

static enum sluice_status read_name(const struct reader *r, const char *name, const char **out)
{
    size_t len = strlen(name);
    if (len > NAME_MAX_BYTES)
        return err_set(r->err, SLUICE_E_FORMAT,
                       "%s: tensor '%.80s...': a name of %zu bytes is over the limit of %d",
                       r->file, name, len, NAME_MAX_BYTES);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return err_set(r->err, SLUICE_E_FORMAT,
                           "%s: tensor '%.*s...': the name has a control character (byte %d)",
                           r->file, (int)i, name, name[i]);
    *out = arena_copy(r->arena, name, len);
    return *out ? SLUICE_OK : err_nomem(r->err, r->file, len);
}

static enum sluice_status read_dtype(const struct reader *r, const json_t *object,
                                     struct tensor_entry *entry)
{
    const json_t *value = json_object_get(object, "dtype");
    if (!json_is_string(value))
        return TENSOR_ERROR(r, entry->name, "dtype is %s", value ? "no string" : "missing");
    if (!dtype_from_name(span_str(json_string_value(value)), &entry->dtype))
        return err_set(r->err, SLUICE_E_UNSUPPORTED, "%s: tensor '%s': dtype '%.40s' is not known",
                       r->file, entry->name, json_string_value(value));
    return SLUICE_OK;
}

/* Sets rank, shape and bytes. */
static enum sluice_status read_shape(const struct reader *r, const json_t *object,
                                     struct tensor_entry *entry)
{
    const json_t *shape = json_object_get(object, "shape");
    if (!json_is_array(shape))
        return TENSOR_ERROR(r, entry->name, "shape is %s", shape ? "no array" : "missing");
    if (json_array_size(shape) > TENSOR_MAX_RANK)
        return TENSOR_ERROR(r, entry->name, "shape has %zu dimensions, more than %d",
                            json_array_size(shape), TENSOR_MAX_RANK);
    entry->rank = (uint32_t)json_array_size(shape);
    entry->bytes = dtype_bytes(entry->dtype);
    for (uint32_t i = 0; i < entry->rank; i++) {
        const json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return TENSOR_ERROR(r, entry->name, "shape[%u] is not an integer of at least 0", i);
        entry->shape[i] = (uint64_t)json_integer_value(dim);
        if (!mul_u64(entry->bytes, entry->shape[i], &entry->bytes))
            return TENSOR_ERROR(r, entry->name, "shape[%u] makes it larger than 2^64 bytes", i);
    }
    return SLUICE_OK;
}

/* Sets offset, from the start of the data; bytes is set already. */
static enum sluice_status read_offsets(const struct reader *r, const json_t *object,
                                       struct tensor_entry *entry)
{
    const json_t *offsets = json_object_get(object, "data_offsets");
    if (!offsets) return TENSOR_ERROR(r, entry->name, "%s", "data_offsets is missing");
    const json_t *first = json_array_get(offsets, 0);
    const json_t *second = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(second))
        return TENSOR_ERROR(r, entry->name, "%s", "data_offsets is not an array of two integers");
    json_int_t begin = json_integer_value(first), end = json_integer_value(second);
    if (begin < 0 || end < begin)
        return TENSOR_ERROR(r, entry->name, "data_offsets [%lld, %lld] is no range",
                            (long long)begin, (long long)end);
    if ((uint64_t)(end - begin) != entry->bytes)
        return TENSOR_ERROR(r, entry->name,
                            "data_offsets [%lld, %lld] span %lld bytes, but its shape and dtype %s "
                            "make %" PRIu64,
                            (long long)begin, (long long)end, (long long)(end - begin),
                            dtype_name(entry->dtype), entry->bytes);
    entry->offset = (uint64_t)begin;
    return SLUICE_OK;
}

static enum sluice_status read_entry(const struct reader *r, const char *name, const json_t *object,
                                     struct tensor_entry *entry)
{
    TRY(read_name(r, name, &entry->name));
    if (!json_is_object(object)) return TENSOR_ERROR(r, entry->name, "%s", "is no JSON object");
    TRY(read_dtype(r, object, entry));
    TRY(read_shape(r, object, entry));
    return read_offsets(r, object, entry);
}

/* By offset; tensors without bytes before the one that begins where they lie. */
static int compare_entries(const void *a, const void *b)
{
    const struct tensor_entry *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static enum sluice_status truncated(const struct reader *r, const struct safetensors_header *header,
                                    uint64_t file_bytes, uint64_t end)
{
    const struct tensor_entry *e = header->entries;
    while (e->offset + e->bytes <= file_bytes) e++;
    return TENSOR_ERROR(r, e->name,
                        "its bytes %" PRIu64 " to %" PRIu64 " lie outside the file, which has "
                        "%" PRIu64 " bytes; %" PRIu64 " bytes are missing; incomplete download?",
                        e->offset, e->offset + e->bytes, file_bytes, end - file_bytes);
}

/* As in the reference implementation, tensors fill the data exactly: no overlap, gap or rest. */
static enum sluice_status check_layout(const struct reader *r,
                                       const struct safetensors_header *header, uint64_t file_bytes)
{
    uint64_t at = header->data_offset;
    for (size_t i = 0; i < header->n_entries; i++) {
        const struct tensor_entry *e = &header->entries[i];
        if (e->offset < at)
            return TENSOR_ERROR(r, e->name,
                                "its bytes from %" PRIu64 " on overlap those of tensor '%s'",
                                e->offset, header->entries[i - 1].name);
        if (e->offset > at)
            return TENSOR_ERROR(
                r, e->name, "%" PRIu64 " bytes before it, from %" PRIu64 " on, belong to no tensor",
                e->offset - at, at);
        at = e->offset + e->bytes;
    }
    if (at > file_bytes) return truncated(r, header, file_bytes, at);
    if (at < file_bytes)
        return err_set(r->err, SLUICE_E_FORMAT,
                       "%s: %" PRIu64 " bytes at the end of the file, from %" PRIu64
                       " on, belong to no tensor",
                       r->file, file_bytes - at, at);
    return SLUICE_OK;
}

static enum sluice_status read_entries(const struct reader *r, json_t *root,
                                       struct safetensors_header *out)
{
    size_t n = json_object_size(root);
    out->entries = arena_alloc(r->arena, n, sizeof *out->entries);
    if (!out->entries) return err_nomem(r->err, r->file, n * sizeof *out->entries);
    for (void *it = json_object_iter(root); it; it = json_object_iter_next(root, it)) {
        const char *name = json_object_iter_key(it);
        if (strcmp(name, "__metadata__") == 0) continue;
        struct tensor_entry *entry = &out->entries[out->n_entries];
        TRY(read_entry(r, name, json_object_iter_value(it), entry));
        /* No overflow: Jansson's integers are below 2^63, headers below 2^27. */
        entry->offset += out->data_offset;
        out->n_entries++;
    }
    if (out->n_entries) qsort(out->entries, out->n_entries, sizeof *out->entries, compare_entries);
    return SLUICE_OK;
}

enum sluice_status safetensors_parse(struct span head, uint64_t file_bytes, const char *file,
                                     struct arena *arena, struct safetensors_header *out,
                                     struct sluice_error *err)
{
    *out = (struct safetensors_header){.format = ""};
    const struct reader r = {.file = file, .arena = arena, .err = err};
    struct span text;
    TRY(find_header(&r, head, file_bytes, &text));
    out->data_offset = LENGTH_BYTES + text.len;
    json_t *root;
    enum sluice_status status = SLUICE_OK;
    TRY(json_parse(text, file, &root, err));
    TRY_GOTO(done, json_expect_object(root, file, "the header", err));
    TRY_GOTO(done, read_metadata(&r, json_object_get(root, "__metadata__"), &out->format));
    TRY_GOTO(done, read_entries(&r, root, out));
    status = check_layout(&r, out, file_bytes);
done:
    json_decref(root);
    return status;
}
