/* Text to ids (tokenizer.h), and the public calls that open and describe a tokenizer. */
#include "base/utf8.h"
#include "token/tokenizer.h"

/* One call of sluice_tokenize and its memory. */
struct encoder {
    const struct sluice_tokenizer *tokenizer;
    bool plain;
    struct id_sink sink;
    struct bpe_scratch bpe;
    struct pretokenize_scratch pre;
    struct normalize_scratch normalize;
    struct text_buffer lossy, normal;
};

static enum sluice_status encode_piece(void *user, struct span piece, struct sluice_error *err)
{
    struct encoder *e = user;
    const struct sluice_tokenizer *t = e->tokenizer;
    if (bpe_encode(&t->bpe, &t->vocab, piece, &e->bpe, &e->sink)) return SLUICE_OK;
    return err_nomem(err, "piece of text", piece.len);
}

/* Text between added tokens that are found before normalization. first: nothing is before it. */
static enum sluice_status encode_text(struct encoder *e, struct span text, bool first,
                                      struct sluice_error *err)
{
    e->normal.n = 0;
    if (!normalize(&e->tokenizer->normalizer, text, &e->normal, &e->normalize, &text))
        return err_nomem(err, "normalization", text.len);
    struct added_walk walk;
    struct added_part part;
    added_walk_init(&walk, &e->tokenizer->normalized, text, e->plain);
    while (added_walk_next(&walk, &part)) {
        if (part.id >= 0)
            id_sink_put(&e->sink, (uint32_t)part.id);
        else
            TRY(pretokenize(&e->tokenizer->pre, part.text, first && part.text.data == text.data,
                            &e->pre, encode_piece, e, err));
    }
    return SLUICE_OK;
}

static enum sluice_status encode(struct encoder *e, struct span text, bool affixes,
                                 struct sluice_error *err)
{
    const struct sluice_tokenizer *t = e->tokenizer;
    if (!utf8_valid(text)) {
        if (!utf8_append_lossy(&e->lossy, text)) return err_nomem(err, "text", text.len);
        text = text_span(&e->lossy);
    }
    for (size_t i = 0; affixes && i < t->before.n; i++) id_sink_put(&e->sink, t->before.ids[i]);
    struct added_walk walk;
    struct added_part part;
    added_walk_init(&walk, &t->raw, text, e->plain);
    while (added_walk_next(&walk, &part)) {
        if (part.id >= 0)
            id_sink_put(&e->sink, (uint32_t)part.id);
        else
            TRY(encode_text(e, part.text, part.text.data == text.data, err));
    }
    for (size_t i = 0; affixes && i < t->behind.n; i++) id_sink_put(&e->sink, t->behind.ids[i]);
    return SLUICE_OK;
}

enum sluice_status tokenizer_missing(struct sluice_error *err)
{
    return err_set(err, SLUICE_E_NO_TOKENIZER,
                   "there is no tokenizer; sluice_engine_tokenizer_status() says why");
}

enum sluice_status sluice_tokenize(const sluice_tokenizer *tokenizer, const char *text, size_t len,
                                   unsigned flags, int32_t *ids, size_t cap, size_t *n,
                                   struct sluice_error *err)
{
    enum { MAX_TEXT = INT32_MAX / 3 }; /* so that U+FFFD for every byte still has 31-bit places */
    *n = 0;
    if (!tokenizer) return tokenizer_missing(err);
    if (len > MAX_TEXT)
        return err_set(err, SLUICE_E_ARGUMENT, "text: %zu bytes are above the limit of %d", len,
                       MAX_TEXT);
    if (flags & ~(unsigned)(SLUICE_TOKENIZE_NO_SPECIAL | SLUICE_TOKENIZE_PLAIN))
        return err_set(err, SLUICE_E_ARGUMENT, "flags: %#x has unknown bits", flags);
    struct encoder e = {
        .tokenizer = tokenizer, .plain = flags & SLUICE_TOKENIZE_PLAIN, .sink = {ids, cap, 0}};
    enum sluice_status status =
        encode(&e, span_of(text, len), !(flags & SLUICE_TOKENIZE_NO_SPECIAL), err);
    if (status == SLUICE_OK) *n = e.sink.n;
    bpe_scratch_release(&e.bpe);
    pretokenize_scratch_release(&e.pre);
    normalize_scratch_release(&e.normalize);
    text_release(&e.lossy);
    text_release(&e.normal);
    return status;
}

enum sluice_status sluice_tokenizer_open(sluice_tokenizer **tokenizer, const char *path,
                                         struct sluice_error *err)
{
    *tokenizer = NULL;
    if (!path) return err_set(err, SLUICE_E_ARGUMENT, "no path of a model was given");
    return tokenizer_open(path, tokenizer, err);
}

void sluice_tokenizer_close(sluice_tokenizer **tokenizer)
{
    if (!tokenizer) return;
    tokenizer_close(*tokenizer);
    *tokenizer = NULL;
}

uint32_t sluice_tokenizer_vocab_size(const sluice_tokenizer *tokenizer)
{
    return tokenizer ? tokenizer->vocab.n_ids : 0;
}
