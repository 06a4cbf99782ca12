/* What tokenizer_open refuses, and what each message says. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "token/token_json.h"
#include "token_make.h"

struct refusal {
    struct recipe recipe;
    enum sluice_status status;
    const char *says;
};

static void check_refusals(const struct refusal *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct sluice_error err = {0};
        struct sluice_tokenizer *t = NULL;
        enum sluice_status status = make_open(&list[i].recipe, &t, &err);
        CHECK(status == list[i].status && err.code == status, "'%s': %d '%s'", list[i].says, status,
              err.message);
        CHECK(strstr(err.message, list[i].says), "'%s' is not in '%s'", list[i].says, err.message);
        CHECK(t == NULL);
        CHECK(make_open(&list[i].recipe, &t, NULL) == list[i].status);
    }
}

#define FORMAT SLUICE_E_FORMAT
#define UNKNOWN SLUICE_E_NO_TOKENIZER

static void test_vocab_and_merges(void)
{
    static const struct refusal list[] = {
        {{.vocab = ",\"ab\":97"}, FORMAT, "model.vocab: id 97 is given to two tokens"},
        {{.vocab = ",\"a\":300"}, FORMAT, "model.vocab: the token of id 300 is listed twice"},
        {{.vocab = ",\"a b\":300,\"a b\":301"}, FORMAT, "the token of id 301 is listed twice"},
        {{.vocab = ",\"ab\":-1"}, FORMAT, "model.vocab: integer from 0 on expected"},
        {{.vocab = ",\"ab\":1.5"}, FORMAT, "integer written as such expected"},
        {{.vocab = ",\"ab\":1e3"}, FORMAT, "integer written as such expected"},
        {{.vocab = ",\"ab\":0300"}, FORMAT, "integer written as such expected"},
        {{.vocab = ",\"ab\":4194304"}, FORMAT, "integer above the limit of 4194303"},
        {{.vocab = ",\"ab\":99999999999999999999"}, FORMAT, "integer above the limit"},
        {{.vocab = ",\"ab\":\"1\""}, FORMAT, "integer from 0 on expected"},
        {{.vocab = ",\"ab\" 300"}, FORMAT, "model.vocab: ':' expected"},
        {{.vocab = ",\"ab\":300 \"c\":301"}, FORMAT, "model.vocab: ',' expected"},
        {{.vocab = ","}, FORMAT, "model.vocab: string expected"},
        {{.vocab = ",\"\\q\":300"}, FORMAT, "model.vocab: bad escape"},
        {{.vocab = ",\"\\ud800x\":300"}, FORMAT, "bad escape"},
        {{.vocab = ",\"\\udc00\":300"}, FORMAT, "bad escape"},
        {{.vocab = ",\"\\u12g4\":300"}, FORMAT, "bad escape"},
        {{.vocab = ",\"\xff\":300"}, FORMAT, "not UTF-8"},
        {{.vocab = ",\"a\nb\":300"}, FORMAT, "control character in a string"},
        {{.vocab = ",\"ab\":300"}, FORMAT, "model.merges is empty, but model.vocab has 257 tokens"},
        {{.merges = "null"}, FORMAT, "model.merges: '[' expected"},
        {{.merges = "{}"}, FORMAT, "model.merges: '[' expected"},
        {{.merges = "[\"a b\"]"}, FORMAT, "model.merges[0] needs token 'ab'"},
        {{.merges = "[[\"a\",\"b\"]]"}, FORMAT, "model.merges[0] needs token 'ab'"},
        {{.vocab = ",\"ab\":300", .merges = "[\"a b\",\"ab cd\"]"},
         FORMAT,
         "model.merges[1] needs token 'cd'"},
        {{.vocab = ",\"ab\":300", .merges = "[\"cd ab\"]"}, FORMAT, "needs token 'cd'"},
        {{.merges = "[\"ab\"]"}, FORMAT, "model.merges: merge that is not two tokens"},
        {{.merges = "[\"a b c\"]"}, FORMAT, "merge that is not two tokens"},
        {{.merges = "[\"\"]"}, FORMAT, "merge that is not two tokens"},
        {{.merges = "[[\"a\"]]"}, FORMAT, "model.merges: ',' expected"},
        {{.merges = "[[\"a\",\"b\",\"c\"]]"}, FORMAT, "model.merges: ']' expected"},
        {{.merges = "[[\"a\",1]]"}, FORMAT, "model.merges: string expected"},
        {{.merges = "[1]"}, FORMAT, "model.merges: string expected"},
        {{.merges = "[[\"\u4e2d\",\"b\"]]"}, FORMAT, "needs token '\u4e2d'"},
    };
    check_refusals(list, COUNT_OF(list));
}

#define ADDED(fields) "{\"content\":\"<s>\"," fields "}"

static void test_added_tokens(void)
{
    static const struct refusal list[] = {
        {{.added = "7"}, FORMAT, "added_tokens[0] is 7, but must be an object"},
        {{.added = "{\"id\":300}"}, FORMAT, "added_tokens[0].content is missing"},
        {{.added = ADDED("\"special\":true")}, FORMAT, "added_tokens[0].id is missing"},
        {{.added = ADDED("\"id\":-1")}, FORMAT, "added_tokens[0].id is -1"},
        {{.added = ADDED("\"id\":4194304")}, FORMAT, "added_tokens[0].id is 4194304"},
        {{.added = ADDED("\"id\":300,\"lstrip\":1")}, FORMAT, "added_tokens[0].lstrip is 1"},
        {{.added = ADDED("\"id\":97")}, FORMAT, "token '<s>' has id 97 of another token"},
        {{.added = ADDED("\"id\":300") "," ADDED("\"id\":300")}, FORMAT, "id 300 of another token"},
        {{.added = "{\"id\":300,\"content\":\"a\"}"}, FORMAT, "token 'a' has id 300, but 97"},
    };
    check_refusals(list, COUNT_OF(list));
}

static void test_kinds_that_are_not_known(void)
{
    static const struct refusal list[] = {
        {{.normalizer = "{\"type\":\"NFKC\"}"}, UNKNOWN, "normalizer is of type NFKC"},
        {{.normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},"
                        "{\"type\":\"Lowercase\"}]}"},
         UNKNOWN,
         "normalizer[1] is of type Lowercase"},
        {{.normalizer = "{\"type\":\"Sequence\"}"}, FORMAT, "normalizer.normalizers is missing"},
        {{.normalizer = "{}"}, FORMAT, "normalizer.type is missing"},
        {{.normalizer = "[]"}, FORMAT, "normalizer is an array, but must be an object"},
        {{.pre = "null"}, UNKNOWN, "pre_tokenizer has no ByteLevel step"},
        {{.pre = "{\"type\":\"Metaspace\"}"}, UNKNOWN, "pre_tokenizer is of type Metaspace"},
        {{.pre = SEQUENCE("{\"type\":\"Punctuation\"}")},
         UNKNOWN,
         "pre_tokenizer[0] is of type Punctuation"},
        {{.pre = SEQUENCE(BYTE_LEVEL)}, UNKNOWN, "pre_tokenizer[1] is ByteLevel behind ByteLevel"},
        {{.pre = "{\"type\":\"Sequence\",\"pretokenizers\":{}}"},
         FORMAT,
         "pre_tokenizer.pretokenizers is missing or no list"},
        {{.pre = SEQUENCE("1")}, FORMAT, "pre_tokenizer[0] is 1, but must be an object"},
        {{.pre = SEQUENCE(SPLIT("Regex", "a", "Twice", "false"))},
         FORMAT,
         "pre_tokenizer[0].behavior is 'Twice'"},
        {{.pre = SEQUENCE(SPLIT("Regex", "a", "Isolated", "0"))}, FORMAT, "invert is 0"},
        {{.pre = SEQUENCE(SPLIT("Glob", "a", "Isolated", "false"))}, FORMAT, "Regex is missing"},
        {{.decoder = "null"}, UNKNOWN, "decoder is of type null"},
        {{.decoder = "{\"type\":\"WordPiece\"}"}, UNKNOWN, "decoder is of type WordPiece"},
        {{.decoder = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"}]}"},
         UNKNOWN,
         "decoder is of type Sequence"},
        {{.fields = "\"dropout\":0.1,"}, UNKNOWN, "model.dropout is 0.1"},
        {{.fields = "\"dropout\":2,"}, FORMAT, "dropout is 2"},
        {{.fields = "\"byte_fallback\":true,"}, UNKNOWN, "with byte_fallback only Metaspace"},
        {{.fields = "\"end_of_word_suffix\":\"</w>\","},
         UNKNOWN,
         "model.end_of_word_suffix is set"},
        {{.fields = "\"continuing_subword_prefix\":\"##\","},
         UNKNOWN,
         "model.continuing_subword_prefix is set"},
        {{.fields = "\"ignore_merges\":1,"}, FORMAT, "model.ignore_merges is 1"},
    };
    check_refusals(list, COUNT_OF(list));
}

#define TEMPLATE(single, special)                                                                  \
    "{\"type\":\"TemplateProcessing\",\"single\":" single ",\"special_tokens\":" special "}"
#define AFTER_S "[{\"SpecialToken\":{\"id\":\"s\"}},{\"Sequence\":{\"id\":\"A\"}}]"

static void test_post_processors(void)
{
    static const struct refusal list[] = {
        {{.post = "{\"type\":\"BertProcessing\"}"},
         UNKNOWN,
         "post_processor is of type BertProcess"},
        {{.post = "{\"type\":\"Sequence\"}"}, FORMAT, "post_processor.processors is missing"},
        {{.post = TEMPLATE("[]", "{}")}, FORMAT, "must have the sequence A once"},
        {{.post = TEMPLATE("[{\"Sequence\":{\"id\":\"B\"}}]", "{}")}, FORMAT, "sequence A once"},
        {{.post = TEMPLATE("[1]", "{}")}, FORMAT, "post_processor.single[0] is 1"},
        {{.post = TEMPLATE(AFTER_S, "{}")}, FORMAT, "special_tokens has no ids for 's'"},
        {{.post = TEMPLATE(AFTER_S, "{\"s\":{\"ids\":[\"x\"]}}")}, FORMAT, "an id of 's' is none"},
        {{.post = TEMPLATE(AFTER_S, "{\"s\":{\"ids\":[999]}}")},
         FORMAT,
         "id 999, which is no token"},
        {{.post = TEMPLATE(AFTER_S, "{\"s\":{\"ids\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}}")},
         UNKNOWN,
         "adds more than 16 tokens"},
        {{.config = "[]"}, FORMAT, "config.json: is an array"},
        {{.config = "{"}, FORMAT, "config.json: line 1"},
        {{.config = "{\"add_bos_token\":\"yes\"}"}, FORMAT, "config.json: add_bos_token is"},
        {{.config = "{\"add_bos_token\":true,\"bos_token\":\"<x>\"}"},
         FORMAT,
         "config.json: bos_token is '<x>', which is no token"},
    };
    check_refusals(list, COUNT_OF(list));
}

static void check_text(const char *json, enum sluice_status want, const char *says)
{
    struct sluice_error err = {0};
    struct sluice_tokenizer *t;
    enum sluice_status status =
        tokenizer_parse(span_str(json), "f.json", span_of(NULL, 0), "", &t, &err);
    CHECK(status == want, "'%s': %d '%s'", json, status, err.message);
    CHECK(strstr(err.message, says), "'%s' is not in '%s'", says, err.message);
    CHECK(t == NULL);
}

static void test_documents(void)
{
    check_text("", FORMAT, "f.json");
    check_text("[]", FORMAT, "f.json: is an array");
    check_text("{}", FORMAT, "model is missing");
    check_text("{\"model\":null}", FORMAT, "model is missing");
    check_text("{\"model\":[]}", FORMAT, "model is an array");
    check_text("{\"model\":{}}", FORMAT, "model.vocab is missing");
    check_text("{\"model\":{\"vocab\":{}}}", FORMAT, "model.merges is missing");
    check_text("{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1.5]]}}", UNKNOWN,
               "model is of type Unigram");
    check_text("{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", UNKNOWN, "WordPiece");
    check_text("{\"model\":{\"type\":3}}", FORMAT, "model.type is 3");
    check_text("{\"model\":{\"vocab\":[],\"merges\":[]}}", FORMAT, "model.vocab: '{' expected");
    check_text("{\"model\":{\"vocab\":{},\"vocab\":{},\"merges\":[]}}", FORMAT, "'vocab'");
    check_text("{\"model\":{\"vocab\":{},\"merges\":[]},\"model\":{}}", FORMAT, "'model'");
    check_text("{\"model\":{\"vocab\":{},\"merges\":[]}} x", FORMAT, "f.json: line 1");
    check_text("{\n\"model\":{\"vocab\":{\n\n},\"merges\":[]},\n\"x\":tru}", FORMAT, "line 5");
    check_text("{\"added_tokens\":{},\"model\":{\"vocab\":{},\"merges\":[]},"
               "\"pre_tokenizer\":" BYTE_LEVEL ",\"decoder\":{\"type\":\"ByteLevel\"}}",
               FORMAT, "added_tokens is no list");
    check_text("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"u\"}}", FORMAT,
               "model.unk_token is 'u'");
}

/* Every beginning of a document is an error, and no more than that. */
static void test_truncated_documents(void)
{
    const struct recipe r = {.vocab = ",\"ab\":300,\"\\u4e2d \\ud83d\\ude00\":301",
                             .merges = "[\"a b\",[\"a\",\"b\"]]",
                             .added = ADDED("\"id\":302"),
                             .pre = SEQUENCE(SPLIT("Regex", "a", "Isolated", "false"))};
    struct text_buffer json = make_json(&r);
    for (size_t n = 0; n < json.n; n++) {
        struct sluice_error err;
        struct sluice_tokenizer *t;
        uint8_t *exact = malloc(n ? n : 1);
        REQUIRE(exact);
        memcpy(exact, json.data, n);
        enum sluice_status status =
            tokenizer_parse(span_of(exact, n), "f", span_of(NULL, 0), "", &t, &err);
        CHECK(status == SLUICE_E_FORMAT, "%zu bytes: %d %s", n, status, err.message);
        free(exact);
    }
    struct sluice_tokenizer *t;
    CHECK(make_open(&r, &t, NULL) == SLUICE_OK);
    tokenizer_close(t);
    text_release(&json);
}

