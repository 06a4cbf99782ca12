/* Tokenizers from GGUF metadata: how each kind splits text, kinds of tokens, and what is refused.
 */
#include "base/utf8.h"
#include "check.h"
#include "gguf_bytes.h"
#include "token/gguf_tokenizer.h"

static struct sluice_error err;

#define FILE_NAME "model.gguf"

/* NULL or -1: the key is left out. */
struct keys {
    const char *model, *pre;
    int add_bos, bos, add_eos, eos;
};

/* Ids 0 to 255 are the bytes, 256 "ab", 257 control, 258 user-defined, 259 unused. */
enum { AB = 256, CONTROL, USER, UNUSED, N_TOKENS };

static void put_tokens(struct gguf_bytes *f)
{
    struct byte_alphabet alphabet;
    char texts[256][5] = {{0}};
    byte_alphabet_init(&alphabet);
    for (uint32_t cp = 0; cp < BYTE_ALPHABET_END; cp++) {
        if (alphabet.byte_of[cp] < 0) continue;
        char *text = texts[alphabet.byte_of[cp]];
        text[0] = (char)(cp < 0x80 ? cp : 0xc0 | cp >> 6);
        if (cp >= 0x80) text[1] = (char)(0x80 | (cp & 0x3f));
    }
    gguf_key_array(f, "tokenizer.ggml.tokens", 8, N_TOKENS);
    for (int i = 0; i < 256; i++) gguf_put_string(f, texts[i]);
    gguf_put_string(f, "ab");
    gguf_put_string(f, "<|end|>");
    gguf_put_string(f, "\t\"user\" \\");
    gguf_put_string(f, "[PAD]");
    gguf_key_array(f, "tokenizer.ggml.token_type", 5, N_TOKENS);
    for (int i = 0; i <= AB; i++) gguf_put_int(f, 1, 4);
    for (uint64_t type = 3; type <= 5; type++) gguf_put_int(f, type, 4);
    gguf_key_array(f, "tokenizer.ggml.merges", 8, 1);
    gguf_put_string(f, "a b");
}

static struct gguf_bytes make(const struct keys *k)
{
    struct gguf_bytes f = gguf_begin(3);
    if (k->model) gguf_key_string(&f, "tokenizer.ggml.model", k->model);
    if (k->pre) gguf_key_string(&f, "tokenizer.ggml.pre", k->pre);
    if (k->add_bos >= 0) gguf_key_bool(&f, "tokenizer.ggml.add_bos_token", k->add_bos);
    if (k->bos >= 0) gguf_key_u32(&f, "tokenizer.ggml.bos_token_id", (uint32_t)k->bos);
    if (k->add_eos >= 0) gguf_key_bool(&f, "tokenizer.ggml.add_eos_token", k->add_eos);
    if (k->eos >= 0) gguf_key_u32(&f, "tokenizer.ggml.eos_token_id", (uint32_t)k->eos);
    return f;
}

/* Opens the tokenizer of the finished metadata in f, which is freed. */
static enum sluice_status open_bytes(struct gguf_bytes *f, struct sluice_tokenizer **out)
{
    struct arena arena = {0};
    struct gguf_header header;
    *out = NULL;
    gguf_end(f, 1, 0);
    enum sluice_status status =
        gguf_parse(span_of(f->data, f->len), f->len, FILE_NAME, &arena, &header, &err);
    if (status == SLUICE_OK) status = gguf_tokenizer_parse(&header, FILE_NAME, out, &err);
    gguf_release(&header);
    arena_release(&arena);
    free(f->data);
    return status;
}

static struct sluice_tokenizer *open_keys(const struct keys *k)
{
    struct sluice_tokenizer *t;
    struct gguf_bytes f = make(k);
    put_tokens(&f);
    enum sluice_status status = open_bytes(&f, &t);
    CHECK(status == SLUICE_OK, "%s: %s", k->pre, err.message);
    return t;
}

