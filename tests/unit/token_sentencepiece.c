/* SentencePiece's BPE: merges by score, bytes of what is no token, blanks, and what is refused. */
#include <math.h>

#include "check.h"
#include "gguf_bytes.h"
#include "token/gguf_tokenizer.h"
#include "token_make.h"

static struct sluice_error err;

#define FILE_NAME "model.gguf"
#define SIGN "\xe2\x96\x81"

struct piece {
    const char *text;
    uint32_t type;
    float score;
};

/* Ids 0 to 258: unknown, two specials, the 256 bytes. */
enum { BYTES = 3, BLANK = 259, A, B, C, AB, BLANK_A, CA, BC, AA, TWO_BLANKS, AAA, USER, N_TOKENS };

static const struct piece pieces[] = {
    {SIGN, 1, -90}, {"a", 1, -91},      {"b", 1, -92},  {"c", 1, -93},
    {"ab", 1, -1},  {SIGN "a", 1, -2},  {"ca", 1, -3},  {"bc", 1, -3},
    {"aa", 1, -3},  {SIGN SIGN, 1, -4}, {"aaa", 1, -5}, {"<u>", 4, 0},
};

struct vocabulary_options {
    int prefix; /* add_space_prefix; -1: no key */
    uint32_t byte_type;
    float first_score;
    bool without_scores;
    bool removes_spaces;
    const char *extra; /* text of one more token */
};

static const struct vocabulary_options usual = {.prefix = -1, .byte_type = 6};

static void put_tokens(struct gguf_bytes *f, const struct vocabulary_options *o)
{
    static const char *const specials[] = {"<unk>", "<s>", "</s>"};
    char text[8];
    gguf_key_array(f, "tokenizer.ggml.tokens", 8, N_TOKENS + (o->extra != NULL));
    for (int i = 0; i < BYTES; i++) gguf_put_string(f, specials[i]);
    for (unsigned b = 0; b < 256; b++) {
        snprintf(text, sizeof text, "<0x%02X>", b);
        gguf_put_string(f, text);
    }
    for (size_t i = 0; i < COUNT_OF(pieces); i++) gguf_put_string(f, pieces[i].text);
    if (o->extra) gguf_put_string(f, o->extra);
}

static void put_float(struct gguf_bytes *f, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    gguf_put_int(f, bits, 4);
}

static void put_kinds(struct gguf_bytes *f, const struct vocabulary_options *o)
{
    size_t n = N_TOKENS + (o->extra != NULL);
    gguf_key_array(f, "tokenizer.ggml.token_type", 5, n);
    for (uint64_t i = 0; i < BYTES; i++) gguf_put_int(f, i ? 3 : 2, 4);
    for (unsigned b = 0; b < 256; b++) gguf_put_int(f, o->byte_type, 4);
    for (size_t i = 0; i < COUNT_OF(pieces); i++) gguf_put_int(f, pieces[i].type, 4);
    if (o->extra) gguf_put_int(f, 1, 4);
    if (o->without_scores) return;
    gguf_key_array(f, "tokenizer.ggml.scores", 6, n);
    for (unsigned i = 0; i < BLANK; i++) put_float(f, i ? 0 : o->first_score);
    for (size_t i = 0; i < COUNT_OF(pieces); i++) put_float(f, pieces[i].score);
    if (o->extra) put_float(f, -6);
}

static enum sluice_status open_vocabulary(const struct vocabulary_options *o,
                                          struct sluice_tokenizer **out)
{
    struct arena arena = {0};
    struct gguf_header header;
    struct gguf_bytes f = gguf_begin(3);
    gguf_key_string(&f, "tokenizer.ggml.model", "llama");
    gguf_key_u32(&f, "tokenizer.ggml.bos_token_id", 1);
    gguf_key_u32(&f, "tokenizer.ggml.eos_token_id", 2);
    if (o->prefix >= 0) gguf_key_bool(&f, "tokenizer.ggml.add_space_prefix", o->prefix);
    if (o->removes_spaces) gguf_key_bool(&f, "tokenizer.ggml.remove_extra_whitespaces", 1);
    put_tokens(&f, o);
    put_kinds(&f, o);
    gguf_end(&f, 1, 0);
    *out = NULL;
    enum sluice_status status =
        gguf_parse(span_of(f.data, f.len), f.len, FILE_NAME, &arena, &header, &err);
    if (status == SLUICE_OK) status = gguf_tokenizer_parse(&header, FILE_NAME, out, &err);
    gguf_release(&header);
    arena_release(&arena);
    free(f.data);
    return status;
}

