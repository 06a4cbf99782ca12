/*
 * GGUF vocabularies of published models beside the repository, with texts and the ids that
 * llama.cpp gives them; skipped where they are not there.
 */
#include "check.h"
#include "io/file.h"
#include "sluice/sluice.h"
#include "token_make.h"

static struct sluice_error err;

#define FOLDER "../shared/tokenizers/ggml-vocab-"
#define SEPARATOR "\n__ggml_vocab_test__\n"

enum { MAX_TEXT = 4096 };

/* The texts of a file one after the other; false behind the last. */
static bool next_text(struct span *rest, struct span *text)
{
    if (!rest->data) return false;
    const uint8_t *end = memmem(rest->data, rest->len, SEPARATOR, strlen(SEPARATOR));
    *text = span_of(rest->data, end ? (size_t)(end - rest->data) : rest->len);
    size_t done = text->len + strlen(SEPARATOR);
    *rest = end ? span_of(rest->data + done, rest->len - done) : span_of(NULL, 0);
    return true;
}

static bool next_line(struct span *rest, struct span *line)
{
    if (rest->len == 0) return false;
    const uint8_t *end = memchr(rest->data, '\n', rest->len);
    *line = span_of(rest->data, end ? (size_t)(end - rest->data) : rest->len);
    size_t done = line->len + (end != NULL);
    *rest = span_of(rest->data + done, rest->len - done);
    return true;
}

/* text becomes the ids of line, and they become text again. */
static void check_text(const sluice_tokenizer *t, struct span text, struct span line)
{
    const char *got = make_ids_of(t, text, SLUICE_TOKENIZE_NO_SPECIAL);
    while (line.len && line.data[0] == ' ') line = span_of(line.data + 1, line.len - 1);
    CHECK(span_equal(span_str(got), line), "'%.*s' becomes %s, not %.*s", (int)text.len, text.data,
          got, (int)line.len, line.data);
    int32_t ids[512];
    char back[MAX_TEXT];
    size_t n, len;
    CHECK_OK(sluice_tokenize(t, (const char *)text.data, text.len, SLUICE_TOKENIZE_NO_SPECIAL, ids,
                             512, &n, &err));
    CHECK_OK(sluice_detokenize(t, ids, n, 0, back, sizeof back, &len, &err));
    CHECK(span_equal(span_of(back, len), text), "'%.*s' comes back as '%.*s'", (int)text.len,
          text.data, (int)len, back);
}

static void check_files(const sluice_tokenizer *t, const char *texts_path, const char *ids_path)
{
    struct file_map texts, ids;
    REQUIRE(file_map_open(&texts, texts_path, &err) == SLUICE_OK, "%s", err.message);
    REQUIRE(file_map_open(&ids, ids_path, &err) == SLUICE_OK, "%s", err.message);
    struct span rest = span_of(texts.data, (size_t)texts.bytes), text;
    struct span lines = span_of(ids.data, (size_t)ids.bytes), line;
    int n = 0;
    for (; next_text(&rest, &text); n++) {
        if (!next_line(&lines, &line)) line = span_of("", 0);
        check_text(t, text, line);
    }
    CHECK(n >= 40 && lines.len == 0, "%d texts", n);
    file_map_release(&texts);
    file_map_release(&ids);
}

static void check_vocabulary(const char *name, const char *before)
{
    char path[3][128];
    snprintf(path[0], sizeof path[0], FOLDER "%s.gguf", name);
    snprintf(path[1], sizeof path[1], FOLDER "%s.gguf.inp", name);
    snprintf(path[2], sizeof path[2], FOLDER "%s.gguf.out", name);
    if (!file_exists(path[0])) SKIP("the vocabularies are not beside the repository");
    sluice_tokenizer *t;
    REQUIRE(sluice_tokenizer_open(&t, path[0], &err) == SLUICE_OK, "%s", err.message);
    check_files(t, path[1], path[2]);
    CHECK(strcmp(make_ids(t, "", 0), before) == 0, "'%s' begins a text", make_ids(t, "", 0));
    sluice_tokenizer_close(&t);
}

static void test_gpt_2(void)
{
    check_vocabulary("gpt-2", "");
}

static void test_starcoder(void)
{
    check_vocabulary("starcoder", "");
}

static void test_deepseek_llm(void)
{
    check_vocabulary("deepseek-llm", "100000");
}

#define CASES(C)                                                                                   \
    C(gpt_2)                                                                                       \
    C(starcoder)                                                                                   \
    C(deepseek_llm)
CHECK_MAIN(CASES)
