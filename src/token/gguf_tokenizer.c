#include "token/gguf_tokenizer.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include "io/file.h"
#include "io/file_parts.h"
#include "token/sentencepiece.h"

enum pre_flags { NFC = 1, WHOLE = 2, BOS = 4 };

enum { MAX_PATTERNS = 8 };

struct pattern_set {
    const char *patterns[MAX_PATTERNS];
};

#define PATTERNS(set, ...) static const struct pattern_set set_##set = {{__VA_ARGS__}};
#define PRE(name, set, flags)
#include "token/gguf_split.def"
#undef PATTERNS
#undef PRE

static const struct pre {
    const char *name;
    const struct pattern_set *set;
    unsigned flags; /* enum pre_flags */
} pres[] = {
#define PATTERNS(set, ...)
#define PRE(name, set, flags) {name, &set_##set, flags},
#include "token/gguf_split.def"
#undef PATTERNS
#undef PRE
};

/* The numbers of tokenizer.ggml.token_type. */
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

struct writer {
    const struct gguf_header *header;
    const char *file;
    const struct pre *pre; /* NULL: SentencePiece */
    bool prefix;           /* SentencePiece: a blank goes in front of texts */
    struct gguf_items tokens, types;
    struct text_buffer *out;
    struct sluice_error *err;
    bool failed; /* out of memory */
};

static void put(struct writer *w, const char *text)
{
    w->failed = w->failed || !text_append(w->out, text, strlen(text));
}

__attribute__((format(printf, 2, 3))) static void putf(struct writer *w, const char *fmt, ...)
{
    char text[128];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    put(w, text);
}

/* A JSON string. */
static void put_string(struct writer *w, struct span s)
{
    put(w, "\"");
    size_t done = 0;
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.data[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        w->failed = w->failed || !text_append(w->out, s.data + done, i - done);
        putf(w, "\\u%04x", c);
        done = i + 1;
    }
    w->failed = w->failed || !text_append(w->out, s.data + done, s.len - done);
    put(w, "\"");
}

static enum sluice_status wrong_key(const struct writer *w, const char *key, const char *what)
{
    return err_set(w->err, SLUICE_E_FORMAT, "%s: key '%s' %s", w->file, key, what);
}

static enum sluice_status find_pre(struct writer *w)
{
    struct span name;
    if (!gguf_string(gguf_find(w->header, "tokenizer.ggml.pre"), &name))
        return err_set(w->err, SLUICE_E_NO_TOKENIZER,
                       "%s: key 'tokenizer.ggml.pre', which says how text is split, is missing",
                       w->file);
    for (size_t i = 0; i < COUNT_OF(pres); i++)
        if (span_equal(name, span_str(pres[i].name))) w->pre = &pres[i];
    if (w->pre) return SLUICE_OK;
    return err_set(w->err, SLUICE_E_NO_TOKENIZER,
                   "%s: key 'tokenizer.ggml.pre' is '%.*s', a way to split text that is not known",
                   w->file, (int)min_size(name.len, 60), (const char *)name.data);
}

/* A flag, or fallback when the key is absent. */
static enum sluice_status find_flag(const struct writer *w, const char *key, bool fallback,
                                    bool *out)
{
    const struct gguf_value *flag = gguf_find(w->header, key);
    *out = fallback;
    return !flag || gguf_bool(flag, out) ? SLUICE_OK : wrong_key(w, key, "is no bool");
}

/* What only a few SentencePiece models do to texts. */
static enum sluice_status find_spaces(struct writer *w)
{
    static const char removes[] = "tokenizer.ggml.remove_extra_whitespaces";
    bool removed;
    TRY(find_flag(w, "tokenizer.ggml.add_space_prefix", true, &w->prefix));
    TRY(find_flag(w, removes, false, &removed));
    if (!removed) return SLUICE_OK;
    return err_set(w->err, SLUICE_E_NO_TOKENIZER, "%s: key '%s' is true, which is not supported",
                   w->file, removes);
}

