#include "model/config.h"

#include <stdio.h>
#include <string.h>

enum sluice_status config_unsupported(const struct json_node *node, const char *key,
                                      const char *value, struct sluice_error *err)
{
    return err_set(err, SLUICE_E_UNSUPPORTED, "%s: field '%s%s%s' is '%s', which is not supported",
                   node->file, node->path, node->path[0] ? "." : "", key, value);
}

enum sluice_status config_check_width(const struct json_node *node, const char *what,
                                      uint32_t heads, uint32_t dim, struct sluice_error *err)
{
    if ((uint64_t)heads * dim <= CONFIG_MAX_WIDTH) return SLUICE_OK;
    return err_set(err, SLUICE_E_UNSUPPORTED, "%s: %u %s of size %u are too wide", node->file,
                   heads, what, dim);
}

enum sluice_status config_expect_string(const struct json_node *node, const char *key,
                                        const char *only, struct sluice_error *err)
{
    const char *value;
    TRY(json_get_string_or(node, key, only, &value, err));
    return strcmp(value, only) == 0 ? SLUICE_OK : config_unsupported(node, key, value, err);
}

enum sluice_status config_expect_bool(const struct json_node *node, const char *key, bool only,
                                      struct sluice_error *err)
{
    bool value;
    TRY(json_get_bool_or(node, key, only, &value, err));
    if (value == only) return SLUICE_OK;
    return config_unsupported(node, key, value ? "true" : "false", err);
}

enum sluice_status config_expect_zero(const struct json_node *node, const char *key,
                                      struct sluice_error *err)
{
    double value;
    char text[32];
    TRY(json_get_f64_or(node, key, -1e9, 1e9, 0, &value, err));
    if (value == 0) return SLUICE_OK;
    snprintf(text, sizeof text, "%g", value);
    return config_unsupported(node, key, text, err);
}

enum sluice_status config_read_frame(const struct json_node *node, double default_eps,
                                     struct config_frame *frame, struct sluice_error *err)
{
    double eps;
    TRY(json_get_u32(node, "hidden_size", 1, CONFIG_MAX_DIM, &frame->hidden, err));
    TRY(json_get_u32(node, "num_hidden_layers", 1, CONFIG_MAX_LAYERS, &frame->layers, err));
    TRY(json_get_u32(node, "vocab_size", 1, CONFIG_MAX_WIDTH, &frame->vocab, err));
    TRY(json_get_f64_or(node, "rms_norm_eps", 0, 1, default_eps, &eps, err));
    frame->eps = (float)eps;
    return SLUICE_OK;
}

enum sluice_status config_read_heads(const struct json_node *node, uint32_t hidden,
                                     struct config_heads *h, struct sluice_error *err)
{
    TRY(json_get_u32(node, "num_attention_heads", 1, CONFIG_MAX_DIM, &h->heads, err));
    TRY(json_get_u32_or(node, "num_key_value_heads", 1, CONFIG_MAX_DIM, h->heads, &h->kv_heads,
                        err));
    TRY(json_get_u32_or(node, "head_dim", 1, CONFIG_MAX_DIM, hidden / h->heads, &h->head_dim, err));
    if (h->head_dim == 0)
        return err_set(err, SLUICE_E_MISMATCH,
                       "%s: hidden_size %u is less than one value for each "
                       "of %u attention heads",
                       node->file, hidden, h->heads);
    if (h->heads % h->kv_heads != 0)
        return err_set(err, SLUICE_E_MISMATCH,
                       "%s: %u attention heads cannot share %u key-value heads evenly", node->file,
                       h->heads, h->kv_heads);
    return config_check_width(node, "attention heads", h->heads, h->head_dim, err);
}

enum sluice_status config_read_picks(const struct json_node *node, uint32_t n_experts,
                                     const struct model_options *options, uint32_t *picks,
                                     struct sluice_error *err)
{
    TRY(json_get_u32(node, "num_experts_per_tok", 1, n_experts, picks, err));
    if (options->n_picks > n_experts)
        return err_set(err, SLUICE_E_ARGUMENT, "%u experts per token were asked for; there are %u",
                       options->n_picks, n_experts);
    if (options->n_picks) *picks = options->n_picks;
    return SLUICE_OK;
}

