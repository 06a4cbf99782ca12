/*
 * Qwen3.5-MoE and Qwen3.6-MoE: layers of gated DeltaNet and of gated full attention in any pattern,
 * each followed by a MoE block with a shared expert. The equations are those of Hugging Face
 * transformers' modeling_qwen3_5_moe.py; gated DeltaNet is arXiv:2412.06464.
 */
#include <math.h>

#include "model/arch.h"

struct config {
    uint32_t hidden, layers, vocab;
    uint32_t heads, kv_heads, head_dim, rotary_dim;
    double rope_theta;
    float eps;
    uint32_t k_heads, v_heads, dk, dv, conv_width;
    uint32_t experts, picks, expert_inter, shared_inter;
    bool *linear; /* per layer: DeltaNet instead of attention */
};

enum { MAX_DIM = 1 << 20, MAX_WIDTH = 1 << 24, MAX_LAYERS = 4096, MAX_EXPERTS = 1 << 16 };

static const float delta_norm_eps = 1e-6f;

static enum sluice_status unsupported(const struct json_node *node, const char *key,
                                      const char *value, struct sluice_error *err)
{
    return err_set(err, SLUICE_E_UNSUPPORTED, "%s: field '%s%s%s' is '%s', which is not supported",
                   node->file, node->path, node->path[0] ? "." : "", key, value);
}

/* Heads times head size, kept far from overflow. */
static enum sluice_status check_width(const struct json_node *node, const char *what,
                                      uint32_t heads, uint32_t dim, struct sluice_error *err)
{
    if ((uint64_t)heads * dim <= MAX_WIDTH) return SLUICE_OK;
    return err_set(err, SLUICE_E_UNSUPPORTED, "%s: %u %s of size %u are too wide", node->file,
                   heads, what, dim);
}

/* One string that must have one value when it is there. */
static enum sluice_status expect_string(const struct json_node *node, const char *key,
                                        const char *only, struct sluice_error *err)
{
    const char *value;
    TRY(json_get_string_or(node, key, only, &value, err));
    return strcmp(value, only) == 0 ? SLUICE_OK : unsupported(node, key, value, err);
}

static enum sluice_status expect_bool(const struct json_node *node, const char *key, bool only,
                                      struct sluice_error *err)
{
    bool value;
    TRY(json_get_bool_or(node, key, only, &value, err));
    return value == only ? SLUICE_OK : unsupported(node, key, value ? "true" : "false", err);
}