static void test_both_notations_and_escapes(void)
{
    const struct recipe r = {
        .vocab = ",\"\\u0061\\u0062\":300 , \"\\\"\\\\\\/\" :\n301,\"\\ud83d\\ude00\\n\":302,"
                 "\"a b\":303,\"a bc\":304",
        .merges = "[ \"\\u0061 b\" , [ \"a b\" , \"c\" ] ]"};
    struct sluice_error err;
    struct sluice_tokenizer *t;
    CHECK_OK(make_open(&r, &t, &err));
    REQUIRE(t);
    CHECK_STR(make_ids(t, "ab", 0), "300");
    CHECK(span_equal(vocabulary_bytes(&t->vocab, 301), span_str("\"\\/")));
    CHECK(span_equal(vocabulary_bytes(&t->vocab, 302), span_str("\U0001f600\n")));
    CHECK(span_equal(vocabulary_bytes(&t->vocab, 303), span_str("a b")));
    CHECK(t->vocab.n_ids == 305);
    tokenizer_close(t);
}

static void test_harmless_settings(void)
{
    const struct recipe r = {
        .fields = "\"dropout\":null,\"unk_token\":\"<none>\",\"end_of_word_suffix\":\"\","
                  "\"continuing_subword_prefix\":null,\"byte_fallback\":false,",
        .added = "{\"id\":300,\"content\":\"\"}",
        .normalizer = "{\"type\":\"Sequence\",\"normalizers\":[]}",
        .decoder = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteLevel\"},"
                   "{\"type\":\"Fuse\"}]}"};
    struct sluice_error err;
    struct sluice_tokenizer *t;
    CHECK_OK(make_open(&r, &t, &err));
    REQUIRE(t);
    CHECK(t->vocab.n_ids == 256);
    CHECK_STR(make_ids(t, "ab", 0), "97 98");
    tokenizer_close(t);
}

