#include "format/gguf.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/bits.h"
#include "format/gguf_value.h"

enum {
    DEFAULT_ALIGNMENT = 32,
    MAX_ALIGNMENT = 1 << 20,
    KEY_MAX_BYTES = 65535, /* the format's limit */
    NAME_MAX_BYTES = 256,
    /* The least a key and a tensor can take, so that a count is judged before memory is asked. */
    KEY_MIN_BYTES = 8 + 1 + 4 + 1,
    TENSOR_MIN_BYTES = 8 + 1 + 4 + 8 + 4 + 8,
};

struct reader {
    const char *file;
    struct gguf_cursor cursor;
    struct arena *arena;
    struct gguf_header *out;
    struct sluice_error *err;
};

/* Every error of one tensor begins the same way. */
#define TENSOR_ERROR(r, name, code, fmt, ...)                                                      \
    err_set((r)->err, code, "%s: tensor '%s': " fmt, (r)->file, name, __VA_ARGS__)

static uint64_t offset_of(const struct reader *r)
{
    return (uint64_t)(r->cursor.rest.data - r->cursor.start);
}

static enum sluice_status ends_early(const struct reader *r, const char *what)
{
    return err_set(r->err, SLUICE_E_FORMAT,
                   "%s: ends in the middle of %s (offset %" PRIu64 "); incomplete download?",
                   r->file, what, offset_of(r));
}

static enum sluice_status read_version(struct reader *r)
{
    struct span magic;
    uint32_t version;
    if (!gguf_take(&r->cursor, 4, &magic) || memcmp(magic.data, "GGUF", 4) != 0)
        return err_set(r->err, SLUICE_E_FORMAT, "%s: does not begin with 'GGUF': no GGUF file",
                       r->file);
    if (!gguf_take_u32(&r->cursor, &version)) return ends_early(r, "the version");
    if (version != 0 && (version & 0xffff) == 0)
        return err_set(r->err, SLUICE_E_UNSUPPORTED,
                       "%s: is a big-endian GGUF file; only little-endian ones are read", r->file);
    if (version != 2 && version != 3)
        return err_set(r->err, SLUICE_E_UNSUPPORTED,
                       "%s: is GGUF version %" PRIu32 "; versions 2 and 3 are read", r->file,
                       version);
    r->out->version = version;
    return SLUICE_OK;
}

/* A count whose items, of at least min_bytes each, could be in what is left of the file. */
static enum sluice_status read_count(struct reader *r, const char *what, size_t min_bytes,
                                     size_t *out)
{
    uint64_t n;
    if (!gguf_take_u64(&r->cursor, &n)) return ends_early(r, "the counts");
    if (n > r->cursor.rest.len / min_bytes)
        return err_set(r->err, SLUICE_E_FORMAT,
                       "%s: %" PRIu64 " %s cannot be in a file that goes on for %zu bytes; "
                       "incomplete download?",
                       r->file, n, what, r->cursor.rest.len);
    *out = (size_t)n;
    return SLUICE_OK;
}

/* A name is empty, too long, or has a control character: what is wrong, or NULL. */
static const char *name_problem(struct span name, size_t max)
{
    if (name.len == 0) return "an empty name";
    if (name.len > max) return "a name that is too long";
    for (size_t i = 0; i < name.len; i++)
        if (name.data[i] < 0x20 || name.data[i] == 0x7f) return "a control character in its name";
    return NULL;
}

static enum sluice_status read_key(struct reader *r, size_t index)
{
    struct gguf_key *key = &r->out->keys[index];
    uint32_t type;
    if (!gguf_take_string(&r->cursor, &key->name)) return ends_early(r, "the name of a key");
    const char *wrong = name_problem(key->name, KEY_MAX_BYTES);
    if (wrong)
        return err_set(r->err, SLUICE_E_FORMAT, "%s: key %zu (before offset %" PRIu64 ") has %s",
                       r->file, index, offset_of(r), wrong);
    int shown = (int)min_size(key->name.len, 100);
    const char *name = (const char *)key->name.data;
    if (!gguf_take_u32(&r->cursor, &type)) return ends_early(r, "the type of a key");
    uint64_t at = offset_of(r);
    wrong = gguf_take_value(&r->cursor, type, &key->value);
    if (wrong)
        return err_set(r->err, SLUICE_E_FORMAT,
                       "%s: key '%.*s': the value (type %" PRIu32 ", offset %" PRIu64 ") %s",
                       r->file, shown, name, type, at, wrong);
    switch (map_put(&r->out->by_key, key->name, (uint32_t)index)) {
    case MAP_NEW: return SLUICE_OK;
    case MAP_NOMEM: return err_nomem(r->err, r->file, sizeof(struct map_slot));
    case MAP_EXISTS: break;
    }
    return err_set(r->err, SLUICE_E_FORMAT, "%s: key '%.*s' is there twice", r->file, shown, name);
}

