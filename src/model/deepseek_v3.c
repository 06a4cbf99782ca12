/*
 * DeepSeek-V3 and its like (arXiv:2412.19437): multi-head latent attention, each layer followed by
 * a MoE block with a shared expert; the first layers have a dense MLP. The equations are those of
 * Hugging Face transformers' modeling_deepseek_v3.py, with attention in the absorbed form of
 * arXiv:2405.04434, section 2.1: the cache has latents, and no key or value of a head is ever made.
 */
#include <math.h>

#include "model/arch.h"
#include "model/block.h"
#include "model/decoder.h"

struct mla {
    uint32_t heads;
    uint32_t q_rank; /* 0: queries are not compressed */
    uint32_t rank;   /* of latents */
    uint32_t nope, rotated, dv;
    bool pairs; /* neighbours rotate together */
    struct rope rope;
};

struct config {
    struct config_frame frame;
    struct mla mla;
    struct moe moe;
    struct mlp mlp;
    uint32_t n_dense; /* layers with a dense MLP, which come first */
};

/* Of the norms of compressed queries and of latents, whatever rms_norm_eps says. */
static const float latent_eps = 1e-6f;

static enum sluice_status read_mla(struct mla *a, const struct json_node *node,
                                   struct sluice_error *err)
{
    TRY(config_expect_bool(node, "attention_bias", false, err));
    TRY(json_get_u32(node, "num_attention_heads", 1, CONFIG_MAX_DIM, &a->heads, err));
    TRY(json_get_u32_or(node, "q_lora_rank", 1, CONFIG_MAX_DIM, 0, &a->q_rank, err));
    TRY(json_get_u32(node, "kv_lora_rank", 1, CONFIG_MAX_DIM, &a->rank, err));
    TRY(json_get_u32(node, "qk_nope_head_dim", 1, CONFIG_MAX_DIM, &a->nope, err));
    TRY(json_get_u32(node, "qk_rope_head_dim", 1, CONFIG_MAX_DIM, &a->rotated, err));
    TRY(json_get_u32(node, "v_head_dim", 1, CONFIG_MAX_DIM, &a->dv, err));
    TRY(config_check_width(node, "query heads", a->heads, a->nope + a->rotated, err));
    TRY(config_check_width(node, "heads of latents", a->heads, a->rank, err));
    TRY(config_check_width(node, "heads of keys and values", a->heads, a->nope + a->dv, err));
    TRY(json_get_bool_or(node, "rope_interleave", true, &a->pairs, err));
    TRY(rope_read(node, a->rotated, 1, &a->rope, err));
    if (a->rope.rotary_dim == a->rotated) return SLUICE_OK;
    return err_set(err, SLUICE_E_UNSUPPORTED,
                   "%s: %u of qk_rope_head_dim %u values would rotate; all must", node->file,
                   a->rope.rotary_dim, a->rotated);
}

static enum sluice_status read_moe(struct config *c, const struct json_node *node,
                                   const struct model_options *options, struct sluice_error *err)
{
    struct moe *m = &c->moe;
    uint32_t every;
    TRY(moe_read(m, node, &c->frame, "n_routed_experts", "moe_intermediate_size", options, err));
    TRY(moe_read_shared(m, node, 0, err));
    TRY(json_get_u32_or(node, "moe_layer_freq", 1, CONFIG_MAX_LAYERS, 1, &every, err));
    if (every != 1) return config_unsupported(node, "moe_layer_freq", "more than 1", err);
    return moe_read_sigmoid(m, node, err);
}

static enum sluice_status read_config(struct config *c, const struct json_node *node,
                                      const struct model_options *options, struct sluice_error *err)
{
    struct config_frame *f = &c->frame;
    TRY(config_read_frame(node, 1e-6, f, err));
    TRY(config_expect_string(node, "hidden_act", "silu", err));
    TRY(config_read_first_dense(node, f->layers, 3, &c->n_dense, err));
    TRY(read_mla(&c->mla, node, err));
    TRY(mlp_read(&c->mlp, node, f, c->n_dense > 0, err));
    return read_moe(c, node, options, err);
}

/* q = q_b(norm(q_a(x))) or q_proj(x) */
static buf_mla_q queries(struct graph *g, const struct config *c, buf_attn_input x)
{
    const struct mla *a = &c->mla;
    uint32_t width = a->heads * (a->nope + a->rotated), hidden = c->frame.hidden;
    if (!a->q_rank) return push_mla_q_proj(g, x, WEIGHT(g, mla_q_proj, width, hidden));
    buf_q_latent_raw raw = push_q_a_proj(g, x, WEIGHT(g, q_a_proj, a->q_rank, hidden));
    buf_q_latent latent = push_q_a_norm(g, raw, WEIGHT(g, q_a_norm, 1, a->q_rank), latent_eps);
    return push_q_b_proj(g, latent, WEIGHT(g, q_b_proj, width, a->q_rank));
}

