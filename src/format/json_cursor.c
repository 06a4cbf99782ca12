#include "format/json_cursor.h"

#include <stdio.h>

#include "base/bits.h"
#include "base/utf8.h"

enum { WHERE_MAX = 512, KEY_SHOWN = 300 };

enum sluice_status json_cursor_fail(const struct json_cursor *cursor, const char *what,
                                    struct sluice_error *err)
{
    return err_set(err, SLUICE_E_FORMAT, "%s: %s: %s at byte %zu of it", cursor->file,
                   cursor->field, what, (size_t)(cursor->p - cursor->start));
}

uint8_t json_cursor_peek(struct json_cursor *cursor)
{
    const uint8_t *p = cursor->p;
    while (p < cursor->end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
    cursor->p = p;
    return p < cursor->end ? *p : 0;
}

enum sluice_status json_cursor_expect(struct json_cursor *cursor, char c, struct sluice_error *err)
{
    if (json_cursor_peek(cursor) != (uint8_t)c) {
        char what[] = "'?' expected";
        what[1] = c;
        return json_cursor_fail(cursor, what, err);
    }
    cursor->p++;
    return SLUICE_OK;
}

enum sluice_status json_cursor_item(struct json_cursor *cursor, bool first, char close, bool *more,
                                    struct sluice_error *err)
{
    uint8_t c = json_cursor_peek(cursor);
    *more = c != (uint8_t)close;
    if (!*more) {
        cursor->p++;
        return SLUICE_OK;
    }
    if (first) return SLUICE_OK;
    return json_cursor_expect(cursor, ',', err);
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The four digits at p; -1 when there are not four. */
static int32_t hex4(const uint8_t *p, const uint8_t *end)
{
    int32_t value = 0;
    if (end - p < 4) return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(p[i]);
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* \uXXXX or a surrogate pair of them; *p is behind the backslash and 'u'. */
static bool unicode_escape(const uint8_t **p, const uint8_t *end, uint32_t *cp)
{
    int32_t hi = hex4(*p, end);
    if (hi < 0 || (hi >= 0xdc00 && hi <= 0xdfff)) return false;
    *p += 4;
    *cp = (uint32_t)hi;
    if (hi < 0xd800 || hi > 0xdbff) return true;
    if (end - *p < 6 || (*p)[0] != '\\' || (*p)[1] != 'u') return false;
    int32_t lo = hex4(*p + 2, end);
    if (lo < 0xdc00 || lo > 0xdfff) return false;
    *p += 6;
    *cp = 0x10000u + ((uint32_t)(hi - 0xd800) << 10) + (uint32_t)(lo - 0xdc00);
    return true;
}

/* Appends what the escape at cursor->p, behind the backslash, stands for. Room is there. */
static bool string_escape(struct json_cursor *cursor, struct text_buffer *out)
{
    static const char names[] = "\"\\/bfnrt";
    static const char values[] = "\"\\/\b\f\n\r\t";
    if (cursor->p == cursor->end) return false;
    uint8_t c = *cursor->p++;
    if (c == 'u') {
        uint32_t cp;
        if (!unicode_escape(&cursor->p, cursor->end, &cp)) return false;
        out->n += utf8_put(cp, out->data + out->n);
        return true;
    }
    const char *at = c ? strchr(names, c) : NULL;
    if (!at) return false;
    out->data[out->n++] = (uint8_t)values[at - names];
    return true;
}

enum sluice_status json_cursor_string(struct json_cursor *cursor, struct text_buffer *out,
                                      struct sluice_error *err)
{
    if (json_cursor_peek(cursor) != '"') return json_cursor_fail(cursor, "string expected", err);
    size_t from = out->n;
    cursor->p++;
    for (;;) {
        const uint8_t *run = cursor->p;
        while (cursor->p < cursor->end && *cursor->p != '"' && *cursor->p != '\\') {
            if (*cursor->p < 0x20)
                return json_cursor_fail(cursor, "control character in a string", err);
            cursor->p++;
        }
        size_t len = (size_t)(cursor->p - run);
        if (cursor->p == cursor->end) return json_cursor_fail(cursor, "string without an end", err);
        if (!text_reserve(out, len + 4)) return err_nomem(err, cursor->field, len);
        text_append(out, run, len);
        if (*cursor->p++ == '"') break;
        if (!string_escape(cursor, out)) return json_cursor_fail(cursor, "bad escape", err);
    }
    if (!utf8_valid(span_of(out->data + from, out->n - from)))
        return json_cursor_fail(cursor, "string that is not UTF-8 before this", err);
    return SLUICE_OK;
}

/* Some byte of word is c. */
static bool word_has(uint64_t word, uint8_t c)
{
    uint64_t x = word ^ (c * 0x0101010101010101u);
    return ((x - 0x0101010101010101u) & ~x & 0x8080808080808080u) != 0;
}

/* The first byte that does not stand for itself in a string, or end. */
static const uint8_t *skip_plain(const uint8_t *p, const uint8_t *end)
{
    while (end - p >= 8) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        uint64_t control = (word - 0x2020202020202020u) & ~word;
        if (((word | control) & 0x8080808080808080u) || word_has(word, '"') || word_has(word, '\\'))
            break;
        p += 8;
    }
    while (p < end && *p >= 0x20 && *p < 0x80 && *p != '"' && *p != '\\') p++;
    return p;
}

enum sluice_status json_cursor_view(struct json_cursor *cursor, struct text_buffer *scratch,
                                    struct span *out, struct sluice_error *err)
{
    if (json_cursor_peek(cursor) == '"') {
        const uint8_t *from = cursor->p + 1;
        const uint8_t *to = skip_plain(from, cursor->end);
        if (to < cursor->end && *to == '"') {
            cursor->p = to + 1;
            *out = span_of(from, (size_t)(to - from));
            return SLUICE_OK;
        }
    }
    scratch->n = 0;
    TRY(json_cursor_string(cursor, scratch, err));
    *out = text_span(scratch);
    if (out->len && memchr(out->data, 0, out->len))
        return json_cursor_fail(cursor, "\\u0000 in a string before this", err);
    return SLUICE_OK;
}

enum sluice_status json_cursor_u32(struct json_cursor *cursor, uint32_t max, uint32_t *out,
                                   struct sluice_error *err)
{
    uint8_t c = json_cursor_peek(cursor);
    if (c < '0' || c > '9') return json_cursor_fail(cursor, "integer from 0 on expected", err);
    const uint8_t *start = cursor->p;
    uint64_t value = 0;
    while (cursor->p < cursor->end && *cursor->p >= '0' && *cursor->p <= '9' && value <= max)
        value = value * 10 + (uint64_t)(*cursor->p++ - '0');
    if (value > max) {
        char what[64];
        snprintf(what, sizeof what, "integer above the limit of %u", max);
        return json_cursor_fail(cursor, what, err);
    }
    bool padded = *start == '0' && cursor->p - start > 1;
    uint8_t next = cursor->p < cursor->end ? *cursor->p : 0;
    if (padded || next == '.' || next == 'e' || next == 'E')
        return json_cursor_fail(cursor, "integer written as such expected", err);
    *out = (uint32_t)value;
    return SLUICE_OK;
}

bool json_cursor_i64(struct json_cursor *cursor, int64_t *out)
{
    uint8_t c = json_cursor_peek(cursor);
    const uint8_t *p = cursor->p;
    bool negative = c == '-';
    if (negative) p++;
    const uint8_t *digits = p;
    uint64_t value = 0;
    for (; p < cursor->end && *p >= '0' && *p <= '9'; p++)
        if (!mul_u64(value, 10, &value) || !add_u64(value, (uint64_t)(*p - '0'), &value))
            return false;
    if (p == digits || (*digits == '0' && p - digits > 1)) return false;
    if (p < cursor->end && (*p == '.' || *p == 'e' || *p == 'E')) return false;
    if (value > (uint64_t)INT64_MAX + negative) return false;
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    cursor->p = p;
    return true;
}

static bool cut_string(struct json_cursor *cursor)
{
    for (cursor->p++; cursor->p < cursor->end; cursor->p++) {
        if (*cursor->p == '"') {
            cursor->p++;
            return true;
        }
        if (*cursor->p == '\\' && ++cursor->p == cursor->end) break;
    }
    return false;
}

static bool ends_scalar(uint8_t c)
{
    return c == ',' || c == ':' || c == ']' || c == '}' || c == ' ' || c == '\n' || c == '\r' ||
           c == '\t';
}

static bool cut_scalar(struct json_cursor *cursor)
{
    const uint8_t *start = cursor->p;
    while (cursor->p < cursor->end && !ends_scalar(*cursor->p)) cursor->p++;
    return cursor->p > start;
}

enum sluice_status json_cursor_cut(struct json_cursor *cursor, size_t levels, struct span *out,
                                   struct sluice_error *err)
{
    json_cursor_peek(cursor);
    const uint8_t *start = cursor->p;
    size_t depth = 0;
    do {
        uint8_t c = json_cursor_peek(cursor);
        if (c == '[' || c == '{') {
            if (depth == levels) return json_cursor_fail(cursor, "value nested too deep", err);
            depth++;
            cursor->p++;
        } else if (depth > 0 && (c == ']' || c == '}')) {
            depth--;
            cursor->p++;
        } else if (depth > 0 && (c == ',' || c == ':')) {
            cursor->p++;
        } else if (c == '"') {
            if (!cut_string(cursor)) return json_cursor_fail(cursor, "string without an end", err);
        } else if (!cut_scalar(cursor)) {
            return json_cursor_fail(cursor, "value expected", err);
        }
    } while (depth > 0);
    *out = span_of(start, (size_t)(cursor->p - start));
    return SLUICE_OK;
}

enum sluice_status json_cursor_value(struct json_cursor *cursor, size_t levels, json_t **out,
                                     struct sluice_error *err)
{
    *out = NULL;
    struct span text;
    TRY(json_cursor_cut(cursor, levels, &text, err));
    char where[WHERE_MAX];
    snprintf(where, sizeof where, "%s: %s: value at byte %zu of it", cursor->file, cursor->field,
             (size_t)(text.data - cursor->start));
    return json_parse(text, where, out, err);
}

enum sluice_status json_cursor_skip(struct json_cursor *cursor, size_t levels,
                                    struct sluice_error *err)
{
    json_t *value;
    TRY(json_cursor_value(cursor, levels, &value, err));
    json_decref(value);
    return SLUICE_OK;
}

enum sluice_status json_cursor_twice(const struct json_cursor *cursor, struct span key,
                                     struct sluice_error *err)
{
    return err_set(err, SLUICE_E_FORMAT, "%s: %s: key '%.*s' appears twice at byte %zu of it",
                   cursor->file, cursor->field, key.len < KEY_SHOWN ? (int)key.len : KEY_SHOWN,
                   (const char *)key.data, (size_t)(cursor->p - cursor->start));
}

enum sluice_status json_cursor_add_key(const struct json_cursor *cursor, struct map *keys,
                                       struct span key, uint32_t value, struct sluice_error *err)
{
    enum map_put put = map_put(keys, key, value);
    if (put == MAP_NEW) return SLUICE_OK;
    if (put == MAP_NOMEM) return err_nomem(err, cursor->field, keys->cap * sizeof *keys->slots);
    return json_cursor_twice(cursor, key, err);
}

enum sluice_status json_cursor_finish(struct json_cursor *cursor, struct sluice_error *err)
{
    if (json_cursor_peek(cursor) != 0 || cursor->p != cursor->end)
        return json_cursor_fail(cursor, "text behind the value", err);
    return SLUICE_OK;
}
