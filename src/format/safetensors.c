#include "format/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/array.h"
#include "base/bits.h"
#include "format/json_cursor.h"

enum {
    LENGTH_BYTES = 8,
    NAME_MAX_BYTES = 256,
    DTYPE_SHOWN = 40,
    ENTRY_BYTES = 128, /* in a header of many, about */
    /* Levels that a value may have in the header, in an entry, and in a list of an entry. */
    VALUE_LEVELS = JSON_MAX_DEPTH - 1,
    FIELD_LEVELS = JSON_MAX_DEPTH - 2,
    ITEM_LEVELS = JSON_MAX_DEPTH - 3,
};

/* The limit of the reference implementation. */
static const uint64_t header_max_bytes = 100000000;

/*
 * A header whose text is broken is refused for that; what else is wrong with an entry waits until
 * the text is read.
 */
struct reader {
    const char *file;
    struct arena *arena;
    struct sluice_error *err;
    struct json_cursor at;
    struct text_buffer scratch;
    struct arena key_arena;    /* keys that are no names of tensors */
    struct map names;          /* of tensors, and __metadata__ */
    enum sluice_status status; /* of the entries so far; its message is in err */
    ARRAY(struct tensor_entry) entries;
};

/* A field of an entry, which is of the right type or not. */
enum field_state { FIELD_MISSING, FIELD_OTHER, FIELD_READ };

/* An array, the first n_integers of whose n items are integers. */
struct integers {
    enum field_state state;
    size_t n, n_integers;
    int64_t items[TENSOR_MAX_RANK];
};

struct dtype_field {
    enum field_state state;
    bool known;
    enum dtype value;
    char text[DTYPE_SHOWN + 1];
};

/* An entry as it is written. */
struct fields {
    bool is_object;
    struct dtype_field dtype;
    struct integers shape, offsets;
    struct map others; /* keys without a meaning */
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

/* The next key of an object and the colon behind it. */
static enum sluice_status read_key(struct reader *r, struct span *key)
{
    TRY(json_cursor_view(&r->at, &r->scratch, key, r->err));
    return json_cursor_expect(&r->at, ':', r->err);
}

/* Refuses a key that keys has already; arena gets a copy. */
static enum sluice_status add_key(const struct reader *r, struct map *keys, struct span key,
                                  struct arena *arena, const char **copy)
{
    *copy = arena_copy(arena, key.data, key.len);
    if (!*copy) return err_nomem(r->err, r->file, key.len);
    return json_cursor_add_key(&r->at, keys, span_of(*copy, key.len), 0, r->err);
}

static enum sluice_status metadata_is_no_object(struct reader *r)
{
    json_t *value;
    TRY(json_cursor_value(&r->at, VALUE_LEVELS, &value, r->err));
    if (r->status == SLUICE_OK)
        r->status = json_expect_object(value, r->file, "__metadata__", r->err);
    json_decref(value);
    return SLUICE_OK;
}

static enum sluice_status read_metadata_value(struct reader *r, const char *key,
                                              const char **format)
{
    if (json_cursor_peek(&r->at) != '"') {
        TRY(json_cursor_skip(&r->at, FIELD_LEVELS, r->err));
        if (r->status == SLUICE_OK)
            r->status = err_set(r->err, SLUICE_E_FORMAT,
                                "%s: __metadata__ entry '%.80s' is no string", r->file, key);
        return SLUICE_OK;
    }
    struct span value;
    TRY(json_cursor_view(&r->at, &r->scratch, &value, r->err));
    if (strcmp(key, "format") != 0) return SLUICE_OK;
    *format = arena_copy(r->arena, value.data, value.len);
    return *format ? SLUICE_OK : err_nomem(r->err, r->file, value.len);
}

static enum sluice_status read_metadata_values(struct reader *r, struct map *keys,
                                               const char **format)
{
    TRY(json_cursor_expect(&r->at, '{', r->err));
    for (bool first = true, more;; first = false) {
        TRY(json_cursor_item(&r->at, first, '}', &more, r->err));
        if (!more) return SLUICE_OK;
        struct span key;
        const char *copy;
        TRY(read_key(r, &key));
        TRY(add_key(r, keys, key, &r->key_arena, &copy));
        TRY(read_metadata_value(r, copy, format));
    }
}

static enum sluice_status read_metadata(struct reader *r, const char **format)
{
    if (json_cursor_peek(&r->at) != '{') return metadata_is_no_object(r);
    struct map keys = {0};
    enum sluice_status status = read_metadata_values(r, &keys, format);
    map_release(&keys);
    return status;
}

static enum sluice_status read_dtype(struct reader *r, struct dtype_field *out)
{
    if (json_cursor_peek(&r->at) != '"') {
        out->state = FIELD_OTHER;
        return json_cursor_skip(&r->at, FIELD_LEVELS, r->err);
    }
    struct span text;
    TRY(json_cursor_view(&r->at, &r->scratch, &text, r->err));
    out->state = FIELD_READ;
    out->known = dtype_from_name(text, &out->value);
    memcpy(out->text, text.data, text.len < DTYPE_SHOWN ? text.len : DTYPE_SHOWN);
    return SLUICE_OK;
}

static enum sluice_status read_integer(struct reader *r, struct integers *out)
{
    int64_t value;
    if (!json_cursor_i64(&r->at, &value))
        TRY(json_cursor_skip(&r->at, ITEM_LEVELS, r->err));
    else if (out->n_integers == out->n) {
        if (out->n < TENSOR_MAX_RANK) out->items[out->n] = value;
        out->n_integers++;
    }
    out->n++;
    return SLUICE_OK;
}

static enum sluice_status read_integers(struct reader *r, struct integers *out)
{
    if (json_cursor_peek(&r->at) != '[') {
        out->state = FIELD_OTHER;
        return json_cursor_skip(&r->at, FIELD_LEVELS, r->err);
    }
    out->state = FIELD_READ;
    TRY(json_cursor_expect(&r->at, '[', r->err));
    for (bool first = true, more;; first = false) {
        TRY(json_cursor_item(&r->at, first, ']', &more, r->err));
        if (!more) return SLUICE_OK;
        TRY(read_integer(r, out));
    }
}

/* A known field's key, which must come once. */
static enum sluice_status once(const struct reader *r, enum field_state state, const char *key)
{
    if (state == FIELD_MISSING) return SLUICE_OK;
    return json_cursor_twice(&r->at, span_str(key), r->err);
}

static enum sluice_status read_field(struct reader *r, struct span key, struct fields *f)
{
    if (span_equal(key, span_str("dtype"))) {
        TRY(once(r, f->dtype.state, "dtype"));
        return read_dtype(r, &f->dtype);
    }
    if (span_equal(key, span_str("shape"))) {
        TRY(once(r, f->shape.state, "shape"));
        return read_integers(r, &f->shape);
    }
    if (span_equal(key, span_str("data_offsets"))) {
        TRY(once(r, f->offsets.state, "data_offsets"));
        return read_integers(r, &f->offsets);
    }
    const char *copy;
    TRY(add_key(r, &f->others, key, &r->key_arena, &copy));
    return json_cursor_skip(&r->at, FIELD_LEVELS, r->err);
}

static enum sluice_status read_fields(struct reader *r, struct fields *f)
{
    f->is_object = json_cursor_peek(&r->at) == '{';
    if (!f->is_object) return json_cursor_skip(&r->at, VALUE_LEVELS, r->err);
    TRY(json_cursor_expect(&r->at, '{', r->err));
    for (bool first = true, more;; first = false) {
        TRY(json_cursor_item(&r->at, first, '}', &more, r->err));
        if (!more) return SLUICE_OK;
        struct span key;
        TRY(read_key(r, &key));
        TRY(read_field(r, key, f));
    }
}

static enum sluice_status check_name(const struct reader *r, const char *name)
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
    return SLUICE_OK;
}

