#include "token/vocabulary.h"

#include "format/json_cursor.h"
#include "token/sentencepiece.h"

enum { MAX_TOKEN_BYTES = (1 << 24) - 1 };

enum sluice_status vocabulary_init(struct vocabulary *vocab, enum vocabulary_spelling spelling,
                                   size_t n_bytes, struct sluice_error *err)
{
    *vocab = (struct vocabulary){.spelling = spelling};
    byte_alphabet_init(&vocab->alphabet);
    for (size_t b = 0; b < COUNT_OF(vocab->byte_tokens); b++) vocab->byte_tokens[b] = -1;
    if (n_bytes > VOCABULARY_MAX_BYTES)
        return err_set(err, SLUICE_E_FORMAT,
                       "vocabulary: %zu bytes of text are above the limit of %d", n_bytes,
                       VOCABULARY_MAX_BYTES);
    /* One byte more, so that an empty token has an address, too. */
    if (!text_reserve(&vocab->bytes, n_bytes + 1)) return err_nomem(err, "vocabulary", n_bytes);
    if (!map_init(&vocab->by_bytes, n_bytes / 24) || !map_init(&vocab->by_text, 16))
        return err_nomem(err, "vocabulary", n_bytes);
    return SLUICE_OK;
}

void vocabulary_forget_names(struct vocabulary *vocab)
{
    map_release(&vocab->by_bytes);
    map_release(&vocab->by_text);
}

void vocabulary_release(struct vocabulary *vocab)
{
    vocabulary_forget_names(vocab);
    text_release(&vocab->bytes);
    free(vocab->tokens);
    *vocab = (struct vocabulary){0};
}

/* Makes ids up to id exist, as holes. */
static bool grow_ids(struct vocabulary *vocab, uint32_t id)
{
    if (id >= vocab->cap) {
        uint32_t cap = max_u32(id + 1, min_u32(vocab->cap * 2, VOCABULARY_MAX_IDS));
        struct token *grown = realloc(vocab->tokens, cap * sizeof *grown);
        if (!grown) return false;
        memset(grown + vocab->cap, 0, (cap - vocab->cap) * sizeof *grown);
        vocab->tokens = grown;
        vocab->cap = cap;
    }
    vocab->n_ids = max_u32(vocab->n_ids, id + 1);
    return true;
}

/* Puts bytes, len of them and no more than init made room for, behind the others. */
static struct token store(struct vocabulary *vocab, const void *bytes, size_t len, unsigned flags)
{
    struct token token = {.off = (uint32_t)vocab->bytes.n, .len = len & MAX_TOKEN_BYTES};
    token.flags = flags & 0xff;
    text_append(&vocab->bytes, bytes, len);
    return token;
}

/* Writes the bytes that text means to out, which may be text.data. False: it means none. */
static bool decode(const struct vocabulary *vocab, struct span text, uint8_t *out, size_t *len)
{
    if (vocab->spelling == SPELLED_IN_BYTES)
        return byte_alphabet_decode(&vocab->alphabet, text, out, len);
    *len = sentencepiece_blanks(text, out);
    return true;
}

/* The byte that the token of this text is; -1: it is a text. */
static int byte_of(const struct vocabulary *vocab, struct span text)
{
    return vocab->spelling == SPELLED_SENTENCEPIECE ? sentencepiece_byte(text) : -1;
}

/* Gives id, whose text is stored as token, the bytes it means and enters them in their map. */
static enum map_put enter_text(struct vocabulary *vocab, struct text_buffer *text, uint32_t id)
{
    struct map *map = &vocab->by_text;
    struct token *token = &vocab->tokens[id];
    size_t len;
    if (decode(vocab, text_span(text), text->data, &len)) {
        if (len) memcpy(vocab->bytes.data + token->off, text->data, len);
        vocab->bytes.n = token->off + len;
        token->len = len & MAX_TOKEN_BYTES;
        map = &vocab->by_bytes;
    }
    return map_put(map, vocabulary_bytes(vocab, id), id);
}

static enum map_put enter_byte(struct vocabulary *vocab, int byte, uint32_t id)
{
    if (vocab->byte_tokens[byte] >= 0) return MAP_EXISTS;
    vocab->byte_tokens[byte] = (int32_t)id;
    return MAP_NEW;
}

