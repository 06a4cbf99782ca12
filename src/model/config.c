#include "model/config.h"

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