static void put_file(const char *folder, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    REQUIRE(f);
    fputs(text, f);
    fclose(f);
}

static void drop_file(const char *folder, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK(unlink(path) == 0);
}

static void check_folder(const char *folder, enum sluice_status want, const char *says)
{
    struct sluice_error err = {0};
    sluice_tokenizer *t;
    enum sluice_status status = sluice_tokenizer_open(&t, folder, &err);
    CHECK(status == want && t == NULL, "%d", status);
    CHECK(strstr(err.message, says), "'%s' is not in '%s'", says, err.message);
}

/* The template of the tokenizer in folder is want; NULL: there is none. */
static void check_template(const char *folder, const char *want)
{
    struct sluice_error err;
    sluice_tokenizer *t;
    size_t len = 99;
    REQUIRE(sluice_tokenizer_open(&t, folder, &err) == SLUICE_OK, "%s", err.message);
    const char *got = sluice_tokenizer_chat_template(t, &len);
    CHECK((got == NULL) == (want == NULL) && len == (want ? strlen(want) : 0), "length %zu", len);
    if (got && want) CHECK_STR(got, want);
    sluice_tokenizer_close(&t);
}

static void test_chat_templates(void)
{
    char folder[] = "/tmp/sluice-token-XXXXXX";
    static const char config[] = "tokenizer_config.json";
    const struct recipe r = {0};
    struct text_buffer json = make_json(&r);
    text_append(&json, "", 1);
    REQUIRE(mkdtemp(folder));
    put_file(folder, "tokenizer.json", (const char *)json.data);
    text_release(&json);
    check_template(folder, NULL);
    put_file(folder, config, "{\"chat_template\":null}");
    check_template(folder, NULL);
    put_file(folder, config, "{\"chat_template\":\"{{ x }}\"}");
    check_template(folder, "{{ x }}");
    put_file(folder, config,
             "{\"chat_template\":[{\"name\":\"rag\",\"template\":\"r\"},"
             "{\"name\":\"default\",\"template\":\"d\"}]}");
    check_template(folder, "d");
    put_file(folder, config, "{\"chat_template\":[{\"name\":\"rag\",\"template\":\"r\"}]}");
    check_template(folder, NULL);
    put_file(folder, "chat_template.jinja", "of the file");
    check_template(folder, "of the file");
    put_file(folder, config, "{\"chat_template\":7}");
    check_folder(folder, FORMAT, "tokenizer_config.json: chat_template is neither");
    CHECK(sluice_tokenizer_chat_template(NULL, NULL) == NULL);
    drop_file(folder, "chat_template.jinja");
    drop_file(folder, config);
    drop_file(folder, "tokenizer.json");
    CHECK(rmdir(folder) == 0);
}