static enum sluice_status add_piece(void *user, struct span piece, struct sluice_error *e)
{
    (void)e;
    struct text_buffer *out = user;
    if (out->n) text_append(out, "|", 1);
    text_append(out, piece.data, piece.len);
    return SLUICE_OK;
}

static void expect_pieces(const char *pre, const char *text, const char *want)
{
    struct sluice_tokenizer *t = open_keys(&(struct keys){"gpt2", pre, -1, -1, -1, -1});
    if (!t) return;
    struct pretokenize_scratch scratch = {0};
    struct text_buffer got = {0};
    CHECK_OK(pretokenize(&t->pre, span_str(text), true, &scratch, add_piece, &got, &err));
    text_append(&got, "", 1);
    CHECK(strcmp((const char *)got.data, want) == 0, "%s: '%s' should be '%s'", pre,
          (const char *)got.data, want);
    text_release(&got);
    pretokenize_scratch_release(&scratch);
    tokenizer_close(t);
}

static void test_pieces(void)
{
    static const char words[] = "I'LL pay 12345$ naïve 中文ab!?\n\n  xY";
    static const char llama3[] = "I|'LL| pay| |123|45|$| naïve| 中文ab|!?\n\n| | xY";
    static const char qwen2[] = "I|'LL| pay| |1|2|3|4|5|$| naïve| 中文ab|!?\n\n| | xY";
    static const char gpt2[] = "I|'|LL| pay| 12345|$| naïve| 中文ab|!?|\n\n | xY";
    expect_pieces("gpt-2", words, gpt2);
    expect_pieces("olmo", words, gpt2);
    expect_pieces("starcoder", words, "I|'|LL| pay| |1|2|3|4|5|$| naïve| 中文ab|!?|\n\n | xY");
    expect_pieces("default", words, "I|'|LL| pay| |123|45|$| naïve| 中文ab|!?|\n\n | xY");
    expect_pieces("llama-bpe", words, llama3);
    expect_pieces("dbrx", words, llama3);
    expect_pieces("glm4", words, llama3);
    expect_pieces("chatglm-bpe", words, llama3);
    expect_pieces("qwen2", words, qwen2);
    expect_pieces("qwen35", words, qwen2);
    expect_pieces("gpt-4o", words, "I'LL| pay| |123|45|$| naïve| 中文ab|!?\n\n| | x|Y");
    expect_pieces("minimax-m2", "a/b.\n/c", "a|/b|.\n/|c");
    expect_pieces("kimi-k2", words, "I'LL| pay| |123|45|$| naïve| |中文|ab|!?\n\n| | x|Y");
    expect_pieces("kimi-k2", "a/b.\n/c", "a|/b|.\n|/c");
    expect_pieces("deepseek-llm", words, "I|'|LL| pay| |12345|$| na|ï|ve| |中文|ab|!?|\n|\n| | xY");
    expect_pieces("deepseek-coder", words,
                  "I|'|LL| pay| |1|2|3|4|5|$| naïve| |中文|ab|!?|\n|\n| | xY");
    expect_pieces("deepseek-v3", words, "I|'LL| pay| |123|45|$| naïve| |中文|ab|!?\n\n| | xY");
}

static void test_marks_and_cases(void)
{
    /* A letter and a combining mark; an upper case word before a lower case one. */
    expect_pieces("qwen2", "cafe\xcc\x81 x", "cafe|\xcc\x81| x");
    expect_pieces("qwen35", "cafe\xcc\x81 x", "cafe\xcc\x81| x");
    expect_pieces("gpt-4o", "HTTPServer's", "HTTPServer's");
    expect_pieces("gpt-4o", "camelCase", "camel|Case");
    expect_pieces("llama-bpe", "camelCase", "camelCase");
    expect_pieces("deepseek-llm", "\xe2\x84\xaa\xe1\xbe\xbe\xe2\x84\xa6",
                  "\xe2\x84\xaa\xe1\xbe\xbe\xe2\x84\xa6");
}