static enum sluice_status check_dtype(const struct reader *r, const struct dtype_field *dtype,
                                      struct tensor_entry *entry)
{
    if (dtype->state != FIELD_READ)
        return TENSOR_ERROR(r, entry->name, "dtype is %s",
                            dtype->state == FIELD_OTHER ? "no string" : "missing");
    if (!dtype->known)
        return err_set(r->err, SLUICE_E_UNSUPPORTED, "%s: tensor '%s': dtype '%s' is not known",
                       r->file, entry->name, dtype->text);
    entry->dtype = dtype->value;
    return SLUICE_OK;
}

/* Sets rank, shape and bytes. */
static enum sluice_status check_shape(const struct reader *r, const struct integers *shape,
                                      struct tensor_entry *entry)
{
    if (shape->state != FIELD_READ)
        return TENSOR_ERROR(r, entry->name, "shape is %s",
                            shape->state == FIELD_OTHER ? "no array" : "missing");
    if (shape->n > TENSOR_MAX_RANK)
        return TENSOR_ERROR(r, entry->name, "shape has %zu dimensions, more than %d", shape->n,
                            TENSOR_MAX_RANK);
    entry->rank = (uint32_t)shape->n;
    entry->bytes = dtype_bytes(entry->dtype);
    for (uint32_t i = 0; i < entry->rank; i++) {
        if (i >= shape->n_integers || shape->items[i] < 0)
            return TENSOR_ERROR(r, entry->name, "shape[%u] is not an integer of at least 0", i);
        entry->shape[i] = (uint64_t)shape->items[i];
        if (!mul_u64(entry->bytes, entry->shape[i], &entry->bytes))
            return TENSOR_ERROR(r, entry->name, "shape[%u] makes it larger than 2^64 bytes", i);
    }
    return SLUICE_OK;
}

