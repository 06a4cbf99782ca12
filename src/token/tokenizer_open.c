#include <stdio.h>

#include "base/utf8.h"
#include "io/file.h"
#include "token/gguf_tokenizer.h"
#include "token/token_json.h"
#include "token/tokenizer.h"

/* What tokenizer_parse reads. */
struct source {
    struct span json;
    const char *file;
    const float *scores; /* [n_scores] by id, instead of merges; NULL: none */
    size_t n_scores;
};

/* Refuses models that are neither byte-level BPE nor SentencePiece's, which falls back to bytes. */
static enum sluice_status check_model(const struct json_node *model,
                                      enum vocabulary_spelling *spelling, struct sluice_error *err)
{
    const char *type, *prefix, *suffix;
    double dropout;
    bool byte_fallback;
    TRY(json_get_string_or(model, "type", "BPE", &type, err));
    if (strcmp(type, "BPE") != 0)
        return err_set(err, SLUICE_E_NO_TOKENIZER, "%s: model is of type %.60s; only BPE is known",
                       model->file, type);
    TRY(json_get_f64_or(model, "dropout", 0, 1, 0, &dropout, err));
    if (dropout > 0)
        return err_set(err, SLUICE_E_NO_TOKENIZER,
                       "%s: model.dropout is %g; encoding by chance is not supported", model->file,
                       dropout);
    TRY(json_get_string_or(model, "continuing_subword_prefix", "", &prefix, err));
    TRY(json_get_string_or(model, "end_of_word_suffix", "", &suffix, err));
    TRY(json_get_bool_or(model, "byte_fallback", false, &byte_fallback, err));
    *spelling = byte_fallback ? SPELLED_SENTENCEPIECE : SPELLED_IN_BYTES;
    if (!prefix[0] && !suffix[0]) return SLUICE_OK;
    return err_set(err, SLUICE_E_NO_TOKENIZER,
                   "%s: model.%s is set, which no kind of BPE that is known has", model->file,
                   prefix[0] ? "continuing_subword_prefix" : "end_of_word_suffix");
}

static enum sluice_status read_unk(struct sluice_tokenizer *tokenizer,
                                   const struct json_node *model, struct sluice_error *err)
{
    struct bpe *bpe = &tokenizer->bpe;
    const char *unk;
    bpe->unk_id = -1;
    TRY(json_get_bool_or(model, "fuse_unk", false, &bpe->fuse_unk, err));
    TRY(json_get_string_or(model, "unk_token", NULL, &unk, err));
    if (!unk) return SLUICE_OK;
    TRY(vocabulary_find_text(&tokenizer->vocab, span_str(unk), &bpe->unk_id, err));
    bool needed = false;
    for (unsigned b = 0; b < 256; b++) needed |= bpe->byte_ids[b] < 0;
    if (bpe->unk_id >= 0 || !needed) return SLUICE_OK;
    return err_set(err, SLUICE_E_FORMAT,
                   "%s: model.unk_token is '%.100s', which model.vocab does not have", model->file,
                   unk);
}

static enum sluice_status read_merges(struct sluice_tokenizer *tokenizer,
                                      const struct source *source, const struct token_json *json,
                                      struct sluice_error *err)
{
    const struct vocabulary *vocab = &tokenizer->vocab;
    if (!source->scores) return bpe_read(&tokenizer->bpe, vocab, json->merges, source->file, err);
    if (vocab->spelling != SPELLED_SENTENCEPIECE || source->n_scores < vocab->n_ids)
        return err_set(err, SLUICE_E_INTERNAL, "%s: scores of another vocabulary", source->file);
    return bpe_from_scores(&tokenizer->bpe, vocab, source->scores, source->file, err);
}

static enum sluice_status read_model(struct sluice_tokenizer *tokenizer,
                                     const struct json_node *top, const struct source *source,
                                     const struct token_json *json, size_t added_bytes,
                                     struct sluice_error *err)
{
    struct json_node model;
    enum vocabulary_spelling spelling = SPELLED_IN_BYTES;
    TRY(json_get_object_or(top, "model", &model, err));
    if (!model.object) return err_set(err, SLUICE_E_FORMAT, "%s: model is missing", top->file);
    TRY(check_model(&model, &spelling, err));
    if (!json->vocab.data)
        return err_set(err, SLUICE_E_FORMAT, "%s: model.vocab is missing", top->file);
    if (!json->merges.data && !source->scores)
        return err_set(err, SLUICE_E_FORMAT, "%s: model.merges is missing", top->file);
    TRY(json_get_bool_or(&model, "ignore_merges", false, &tokenizer->bpe.ignore_merges, err));
    TRY(vocabulary_init(&tokenizer->vocab, spelling, json->vocab.len + added_bytes, err));
    TRY(vocabulary_read(&tokenizer->vocab, json->vocab, top->file, err));
    TRY(read_merges(tokenizer, source, json, err));
    return read_unk(tokenizer, &model, err);
}

static size_t added_bytes(const json_t *list)
{
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(list); i++)
        n += json_string_length(json_object_get(json_array_get(list, i), "content"));
    return n;
}