static void test_folders(void)
{
    char folder[] = "/tmp/sluice-token-XXXXXX";
    REQUIRE(mkdtemp(folder));
    check_folder("no/such/folder", SLUICE_E_NOT_FOUND, "no/such/folder: no such folder");
    check_folder(folder, UNKNOWN, "has no tokenizer.json");
    put_file(folder, "vocab.txt", "");
    check_folder(folder, UNKNOWN, "only vocab.txt (WordPiece)");
    put_file(folder, "tiktoken.model", "");
    check_folder(folder, UNKNOWN, "only tiktoken.model");
    put_file(folder, "tokenizer.model", "");
    check_folder(folder, UNKNOWN, "only tokenizer.model (SentencePiece)");
    put_file(folder, "tokenizer.json", "");
    check_folder(folder, FORMAT, "tokenizer.json");
    put_file(folder, "tokenizer.json", "{\"model\":{}}");
    check_folder(folder, FORMAT, "tokenizer.json: model.vocab is missing");
    const struct recipe r = {0};
    struct text_buffer json = make_json(&r);
    text_append(&json, "", 1);
    put_file(folder, "tokenizer.json", (const char *)json.data);
    put_file(folder, "tokenizer_config.json", "{]");
    check_folder(folder, FORMAT, "tokenizer_config.json: line 1");
    put_file(folder, "tokenizer_config.json", "{}");
    struct sluice_error err;
    sluice_tokenizer *t;
    CHECK_OK(sluice_tokenizer_open(&t, folder, &err));
    sluice_tokenizer_close(&t);
    drop_file(folder, "tokenizer_config.json");
    CHECK_OK(sluice_tokenizer_open(&t, folder, &err));
    sluice_tokenizer_close(&t);
    sluice_tokenizer_close(NULL);
    text_release(&json);
    drop_file(folder, "tokenizer.json");
    drop_file(folder, "tokenizer.model");
    drop_file(folder, "tiktoken.model");
    drop_file(folder, "vocab.txt");
    CHECK(rmdir(folder) == 0);
}

#define CASES(C)                                                                                   \
    C(vocab_and_merges)                                                                            \
    C(added_tokens)                                                                                \
    C(kinds_that_are_not_known)                                                                    \
    C(post_processors)                                                                             \
    C(documents)                                                                                   \
    C(truncated_documents)                                                                         \
    C(both_notations_and_escapes)                                                                  \
    C(harmless_settings)                                                                           \
    C(chat_templates)                                                                              \
    C(folders)
CHECK_MAIN(CASES)
