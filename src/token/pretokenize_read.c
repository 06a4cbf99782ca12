/* Reading pre_tokenizer (pretokenize.h). */
#include <stdio.h>

#include "token/pretokenize.h"

/* The pattern of GPT-2, which ByteLevel splits by. */
static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

enum { MAX_NESTING = 16 };

static enum sluice_status add_step(struct pretokenizer *pre, const struct json_node *node,
                                   const char *pattern, bool literal, enum split_behavior behavior,
                                   bool invert, struct sluice_error *err)
{
    if (pre->n_steps == PRETOKENIZE_MAX_STEPS)
        return err_set(err, SLUICE_E_NO_TOKENIZER, "%s: pre_tokenizer has more than %d steps",
                       node->file, PRETOKENIZE_MAX_STEPS);
    struct pretokenize_step *step = &pre->steps[pre->n_steps];
    struct span text = span_str(pattern);
    enum sluice_status status = literal ? regex_compile_literal(text, &step->code, err)
                                        : regex_compile(text, &step->code, err);
    if (status != SLUICE_OK) return err_wrap(err, status, "%s: %s.pattern", node->file, node->path);
    step->behavior = behavior;
    step->invert = invert;
    pre->n_steps++;
    return SLUICE_OK;
}

static enum sluice_status read_behavior(const struct json_node *node, enum split_behavior *out,
                                        struct sluice_error *err)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *name;
    TRY(json_get_string(node, "behavior", &name, err));
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        if (strcmp(name, names[i]) != 0) continue;
        *out = (enum split_behavior)i;
        return SLUICE_OK;
    }
    return err_set(err, SLUICE_E_FORMAT, "%s: %s.behavior is '%.60s', which is none of the five",
                   node->file, node->path, name);
}

static enum sluice_status read_split(struct pretokenizer *pre, const struct json_node *node,
                                     struct sluice_error *err)
{
    struct json_node pattern;
    const char *text;
    enum split_behavior behavior = SPLIT_ISOLATED;
    bool invert;
    TRY(json_get_object_or(node, "pattern", &pattern, err));
    bool literal = json_has(&pattern, "String");
    TRY(json_get_string(&pattern, literal ? "String" : "Regex", &text, err));
    TRY(read_behavior(node, &behavior, err));
    TRY(json_get_bool_or(node, "invert", false, &invert, err));
    /* An empty string matches nowhere in the reference; as a pattern it would everywhere. */
    bool nowhere = literal && !text[0];
    return add_step(pre, node, nowhere ? "(?!)" : text, literal && !nowhere, behavior, invert, err);
}

static enum sluice_status read_digits(struct pretokenizer *pre, const struct json_node *node,
                                      struct sluice_error *err)
{
    bool single;
    TRY(json_get_bool_or(node, "individual_digits", false, &single, err));
    return add_step(pre, node, "\\p{N}", false, single ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, false,
                    err);
}

static enum sluice_status read_byte_level(struct pretokenizer *pre, const struct json_node *node,
                                          struct sluice_error *err)
{
    bool use_regex;
    TRY(json_get_bool_or(node, "add_prefix_space", true, &pre->prefix_space, err));
    TRY(json_get_bool_or(node, "use_regex", true, &use_regex, err));
    pre->has_byte_level = true;
    pre->n_after = use_regex;
    if (!use_regex) return SLUICE_OK;
    return add_step(pre, node, gpt2_pattern, false, SPLIT_ISOLATED, false, err);
}

