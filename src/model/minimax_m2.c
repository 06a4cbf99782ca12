/*
 * MiniMax-M2: layers of full attention, whose norms cover all heads together and whose heads rotate
 * in part, each followed by a MoE block. The router scores by sigmoid and chooses with a
 * correction. The equations are those of Hugging Face transformers' modeling_minimax_m2.py.
 */
#include <math.h>

#include "model/arch.h"
#include "model/block.h"
#include "model/decoder.h"

struct config {
    struct config_frame frame;
    struct attention attention;
    struct moe moe;
};

/* rotary_dim as the part of head_dim it is. */
static enum sluice_status read_rotary(const struct json_node *node, uint32_t head_dim, double *part,
                                      struct sluice_error *err)
{
    uint32_t dims;
    TRY(json_get_u32_or(node, "rotary_dim", 1, head_dim, head_dim, &dims, err));
    *part = (double)dims / head_dim;
    if ((uint32_t)(head_dim * *part) < dims) *part = nextafter(*part, 1);
    return SLUICE_OK;
}

/* Only what the published models have: attn_type_list tells layers of softmax attention by 1. */
static enum sluice_status check_types(const struct json_node *node, struct sluice_error *err)
{
    const json_t *types = json_object_get(node->object, "attn_type_list");
    for (size_t l = 0; l < json_array_size(types); l++)
        if (json_integer_value(json_array_get(types, l)) != 1)
            return err_set(err, SLUICE_E_UNSUPPORTED,
                           "%s: field 'attn_type_list': layer %zu is not of type 1, softmax "
                           "attention; no other is supported",
                           node->file, l);
    return SLUICE_OK;
}

static enum sluice_status read_attention(struct config *c, const struct json_node *node,
                                         struct sluice_error *err)
{
    struct config_heads heads;
    double part;
    TRY(config_read_heads(node, c->frame.hidden, &heads, err));
    TRY(read_rotary(node, heads.head_dim, &part, err));
    TRY(attention_read(&c->attention, node, &c->frame, part, err));
    c->attention.norm = QK_NORM_WHOLE;
    TRY(config_expect_bool(node, "use_qk_norm", true, err));
    TRY(config_expect_string(node, "qk_norm_type", "per_layer", err));
    return check_types(node, err);
}

static enum sluice_status read_moe(struct config *c, const struct json_node *node,
                                   const struct model_options *options, struct sluice_error *err)
{
    struct moe *m = &c->moe;
    TRY(moe_read(m, node, &c->frame, NULL, "intermediate_size", options, err));
    m->sigmoid = m->normalize = true;
    m->n_groups = m->top_groups = 1;
    m->scale = 1;
    TRY(config_expect_string(node, "scoring_func", "sigmoid", err));
    TRY(config_expect_bool(node, "use_routing_bias", true, err));
    return config_expect_zero(node, "shared_intermediate_size", err);
}

static enum sluice_status read_config(struct config *c, const struct json_node *node,
                                      const struct model_options *options, struct sluice_error *err)
{
    TRY(config_read_frame(node, 1e-6, &c->frame, err));
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
    struct decoder d = {&c.frame, &c.moe, &c.attention.rope, layer};
    return decoder_build(m, &d, &c, options, err);
}

static const struct weight_rename renames[] = {
    {WEIGHT_router_proj, "layers.#.block_sparse_moe.gate"},
    {WEIGHT_router_correction, "layers.#.block_sparse_moe.e_score_correction_bias"},
    {WEIGHT_router_correction, "layers.#.mlp.e_score_correction_bias"},
    {WEIGHT_experts, "layers.#.block_sparse_moe"},
    {0},
};

const struct arch arch_minimax_m2 = {
    .model_type = "minimax_m2",
    .renames = renames,
    .build = build,
};
