/* Reading the parts of tokenizer.json that change texts: normalizer and decoder (tokenizer.h). */
#include <stdio.h>

#include "token/tokenizer.h"

#define BLANK_SIGN "\xe2\x96\x81" /* U+2581 */

enum { MAX_NESTING = 8 };

static bool is_spelled(const struct sluice_tokenizer *tokenizer)
{
    return tokenizer->vocab.spelling == SPELLED_SENTENCEPIECE;
}

static enum sluice_status unknown_part(const struct json_node *node, const char *type,
                                       const char *known, struct sluice_error *err)
{
    return err_set(err, SLUICE_E_NO_TOKENIZER, "%s: %s is of type %.60s; only %s known", node->file,
                   node->path, type, known);
}

/* Replace: whether it puts `by` for the string `what`. */
static enum sluice_status read_replace(const struct json_node *node, const char *what,
                                       const char *by, struct sluice_error *err)
{
    struct json_node pattern;
    const char *string, *content;
    TRY(json_get_object_or(node, "pattern", &pattern, err));
    TRY(json_get_string_or(&pattern, "String", "", &string, err));
    TRY(json_get_string(node, "content", &content, err));
    if (strcmp(string, what) == 0 && strcmp(content, by) == 0) return SLUICE_OK;
    return err_set(err, SLUICE_E_NO_TOKENIZER,
                   "%s: %s replaces '%.40s' by '%.40s'; only blanks by U+2581 and back are known",
                   node->file, node->path, string, content);
}

static enum sluice_status read_prepend(struct normalizer *normalizer, const struct json_node *node,
                                       struct sluice_error *err)
{
    const char *text;
    TRY(json_get_string(node, "prepend", &text, err));
    normalizer->prefix_blank = true;
    if (strcmp(text, BLANK_SIGN) == 0) return SLUICE_OK;
    return err_set(err, SLUICE_E_NO_TOKENIZER, "%s: %s prepends '%.40s'; only U+2581 is known",
                   node->file, node->path, text);
}

/* One step of a normalizer that is no sequence. */
static enum sluice_status read_step(struct sluice_tokenizer *tokenizer, const char *type,
                                    const struct json_node *node, struct sluice_error *err)
{
    struct normalizer *normalizer = &tokenizer->normalizer;
    if (strcmp(type, "NFC") == 0) {
        normalizer->nfc = true;
        return SLUICE_OK;
    }
    if (!is_spelled(tokenizer)) return unknown_part(node, type, "NFC and sequences of it are", err);
    if (strcmp(type, "Prepend") == 0) return read_prepend(normalizer, node, err);
    if (strcmp(type, "Replace") != 0)
        return unknown_part(node, type, "NFC, Prepend, Replace and sequences of them are", err);
    normalizer->blanks = true;
    return read_replace(node, " ", BLANK_SIGN, err);
}

static enum sluice_status read_normalizer(struct sluice_tokenizer *tokenizer,
                                          const struct json_node *node, int depth,
                                          struct sluice_error *err)
{
    const char *type;
    TRY(json_expect_object(node->object, node->file, node->path, err));
    TRY(json_get_string(node, "type", &type, err));
    if (strcmp(type, "Sequence") != 0 || depth > MAX_NESTING)
        return read_step(tokenizer, type, node, err);
    const json_t *list = json_object_get(node->object, "normalizers");
    if (!json_is_array(list))
        return err_set(err, SLUICE_E_FORMAT, "%s: %s.normalizers is missing or no list", node->file,
                       node->path);
    for (size_t i = 0; i < json_array_size(list); i++) {
        char path[48];
        struct json_node child = {
            .object = json_array_get(list, i), .file = node->file, .path = path};
        snprintf(path, sizeof path, "normalizer[%zu]", i);
        TRY(read_normalizer(tokenizer, &child, depth + 1, err));
    }
    return SLUICE_OK;
}

enum sluice_status normalizer_read(struct sluice_tokenizer *tokenizer, const struct json_node *top,
                                   struct sluice_error *err)
{
    const struct normalizer *normalizer = &tokenizer->normalizer;
    struct json_node node;
    TRY(json_get_object_or(top, "normalizer", &node, err));
    if (node.object) TRY(read_normalizer(tokenizer, &node, 0, err));
    bool pre_blanks = tokenizer->pre.blanks && !normalizer->prefix_blank;
    if (!is_spelled(tokenizer) || normalizer->blanks || pre_blanks) return SLUICE_OK;
    return err_set(
        err, SLUICE_E_NO_TOKENIZER,
        "%s: with byte_fallback, normalizer or pre_tokenizer must replace blanks by U+2581",
        top->file);
}

