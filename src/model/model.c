#include "model/model.h"

#include <stdio.h>

#include "model/arch.h"
#include "model/bind.h"
#include "model/gguf_arch.h"

static const struct arch *const arches[] = {
#define A(name, type) &arch_##name,
#include "model/arch.def"
#undef A
};

const struct arch *arch_find(const char *model_type)
{
    for (size_t i = 0; i < sizeof arches / sizeof arches[0]; i++)
        if (strcmp(arches[i]->model_type, model_type) == 0) return arches[i];
    return NULL;
}

const char *arch_list(void)
{
    return ""
#define A(name, type) " " type
#include "model/arch.def"
#undef A
        ;
}

/* The text model's part of the config: text_config of a wrapper, else all of it. */
static enum sluice_status find_text_config(const struct json_node *top, struct json_node *text,
                                           struct sluice_error *err)
{
    TRY(json_get_object_or(top, "text_config", text, err));
    if (!text->object) *text = *top;
    return SLUICE_OK;
}

/* A wrapper's own type stands for its text model when text_config names none. */
static enum sluice_status find_arch(const struct json_node *top, const struct json_node *text,
                                    const struct arch **out, struct sluice_error *err)
{
    const char *type;
    char with_text[128];
    TRY(json_get_string_or(text, "model_type", "", &type, err));
    if (!type[0]) TRY(json_get_string(top, "model_type", &type, err));
    *out = arch_find(type);
    if (!*out) {
        snprintf(with_text, sizeof with_text, "%s_text", type);
        *out = arch_find(with_text);
    }
    if (*out) return SLUICE_OK;
    return err_set(err, SLUICE_E_UNSUPPORTED,
                   "%s: field 'model_type' is '%s', which is not supported; supported are:%s",
                   top->file, type, arch_list());
}

static enum sluice_status read_tied(const struct json_node *top, const struct json_node *text,
                                    bool *tied, struct sluice_error *err)
{
    TRY(json_get_bool_or(text, "tie_word_embeddings", false, tied, err));
    return json_get_bool_or(top, "tie_word_embeddings", *tied, tied, err);
}

static enum sluice_status add_eos(struct model *m, const struct json_node *node,
                                  const json_t *value, struct sluice_error *err)
{
    json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id >= m->vocab_size)
        return err_set(err, SLUICE_E_FORMAT,
                       "%s: field 'eos_token_id' must be ids below the vocabulary size %u",
                       node->file, m->vocab_size);
    if (m->n_eos == MODEL_MAX_EOS)
        return err_set(err, SLUICE_E_UNSUPPORTED, "%s: field 'eos_token_id' lists more than %d ids",
                       node->file, MODEL_MAX_EOS);
    m->eos[m->n_eos++] = (int32_t)id;
    return SLUICE_OK;
}

static enum sluice_status add_eos_field(struct model *m, const struct json_node *node,
                                        struct sluice_error *err)
{
    if (!json_has(node, "eos_token_id")) return SLUICE_OK;
    const json_t *value = json_object_get(node->object, "eos_token_id");
    if (!json_is_array(value)) return add_eos(m, node, value, err);
    for (size_t i = 0; i < json_array_size(value); i++)
        TRY(add_eos(m, node, json_array_get(value, i), err));
    return SLUICE_OK;
}

/* The whole of a JSON file of cp; messages name it with the folder. */
static enum sluice_status file_node(struct model *m, const struct checkpoint *cp, json_t *object,
                                    const char *name, struct json_node *node,
                                    struct sluice_error *err)
{
    *node = (struct json_node){object, arena_printf(&m->arena, "%s/%s", cp->path, name), ""};
    return node->file ? SLUICE_OK : err_nomem(err, name, strlen(cp->path));
}

/* generation_config.json decides; without one, the config. */
static enum sluice_status read_eos(struct model *m, const struct checkpoint *cp,
                                   const struct json_node *top, const struct json_node *text,
                                   struct sluice_error *err)
{
    struct json_node generation;
    if (cp->generation_config) {
        TRY(file_node(m, cp, cp->generation_config, "generation_config.json", &generation, err));
        TRY(add_eos_field(m, &generation, err));
    }
    if (m->n_eos == 0) TRY(add_eos_field(m, text, err));
    if (m->n_eos == 0 && text->object != top->object) TRY(add_eos_field(m, top, err));
    return SLUICE_OK;
}

/*
 * A family reads the metadata of a GGUF file as the config.json it stands for; messages say so, for
 * they name fields that the file has other keys for.
 */
static enum sluice_status translate_gguf(struct model *m, const struct checkpoint *cp,
                                         struct binder *b, struct json_node *top,
                                         struct sluice_error *err)
{
    TRY(gguf_config(cp, &b->gguf, &m->layout, &m->gguf_config, err));
    const char *name = checkpoint_file_name(cp, &cp->tensors[0]);
    *top = (struct json_node){m->gguf_config,
                              arena_printf(&m->arena, "%s: metadata as a config.json", name), ""};
    return top->file ? SLUICE_OK : err_nomem(err, name, strlen(name));
}

static enum sluice_status describe(struct model *m, const struct checkpoint *cp,
                                   const struct model_options *options, struct binder *b,
                                   struct sluice_error *err)
{
    struct json_node top, text;
    if (cp->gguf) {
        TRY(translate_gguf(m, cp, b, &top, err));
    } else {
        TRY(file_node(m, cp, cp->config, "config.json", &top, err));
    }
    TRY(find_text_config(&top, &text, err));
    TRY(find_arch(&top, &text, &b->arch, err));
    m->architecture = b->arch->model_type;
    TRY(json_get_u32_or(&text, "max_position_embeddings", 1, UINT32_MAX, 4096, &m->trained_context,
                        err));
    TRY(json_get_u32_or(&text, "num_nextn_predict_layers", 0, UINT16_MAX, 0, &m->n_draft_layers,
                        err));
    TRY(read_tied(&top, &text, &b->tied, err));
    m->tied = b->tied;
    TRY(quant_read(&b->quant, &top, err));
    TRY(b->arch->build(m, &text, options, err));
    return read_eos(m, cp, &top, &text, err);
}

enum sluice_status model_init(struct model *m, const struct checkpoint *cp,
                              const struct model_options *options, struct sluice_error *err)
{
    *m = (struct model){0};
    graph_init(&m->graph, 1);
    struct binder b = {.model = m, .cp = cp, .log = options->log, .err = err};
    enum sluice_status status = describe(m, cp, options, &b, err);
    if (status == SLUICE_OK) {
        m->weights = arena_alloc(&m->arena, m->graph.weights.n, sizeof *m->weights);
        m->tensor_kind = arena_alloc(&m->arena, cp->n_tensors, sizeof *m->tensor_kind);
        m->banks = arena_alloc(&m->arena, m->graph.weights.n, sizeof *m->banks);
        status = m->weights && m->tensor_kind && m->banks
                     ? bind_weights(&b)
                     : err_nomem(err, "model", m->graph.weights.n);
    }
    if (status != SLUICE_OK) model_release(m);
    return status;
}

void model_release(struct model *m)
{
    json_decref(m->gguf_config);
    graph_release(&m->graph);
    arena_release(&m->arena);
    *m = (struct model){0};
}