static void expect_ids(const struct sluice_tokenizer *t, const char *text, const char *want)
{
    const char *got = make_ids(t, text, SLUICE_TOKENIZE_NO_SPECIAL);
    CHECK(strcmp(got, want) == 0, "'%s' becomes %s, not %s", text, got, want);
}

static void expect_text(const struct sluice_tokenizer *t, const int32_t *ids, size_t n,
                        const char *want)
{
    char text[256];
    size_t len;
    CHECK_OK(sluice_detokenize(t, ids, n, 0, text, sizeof text, &len, &err));
    CHECK(span_equal(span_of(text, len), span_str(want)), "'%.*s' should be '%s'", (int)len, text,
          want);
}

static void test_scores(void)
{
    struct sluice_tokenizer *t;
    REQUIRE(open_vocabulary(&usual, &t) == SLUICE_OK, "%s", err.message);
    CHECK(t->vocab.n_ids == N_TOKENS);
    expect_ids(t, "", "");
    expect_ids(t, "ab", "259 263");
    expect_ids(t, "a", "264");
    expect_ids(t, "aaaa", "264 269");
    expect_ids(t, " a", "259 264");
    expect_ids(t, "  b", "268 259 261");
    expect_ids(t, SIGN "a", "259 264");
    /* Of merges with one score the leftmost goes first, whatever their ids. */
    expect_ids(t, "bca", "259 266 260");
    expect_ids(t, "bcaa", "259 266 267");
    CHECK(strcmp(make_ids(t, "a", 0), "1 264") == 0);
    tokenizer_close(t);
}

/* A piece too long for the simple loop gives what its parts give. */
static void test_long_texts(void)
{
    enum { N = 500 };
    char text[3 * N + 1], *p = text;
    int32_t ids[2 * N];
    size_t n;
    struct sluice_tokenizer *t;
    REQUIRE(open_vocabulary(&usual, &t) == SLUICE_OK, "%s", err.message);
    for (int i = 0; i < N; i++) p += snprintf(p, 4, "bca");
    CHECK_OK(sluice_tokenize(t, text, 3 * N, SLUICE_TOKENIZE_NO_SPECIAL, ids, 2 * N, &n, &err));
    CHECK(n == 2 * N, "%zu", n);
    CHECK(ids[0] == BLANK && ids[1] == BC && ids[2] == AB && ids[2 * N - 1] == CA);
    tokenizer_close(t);
}

static void test_bytes_and_added(void)
{
    struct sluice_tokenizer *t;
    REQUIRE(open_vocabulary(&usual, &t) == SLUICE_OK, "%s", err.message);
    expect_ids(t, "\xc3\xa9", "259 198 172");
    expect_ids(t, "a\nb", "264 13 261");
    expect_ids(t, "<0x41>", "259 63 51 123 55 52 65");
    expect_ids(t, "a<u>a", "264 270 264");
    expect_ids(t, "</s>a", "2 264");
    const int32_t words[] = {BLANK_A, AB}, user[] = {USER, BLANK_A}, bytes[] = {198, 172};
    expect_text(t, words, 2, "aab");
    expect_text(t, user, 2, "<u> a");
    expect_text(t, bytes, 2, "\xc3\xa9");
    expect_text(t, bytes, 1, "\xef\xbf\xbd");
    /* A stream goes on with a text, so its blanks stay. */
    struct sluice_text_stream stream = {{0}, 0};
    char out[16];
    size_t len;
    CHECK_OK(sluice_text_stream_push(&stream, t, BLANK_A, out, sizeof out, &len, &err));
    CHECK(len == 2 && memcmp(out, " a", 2) == 0);
    tokenizer_close(t);
}

