/* Text to ids: merges, added tokens, what goes around the text, and the shipped tokenizer. */
#include <jansson.h>
#include <pthread.h>

#include "base/rng.h"
#include "token_make.h"

static struct sluice_tokenizer *open_or_null(const struct recipe *r)
{
    struct sluice_error err;
    struct sluice_tokenizer *t = NULL;
    CHECK_OK(make_open(r, &t, &err));
    return t;
}

static void check_ids(const struct recipe *r, const char *text, unsigned flags, const char *want)
{
    struct sluice_tokenizer *t = open_or_null(r);
    if (!t) return;
    CHECK_STR(make_ids(t, text, flags), want);
    tokenizer_close(t);
}

static void test_merges_by_rank_then_from_the_left(void)
{
    const struct recipe r = {
        .vocab = ",\"ab\":300,\"bc\":301,\"aa\":302,\"abc\":303,\"aab\":304",
        .merges = "[\"b c\",\"a a\",\"a b\",[\"ab\",\"c\"],[\"aa\",\"b\"]]",
    };
    check_ids(&r, "abc", 0, "97 301");
    check_ids(&r, "aaa", 0, "302 97");
    check_ids(&r, "aab", 0, "304");
    check_ids(&r, "abab", 0, "300 300");
    check_ids(&r, "", 0, "");
    check_ids(&r, "z", 0, "122");
}

static void test_a_later_merge_of_the_same_pair_wins(void)
{
    const struct recipe r = {.vocab = ",\"ab\":300,\"bc\":301",
                             .merges = "[\"a b\",\"b c\",\"a b\"]"};
    check_ids(&r, "abc", 0, "97 301");
}

static void test_ignore_merges(void)
{
    struct recipe r = {.vocab = ",\"abc\":300,\"\\u0120ab\":301,\"bc\":302",
                       .merges = "[\"b c\"]",
                       .fields = "\"ignore_merges\":true,"};
    check_ids(&r, "abc", 0, "300");
    check_ids(&r, " ab", 0, "301");
    check_ids(&r, "abcx", 0, "97 302 120");
    r.fields = "";
    check_ids(&r, "abc", 0, "97 302");
}

/* model.vocab without some bytes: they become unk_token, or nothing. */
static void test_bytes_without_a_token(void)
{
    static const char *const format =
        "{\"pre_tokenizer\":" BYTE_LEVEL ",\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{"
        "\"type\":\"BPE\",%s\"vocab\":{\"<u>\":0,\"a\":1,\"b\":2,\"ab\":3},\"merges\":[\"a b\"]}}";
    static const struct {
        const char *fields, *ids;
    } cases[] = {
        {"", "3 1"},
        {"\"unk_token\":\"<u>\",", "3 0 0 1"},
        {"\"unk_token\":\"<u>\",\"fuse_unk\":true,", "3 0 1"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char json[512];
        struct sluice_error err;
        struct sluice_tokenizer *t;
        snprintf(json, sizeof json, format, cases[i].fields);
        CHECK_OK(tokenizer_parse(span_str(json), "f", span_of(NULL, 0), "", &t, &err));
        CHECK_STR(make_ids(t, "abxya", 0), cases[i].ids);
        tokenizer_close(t);
    }
}

/* The definition, word for word: find the best pair of all, join it, begin again. */
static size_t encode_plainly(const struct bpe *bpe, const uint8_t *text, size_t n, int32_t *ids)
{
    for (size_t i = 0; i < n; i++) ids[i] = bpe->byte_ids[text[i]];
    for (;;) {
        const struct pair_slot *best = NULL;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const struct pair_slot *slot =
                pair_table_find(&bpe->merges, (uint32_t)ids[i], (uint32_t)ids[i + 1]);
            if (!slot || (best && best->first <= slot->first)) continue;
            best = slot;
            at = i;
        }
        if (!best) return n;
        ids[at] = (int32_t)best->second;
        n--;
        for (size_t i = at + 1; i < n; i++) ids[i] = ids[i + 1];
    }
}

/* Random words over few letters, short and long ones, with the merges of the shipped tokenizer. */
static void test_heap_and_scan_agree_with_the_definition(void)
{
    struct sluice_error err;
    struct sluice_tokenizer *t;
    CHECK_OK(tokenizer_open("models/storyteller", &t, &err));
    REQUIRE(t);
    struct rng rng = {3};
    struct bpe_scratch scratch = {0};
    for (int round = 0; round < 3000; round++) {
        uint8_t text[400];
        int32_t want[400], got[400];
        size_t n = 1 + rng_below(&rng, round % 2 ? 70 : 400);
        uint32_t letters = 1 + rng_below(&rng, 12);
        for (size_t i = 0; i < n; i++) text[i] = (uint8_t) "eatonsirhl d"[rng_below(&rng, letters)];
        size_t n_want = encode_plainly(&t->bpe, text, n, want);
        struct id_sink sink = {got, COUNT_OF(got), 0};
        REQUIRE(bpe_encode(&t->bpe, &t->vocab, span_of(text, n), &scratch, &sink));
        CHECK(sink.n == n_want && memcmp(got, want, n_want * sizeof *got) == 0, "round %d", round);
    }
    bpe_scratch_release(&scratch);
    tokenizer_close(t);
}

