/* DeepSeek-V3 and its like, Kimi-K2 among them, as GGUF files have them. */
#include <inttypes.h>

#include "model/gguf_arch.h"

/*
 * Sizes of the parts of a head. Files whose keys and values are split have those of a head under
 * names of their own, and those of a latent under the usual ones.
 */
static enum sluice_status set_head(const struct gguf_model *m)
{
    uint32_t keys, values, rotated;
    TRY(gguf_key_u32_or(m, "rope.dimension_count", UINT32_MAX, &rotated));
    TRY(gguf_key_u32_or(m, "attention.key_length_mla", 0, &keys));
    TRY(gguf_key_u32_or(m, "attention.value_length_mla", 0, &values));
    if (!keys) TRY(gguf_key_u32_or(m, "attention.key_length", UINT32_MAX, &keys));
    if (!values) TRY(gguf_key_u32_or(m, "attention.value_length", UINT32_MAX, &values));
    if (rotated >= keys)
        return err_set(m->err, SLUICE_E_FORMAT,
                       "%s: key '%s.rope.dimension_count' is %" PRIu32 ", but a key has %" PRIu32
                       " values",
                       m->file, m->arch->name, rotated, keys);
    TRY(gguf_set_u32(m, "qk_rope_head_dim", rotated));
    TRY(gguf_set_u32(m, "qk_nope_head_dim", keys - rotated));
    return gguf_set_u32(m, "v_head_dim", values);
}

/* The file has a tenth of what config.json calls mscale_all_dim; angles are not scaled by it. */
static enum sluice_status set_scaling(const struct gguf_model *m)
{
    double multiplier;
    TRY(gguf_set_scaling(m));
    TRY(gguf_key_f64_or(m, "rope.scaling.yarn_log_multiplier", 0, &multiplier));
    if (multiplier < 0 || multiplier > 100)
        return err_set(m->err, SLUICE_E_FORMAT,
                       "%s: key '%s.rope.scaling.yarn_log_multiplier' must be from 0 to 100",
                       m->file, m->arch->name);
    TRY(gguf_add_scaling(m, "mscale", json_real(10 * multiplier)));
    return gguf_add_scaling(m, "mscale_all_dim", json_real(10 * multiplier));
}

static enum sluice_status finish(const struct gguf_model *m)
{
    uint32_t dense;
    TRY(gguf_expect_sigmoid(m, false));
    TRY(gguf_key_u32_or(m, "leading_dense_block_count", 0, &dense));
    TRY(gguf_set_u32(m, "first_k_dense_replace", dense));
    TRY(set_head(m));
    return set_scaling(m);
}

static const struct gguf_field fields[] = {
    {"context_length", "max_position_embeddings", false},
    {"embedding_length", "hidden_size", true},
    {"attention.head_count", "num_attention_heads", true},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true},
    {"attention.q_lora_rank", "q_lora_rank", false},
    {"attention.kv_lora_rank", "kv_lora_rank", true},
    {"rope.freq_base", "rope_theta", false},
    {"feed_forward_length", "intermediate_size", false},
    {"expert_count", "n_routed_experts", true},
    {"expert_used_count", "num_experts_per_tok", true},
    {"expert_shared_count", "n_shared_experts", false},
    {"expert_feed_forward_length", "moe_intermediate_size", true},
    {"expert_weights_scale", "routed_scaling_factor", false},
    {"expert_weights_norm", "norm_topk_prob", false},
    {"expert_group_count", "n_group", false},
    {"expert_group_used_count", "topk_group", false},
    {0},
};

const struct gguf_arch gguf_arch_deepseek2 = {
    .name = "deepseek2",
    .model_type = "deepseek_v3",
    .fields = fields,
    .finish = finish,
};