static void test_without_prefix(void)
{
    struct vocabulary_options o = usual;
    struct sluice_tokenizer *t;
    o.prefix = 0;
    REQUIRE(open_vocabulary(&o, &t) == SLUICE_OK, "%s", err.message);
    expect_ids(t, "ab a", "263 264");
    const int32_t words[] = {BLANK_A};
    expect_text(t, words, 1, " a");
    tokenizer_close(t);
}

static void expect_refused(struct vocabulary_options o, enum sluice_status code, const char *says)
{
    struct sluice_tokenizer *t;
    err.message[0] = '\0';
    enum sluice_status status = open_vocabulary(&o, &t);
    CHECK(status == code && err.code == code && !t, "status %d: %s", status, err.message);
    CHECK(strstr(err.message, FILE_NAME) && strstr(err.message, says), "'%s' should say '%s'",
          err.message, says);
    if (t) tokenizer_close(t);
}

static void test_metadata_refusals(void)
{
    struct vocabulary_options o = usual;
    o.without_scores = true;
    expect_refused(o, SLUICE_E_FORMAT, "'tokenizer.ggml.scores' must list a number for each");
    o = usual;
    o.first_score = NAN;
    expect_refused(o, SLUICE_E_FORMAT, "'tokenizer.ggml.scores' has an item that is no finite");
    o = usual;
    o.byte_type = 1;
    expect_refused(o, SLUICE_E_FORMAT, "item 3 is '<0x00>', but of type 1");
    o = usual;
    o.removes_spaces = true;
    expect_refused(o, SLUICE_E_NO_TOKENIZER, "remove_extra_whitespaces' is true");
    static char text[1100];
    memset(text, 'a', sizeof text - 1);
    o = usual;
    o.extra = text;
    expect_refused(o, SLUICE_E_NO_TOKENIZER, "more than 1024 bytes");
    o.extra = " ";
    expect_refused(o, SLUICE_E_FORMAT, "listed twice");
}

/* tokenizer.json: three texts that differ from test to test, NULL for what is usual. */
#define FALLBACK                                                                                   \
    "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":"          \
    "\"\\u2581\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]}"
#define METASPACE(rest) "{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\"" rest "}"
#define REPLACE "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\\u2581\"}"
#define PREPEND "{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"}"

static enum sluice_status open_json(const char *normalizer, const char *pre, const char *decoder,
                                    struct sluice_tokenizer **out)
{
    char json[2048];
    snprintf(
        json, sizeof json,
        "{\"added_tokens\":[{\"id\":7,\"content\":\"<x>\",\"special\":true,\"normalized\":false}],"
        "\"normalizer\":%s,\"pre_tokenizer\":%s,\"decoder\":%s,\"model\":{\"type\":\"BPE\","
        "\"byte_fallback\":true,\"fuse_unk\":true,\"unk_token\":\"<unk>\",\"vocab\":{\"<unk>\":0,"
        "\"\\u2581\":1,\"a\":2,\"\\u2581a\":3,\"\\u2581\\u2581\":4,\"<0xC3>\":5,\"<0xA9>\":6},"
        "\"merges\":[\"\\u2581 a\",\"\\u2581 \\u2581\"]}}",
        normalizer ? normalizer : "null", pre ? pre : "null", decoder ? decoder : FALLBACK);
    *out = NULL;
    return tokenizer_parse(span_str(json), "t.json", span_of(NULL, 0), "", out, &err);
}

static void expect_json_ids(const char *normalizer, const char *pre, const char *text,
                            const char *want)
{
    struct sluice_tokenizer *t;
    REQUIRE(open_json(normalizer, pre, NULL, &t) == SLUICE_OK, "%s", err.message);
    expect_ids(t, text, want);
    tokenizer_close(t);
}

