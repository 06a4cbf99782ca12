/* Qwen's families as GGUF files have them. */
#include <math.h>

#include "model/gguf_arch.h"

static enum sluice_status expect_same(const struct gguf_model *m, const char *a, uint32_t x,
                                      const char *b, uint32_t y)
{
    if (x == y) return SLUICE_OK;
    return err_set(m->err, SLUICE_E_UNSUPPORTED,
                   "%s: key '%s.%s' is %u and '%s.%s' is %u; only equal ones are supported",
                   m->file, m->arch->name, a, x, m->arch->name, b, y);
}

/* Leading values of a head that rotate, as the part of head_dim that config.json has. */
static enum sluice_status set_rotary(const struct gguf_model *m, uint32_t head_dim)
{
    uint32_t dims;
    TRY(gguf_key_u32_or(m, "rope.dimension_count", UINT32_MAX, &dims));
    if (dims == 0 || dims > head_dim)
        return err_set(m->err, SLUICE_E_FORMAT,
                       "%s: key '%s.rope.dimension_count' is %u, but a head has %u values", m->file,
                       m->arch->name, dims, head_dim);
    double part = (double)dims / head_dim;
    if ((uint32_t)(head_dim * part) < dims) part = nextafter(part, 1);
    return gguf_set_f64(m, "partial_rotary_factor", part);
}

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
    uint32_t keys, values;
    TRY(gguf_key_u32_or(m, "attention.key_length", UINT32_MAX, &keys));
    TRY(gguf_key_u32_or(m, "attention.value_length", keys, &values));
    TRY(expect_same(m, "attention.key_length", keys, "attention.value_length", values));
    TRY(set_rotary(m, keys));
    return set_delta_net(m);
}

static const struct gguf_field qwen35moe_fields[] = {
    {"context_length", "max_position_embeddings", false},
    {"embedding_length", "hidden_size", true},
    {"attention.head_count", "num_attention_heads", true},
    {"attention.head_count_kv", "num_key_value_heads", true},
    {"attention.key_length", "head_dim", true},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true},
    {"rope.freq_base", "rope_theta", true},
    {"expert_count", "num_experts", true},
    {"expert_used_count", "num_experts_per_tok", true},
    {"expert_feed_forward_length", "moe_intermediate_size", true},
    {"expert_shared_feed_forward_length", "shared_expert_intermediate_size", true},
    {"ssm.conv_kernel", "linear_conv_kernel_dim", true},
    {"ssm.state_size", "linear_key_head_dim", true},
    {"ssm.group_count", "linear_num_key_heads", true},
    {"ssm.time_step_rank", "linear_num_value_heads", true},
    {"full_attention_interval", "full_attention_interval", false},
    {0},
};

static const struct gguf_rename post_attention_norm[] = {
    {WEIGHT_moe_norm, "blk.#.post_attention_norm.weight"},
    {0},
};

const struct gguf_arch gguf_arch_qwen35moe = {
    .name = "qwen35moe",
    .model_type = "qwen3_5_moe_text",
    .fields = qwen35moe_fields,
    .renames = post_attention_norm,
    .tiled_v_heads = true,
    .finish = finish_qwen35moe,
};
