#include <inttypes.h>
#include <stdio.h>

#include "model/gguf_arch.h"

#define GA(name, text) extern const struct gguf_arch gguf_arch_##name;
#include "model/gguf_arch.def"
#undef GA

static const struct gguf_arch *const arches[] = {
#define GA(name, text) &gguf_arch_##name,
#include "model/gguf_arch.def"
#undef GA
};

struct gguf_full_key gguf_full_key(const struct gguf_model *m, const char *key)
{
    struct gguf_full_key full;
    snprintf(full.text, sizeof full.text, "%s.%s", m->arch->name, key);
    return full;
}

bool gguf_has(const struct gguf_model *m, const char *tensor)
{
    return checkpoint_find(m->cp, tensor) != NULL;
}

enum sluice_status gguf_set(const struct gguf_model *m, const char *field, json_t *value)
{
    if (json_object_set_new(m->config, field, value) == 0) return SLUICE_OK;
    return err_nomem(m->err, m->file, sizeof *value);
}

enum sluice_status gguf_set_u32(const struct gguf_model *m, const char *field, uint32_t value)
{
    return gguf_set(m, field, json_integer(value));
}

enum sluice_status gguf_set_f64(const struct gguf_model *m, const char *field, double value)
{
    return gguf_set(m, field, json_real(value));
}

enum sluice_status gguf_set_bool(const struct gguf_model *m, const char *field, bool value)
{
    return gguf_set(m, field, json_boolean(value));
}

enum sluice_status gguf_key_u32_or(const struct gguf_model *m, const char *key, uint32_t fallback,
                                   uint32_t *out)
{
    struct gguf_full_key full = gguf_full_key(m, key);
    uint64_t n = fallback;
    const struct gguf_value *value = gguf_find(m->header, full.text);
    if (!value && fallback == UINT32_MAX)
        return err_set(m->err, SLUICE_E_NOT_FOUND, "%s: key '%s' is missing", m->file, full.text);
    if (value && (!gguf_u64(value, &n) || n >= UINT32_MAX))
        return err_set(m->err, SLUICE_E_FORMAT, "%s: key '%s' must be a number below 2^32 - 1",
                       m->file, full.text);
    *out = (uint32_t)n;
    return SLUICE_OK;
}

enum sluice_status gguf_key_f64_or(const struct gguf_model *m, const char *key, double fallback,
                                   double *out)
{
    struct gguf_full_key full = gguf_full_key(m, key);
    const struct gguf_value *value = gguf_find(m->header, full.text);
    *out = fallback;
    if (!value || gguf_f64(value, out)) return SLUICE_OK;
    return err_set(m->err, SLUICE_E_FORMAT, "%s: key '%s' must be a finite number", m->file,
                   full.text);
}

/* A number or a flag as JSON. NULL: the value is neither, or is not finite. */
static json_t *to_json(const struct gguf_value *value)
{
    uint64_t n;
    double x;
    bool b;
    if (gguf_bool(value, &b)) return json_boolean(b);
    if (gguf_u64(value, &n) && n <= INT64_MAX) return json_integer((json_int_t)n);
    return gguf_f64(value, &x) ? json_real(x) : NULL;
}

static enum sluice_status translate(const struct gguf_model *m, const struct gguf_field *f)
{
    struct gguf_full_key full = gguf_full_key(m, f->key);
    const struct gguf_value *value = gguf_find(m->header, full.text);
    if (!value && f->needed)
        return err_set(m->err, SLUICE_E_NOT_FOUND, "%s: key '%s' is missing", m->file, full.text);
    if (!value) return SLUICE_OK;
    json_t *json = to_json(value);
    if (json) return gguf_set(m, f->field, json);
    return err_set(m->err, SLUICE_E_FORMAT,
                   "%s: key '%s' is of type %s%s, but must be a finite number of at least 0",
                   m->file, full.text, value->type == GGUF_ARRAY ? "array of " : "",
                   gguf_type_name(value->type == GGUF_ARRAY ? value->item_type : value->type));
}

