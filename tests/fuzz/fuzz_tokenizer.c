/*
 * A GGUF file, or a tokenizer.json up to the first NUL byte with a text behind it (without one, and
 * with GGUF, the file itself): if it opens, the text is encoded and decoded in every way.
 */
#include "base/utf8.h"
#include "fuzz.h"
#include "token/gguf_tokenizer.h"

/* A failure has a code and a sentence. */
static void promise_error(enum sluice_status status, const struct sluice_error *err)
{
    if (status == SLUICE_OK) return;
    FUZZ_CHECK(err->code == status && err->message[0] != '\0');
    FUZZ_CHECK(memchr(err->message, '\0', sizeof err->message) != NULL);
}

/* Token by token gives what all at once gives, with the blank that a whole text may lose. */
static void stream(const struct sluice_tokenizer *t, const int32_t *ids, size_t n, struct span want)
{
    struct sluice_error err = {0};
    struct sluice_text_stream s = {{0}, 0};
    size_t at = 0;
    bool lost = t->strip_blank;
    for (size_t i = 0; i < n; i++) {
        const char *bytes;
        size_t len, cap;
        bool special;
        FUZZ_CHECK(sluice_token_bytes(t, ids[i], &bytes, &cap, &special) == SLUICE_OK);
        cap = 3 * cap + 3;
        char *out = malloc(cap);
        if (!out) return;
        FUZZ_CHECK(sluice_text_stream_push(&s, t, ids[i], out, cap, &len, &err) == SLUICE_OK);
        size_t skip = lost && len && out[0] == ' ';
        lost = lost && !len;
        FUZZ_CHECK(len - skip <= want.len - at);
        FUZZ_CHECK(memcmp(out + skip, want.data + at, len - skip) == 0);
        at += len - skip;
        free(out);
    }
    char rest[4];
    at += sluice_text_stream_finish(&s, rest);
    FUZZ_CHECK(at == want.len);
}

static void decode(const struct sluice_tokenizer *t, const int32_t *ids, size_t n)
{
    struct sluice_error err = {0};
    for (unsigned flags = 0; flags < 2; flags++) {
        size_t len, again;
        FUZZ_CHECK(sluice_detokenize(t, ids, n, flags, NULL, 0, &len, &err) == SLUICE_OK);
        char *text = malloc(len + 1);
        if (!text) return;
        FUZZ_CHECK(sluice_detokenize(t, ids, n, flags, text, len, &again, &err) == SLUICE_OK);
        FUZZ_CHECK(again == len && utf8_valid(span_of(text, len)));
        if (flags) stream(t, ids, n, span_of(text, len));
        free(text);
    }
}

static void encode(const struct sluice_tokenizer *t, struct span text, unsigned flags)
{
    struct sluice_error err = {0};
    size_t n, again;
    const char *chars = (const char *)text.data;
    enum sluice_status status = sluice_tokenize(t, chars, text.len, flags, NULL, 0, &n, &err);
    promise_error(status, &err);
    if (status != SLUICE_OK) return;
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    if (!ids) return;
    FUZZ_CHECK(sluice_tokenize(t, chars, text.len, flags, ids, n, &again, &err) == SLUICE_OK);
    FUZZ_CHECK(again == n);
    decode(t, ids, n);
    free(ids);
}

static enum sluice_status open_gguf(struct span file, struct sluice_tokenizer **out,
                                    struct sluice_error *err)
{
    struct arena arena = {0};
    struct gguf_header header;
    *out = NULL;
    enum sluice_status status = gguf_parse(file, file.len, "f", &arena, &header, err);
    if (status == SLUICE_OK) status = gguf_tokenizer_parse(&header, "f", out, err);
    gguf_release(&header);
    arena_release(&arena);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool gguf = size >= 4 && memcmp(data, "GGUF", 4) == 0;
    const uint8_t *nul = size && !gguf ? memchr(data, 0, size) : NULL;
    struct span json = span_of(data, nul ? (size_t)(nul - data) : size);
    struct span text = nul ? span_of(nul + 1, size - json.len - 1) : json;
    struct sluice_tokenizer *t;
    struct sluice_error err = {0};
    enum sluice_status status = gguf ? open_gguf(json, &t, &err)
                                     : tokenizer_parse(json, "f", span_of(NULL, 0), "", &t, &err);
    promise_error(status, &err);
    FUZZ_CHECK((t != NULL) == (status == SLUICE_OK));
    if (!t) return 0;
    for (unsigned flags = 0; flags < 4; flags++) encode(t, text, flags);
    tokenizer_close(t);
    return 0;
}
