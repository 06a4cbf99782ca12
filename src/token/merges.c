/* Reading model.merges (bpe.h). */
#include "format/json_cursor.h"
#include "token/bpe.h"

struct merge {
    uint32_t left, right, both; /* left UINT32_MAX: cannot happen */
};

struct merge_reader {
    const struct vocabulary *vocab;
    struct json_cursor cursor;
    struct text_buffer text;  /* both sides of a merge, one behind the other */
    struct text_buffer bytes; /* what they mean */
    ARRAY(struct merge) merges;
};

/* Texts of both sides to r->text; *split is where the right one begins. */
static enum sluice_status read_sides(struct merge_reader *r, size_t *split,
                                     struct sluice_error *err)
{
    struct json_cursor *cursor = &r->cursor;
    r->text.n = 0;
    if (json_cursor_peek(cursor) == '[') {
        TRY(json_cursor_expect(cursor, '[', err));
        TRY(json_cursor_string(cursor, &r->text, err));
        *split = r->text.n;
        TRY(json_cursor_expect(cursor, ',', err));
        TRY(json_cursor_string(cursor, &r->text, err));
        return json_cursor_expect(cursor, ']', err);
    }
    TRY(json_cursor_string(cursor, &r->text, err));
    uint8_t *blank = r->text.n ? memchr(r->text.data, ' ', r->text.n) : NULL;
    size_t left = blank ? (size_t)(blank - r->text.data) : 0;
    size_t right = blank ? r->text.n - left - 1 : 0;
    if (!blank || memchr(blank + 1, ' ', right))
        return json_cursor_fail(cursor, "merge that is not two tokens with one blank between", err);
    memmove(blank, blank + 1, right);
    r->text.n--;
    *split = left;
    return SLUICE_OK;
}

static enum sluice_status unknown_token(const struct merge_reader *r, struct span text,
                                        struct sluice_error *err)
{
    return err_set(err, SLUICE_E_FORMAT,
                   "%s: model.merges[%zu] needs token '%.*s', which model.vocab does not have",
                   r->cursor.file, r->merges.n, (int)min_size(text.len, 100), text.data);
}

/* Sides outside the byte alphabet: no text leads to them, but their tokens must exist. */
static enum sluice_status check_foreign(const struct merge_reader *r, size_t split,
                                        struct sluice_error *err)
{
    const struct span sides[] = {span_of(r->text.data, split),
                                 span_of(r->text.data + split, r->text.n - split),
                                 text_span(&r->text)};
    for (size_t i = 0; i < COUNT_OF(sides); i++) {
        int32_t id;
        TRY(vocabulary_find_text(r->vocab, sides[i], &id, err));
        if (id < 0) return unknown_token(r, sides[i], err);
    }
    return SLUICE_OK;
}

/* In a SentencePiece vocabulary each token has one spelling. */
static enum sluice_status read_spelled(struct merge_reader *r, size_t split, struct merge *merge,
                                       struct sluice_error *err)
{
    const struct span sides[] = {span_of(r->text.data, split),
                                 span_of(r->text.data + split, r->text.n - split),
                                 text_span(&r->text)};
    int32_t ids[COUNT_OF(sides)];
    for (size_t i = 0; i < COUNT_OF(sides); i++) {
        TRY(vocabulary_find_text(r->vocab, sides[i], &ids[i], err));
        if (ids[i] < 0) return unknown_token(r, sides[i], err);
    }
    *merge = (struct merge){(uint32_t)ids[0], (uint32_t)ids[1], (uint32_t)ids[2]};
    return SLUICE_OK;
}