/* A megabyte without a place to cut; an algorithm that is quadratic would take hours. */
static void test_a_megabyte_of_one_letter(void)
{
    enum { N = 1 << 20 };
    struct sluice_error err;
    struct sluice_tokenizer *t;
    CHECK_OK(tokenizer_open("models/storyteller", &t, &err));
    REQUIRE(t);
    static const char letters[] = {'a', ' ', '!', '\n', '7'};
    char *text = malloc(N);
    REQUIRE(text);
    for (size_t i = 0; i < COUNT_OF(letters); i++) {
        size_t n = 0, len = 0;
        memset(text, letters[i], N);
        CHECK_OK(sluice_tokenize(t, text, N, 0, NULL, 0, &n, &err));
        int32_t *ids = malloc(n * sizeof *ids);
        REQUIRE(ids && n > 0);
        CHECK_OK(sluice_tokenize(t, text, N, 0, ids, n, &n, &err));
        CHECK_OK(sluice_detokenize(t, ids, n, 0, NULL, 0, &len, &err));
        CHECK(len == N, "%zu", len);
        free(ids);
    }
    free(text);
    tokenizer_close(t);
}

#define TOKEN(id, content, more)                                                                   \
    "{\"id\":" id ",\"content\":\"" content "\",\"special\":false,\"normalized\":false" more "}"
#define SPECIAL(id, content)                                                                       \
    "{\"id\":" id ",\"content\":\"" content "\",\"special\":true,\"normalized\":false}"

static void test_added_tokens_longest_first(void)
{
    const struct recipe r = {.added = TOKEN("300", "<a", "") "," TOKEN("301", "<a>", "") "," TOKEN(
                                 "302", "a>", "") "," SPECIAL("303", "\u4e2d")};
    check_ids(&r, "x<a>y", 0, "120 301 121");
    check_ids(&r, "<a<a>", 0, "300 301");
    check_ids(&r, "<aa>", 0, "300 302");
    check_ids(&r, "<<a>>", 0, "60 301 62");
    check_ids(&r, "\u4e2d\u4e2d", 0, "303 303");
    check_ids(&r, "<", 0, "60");
}

static void test_added_tokens_strip(void)
{
    const struct recipe r = {.added = TOKEN("300", "<l>", ",\"lstrip\":true") "," TOKEN(
                                 "301", "<r>", ",\"rstrip\":true")};
    check_ids(&r, "a \t<l> b", 0, "97 300 32 98");
    check_ids(&r, "a <r> \u2003\nb", 0, "97 32 301 98");
    /* White space that one token took is not there for the next. */
    check_ids(&r, "<r>  <l>", 0, "301 300");
    check_ids(&r, "  <l>", 0, "300");
    check_ids(&r, "<r>  ", 0, "301");
}

static void test_added_tokens_single_word(void)
{
    const struct recipe r = {.added = TOKEN("300", "<m>", ",\"single_word\":true")};
    check_ids(&r, "<m> A<m> <m>o <m>", 0, "300 32 65 60 109 62 32 60 109 62 111 32 300");
    check_ids(&r, "<m>, <m>-", 0, "300 44 32 300 45");
    check_ids(&r, "\u0330<m>", 0, "204 176 60 109 62");
}

static void test_added_tokens_and_normalization(void)
{
    const struct recipe r = {
        .normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}]}",
        .added = "{\"id\":300,\"content\":\"e\\u0301\",\"special\":false,\"normalized\":true},"
                 "{\"id\":301,\"content\":\"o\\u0301\",\"special\":true,\"normalized\":false}"};
    check_ids(&r, "e\u0301\u00e9", 0, "300 300");
    check_ids(&r, "o\u0301\u00f3", 0, "301 195 179");
    check_ids(&r, "n\u0303", 0, "195 177");
}

static void test_special_tokens_as_text(void)
{
    const struct recipe r = {
        .added = SPECIAL("300", "<s>") "," TOKEN("301", "<t>", "") "," TOKEN("302", "s>", "")};
    check_ids(&r, "<s><t>", 0, "300 301");
    check_ids(&r, "<s><t>s>", SLUICE_TOKENIZE_PLAIN, "60 115 62 301 302");
}