static enum sluice_status read_keys(struct reader *r)
{
    size_t n = r->out->n_keys;
    r->out->keys = arena_alloc(r->arena, n, sizeof *r->out->keys);
    if (!r->out->keys || !map_init(&r->out->by_key, n))
        return err_nomem(r->err, r->file, n * sizeof *r->out->keys);
    for (size_t i = 0; i < n; i++) TRY(read_key(r, i));
    return SLUICE_OK;
}

static enum sluice_status read_alignment(struct reader *r)
{
    const struct gguf_value *value = gguf_find(r->out, "general.alignment");
    r->out->alignment = DEFAULT_ALIGNMENT;
    if (!value) return SLUICE_OK;
    uint64_t n;
    if (!gguf_u64(value, &n) || n == 0 || n > MAX_ALIGNMENT || (n & (n - 1)) != 0)
        return err_set(r->err, SLUICE_E_FORMAT,
                       "%s: key 'general.alignment' must be a power of two up to %d", r->file,
                       MAX_ALIGNMENT);
    r->out->alignment = n;
    return SLUICE_OK;
}

static enum sluice_status read_tensor_name(struct reader *r, size_t index, struct tensor_entry *t)
{
    struct span name;
    if (!gguf_take_string(&r->cursor, &name)) return ends_early(r, "the name of a tensor");
    const char *wrong = name_problem(name, NAME_MAX_BYTES);
    if (wrong)
        return err_set(r->err, SLUICE_E_FORMAT, "%s: tensor %zu (before offset %" PRIu64 ") has %s",
                       r->file, index, offset_of(r), wrong);
    t->name = arena_copy(r->arena, name.data, name.len);
    return t->name ? SLUICE_OK : err_nomem(r->err, r->file, name.len);
}

/* Files list the fastest dimension first. */
static enum sluice_status read_dimensions(struct reader *r, struct tensor_entry *t)
{
    if (!gguf_take_u32(&r->cursor, &t->rank)) return ends_early(r, "the directory of tensors");
    if (t->rank == 0 || t->rank > GGUF_MAX_RANK)
        return TENSOR_ERROR(r, t->name, SLUICE_E_FORMAT, "%" PRIu32 " dimensions, not 1 to %d",
                            t->rank, GGUF_MAX_RANK);
    for (uint32_t i = t->rank; i-- > 0;) {
        if (!gguf_take_u64(&r->cursor, &t->shape[i]))
            return ends_early(r, "the directory of tensors");
        if (t->shape[i] == 0)
            return TENSOR_ERROR(r, t->name, SLUICE_E_FORMAT, "dimension %" PRIu32 " is 0",
                                t->rank - 1 - i);
    }
    return SLUICE_OK;
}

static enum sluice_status read_type(struct reader *r, struct tensor_entry *t)
{
    uint32_t type;
    if (!gguf_take_u32(&r->cursor, &type)) return ends_early(r, "the directory of tensors");
    if (!dtype_from_gguf(type, &t->dtype))
        return TENSOR_ERROR(r, t->name, SLUICE_E_UNSUPPORTED,
                            "its type has the number %" PRIu32
                            ", which is none of those that are read; a file of another "
                            "quantisation is needed",
                            type);
    uint64_t block = dtype_block(t->dtype), row = t->shape[t->rank - 1];
    if (row % block != 0)
        return TENSOR_ERROR(r, t->name, SLUICE_E_FORMAT,
                            "rows of %" PRIu64 " are no whole number of blocks of %" PRIu64
                            ", as its type %s has",
                            row, block, dtype_name(t->dtype));
    bool fits = mul_u64(row / block, dtype_bytes(t->dtype), &t->bytes);
    for (uint32_t i = 0; i + 1 < t->rank && fits; i++)
        fits = mul_u64(t->bytes, t->shape[i], &t->bytes);
    if (!fits)
        return TENSOR_ERROR(r, t->name, SLUICE_E_FORMAT, "%s", "it is larger than 2^64 bytes");
    return SLUICE_OK;
}

