/*
 * GPT-OSS: attention with sinks, through a window in every other layer, each layer followed by a
 * MoE block whose matrices have biases and whose activation is a clamped SwiGLU. The equations are
 * those of Hugging Face transformers' modeling_gpt_oss.py.
 */
#include <string.h>

#include "model/arch.h"
#include "model/block.h"
#include "model/decoder.h"

struct config {
    struct config_frame frame;
    struct attention attention;
    struct moe moe;
    uint32_t window;
    bool *windowed; /* per layer */
};

static enum sluice_status read_layer_types(struct config *c, const struct json_node *node,
                                           struct arena *arena, struct sluice_error *err)
{
    c->windowed = arena_alloc(arena, c->frame.layers, sizeof *c->windowed);
    if (!c->windowed) return err_nomem(err, "layer types", c->frame.layers);
    const json_t *types = json_object_get(node->object, "layer_types");
    if (!types || json_is_null(types)) {
        for (uint32_t l = 0; l < c->frame.layers; l++) c->windowed[l] = l % 2 == 0;
        return SLUICE_OK;
    }
    if (!json_is_array(types) || json_array_size(types) != c->frame.layers)
        return err_set(err, SLUICE_E_MISMATCH,
                       "%s: field 'layer_types' must list one type for each of the %u layers",
                       node->file, c->frame.layers);
    for (uint32_t l = 0; l < c->frame.layers; l++) {
        const char *type = json_string_value(json_array_get(types, l));
        c->windowed[l] = type && strcmp(type, "sliding_attention") == 0;
        if (!c->windowed[l] && (!type || strcmp(type, "full_attention") != 0))
            return err_set(err, SLUICE_E_UNSUPPORTED,
                           "%s: field 'layer_types': layer %u has type '%s'; sliding_attention and "
                           "full_attention are supported",
                           node->file, l, type ? type : "?");
    }
    return SLUICE_OK;
}

static enum sluice_status read_attention(struct config *c, const struct json_node *node,
                                         struct sluice_error *err)
{
    struct attention *a = &c->attention;
    TRY(attention_read(a, node, &c->frame, 1, err));
    a->bias = a->out_bias = a->sinks = true;
    TRY(config_expect_bool(node, "attention_bias", true, err));
    return json_get_u32(node, "sliding_window", 1, UINT32_MAX, &c->window, err);
}

static enum sluice_status read_moe(struct config *c, const struct json_node *node,
                                   const struct model_options *options, struct sluice_error *err)
{
    struct moe *m = &c->moe;
    double limit;
    TRY(moe_read(m, node, &c->frame, "num_local_experts", "intermediate_size", options, err));
    TRY(json_get_f64_or(node, "swiglu_limit", 1e-3, 1e6, 7, &limit, err));
    m->limit = (float)limit;
    m->normalize = m->biased = true;
    m->guess = false; /* guesses know no bias */
    return SLUICE_OK;
}

static enum sluice_status read_config(struct config *c, const struct json_node *node,
                                      struct arena *arena, const struct model_options *options,
                                      struct sluice_error *err)
{
    TRY(config_read_frame(node, 1e-5, &c->frame, err));
    TRY(config_expect_string(node, "hidden_act", "silu", err));
    TRY(read_layer_types(c, node, arena, err));
    TRY(read_attention(c, node, err));
    return read_moe(c, node, options, err);
}

/* r = x + attention(norm(x)), then r + moe(norm(r)) */
static buf_hidden layer(struct graph *g, const void *config, uint32_t l, buf_stream x,
                        buf_rope_table table)
{
    const struct config *c = config;
    struct attention attention = c->attention;
    attention.window = c->windowed[l] ? c->window : 0;
    return push_moe_layer(g, &attention, &c->moe, x, table);
}

static enum sluice_status build(struct model *m, const struct json_node *node,
                                const struct model_options *options, struct sluice_error *err)
{
    struct config c = {0};
    TRY(read_config(&c, node, &m->arena, options, err));
    struct decoder d = {&c.frame, &c.moe, &c.attention.rope, layer};
    return decoder_build(m, &d, &c, options, err);
}

static const struct weight_rename renames[] = {
    {WEIGHT_router_proj, "layers.#.mlp.router"},
    {WEIGHT_router_bias, "layers.#.mlp.router.bias"},
    {0},
};

const struct arch arch_gpt_oss = {
    .model_type = "gpt_oss",
    .renames = renames,
    .build = build,
};