/* Ids of text as "1 2 3". */
static const char *ids_of(const struct sluice_tokenizer *t, const char *text)
{
    static char out[256];
    int32_t ids[32];
    size_t n = 0, len = 0;
    enum sluice_status status = sluice_tokenize(t, text, strlen(text), 0, ids, 32, &n, &err);
    CHECK(status == SLUICE_OK && n <= 32, "%s", err.message);
    out[0] = '\0';
    for (size_t i = 0; i < n && i < 32; i++)
        len += (size_t)snprintf(out + len, sizeof out - len, i ? " %d" : "%d", ids[i]);
    return out;
}

static void expect_ids(const struct keys *k, const char *text, const char *want)
{
    struct sluice_tokenizer *t = open_keys(k);
    if (!t) return;
    const char *got = ids_of(t, text);
    CHECK(strcmp(got, want) == 0, "%s: '%s' becomes %s, not %s", k->pre, text, got, want);
    tokenizer_close(t);
}

static void test_tokens(void)
{
    const struct keys plain = {"gpt2", "gpt-2", -1, -1, -1, -1};
    expect_ids(&plain, "abc", "256 99");
    expect_ids(&plain, "a<|end|>b", "97 257 98");
    expect_ids(&plain, "<|end|", "60 124 101 110 100 124");
    expect_ids(&plain, "x\t\"user\" \\y", "120 258 121");
    expect_ids(&plain, "[PAD]", "91 80 65 68 93");
    expect_ids(&plain, "e\xcc\x81", "101 204 129");
    expect_ids(&(struct keys){"gpt2", "qwen2", -1, -1, -1, -1}, "e\xcc\x81", "195 169");
    expect_ids(&(struct keys){"gpt2", "qwen35", -1, -1, -1, -1}, "e\xcc\x81", "195 169");
    struct sluice_tokenizer *t = open_keys(&plain);
    REQUIRE(t != NULL);
    CHECK(sluice_tokenizer_chat_template(t, NULL) == NULL);
    CHECK(t->vocab.n_ids == USER + 1);
    CHECK(t->vocab.tokens[CONTROL].flags & TOKEN_SPECIAL);
    CHECK(!(t->vocab.tokens[USER].flags & TOKEN_SPECIAL));
    CHECK(span_equal(vocabulary_bytes(&t->vocab, USER), span_str("\t\"user\" \\")));
    tokenizer_close(t);
}

static void test_chat_template(void)
{
    struct sluice_tokenizer *t;
    struct gguf_bytes f = make(&(struct keys){"gpt2", "gpt-2", -1, -1, -1, -1});
    put_tokens(&f);
    gguf_key_string(&f, "tokenizer.chat_template", "{{ messages }}");
    REQUIRE(open_bytes(&f, &t) == SLUICE_OK, "%s", err.message);
    size_t len;
    const char *text = sluice_tokenizer_chat_template(t, &len);
    CHECK(text && len == 14 && strcmp(text, "{{ messages }}") == 0);
    tokenizer_close(t);
}

static void test_affixes(void)
{
    expect_ids(&(struct keys){"gpt2", "gpt-2", -1, 257, -1, 257}, "a", "97");
    expect_ids(&(struct keys){"gpt2", "gpt-2", 1, 257, -1, 258}, "a", "257 97");
    expect_ids(&(struct keys){"gpt2", "gpt-2", 1, 257, 1, 258}, "a", "257 97 258");
    expect_ids(&(struct keys){"gpt2", "gpt-2", 0, 257, 1, 258}, "a", "97 258");
    expect_ids(&(struct keys){"gpt2", "llama-bpe", -1, 257, -1, 258}, "a", "257 97");
    expect_ids(&(struct keys){"gpt2", "llama-bpe", 0, 257, -1, 258}, "a", "97");
    expect_ids(&(struct keys){"gpt2", "llama-bpe", -1, -1, -1, -1}, "a", "97");
}

