#include "model/gguf_arch.h"

/* The names that all architectures share. */
static const char *const names[WEIGHT_COUNT] = {
    [WEIGHT_embed] = "token_embd",
    [WEIGHT_attn_norm] = "blk.#.attn_norm.weight",
    [WEIGHT_qg_proj] = "blk.#.attn_q",
    [WEIGHT_q_proj] = "blk.#.attn_q",
    [WEIGHT_q_bias] = "blk.#.attn_q.bias",
    [WEIGHT_k_proj] = "blk.#.attn_k",
    [WEIGHT_k_bias] = "blk.#.attn_k.bias",
    [WEIGHT_v_proj] = "blk.#.attn_v",
    [WEIGHT_v_bias] = "blk.#.attn_v.bias",
    [WEIGHT_og_proj] = "blk.#.attn_output",
    [WEIGHT_o_proj] = "blk.#.attn_output",
    [WEIGHT_o_bias] = "blk.#.attn_output.bias",
    [WEIGHT_q_norm] = "blk.#.attn_q_norm.weight",
    [WEIGHT_k_norm] = "blk.#.attn_k_norm.weight",
    [WEIGHT_sinks] = "blk.#.attn_sinks.weight",
    [WEIGHT_q_a_proj] = "blk.#.attn_q_a",
    [WEIGHT_q_a_norm] = "blk.#.attn_q_a_norm.weight",
    [WEIGHT_q_b_proj] = "blk.#.attn_q_b",
    [WEIGHT_mla_q_proj] = "blk.#.attn_q",
    [WEIGHT_kv_a_proj] = "blk.#.attn_kv_a_mqa",
    [WEIGHT_kv_a_norm] = "blk.#.attn_kv_a_norm.weight",
    [WEIGHT_k_b_proj] = "blk.#",
    [WEIGHT_v_b_proj] = "blk.#",
    [WEIGHT_qkvz_proj] = "blk.#.ssm_in",
    [WEIGHT_ba_proj] = "blk.#.ssm_ba",
    [WEIGHT_qkv_proj] = "blk.#.attn_qkv",
    [WEIGHT_z_proj] = "blk.#.attn_gate",
    [WEIGHT_alpha_proj] = "blk.#.ssm_alpha",
    [WEIGHT_beta_proj] = "blk.#.ssm_beta",
    [WEIGHT_conv] = "blk.#.ssm_conv1d.weight",
    [WEIGHT_neg_a] = "blk.#.ssm_a",
    [WEIGHT_dt_bias] = "blk.#.ssm_dt.bias",
    [WEIGHT_delta_norm] = "blk.#.ssm_norm.weight",
    [WEIGHT_delta_proj] = "blk.#.ssm_out",
    [WEIGHT_mlp_norm] = "blk.#.ffn_norm.weight",
    [WEIGHT_mlp_gate_proj] = "blk.#.ffn_gate",
    [WEIGHT_mlp_up_proj] = "blk.#.ffn_up",
    [WEIGHT_mlp_down_proj] = "blk.#.ffn_down",
    [WEIGHT_moe_norm] = "blk.#.ffn_norm.weight",
    [WEIGHT_router_proj] = "blk.#.ffn_gate_inp",
    [WEIGHT_router_bias] = "blk.#.ffn_gate_inp.bias",
    [WEIGHT_router_correction] = "blk.#.exp_probs_b.bias",
    [WEIGHT_shared_gate_proj] = "blk.#.ffn_gate_inp_shexp",
    [WEIGHT_shared_ffn_gate_proj] = "blk.#.ffn_gate_shexp",
    [WEIGHT_shared_ffn_up_proj] = "blk.#.ffn_up_shexp",
    [WEIGHT_shared_ffn_down_proj] = "blk.#.ffn_down_shexp",
    [WEIGHT_experts] = "blk.#.ffn",
    [WEIGHT_tail_norm] = "output_norm.weight",
    [WEIGHT_lm_head] = "output",
};

const char *gguf_weight_name(const struct gguf_arch *arch, enum weight_role role)
{
    for (const struct gguf_rename *r = arch->renames; r && r->name; r++)
        if (r->role == role) return r->name;
    return names[role];
}