#define TEMPLATE(items)                                                                            \
    "{\"type\":\"TemplateProcessing\",\"single\":[" items "],\"pair\":[],\"special_tokens\":{"     \
    "\"<s>\":{\"id\":\"<s>\",\"ids\":[300],\"tokens\":[\"<s>\"]},"                                 \
    "\"</s>\":{\"id\":\"</s>\",\"ids\":[301,97],\"tokens\":[\"</s>\"]}}}"
#define ITEM(name) "{\"SpecialToken\":{\"id\":\"" name "\",\"type_id\":0}}"
#define TEXT_ITEM "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}"
#define BOTH SPECIAL("300", "<s>") "," SPECIAL("301", "</s>")

static void test_post_processor(void)
{
    struct recipe r = {.added = BOTH, .post = TEMPLATE(ITEM("<s>") "," TEXT_ITEM "," ITEM("</s>"))};
    check_ids(&r, "b", 0, "300 98 301 97");
    check_ids(&r, "", 0, "300 301 97");
    check_ids(&r, "b", SLUICE_TOKENIZE_NO_SPECIAL, "98");
    r.post = "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"}," TEMPLATE(
        ITEM("<s>") "," TEXT_ITEM) "]}";
    check_ids(&r, "b", 0, "300 98");
    r.post = "{\"type\":\"Sequence\",\"processors\":[" TEMPLATE(
        ITEM("<s>") "," TEXT_ITEM) "," TEMPLATE(ITEM("</s>") "," TEXT_ITEM "," ITEM("<s>")) "]}";
    check_ids(&r, "b", 0, "301 97 300 98 300");
}

static void test_tokens_that_the_config_adds(void)
{
    static const struct {
        const char *config, *ids;
    } cases[] = {
        {"{}", "98"},
        {"{\"add_bos_token\":true,\"bos_token\":\"<s>\"}", "300 98"},
        {"{\"add_bos_token\":false,\"bos_token\":\"<s>\"}", "98"},
        {"{\"add_bos_token\":true,\"bos_token\":null}", "98"},
        {"{\"add_bos_token\":true,\"bos_token\":{\"content\":\"<s>\"}}", "300 98"},
        {"{\"add_eos_token\":true,\"eos_token\":\"</s>\",\"model_max_length\":"
         "1000000000000000019884624838656}",
         "98 301"},
        {"{\"tokenizer_class\":\"LlamaTokenizerFast\",\"bos_token\":\"<s>\"}", "300 98"},
        {"{\"tokenizer_class\":\"LlamaTokenizerFast\",\"bos_token\":\"<s>\","
         "\"add_bos_token\":false}",
         "98"},
    };
    struct recipe r = {.added = BOTH};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        r.config = cases[i].config;
        check_ids(&r, "b", 0, cases[i].ids);
    }
    r.post = TEMPLATE(ITEM("<s>") "," TEXT_ITEM);
    r.config = "{\"add_bos_token\":true,\"bos_token\":\"<s>\"}";
    check_ids(&r, "b", 0, "300 98");
    r.config = "{\"add_bos_token\":false,\"bos_token\":\"<s>\"}";
    check_ids(&r, "b", 0, "300 98");
    r.config = "{\"add_bos_token\":true,\"bos_token\":\"</s>\"}";
    check_ids(&r, "b", 0, "301 300 98");
    r.config = "{\"tokenizer_class\":\"LlamaTokenizer\",\"add_bos_token\":false}";
    check_ids(&r, "b", 0, "98");
}

static void test_invalid_text(void)
{
    const struct recipe r = {.added = SPECIAL("300", "\ufffd")};
    struct sluice_tokenizer *t = open_or_null(&r);
    REQUIRE(t);
    CHECK_STR(make_ids(t,
                       "a\xff"
                       "b\xe4\xb8",
                       0),
              "97 300 98 300");
    CHECK_STR(make_ids_of(t, span_of("a\0b", 3), 0), "97 0 98");
    tokenizer_close(t);
}

static void test_room_and_arguments(void)
{
    struct sluice_error err;
    const struct recipe r = {0};
    struct sluice_tokenizer *t = open_or_null(&r);
    REQUIRE(t);
    int32_t ids[4] = {-7, -7, -7, -7};
    size_t n = 0;
    CHECK_OK(sluice_tokenize(t, "abc", 3, 0, ids, 2, &n, &err));
    CHECK(n == 3 && ids[0] == 97 && ids[1] == 98 && ids[2] == -7);
    CHECK_OK(sluice_tokenize(t, "", 0, 0, NULL, 0, &n, &err));
    CHECK(n == 0);
    CHECK_OK(sluice_tokenize(t, NULL, 0, 0, NULL, 0, &n, &err));
    CHECK(sluice_tokenize(t, "a", 1, 64, ids, 4, &n, &err) == SLUICE_E_ARGUMENT);
    CHECK(strstr(err.message, "flags") != NULL);
    CHECK(sluice_tokenize(t, "a", (size_t)INT32_MAX, 0, ids, 4, &n, &err) == SLUICE_E_ARGUMENT);
    CHECK(strstr(err.message, "limit") != NULL);
    CHECK(sluice_tokenizer_vocab_size(t) == 256);
    tokenizer_close(t);
}