static enum sluice_status find_kind(struct writer *w)
{
    struct span model;
    if (!gguf_string(gguf_find(w->header, "tokenizer.ggml.model"), &model))
        return err_set(w->err, SLUICE_E_NO_TOKENIZER, "%s: has no key 'tokenizer.ggml.model'",
                       w->file);
    if (span_equal(model, span_str("gpt2"))) return find_pre(w);
    if (span_equal(model, span_str("llama"))) return find_spaces(w);
    return err_set(w->err, SLUICE_E_NO_TOKENIZER,
                   "%s: key 'tokenizer.ggml.model' is '%.*s'; 'gpt2', byte-level BPE, and 'llama', "
                   "SentencePiece, are known",
                   w->file, (int)min_size(model.len, 60), (const char *)model.data);
}

static enum sluice_status find_tokens(struct writer *w)
{
    static const char types[] = "tokenizer.ggml.token_type";
    const struct gguf_value *tokens = gguf_find(w->header, "tokenizer.ggml.tokens");
    const struct gguf_value *kinds = gguf_find(w->header, types);
    w->tokens = gguf_items(tokens);
    w->types = gguf_items(kinds);
    if (w->tokens.type != GGUF_STRING || w->tokens.n_left == 0)
        return wrong_key(w, "tokenizer.ggml.tokens", "is missing or no array of strings");
    if (w->tokens.n_left > VOCABULARY_MAX_IDS)
        return wrong_key(w, "tokenizer.ggml.tokens", "lists too many tokens");
    if (kinds && (kinds->type != GGUF_ARRAY || w->types.n_left != w->tokens.n_left))
        return wrong_key(w, types, "must list a number for each of 'tokenizer.ggml.tokens'");
    return SLUICE_OK;
}

/* Walks over the tokens; both iterators are the caller's copies. */
static bool next_token(struct gguf_items *tokens, struct gguf_items *types, struct span *text,
                       uint64_t *type)
{
    struct gguf_value item;
    if (!gguf_items_next(tokens, &item)) return false;
    (void)gguf_string(&item, text);
    *type = NORMAL;
    if (gguf_items_next(types, &item) && !gguf_u64(&item, type)) *type = 0;
    return true;
}

static bool is_added(uint64_t type)
{
    return type == UNKNOWN || type == CONTROL || type == USER_DEFINED;
}

/* Tokens that are found in the text itself; their texts are not in the byte alphabet. */
static enum sluice_status put_added(struct writer *w)
{
    struct gguf_items tokens = w->tokens, types = w->types;
    struct span text;
    uint64_t type;
    const char *comma = "";
    put(w, "\"added_tokens\":[");
    for (uint32_t id = 0; next_token(&tokens, &types, &text, &type); id++) {
        if (type < NORMAL || type > BYTE)
            return err_set(w->err, SLUICE_E_FORMAT,
                           "%s: key 'tokenizer.ggml.token_type': item %" PRIu32
                           " is none of 1 to 6",
                           w->file, id);
        if (!is_added(type)) continue;
        putf(w, "%s{\"id\":%" PRIu32 ",\"normalized\":false,\"special\":%s,\"content\":", comma, id,
             type == USER_DEFINED ? "false" : "true");
        put_string(w, text);
        put(w, "}");
        comma = ",";
    }
    put(w, "],");
    return SLUICE_OK;
}

/* Tokens of SentencePiece that stand for a byte are told by their text as well. */
static enum sluice_status check_spelling(const struct writer *w, uint32_t id, struct span text,
                                         uint64_t type)
{
    if (w->pre || (type == BYTE) == (sentencepiece_byte(text) >= 0)) return SLUICE_OK;
    return err_set(w->err, SLUICE_E_FORMAT,
                   "%s: key 'tokenizer.ggml.tokens': item %" PRIu32 " is '%.*s', but of type %d",
                   w->file, id, (int)min_size(text.len, 60), (const char *)text.data, (int)type);
}