/* What transformers writes for a SentencePiece model: the sign, and where a blank goes in front. */
static enum sluice_status read_metaspace(struct pretokenizer *pre, const struct json_node *node,
                                         struct sluice_error *err)
{
    const char *sign, *scheme;
    bool prefix, split;
    TRY(json_get_string_or(node, "replacement", "\xe2\x96\x81", &sign, err));
    TRY(json_get_bool_or(node, "add_prefix_space", true, &prefix, err));
    TRY(json_get_string_or(node, "prepend_scheme", prefix ? "always" : "never", &scheme, err));
    TRY(json_get_bool_or(node, "split", true, &split, err));
    if (strcmp(sign, "\xe2\x96\x81") != 0)
        return err_set(err, SLUICE_E_NO_TOKENIZER,
                       "%s: %s.replacement is '%.20s'; only U+2581 is known", node->file,
                       node->path, sign);
    pre->only_first = strcmp(scheme, "first") == 0;
    pre->prefix_space = pre->only_first || strcmp(scheme, "always") == 0;
    if (!pre->prefix_space && strcmp(scheme, "never") != 0)
        return err_set(err, SLUICE_E_FORMAT,
                       "%s: %s.prepend_scheme is '%.60s', which is none of always, first and never",
                       node->file, node->path, scheme);
    pre->blanks = true;
    pre->n_after = split;
    if (!split) return SLUICE_OK;
    return add_step(pre, node, " ", true, SPLIT_MERGED_WITH_NEXT, false, err);
}

static enum sluice_status read_node(struct pretokenizer *pre, const struct json_node *node,
                                    int depth, struct sluice_error *err);

static enum sluice_status read_sequence(struct pretokenizer *pre, const struct json_node *node,
                                        int depth, struct sluice_error *err)
{
    const json_t *list = json_object_get(node->object, "pretokenizers");
    if (!json_is_array(list))
        return err_set(err, SLUICE_E_FORMAT, "%s: %s.pretokenizers is missing or no list",
                       node->file, node->path);
    for (size_t i = 0; i < json_array_size(list); i++) {
        char path[48];
        struct json_node child = {
            .object = json_array_get(list, i), .file = node->file, .path = path};
        snprintf(path, sizeof path, "pre_tokenizer[%zu]", i);
        TRY(read_node(pre, &child, depth + 1, err));
    }
    return SLUICE_OK;
}

static enum sluice_status read_node(struct pretokenizer *pre, const struct json_node *node,
                                    int depth, struct sluice_error *err)
{
    const char *type;
    TRY(json_expect_object(node->object, node->file, node->path, err));
    TRY(json_get_string(node, "type", &type, err));
    if (strcmp(type, "Sequence") == 0 && depth < MAX_NESTING)
        return read_sequence(pre, node, depth, err);
    if (pre->has_byte_level)
        return err_set(err, SLUICE_E_NO_TOKENIZER,
                       "%s: %s is %.60s behind ByteLevel, which must come last", node->file,
                       node->path, type);
    if (strcmp(type, "Split") == 0) return read_split(pre, node, err);
    if (strcmp(type, "Digits") == 0) return read_digits(pre, node, err);
    if (strcmp(type, "ByteLevel") == 0) return read_byte_level(pre, node, err);
    return err_set(err, SLUICE_E_NO_TOKENIZER,
                   "%s: %s is of type %.60s; only Split, Digits and ByteLevel are known",
                   node->file, node->path, type);
}

/* With a SentencePiece vocabulary. */
static enum sluice_status read_spelled(struct pretokenizer *pre, const struct json_node *node,
                                       struct sluice_error *err)
{
    const char *type;
    if (!node->object || json_is_null(node->object)) return SLUICE_OK;
    TRY(json_expect_object(node->object, node->file, node->path, err));
    TRY(json_get_string(node, "type", &type, err));
    if (strcmp(type, "Metaspace") == 0) return read_metaspace(pre, node, err);
    return err_set(err, SLUICE_E_NO_TOKENIZER,
                   "%s: %s is of type %.60s; with byte_fallback only Metaspace is known",
                   node->file, node->path, type);
}

enum sluice_status pretokenizer_read(struct pretokenizer *pre, const json_t *value,
                                     bool sentencepiece, const char *file, struct sluice_error *err)
{
    *pre = (struct pretokenizer){0};
    struct json_node node = {.object = value, .file = file, .path = "pre_tokenizer"};
    if (sentencepiece) return read_spelled(pre, &node, err);
    if (value && !json_is_null(value)) TRY(read_node(pre, &node, 0, err));
    if (pre->has_byte_level) return SLUICE_OK;
    return err_set(err, SLUICE_E_NO_TOKENIZER,
                   "%s: pre_tokenizer has no ByteLevel step; only byte-level BPE is known", file);
}