struct worker {
    const struct sluice_tokenizer *tokenizer;
    uint64_t seed;
    int bad;
};

/* Encodes random texts and decodes the ids; threads share nothing but the tokenizer. */
static void *work(void *user)
{
    struct worker *w = user;
    struct rng rng = {w->seed};
    for (int round = 0; round < 500; round++) {
        char text[120], back[120];
        int32_t ids[120];
        size_t n = 0, len = 0;
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = "abcdefghijklmnopqrstuvwxyz .,'!0123\n"[rng_below(&rng, 36)];
        bool same = sluice_tokenize(w->tokenizer, text, sizeof text, 0, ids, 120, &n, NULL) == 0 &&
                    sluice_detokenize(w->tokenizer, ids, n, 0, back, 120, &len, NULL) == 0 &&
                    len == sizeof text && memcmp(text, back, len) == 0;
        w->bad += !same;
    }
    return NULL;
}

static void test_threads_share_a_tokenizer(void)
{
    enum { THREADS = 4 };
    struct sluice_error err;
    struct sluice_tokenizer *t;
    CHECK_OK(tokenizer_open("models/storyteller", &t, &err));
    REQUIRE(t);
    pthread_t threads[THREADS];
    struct worker workers[THREADS];
    for (uint64_t i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){t, i + 1, 0};
        REQUIRE(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        CHECK(workers[i].bad == 0, "%d", workers[i].bad);
    }
    tokenizer_close(t);
}

/* Prompts and their ids, as the model's maker recorded them. */
static void test_storyteller_prompts(void)
{
    struct sluice_error err;
    sluice_tokenizer *t;
    CHECK_OK(sluice_tokenizer_open(&t, "models/storyteller", &err));
    json_t *list = json_load_file("models/storyteller/greedy.json", 0, NULL);
    REQUIRE(t && json_array_size(list) > 1);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const char *prompt = json_string_value(json_object_get(entry, "prompt"));
        const json_t *want = json_object_get(entry, "prompt_ids");
        REQUIRE(prompt && json_array_size(want) > 0);
        int32_t ids[64];
        size_t n;
        CHECK_OK(sluice_tokenize(t, prompt, strlen(prompt), 0, ids, 64, &n, &err));
        CHECK(n == json_array_size(want));
        for (size_t k = 0; k < n; k++)
            CHECK(ids[k] == json_integer_value(json_array_get(want, k)), "%s: %zu", prompt, k);
        const json_t *greedy = json_object_get(entry, "greedy_ids");
        const char *text = json_string_value(json_object_get(entry, "text"));
        int32_t more[64];
        char out[1024];
        size_t len, n_more = json_array_size(greedy);
        REQUIRE(text && n_more <= 64);
        for (size_t k = 0; k < n_more; k++)
            more[k] = (int32_t)json_integer_value(json_array_get(greedy, k));
        CHECK_OK(sluice_detokenize(t, more, n_more, 0, out, sizeof out, &len, &err));
        CHECK(span_equal(span_of(out, len), span_str(text)), "%.*s", (int)len, out);
    }
    json_decref(list);
    CHECK_STR(make_ids(t, "<|im_start|>", 0), "1");
    sluice_tokenizer_close(&t);
    CHECK(t == NULL);
    sluice_tokenizer_close(&t);
}

#define CASES(C)                                                                                   \
    C(merges_by_rank_then_from_the_left)                                                           \
    C(a_later_merge_of_the_same_pair_wins)                                                         \
    C(ignore_merges)                                                                               \
    C(bytes_without_a_token)                                                                       \
    C(heap_and_scan_agree_with_the_definition)                                                     \
    C(a_megabyte_of_one_letter)                                                                    \
    C(added_tokens_longest_first)                                                                  \
    C(added_tokens_strip)                                                                          \
    C(added_tokens_single_word)                                                                    \
    C(added_tokens_and_normalization)                                                              \
    C(special_tokens_as_text)                                                                      \
    C(post_processor)                                                                              \
    C(tokens_that_the_config_adds)                                                                 \
    C(invalid_text)                                                                                \
    C(room_and_arguments)                                                                          \
    C(threads_share_a_tokenizer)                                                                   \
    C(storyteller_prompts)
CHECK_MAIN(CASES)
