/* The strict reader of token_json.h: what model.vocab and model.merges are made of. */
#include <stdio.h>

#include "token/token_json.h"
#include "base/utf8.h"

enum sluice_status json_cursor_fail(const struct json_cursor *cursor, const char *what,
                                    struct sluice_error *err)
{
    return err_set(err, SLUICE_E_FORMAT, "%s: %s: %s at byte %zu of its value", cursor->file,
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

enum sluice_status json_cursor_finish(struct json_cursor *cursor, struct sluice_error *err)
{
    if (json_cursor_peek(cursor) != 0 || cursor->p != cursor->end)
        return json_cursor_fail(cursor, "text behind the value", err);
    return SLUICE_OK;
}
