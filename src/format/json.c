#include "format/json.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { FOUND_MAX = 96, WANTED_MAX = 96 };

static enum sluice_status error_at(struct span text, size_t at, const char *file, const char *what,
                                   struct sluice_error *err)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at; i++) {
        column++;
        if (text.data[i] != '\n') continue;
        line++;
        column = 1;
    }
    return err_set(err, SLUICE_E_FORMAT, "%s: line %zu, column %zu: %s", file, line, column, what);
}

static bool starts_with(struct span text, size_t at, const char *word)
{
    struct span part;
    return span_slice(text, at, strlen(word), &part) && span_equal(part, span_str(word));
}

/* The index of the quote that ends the string opened at text[at], or text.len. */
static size_t string_end(struct span text, size_t at)
{
    for (at++; at < text.len && text.data[at] != '"'; at++)
        if (text.data[at] == '\\') at++;
    return at < text.len ? at : text.len;
}

/*
 * One pass before the parser, which recurses and so must not see deep nesting, which overlooks a
 * NUL behind a number or a word, and whose message for the constants that Python writes would say
 * little.
 */
static enum sluice_status scan(struct span text, const char *file, struct sluice_error *err)
{
    int depth = 0;
    for (size_t i = 0; i < text.len; i++) {
        switch (text.data[i]) {
        case '"': i = string_end(text, i); break;
        case '[':
        case '{':
            if (++depth > JSON_MAX_DEPTH)
                return error_at(text, i, file, "nested deeper than 64 levels", err);
            break;
        case ']':
        case '}': depth--; break;
        case '\0': return error_at(text, i, file, "found a NUL byte, which is not JSON", err);
        case 'N':
            if (starts_with(text, i, "NaN"))
                return error_at(text, i, file, "found NaN, which is not JSON; a number is needed",
                                err);
            break;
        case 'I':
            if (starts_with(text, i, "Infinity"))
                return error_at(text, i, file,
                                "found Infinity, which is not JSON; a number is needed", err);
            break;
        default: break;
        }
    }
    return SLUICE_OK;
}

_Static_assert(JSON_MAX_DEPTH == 64, "scan() says the number");

/* The string that ends just before text[end], without quotes; the parser has accepted it. */
static struct span last_string(struct span text, size_t end)
{
    if (end < 2 || end > text.len) return span_str("");
    size_t begin = end - 1;
    while (begin > 0) {
        begin--;
        if (text.data[begin] != '"') continue;
        size_t slashes = 0;
        while (slashes < begin && text.data[begin - 1 - slashes] == '\\') slashes++;
        if (slashes % 2 == 0) break;
    }
    return span_of(text.data + begin + 1, end - begin - 2);
}

/* The parser's error as ours. It leaves tokens of more than 20 bytes out; a key must be named. */
static enum sluice_status parser_error(struct span text, const char *file, json_error_t *found,
                                       struct sluice_error *err)
{
    enum json_error_code code = json_error_code(found);
    if (code == json_error_out_of_memory || found->text[0] == '\0')
        return err_nomem(err, file, text.len);
    for (char *c = found->text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    if (code != json_error_duplicate_key)
        return err_set(err, SLUICE_E_FORMAT, "%s: line %d, column %d: %s", file, found->line,
                       found->column, found->text);
    struct span key = last_string(text, (size_t)found->position);
    return err_set(err, SLUICE_E_FORMAT, "%s: line %d, column %d: key '%.*s' appears twice", file,
                   found->line, found->column, key.len < 300 ? (int)key.len : 300, key.data);
}

enum sluice_status json_parse(struct span text, const char *file, json_t **out,
                              struct sluice_error *err)
{
    *out = NULL;
    if (text.len == 0) return err_set(err, SLUICE_E_FORMAT, "%s: is empty, not JSON", file);
    if (starts_with(text, 0, "\xef\xbb\xbf"))
        return err_set(err, SLUICE_E_FORMAT,
                       "%s: begins with a UTF-8 byte order mark, which JSON does not allow; save "
                       "it without one",
                       file);
    if (starts_with(text, 0, "version https://git-lfs"))
        return err_set(err, SLUICE_E_FORMAT,
                       "%s: is a Git LFS pointer, not the file itself; 'git lfs pull' gets it",
                       file);
    TRY(scan(text, file, err));
    json_error_t found;
    *out = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY,
                      &found);
    return *out ? SLUICE_OK : parser_error(text, file, &found, err);
}

/* Shortest decimal of the usual lengths that reads back as x. */
static void print_double(char *out, size_t cap, double x)
{
    snprintf(out, cap, "%.6g", x);
    if (strtod(out, NULL) < x || strtod(out, NULL) > x) snprintf(out, cap, "%.17g", x);
}

static void print_string(char *out, size_t cap, const json_t *value)
{
    char *quoted = json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    if (quoted && strlen(quoted) > 60)
        snprintf(out, cap, "the string %.56s...\"", quoted);
    else
        snprintf(out, cap, "the string %s", quoted ? quoted : "");
    free(quoted);
}

/* What a person would call the value. */
static void print_value(char *out, size_t cap, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: snprintf(out, cap, "an object"); break;
    case JSON_ARRAY: snprintf(out, cap, "an array"); break;
    case JSON_STRING: print_string(out, cap, value); break;
    case JSON_INTEGER: snprintf(out, cap, "%lld", (long long)json_integer_value(value)); break;
    case JSON_REAL: print_double(out, cap, json_real_value(value)); break;
    case JSON_TRUE: snprintf(out, cap, "true"); break;
    case JSON_FALSE: snprintf(out, cap, "false"); break;
    case JSON_NULL: snprintf(out, cap, "null"); break;
    }
}

