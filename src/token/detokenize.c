/*
 * Ids to text. The bytes of a token need not be whole characters, so they pass through a window
 * of at most three bytes that may still become one (struct sluice_text_stream).
 */
#include "base/utf8.h"
#include "token/tokenizer.h"

static const uint8_t replacement[3] = {0xef, 0xbf, 0xbd}; /* U+FFFD */

/* Bytes for the caller: all are counted, the first cap are kept. */
struct byte_sink {
    char *text;
    size_t cap, n;
};

static void put(struct byte_sink *sink, const void *data, size_t len)
{
    if (sink->n < sink->cap && len)
        memcpy(sink->text + sink->n, data, min_size(len, sink->cap - sink->n));
    sink->n += len;
}

/* Moves what is decided from the window to the sink. */
static void settle(struct sluice_text_stream *stream, struct byte_sink *sink)
{
    while (stream->n_pending) {
        size_t len;
        uint32_t cp;
        enum utf8_kind kind = utf8_next(stream->pending, stream->n_pending, &len, &cp);
        if (kind == UTF8_PARTIAL) return;
        if (kind == UTF8_CHAR)
            put(sink, stream->pending, len);
        else
            put(sink, replacement, sizeof replacement);
        stream->n_pending = (uint8_t)(stream->n_pending - len);
        memmove(stream->pending, stream->pending + len, stream->n_pending);
    }
}

static void feed(struct sluice_text_stream *stream, struct span bytes, struct byte_sink *sink)
{
    size_t i = 0;
    while (i < bytes.len) {
        if (stream->n_pending == 0) {
            struct span rest = span_of(bytes.data + i, bytes.len - i);
            size_t whole = utf8_valid_prefix(rest);
            put(sink, rest.data, whole);
            i += whole;
            if (i == bytes.len) break;
        }
        stream->pending[stream->n_pending++] = bytes.data[i++];
        settle(stream, sink);
    }
}

static enum sluice_status check_id(const sluice_tokenizer *tokenizer, int32_t id,
                                   struct sluice_error *err)
{
    if (!tokenizer) return tokenizer_missing(err);
    if (id >= 0 && (uint32_t)id < tokenizer->vocab.n_ids) return SLUICE_OK;
    return err_set(err, SLUICE_E_ARGUMENT, "token id %d: the tokenizer's ids are 0 to %d", id,
                   (int)tokenizer->vocab.n_ids - 1);
}

static bool is_special(const sluice_tokenizer *tokenizer, int32_t id)
{
    return tokenizer->vocab.tokens[id].flags & TOKEN_SPECIAL;
}

enum sluice_status sluice_token_bytes(const sluice_tokenizer *tokenizer, int32_t id,
                                      const char **bytes, size_t *len, bool *special)
{
    TRY(check_id(tokenizer, id, NULL));
    struct span token = vocabulary_bytes(&tokenizer->vocab, (uint32_t)id);
    *bytes = (const char *)token.data;
    *len = token.len;
    if (special) *special = is_special(tokenizer, id);
    return SLUICE_OK;
}

enum sluice_status sluice_detokenize(const sluice_tokenizer *tokenizer, const int32_t *ids,
                                     size_t n, unsigned flags, char *text, size_t cap, size_t *len,
                                     struct sluice_error *err)
{
    *len = 0;
    if (!tokenizer) return tokenizer_missing(err);
    if (flags & ~(unsigned)SLUICE_DETOKENIZE_SKIP_SPECIAL)
        return err_set(err, SLUICE_E_ARGUMENT, "flags: %#x has unknown bits", flags);
    bool skip = flags & SLUICE_DETOKENIZE_SKIP_SPECIAL, strip = tokenizer->strip_blank;
    struct byte_sink sink = {text, cap, 0};
    struct sluice_text_stream stream = {{0}, 0};
    for (size_t i = 0; i < n; i++) {
        TRY(check_id(tokenizer, ids[i], err));
        if (skip && is_special(tokenizer, ids[i])) continue;
        struct span bytes = vocabulary_bytes(&tokenizer->vocab, (uint32_t)ids[i]);
        size_t n_lost = strip && bytes.len && bytes.data[0] == ' ';
        if (bytes.len) strip = false;
        feed(&stream, span_of(bytes.data + n_lost, bytes.len - n_lost), &sink);
    }
    char rest[4];
    put(&sink, rest, sluice_text_stream_finish(&stream, rest));
    *len = sink.n;
    return SLUICE_OK;
}

enum sluice_status sluice_text_stream_push(struct sluice_text_stream *stream,
                                           const sluice_tokenizer *tokenizer, int32_t id, char *out,
                                           size_t cap, size_t *len, struct sluice_error *err)
{
    *len = 0;
    TRY(check_id(tokenizer, id, err));
    if (stream->n_pending >= sizeof stream->pending)
        return err_set(err, SLUICE_E_ARGUMENT, "text stream: was not zeroed before its first use");
    if (is_special(tokenizer, id)) return SLUICE_OK;
    struct sluice_text_stream after = *stream;
    struct byte_sink sink = {out, cap, 0};
    feed(&after, vocabulary_bytes(&tokenizer->vocab, (uint32_t)id), &sink);
    *len = sink.n;
    if (sink.n > cap)
        return err_set(err, SLUICE_E_ARGUMENT,
                       "text stream: token %d gives %zu bytes, room for %zu", id, sink.n, cap);
    *stream = after;
    return SLUICE_OK;
}

size_t sluice_text_stream_finish(struct sluice_text_stream *stream, char out[4])
{
    if (stream->n_pending == 0) return 0;
    /* What waits is the beginning of one character, so it is one error. */
    stream->n_pending = 0;
    memcpy(out, replacement, sizeof replacement);
    return sizeof replacement;
}
