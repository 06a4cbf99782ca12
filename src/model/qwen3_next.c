/*
 * Qwen3-Next: layers of gated DeltaNet and of gated full attention in any pattern, each followed by
 * a MoE block with a shared expert, or by a dense MLP. The equations are those of Hugging Face
 * transformers' modeling_qwen3_next.py. It stores q, k, v and z of DeltaNet in one matrix, and beta
 * and alpha in another, by key head.
 */
#include "model/arch.h"
#include "model/block.h"
#include "model/decoder.h"

struct config {
    struct config_frame frame;
    struct attention attention;
    struct delta_net delta;
    struct moe moe;
    struct mlp mlp;
    bool *linear; /* per layer: DeltaNet instead of attention */
    bool *dense;  /* per layer: a dense MLP instead of experts */
    struct model_layout layout;
};

static enum sluice_status read_attention(struct config *c, const struct json_node *node,
                                         struct sluice_error *err)
{
    struct attention *a = &c->attention;
    TRY(attention_read(a, node, &c->frame, 0.25, err));
    a->norm = QK_NORM_HEADS;
    a->gated = true;
    TRY(json_get_bool_or(node, "attention_bias", false, &a->bias, err));
    a->out_bias = a->bias;
    return SLUICE_OK;
}

static enum sluice_status read_moe(struct config *c, const struct json_node *node,
                                   const struct model_options *options, struct sluice_error *err)
{
    struct moe *m = &c->moe;
    TRY(moe_read(m, node, &c->frame, NULL, "moe_intermediate_size", options, err));
    TRY(moe_read_gated(m, node, err));
    return json_get_bool_or(node, "norm_topk_prob", true, &m->normalize, err);
}

static enum sluice_status read_config(struct config *c, const struct json_node *node,
                                      struct arena *arena, const struct model_options *options,
                                      struct sluice_error *err)
{
    struct config_frame *f = &c->frame;
    TRY(config_read_frame(node, 1e-6, f, err));
    TRY(config_expect_string(node, "hidden_act", "silu", err));
    TRY(config_read_linear_layers(node, f->layers, arena, &c->linear, err));
    TRY(config_read_dense_layers(node, f->layers, arena, &c->dense, err));
    TRY(read_attention(c, node, err));
    c->delta = (struct delta_net){
        .hidden = f->hidden, .eps = f->eps, .fused_qkvz = !c->layout.split_qkvz, .fused_ba = true};
    if (config_any_layer(c->linear, f->layers, true)) TRY(delta_net_read(&c->delta, node, err));
    TRY(mlp_read(&c->mlp, node, f, config_any_layer(c->dense, f->layers, true), err));
    return read_moe(c, node, options, err);
}

/* r = x + mixer(norm(x)), then r + moe(norm(r)) or r + mlp(norm(r)) */
static buf_hidden layer(struct graph *g, const void *config, uint32_t l, buf_stream x,
                        buf_rope_table table)
{
    const struct config *c = config;
    struct routing routing = {0};
    if (!c->dense[l]) routing = push_routing(g, &c->moe, x);
    buf_attn_input in =
        push_attn_norm(g, x, WEIGHT(g, attn_norm, 1, c->frame.hidden), c->frame.eps);
    buf_attn_proj delta = c->linear[l] ? push_delta_net_block(g, &c->delta, in)
                                       : push_attention_block(g, &c->attention, in, table);
    buf_residual r = PUSH(g, residual_add, .stream = x, .delta = delta);
    return c->dense[l] ? push_mlp_block(g, &c->mlp, r) : push_moe_block(g, &c->moe, routing, r);
}

static enum sluice_status build(struct model *m, const struct json_node *node,
                                const struct model_options *options, struct sluice_error *err)
{
    struct config c = {.layout = m->layout};
    TRY(read_config(&c, node, &m->arena, options, err));
    struct decoder d = {
        &c.frame, &c.moe,
        config_any_layer(c.linear, c.frame.layers, false) ? &c.attention.rope : NULL, layer};
    return decoder_build(m, &d, &c, options, err);
}

const struct arch arch_qwen3_next = {
    .model_type = "qwen3_next",
    .centred = true,
    .build = build,
};
