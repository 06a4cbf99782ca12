/*
 * GLM-4.5 and its like: layers of full attention whose heads rotate in part, each followed by a MoE
 * block with a shared expert; the first layers have a dense MLP. The router scores by sigmoid and
 * chooses by groups (arXiv:2412.19437). The equations are those of Hugging Face transformers'
 * modeling_glm4_moe.py.
 */
#include "model/arch.h"
#include "model/block.h"
#include "model/decoder.h"

struct config {
    struct config_frame frame;
    struct attention attention;
    struct moe moe;
    struct mlp mlp;
    uint32_t n_dense; /* layers with a dense MLP, which come first */
};

static enum sluice_status read_attention(struct config *c, const struct json_node *node,
                                         struct sluice_error *err)
{
    struct attention *a = &c->attention;
    bool norm;
    *a = (struct attention){.hidden = c->frame.hidden, .eps = c->frame.eps};
    TRY(config_read_heads(node, c->frame.hidden, &a->heads, err));
    TRY(json_get_bool_or(node, "attention_bias", false, &a->bias, err));
    TRY(json_get_bool_or(node, "use_qk_norm", false, &norm, err));
    a->norm = norm ? QK_NORM_HEADS : QK_NORM_NONE;
    return rope_read(node, a->heads.head_dim, 0.5, &a->rope, err);
}

static enum sluice_status read_moe(struct config *c, const struct json_node *node,
                                   const struct model_options *options, struct sluice_error *err)
{
    struct moe *m = &c->moe;
    uint32_t n_shared;
    *m = (struct moe){.hidden = c->frame.hidden, .eps = c->frame.eps, .guess = options->guess};
    TRY(json_get_u32(node, "n_routed_experts", 1, CONFIG_MAX_EXPERTS, &m->experts, err));
    TRY(config_read_picks(node, m->experts, options, &m->picks, err));
    TRY(json_get_u32(node, "moe_intermediate_size", 1, CONFIG_MAX_DIM, &m->inter, err));
    TRY(json_get_u32_or(node, "n_shared_experts", 0, CONFIG_MAX_EXPERTS, 1, &n_shared, err));
    TRY(config_check_width(node, "shared experts", n_shared, m->inter, err));
    m->shared = n_shared ? SHARED_PLAIN : SHARED_NONE;
    m->shared_inter = n_shared * m->inter;
    return moe_read_sigmoid(m, node, err);
}

static enum sluice_status read_config(struct config *c, const struct json_node *node,
                                      const struct model_options *options, struct sluice_error *err)
{
    struct config_frame *f = &c->frame;
    TRY(config_read_frame(node, 1e-5, f, err));
    TRY(config_expect_string(node, "hidden_act", "silu", err));
    TRY(config_read_first_dense(node, f->layers, 1, &c->n_dense, err));
    TRY(read_attention(c, node, err));
    c->mlp = (struct mlp){.hidden = f->hidden, .eps = f->eps};
    if (c->n_dense)
        TRY(json_get_u32(node, "intermediate_size", 1, CONFIG_MAX_DIM, &c->mlp.inter, err));
    return read_moe(c, node, options, err);
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
    buf_residual r = PUSH(g, residual_add, .stream = x,
                          .delta = push_attention_block(g, &c->attention, in, table));
    return dense ? push_mlp_block(g, &c->mlp, r) : push_moe_block(g, &c->moe, routing, r);
}

static enum sluice_status build(struct model *m, const struct json_node *node,
                                const struct model_options *options, struct sluice_error *err)
{
    struct config c = {0};
    TRY(read_config(&c, node, options, err));
    struct decoder d = {.frame = c.frame,
                        .experts = c.moe.experts,
                        .picks = c.moe.picks,
                        .rope = &c.attention.rope,
                        .layer = layer};
    return decoder_build(m, &d, &c, options, err);
}

static const struct weight_rename renames[] = {
    {WEIGHT_shared_ffn_gate_proj, "layers.#.mlp.shared_experts.gate_proj"},
    {WEIGHT_shared_ffn_up_proj, "layers.#.mlp.shared_experts.up_proj"},
    {WEIGHT_shared_ffn_down_proj, "layers.#.mlp.shared_experts.down_proj"},
    {0},
};

const struct arch arch_glm4_moe = {
    .model_type = "glm4_moe",
    .renames = renames,
    .build = build,
};
