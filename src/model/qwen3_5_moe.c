/*
 * Qwen3.5-MoE and Qwen3.6-MoE: layers of gated DeltaNet and of gated full attention in any pattern,
 * each followed by a MoE block with a shared expert. The equations are those of Hugging Face
 * transformers' modeling_qwen3_5_moe.py.
 */
#include "model/arch.h"
#include "model/block.h"
#include "model/decoder.h"

struct config {
    struct config_frame frame;
    struct attention attention;
    struct delta_net delta;
    struct moe moe;
    bool *linear; /* per layer: DeltaNet instead of attention */
};

static enum sluice_status read_attention(struct config *c, const struct json_node *node,
                                         struct sluice_error *err)
{
    TRY(attention_read(&c->attention, node, &c->frame, 0.25, err));
    c->attention.norm = QK_NORM_HEADS;
    c->attention.gated = true;
    TRY(config_expect_bool(node, "attention_bias", false, err));
    return config_expect_bool(node, "attn_output_gate", true, err);
}

static enum sluice_status read_moe(struct config *c, const struct json_node *node,
                                   const struct model_options *options, struct sluice_error *err)
{
    struct moe *m = &c->moe;
    TRY(moe_read(m, node, &c->frame, NULL, "moe_intermediate_size", options, err));
    m->normalize = true;
    return moe_read_gated(m, node, err);
}

static enum sluice_status read_config(struct config *c, const struct json_node *node,
                                      struct arena *arena, const struct model_options *options,
                                      struct sluice_error *err)
{
    TRY(config_read_frame(node, 1e-6, &c->frame, err));
    TRY(config_expect_string(node, "hidden_act", "silu", err));
    TRY(config_read_linear_layers(node, c->frame.layers, arena, &c->linear, err));
    TRY(read_attention(c, node, err));
    c->delta.hidden = c->frame.hidden;
    c->delta.eps = c->frame.eps;
    if (config_any_layer(c->linear, c->frame.layers, true))
        TRY(delta_net_read(&c->delta, node, err));
    return read_moe(c, node, options, err);
}

/* r = x + mixer(norm(x)), then r + moe(norm(r)) */
static buf_hidden layer(struct graph *g, const void *config, uint32_t l, buf_stream x,
                        buf_rope_table table)
{
    const struct config *c = config;
    struct routing routing = push_routing(g, &c->moe, x);
    buf_attn_input in =
        push_attn_norm(g, x, WEIGHT(g, attn_norm, 1, c->frame.hidden), c->frame.eps);
    buf_attn_proj delta = c->linear[l] ? push_delta_net_block(g, &c->delta, in)
                                       : push_attention_block(g, &c->attention, in, table);
    buf_residual r = PUSH(g, residual_add, .stream = x, .delta = delta);
    return push_moe_block(g, &c->moe, routing, r);
}

static enum sluice_status build(struct model *m, const struct json_node *node,
                                const struct model_options *options, struct sluice_error *err)
{
    struct config c = {0};
    TRY(read_config(&c, node, &m->arena, options, err));
    c.delta.tiled = m->layout.tiled_v_heads;
    struct decoder d = {
        &c.frame, &c.moe,
        config_any_layer(c.linear, c.frame.layers, false) ? &c.attention.rope : NULL, layer};
    return decoder_build(m, &d, &c, options, err);
}

const struct arch arch_qwen3_5_moe = {
    .model_type = "qwen3_5_moe_text",
    .centred = true,
    .build = build,
};
