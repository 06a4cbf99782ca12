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
    TRY(attention_read(a, node, &c->frame, 1, err));
    return json_get_u32_or(node, "sliding_window", 1, UINT32_MAX, 0, &a->window, err);
}

static enum sluice_status read_moe(struct config *c, const struct json_node *node,
                                   const struct model_options *options, struct sluice_error *err)
{
    struct moe *m = &c->moe;
    TRY(moe_read(m, node, &c->frame, NULL, "intermediate_size", options, err));
    m->normalize = true;
    return SLUICE_OK;
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
    return push_moe_layer(g, &c->attention, &c->moe, x, table);
}

static enum sluice_status build(struct model *m, const struct json_node *node,
                                const struct model_options *options, struct sluice_error *err)
{
    struct config c = {0};
    TRY(read_config(&c, node, options, err));
    c.attention.pairs = m->layout.rope_pairs;
    struct decoder d = {&c.frame, &c.moe, &c.attention.rope, layer};
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
