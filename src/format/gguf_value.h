/* Reading metadata values of a GGUF file where they lie; for the parser of the header. */
#ifndef SLUICE_FORMAT_GGUF_VALUE_H
#define SLUICE_FORMAT_GGUF_VALUE_H

#include "format/gguf.h"

/* A position in the header; what lies behind it is not yet read. */
struct gguf_cursor {
    struct span rest;
    const uint8_t *start; /* of the file */
};

/* Each is false, and moves nothing, when the bytes do not reach. */
bool gguf_take(struct gguf_cursor *cursor, uint64_t n, struct span *out);
bool gguf_take_u32(struct gguf_cursor *cursor, uint32_t *out);
bool gguf_take_u64(struct gguf_cursor *cursor, uint64_t *out);
/* A length and that many bytes. */
bool gguf_take_string(struct gguf_cursor *cursor, struct span *out);

/* Bytes of a number; 0 for strings and arrays. */
size_t gguf_type_bytes(enum gguf_type type);

/*
 * Reads a value of that type. NULL, or what is wrong with it: a phrase that goes on after "the
 * value". All items of arrays are checked.
 */
const char *gguf_take_value(struct gguf_cursor *cursor, uint32_t type, struct gguf_value *out);

#endif