static enum sluice_status put_vocabulary(struct writer *w)
{
    struct gguf_items tokens = w->tokens, types = w->types;
    struct span text;
    uint64_t type;
    const char *comma = "";
    put(w, "\"vocab\":{");
    for (uint32_t id = 0; next_token(&tokens, &types, &text, &type); id++) {
        if (is_added(type) || type == UNUSED) continue;
        TRY(check_spelling(w, id, text, type));
        put(w, comma);
        put_string(w, text);
        putf(w, ":%" PRIu32, id);
        comma = ",";
    }
    put(w, "}");
    return SLUICE_OK;
}

static enum sluice_status put_merges(struct writer *w)
{
    static const char key[] = "tokenizer.ggml.merges";
    struct gguf_items merges = gguf_items(gguf_find(w->header, key));
    struct gguf_value item;
    put(w, ",\"merges\":[");
    if (merges.type != GGUF_STRING) return wrong_key(w, key, "is missing or no array of strings");
    for (const char *comma = ""; gguf_items_next(&merges, &item); comma = ",") {
        put(w, comma);
        put_string(w, item.data);
    }
    put(w, "]");
    return SLUICE_OK;
}

static enum sluice_status put_model(struct writer *w)
{
    put(w, "\"model\":{\"type\":\"BPE\",");
    if (!w->pre) put(w, "\"byte_fallback\":true,\"fuse_unk\":true,");
    if (w->pre && w->pre->flags & WHOLE) put(w, "\"ignore_merges\":true,");
    TRY(put_vocabulary(w));
    if (w->pre) TRY(put_merges(w));
    put(w, "},");
    return SLUICE_OK;
}