/* In the byte alphabet the bytes of both sides, joined, are those of the token. */
static enum sluice_status read_in_bytes(struct merge_reader *r, size_t split, struct merge *merge,
                                        struct sluice_error *err)
{
    size_t n_left, n_right;
    struct span left = span_of(r->text.data, split);
    struct span right = span_of(r->text.data + split, r->text.n - split);
    if (!text_reserve(&r->bytes, r->text.n + 1)) return err_nomem(err, "merges", r->text.n);
    uint8_t *bytes = r->bytes.data;
    const struct byte_alphabet *alphabet = &r->vocab->alphabet;
    if (byte_alphabet_decode(alphabet, left, bytes, &n_left) &&
        byte_alphabet_decode(alphabet, right, bytes + n_left, &n_right)) {
        const struct span of_left = span_of(bytes, n_left),
                          of_right = span_of(bytes + n_left, n_right),
                          of_both = span_of(bytes, n_left + n_right);
        map_fetch(&r->vocab->by_bytes, of_left); /* a vocabulary is larger than most caches */
        map_fetch(&r->vocab->by_bytes, of_right);
        map_fetch(&r->vocab->by_bytes, of_both);
        int32_t a = vocabulary_find_bytes(r->vocab, of_left);
        if (a < 0) return unknown_token(r, left, err);
        int32_t b = vocabulary_find_bytes(r->vocab, of_right);
        if (b < 0) return unknown_token(r, right, err);
        int32_t both = vocabulary_find_bytes(r->vocab, of_both);
        if (both < 0) return unknown_token(r, text_span(&r->text), err);
        *merge = (struct merge){(uint32_t)a, (uint32_t)b, (uint32_t)both};
        return SLUICE_OK;
    }
    merge->left = UINT32_MAX;
    return check_foreign(r, split, err);
}

static enum sluice_status read_merge(struct merge_reader *r, struct sluice_error *err)
{
    size_t split = 0;
    struct merge merge = {0};
    TRY(read_sides(r, &split, err));
    if (r->vocab->spelling == SPELLED_SENTENCEPIECE)
        TRY(read_spelled(r, split, &merge, err));
    else
        TRY(read_in_bytes(r, split, &merge, err));
    if (!array_push(&r->merges, merge)) return err_nomem(err, "merges", sizeof merge);
    return SLUICE_OK;
}

static enum sluice_status read_all(struct merge_reader *r, struct sluice_error *err)
{
    TRY(json_cursor_expect(&r->cursor, '[', err));
    for (bool first = true, more;; first = false) {
        TRY(json_cursor_item(&r->cursor, first, ']', &more, err));
        if (!more) return json_cursor_finish(&r->cursor, err);
        TRY(read_merge(r, err));
    }
}

static enum sluice_status build_table(struct bpe *bpe, const struct merge_reader *r,
                                      struct sluice_error *err)
{
    size_t n = r->merges.n;
    if (n >= VOCABULARY_MAX_IDS)
        return err_set(err, SLUICE_E_FORMAT, "%s: model.merges has more than %d entries",
                       r->cursor.file, VOCABULARY_MAX_IDS);
    bpe->results = malloc((n + 1) * sizeof *bpe->results);
    if (!bpe->results || !pair_table_init(&bpe->merges, n))
        return err_nomem(err, "merges", n * sizeof(struct pair_slot));
    bpe->n_merges = (uint32_t)n;
    for (uint32_t rank = 0; rank < n; rank++) {
        struct merge m = r->merges.items[rank];
        bpe->results[rank] = m.both;
        if (m.left != UINT32_MAX) pair_table_put(&bpe->merges, m.left, m.right, rank, m.both);
    }
    return SLUICE_OK;
}

/* Lost merges are a known accident of conversion; every text would fall into single bytes. */
static enum sluice_status check_not_empty(const struct bpe *bpe, const struct vocabulary *vocab,
                                          const char *file, struct sluice_error *err)
{
    if (bpe->n_merges || bpe->ignore_merges || vocab->by_bytes.n <= 256) return SLUICE_OK;
    return err_set(err, SLUICE_E_FORMAT, "%s: model.merges is empty, but model.vocab has %u tokens",
                   file, vocab->n_model);
}

enum sluice_status bpe_read(struct bpe *bpe, const struct vocabulary *vocab, struct span json,
                            const char *file, struct sluice_error *err)
{
    bpe->by_chars = vocab->spelling == SPELLED_SENTENCEPIECE;
    for (unsigned b = 0; b < 256; b++) {
        uint8_t byte = (uint8_t)b;
        bpe->byte_ids[b] =
            bpe->by_chars ? vocab->byte_tokens[b] : vocabulary_find_bytes(vocab, span_of(&byte, 1));
    }
    struct merge_reader r = {.vocab = vocab};
    r.cursor =
        (struct json_cursor){json.data, json.data + json.len, json.data, file, "model.merges"};
    enum sluice_status status = read_all(&r, err);
    if (status == SLUICE_OK) status = build_table(bpe, &r, err);
    if (status == SLUICE_OK) status = check_not_empty(bpe, vocab, file, err);
    text_release(&r.text);
    text_release(&r.bytes);
    array_release(&r.merges);
    return status;
}
