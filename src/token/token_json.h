/*
 * Reads a tokenizer.json. Its two big values, model.vocab and model.merges, hold several hundred
 * thousand strings; a document tree of them costs 100 MB and half a second, so they are cut out
 * for format/json_cursor.h, and the rest of the document goes through format/json.h, which also
 * judges everything that surrounds them.
 */
#ifndef SLUICE_TOKEN_TOKEN_JSON_H
#define SLUICE_TOKEN_TOKEN_JSON_H

#include "format/json.h"

struct token_json {
    json_t *rest;       /* the document, the two values replaced by null */
    struct span vocab;  /* text of model.vocab; data NULL when absent */
    struct span merges; /* text of model.merges; data NULL when absent */
};

/* text outlives *out; file is for messages. Errors: FORMAT, NOMEM. */
enum sluice_status token_json_split(struct span text, const char *file, struct token_json *out,
                                    struct sluice_error *err);
void token_json_release(struct token_json *json);

#endif
