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
    TRY(attention_read(a, node, &c->frame, 0.5, err));
    TRY(json_get_bool_or(node, "attention_bias", false, &a->bias, err));
    TRY(json_get_bool_or(node, "use_qk_norm", false, &norm, err));
    a->norm = norm ? QK_NORM_HEADS : QK_NORM_NONE;
    return SLUICE_OK;
}

static enum sluice_status read_moe(struct config *c, const struct json_node *node,
                                   const struct model_options *options, struct sluice_error *err)
{
    struct moe *m = &c->moe;
    TRY(moe_read(m, node, &c->frame, "n_routed_experts", "moe_intermediate_size", options, err));
    TRY(moe_read_shared(m, node, 1, err));
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
    TRY(mlp_read(&c->mlp, node, f, c->n_dense > 0, err));
    return read_moe(c, node, options, err);
}

/* r = x + attention(norm(x)), then r + moe(norm(r)) or r + mlp(norm(r)) */
static buf_hidden layer(struct graph *g, const void *config, uint32_t l, buf_stream x,
                        buf_rope_table table)
{
    const struct config *c = config;
    return l < c->n_dense ? push_mlp_layer(g, &c->attention, &c->mlp, x, table)
                          : push_moe_layer(g, &c->attention, &c->moe, x, table);
}

static enum sluice_status build(struct model *m, const struct json_node *node,
                                const struct model_options *options, struct sluice_error *err)
{
    struct config c = {0};
    TRY(read_config(&c, node, options, err));
    struct decoder d = {&c.frame, &c.moe, &c.attention.rope, layer};
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