static enum sluice_status normalize_added(struct sluice_tokenizer *tokenizer,
                                          struct added_token *token, struct sluice_error *err)
{
    if (!token->normalized) return SLUICE_OK;
    struct text_buffer buffer = {0};
    struct normalize_scratch scratch = {0};
    bool done = normalize(&tokenizer->normalizer, token->text, &buffer, &scratch, &token->text);
    if (done && buffer.n) {
        const char *copy = arena_copy(&tokenizer->texts, buffer.data, buffer.n);
        token->text = span_of(copy, buffer.n);
        done = copy != NULL;
    }
    text_release(&buffer);
    normalize_scratch_release(&scratch);
    return done ? SLUICE_OK : err_nomem(err, "added_tokens", token->text.len);
}

static enum sluice_status read_added(struct sluice_tokenizer *tokenizer,
                                     const struct json_node *node, bool specials,
                                     struct sluice_error *err)
{
    const char *text;
    uint32_t id;
    struct added_token token = {0};
    TRY(json_expect_object(node->object, node->file, node->path, err));
    TRY(json_get_bool_or(node, "special", false, &token.special, err));
    if (token.special != specials) return SLUICE_OK;
    TRY(json_get_u32(node, "id", 0, VOCABULARY_MAX_IDS - 1, &id, err));
    TRY(json_get_string(node, "content", &text, err));
    TRY(json_get_bool_or(node, "normalized", !token.special, &token.normalized, err));
    TRY(json_get_bool_or(node, "single_word", false, &token.single_word, err));
    TRY(json_get_bool_or(node, "lstrip", false, &token.lstrip, err));
    TRY(json_get_bool_or(node, "rstrip", false, &token.rstrip, err));
    if (!text[0]) return SLUICE_OK;
    TRY(vocabulary_add(&tokenizer->vocab, span_str(text), id, token.special ? TOKEN_SPECIAL : 0,
                       node->file, err));
    token.id = id;
    token.text = vocabulary_bytes(&tokenizer->vocab, id);
    TRY(normalize_added(tokenizer, &token, err));
    if (!array_push(&tokenizer->added, token)) return err_nomem(err, "added_tokens", sizeof token);
    return SLUICE_OK;
}

/* Special tokens go first: where two look alike, the first one wins. */
static enum sluice_status read_all_added(struct sluice_tokenizer *tokenizer, const json_t *list,
                                         const char *file, struct sluice_error *err)
{
    if (list && !json_is_null(list) && !json_is_array(list))
        return err_set(err, SLUICE_E_FORMAT, "%s: added_tokens is no list", file);
    for (int specials = 1; specials >= 0; specials--) {
        for (size_t i = 0; i < json_array_size(list); i++) {
            char path[48];
            struct json_node node = {.object = json_array_get(list, i), .file = file, .path = path};
            snprintf(path, sizeof path, "added_tokens[%zu]", i);
            TRY(read_added(tokenizer, &node, specials, err));
        }
    }
    const struct added_token *tokens = tokenizer->added.items;
    size_t n = tokenizer->added.n;
    if (!added_trie_init(&tokenizer->raw, tokens, n, false) ||
        !added_trie_init(&tokenizer->normalized, tokens, n, true))
        return err_nomem(err, "added_tokens", n * sizeof *tokens);
    return SLUICE_OK;
}

static enum sluice_status read_json(struct sluice_tokenizer *tokenizer, const struct source *source,
                                    struct token_json *json, struct sluice_error *err)
{
    const char *file = source->file;
    TRY(token_json_split(source->json, file, json, err));
    TRY(json_expect_object(json->rest, file, "", err));
    struct json_node top = {.object = json->rest, .file = file, .path = ""};
    const json_t *added = json_object_get(json->rest, "added_tokens");
    TRY(read_model(tokenizer, &top, source, json, added_bytes(added), err));
    TRY(pretokenizer_read(&tokenizer->pre, json_object_get(json->rest, "pre_tokenizer"),
                          tokenizer->vocab.spelling == SPELLED_SENTENCEPIECE, file, err));
    TRY(normalizer_read(tokenizer, &top, err));
    TRY(decoder_read(tokenizer, &top, err));
    TRY(read_all_added(tokenizer, added, file, err));
    return postprocess_read(tokenizer, json_object_get(json->rest, "post_processor"), file, err);
}

/*
 * tokenizer_config.json, where "no limit" is often written as 10^30: an integer that the parser
 * takes only as a real number. No integer of this file is used here.
 */
static enum sluice_status parse_config(struct span text, const char *file, json_t **out,
                                       struct sluice_error *err)
{
    enum sluice_status status = json_parse(text, file, out, err);
    if (status != SLUICE_E_FORMAT) return status;
    *out = json_loadb((const char *)text.data, text.len,
                      JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, NULL);
    return *out ? SLUICE_OK : status;
}

static enum sluice_status read_config(struct sluice_tokenizer *tokenizer, struct span text,
                                      const char *file, struct sluice_error *err)
{
    json_t *config;
    TRY(parse_config(text, file, &config, err));
    enum sluice_status status = postprocess_config(tokenizer, config, file, err);
    if (status == SLUICE_OK) status = chat_template_config(tokenizer, config, file, err);
    json_decref(config);
    return status;
}