/* Makes text, which is overwritten, the token id of model.vocab. */
static enum sluice_status enter(struct vocabulary *vocab, struct text_buffer *text, uint32_t id,
                                const struct json_cursor *at, struct sluice_error *err)
{
    if (text->n > MAX_TOKEN_BYTES) return json_cursor_fail(at, "token too long", err);
    if (!grow_ids(vocab, id)) return err_nomem(err, "vocabulary", id * sizeof(struct token));
    if (vocab->tokens[id].flags)
        return err_set(err, SLUICE_E_FORMAT, "%s: %s: id %u is given to two tokens", at->file,
                       at->field, id);
    int byte = byte_of(vocab, text_span(text));
    if (byte >= 0) {
        text->data[0] = (uint8_t)byte;
        text->n = 1;
    }
    vocab->tokens[id] = store(vocab, text->data, text->n, TOKEN_USED);
    enum map_put put = byte >= 0 ? enter_byte(vocab, byte, id) : enter_text(vocab, text, id);
    if (put == MAP_NOMEM) return err_nomem(err, "vocabulary", sizeof(struct map_slot));
    if (put == MAP_EXISTS)
        return err_set(err, SLUICE_E_FORMAT, "%s: %s: the token of id %u is listed twice", at->file,
                       at->field, id);
    vocab->n_model++;
    return SLUICE_OK;
}

static enum sluice_status read_entries(struct vocabulary *vocab, struct json_cursor *cursor,
                                       struct text_buffer *text, struct sluice_error *err)
{
    TRY(json_cursor_expect(cursor, '{', err));
    for (bool first = true, more;; first = false) {
        TRY(json_cursor_item(cursor, first, '}', &more, err));
        if (!more) return json_cursor_finish(cursor, err);
        uint32_t id;
        text->n = 0;
        TRY(json_cursor_string(cursor, text, err));
        TRY(json_cursor_expect(cursor, ':', err));
        TRY(json_cursor_u32(cursor, VOCABULARY_MAX_IDS - 1, &id, err));
        TRY(enter(vocab, text, id, cursor, err));
    }
}

enum sluice_status vocabulary_read(struct vocabulary *vocab, struct span json, const char *file,
                                   struct sluice_error *err)
{
    struct json_cursor cursor = {json.data, json.data + json.len, json.data, file, "model.vocab"};
    struct text_buffer text = {0};
    enum sluice_status status = read_entries(vocab, &cursor, &text, err);
    text_release(&text);
    return status;
}

/* The id of the map the text belongs to; scratch has room for text.len bytes. */
static int32_t find_text(const struct vocabulary *vocab, struct span text, uint8_t *scratch)
{
    struct span bytes = {.data = scratch};
    const uint32_t *id;
    int byte = byte_of(vocab, text);
    if (byte >= 0) return vocab->byte_tokens[byte];
    if (decode(vocab, text, scratch, &bytes.len))
        id = map_find(&vocab->by_bytes, bytes);
    else
        id = map_find(&vocab->by_text, text);
    return id ? (int32_t)*id : -1;
}

enum sluice_status vocabulary_find_text(const struct vocabulary *vocab, struct span text,
                                        int32_t *id, struct sluice_error *err)
{
    uint8_t *scratch = malloc(text.len + 1);
    if (!scratch) return err_nomem(err, "vocabulary", text.len);
    *id = find_text(vocab, text, scratch);
    free(scratch);
    return SLUICE_OK;
}

int32_t vocabulary_find_bytes(const struct vocabulary *vocab, struct span bytes)
{
    const uint32_t *id = map_find(&vocab->by_bytes, bytes);
    return id ? (int32_t)*id : -1;
}

enum sluice_status vocabulary_add(struct vocabulary *vocab, struct span text, uint32_t id,
                                  unsigned flags, const char *file, struct sluice_error *err)
{
    int len = (int)min_size(text.len, 100);
    const char *chars = (const char *)text.data;
    int32_t known = -1;
    TRY(vocabulary_find_text(vocab, text, &known, err));
    if (known >= 0 && (uint32_t)known != id)
        return err_set(err, SLUICE_E_FORMAT,
                       "%s: added_tokens: token '%.*s' has id %u, but %d in model.vocab", file, len,
                       chars, id, known);
    if (text.len > MAX_TOKEN_BYTES)
        return err_set(err, SLUICE_E_FORMAT, "%s: added_tokens: token '%.*s' is too long", file,
                       len, chars);
    if (text.len > vocab->bytes.cap - vocab->bytes.n)
        return err_set(err, SLUICE_E_INTERNAL, "%s: added_tokens: no room was made for '%.*s'",
                       file, len, chars);
    if (!grow_ids(vocab, id)) return err_nomem(err, "vocabulary", id * sizeof(struct token));
    unsigned old = vocab->tokens[id].flags;
    if (old & TOKEN_ADDED || (old && known < 0))
        return err_set(err, SLUICE_E_FORMAT,
                       "%s: added_tokens: token '%.*s' has id %u of another token", file, len,
                       chars, id);
    vocab->tokens[id] = store(vocab, text.data, text.len, flags | TOKEN_ADDED | TOKEN_USED);
    return SLUICE_OK;
}
