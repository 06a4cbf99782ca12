/*
 * Qwen3.5-MoE and Qwen3.6-MoE: layers of gated DeltaNet and of gated full attention in any pattern,
 * each followed by a MoE block with a shared expert. The equations are those of Hugging Face
 * transformers' modeling_qwen3_5_moe.py; gated DeltaNet is arXiv:2412.06464.
 */
#include <math.h>

#include "model/arch.h"
#include "model/decoder.h"

struct config {
    struct config_frame frame;
    struct config_heads attn;
    struct rope rope;
    uint32_t k_heads, v_heads, dk, dv, conv_width;
    uint32_t experts, picks, expert_inter, shared_inter;
    bool *linear; /* per layer: DeltaNet instead of attention */
    bool tiled;   /* order of the v heads */
    bool guess;
};

static const float delta_norm_eps = 1e-6f;

static enum sluice_status read_layer_types(struct config *c, const struct json_node *node,
                                           struct arena *arena, struct sluice_error *err)
{
    c->linear = arena_alloc(arena, c->frame.layers, sizeof *c->linear);
    if (!c->linear) return err_nomem(err, "layer types", c->frame.layers);
    const json_t *types = json_object_get(node->object, "layer_types");
    if (!types || json_is_null(types)) {
        uint32_t interval;
        TRY(json_get_u32_or(node, "full_attention_interval", 1, CONFIG_MAX_LAYERS, 4, &interval,
                            err));
        for (uint32_t l = 0; l < c->frame.layers; l++) c->linear[l] = (l + 1) % interval != 0;
        return SLUICE_OK;
    }
    if (!json_is_array(types) || json_array_size(types) != c->frame.layers)
        return err_set(err, SLUICE_E_MISMATCH,
                       "%s: field 'layer_types' must list one type for each of the %u layers",
                       node->file, c->frame.layers);
    for (uint32_t l = 0; l < c->frame.layers; l++) {
        const char *type = json_string_value(json_array_get(types, l));
        if (type && strcmp(type, "linear_attention") == 0)
            c->linear[l] = true;
        else if (!type || strcmp(type, "full_attention") != 0)
            return err_set(err, SLUICE_E_UNSUPPORTED,
                           "%s: field 'layer_types': layer %u has type '%s'; linear_attention and "
                           "full_attention are supported",
                           node->file, l, type ? type : "?");
    }
    return SLUICE_OK;
}

static enum sluice_status read_attention(struct config *c, const struct json_node *node,
                                         struct sluice_error *err)
{
    TRY(config_read_heads(node, c->frame.hidden, &c->attn, err));
    TRY(config_expect_bool(node, "attention_bias", false, err));
    TRY(config_expect_bool(node, "attn_output_gate", true, err));
    return rope_read(node, c->attn.head_dim, 0.25, &c->rope, err);
}

static enum sluice_status read_delta_net(struct config *c, const struct json_node *node,
                                         struct sluice_error *err)
{
    TRY(json_get_u32(node, "linear_num_key_heads", 1, CONFIG_MAX_DIM, &c->k_heads, err));
    TRY(json_get_u32(node, "linear_num_value_heads", 1, CONFIG_MAX_DIM, &c->v_heads, err));
    TRY(json_get_u32(node, "linear_key_head_dim", 1, CONFIG_MAX_DIM, &c->dk, err));
    TRY(json_get_u32(node, "linear_value_head_dim", 1, CONFIG_MAX_DIM, &c->dv, err));
    TRY(json_get_u32_or(node, "linear_conv_kernel_dim", 1, 64, 4, &c->conv_width, err));
    TRY(config_check_width(node, "linear key heads", c->k_heads, c->dk, err));
    TRY(config_check_width(node, "linear value heads", c->v_heads, c->dv, err));
    if (c->v_heads % c->k_heads != 0)
        return err_set(err, SLUICE_E_MISMATCH,
                       "%s: %u linear value heads cannot share %u key heads evenly", node->file,
                       c->v_heads, c->k_heads);
    return SLUICE_OK;
}