enum sluice_status json_expect_object(const json_t *value, const char *file, const char *path,
                                      struct sluice_error *err)
{
    if (json_is_object(value)) return SLUICE_OK;
    char found[FOUND_MAX] = "missing";
    if (value) print_value(found, sizeof found, value);
    return err_set(err, SLUICE_E_FORMAT, "%s: %s%sis %s, but must be an object", file, path,
                   path[0] ? " " : "", found);
}

/* NULL when absent or null. */
static const json_t *lookup(const struct json_node *node, const char *key)
{
    const json_t *value = json_object_get(node->object, key);
    return json_is_null(value) ? NULL : value;
}

bool json_has(const struct json_node *node, const char *key)
{
    return lookup(node, key) != NULL;
}

/* The error for a value that is missing (NULL) or not what is wanted. */
static enum sluice_status refuse(const struct json_node *node, const char *key, const json_t *value,
                                 const char *wanted, struct sluice_error *err)
{
    const char *path = node->path ? node->path : "";
    const char *dot = path[0] ? "." : "";
    if (!value)
        return err_set(err, SLUICE_E_NOT_FOUND, "%s: %s%s%s is missing; it must be %s", node->file,
                       path, dot, key, wanted);
    char found[FOUND_MAX];
    print_value(found, sizeof found, value);
    return err_set(err, SLUICE_E_FORMAT, "%s: %s%s%s is %s, but must be %s", node->file, path, dot,
                   key, found, wanted);
}

static bool as_u32(const json_t *value, uint32_t min, uint32_t max, uint32_t *out)
{
    if (json_is_integer(value)) {
        json_int_t i = json_integer_value(value);
        if (i < (json_int_t)min || i > (json_int_t)max) return false;
        *out = (uint32_t)i;
        return true;
    }
    if (!json_is_real(value)) return false;
    double x = json_real_value(value);
    if (!(x >= min && x <= max) || x > floor(x)) return false;
    *out = (uint32_t)x;
    return true;
}

enum sluice_status json_get_u32(const struct json_node *node, const char *key, uint32_t min,
                                uint32_t max, uint32_t *out, struct sluice_error *err)
{
    const json_t *value = lookup(node, key);
    if (as_u32(value, min, max, out)) return SLUICE_OK;
    char wanted[WANTED_MAX];
    snprintf(wanted, sizeof wanted, "an integer from %u to %u", min, max);
    return refuse(node, key, value, wanted, err);
}

enum sluice_status json_get_u32_or(const struct json_node *node, const char *key, uint32_t min,
                                   uint32_t max, uint32_t fallback, uint32_t *out,
                                   struct sluice_error *err)
{
    if (json_has(node, key)) return json_get_u32(node, key, min, max, out, err);
    *out = fallback;
    return SLUICE_OK;
}

static void print_range(char *out, size_t cap, double min, double max)
{
    char low[32], high[32];
    print_double(low, sizeof low, min);
    print_double(high, sizeof high, max);
    if (min > -DBL_MAX && max < DBL_MAX)
        snprintf(out, cap, "a number from %s to %s", low, high);
    else if (min > -DBL_MAX)
        snprintf(out, cap, "a number of at least %s", low);
    else if (max < DBL_MAX)
        snprintf(out, cap, "a number of at most %s", high);
    else
        snprintf(out, cap, "a finite number");
}

enum sluice_status json_get_f64(const struct json_node *node, const char *key, double min,
                                double max, double *out, struct sluice_error *err)
{
    const json_t *value = lookup(node, key);
    if (json_is_number(value)) {
        double x = json_number_value(value);
        if (isfinite(x) && x >= min && x <= max) {
            *out = x;
            return SLUICE_OK;
        }
    }
    char wanted[WANTED_MAX];
    print_range(wanted, sizeof wanted, min, max);
    return refuse(node, key, value, wanted, err);
}

enum sluice_status json_get_f64_or(const struct json_node *node, const char *key, double min,
                                   double max, double fallback, double *out,
                                   struct sluice_error *err)
{
    if (json_has(node, key)) return json_get_f64(node, key, min, max, out, err);
    *out = fallback;
    return SLUICE_OK;
}

enum sluice_status json_get_bool_or(const struct json_node *node, const char *key, bool fallback,
                                    bool *out, struct sluice_error *err)
{
    const json_t *value = lookup(node, key);
    if (value && !json_is_boolean(value)) return refuse(node, key, value, "true or false", err);
    *out = value ? json_is_true(value) : fallback;
    return SLUICE_OK;
}

enum sluice_status json_get_string(const struct json_node *node, const char *key, const char **out,
                                   struct sluice_error *err)
{
    const json_t *value = lookup(node, key);
    if (!json_is_string(value)) return refuse(node, key, value, "a string", err);
    *out = json_string_value(value);
    return SLUICE_OK;
}

enum sluice_status json_get_string_or(const struct json_node *node, const char *key,
                                      const char *fallback, const char **out,
                                      struct sluice_error *err)
{
    if (json_has(node, key)) return json_get_string(node, key, out, err);
    *out = fallback;
    return SLUICE_OK;
}

enum sluice_status json_get_object_or(const struct json_node *node, const char *key,
                                      struct json_node *out, struct sluice_error *err)
{
    const json_t *value = lookup(node, key);
    if (value && !json_is_object(value)) return refuse(node, key, value, "an object", err);
    *out = (struct json_node){.object = value, .file = node->file, .path = key};
    return SLUICE_OK;
}
