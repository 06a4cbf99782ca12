/*
 * Reads JSON as a stream, without a document tree, for lists of several hundred thousand items. As
 * strict as format/json.h: escapes, UTF-8 and numbers are checked, and whatever does not follow
 * the grammar is an error with its offset. What a caller has no use for it hands to format/json.h.
 */
#ifndef SLUICE_FORMAT_JSON_CURSOR_H
#define SLUICE_FORMAT_JSON_CURSOR_H

#include "base/map.h"
#include "base/text_buffer.h"
#include "format/json.h"

/* A position in a text. */
struct json_cursor {
    const uint8_t *p, *end;
    const uint8_t *start;
    const char *file, *field; /* for messages: field is what the text is */
};

/* FORMAT at the cursor's position. */
enum sluice_status json_cursor_fail(const struct json_cursor *cursor, const char *what,
                                    struct sluice_error *err);
/* The next byte that is not white space, or 0 at the end; not consumed. */
uint8_t json_cursor_peek(struct json_cursor *cursor);
/* Consumes the byte c, which must come next. */
enum sluice_status json_cursor_expect(struct json_cursor *cursor, char c, struct sluice_error *err);
/*
 * Goes to the next item of a list that ends with close: consumes what lies between and sets *more,
 * or consumes close. first: no item was read yet.
 */
enum sluice_status json_cursor_item(struct json_cursor *cursor, bool first, char close, bool *more,
                                    struct sluice_error *err);
/* Appends the next value, a string, to out as UTF-8. Errors: FORMAT, NOMEM. */
enum sluice_status json_cursor_string(struct json_cursor *cursor, struct text_buffer *out,
                                      struct sluice_error *err);
/*
 * The next value, a string without NUL, as UTF-8: a part of the text or, when it is not written as
 * it is, the new content of scratch. Errors: FORMAT, NOMEM.
 */
enum sluice_status json_cursor_view(struct json_cursor *cursor, struct text_buffer *scratch,
                                    struct span *out, struct sluice_error *err);
/* The next value, an integer in [0, max]. */
enum sluice_status json_cursor_u32(struct json_cursor *cursor, uint32_t max, uint32_t *out,
                                   struct sluice_error *err);
/* True when the next value is an integer, written as such, that fits; else nothing is consumed. */
bool json_cursor_i64(struct json_cursor *cursor, int64_t *out);
/*
 * The text of the next value, of at most this many levels of arrays and objects, if that is JSON;
 * if not, an error or some text: whoever reads it must judge it.
 */
enum sluice_status json_cursor_cut(struct json_cursor *cursor, size_t levels, struct span *out,
                                   struct sluice_error *err);
/* The next value as a tree (json_decref), NULL on error. Errors: FORMAT, NOMEM. */
enum sluice_status json_cursor_value(struct json_cursor *cursor, size_t levels, json_t **out,
                                     struct sluice_error *err);
/* Goes behind the next value, which must be JSON. Errors: FORMAT, NOMEM. */
enum sluice_status json_cursor_skip(struct json_cursor *cursor, size_t levels,
                                    struct sluice_error *err);
/* FORMAT: an object has key, which was read just now, a second time. */
enum sluice_status json_cursor_twice(const struct json_cursor *cursor, struct span key,
                                     struct sluice_error *err);
/*
 * Adds key, which was read just now and outlives keys, with a value. Errors: FORMAT (the object
 * has it twice), NOMEM.
 */
enum sluice_status json_cursor_add_key(const struct json_cursor *cursor, struct map *keys,
                                       struct span key, uint32_t value, struct sluice_error *err);
/* Nothing but white space follows. */
enum sluice_status json_cursor_finish(struct json_cursor *cursor, struct sluice_error *err);

#endif