static enum sluice_status read_moe(struct config *c, const struct json_node *node,
                                   const struct model_options *options, struct sluice_error *err)
{
    TRY(json_get_u32(node, "num_experts", 1, CONFIG_MAX_EXPERTS, &c->experts, err));
    TRY(config_read_picks(node, c->experts, options, &c->picks, err));
    TRY(json_get_u32(node, "moe_intermediate_size", 1, CONFIG_MAX_DIM, &c->expert_inter, err));
    TRY(json_get_u32(node, "shared_expert_intermediate_size", 1, CONFIG_MAX_DIM, &c->shared_inter,
                     err));
    return SLUICE_OK;
}

static bool any_layer(const struct config *c, bool linear)
{
    for (uint32_t l = 0; l < c->frame.layers; l++)
        if (c->linear[l] == linear) return true;
    return false;
}

static enum sluice_status read_config(struct config *c, const struct json_node *node,
                                      struct arena *arena, const struct model_options *options,
                                      struct sluice_error *err)
{
    c->guess = options->guess;
    TRY(config_read_frame(node, 1e-6, &c->frame, err));
    TRY(config_expect_string(node, "hidden_act", "silu", err));
    TRY(read_layer_types(c, node, arena, err));
    TRY(read_attention(c, node, err));
    if (any_layer(c, true)) TRY(read_delta_net(c, node, err));
    return read_moe(c, node, options, err);
}

/* x + o_proj(sigmoid(gate) * attention(rope(norm(q)), rope(norm(k)), v)) */
static buf_attn_proj attention(struct graph *g, const struct config *c, buf_attn_input x,
                               buf_rope_table table)
{
    uint32_t q_width = c->attn.heads * c->attn.head_dim;
    uint32_t kv_width = c->attn.kv_heads * c->attn.head_dim;
    buf_q_stack stack = push_qg_proj(g, x, WEIGHT(g, qg_proj, 2 * q_width, c->frame.hidden));
    struct q_and_gate q = PUSH(g, split_q_gate, .x = stack, .head_dim = c->attn.head_dim);
    buf_k_raw k = push_k_proj(g, x, WEIGHT(g, k_proj, kv_width, c->frame.hidden));
    buf_v v = push_v_proj(g, x, WEIGHT(g, v_proj, kv_width, c->frame.hidden));

    buf_q_normed q_normed =
        push_q_norm(g, q.q, WEIGHT(g, q_norm, 1, c->attn.head_dim), c->frame.eps);
    buf_k_normed k_normed = push_k_norm(g, k, WEIGHT(g, k_norm, 1, c->attn.head_dim), c->frame.eps);
    buf_q q_rope = push_rope_q(g, q_normed, table, c->attn.head_dim, c->rope.rotary_dim);
    buf_k k_rope = push_rope_k(g, k_normed, table, c->attn.head_dim, c->rope.rotary_dim);

    state_kv cache = graph_state_kv(g, c->attn.kv_heads, c->attn.head_dim);
    state_kv_ready ready = PUSH(g, kv_append, .k = k_rope, .v = v, .cache = cache);
    buf_attn_out out = PUSH(g, attention, .q = q_rope, .cache = ready, .n_heads = c->attn.heads,
                            .scale = 1.0f / sqrtf((float)c->attn.head_dim));
    buf_attn_gated gated = PUSH(g, sigmoid_gate, .x = out, .gate = q.gate);
    return push_og_proj(g, gated, WEIGHT(g, og_proj, c->frame.hidden, q_width));
}

