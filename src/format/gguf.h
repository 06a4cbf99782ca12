/*
 * The header of a GGUF file, versions 2 and 3, little-endian: metadata keys, the directory of
 * tensors, then the data (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Pure: works
 * on bytes, reads no file. Values stay where they lie: a vocabulary costs nothing until it is read.
 */
#ifndef SLUICE_FORMAT_GGUF_H
#define SLUICE_FORMAT_GGUF_H

#include "base/arena.h"
#include "base/err.h"
#include "base/map.h"
#include "format/tensor_entry.h"

enum {
    GGUF_MAX_RANK = 4,
    GGUF_MAX_NESTING = 8, /* arrays in arrays */
};

/* The numbers are the format's. */
enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPE_COUNT
};

struct gguf_value {
    enum gguf_type type;
    enum gguf_type item_type; /* of an array */
    uint64_t n_items;         /* of an array */
    struct span data;         /* a number's bytes, a string's text, an array's items as stored */
};

struct gguf_key {
    struct span name;
    struct gguf_value value;
};

struct gguf_header {
    uint32_t version;
    uint64_t alignment;
    uint64_t data_offset; /* of the tensors' data, from the start of the file */
    struct gguf_key *keys;
    size_t n_keys;
    struct tensor_entry *tensors; /* in order of offset */
    size_t n_tensors;
    struct map by_key; /* points into the file's bytes and is freed by gguf_release */
};

/*
 * Parses the header. head holds the first bytes of a file of file_bytes (at least the whole header;
 * more is ignored) and must outlive *out; keys and tensors live in arena. Checked: every length
 * lies in head, names are unique, offsets are aligned, every tensor lies in the file and no two
 * overlap, a row is a whole number of blocks. Errors: FORMAT, UNSUPPORTED (version, byte order,
 * type of a tensor), NOMEM; messages name the file and the key or tensor. On error nothing needs
 * to be released but the arena.
 */
enum sluice_status gguf_parse(struct span head, uint64_t file_bytes, const char *file,
                              struct arena *arena, struct gguf_header *out,
                              struct sluice_error *err);
/* Frees what is not in the arena; harmless on a zeroed or failed header. */
void gguf_release(struct gguf_header *header);

/* The value of that key, or NULL. */
const struct gguf_value *gguf_find(const struct gguf_header *header, const char *key);

/* "u32", "array of string" and so on, for messages. */
const char *gguf_type_name(enum gguf_type type);

/* Each is false when the value is of another kind (NULL included), negative or too large. */
bool gguf_u64(const struct gguf_value *value, uint64_t *out);
bool gguf_f64(const struct gguf_value *value, double *out);
bool gguf_bool(const struct gguf_value *value, bool *out);
bool gguf_string(const struct gguf_value *value, struct span *out);

/* Walks over the items of an array of any type. */
struct gguf_items {
    enum gguf_type type;
    uint64_t n_left;
    struct span rest;
};

/* Empty for anything but an array. */
struct gguf_items gguf_items(const struct gguf_value *value);
/* The next item. False: there is none. */
bool gguf_items_next(struct gguf_items *items, struct gguf_value *item);

#endif