/* f, without a finished tokenizer, is refused and freed. */
static void expect_refused(struct gguf_bytes f, enum sluice_status code, const char *says)
{
    struct sluice_tokenizer *t;
    err.message[0] = '\0';
    enum sluice_status status = open_bytes(&f, &t);
    CHECK(status == code && err.code == code && !t, "status %d: %s", status, err.message);
    CHECK(strncmp(err.message, FILE_NAME ": ", sizeof FILE_NAME + 1) == 0, "%s", err.message);
    CHECK(strstr(err.message, says), "'%s' should say '%s'", err.message, says);
}

static void expect_keys_refused(struct keys k, enum sluice_status code, const char *says)
{
    struct gguf_bytes f = make(&k);
    put_tokens(&f);
    expect_refused(f, code, says);
}

static void test_refusals(void)
{
    expect_keys_refused((struct keys){NULL, NULL, -1, -1, -1, -1}, SLUICE_E_NO_TOKENIZER,
                        "has no key 'tokenizer.ggml.model'");
    expect_keys_refused((struct keys){"bert", NULL, -1, -1, -1, -1}, SLUICE_E_NO_TOKENIZER,
                        "'tokenizer.ggml.model' is 'bert'");
    expect_keys_refused((struct keys){"gpt2", NULL, -1, -1, -1, -1}, SLUICE_E_NO_TOKENIZER,
                        "'tokenizer.ggml.pre', which says how text is split, is missing");
    expect_keys_refused((struct keys){"gpt2", "viking", -1, -1, -1, -1}, SLUICE_E_NO_TOKENIZER,
                        "'tokenizer.ggml.pre' is 'viking'");
    expect_keys_refused((struct keys){"gpt2", "gpt-2", 1, -1, -1, -1}, SLUICE_E_FORMAT,
                        "'tokenizer.ggml.bos_token_id' is missing or no id");
    expect_keys_refused((struct keys){"gpt2", "gpt-2", 1, N_TOKENS, -1, -1}, SLUICE_E_FORMAT,
                        "'tokenizer.ggml.bos_token_id' is missing or no id");
    const struct keys plain = {"gpt2", "gpt-2", -1, -1, -1, -1};
    struct gguf_bytes f = make(&plain);
    expect_refused(f, SLUICE_E_FORMAT, "'tokenizer.ggml.tokens' is missing or no array");
    f = make(&plain);
    gguf_key_array(&f, "tokenizer.ggml.tokens", 8, 1);
    gguf_put_string(&f, "a");
    expect_refused(f, SLUICE_E_FORMAT, "'tokenizer.ggml.merges' is missing or no array");
    f = make(&plain);
    gguf_key_array(&f, "tokenizer.ggml.tokens", 8, 1);
    gguf_put_string(&f, "a");
    gguf_key_array(&f, "tokenizer.ggml.token_type", 5, 2);
    gguf_put_int(&f, 0, 8);
    expect_refused(f, SLUICE_E_FORMAT, "must list a number for each");
    f = make(&plain);
    gguf_key_array(&f, "tokenizer.ggml.tokens", 8, 1);
    gguf_put_string(&f, "a");
    gguf_key_array(&f, "tokenizer.ggml.token_type", 5, 1);
    gguf_put_int(&f, 7, 4);
    expect_refused(f, SLUICE_E_FORMAT, "'tokenizer.ggml.token_type': item 0 is none of 1 to 6");
    f = make(&plain);
    gguf_key_array(&f, "tokenizer.ggml.tokens", 8, 1);
    gguf_put_string(&f, "\xff");
    gguf_key_array(&f, "tokenizer.ggml.merges", 8, 0);
    expect_refused(f, SLUICE_E_FORMAT, "UTF-8");
}

#define CASES(C)                                                                                   \
    C(pieces)                                                                                      \
    C(marks_and_cases)                                                                             \
    C(chat_template)                                                                               \
    C(tokens)                                                                                      \
    C(affixes)                                                                                     \
    C(refusals)
CHECK_MAIN(CASES)