/* out_proj(gated_norm(delta_net(conv(qkv)), z)) */
static buf_attn_proj delta_net(struct graph *g, const struct config *c, buf_attn_input x)
{
    uint32_t values = c->v_heads * c->dv;
    uint32_t channels = 2 * c->k_heads * c->dk + values;
    buf_qkv_stack qkv = push_qkv_proj(g, x, WEIGHT(g, qkv_proj, channels, c->frame.hidden));
    buf_z_stack z = push_z_proj(g, x, WEIGHT(g, z_proj, values, c->frame.hidden));
    buf_beta_stack beta = push_beta_proj(g, x, WEIGHT(g, beta_proj, c->v_heads, c->frame.hidden));
    buf_alpha_stack alpha =
        push_alpha_proj(g, x, WEIGHT(g, alpha_proj, c->v_heads, c->frame.hidden));

    buf_conv_out conv = PUSH(g, conv, .x = qkv, .w = WEIGHT(g, conv, c->conv_width, channels),
                             .state = graph_state_conv(g, c->conv_width, channels));
    buf_delta_qkv unit =
        PUSH(g, delta_norm, .x = conv, .n_k_heads = c->k_heads, .dk = c->dk, .eps = delta_norm_eps);
    struct decay_and_beta gates =
        PUSH(g, decay_beta, .alpha = alpha, .beta = beta, .neg_a = WEIGHT(g, neg_a, 1, c->v_heads),
             .dt_bias = WEIGHT(g, dt_bias, 1, c->v_heads));
    buf_delta_out out = PUSH(g, delta_net, .x = unit, .g = gates.g, .b = gates.b,
                             .state = graph_state_delta(g, c->v_heads, c->dv, c->dk),
                             .n_k_heads = c->k_heads, .tiled = c->tiled);
    buf_value_out value = PUSH(g, gated_norm, .x = out, .z = z,
                               .w = WEIGHT(g, delta_norm, 1, c->dv), .eps = c->frame.eps);
    return push_delta_proj(g, value, WEIGHT(g, delta_proj, c->frame.hidden, values));
}

/* What the MoE block shares with the guess of its picks. */
struct routing {
    wt_moe_norm norm;
    wt_router_proj router;
    wt_experts bank;
};

static struct routing routing_weights(struct graph *g, const struct config *c)
{
    return (struct routing){.norm = WEIGHT(g, moe_norm, 1, c->frame.hidden),
                            .router = WEIGHT(g, router_proj, c->experts, c->frame.hidden),
                            .bank = graph_experts(g, c->experts, c->expert_inter, c->frame.hidden)};
}

/* x + sum of chosen experts + sigmoid(gate) * shared expert, all of norm(x) */
static buf_hidden moe(struct graph *g, const struct config *c, struct routing w, buf_residual x)
{
    buf_moe_input in = push_moe_norm(g, x, w.norm, c->frame.eps);
    buf_router_logits scores = push_router_proj(g, in, w.router);
    struct picks picks = PUSH(g, router, .logits = scores, .k = c->picks, .normalize = true);
    struct grouped_picks grouped = PUSH(g, group_picks, .ids = picks.ids, .n_experts = c->experts);

    uint32_t inter = c->shared_inter;
    buf_shared_gate shared_gate =
        push_shared_gate_proj(g, in, WEIGHT(g, shared_gate_proj, 1, c->frame.hidden));
    buf_shared_ffn_gate gate =
        push_shared_ffn_gate_proj(g, in, WEIGHT(g, shared_ffn_gate_proj, inter, c->frame.hidden));
    buf_shared_ffn_up up =
        push_shared_ffn_up_proj(g, in, WEIGHT(g, shared_ffn_up_proj, inter, c->frame.hidden));
    buf_shared_out shared =
        push_shared_ffn_down_proj(g, push_shared_swiglu(g, gate, up),
                                  WEIGHT(g, shared_ffn_down_proj, c->frame.hidden, inter));

    buf_expert_input rows = PUSH(g, gather_rows, .x = in, .rows = grouped.rows);
    buf_expert_out out = PUSH(g, experts, .x = rows, .offsets = grouped.offsets, .bank = w.bank);
    buf_moe_sum sum =
        PUSH(g, expert_sum, .x = out, .places = grouped.places, .weights = picks.weights);
    return PUSH(g, combine, .residual = x, .moe = sum, .shared = shared, .gate = shared_gate);
}

static buf_hidden layer(struct graph *g, const void *config, uint32_t l, buf_stream x,
                        buf_rope_table table)
{
    const struct config *c = config;
    struct routing w = routing_weights(g, c);
    if (c->guess)
        PUSH(g, guess_experts, .x = x, .norm = w.norm, .router = w.router, .bank = w.bank,
             .k = c->picks, .eps = c->frame.eps);
    buf_attn_input in =
        push_attn_norm(g, x, WEIGHT(g, attn_norm, 1, c->frame.hidden), c->frame.eps);
    buf_attn_proj delta = c->linear[l] ? delta_net(g, c, in) : attention(g, c, in, table);
    return moe(g, c, w, PUSH(g, residual_add, .stream = x, .delta = delta));
}

