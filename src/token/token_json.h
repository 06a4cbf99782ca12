/*
 * Reads a tokenizer.json. Its two big values, model.vocab and model.merges, hold several hundred
 * thousand strings; a document tree of them costs 100 MB and half a second, so they are cut out
 * and read as a stream here, and the rest of the document goes through format/json.h, which also
 * judges everything that surrounds them. As strict as there: escapes, UTF-8 and numbers are
 * checked, and whatever does not follow the grammar is an error with its offset.
 */
#ifndef SLUICE_TOKEN_TOKEN_JSON_H
#define SLUICE_TOKEN_TOKEN_JSON_H

#include "format/json.h"
#include "base/text_buffer.h"

struct token_json {
    json_t *rest;       /* the document, the two values replaced by null */
    struct span vocab;  /* text of model.vocab; data NULL when absent */
    struct span merges; /* text of model.merges; data NULL when absent */
};

/* text outlives *out; file is for messages. Errors: FORMAT, NOMEM. */
enum sluice_status token_json_split(struct span text, const char *file, struct token_json *out,
                                    struct sluice_error *err);
void token_json_release(struct token_json *json);

/* A position in one of the two values. */
struct json_cursor {
    const uint8_t *p, *end;
    const uint8_t *start;
    const char *file, *field; /* for messages */
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
/* The next value, an integer in [0, max]. */
enum sluice_status json_cursor_u32(struct json_cursor *cursor, uint32_t max, uint32_t *out,
                                   struct sluice_error *err);
/* Nothing but white space follows. */
enum sluice_status json_cursor_finish(struct json_cursor *cursor, struct sluice_error *err);

#endif