enum sluice_status config_read_experts(const struct json_node *node, uint32_t *experts,
                                       struct sluice_error *err)
{
    if (!json_has(node, "num_experts") && json_has(node, "num_local_experts"))
        return json_get_u32(node, "num_local_experts", 1, CONFIG_MAX_EXPERTS, experts, err);
    return json_get_u32(node, "num_experts", 1, CONFIG_MAX_EXPERTS, experts, err);
}

static enum sluice_status new_flags(struct arena *arena, uint32_t layers, bool **flags,
                                    struct sluice_error *err)
{
    *flags = arena_alloc(arena, layers, sizeof **flags);
    return *flags ? SLUICE_OK : err_nomem(err, "flags of layers", layers);
}

/* Sets the flags of the layers that the list names. */
static enum sluice_status set_listed(const struct json_node *node, const char *key, uint32_t layers,
                                     bool *flags, struct sluice_error *err)
{
    const json_t *list = json_object_get(node->object, key);
    if (!json_has(node, key)) return SLUICE_OK;
    if (!json_is_array(list))
        return err_set(err, SLUICE_E_FORMAT, "%s: field '%s' must be a list of layers", node->file,
                       key);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        json_int_t layer = json_integer_value(item);
        if (!json_is_integer(item) || layer < 0 || layer >= layers)
            return err_set(err, SLUICE_E_FORMAT,
                           "%s: field '%s' must list layers below the %u that there are",
                           node->file, key, layers);
        flags[layer] = true;
    }
    return SLUICE_OK;
}

static enum sluice_status no_experts(const struct json_node *node, uint32_t layers,
                                     struct sluice_error *err)
{
    return err_set(err, SLUICE_E_UNSUPPORTED,
                   "%s: none of the %u layers has experts; a model without any is not supported",
                   node->file, layers);
}

enum sluice_status config_read_dense_layers(const struct json_node *node, uint32_t layers,
                                            struct arena *arena, bool **dense,
                                            struct sluice_error *err)
{
    uint32_t step;
    TRY(json_get_u32_or(node, "decoder_sparse_step", 1, CONFIG_MAX_LAYERS, 1, &step, err));
    TRY(new_flags(arena, layers, dense, err));
    for (uint32_t l = 0; l < layers; l++) (*dense)[l] = (l + 1) % step != 0;
    TRY(set_listed(node, "mlp_only_layers", layers, *dense, err));
    return config_any_layer(*dense, layers, false) ? SLUICE_OK : no_experts(node, layers, err);
}

bool config_any_layer(const bool *flags, uint32_t layers, bool value)
{
    for (uint32_t l = 0; l < layers; l++)
        if (flags[l] == value) return true;
    return false;
}

enum sluice_status config_read_first_dense(const struct json_node *node, uint32_t layers,
                                           uint32_t fallback, uint32_t *n_dense,
                                           struct sluice_error *err)
{
    TRY(json_get_u32_or(node, "first_k_dense_replace", 0, CONFIG_MAX_LAYERS, fallback, n_dense,
                        err));
    return *n_dense < layers ? SLUICE_OK : no_experts(node, layers, err);
}

enum sluice_status config_read_linear_layers(const struct json_node *node, uint32_t layers,
                                             struct arena *arena, bool **linear,
                                             struct sluice_error *err)
{
    TRY(new_flags(arena, layers, linear, err));
    const json_t *types = json_object_get(node->object, "layer_types");
    if (!types || json_is_null(types)) {
        uint32_t interval;
        TRY(json_get_u32_or(node, "full_attention_interval", 1, CONFIG_MAX_LAYERS, 4, &interval,
                            err));
        for (uint32_t l = 0; l < layers; l++) (*linear)[l] = (l + 1) % interval != 0;
        return SLUICE_OK;
    }
    if (!json_is_array(types) || json_array_size(types) != layers)
        return err_set(err, SLUICE_E_MISMATCH,
                       "%s: field 'layer_types' must list one type for each of the %u layers",
                       node->file, layers);
    for (uint32_t l = 0; l < layers; l++) {
        const char *type = json_string_value(json_array_get(types, l));
        if (type && strcmp(type, "linear_attention") == 0)
            (*linear)[l] = true;
        else if (!type || strcmp(type, "full_attention") != 0)
            return err_set(err, SLUICE_E_UNSUPPORTED,
                           "%s: field 'layer_types': layer %u has type '%s'; linear_attention and "
                           "full_attention are supported",
                           node->file, l, type ? type : "?");
    }
    return SLUICE_OK;
}
