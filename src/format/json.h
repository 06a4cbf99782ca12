/*
 * Strict JSON for configuration files, over Jansson: duplicate keys, trailing text, NaN and deep
 * nesting are errors; every getter says in a sentence which field of which file is wrong.
 */
#ifndef SLUICE_FORMAT_JSON_H
#define SLUICE_FORMAT_JSON_H

#include <jansson.h>

#include "base/err.h"
#include "base/span.h"

/* Levels of arrays and objects. */
enum { JSON_MAX_DEPTH = 64 };

/*
 * Parses text, which may be any JSON value; file is used in messages only. *out is a new reference
 * (json_decref), NULL on error. Errors: FORMAT with line and column, NOMEM.
 */
enum sluice_status json_parse(struct span text, const char *file, json_t **out,
                              struct sluice_error *err);

/*
 * An object inside a file. path is "" (or NULL) at the top, else like "text_config"; it and file
 * are for messages. An object of NULL has no keys. Borrowed pointers.
 */
struct json_node {
    const json_t *object;
    const char *file;
    const char *path;
};

/* FORMAT unless value is an object. path is what messages call it, "" for the whole file. */
enum sluice_status json_expect_object(const json_t *value, const char *file, const char *path,
                                      struct sluice_error *err);

/* True when key is present and not null. */
bool json_has(const struct json_node *node, const char *key);

/*
 * Getters. A *_or form uses fallback when the key is absent or null; the others require it
 * (NOT_FOUND). A value of another type, not finite, or outside [min, max] is FORMAT; integers may
 * not have fractions (8.0 is 8). On error *out is unchanged.
 */
enum sluice_status json_get_u32(const struct json_node *node, const char *key, uint32_t min,
                                uint32_t max, uint32_t *out, struct sluice_error *err);
enum sluice_status json_get_u32_or(const struct json_node *node, const char *key, uint32_t min,
                                   uint32_t max, uint32_t fallback, uint32_t *out,
                                   struct sluice_error *err);
enum sluice_status json_get_f64(const struct json_node *node, const char *key, double min,
                                double max, double *out, struct sluice_error *err);
enum sluice_status json_get_f64_or(const struct json_node *node, const char *key, double min,
                                   double max, double fallback, double *out,
                                   struct sluice_error *err);
enum sluice_status json_get_bool_or(const struct json_node *node, const char *key, bool fallback,
                                    bool *out, struct sluice_error *err);
/* *out is borrowed from the document. */
enum sluice_status json_get_string(const struct json_node *node, const char *key, const char **out,
                                   struct sluice_error *err);
enum sluice_status json_get_string_or(const struct json_node *node, const char *key,
                                      const char *fallback, const char **out,
                                      struct sluice_error *err);
/*
 * out->object is NULL when the key is absent or null; the new path is key (a literal), so a caller
 * that goes down twice sets out->path to the whole path. out may be node.
 */
enum sluice_status json_get_object_or(const struct json_node *node, const char *key,
                                      struct json_node *out, struct sluice_error *err);

#endif