/* The offset still counts from the start of the data. */
static enum sluice_status read_tensor(struct reader *r, size_t index, struct map *names)
{
    struct tensor_entry *t = &r->out->tensors[index];
    TRY(read_tensor_name(r, index, t));
    TRY(read_dimensions(r, t));
    TRY(read_type(r, t));
    if (!gguf_take_u64(&r->cursor, &t->offset)) return ends_early(r, "the directory of tensors");
    if (t->offset % r->out->alignment != 0)
        return TENSOR_ERROR(r, t->name, SLUICE_E_FORMAT,
                            "its offset %" PRIu64 " is no multiple of the alignment %" PRIu64,
                            t->offset, r->out->alignment);
    enum map_put put = map_put(names, span_str(t->name), (uint32_t)index);
    if (put == MAP_NOMEM) return err_nomem(r->err, r->file, sizeof(struct map_slot));
    if (put == MAP_EXISTS)
        return TENSOR_ERROR(r, t->name, SLUICE_E_FORMAT, "%s", "it is listed twice");
    return SLUICE_OK;
}

static enum sluice_status read_tensors(struct reader *r)
{
    size_t n = r->out->n_tensors;
    struct map names;
    r->out->tensors = arena_alloc(r->arena, n, sizeof *r->out->tensors);
    if (!r->out->tensors || !map_init(&names, n))
        return err_nomem(r->err, r->file, n * sizeof *r->out->tensors);
    enum sluice_status status = SLUICE_OK;
    for (size_t i = 0; i < n && status == SLUICE_OK; i++) status = read_tensor(r, i, &names);
    map_release(&names);
    return status;
}

static int compare_offsets(const void *a, const void *b)
{
    const struct tensor_entry *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Sorts the tensors and makes their offsets count from the start of the file. */
static enum sluice_status place_tensors(struct reader *r, uint64_t file_bytes)
{
    struct gguf_header *h = r->out;
    /* What was read lies in memory, so that rounding it up cannot overflow. */
    h->data_offset = (offset_of(r) + h->alignment - 1) / h->alignment * h->alignment;
    if (h->n_tensors) qsort(h->tensors, h->n_tensors, sizeof *h->tensors, compare_offsets);
    uint64_t end = 0;
    for (size_t i = 0; i < h->n_tensors; i++) {
        struct tensor_entry *t = &h->tensors[i];
        uint64_t at, behind;
        if (!add_u64(h->data_offset, t->offset, &at) || !add_u64(at, t->bytes, &behind) ||
            behind > file_bytes)
            return TENSOR_ERROR(r, t->name, SLUICE_E_FORMAT,
                                "its %" PRIu64 " bytes at offset %" PRIu64
                                " of the data end outside the file of %" PRIu64
                                " bytes; incomplete download?",
                                t->bytes, t->offset, file_bytes);
        if (at < end)
            return TENSOR_ERROR(r, t->name, SLUICE_E_FORMAT,
                                "its bytes from %" PRIu64 " on overlap those of tensor '%s'", at,
                                h->tensors[i - 1].name);
        t->offset = at;
        end = behind;
    }
    return SLUICE_OK;
}

static enum sluice_status read_header(struct reader *r, uint64_t file_bytes)
{
    TRY(read_version(r));
    TRY(read_count(r, "tensors", TENSOR_MIN_BYTES, &r->out->n_tensors));
    TRY(read_count(r, "keys", KEY_MIN_BYTES, &r->out->n_keys));
    if (r->out->n_keys > UINT32_MAX || r->out->n_tensors > UINT32_MAX)
        return err_set(r->err, SLUICE_E_UNSUPPORTED, "%s: has more than 2^32 keys or tensors",
                       r->file);
    TRY(read_keys(r));
    TRY(read_alignment(r));
    TRY(read_tensors(r));
    return place_tensors(r, file_bytes);
}

enum sluice_status gguf_parse(struct span head, uint64_t file_bytes, const char *file,
                              struct arena *arena, struct gguf_header *out,
                              struct sluice_error *err)
{
    *out = (struct gguf_header){0};
    struct reader r = {.file = file,
                       .cursor = {.rest = head, .start = head.data},
                       .arena = arena,
                       .out = out,
                       .err = err};
    if (head.len > file_bytes) r.cursor.rest.len = (size_t)file_bytes;
    enum sluice_status status = read_header(&r, file_bytes);
    if (status != SLUICE_OK) gguf_release(out);
    return status;
}

void gguf_release(struct gguf_header *header)
{
    map_release(&header->by_key);
    *header = (struct gguf_header){0};
}

const struct gguf_value *gguf_find(const struct gguf_header *header, const char *key)
{
    const uint32_t *at = map_find(&header->by_key, span_str(key));
    return at ? &header->keys[*at].value : NULL;
}