/*
 * latent, k_rot = kv_a(x); c = norm(latent). With k = K c and v = V c for each head, its score of a
 * position is (K^T q) . c + rope(q_rot) . rope(k_rot), and its result V sum(p c).
 */
static buf_attn_proj attention(struct graph *g, const struct config *c, buf_attn_input x,
                               buf_rope_table table)
{
    const struct mla *a = &c->mla;
    struct mla_q_parts q =
        PUSH(g, split_mla_q, .x = queries(g, c, x), .n_heads = a->heads, .rotated = a->rotated);
    buf_latent_stack stack =
        push_kv_a_proj(g, x, WEIGHT(g, kv_a_proj, a->rank + a->rotated, c->frame.hidden));
    struct latent_parts kv = PUSH(g, split_latent, .x = stack, .rank = a->rank);
    buf_latent latent = push_kv_a_norm(g, kv.latent, WEIGHT(g, kv_a_norm, 1, a->rank), latent_eps);
    buf_q_rot q_rot = push_rope_as_q_rot(g, q.rot, table, a->rotated, a->rotated, a->pairs);
    buf_k_rot k_rot = push_rope_as_k_rot(g, kv.rot, table, a->rotated, a->rotated, a->pairs);

    state_latent_ready ready = PUSH(g, latent_append, .latent = latent, .rot = k_rot,
                                    .cache = graph_state_latent(g, a->rank, a->rotated));
    wt_k_b_proj keys = HEAD_WEIGHTS(g, k_b_proj, a->heads, a->nope, a->rank);
    wt_v_b_proj values = HEAD_WEIGHTS(g, v_b_proj, a->heads, a->dv, a->rank);
    buf_q_absorbed absorbed = PUSH(g, absorb, .x = q.nope, .w = keys, .n_heads = a->heads);
    double scale = rope_score_scale(&a->rope) / sqrt(a->nope + a->rotated);
    buf_latent_out out = PUSH(g, latent_attention, .q = absorbed, .rot = q_rot, .cache = ready,
                              .n_heads = a->heads, .scale = (float)scale);
    buf_attn_out heads = PUSH(g, expand, .x = out, .w = values, .n_heads = a->heads);
    return push_o_proj(g, heads, WEIGHT(g, o_proj, c->frame.hidden, a->heads * a->dv));
}

/* r = x + attention(norm(x)), then r + moe(norm(r)) or r + mlp(norm(r)) */
static buf_hidden layer(struct graph *g, const void *config, uint32_t l, buf_stream x,
                        buf_rope_table table)
{
    const struct config *c = config;
    bool dense = l < c->n_dense;
    struct routing routing = {0};
    if (!dense) routing = push_routing(g, &c->moe, x);
    buf_attn_input in =
        push_attn_norm(g, x, WEIGHT(g, attn_norm, 1, c->frame.hidden), c->frame.eps);
    buf_residual r = PUSH(g, residual_add, .stream = x, .delta = attention(g, c, in, table));
    return dense ? push_mlp_block(g, &c->mlp, r) : push_moe_block(g, &c->moe, routing, r);
}

static enum sluice_status build(struct model *m, const struct json_node *node,
                                const struct model_options *options, struct sluice_error *err)
{
    struct config c = {0};
    TRY(read_config(&c, node, options, err));
    struct decoder d = {&c.frame, &c.moe, &c.mla.rope, layer};
    return decoder_build(m, &d, &c, options, err);
}

static const struct weight_rename renames[] = {
    {WEIGHT_shared_ffn_gate_proj, "layers.#.mlp.shared_experts.gate_proj"},
    {WEIGHT_shared_ffn_up_proj, "layers.#.mlp.shared_experts.up_proj"},
    {WEIGHT_shared_ffn_down_proj, "layers.#.mlp.shared_experts.down_proj"},
    {0},
};

const struct arch arch_deepseek_v3 = {
    .model_type = "deepseek_v3",
    .renames = renames,
    .build = build,
};

/* The same model under another name. */
const struct arch arch_kimi_k2 = {
    .model_type = "kimi_k2",
    .renames = renames,
    .build = build,
};
