/*
 * Mixtral (arXiv:2401.04088): layers of full attention, each followed by a MoE block. The equations
 * are those of Hugging Face transformers' modeling_mixtral.py.
 */
#include "model/arch.h"
#include "model/block.h"
#include "model/decoder.h"

struct config {
    struct config_frame frame;
    struct attention attention;
    struct moe moe;
};

static enum sluice_status read_attention(struct config *c, const struct json_node *node,
                                         struct sluice_error *err)
{
    struct attention *a = &c->attention;
    *a = (struct attention){.hidden = c->frame.hidden, .eps = c->frame.eps};
    TRY(config_read_heads(node, c->frame.hidden, &a->heads, err));
    TRY(json_get_u32_or(node, "sliding_window", 1, UINT32_MAX, 0, &a->window, err));
    return rope_read(node, a->heads.head_dim, 1, &a->rope, err);
}

static enum sluice_status read_moe(struct config *c, const struct json_node *node,
                                   const struct model_options *options, struct sluice_error *err)
{
    struct moe *m = &c->moe;
    *m = (struct moe){
        .hidden = c->frame.hidden, .eps = c->frame.eps, .normalize = true, .guess = options->guess};
    TRY(config_read_experts(node, &m->experts, err));
    TRY(config_read_picks(node, m->experts, options, &m->picks, err));
    return json_get_u32(node, "intermediate_size", 1, CONFIG_MAX_DIM, &m->inter, err);
}

static enum sluice_status read_config(struct config *c, const struct json_node *node,
                                      const struct model_options *options, struct sluice_error *err)
{
    TRY(config_read_frame(node, 1e-5, &c->frame, err));
    TRY(config_expect_string(node, "hidden_act", "silu", err));
    TRY(read_attention(c, node, err));
    return read_moe(c, node, options, err);
}

/* r = x + attention(norm(x)), then r + moe(norm(r)) */
static buf_hidden layer(struct graph *g, const void *config, uint32_t l, buf_stream x,
                        buf_rope_table table)
{
    const struct config *c = config;
    (void)l;
    struct routing routing = push_routing(g, &c->moe, x);
    buf_attn_input in =
        push_attn_norm(g, x, WEIGHT(g, attn_norm, 1, c->frame.hidden), c->frame.eps);
    buf_residual r = PUSH(g, residual_add, .stream = x,
                          .delta = push_attention_block(g, &c->attention, in, table));
    return push_moe_block(g, &c->moe, routing, r);
}

static enum sluice_status build(struct model *m, const struct json_node *node,
                                const struct model_options *options, struct sluice_error *err)
{
    struct config c = {0};
    TRY(read_config(&c, node, options, err));
    c.attention.pairs = m->layout.rope_pairs;
    struct decoder d = {.frame = c.frame,
                        .experts = c.moe.experts,
                        .picks = c.moe.picks,
                        .rope = &c.attention.rope,
                        .layer = layer};
    return decoder_build(m, &d, &c, options, err);
}

static const struct weight_rename renames[] = {
    {WEIGHT_router_proj, "layers.#.block_sparse_moe.gate"},
    {WEIGHT_experts, "layers.#.block_sparse_moe"},
    {0},
};

const struct arch arch_mixtral = {
    .model_type = "mixtral",
    .renames = renames,
    .build = build,
};