/* Sets offset, from the start of the data; bytes is set already. */
static enum sluice_status check_offsets(const struct reader *r, const struct integers *offsets,
                                        struct tensor_entry *entry)
{
    if (offsets->state == FIELD_MISSING)
        return TENSOR_ERROR(r, entry->name, "%s", "data_offsets is missing");
    if (offsets->state == FIELD_OTHER || offsets->n != 2 || offsets->n_integers != 2)
        return TENSOR_ERROR(r, entry->name, "%s", "data_offsets is not an array of two integers");
    int64_t begin = offsets->items[0], end = offsets->items[1];
    if (begin < 0 || end < begin)
        return TENSOR_ERROR(r, entry->name, "data_offsets [%" PRId64 ", %" PRId64 "] is no range",
                            begin, end);
    if ((uint64_t)(end - begin) != entry->bytes)
        return TENSOR_ERROR(r, entry->name,
                            "data_offsets [%" PRId64 ", %" PRId64 "] span %" PRId64
                            " bytes, but its shape and dtype %s make %" PRIu64,
                            begin, end, end - begin, dtype_name(entry->dtype), entry->bytes);
    entry->offset = (uint64_t)begin;
    return SLUICE_OK;
}

static enum sluice_status check_fields(const struct reader *r, const struct fields *f,
                                       struct tensor_entry *entry)
{
    TRY(check_name(r, entry->name));
    if (!f->is_object) return TENSOR_ERROR(r, entry->name, "%s", "is no JSON object");
    TRY(check_dtype(r, &f->dtype, entry));
    TRY(check_shape(r, &f->shape, entry));
    return check_offsets(r, &f->offsets, entry);
}

/* Offsets from the start of the data. */
static enum sluice_status read_entry(struct reader *r, const char *name)
{
    struct fields f = {0};
    enum sluice_status status = read_fields(r, &f);
    map_release(&f.others);
    if (status != SLUICE_OK || r->status != SLUICE_OK) return status;
    struct tensor_entry entry = {.name = name};
    r->status = check_fields(r, &f, &entry);
    if (r->status != SLUICE_OK || array_push(&r->entries, entry)) return SLUICE_OK;
    return err_nomem(r->err, r->file, (r->entries.n + 1) * sizeof entry);
}

static enum sluice_status read_header(struct reader *r, const char **format)
{
    TRY(json_cursor_expect(&r->at, '{', r->err));
    for (bool first = true, more;; first = false) {
        TRY(json_cursor_item(&r->at, first, '}', &more, r->err));
        if (!more) break;
        struct span key;
        const char *name;
        TRY(read_key(r, &key));
        TRY(add_key(r, &r->names, key, r->arena, &name));
        TRY(strcmp(name, "__metadata__") == 0 ? read_metadata(r, format) : read_entry(r, name));
    }
    TRY(json_cursor_finish(&r->at, r->err));
    return r->status;
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

/* Files are mostly written in the order of their tensors. */
static void sort_entries(struct tensor_entry *entries, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (compare_entries(&entries[i - 1], &entries[i]) > 0) {
            qsort(entries, n, sizeof *entries, compare_entries);
            return;
        }
}

/* The entries in order, with offsets from the start of the file; they are the arena's now. */
static enum sluice_status take_entries(struct reader *r, struct safetensors_header *out)
{
    size_t n = r->entries.n;
    if (n && !arena_keep(r->arena, r->entries.items))
        return err_nomem(r->err, r->file, n * sizeof *r->entries.items);
    out->entries = r->entries.items;
    out->n_entries = n;
    r->entries.items = NULL;
    /* No overflow: offsets are below 2^63, headers below 2^27. */
    for (size_t i = 0; i < n; i++) out->entries[i].offset += out->data_offset;
    sort_entries(out->entries, n);
    return SLUICE_OK;
}

static enum sluice_status no_object(struct span text, const char *file, struct sluice_error *err)
{
    json_t *root;
    TRY(json_parse(text, file, &root, err));
    enum sluice_status status = json_expect_object(root, file, "the header", err);
    json_decref(root);
    return status;
}

static enum sluice_status read_text(struct reader *r, struct span text, uint64_t file_bytes,
                                    struct safetensors_header *out)
{
    r->at = (struct json_cursor){text.data, text.data + text.len, text.data, r->file, "the header"};
    if (json_cursor_peek(&r->at) != '{') return no_object(text, r->file, r->err);
    if (!map_init(&r->names, text.len / ENTRY_BYTES))
        return err_nomem(r->err, r->file, text.len / ENTRY_BYTES * sizeof *r->names.slots);
    TRY(read_header(r, &out->format));
    TRY(take_entries(r, out));
    return check_layout(r, out, file_bytes);
}

enum sluice_status safetensors_parse(struct span head, uint64_t file_bytes, const char *file,
                                     struct arena *arena, struct safetensors_header *out,
                                     struct sluice_error *err)
{
    *out = (struct safetensors_header){.format = ""};
    struct reader r = {.file = file, .arena = arena, .err = err};
    struct span text = {0};
    TRY(find_header(&r, head, file_bytes, &text));
    out->data_offset = LENGTH_BYTES + text.len;
    enum sluice_status status = read_text(&r, text, file_bytes, out);
    array_release(&r.entries);
    map_release(&r.names);
    arena_release(&r.key_arena);
    text_release(&r.scratch);
    return status;
}
