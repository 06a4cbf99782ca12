/* Qwen's families as GGUF files have them. */
#include "model/gguf_arch.h"

/* Sizes of DeltaNet: the file has the width of all v heads, config.json that of one. */
static enum sluice_status set_delta_net(const struct gguf_model *m)
{
    uint32_t v_heads, values;
    TRY(gguf_key_u32_or(m, "ssm.time_step_rank", UINT32_MAX, &v_heads));
    TRY(gguf_key_u32_or(m, "ssm.inner_size", UINT32_MAX, &values));
    if (v_heads == 0 || values % v_heads != 0)
        return err_set(m->err, SLUICE_E_FORMAT,
                       "%s: key '%s.ssm.inner_size' is %u, no multiple of the %u value heads of "
                       "'%s.ssm.time_step_rank'",
                       m->file, m->arch->name, values, v_heads, m->arch->name);
    return gguf_set_u32(m, "linear_value_head_dim", values / v_heads);
}

static enum sluice_status finish_qwen35moe(const struct gguf_model *m)
{
    m->layout->tiled_v_heads = true;
    TRY(gguf_set_attention(m));
    return set_delta_net(m);
}

/* Whether some layer has a tensor of this name behind its number. */
static bool any_layer_has(const struct gguf_model *m, const char *name)
{
    for (size_t i = 0; i < m->cp->n_tensors; i++) {
        const char *dot = strncmp(m->cp->tensors[i].name, "blk.", 4) == 0
                              ? strchr(m->cp->tensors[i].name + 4, '.')
                              : NULL;
        if (dot && strcmp(dot + 1, name) == 0) return true;
    }
    return false;
}

/* Older files keep q, k, v and z together as the published model does. */
static enum sluice_status finish_qwen3next(const struct gguf_model *m)
{
    m->layout->split_qkvz = !any_layer_has(m, "ssm_in.weight");
    TRY(gguf_set_attention(m));
    return set_delta_net(m);
}

/* Published models divide the weights by their sum, and no key says so. */
static enum sluice_status finish_qwen3moe(const struct gguf_model *m)
{
    if (!json_object_get(m->config, "norm_topk_prob"))
        TRY(gguf_set_bool(m, "norm_topk_prob", true));
    return gguf_set_attention(m);
}

static const struct gguf_field delta_net_fields[] = {
    GGUF_ATTENTION_FIELDS,
    {"expert_count", "num_experts", true},
    {"expert_feed_forward_length", "moe_intermediate_size", true},
    {"expert_shared_feed_forward_length", "shared_expert_intermediate_size", true},
    {"expert_weights_norm", "norm_topk_prob", false},
    {"ssm.conv_kernel", "linear_conv_kernel_dim", true},
    {"ssm.state_size", "linear_key_head_dim", true},
    {"ssm.group_count", "linear_num_key_heads", true},
    {"ssm.time_step_rank", "linear_num_value_heads", true},
    {"full_attention_interval", "full_attention_interval", false},
    {0},
};

static const struct gguf_field qwen3moe_fields[] = {
    GGUF_ATTENTION_FIELDS,
    {"expert_count", "num_experts", true},
    {"expert_feed_forward_length", "moe_intermediate_size", true},
    {"expert_weights_norm", "norm_topk_prob", false},
    {0},
};

static const struct gguf_rename post_attention_norm[] = {
    {WEIGHT_moe_norm, "blk.#.post_attention_norm.weight"},
    {0},
};

const struct gguf_arch gguf_arch_qwen35moe = {
    .name = "qwen35moe",
    .model_type = "qwen3_5_moe_text",
    .fields = delta_net_fields,
    .renames = post_attention_norm,
    .finish = finish_qwen35moe,
};

const struct gguf_arch gguf_arch_qwen3next = {
    .name = "qwen3next",
    .model_type = "qwen3_next",
    .fields = delta_net_fields,
    .renames = post_attention_norm,
    .finish = finish_qwen3next,
};

const struct gguf_arch gguf_arch_qwen3moe = {
    .name = "qwen3moe",
    .model_type = "qwen3_moe",
    .fields = qwen3moe_fields,
    .finish = finish_qwen3moe,
};
