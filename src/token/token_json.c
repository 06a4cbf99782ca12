#include "token/token_json.h"

/*
 * Skipping only has to find where a value ends in a document that is correct: what it steps over
 * is read by one of the two strict readers afterwards.
 */
struct skipper {
    const uint8_t *p, *end;
};

static bool skip_space(struct skipper *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
        s->p++;
    return s->p < s->end;
}

static bool skip_string(struct skipper *s)
{
    if (s->p == s->end || *s->p != '"') return false;
    for (s->p++; s->p < s->end; s->p++) {
        if (*s->p == '"') {
            s->p++;
            return true;
        }
        if (*s->p == '\\' && ++s->p == s->end) break;
    }
    return false;
}

static bool ends_scalar(uint8_t c)
{
    return c == ',' || c == ']' || c == '}' || c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static bool skip_value(struct skipper *s)
{
    size_t depth = 0;
    do {
        if (!skip_space(s)) return false;
        uint8_t c = *s->p;
        if (c == '"') {
            if (!skip_string(s)) return false;
        } else if (c == '[' || c == '{') {
            depth++;
            s->p++;
        } else if (c == ']' || c == '}') {
            if (depth == 0) return false;
            depth--;
            s->p++;
        } else if (depth > 0 && (c == ',' || c == ':')) {
            s->p++;
        } else {
            const uint8_t *start = s->p;
            while (s->p < s->end && !ends_scalar(*s->p) && *s->p != ':') s->p++;
            if (s->p == start) return false;
        }
    } while (depth > 0);
    return true;
}

static bool skip_byte(struct skipper *s, char c)
{
    if (!skip_space(s) || *s->p != (uint8_t)c) return false;
    s->p++;
    return true;
}

typedef bool visit_fn(struct skipper *s, struct span key, struct token_json *out);

/* Calls visit at the value of each member of the object at s; visit moves behind the value. */
static bool skip_object(struct skipper *s, visit_fn *visit, struct token_json *out)
{
    if (!skip_byte(s, '{') || !skip_space(s)) return false;
    if (*s->p == '}') return skip_byte(s, '}');
    for (;;) {
        if (!skip_space(s)) return false;
        const uint8_t *key = s->p;
        if (!skip_string(s)) return false;
        struct span name = span_of(key + 1, (size_t)(s->p - key) - 2);
        if (!skip_byte(s, ':') || !skip_space(s) || !visit(s, name, out)) return false;
        if (!skip_space(s)) return false;
        if (*s->p == '}') return skip_byte(s, '}');
        if (!skip_byte(s, ',')) return false;
    }
}

static bool visit_model(struct skipper *s, struct span key, struct token_json *out)
{
    struct span *cut = span_equal(key, span_str("vocab"))    ? &out->vocab
                       : span_equal(key, span_str("merges")) ? &out->merges
                                                             : NULL;
    const uint8_t *start = s->p;
    if (!skip_value(s)) return false;
    /* A second value of the same name stays where the strict reader will see it twice. */
    if (cut && !cut->data) *cut = span_of(start, (size_t)(s->p - start));
    return true;
}

static bool visit_top(struct skipper *s, struct span key, struct token_json *out)
{
    bool is_model = span_equal(key, span_str("model")) && !out->vocab.data && !out->merges.data;
    if (is_model && *s->p == '{') return skip_object(s, visit_model, out);
    return skip_value(s);
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
    struct skipper s = {text.data, text.data + text.len};
    if (text.len == 0 || !skip_object(&s, visit_top, out)) {
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