static void test_spaces_of_json(void)
{
    static const char both[] = "{\"type\":\"Sequence\",\"normalizers\":[" PREPEND "," REPLACE "]}";
    expect_json_ids(both, NULL, "a", "3");
    expect_json_ids(both, NULL, " a", "1 3");
    expect_json_ids(both, NULL, "a<x>a", "3 7 3");
    expect_json_ids(both, NULL, "\xc3\xa9", "1 5 6");
    /* Bytes without tokens: one unknown token for a run of characters. */
    expect_json_ids(both, NULL, "\xe6\x97\xa5\xe6\x9c\x88", "1 0");
    expect_json_ids(REPLACE, NULL, "a a", "2 3");
    expect_json_ids(NULL, METASPACE(",\"prepend_scheme\":\"never\""), "a a", "2 3");
    expect_json_ids(NULL, METASPACE(",\"prepend_scheme\":\"always\""), "a<x>a", "3 7 3");
    expect_json_ids(NULL, METASPACE(",\"prepend_scheme\":\"always\""), " a<x> a", "3 7 3");
    expect_json_ids(NULL, METASPACE(",\"prepend_scheme\":\"first\""), "a<x>a", "3 7 2");
    expect_json_ids(NULL, METASPACE(",\"prepend_scheme\":\"first\""), "<x>a", "7 2");
    expect_json_ids(NULL, METASPACE(",\"add_prefix_space\":false"), "a", "2");
    expect_json_ids(NULL, METASPACE(",\"split\":false"), "  ", "4");
    expect_json_ids(NULL, METASPACE(""), "  ", "1 1");
}

static void expect_json_refused(const char *normalizer, const char *pre, const char *decoder,
                                const char *says)
{
    struct sluice_tokenizer *t;
    err.message[0] = '\0';
    enum sluice_status status = open_json(normalizer, pre, decoder, &t);
    CHECK(status == SLUICE_E_NO_TOKENIZER && !t, "status %d: %s", status, err.message);
    CHECK(strstr(err.message, says), "'%s' should say '%s'", err.message, says);
    if (t) tokenizer_close(t);
}

static void test_json_refusals(void)
{
    static const char byte_level[] = "{\"type\":\"ByteLevel\"}";
    expect_json_refused(NULL, NULL, NULL, "must replace blanks by U+2581");
    expect_json_refused(PREPEND, NULL, NULL, "must replace blanks by U+2581");
    expect_json_refused("{\"type\":\"NFKC\"}", NULL, NULL, "normalizer is of type NFKC");
    expect_json_refused("{\"type\":\"Prepend\",\"prepend\":\"x\"}", NULL, NULL, "prepends 'x'");
    expect_json_refused("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" \"},\"content\":\"_\"}",
                        NULL, NULL, "normalizer replaces '' by '_'");
    expect_json_refused(REPLACE, byte_level, NULL, "only Metaspace is known");
    expect_json_refused(NULL, "{\"type\":\"Metaspace\",\"replacement\":\"_\"}", NULL,
                        "pre_tokenizer.replacement is '_'");
    expect_json_refused(REPLACE, NULL, byte_level, "decoder is of type ByteLevel");
    expect_json_refused(REPLACE, NULL, METASPACE(""), "decoder is of type Metaspace");
    expect_json_refused(REPLACE, NULL,
                        "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"}]}",
                        "decoder.decoders[0] is of type ByteFallback");
    expect_json_refused(
        REPLACE, NULL,
        "{\"type\":\"Sequence\",\"decoders\":[" METASPACE("") ",{\"type\":\"Fuse\"}]}",
        "decoder.decoders[1] is of type Fuse");
    expect_json_refused(REPLACE, NULL, "{\"type\":\"Sequence\",\"decoders\":[]}",
                        "a sequence with ByteFallback is known");
    expect_json_refused(
        REPLACE, NULL,
        "{\"type\":\"Sequence\",\"decoders\":[" METASPACE(
            "") ",{\"type\":\"ByteFallback\"},{\"type\":\"Strip\",\"content\":\" \","
                "\"start\":2,\"stop\":0}]}",
        "strips more than a blank");
}

#define CASES(C)                                                                                   \
    C(scores)                                                                                      \
    C(long_texts)                                                                                  \
    C(bytes_and_added)                                                                             \
    C(without_prefix)                                                                              \
    C(metadata_refusals)                                                                           \
    C(spaces_of_json)                                                                              \
    C(json_refusals)
CHECK_MAIN(CASES)
