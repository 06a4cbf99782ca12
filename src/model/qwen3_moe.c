/*
 * Qwen3-MoE: layers of full attention, each followed by a MoE block without a shared expert, or by
 * a dense MLP. The equations are those of Hugging Face transformers' modeling_qwen3_moe.py.
 */
#include "model/arch.h"
#include "model/block.h"
#include "model/decoder.h"

struct config {
    struct config_frame frame;
    struct attention attention;
    struct moe moe;
    struct mlp mlp;
    bool *dense; /* per layer: a dense MLP instead of experts */
};

static enum sluice_status read_attention(struct config *c, const struct json_node *node,
                                         struct sluice_error *err)
{
    struct attention *a = &c->attention;
    TRY(attention_read(a, node, &c->frame, 1, err));
    a->norm = QK_NORM_HEADS;
    TRY(json_get_bool_or(node, "attention_bias", false, &a->bias, err));
    a->out_bias = a->bias;
    return config_expect_bool(node, "use_sliding_window", false, err);
}

static enum sluice_status read_moe(struct config *c, const struct json_node *node,
                                   const struct model_options *options, struct sluice_error *err)
{
    struct moe *m = &c->moe;
    TRY(moe_read(m, node, &c->frame, NULL, "moe_intermediate_size", options, err));
    return json_get_bool_or(node, "norm_topk_prob", false, &m->normalize, err);
}

static enum sluice_status read_config(struct config *c, const struct json_node *node,
                                      struct arena *arena, const struct model_options *options,
                                      struct sluice_error *err)
{
    struct config_frame *f = &c->frame;
    TRY(config_read_frame(node, 1e-6, f, err));
    TRY(config_expect_string(node, "hidden_act", "silu", err));
    TRY(config_read_dense_layers(node, f->layers, arena, &c->dense, err));
    TRY(read_attention(c, node, err));
    TRY(mlp_read(&c->mlp, node, f, config_any_layer(c->dense, f->layers, true), err));
    return read_moe(c, node, options, err);
}

/* r = x + attention(norm(x)), then r + moe(norm(r)) or r + mlp(norm(r)) */
static buf_hidden layer(struct graph *g, const void *config, uint32_t l, buf_stream x,
                        buf_rope_table table)
{
    const struct config *c = config;
    return c->dense[l] ? push_mlp_layer(g, &c->attention, &c->mlp, x, table)
                       : push_moe_layer(g, &c->attention, &c->moe, x, table);
}

static enum sluice_status build(struct model *m, const struct json_node *node,
                                const struct model_options *options, struct sluice_error *err)
{
    struct config c = {0};
    TRY(read_config(&c, node, &m->arena, options, err));
    struct decoder d = {&c.frame, &c.moe, &c.attention.rope, layer};
    return decoder_build(m, &d, &c, options, err);
}

const struct arch arch_qwen3_moe = {
    .model_type = "qwen3_moe",
    .build = build,
};