/* The vocabulary is as long as the embedding, and the head is the embedding if there is none. */
static enum sluice_status set_vocabulary(const struct gguf_model *m)
{
    const struct tensor *embed = checkpoint_find(m->cp, "token_embd.weight");
    if (!embed)
        return err_set(m->err, SLUICE_E_NOT_FOUND, "%s: tensor 'token_embd.weight' is missing",
                       m->file);
    if (embed->rank != 2 || embed->shape[0] > INT32_MAX)
        return err_set(m->err, SLUICE_E_MISMATCH,
                       "%s: tensor 'token_embd.weight' has %" PRIu32 " dimensions where 2 are "
                       "needed, or too many rows",
                       m->file, embed->rank);
    const struct gguf_value *tokens = gguf_find(m->header, "tokenizer.ggml.tokens");
    if (tokens && tokens->n_items > embed->shape[0])
        return err_set(m->err, SLUICE_E_MISMATCH,
                       "%s: key 'tokenizer.ggml.tokens' lists %" PRIu64
                       " tokens, but 'token_embd.weight' has %" PRIu64 " rows",
                       m->file, tokens->n_items, embed->shape[0]);
    TRY(gguf_set_u32(m, "vocab_size", (uint32_t)embed->shape[0]));
    return gguf_set(m, "tie_word_embeddings",
                    json_boolean(!checkpoint_find(m->cp, "output.weight")));
}

/* Tokens that end a text, a turn or a message; each key may be absent. */
static enum sluice_status set_eos(const struct gguf_model *m)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    json_t *list = json_array();
    TRY(gguf_set(m, "eos_token_id", list));
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        uint64_t id;
        const struct gguf_value *value = gguf_find(m->header, keys[i]);
        if (!value) continue;
        if (!gguf_u64(value, &id) || id > INT32_MAX)
            return err_set(m->err, SLUICE_E_FORMAT, "%s: key '%s' is no id", m->file, keys[i]);
        if (json_array_append_new(list, json_integer((json_int_t)id)) != 0)
            return err_nomem(m->err, m->file, sizeof *list);
    }
    return SLUICE_OK;
}

/* Layers that predict further tokens come last and are counted as layers. */
static enum sluice_status set_layers(const struct gguf_model *m)
{
    uint32_t layers, draft;
    TRY(gguf_key_u32_or(m, "block_count", UINT32_MAX, &layers));
    TRY(gguf_key_u32_or(m, "nextn_predict_layers", 0, &draft));
    if (draft >= layers)
        return err_set(m->err, SLUICE_E_FORMAT,
                       "%s: key '%s.nextn_predict_layers' is %" PRIu32 ", but there are %" PRIu32
                       " layers in all",
                       m->file, m->arch->name, draft, layers);
    TRY(gguf_set_u32(m, "num_nextn_predict_layers", draft));
    return gguf_set_u32(m, "num_hidden_layers", layers - draft);
}

static enum sluice_status fill(const struct gguf_model *m)
{
    TRY(gguf_set(m, "model_type", json_string(m->arch->model_type)));
    TRY(set_layers(m));
    TRY(set_vocabulary(m));
    TRY(set_eos(m));
    for (const struct gguf_field *f = m->arch->fields; f->key; f++) TRY(translate(m, f));
    return m->arch->finish ? m->arch->finish(m) : SLUICE_OK;
}

static enum sluice_status find_arch(struct gguf_model *m)
{
    struct span name;
    if (!gguf_string(gguf_find(m->header, "general.architecture"), &name))
        return err_set(m->err, SLUICE_E_FORMAT,
                       "%s: key 'general.architecture' is missing or no string", m->file);
    for (size_t i = 0; i < sizeof arches / sizeof arches[0]; i++)
        if (span_equal(name, span_str(arches[i]->name))) m->arch = arches[i];
    if (m->arch) return SLUICE_OK;
    return err_set(m->err, SLUICE_E_UNSUPPORTED,
                   "%s: key 'general.architecture' is '%.*s', which is not supported; supported "
                   "are:"
#define GA(name, text) " " text
#include "model/gguf_arch.def"
#undef GA
                   ,
                   m->file, (int)(name.len < 60 ? name.len : 60), (const char *)name.data);
}

enum sluice_status gguf_config(const struct checkpoint *cp, const struct gguf_arch **arch,
                               struct model_layout *layout, json_t **config,
                               struct sluice_error *err)
{
    struct gguf_model m = {.cp = cp, .header = &cp->gguf[0], .layout = layout, .err = err};
    m.file = file_base_name(cp->files[0].path);
    *config = NULL;
    TRY(find_arch(&m));
    m.config = json_object();
    if (!m.config) return err_nomem(err, m.file, sizeof *m.config);
    enum sluice_status status = fill(&m);
    if (status != SLUICE_OK) {
        json_decref(m.config);
        return status;
    }
    *arch = m.arch;
    *config = m.config;
    return SLUICE_OK;
}
