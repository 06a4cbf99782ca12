/*
 * The tokens around a text. tokenizer.json lists them in its post_processor. Beyond that,
 * tokenizer_config.json can ask for a token at the beginning or the end: the classes that derive
 * from LlamaTokenizer replace the post-processor by what add_bos_token and add_eos_token say; for
 * all others a flag that is true adds the token where it is missing.
 */
#include <stdio.h>

#include "token/tokenizer.h"

static enum sluice_status affix_put(const struct sluice_tokenizer *tokenizer,
                                    struct token_affix *affix, uint32_t id,
                                    const struct json_node *node, struct sluice_error *err)
{
    const struct vocabulary *vocab = &tokenizer->vocab;
    if (id >= vocab->n_ids || !vocab->tokens[id].flags)
        return err_set(err, SLUICE_E_FORMAT, "%s: %s has id %u, which is no token", node->file,
                       node->path, id);
    if (affix->n == TOKENIZER_MAX_AROUND)
        return err_set(err, SLUICE_E_NO_TOKENIZER, "%s: %s adds more than %d tokens", node->file,
                       node->path, TOKENIZER_MAX_AROUND);
    affix->ids[affix->n++] = id;
    return SLUICE_OK;
}

/* Ids of special_tokens[name], appended to affix. */
static enum sluice_status put_special(const struct sluice_tokenizer *tokenizer,
                                      struct token_affix *affix, const struct json_node *processor,
                                      const char *name, struct sluice_error *err)
{
    struct json_node table, entry;
    TRY(json_get_object_or(processor, "special_tokens", &table, err));
    TRY(json_get_object_or(&table, name, &entry, err));
    const json_t *ids = json_object_get(entry.object, "ids");
    if (!json_is_array(ids) || json_array_size(ids) == 0)
        return err_set(err, SLUICE_E_FORMAT, "%s: %s.special_tokens has no ids for '%.100s'",
                       processor->file, processor->path, name);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
        if (value < 0 || value >= VOCABULARY_MAX_IDS)
            return err_set(err, SLUICE_E_FORMAT, "%s: %s.special_tokens: an id of '%.100s' is none",
                           processor->file, processor->path, name);
        TRY(affix_put(tokenizer, affix, (uint32_t)value, processor, err));
    }
    return SLUICE_OK;
}

/* TemplateProcessing: the list `single` names tokens and, once, the text ("A"). */
static enum sluice_status read_template(struct sluice_tokenizer *tokenizer,
                                        const struct json_node *node, struct sluice_error *err)
{
    struct token_affix before = {.n = 0}, behind = tokenizer->behind;
    const json_t *single = json_object_get(node->object, "single");
    size_t n_texts = 0;
    for (size_t i = 0; i < json_array_size(single); i++) {
        char path[48];
        struct json_node item = {
            .object = json_array_get(single, i), .file = node->file, .path = path};
        struct json_node part;
        const char *name;
        snprintf(path, sizeof path, "post_processor.single[%zu]", i);
        TRY(json_expect_object(item.object, item.file, item.path, err));
        bool is_text = json_has(&item, "Sequence");
        TRY(json_get_object_or(&item, is_text ? "Sequence" : "SpecialToken", &part, err));
        TRY(json_get_string(&part, "id", &name, err));
        if (is_text && strcmp(name, "A") == 0)
            n_texts++;
        else if (is_text)
            n_texts += 2;
        else
            TRY(put_special(tokenizer, n_texts ? &behind : &before, node, name, err));
    }
    if (n_texts != 1)
        return err_set(err, SLUICE_E_FORMAT, "%s: %s.single must have the sequence A once",
                       node->file, node->path);
    /* An earlier processor's tokens are inside of what this one adds. */
    for (size_t i = 0; i < tokenizer->before.n; i++)
        TRY(affix_put(tokenizer, &before, tokenizer->before.ids[i], node, err));
    tokenizer->before = before;
    tokenizer->behind = behind;
    return SLUICE_OK;
}

