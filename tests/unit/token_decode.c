/* Ids to text, at once and token by token. */
#include "base/rng.h"
#include "token_make.h"

#define SMILE "\xf0\x9f\x98\x80"

static struct sluice_tokenizer *open_small(void)
{
    static const struct recipe r = {
        .vocab = ",\"\\u00f0\\u0141\":260,\"\\u013a\\u0122\":261,\"\\u0122\\u0122\\u0122\":262",
        .fields = "\"ignore_merges\":true,",
        .added = "{\"id\":300,\"content\":\"<s>\",\"special\":true},"
                 "{\"id\":301,\"content\":\"<t\\u00e9>\",\"special\":false},"
                 "{\"id\":302,\"content\":\"\\u00e9\\u00e8\",\"special\":false}"};
    struct sluice_error err;
    struct sluice_tokenizer *t = NULL;
    CHECK_OK(make_open(&r, &t, &err));
    return t;
}

static void check_text(const struct sluice_tokenizer *t, const int32_t *ids, size_t n,
                       unsigned flags, const char *want)
{
    struct sluice_error err;
    char text[256];
    size_t len;
    CHECK_OK(sluice_detokenize(t, ids, n, flags, text, sizeof text - 1, &len, &err));
    text[len] = '\0';
    CHECK_STR(text, want);
}

#define IDS(...) (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / 4

static void test_bytes_join_across_tokens(void)
{
    struct sluice_tokenizer *t = open_small();
    REQUIRE(t);
    check_text(t, IDS(0xf0, 0x9f, 0x98, 0x80), 0, SMILE);
    check_text(t, IDS('a', 0xf0, 0x9f, 'b'), 0,
               "a\ufffd"
               "b");
    check_text(t, IDS(0xe4, 300, 0xb8, 0xad), 0, "\ufffd<s>\ufffd\ufffd");
    check_text(t, IDS(0xe4, 300, 0xb8, 0xad), SLUICE_DETOKENIZE_SKIP_SPECIAL, "\u4e2d");
    check_text(t, IDS(0xff, 0x80), 0, "\ufffd\ufffd");
    check_text(t, IDS('a', 0xe4, 0xb8), 0, "a\ufffd");
    check_text(t, IDS(300), SLUICE_DETOKENIZE_SKIP_SPECIAL, "");
    tokenizer_close(t);
}

static void test_added_tokens_decode_to_their_text(void)
{
    struct sluice_tokenizer *t = open_small();
    REQUIRE(t);
    check_text(t, IDS(301, 302), SLUICE_DETOKENIZE_SKIP_SPECIAL, "<t\u00e9>\u00e9\u00e8");
    CHECK_STR(make_ids(t, "<t\u00e9>\u00e9\u00e8", 0), "301 302");
    tokenizer_close(t);
}

static void test_token_bytes(void)
{
    struct sluice_tokenizer *t = open_small();
    REQUIRE(t);
    const char *bytes;
    size_t len;
    bool special;
    CHECK(sluice_token_bytes(t, 260, &bytes, &len, &special) == SLUICE_OK);
    CHECK(len == 2 && memcmp(bytes, "\xf0\x9f", 2) == 0 && !special);
    CHECK(sluice_token_bytes(t, 300, &bytes, &len, &special) == SLUICE_OK);
    CHECK(len == 3 && memcmp(bytes, "<s>", 3) == 0 && special);
    /* A hole in the ids. */
    CHECK(sluice_token_bytes(t, 270, &bytes, &len, &special) == SLUICE_OK);
    CHECK(len == 0 && bytes && !special);
    CHECK(sluice_token_bytes(t, -1, &bytes, &len, &special) == SLUICE_E_ARGUMENT);
    CHECK(sluice_token_bytes(t, 303, &bytes, &len, &special) == SLUICE_E_ARGUMENT);
    CHECK(sluice_tokenizer_vocab_size(t) == 303);
    tokenizer_close(t);
}

static void test_arguments_of_detokenize(void)
{
    struct sluice_tokenizer *t = open_small();
    struct sluice_error err;
    REQUIRE(t);
    char text[4] = "....";
    size_t len = 9;
    CHECK_OK(sluice_detokenize(t, IDS('a', 'b', 'c'), 0, text, 2, &len, &err));
    CHECK(len == 3 && memcmp(text, "ab..", 4) == 0);
    CHECK_OK(sluice_detokenize(t, NULL, 0, 0, NULL, 0, &len, &err));
    CHECK(len == 0);
    CHECK_OK(sluice_detokenize(t, IDS(270), 0, text, 4, &len, &err));
    CHECK(len == 0);
    CHECK(sluice_detokenize(t, IDS('a', 303), 0, text, 4, &len, &err) == SLUICE_E_ARGUMENT);
    CHECK(strstr(err.message, "token id 303") && strstr(err.message, "302"), "%s", err.message);
    CHECK(sluice_detokenize(t, IDS(-5), 0, text, 4, &len, &err) == SLUICE_E_ARGUMENT);
    CHECK(sluice_detokenize(t, IDS('a'), 2, text, 4, &len, &err) == SLUICE_E_ARGUMENT);
    tokenizer_close(t);
}

static void check_push(struct sluice_text_stream *stream, const struct sluice_tokenizer *t,
                       int32_t id, const char *want)
{
    struct sluice_error err;
    char out[32];
    size_t len;
    CHECK_OK(sluice_text_stream_push(stream, t, id, out, sizeof out - 1, &len, &err));
    out[len] = '\0';
    CHECK_STR(out, want);
}

