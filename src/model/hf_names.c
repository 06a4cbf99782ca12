#include "model/arch.h"

/* The names that most families share. */
static const struct weight_source common[WEIGHT_COUNT] = {
    [WEIGHT_embed] = {"embed_tokens", VECTOR_AS_IS},
    [WEIGHT_attn_norm] = {"layers.#.input_layernorm.weight", VECTOR_NORM},
    [WEIGHT_qg_proj] = {"layers.#.self_attn.q_proj", VECTOR_AS_IS},
    [WEIGHT_q_proj] = {"layers.#.self_attn.q_proj", VECTOR_AS_IS},
    [WEIGHT_q_bias] = {"layers.#.self_attn.q_proj.bias", VECTOR_AS_IS},
    [WEIGHT_k_proj] = {"layers.#.self_attn.k_proj", VECTOR_AS_IS},
    [WEIGHT_k_bias] = {"layers.#.self_attn.k_proj.bias", VECTOR_AS_IS},
    [WEIGHT_v_proj] = {"layers.#.self_attn.v_proj", VECTOR_AS_IS},
    [WEIGHT_v_bias] = {"layers.#.self_attn.v_proj.bias", VECTOR_AS_IS},
    [WEIGHT_og_proj] = {"layers.#.self_attn.o_proj", VECTOR_AS_IS},
    [WEIGHT_o_proj] = {"layers.#.self_attn.o_proj", VECTOR_AS_IS},
    [WEIGHT_o_bias] = {"layers.#.self_attn.o_proj.bias", VECTOR_AS_IS},
    [WEIGHT_q_norm] = {"layers.#.self_attn.q_norm.weight", VECTOR_NORM},
    [WEIGHT_k_norm] = {"layers.#.self_attn.k_norm.weight", VECTOR_NORM},
    [WEIGHT_sinks] = {"layers.#.self_attn.sinks", VECTOR_AS_IS},
    [WEIGHT_q_a_proj] = {"layers.#.self_attn.q_a_proj", VECTOR_AS_IS},
    [WEIGHT_q_a_norm] = {"layers.#.self_attn.q_a_layernorm.weight", VECTOR_NORM},
    [WEIGHT_q_b_proj] = {"layers.#.self_attn.q_b_proj", VECTOR_AS_IS},
    [WEIGHT_mla_q_proj] = {"layers.#.self_attn.q_proj", VECTOR_AS_IS},
    [WEIGHT_kv_a_proj] = {"layers.#.self_attn.kv_a_proj_with_mqa", VECTOR_AS_IS},
    [WEIGHT_kv_a_norm] = {"layers.#.self_attn.kv_a_layernorm.weight", VECTOR_NORM},
    [WEIGHT_k_b_proj] = {"layers.#.self_attn", VECTOR_AS_IS},
    [WEIGHT_v_b_proj] = {"layers.#.self_attn", VECTOR_AS_IS},
    [WEIGHT_qkvz_proj] = {"layers.#.linear_attn.in_proj_qkvz", VECTOR_AS_IS},
    [WEIGHT_ba_proj] = {"layers.#.linear_attn.in_proj_ba", VECTOR_AS_IS},
    [WEIGHT_qkv_proj] = {"layers.#.linear_attn.in_proj_qkv", VECTOR_AS_IS},
    [WEIGHT_z_proj] = {"layers.#.linear_attn.in_proj_z", VECTOR_AS_IS},
    [WEIGHT_alpha_proj] = {"layers.#.linear_attn.in_proj_a", VECTOR_AS_IS},
    [WEIGHT_beta_proj] = {"layers.#.linear_attn.in_proj_b", VECTOR_AS_IS},
    [WEIGHT_conv] = {"layers.#.linear_attn.conv1d.weight", VECTOR_AS_IS},
    [WEIGHT_neg_a] = {"layers.#.linear_attn.A_log", VECTOR_NEG_EXP},
    [WEIGHT_dt_bias] = {"layers.#.linear_attn.dt_bias", VECTOR_AS_IS},
    [WEIGHT_delta_norm] = {"layers.#.linear_attn.norm.weight", VECTOR_AS_IS},
    [WEIGHT_delta_proj] = {"layers.#.linear_attn.out_proj", VECTOR_AS_IS},
    [WEIGHT_mlp_norm] = {"layers.#.post_attention_layernorm.weight", VECTOR_NORM},
    [WEIGHT_mlp_gate_proj] = {"layers.#.mlp.gate_proj", VECTOR_AS_IS},
    [WEIGHT_mlp_up_proj] = {"layers.#.mlp.up_proj", VECTOR_AS_IS},
    [WEIGHT_mlp_down_proj] = {"layers.#.mlp.down_proj", VECTOR_AS_IS},
    [WEIGHT_moe_norm] = {"layers.#.post_attention_layernorm.weight", VECTOR_NORM},
    [WEIGHT_router_proj] = {"layers.#.mlp.gate", VECTOR_AS_IS},
    [WEIGHT_router_bias] = {"layers.#.mlp.gate.bias", VECTOR_AS_IS},
    [WEIGHT_router_correction] = {"layers.#.mlp.gate.e_score_correction_bias", VECTOR_AS_IS},
    [WEIGHT_shared_gate_proj] = {"layers.#.mlp.shared_expert_gate", VECTOR_AS_IS},
    [WEIGHT_shared_ffn_gate_proj] = {"layers.#.mlp.shared_expert.gate_proj", VECTOR_AS_IS},
    [WEIGHT_shared_ffn_up_proj] = {"layers.#.mlp.shared_expert.up_proj", VECTOR_AS_IS},
    [WEIGHT_shared_ffn_down_proj] = {"layers.#.mlp.shared_expert.down_proj", VECTOR_AS_IS},
    [WEIGHT_experts] = {"layers.#.mlp", VECTOR_AS_IS},
    [WEIGHT_tail_norm] = {"norm.weight", VECTOR_NORM},
    [WEIGHT_lm_head] = {"lm_head", VECTOR_AS_IS},
};

const char *arch_rename(const struct arch *arch, enum weight_role role, uint32_t nth)
{
    for (const struct weight_rename *r = arch->renames; r && r->name; r++)
        if (r->role == role && nth-- == 0) return r->name;
    return NULL;
}

const struct weight_source *arch_source(enum weight_role role)
{
    return &common[role];
}
