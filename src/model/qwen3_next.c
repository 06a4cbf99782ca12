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
    *a = (struct attention){
        .hidden = c->frame.hidden, .eps = c->frame.eps, .norm = QK_NORM_HEADS, .gated = true};
    TRY(config_read_heads(node, c->frame.hidden, &a->heads, err));
    TRY(json_get_bool_or(node, "attention_bias", false, &a->bias, err));
    a->out_bias = a->bias;
    return rope_read(node, a->heads.head_dim, 0.25, &a->rope, err);
}

static enum sluice_status read_moe(struct config *c, const struct json_node *node,
                                   const struct model_options *options, struct sluice_error *err)
{
    struct moe *m = &c->moe;
    *m = (struct moe){.hidden = c->frame.hidden,
                      .eps = c->frame.eps,
                      .shared = SHARED_GATED,
                      .guess = options->guess};
    TRY(config_read_experts(node, &m->experts, err));
    TRY(config_read_picks(node, m->experts, options, &m->picks, err));
    TRY(json_get_bool_or(node, "norm_topk_prob", true, &m->normalize, err));
    TRY(json_get_u32(node, "moe_intermediate_size", 1, CONFIG_MAX_DIM, &m->inter, err));
    return json_get_u32(node, "shared_expert_intermediate_size", 1, CONFIG_MAX_DIM,
                        &m->shared_inter, err);
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
    c->mlp = (struct mlp){.hidden = f->hidden, .eps = f->eps};
    if (config_any_layer(c->dense, f->layers, true))
        TRY(json_get_u32(node, "intermediate_size", 1, CONFIG_MAX_DIM, &c->mlp.inter, err));
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
        .frame = c.frame,
        .experts = c.moe.experts,
        .picks = c.moe.picks,
        .rope = config_any_layer(c.linear, c.frame.layers, false) ? &c.attention.rope : NULL,
        .layer = layer};
    return decoder_build(m, &d, &c, options, err);
}

const struct arch arch_qwen3_next = {
    .model_type = "qwen3_next",
    .centred = true,
    .build = build,
};