static void test_stream_holds_half_characters_back(void)
{
    struct sluice_tokenizer *t = open_small();
    REQUIRE(t);
    struct sluice_text_stream stream = {{0}, 0};
    char out[4];
    check_push(&stream, t, 'a', "a");
    check_push(&stream, t, 260, "");
    check_push(&stream, t, 0x98, "");
    check_push(&stream, t, 300, "");
    check_push(&stream, t, 0x80, SMILE);
    check_push(&stream, t, 0xff, "\ufffd");
    check_push(&stream, t, 0xe4, "");
    check_push(&stream, t, 'b',
               "\ufffd"
               "b");
    check_push(&stream, t, 262, "\ufffd\ufffd\ufffd");
    check_push(&stream, t, 260, "");
    check_push(&stream, t, 262, "\xf0\x9f\x80\x80\ufffd");
    CHECK(sluice_text_stream_finish(&stream, out) == 0);
    check_push(&stream, t, 260, "");
    CHECK(sluice_text_stream_finish(&stream, out) == 3 && memcmp(out, "\ufffd", 3) == 0);
    CHECK(sluice_text_stream_finish(&stream, out) == 0);
    tokenizer_close(t);
}

static void test_stream_errors_change_nothing(void)
{
    struct sluice_tokenizer *t = open_small();
    struct sluice_error err;
    REQUIRE(t);
    struct sluice_text_stream stream = {{0}, 0};
    char out[16];
    size_t len;
    check_push(&stream, t, 0xe4, "");
    CHECK(sluice_text_stream_push(&stream, t, 262, out, 5, &len, &err) == SLUICE_E_ARGUMENT);
    CHECK(len == 6, "%zu", len);
    CHECK(sluice_text_stream_push(&stream, t, 303, out, 16, &len, &err) == SLUICE_E_ARGUMENT);
    check_push(&stream, t, 0xb8, "");
    check_push(&stream, t, 0xad, "\u4e2d");
    stream.n_pending = 9;
    CHECK(sluice_text_stream_push(&stream, t, 'a', out, 16, &len, &err) == SLUICE_E_ARGUMENT);
    CHECK(strstr(err.message, "zeroed") != NULL);
    tokenizer_close(t);
}

static void test_stream_gives_what_detokenize_gives(void)
{
    struct sluice_tokenizer *t = open_small();
    struct sluice_error err;
    REQUIRE(t);
    struct rng rng = {5};
    static const int32_t likely[] = {0xf0, 0x9f, 0x98, 0x80, 0xe4, 0xb8, 0xad, 0xed, 0xa0, 0xc3,
                                     260,  261,  262,  300,  301,  302,  'a',  0xf4, 0x90, 0x8f};
    for (int round = 0; round < 20000; round++) {
        int32_t ids[40];
        char all[600], parts[600];
        size_t n = rng_below(&rng, 40), n_all, n_parts = 0, len;
        struct sluice_text_stream stream = {{0}, 0};
        for (size_t i = 0; i < n; i++)
            ids[i] = rng_below(&rng, 3) ? likely[rng_below(&rng, COUNT_OF(likely))]
                                        : (int32_t)rng_below(&rng, 303);
        CHECK_OK(sluice_detokenize(t, ids, n, SLUICE_DETOKENIZE_SKIP_SPECIAL, all, sizeof all,
                                   &n_all, &err));
        for (size_t i = 0; i < n; i++) {
            CHECK_OK(sluice_text_stream_push(&stream, t, ids[i], parts + n_parts,
                                             sizeof parts - n_parts, &len, &err));
            CHECK(utf8_valid(span_of(parts + n_parts, len)));
            n_parts += len;
        }
        n_parts += sluice_text_stream_finish(&stream, parts + n_parts);
        CHECK(n_all == n_parts && memcmp(all, parts, n_all) == 0, "round %d", round);
    }
    tokenizer_close(t);
}

/* Valid text comes back as it was. */
static void test_round_trip(void)
{
    struct sluice_error err;
    struct sluice_tokenizer *t;
    CHECK_OK(tokenizer_open("models/storyteller", &t, &err));
    REQUIRE(t);
    struct rng rng = {9};
    for (int round = 0; round < 2000; round++) {
        uint8_t text[400];
        char back[400];
        int32_t ids[400];
        size_t len = 0, n, n_back;
        for (uint32_t i = rng_below(&rng, 80); i > 0; i--) {
            uint32_t cp =
                rng_below(&rng, 2) ? 32 + rng_below(&rng, 90) : 0x4e00 + rng_below(&rng, 99);
            len += utf8_put(cp, text + len);
        }
        CHECK_OK(sluice_tokenize(t, (const char *)text, len, 0, ids, 400, &n, &err));
        REQUIRE(n <= 400);
        CHECK_OK(sluice_detokenize(t, ids, n, 0, back, sizeof back, &n_back, &err));
        CHECK(n_back == len && memcmp(back, text, len) == 0, "round %d", round);
    }
    tokenizer_close(t);
}

#define CASES(C)                                                                                   \
    C(bytes_join_across_tokens)                                                                    \
    C(added_tokens_decode_to_their_text)                                                           \
    C(token_bytes)                                                                                 \
    C(arguments_of_detokenize)                                                                     \
    C(stream_holds_half_characters_back)                                                           \
    C(stream_errors_change_nothing)                                                                \
    C(stream_gives_what_detokenize_gives)                                                          \
    C(round_trip)
CHECK_MAIN(CASES)
