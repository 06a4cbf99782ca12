#include "idfile.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "input.h"
#include "report.h"

bool ids_push(struct ids *ids, int32_t id)
{
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? ids->cap * 2 : 256;
        if (cap > SIZE_MAX / sizeof *ids->items / 2) return false;
        int32_t *grown = realloc(ids->items, cap * sizeof *grown);
        if (!grown) return false;
        ids->items = grown;
        ids->cap = cap;
    }
    ids->items[ids->n++] = id;
    return true;
}

void ids_release(struct ids *ids)
{
    free(ids->items);
    *ids = (struct ids){0};
}

static bool is_separator(char c)
{
    return c == ' ' || c == ',' || c == '\n' || c == '\t' || c == '\r';
}

/* The word at text[at], cut short and made printable, for a message. */
static enum sluice_status bad_word(const char *name, const char *text, size_t len, size_t at,
                                   const char *why, struct sluice_error *err)
{
    size_t line = 1;
    size_t column = 1;
    for (size_t i = 0; i < at; i++) {
        column = text[i] == '\n' ? 1 : column + 1;
        line += text[i] == '\n';
    }
    char word[33];
    size_t n = 0;
    while (n < sizeof word - 1 && at + n < len && !is_separator(text[at + n])) {
        char c = text[at + n];
        word[n++] = c > ' ' && c < 127 ? c : '?';
    }
    word[n] = '\0';
    return fail(err, SLUICE_E_FORMAT, "%s: line %zu, column %zu: '%s' %s", name, line, column, word,
                why);
}

enum sluice_status ids_parse(struct ids *ids, const char *name, const char *text, size_t len,
                             struct sluice_error *err)
{
    for (size_t i = 0; i < len;) {
        if (is_separator(text[i])) {
            i++;
            continue;
        }
        size_t start = i;
        int64_t id = 0;
        for (; i < len && text[i] >= '0' && text[i] <= '9'; i++)
            if (id <= INT32_MAX) id = id * 10 + (text[i] - '0');
        if (i == start || (i < len && !is_separator(text[i])))
            return bad_word(name, text, len, start, "is not a decimal id", err);
        if (id > INT32_MAX) return bad_word(name, text, len, start, "is too large for an id", err);
        if (!ids_push(ids, (int32_t)id)) return fail_nomem(err, name);
    }
    return SLUICE_OK;
}

enum sluice_status ids_read(struct ids *ids, const char *path, struct sluice_error *err)
{
    struct buffer text = {0};
    enum sluice_status status = input_read(path, &text, err);
    if (status == SLUICE_OK) status = ids_parse(ids, input_name(path), text.data, text.len, err);
    buffer_release(&text);
    return status;
}

enum sluice_status ids_check(const struct ids *ids, const char *path, uint32_t vocab_size,
                             struct sluice_error *err)
{
    for (size_t i = 0; i < ids->n; i++)
        if (ids->items[i] < 0 || (uint32_t)ids->items[i] >= vocab_size)
            return fail(err, SLUICE_E_ARGUMENT,
                        "%s: id %" PRId32 ", number %zu of the list, is not below the vocabulary "
                        "size %" PRIu32,
                        input_name(path), ids->items[i], i + 1, vocab_size);
    return SLUICE_OK;
}

void ids_print(const struct ids *ids, struct buffer *out)
{
    for (size_t i = 0; i < ids->n; i++)
        buffer_printf(out, i ? " %" PRId32 : "%" PRId32, ids->items[i]);
}