static enum sluice_status read_layer_types(struct config *c, const struct json_node *node,
                                           struct arena *arena, struct sluice_error *err)
{
    c->linear = arena_alloc(arena, c->layers, sizeof *c->linear);
    if (!c->linear) return err_nomem(err, "layer types", c->layers);
    const json_t *types = json_object_get(node->object, "layer_types");
    if (!types || json_is_null(types)) {
        uint32_t interval;
        TRY(json_get_u32_or(node, "full_attention_interval", 1, MAX_LAYERS, 4, &interval, err));
        for (uint32_t l = 0; l < c->layers; l++) c->linear[l] = (l + 1) % interval != 0;
        return SLUICE_OK;
    }
    if (!json_is_array(types) || json_array_size(types) != c->layers)
        return err_set(err, SLUICE_E_MISMATCH,
                       "%s: field 'layer_types' must list one type for each of the %u layers",
                       node->file, c->layers);
    for (uint32_t l = 0; l < c->layers; l++) {
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

static enum sluice_status read_rope(struct config *c, const struct json_node *node,
                                    struct sluice_error *err)
{
    struct json_node rope;
    TRY(json_get_object_or(node, "rope_parameters", &rope, err));
    if (!rope.object) TRY(json_get_object_or(node, "rope_scaling", &rope, err));
    double factor, theta;
    TRY(json_get_f64_or(node, "partial_rotary_factor", 0, 1, 0.25, &factor, err));
    TRY(json_get_f64_or(node, "rope_theta", 1, 1e12, 10000, &theta, err));
    if (rope.object) {
        const char *type;
        TRY(json_get_f64_or(&rope, "partial_rotary_factor", 0, 1, factor, &factor, err));
        TRY(json_get_f64_or(&rope, "rope_theta", 1, 1e12, theta, &theta, err));
        TRY(json_get_string_or(&rope, "type", "default", &type, err));
        TRY(json_get_string_or(&rope, "rope_type", type, &type, err));
        if (strcmp(type, "default") != 0 && strcmp(type, "mrope") != 0)
            return unsupported(&rope, "rope_type", type, err);
    }
    c->rope_theta = theta;
    c->rotary_dim = (uint32_t)(c->head_dim * factor);
    if (c->rotary_dim == 0 || c->rotary_dim % 2 != 0)
        return err_set(err, SLUICE_E_MISMATCH,
                       "%s: head_dim %u times partial_rotary_factor %g gives %u rotated "
                       "dimensions; an even number is needed",
                       node->file, c->head_dim, factor, c->rotary_dim);
    return SLUICE_OK;
}

static enum sluice_status read_attention(struct config *c, const struct json_node *node,
                                         struct sluice_error *err)
{
    TRY(json_get_u32(node, "num_attention_heads", 1, MAX_DIM, &c->heads, err));
    TRY(json_get_u32_or(node, "num_key_value_heads", 1, MAX_DIM, c->heads, &c->kv_heads, err));
    TRY(json_get_u32_or(node, "head_dim", 1, MAX_DIM, c->hidden / c->heads, &c->head_dim, err));
    if (c->heads % c->kv_heads != 0)
        return err_set(err, SLUICE_E_MISMATCH,
                       "%s: %u attention heads cannot share %u key-value heads evenly", node->file,
                       c->heads, c->kv_heads);
    TRY(check_width(node, "attention heads", c->heads, c->head_dim, err));
    TRY(expect_bool(node, "attention_bias", false, err));
    TRY(expect_bool(node, "attn_output_gate", true, err));
    return read_rope(c, node, err);
}

static enum sluice_status read_delta_net(struct config *c, const struct json_node *node,
                                         struct sluice_error *err)
{
    TRY(json_get_u32(node, "linear_num_key_heads", 1, MAX_DIM, &c->k_heads, err));
    TRY(json_get_u32(node, "linear_num_value_heads", 1, MAX_DIM, &c->v_heads, err));
    TRY(json_get_u32(node, "linear_key_head_dim", 1, MAX_DIM, &c->dk, err));
    TRY(json_get_u32(node, "linear_value_head_dim", 1, MAX_DIM, &c->dv, err));
    TRY(json_get_u32_or(node, "linear_conv_kernel_dim", 1, 64, 4, &c->conv_width, err));
    TRY(check_width(node, "linear key heads", c->k_heads, c->dk, err));
    TRY(check_width(node, "linear value heads", c->v_heads, c->dv, err));
    if (c->v_heads % c->k_heads != 0)
        return err_set(err, SLUICE_E_MISMATCH,
                       "%s: %u linear value heads cannot share %u key heads evenly", node->file,
                       c->v_heads, c->k_heads);
    return SLUICE_OK;
}

static enum sluice_status read_moe(struct config *c, const struct json_node *node,
                                   const struct model_options *options, struct sluice_error *err)
{
    TRY(json_get_u32(node, "num_experts", 1, MAX_EXPERTS, &c->experts, err));
    TRY(json_get_u32(node, "num_experts_per_tok", 1, c->experts, &c->picks, err));
    TRY(json_get_u32(node, "moe_intermediate_size", 1, MAX_DIM, &c->expert_inter, err));
    TRY(json_get_u32(node, "shared_expert_intermediate_size", 1, MAX_DIM, &c->shared_inter, err));
    if (options->n_picks > c->experts)
        return err_set(err, SLUICE_E_ARGUMENT, "%u experts per token were asked for; there are %u",
                       options->n_picks, c->experts);
    if (options->n_picks) c->picks = options->n_picks;
    return SLUICE_OK;
}

static bool any_layer(const struct config *c, bool linear)
{
    for (uint32_t l = 0; l < c->layers; l++)
        if (c->linear[l] == linear) return true;
    return false;
}

static enum sluice_status read_config(struct config *c, const struct json_node *node,
                                      struct arena *arena, const struct model_options *options,
                                      struct sluice_error *err)
{
    double eps;
    TRY(json_get_u32(node, "hidden_size", 1, MAX_DIM, &c->hidden, err));
    TRY(json_get_u32(node, "num_hidden_layers", 1, MAX_LAYERS, &c->layers, err));
    TRY(json_get_u32(node, "vocab_size", 1, 1u << 24, &c->vocab, err));
    TRY(json_get_f64_or(node, "rms_norm_eps", 0, 1, 1e-6, &eps, err));
    c->eps = (float)eps;
    TRY(expect_string(node, "hidden_act", "silu", err));
    TRY(read_layer_types(c, node, arena, err));
    TRY(read_attention(c, node, err));
    if (any_layer(c, true)) TRY(read_delta_net(c, node, err));
    return read_moe(c, node, options, err);
}

/* x + o_proj(sigmoid(gate) * attention(rope(norm(q)), rope(norm(k)), v)) */
static buf_attn_proj attention(struct graph *g, const struct config *c, buf_attn_input x,
                               buf_rope_table table)
{
    uint32_t q_width = c->heads * c->head_dim;
    uint32_t kv_width = c->kv_heads * c->head_dim;
    buf_q_stack stack = push_q_proj(g, x, WEIGHT(g, q_proj, 2 * q_width, c->hidden));
    struct q_and_gate q = PUSH(g, split_q_gate, .x = stack, .head_dim = c->head_dim);
    buf_k_raw k = push_k_proj(g, x, WEIGHT(g, k_proj, kv_width, c->hidden));
    buf_v v = push_v_proj(g, x, WEIGHT(g, v_proj, kv_width, c->hidden));

    buf_q_normed q_normed = push_q_norm(g, q.q, WEIGHT(g, q_norm, 1, c->head_dim), c->eps);
    buf_k_normed k_normed = push_k_norm(g, k, WEIGHT(g, k_norm, 1, c->head_dim), c->eps);
    buf_q q_rope = push_rope_q(g, q_normed, table, c->head_dim, c->rotary_dim);
    buf_k k_rope = push_rope_k(g, k_normed, table, c->head_dim, c->rotary_dim);

    state_kv cache = graph_state_kv(g, c->kv_heads, c->head_dim);
    state_kv_ready ready = PUSH(g, kv_append, .k = k_rope, .v = v, .cache = cache);
    buf_attn_out out = PUSH(g, attention, .q = q_rope, .cache = ready, .n_heads = c->heads,
                            .scale = 1.0f / sqrtf((float)c->head_dim));
    buf_attn_gated gated = PUSH(g, sigmoid_gate, .x = out, .gate = q.gate);
    return push_o_proj(g, gated, WEIGHT(g, o_proj, c->hidden, q_width));
}

/* out_proj(gated_norm(delta_net(conv(qkv)), z)) */
static buf_attn_proj delta_net(struct graph *g, const struct config *c, buf_attn_input x)
{
    uint32_t values = c->v_heads * c->dv;
    uint32_t channels = 2 * c->k_heads * c->dk + values;
    buf_qkv_stack qkv = push_qkv_proj(g, x, WEIGHT(g, qkv_proj, channels, c->hidden));
    buf_z_stack z = push_z_proj(g, x, WEIGHT(g, z_proj, values, c->hidden));
    buf_beta_stack beta = push_beta_proj(g, x, WEIGHT(g, beta_proj, c->v_heads, c->hidden));
    buf_alpha_stack alpha = push_alpha_proj(g, x, WEIGHT(g, alpha_proj, c->v_heads, c->hidden));

    buf_conv_out conv = PUSH(g, conv, .x = qkv, .w = WEIGHT(g, conv, c->conv_width, channels),
                             .state = graph_state_conv(g, c->conv_width, channels));
    buf_delta_qkv unit =
        PUSH(g, delta_norm, .x = conv, .n_k_heads = c->k_heads, .dk = c->dk, .eps = delta_norm_eps);
    struct decay_and_beta gates =
        PUSH(g, decay_beta, .alpha = alpha, .beta = beta, .neg_a = WEIGHT(g, neg_a, 1, c->v_heads),
             .dt_bias = WEIGHT(g, dt_bias, 1, c->v_heads));
    buf_delta_out out =
        PUSH(g, delta_net, .x = unit, .g = gates.g, .b = gates.b,
             .state = graph_state_delta(g, c->v_heads, c->dv, c->dk), .n_k_heads = c->k_heads);
    buf_value_out value =
        PUSH(g, gated_norm, .x = out, .z = z, .w = WEIGHT(g, delta_norm, 1, c->dv), .eps = c->eps);
    return push_delta_proj(g, value, WEIGHT(g, delta_proj, c->hidden, values));
}

/* x + sum of chosen experts + sigmoid(gate) * shared expert, all of norm(x) */
static buf_hidden moe(struct graph *g, const struct config *c, buf_residual x)
{
    buf_moe_input in = push_moe_norm(g, x, WEIGHT(g, moe_norm, 1, c->hidden), c->eps);
    buf_router_logits scores =
        push_router_proj(g, in, WEIGHT(g, router_proj, c->experts, c->hidden));
    struct picks picks = PUSH(g, router, .logits = scores, .k = c->picks, .normalize = true);
    struct grouped_picks grouped = PUSH(g, group_picks, .ids = picks.ids, .n_experts = c->experts);

    uint32_t inter = c->shared_inter;
    buf_shared_gate shared_gate =
        push_shared_gate_proj(g, in, WEIGHT(g, shared_gate_proj, 1, c->hidden));
    buf_shared_ffn_gate gate =
        push_shared_ffn_gate_proj(g, in, WEIGHT(g, shared_ffn_gate_proj, inter, c->hidden));
    buf_shared_ffn_up up =
        push_shared_ffn_up_proj(g, in, WEIGHT(g, shared_ffn_up_proj, inter, c->hidden));
    buf_shared_out shared = push_shared_ffn_down_proj(
        g, push_shared_swiglu(g, gate, up), WEIGHT(g, shared_ffn_down_proj, c->hidden, inter));

    buf_expert_input rows = PUSH(g, gather_rows, .x = in, .rows = grouped.rows);
    buf_expert_out out = PUSH(g, experts, .x = rows, .offsets = grouped.offsets,
                              .bank = graph_experts(g, c->experts, c->expert_inter, c->hidden));
    buf_moe_sum sum =
        PUSH(g, expert_sum, .x = out, .places = grouped.places, .weights = picks.weights);
    return PUSH(g, combine, .residual = x, .moe = sum, .shared = shared, .gate = shared_gate);
}

static buf_hidden layer(struct graph *g, const struct config *c, uint32_t l, buf_stream x,
                        buf_rope_table table)
{
    graph_set_layer(g, l);
    buf_attn_input in = push_attn_norm(g, x, WEIGHT(g, attn_norm, 1, c->hidden), c->eps);
    buf_attn_proj delta = c->linear[l] ? delta_net(g, c, in) : attention(g, c, in, table);
    return moe(g, c, PUSH(g, residual_add, .stream = x, .delta = delta));
}

/* inv_freq[i] = theta^(-2i / rotary_dim), in f32 as the reference computes it */
static enum sluice_status rope_values(struct model *m, const struct config *c,
                                      struct sluice_error *err)
{
    uint32_t half = c->rotary_dim / 2;
    float *freqs = arena_alloc(&m->arena, half, sizeof *freqs);
    if (!freqs) return err_nomem(err, "rope frequencies", half * sizeof *freqs);
    for (uint32_t i = 0; i < half; i++) {
        float exponent = (float)(2 * i) / (float)c->rotary_dim;
        freqs[i] = 1.0f / powf((float)c->rope_theta, exponent);
    }
    m->rope_values = freqs;
    return SLUICE_OK;
}

static enum sluice_status build_graph(struct model *m, const struct config *c,
                                      const struct model_options *options, struct sluice_error *err)
{
    struct graph *g = &m->graph;
    m->token_ids = graph_token_ids(g);
    m->output_rows = graph_output_rows(g);
    buf_rope_table table = {0};
    if (any_layer(c, false)) {
        m->rope_freqs = graph_rope_freqs(g, c->rotary_dim);
        table = PUSH(g, rope_angles, .freqs = m->rope_freqs);
        TRY(rope_values(m, c, err));
    }
    buf_stream x = as_stream(
        PUSH(g, embed, .ids = m->token_ids, .table = WEIGHT(g, embed, c->vocab, c->hidden)));
    for (uint32_t l = 0; l < c->layers; l++) {
        if (options->keep_hidden) {
            graph_keep(g, x);
            m->hidden[l] = x;
        }
        m->last_hidden = layer(g, c, l, x, table);
        x = as_stream(m->last_hidden);
    }
    graph_set_layer(g, UINT32_MAX);
    graph_keep(g, m->last_hidden);
    m->tail_node = (uint32_t)g->nodes.n;
    buf_tail_hidden rows = PUSH(g, select_rows, .x = x, .rows = m->output_rows);
    m->tail_normed = push_tail_norm(g, rows, WEIGHT(g, tail_norm, 1, c->hidden), c->eps);
    m->logits = push_lm_head(g, m->tail_normed, WEIGHT(g, lm_head, c->vocab, c->hidden));
    graph_keep(g, m->tail_normed);
    graph_keep(g, m->logits);
    return graph_finish(g, err);
}

static enum sluice_status build(struct model *m, const struct json_node *node,
                                const struct model_options *options, struct sluice_error *err)
{
    struct config c = {0};
    TRY(read_config(&c, node, &m->arena, options, err));
    m->vocab_size = c.vocab;
    m->hidden_size = c.hidden;
    m->n_layers = c.layers;
    m->n_experts = c.experts;
    m->n_picks = c.picks;
    m->hidden = arena_alloc(&m->arena, c.layers, sizeof *m->hidden);
    if (!m->hidden) return err_nomem(err, "layer list", c.layers);
    return build_graph(m, &c, options, err);
}

static const struct weight_source sources[WEIGHT_COUNT] = {
    [WEIGHT_embed] = {"embed_tokens", VECTOR_AS_IS},
    [WEIGHT_attn_norm] = {"layers.#.input_layernorm.weight", VECTOR_CENTRED},
    [WEIGHT_q_proj] = {"layers.#.self_attn.q_proj", VECTOR_AS_IS},
    [WEIGHT_k_proj] = {"layers.#.self_attn.k_proj", VECTOR_AS_IS},
    [WEIGHT_v_proj] = {"layers.#.self_attn.v_proj", VECTOR_AS_IS},
    [WEIGHT_o_proj] = {"layers.#.self_attn.o_proj", VECTOR_AS_IS},
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