static enum sluice_status parse(const struct source *source, struct span config,
                                const char *config_name, struct sluice_tokenizer **out,
                                struct sluice_error *err)
{
    *out = NULL;
    struct sluice_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer) return err_nomem(err, "tokenizer", sizeof *tokenizer);
    struct token_json parsed = {0};
    enum sluice_status status = read_json(tokenizer, source, &parsed, err);
    token_json_release(&parsed);
    if (status == SLUICE_OK && config.data)
        status = read_config(tokenizer, config, config_name, err);
    if (status == SLUICE_E_NOT_FOUND) {
        /* A field that is missing makes the file malformed. */
        status = SLUICE_E_FORMAT;
        if (err) err->code = status;
    }
    if (status != SLUICE_OK) {
        tokenizer_close(tokenizer);
        return status;
    }
    if (!tokenizer->bpe.ignore_merges && !tokenizer->bpe.by_chars)
        vocabulary_forget_names(&tokenizer->vocab);
    *out = tokenizer;
    return SLUICE_OK;
}

enum sluice_status tokenizer_parse(struct span json, const char *json_name, struct span config,
                                   const char *config_name, struct sluice_tokenizer **out,
                                   struct sluice_error *err)
{
    const struct source source = {.json = json, .file = json_name};
    return parse(&source, config, config_name, out, err);
}

enum sluice_status tokenizer_parse_scored(struct span json, const char *json_name,
                                          const float *scores, size_t n,
                                          struct sluice_tokenizer **out, struct sluice_error *err)
{
    const struct source source = {json, json_name, scores, n};
    return parse(&source, span_of(NULL, 0), "", out, err);
}

void tokenizer_close(struct sluice_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    added_trie_release(&tokenizer->raw);
    added_trie_release(&tokenizer->normalized);
    array_release(&tokenizer->added);
    arena_release(&tokenizer->texts);
    pretokenizer_release(&tokenizer->pre);
    bpe_release(&tokenizer->bpe);
    vocabulary_release(&tokenizer->vocab);
    free(tokenizer);
}

/* Why a folder without tokenizer.json has no tokenizer. */
static enum sluice_status no_tokenizer_json(const char *folder, struct arena *paths,
                                            struct sluice_error *err)
{
    static const char *const others[][2] = {
        {"tokenizer.model", "SentencePiece"},
        {"tiktoken.model", "tiktoken"},
        {"vocab.json", "a vocabulary without tokenizer.json"},
        {"vocab.txt", "WordPiece"},
    };
    if (!file_exists(folder)) return err_set(err, SLUICE_E_NOT_FOUND, "%s: no such folder", folder);
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        const char *path = arena_printf(paths, "%s/%s", folder, others[i][0]);
        if (!path) return err_nomem(err, "path", strlen(folder));
        if (file_exists(path))
            return err_set(err, SLUICE_E_NO_TOKENIZER,
                           "%s: has no tokenizer.json, only %s (%s), which is not supported; "
                           "saving the tokenizer with transformers writes tokenizer.json",
                           folder, others[i][0], others[i][1]);
    }
    return err_set(err, SLUICE_E_NO_TOKENIZER, "%s: has no tokenizer.json", folder);
}

static enum sluice_status open_files(const char *json_path, const char *config_path,
                                     const char *template_path, struct sluice_tokenizer **out,
                                     struct sluice_error *err)
{
    struct file_map json = {0}, config = {0};
    enum sluice_status status = file_map_open(&json, json_path, err);
    if (status == SLUICE_OK && file_exists(config_path))
        status = file_map_open(&config, config_path, err);
    if (status == SLUICE_OK)
        status = tokenizer_parse(span_of(json.data, (size_t)json.bytes), json_path,
                                 span_of(config.data, (size_t)config.bytes), config_path, out, err);
    if (status == SLUICE_OK) status = chat_template_file(*out, template_path, err);
    if (status != SLUICE_OK && *out) {
        tokenizer_close(*out);
        *out = NULL;
    }
    file_map_release(&config);
    file_map_release(&json);
    return status;
}

enum sluice_status tokenizer_open(const char *folder, struct sluice_tokenizer **out,
                                  struct sluice_error *err)
{
    struct arena paths = {0};
    *out = NULL;
    enum sluice_status status;
    const char *json = arena_printf(&paths, "%s/tokenizer.json", folder);
    const char *config = arena_printf(&paths, "%s/tokenizer_config.json", folder);
    const char *template = arena_printf(&paths, "%s/chat_template.jinja", folder);
    if (!json || !config || !template)
        status = err_nomem(err, "path", strlen(folder));
    else if (!file_exists(json) && gguf_tokenizer_at(folder))
        status = gguf_tokenizer_open(folder, out, err);
    else if (!file_exists(json))
        status = no_tokenizer_json(folder, &paths, err);
    else
        status = open_files(json, config, template, out, err);
    arena_release(&paths);
    return status;
}
