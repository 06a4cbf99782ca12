#include "token/token_json.h"

#include "base/text_buffer.h"
#include "format/json_cursor.h"

/*
 * Cutting only has to find where a value ends in a document that is correct: what it steps over is
 * read by one of the two strict readers afterwards.
 */
static bool cut_value(struct json_cursor *cursor, struct span *out)
{
    return json_cursor_cut(cursor, JSON_MAX_DEPTH, out, NULL) == SLUICE_OK;
}

static bool skip_byte(struct json_cursor *cursor, char c)
{
    return json_cursor_expect(cursor, c, NULL) == SLUICE_OK;
}

typedef bool visit_fn(struct json_cursor *cursor, struct span key, struct token_json *out);

/* Calls visit at the value of each member of the object at cursor; visit moves behind the value. */
static bool skip_object(struct json_cursor *cursor, visit_fn *visit, struct token_json *out)
{
    if (!skip_byte(cursor, '{')) return false;
    for (bool first = true, more;; first = false) {
        if (json_cursor_item(cursor, first, '}', &more, NULL) != SLUICE_OK) return false;
        if (!more) return true;
        struct span key;
        if (json_cursor_peek(cursor) != '"' || !cut_value(cursor, &key)) return false;
        if (!skip_byte(cursor, ':')) return false;
        json_cursor_peek(cursor);
        if (!visit(cursor, span_of(key.data + 1, key.len - 2), out)) return false;
    }
}

static bool visit_model(struct json_cursor *cursor, struct span key, struct token_json *out)
{
    struct span *cut = span_equal(key, span_str("vocab"))    ? &out->vocab
                       : span_equal(key, span_str("merges")) ? &out->merges
                                                             : NULL;
    struct span value;
    if (!cut_value(cursor, &value)) return false;
    /* A second value of the same name stays where the strict reader will see it twice. */
    if (cut && !cut->data) *cut = value;
    return true;
}

static bool visit_top(struct json_cursor *cursor, struct span key, struct token_json *out)
{
    bool is_model = span_equal(key, span_str("model")) && !out->vocab.data && !out->merges.data;
    if (is_model && json_cursor_peek(cursor) == '{') return skip_object(cursor, visit_model, out);
    struct span value;
    return cut_value(cursor, &value);
}

/* "null" in place of cut, with as many line ends, so that lines of messages stay true. */
static bool append_null(struct text_buffer *rest, struct span cut)
{
    if (!text_append(rest, "null", 4)) return false;
    for (size_t i = 0; i < cut.len; i++)
        if (cut.data[i] == '\n' && !text_append(rest, "\n", 1)) return false;
    return true;
}

static bool append_rest(struct text_buffer *rest, struct span text, const struct token_json *json)
{
    struct span a = json->vocab;
    struct span b = json->merges;
    if (!a.data || (b.data && b.data < a.data)) {
        a = json->merges;
        b = json->vocab;
    }
    const uint8_t *from = text.data;
    const struct span cuts[] = {a, b};
    for (size_t i = 0; i < COUNT_OF(cuts); i++) {
        if (!cuts[i].data) continue;
        if (!text_append(rest, from, (size_t)(cuts[i].data - from))) return false;
        if (!append_null(rest, cuts[i])) return false;
        from = cuts[i].data + cuts[i].len;
    }
    return text_append(rest, from, (size_t)(text.data + text.len - from));
}

enum sluice_status token_json_split(struct span text, const char *file, struct token_json *out,
                                    struct sluice_error *err)
{
    *out = (struct token_json){0};
    struct json_cursor cursor = {
        .p = text.data, .end = text.data + text.len, .start = text.data, .file = file, .field = ""};
    if (text.len == 0 || !skip_object(&cursor, visit_top, out)) {
        *out = (struct token_json){0};
        return json_parse(text, file, &out->rest, err);
    }
    struct text_buffer rest = {0};
    enum sluice_status status;
    if (append_rest(&rest, text, out))
        status = json_parse(text_span(&rest), file, &out->rest, err);
    else
        status = err_nomem(err, file, text.len);
    text_release(&rest);
    return status;
}

void token_json_release(struct token_json *json)
{
    json_decref(json->rest);
    *json = (struct token_json){0};
}