static enum sluice_status build(struct model *m, const struct json_node *node,
                                const struct model_options *options, struct sluice_error *err)
{
    struct config c = {0};
    TRY(read_config(&c, node, &m->arena, options, err));
    c.tiled = m->tiled_v_heads;
    struct decoder d = {.frame = c.frame,
                        .experts = c.experts,
                        .picks = c.picks,
                        .rope = any_layer(&c, false) ? &c.rope : NULL,
                        .layer = layer};
    return decoder_build(m, &d, &c, options, err);
}

static const struct weight_source sources[WEIGHT_COUNT] = {
    [WEIGHT_embed] = {"embed_tokens", VECTOR_AS_IS},
    [WEIGHT_attn_norm] = {"layers.#.input_layernorm.weight", VECTOR_CENTRED},
    [WEIGHT_qg_proj] = {"layers.#.self_attn.q_proj", VECTOR_AS_IS},
    [WEIGHT_k_proj] = {"layers.#.self_attn.k_proj", VECTOR_AS_IS},
    [WEIGHT_v_proj] = {"layers.#.self_attn.v_proj", VECTOR_AS_IS},
    [WEIGHT_og_proj] = {"layers.#.self_attn.o_proj", VECTOR_AS_IS},
    [WEIGHT_q_norm] = {"layers.#.self_attn.q_norm.weight", VECTOR_CENTRED},
    [WEIGHT_k_norm] = {"layers.#.self_attn.k_norm.weight", VECTOR_CENTRED},
    [WEIGHT_qkv_proj] = {"layers.#.linear_attn.in_proj_qkv", VECTOR_AS_IS},
    [WEIGHT_z_proj] = {"layers.#.linear_attn.in_proj_z", VECTOR_AS_IS},
    [WEIGHT_alpha_proj] = {"layers.#.linear_attn.in_proj_a", VECTOR_AS_IS},
    [WEIGHT_beta_proj] = {"layers.#.linear_attn.in_proj_b", VECTOR_AS_IS},
    [WEIGHT_conv] = {"layers.#.linear_attn.conv1d.weight", VECTOR_AS_IS},
    [WEIGHT_neg_a] = {"layers.#.linear_attn.A_log", VECTOR_NEG_EXP},
    [WEIGHT_dt_bias] = {"layers.#.linear_attn.dt_bias", VECTOR_AS_IS},
    [WEIGHT_delta_norm] = {"layers.#.linear_attn.norm.weight", VECTOR_AS_IS},
    [WEIGHT_delta_proj] = {"layers.#.linear_attn.out_proj", VECTOR_AS_IS},
    [WEIGHT_moe_norm] = {"layers.#.post_attention_layernorm.weight", VECTOR_CENTRED},
    [WEIGHT_router_proj] = {"layers.#.mlp.gate", VECTOR_AS_IS},
    [WEIGHT_shared_gate_proj] = {"layers.#.mlp.shared_expert_gate", VECTOR_AS_IS},
    [WEIGHT_shared_ffn_gate_proj] = {"layers.#.mlp.shared_expert.gate_proj", VECTOR_AS_IS},
    [WEIGHT_shared_ffn_up_proj] = {"layers.#.mlp.shared_expert.up_proj", VECTOR_AS_IS},
    [WEIGHT_shared_ffn_down_proj] = {"layers.#.mlp.shared_expert.down_proj", VECTOR_AS_IS},
    [WEIGHT_experts] = {"layers.#.mlp", VECTOR_AS_IS},
    [WEIGHT_tail_norm] = {"norm.weight", VECTOR_CENTRED},
    [WEIGHT_lm_head] = {"lm_head", VECTOR_AS_IS},
};

const struct arch arch_qwen3_5_moe = {
    .model_type = "qwen3_5_moe_text",
    .sources = sources,
    .build = build,
};