/* ByteLevel, alone or in a sequence with Fuse, which changes nothing then. */
static enum sluice_status check_byte_level(const struct json_node *node, const char *type,
                                           struct sluice_error *err)
{
    if (strcmp(type, "ByteLevel") == 0) return SLUICE_OK;
    const json_t *list = json_object_get(node->object, "decoders");
    size_t n = strcmp(type, "Sequence") == 0 ? json_array_size(list) : 0;
    bool known = n > 0;
    for (size_t i = 0; i < n; i++) {
        const char *part = json_string_value(json_object_get(json_array_get(list, i), "type"));
        known = known && part && strcmp(part, i == 0 ? "ByteLevel" : "Fuse") == 0;
    }
    return known ? SLUICE_OK : unknown_part(node, type, "ByteLevel is", err);
}

/* Strip: one blank at the beginning. */
static enum sluice_status read_strip(struct sluice_tokenizer *tokenizer,
                                     const struct json_node *node, struct sluice_error *err)
{
    const char *content;
    uint32_t start, stop;
    TRY(json_get_string(node, "content", &content, err));
    TRY(json_get_u32(node, "start", 0, UINT32_MAX, &start, err));
    TRY(json_get_u32(node, "stop", 0, UINT32_MAX, &stop, err));
    tokenizer->strip_blank = start == 1;
    if (strcmp(content, " ") == 0 && start <= 1 && stop == 0) return SLUICE_OK;
    return err_set(err, SLUICE_E_NO_TOKENIZER,
                   "%s: %s strips more than a blank at the beginning, which is not known",
                   node->file, node->path);
}

/* What Metaspace decodes: U+2581 is a blank, and none begins a text unless none was put there. */
static enum sluice_status read_metaspace(struct sluice_tokenizer *tokenizer,
                                         const struct json_node *node, struct sluice_error *err)
{
    const char *sign, *scheme;
    bool prefix;
    TRY(json_get_string_or(node, "replacement", BLANK_SIGN, &sign, err));
    TRY(json_get_bool_or(node, "add_prefix_space", true, &prefix, err));
    TRY(json_get_string_or(node, "prepend_scheme", prefix ? "always" : "never", &scheme, err));
    tokenizer->strip_blank = strcmp(scheme, "never") != 0;
    if (strcmp(sign, BLANK_SIGN) == 0) return SLUICE_OK;
    return err_set(err, SLUICE_E_NO_TOKENIZER,
                   "%s: %s.replacement is '%.20s'; only U+2581 is known", node->file, node->path,
                   sign);
}

/* One part of a decoder; *place is that of the part before it. Fuse alone may be left out. */
static enum sluice_status read_part(struct sluice_tokenizer *tokenizer,
                                    const struct json_node *node, unsigned *place,
                                    struct sluice_error *err)
{
    static const struct {
        const char *type;
        unsigned place;
    } parts[] = {{"Replace", 1}, {"Metaspace", 1}, {"ByteFallback", 2}, {"Fuse", 3}, {"Strip", 4}};
    const char *type;
    unsigned at = 0;
    TRY(json_expect_object(node->object, node->file, node->path, err));
    TRY(json_get_string(node, "type", &type, err));
    for (size_t i = 0; i < COUNT_OF(parts); i++)
        if (strcmp(type, parts[i].type) == 0) at = parts[i].place;
    if (at != *place + 1 && !(at == 4 && *place == 2))
        return unknown_part(node, type, "Replace, ByteFallback, Fuse and Strip, in that order, are",
                            err);
    *place = at;
    if (strcmp(type, "Replace") == 0) return read_replace(node, BLANK_SIGN, " ", err);
    if (strcmp(type, "Metaspace") == 0) return read_metaspace(tokenizer, node, err);
    if (strcmp(type, "Strip") == 0) return read_strip(tokenizer, node, err);
    return SLUICE_OK;
}

static enum sluice_status read_spelled(struct sluice_tokenizer *tokenizer,
                                       const struct json_node *node, const char *type,
                                       struct sluice_error *err)
{
    unsigned place = 0;
    const json_t *list = json_object_get(node->object, "decoders");
    if (strcmp(type, "Sequence") != 0 || !json_is_array(list))
        return unknown_part(node, type, "a sequence with ByteFallback is", err);
    for (size_t i = 0; i < json_array_size(list); i++) {
        char path[48];
        struct json_node child = {
            .object = json_array_get(list, i), .file = node->file, .path = path};
        snprintf(path, sizeof path, "decoder.decoders[%zu]", i);
        TRY(read_part(tokenizer, &child, &place, err));
    }
    if (place >= 2) return SLUICE_OK;
    return unknown_part(node, type, "a sequence with ByteFallback is", err);
}

enum sluice_status decoder_read(struct sluice_tokenizer *tokenizer, const struct json_node *top,
                                struct sluice_error *err)
{
    struct json_node node;
    const char *type;
    TRY(json_get_object_or(top, "decoder", &node, err));
    TRY(json_get_string_or(&node, "type", "null", &type, err));
    node.path = "decoder";
    if (is_spelled(tokenizer)) return read_spelled(tokenizer, &node, type, err);
    return check_byte_level(&node, type, err);
}