static enum sluice_status read_processor(struct sluice_tokenizer *tokenizer,
                                         const struct json_node *node, int depth,
                                         struct sluice_error *err)
{
    const char *type;
    TRY(json_expect_object(node->object, node->file, node->path, err));
    TRY(json_get_string(node, "type", &type, err));
    if (strcmp(type, "ByteLevel") == 0) return SLUICE_OK;
    if (strcmp(type, "TemplateProcessing") == 0) return read_template(tokenizer, node, err);
    const json_t *list = json_object_get(node->object, "processors");
    if (strcmp(type, "Sequence") != 0 || depth > 8)
        return err_set(err, SLUICE_E_NO_TOKENIZER,
                       "%s: %s is of type %.60s; only ByteLevel, TemplateProcessing and Sequence "
                       "are known",
                       node->file, node->path, type);
    if (!json_is_array(list))
        return err_set(err, SLUICE_E_FORMAT, "%s: %s.processors is missing or no list", node->file,
                       node->path);
    for (size_t i = 0; i < json_array_size(list); i++) {
        char path[48];
        struct json_node child = {
            .object = json_array_get(list, i), .file = node->file, .path = path};
        snprintf(path, sizeof path, "post_processor[%zu]", i);
        TRY(read_processor(tokenizer, &child, depth + 1, err));
    }
    return SLUICE_OK;
}

enum sluice_status postprocess_read(struct sluice_tokenizer *tokenizer, const json_t *value,
                                    const char *file, struct sluice_error *err)
{
    if (!value || json_is_null(value)) return SLUICE_OK;
    struct json_node node = {.object = value, .file = file, .path = "post_processor"};
    return read_processor(tokenizer, &node, 0, err);
}

/* Id of bos_token or eos_token, a string or an object with its content; -1: null or absent. */
static enum sluice_status named_token(const struct sluice_tokenizer *tokenizer,
                                      const struct json_node *config, const char *key, int32_t *id,
                                      struct sluice_error *err)
{
    const json_t *value = json_object_get(config->object, key);
    if (json_is_object(value)) value = json_object_get(value, "content");
    *id = -1;
    if (!json_is_string(value)) return SLUICE_OK;
    struct span text = span_of(json_string_value(value), json_string_length(value));
    for (size_t i = 0; i < tokenizer->added.n; i++)
        if (span_equal(vocabulary_bytes(&tokenizer->vocab, tokenizer->added.items[i].id), text))
            *id = (int32_t)tokenizer->added.items[i].id;
    if (*id < 0) TRY(vocabulary_find_text(&tokenizer->vocab, text, id, err));
    if (*id >= 0) return SLUICE_OK;
    return err_set(err, SLUICE_E_FORMAT, "%s: %s is '%.*s', which is no token", config->file, key,
                   (int)min_size(text.len, 100), (const char *)text.data);
}

static bool derives_from_llama(const char *class_name)
{
    static const char *const names[] = {"LlamaTokenizer", "LlamaTokenizerFast",
                                        "CodeLlamaTokenizer", "CodeLlamaTokenizerFast",
                                        "CohereTokenizerFast"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (strcmp(class_name, names[i]) == 0) return true;
    return false;
}

enum sluice_status postprocess_config(struct sluice_tokenizer *tokenizer, const json_t *config,
                                      const char *file, struct sluice_error *err)
{
    struct json_node node = {.object = config, .file = file, .path = ""};
    const char *class_name;
    bool add_bos, add_eos;
    int32_t bos = -1, eos = -1;
    TRY(json_expect_object(config, file, "", err));
    TRY(json_get_string_or(&node, "tokenizer_class", "", &class_name, err));
    bool replaces = derives_from_llama(class_name);
    TRY(json_get_bool_or(&node, "add_bos_token", replaces, &add_bos, err));
    TRY(json_get_bool_or(&node, "add_eos_token", false, &add_eos, err));
    if (add_bos) TRY(named_token(tokenizer, &node, "bos_token", &bos, err));
    if (add_eos) TRY(named_token(tokenizer, &node, "eos_token", &eos, err));
    struct token_affix *before = &tokenizer->before, *behind = &tokenizer->behind;
    if (replaces) before->n = behind->n = 0;
    if (bos >= 0 && (before->n == 0 || before->ids[0] != (uint32_t)bos)) {
        struct token_affix old = *before;
        before->n = 0;
        TRY(affix_put(tokenizer, before, (uint32_t)bos, &node, err));
        for (size_t i = 0; i < old.n; i++)
            TRY(affix_put(tokenizer, before, old.ids[i], &node, err));
    }
    if (eos >= 0 && (behind->n == 0 || behind->ids[behind->n - 1] != (uint32_t)eos))
        TRY(affix_put(tokenizer, behind, (uint32_t)eos, &node, err));
    return SLUICE_OK;
}
