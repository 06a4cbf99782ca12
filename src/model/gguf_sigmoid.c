/* Families whose router scores by sigmoid and whose attention is plain: GLM-4.5 and MiniMax-M2. */
#include "model/gguf_arch.h"

static enum sluice_status finish_glm4moe(const struct gguf_model *m)
{
    uint32_t dense;
    TRY(gguf_expect_sigmoid(m, true));
    TRY(gguf_key_u32_or(m, "leading_dense_block_count", 0, &dense));
    TRY(gguf_set_u32(m, "first_k_dense_replace", dense));
    TRY(gguf_set_bool(m, "use_qk_norm", gguf_has(m, "blk.0.attn_q_norm.weight")));
    return gguf_set_attention(m);
}

static const struct gguf_field glm4moe_fields[] = {
    GGUF_ATTENTION_FIELDS,
    {"expert_count", "n_routed_experts", true},
    {"expert_shared_count", "n_shared_experts", true},
    {"expert_feed_forward_length", "moe_intermediate_size", true},
    {"feed_forward_length", "intermediate_size", false},
    {"expert_weights_scale", "routed_scaling_factor", false},
    {"expert_weights_norm", "norm_topk_prob", false},
    {"expert_group_count", "n_group", false},
    {"expert_group_used_count", "topk_group", false},
    {0},
};

static const struct gguf_rename glm4moe_renames[] = {
    {WEIGHT_moe_norm, "blk.#.post_attention_norm.weight"},
    {WEIGHT_mlp_norm, "blk.#.post_attention_norm.weight"},
    {0},
};

const struct gguf_arch gguf_arch_glm4moe = {
    .name = "glm4moe",
    .model_type = "glm4_moe",
    .fields = glm4moe_fields,
    .renames = glm4moe_renames,
    .finish = finish_glm4moe,
};

/* The family's config has the rotated part as a number of values. */
static enum sluice_status finish_minimax(const struct gguf_model *m)
{
    uint32_t rotated;
    TRY(gguf_expect_sigmoid(m, false));
    TRY(gguf_set_attention(m));
    TRY(gguf_key_u32_or(m, "rope.dimension_count", UINT32_MAX, &rotated));
    return gguf_set_u32(m, "rotary_dim", rotated);
}

static const struct gguf_field minimax_fields[] = {
    GGUF_ATTENTION_FIELDS,
    {"expert_count", "num_experts", true},
    {"expert_feed_forward_length", "intermediate_size", true},
    {0},
};

const struct gguf_arch gguf_arch_minimax_m2 = {
    .name = "minimax-m2",
    .model_type = "minimax_m2",
    .fields = minimax_fields,
    .finish = finish_minimax,
};