static void put_spaces(struct writer *w)
{
    put(w, "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    if (w->prefix) put(w, "{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"},");
    put(w, "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\\u2581\"}]},"
           "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":"
           "{\"String\":\"\\u2581\"},\"content\":\" "
           "\"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}");
    if (w->prefix) put(w, ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}");
    put(w, "]}");
}

static void put_split(struct writer *w)
{
    if (w->pre->flags & NFC) put(w, "\"normalizer\":{\"type\":\"NFC\"},");
    put(w, "\"decoder\":{\"type\":\"ByteLevel\"},"
           "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[");
    for (size_t i = 0; i < MAX_PATTERNS && w->pre->set->patterns[i]; i++) {
        put(w, "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":");
        put_string(w, span_str(w->pre->set->patterns[i]));
        put(w, "}},");
    }
    put(w, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}");
}

/* The id that a text begins or ends with; -1: none. */
static enum sluice_status affix_id(const struct writer *w, const char *flag_key, const char *id_key,
                                   bool fallback, int64_t *id)
{
    const struct gguf_value *flag = gguf_find(w->header, flag_key);
    bool add;
    uint64_t n;
    *id = -1;
    TRY(find_flag(w, flag_key, fallback, &add));
    const struct gguf_value *value = gguf_find(w->header, id_key);
    if (!add || (!value && !flag)) return SLUICE_OK;
    if (!gguf_u64(value, &n) || n >= w->tokens.n_left)
        return wrong_key(w, id_key, "is missing or no id of 'tokenizer.ggml.tokens'");
    *id = (int64_t)n;
    return SLUICE_OK;
}

static enum sluice_status put_affixes(struct writer *w)
{
    int64_t bos, eos;
    TRY(affix_id(w, "tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id",
                 !w->pre || w->pre->flags & BOS, &bos));
    TRY(affix_id(w, "tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id", false, &eos));
    if (bos < 0 && eos < 0) return SLUICE_OK;
    put(w, ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[");
    if (bos >= 0) put(w, "{\"SpecialToken\":{\"id\":\"bos\"}},");
    put(w, "{\"Sequence\":{\"id\":\"A\"}}");
    if (eos >= 0) put(w, ",{\"SpecialToken\":{\"id\":\"eos\"}}");
    put(w, "],\"special_tokens\":{");
    if (bos >= 0) putf(w, "\"bos\":{\"ids\":[%" PRId64 "]}", bos);
    if (bos >= 0 && eos >= 0) put(w, ",");
    if (eos >= 0) putf(w, "\"eos\":{\"ids\":[%" PRId64 "]}", eos);
    put(w, "}}");
    return SLUICE_OK;
}

static enum sluice_status put_all(struct writer *w)
{
    TRY(find_kind(w));
    TRY(find_tokens(w));
    put(w, "{");
    TRY(put_added(w));
    TRY(put_model(w));
    if (w->pre)
        put_split(w);
    else
        put_spaces(w);
    TRY(put_affixes(w));
    put(w, "}");
    return w->failed ? err_nomem(w->err, "tokenizer", w->out->n) : SLUICE_OK;
}

/* [n] by id in new memory. */
static enum sluice_status read_scores(const struct writer *w, float **out, size_t *n)
{
    static const char key[] = "tokenizer.ggml.scores";
    const struct gguf_value *value = gguf_find(w->header, key);
    struct gguf_items items = gguf_items(value);
    struct gguf_value item;
    double x;
    size_t count = (size_t)w->tokens.n_left;
    if (!value || value->type != GGUF_ARRAY || items.n_left != count)
        return wrong_key(w, key, "must list a number for each of 'tokenizer.ggml.tokens'");
    *out = malloc(count * sizeof **out);
    if (!*out) return err_nomem(w->err, key, count * sizeof **out);
    for (*n = 0; gguf_items_next(&items, &item); ++*n) {
        if (!gguf_f64(&item, &x)) return wrong_key(w, key, "has an item that is no finite number");
        (*out)[*n] = (float)x;
    }
    return SLUICE_OK;
}

static enum sluice_status parse_scored(const struct writer *w, struct sluice_tokenizer **out)
{
    float *scores = NULL;
    size_t n = 0;
    enum sluice_status status = read_scores(w, &scores, &n);
    if (status == SLUICE_OK)
        status = tokenizer_parse_scored(text_span(w->out), w->file, scores, n, out, w->err);
    free(scores);
    return status;
}

enum sluice_status gguf_tokenizer_parse(const struct gguf_header *header, const char *file,
                                        struct sluice_tokenizer **out, struct sluice_error *err)
{
    struct text_buffer json = {0};
    struct span template;
    struct writer w = {.header = header, .file = file, .out = &json, .err = err};
    *out = NULL;
    enum sluice_status status = put_all(&w);
    if (status == SLUICE_OK && w.pre)
        status = tokenizer_parse(text_span(&json), file, span_of(NULL, 0), "", out, err);
    else if (status == SLUICE_OK)
        status = parse_scored(&w, out);
    if (status == SLUICE_OK && gguf_string(gguf_find(header, "tokenizer.chat_template"), &template))
        status = chat_template_set(*out, template, err);
    if (status != SLUICE_OK && *out) {
        tokenizer_close(*out);
        *out = NULL;
    }
    text_release(&json);
    return status;
}

static enum sluice_status parse_mapped(const struct file_map *map, struct sluice_tokenizer **out,
                                       struct sluice_error *err)
{
    struct arena arena = {0};
    struct gguf_header header;
    enum sluice_status status = gguf_parse(span_of(map->data, (size_t)map->bytes), map->bytes,
                                           map->path, &arena, &header, err);
    if (status == SLUICE_OK) status = gguf_tokenizer_parse(&header, map->path, out, err);
    gguf_release(&header);
    arena_release(&arena);
    return status;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool gguf_tokenizer_at(const char *path)
{
    struct arena arena = {0};
    struct file_parts parts;
    if (!is_folder(path)) return file_exists(path);
    bool found = file_parts_find(&parts, path, ".gguf", &arena, NULL) == SLUICE_OK;
    if (found) file_parts_release(&parts);
    arena_release(&arena);
    return found;
}

enum sluice_status gguf_tokenizer_open(const char *path, struct sluice_tokenizer **out,
                                       struct sluice_error *err)
{
    struct arena arena = {0};
    struct file_parts parts;
    struct file_map map;
    *out = NULL;
    enum sluice_status status = file_parts_find(&parts, path, ".gguf", &arena, err);
    if (status == SLUICE_OK) {
        status = file_map_open(&map, parts.items[0], err);
        file_parts_release(&parts);
    }
    if (status == SLUICE_OK) {
        status = parse_mapped(&map, out, err);
        file_map_release(&map);
    }
    arena_release(&arena);
    return status;
}
