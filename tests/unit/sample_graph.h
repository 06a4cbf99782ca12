/*
 * A small model graph for tests of the IR: embedding, a gated DeltaNet layer, a layer of gated
 * attention, a MoE block after each, and the head. Same wiring as the Qwen3.5-MoE family. Two more
 * layers, if asked for, have what other families have instead.
 */
#ifndef TESTS_SAMPLE_GRAPH_H
#define TESTS_SAMPLE_GRAPH_H

#include "ir/graph.h"

struct sample_dims {
    uint32_t hidden, vocab;
    uint32_t heads, kv_heads, head_dim, rotary_dim;
    uint32_t k_heads, v_heads, dk, dv, conv_width;
    uint32_t experts, picks, expert_inter, shared_inter;
    bool tiled;                    /* order of the v heads */
    bool guess;                    /* each layer begins by guessing its picks */
    bool pairs;                    /* neighbours rotate together */
    uint32_t window;               /* of attention; 0: none */
    bool others;                   /* four more layers */
    uint32_t n_groups, top_groups; /* of their router; 0: 1 */
};

/* No two widths alike where the maths allows it. */
static const struct sample_dims sample_distinct = {
    .hidden = 16,
    .vocab = 40,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 6,
    .rotary_dim = 4,
    .k_heads = 2,
    .v_heads = 4,
    .dk = 3,
    .dv = 5,
    .conv_width = 4,
    .experts = 7,
    .picks = 3,
    .expert_inter = 9,
    .shared_inter = 11,
};

/* As many widths alike as possible, so that no shape rule hides what a role rule must find. */
static const struct sample_dims sample_alike = {
    .hidden = 16,
    .vocab = 16,
    .heads = 2,
    .kv_heads = 2,
    .head_dim = 8,
    .rotary_dim = 8,
    .k_heads = 2,
    .v_heads = 2,
    .dk = 8,
    .dv = 8,
    .conv_width = 2,
    .experts = 16,
    .picks = 2,
    .expert_inter = 16,
    .shared_inter = 16,
};

struct sample_ids {
    buf_token_ids token_ids;
    buf_output_rows output_rows;
    buf_rope_freqs rope_freqs;
    buf_tail_normed tail_normed;
    buf_logits logits;
};

static inline buf_attn_proj sample_attention(struct graph *g, const struct sample_dims *d,
                                             buf_attn_input x, buf_rope_table table)
{
    uint32_t q_width = d->heads * d->head_dim, kv_width = d->kv_heads * d->head_dim;
    buf_q_stack stack = push_qg_proj(g, x, WEIGHT(g, qg_proj, 2 * q_width, d->hidden));
    struct q_and_gate q = PUSH(g, split_q_gate, .x = stack, .head_dim = d->head_dim);
    buf_k_raw k_raw = push_k_proj(g, x, WEIGHT(g, k_proj, kv_width, d->hidden));
    buf_v v = push_v_proj(g, x, WEIGHT(g, v_proj, kv_width, d->hidden));
    buf_q_normed q_normed = push_q_norm(g, q.q, WEIGHT(g, q_norm, 1, d->head_dim), 1e-6f);
    buf_k_normed k_normed = push_k_norm(g, k_raw, WEIGHT(g, k_norm, 1, d->head_dim), 1e-6f);
    buf_q q_ready = push_rope_as_q(g, q_normed, table, d->head_dim, d->rotary_dim, d->pairs);
    buf_k k = push_rope_as_k(g, k_normed, table, d->head_dim, d->rotary_dim, d->pairs);
    state_kv cache = graph_state_kv(g, d->kv_heads, d->head_dim);
    state_kv_ready ready = PUSH(g, kv_append, .k = k, .v = v, .cache = cache);
    buf_attn_out out = PUSH(g, attention, .q = q_ready, .cache = ready, .n_heads = d->heads,
                            .scale = 0.25f, .window = d->window);
    buf_attn_gated gated = PUSH(g, sigmoid_gate, .x = out, .gate = q.gate);
    return push_og_proj(g, gated, WEIGHT(g, og_proj, d->hidden, q_width));
}

static inline buf_attn_proj sample_delta_rule(struct graph *g, const struct sample_dims *d,
                                              buf_qkv_stack qkv, buf_z_stack z, buf_beta_stack beta,
                                              buf_alpha_stack alpha)
{
    uint32_t values = d->v_heads * d->dv, channels = 2 * d->k_heads * d->dk + values;
    buf_conv_out conv = PUSH(g, conv, .x = qkv, .w = WEIGHT(g, conv, d->conv_width, channels),
                             .state = graph_state_conv(g, d->conv_width, channels));
    buf_delta_qkv unit =
        PUSH(g, delta_norm, .x = conv, .n_k_heads = d->k_heads, .dk = d->dk, .eps = 1e-6f);
    struct decay_and_beta gates =
        PUSH(g, decay_beta, .alpha = alpha, .beta = beta, .neg_a = WEIGHT(g, neg_a, 1, d->v_heads),
             .dt_bias = WEIGHT(g, dt_bias, 1, d->v_heads));
    buf_delta_out out = PUSH(g, delta_net, .x = unit, .g = gates.g, .b = gates.b,
                             .state = graph_state_delta(g, d->v_heads, d->dv, d->dk),
                             .n_k_heads = d->k_heads, .tiled = d->tiled);
    buf_value_out value =
        PUSH(g, gated_norm, .x = out, .z = z, .w = WEIGHT(g, delta_norm, 1, d->dv), .eps = 1e-6f);
    return push_delta_proj(g, value, WEIGHT(g, delta_proj, d->hidden, values));
}

static inline buf_attn_proj sample_delta_net(struct graph *g, const struct sample_dims *d,
                                             buf_attn_input x)
{
    uint32_t values = d->v_heads * d->dv, channels = 2 * d->k_heads * d->dk + values;
    buf_qkv_stack qkv = push_qkv_proj(g, x, WEIGHT(g, qkv_proj, channels, d->hidden));
    buf_z_stack z = push_z_proj(g, x, WEIGHT(g, z_proj, values, d->hidden));
    buf_beta_stack beta = push_beta_proj(g, x, WEIGHT(g, beta_proj, d->v_heads, d->hidden));
    buf_alpha_stack alpha = push_alpha_proj(g, x, WEIGHT(g, alpha_proj, d->v_heads, d->hidden));
    return sample_delta_rule(g, d, qkv, z, beta, alpha);
}

static inline buf_shared_out sample_shared_expert(struct graph *g, const struct sample_dims *d,
                                                  buf_moe_input x)
{
    uint32_t inter = d->shared_inter;
    buf_shared_ffn_gate gate =
        push_shared_ffn_gate_proj(g, x, WEIGHT(g, shared_ffn_gate_proj, inter, d->hidden));
    buf_shared_ffn_up up =
        push_shared_ffn_up_proj(g, x, WEIGHT(g, shared_ffn_up_proj, inter, d->hidden));
    buf_shared_ffn_act act = push_shared_swiglu(g, gate, up);
    return push_shared_ffn_down_proj(g, act, WEIGHT(g, shared_ffn_down_proj, d->hidden, inter));
}

/* With weights of its own, so that what follows is declared in the same order without it. */
static inline void sample_guess(struct graph *g, const struct sample_dims *d, buf_stream x)
{
    PUSH(g, guess_experts, .x = x, .norm = WEIGHT(g, moe_norm, 1, d->hidden),
         .router = WEIGHT(g, router_proj, d->experts, d->hidden),
         .bank = graph_experts(g, d->experts, d->expert_inter, d->hidden), .k = d->picks,
         .eps = 1e-6f);
}

static inline buf_hidden sample_moe(struct graph *g, const struct sample_dims *d, buf_residual x)
{
    buf_moe_input in = push_moe_norm(g, x, WEIGHT(g, moe_norm, 1, d->hidden), 1e-6f);
    buf_router_logits scores =
        push_router_proj(g, in, WEIGHT(g, router_proj, d->experts, d->hidden));
    struct picks picks = PUSH(g, router, .logits = scores, .k = d->picks, .normalize = true);
    struct grouped_picks grouped = PUSH(g, group_picks, .ids = picks.ids, .n_experts = d->experts);
    buf_shared_gate gate = push_shared_gate_proj(g, in, WEIGHT(g, shared_gate_proj, 1, d->hidden));
    buf_shared_out shared = sample_shared_expert(g, d, in);
    buf_expert_input rows = PUSH(g, gather_rows, .x = in, .rows = grouped.rows);
    buf_expert_out out = PUSH(g, experts, .x = rows, .offsets = grouped.offsets,
                              .bank = graph_experts(g, d->experts, d->expert_inter, d->hidden));
    buf_moe_sum sum =
        PUSH(g, expert_sum, .x = out, .places = grouped.places, .weights = picks.weights);
    return PUSH(g, combine, .residual = x, .moe = sum, .shared = shared, .gate = gate);
}

/* Biases, a norm over all heads together or none at all, and no gates. */
static inline buf_attn_proj sample_plain_attention(struct graph *g, const struct sample_dims *d,
                                                   buf_attn_input x, buf_rope_table table)
{
    uint32_t q_width = d->heads * d->head_dim, kv_width = d->kv_heads * d->head_dim;
    buf_q_raw q_raw = push_q_proj_biased(g, x, WEIGHT(g, q_proj, q_width, d->hidden),
                                         WEIGHT(g, q_bias, 1, q_width));
    buf_k_raw k_raw = push_k_proj_biased(g, x, WEIGHT(g, k_proj, kv_width, d->hidden),
                                         WEIGHT(g, k_bias, 1, kv_width));
    buf_v v = push_v_proj(g, x, WEIGHT(g, v_proj, kv_width, d->hidden));
    buf_q_normed q_normed = push_q_norm(g, q_raw, WEIGHT(g, q_norm, 1, q_width), 1e-6f);
    buf_q q = push_rope_q(g, q_normed, table, d->head_dim, d->rotary_dim);
    buf_k k = push_rope_raw_k(g, k_raw, table, d->head_dim, d->rotary_dim);
    state_kv cache = graph_state_kv(g, d->kv_heads, d->head_dim);
    state_kv_ready ready = PUSH(g, kv_append, .k = k, .v = v, .cache = cache);
    buf_attn_out out =
        PUSH(g, attention, .q = q, .cache = ready, .n_heads = d->heads, .scale = 0.25f);
    return push_o_proj_biased(g, out, WEIGHT(g, o_proj, d->hidden, q_width),
                              WEIGHT(g, o_bias, 1, d->hidden));
}

/* The projections of DeltaNet in two matrices. */
static inline buf_attn_proj sample_fused_delta_net(struct graph *g, const struct sample_dims *d,
                                                   buf_attn_input x)
{
    uint32_t values = d->v_heads * d->dv, channels = 2 * d->k_heads * d->dk + values;
    buf_qkvz_stack stack = push_qkvz_proj(g, x, WEIGHT(g, qkvz_proj, channels + values, d->hidden));
    struct qkv_and_z wide = PUSH(g, split_qkvz, .x = stack, .n_k_heads = d->k_heads, .dk = d->dk);
    buf_ba_stack ba = push_ba_proj(g, x, WEIGHT(g, ba_proj, 2 * d->v_heads, d->hidden));
    struct beta_and_alpha narrow = PUSH(g, split_ba, .x = ba, .n_k_heads = d->k_heads);
    return sample_delta_rule(g, d, wide.qkv, wide.z, narrow.beta, narrow.alpha);
}

static inline buf_hidden sample_mlp(struct graph *g, const struct sample_dims *d, buf_residual x)
{
    uint32_t inter = d->shared_inter;
    buf_mlp_input in = push_mlp_norm(g, x, WEIGHT(g, mlp_norm, 1, d->hidden), 1e-6f);
    buf_mlp_gate gate = push_mlp_gate_proj(g, in, WEIGHT(g, mlp_gate_proj, inter, d->hidden));
    buf_mlp_up up = push_mlp_up_proj(g, in, WEIGHT(g, mlp_up_proj, inter, d->hidden));
    buf_mlp_out out = push_mlp_down_proj(g, push_mlp_swiglu(g, gate, up),
                                         WEIGHT(g, mlp_down_proj, d->hidden, inter));
    return PUSH(g, layer_add, .residual = x, .delta = as_layer_delta(out));
}

static inline uint32_t at_least_one(uint32_t n)
{
    return n ? n : 1;
}

static inline void sample_guess_by_sigmoid(struct graph *g, const struct sample_dims *d,
                                           buf_stream x)
{
    PUSH(g, guess_by_sigmoid, .x = x, .norm = WEIGHT(g, moe_norm, 1, d->hidden),
         .router = WEIGHT(g, router_proj, d->experts, d->hidden),
         .correction = WEIGHT(g, router_correction, 1, d->experts),
         .bank = graph_experts(g, d->experts, d->expert_inter, d->hidden), .k = d->picks,
         .n_groups = at_least_one(d->n_groups), .top_groups = at_least_one(d->top_groups),
         .eps = 1e-6f);
}

/* A sigmoid router, and a shared expert without a gate. */
static inline buf_hidden sample_sigmoid_moe(struct graph *g, const struct sample_dims *d,
                                            buf_residual x)
{
    buf_moe_input in = push_moe_norm(g, x, WEIGHT(g, moe_norm, 1, d->hidden), 1e-6f);
    buf_router_logits scores =
        push_router_proj(g, in, WEIGHT(g, router_proj, d->experts, d->hidden));
    struct picks picks =
        PUSH(g, sigmoid_router, .logits = scores,
             .correction = WEIGHT(g, router_correction, 1, d->experts), .k = d->picks,
             .n_groups = at_least_one(d->n_groups), .top_groups = at_least_one(d->top_groups),
             .normalize = true, .scale = 2.5f);
    struct grouped_picks grouped = PUSH(g, group_picks, .ids = picks.ids, .n_experts = d->experts);
    buf_shared_out shared = sample_shared_expert(g, d, in);
    buf_expert_input rows = PUSH(g, gather_rows, .x = in, .rows = grouped.rows);
    buf_expert_out out = PUSH(g, experts, .x = rows, .offsets = grouped.offsets,
                              .bank = graph_experts(g, d->experts, d->expert_inter, d->hidden));
    buf_moe_sum sum =
        PUSH(g, expert_sum, .x = out, .places = grouped.places, .weights = picks.weights);
    return PUSH(g, combine_ungated, .residual = x, .moe = sum, .shared = shared);
}

/* Attention over latents, of q heads without gates. */
static inline buf_attn_proj sample_latent_attention(struct graph *g, const struct sample_dims *d,
                                                    buf_attn_input x, buf_rope_table table)
{
    uint32_t heads = d->heads, nope = d->head_dim, rotated = d->rotary_dim;
    uint32_t rank = 2 * d->head_dim, q_rank = d->hidden, dv = d->dv;
    buf_q_latent_raw raw = push_q_a_proj(g, x, WEIGHT(g, q_a_proj, q_rank, d->hidden));
    buf_q_latent q_latent = push_q_a_norm(g, raw, WEIGHT(g, q_a_norm, 1, q_rank), 1e-6f);
    buf_mla_q queries =
        push_q_b_proj(g, q_latent, WEIGHT(g, q_b_proj, heads * (nope + rotated), q_rank));
    struct mla_q_parts q = PUSH(g, split_mla_q, .x = queries, .n_heads = heads, .rotated = rotated);
    buf_latent_stack stack = push_kv_a_proj(g, x, WEIGHT(g, kv_a_proj, rank + rotated, d->hidden));
    struct latent_parts kv = PUSH(g, split_latent, .x = stack, .rank = rank);
    buf_latent latent = push_kv_a_norm(g, kv.latent, WEIGHT(g, kv_a_norm, 1, rank), 1e-6f);
    buf_q_rot q_rot = push_rope_as_q_rot(g, q.rot, table, rotated, rotated, d->pairs);
    buf_k_rot k_rot = push_rope_as_k_rot(g, kv.rot, table, rotated, rotated, d->pairs);
    state_latent_ready ready = PUSH(g, latent_append, .latent = latent, .rot = k_rot,
                                    .cache = graph_state_latent(g, rank, rotated));
    buf_q_absorbed absorbed =
        PUSH(g, absorb, .x = q.nope, .w = HEAD_WEIGHTS(g, k_b_proj, heads, nope, rank),
             .n_heads = heads);
    buf_latent_out out = PUSH(g, latent_attention, .q = absorbed, .rot = q_rot, .cache = ready,
                              .n_heads = heads, .scale = 0.125f);
    buf_attn_out values = PUSH(g, expand, .x = out, .w = HEAD_WEIGHTS(g, v_b_proj, heads, dv, rank),
                               .n_heads = heads);
    return push_o_proj(g, values, WEIGHT(g, o_proj, d->hidden, heads * dv));
}

/* Sinks, and neither norms nor gates. */
static inline buf_attn_proj sample_sink_attention(struct graph *g, const struct sample_dims *d,
                                                  buf_attn_input x, buf_rope_table table)
{
    uint32_t q_width = d->heads * d->head_dim, kv_width = d->kv_heads * d->head_dim;
    buf_q_raw q_raw = push_q_proj(g, x, WEIGHT(g, q_proj, q_width, d->hidden));
    buf_k_raw k_raw = push_k_proj(g, x, WEIGHT(g, k_proj, kv_width, d->hidden));
    buf_v v = push_v_proj(g, x, WEIGHT(g, v_proj, kv_width, d->hidden));
    buf_q q = push_rope_raw_q(g, q_raw, table, d->head_dim, d->rotary_dim);
    buf_k k = push_rope_raw_k(g, k_raw, table, d->head_dim, d->rotary_dim);
    state_kv_ready ready =
        PUSH(g, kv_append, .k = k, .v = v, .cache = graph_state_kv(g, d->kv_heads, d->head_dim));
    buf_attn_out out =
        PUSH(g, sink_attention, .q = q, .cache = ready, .sinks = WEIGHT(g, sinks, 1, d->heads),
             .n_heads = d->heads, .scale = 0.25f, .window = d->window);
    return push_o_proj(g, out, WEIGHT(g, o_proj, d->hidden, q_width));
}

/* Biases, and a clamped activation. */
static inline buf_hidden sample_biased_moe(struct graph *g, const struct sample_dims *d,
                                           buf_residual x)
{
    buf_moe_input in = push_moe_norm(g, x, WEIGHT(g, moe_norm, 1, d->hidden), 1e-6f);
    buf_router_logits scores =
        push_router_proj_biased(g, in, WEIGHT(g, router_proj, d->experts, d->hidden),
                                WEIGHT(g, router_bias, 1, d->experts));
    struct picks picks = PUSH(g, router, .logits = scores, .k = d->picks, .normalize = true);
    struct grouped_picks grouped = PUSH(g, group_picks, .ids = picks.ids, .n_experts = d->experts);
    buf_expert_input rows = PUSH(g, gather_rows, .x = in, .rows = grouped.rows);
    buf_expert_out out =
        PUSH(g, experts, .x = rows, .offsets = grouped.offsets,
             .bank = graph_biased_experts(g, d->experts, d->expert_inter, d->hidden), .limit = 2);
    buf_moe_sum sum =
        PUSH(g, expert_sum, .x = out, .places = grouped.places, .weights = picks.weights);
    return PUSH(g, layer_add, .residual = x, .delta = as_layer_delta(sum));
}

static inline buf_stream sample_others(struct graph *g, const struct sample_dims *d, uint32_t layer,
                                       buf_stream x, buf_rope_table table)
{
    graph_set_layer(g, layer);
    if (d->guess) sample_guess_by_sigmoid(g, d, x);
    buf_attn_input in = push_attn_norm(g, x, WEIGHT(g, attn_norm, 1, d->hidden), 1e-6f);
    buf_residual r =
        PUSH(g, residual_add, .stream = x, .delta = sample_plain_attention(g, d, in, table));
    x = as_stream(sample_sigmoid_moe(g, d, r));
    graph_set_layer(g, layer + 1);
    in = push_attn_norm(g, x, WEIGHT(g, attn_norm, 1, d->hidden), 1e-6f);
    r = PUSH(g, residual_add, .stream = x, .delta = sample_fused_delta_net(g, d, in));
    x = as_stream(sample_mlp(g, d, r));
    graph_set_layer(g, layer + 2);
    in = push_attn_norm(g, x, WEIGHT(g, attn_norm, 1, d->hidden), 1e-6f);
    r = PUSH(g, residual_add, .stream = x, .delta = sample_latent_attention(g, d, in, table));
    x = as_stream(sample_mlp(g, d, r));
    graph_set_layer(g, layer + 3);
    in = push_attn_norm(g, x, WEIGHT(g, attn_norm, 1, d->hidden), 1e-6f);
    r = PUSH(g, residual_add, .stream = x, .delta = sample_sink_attention(g, d, in, table));
    return as_stream(sample_biased_moe(g, d, r));
}

/* One layer after another: linear[l] says which are DeltaNet layers. Not finished. */
static inline struct sample_ids sample_push(struct graph *g, const struct sample_dims *d,
                                            const bool *linear, uint32_t n_layers)
{
    struct sample_ids s = {.token_ids = graph_token_ids(g), .output_rows = graph_output_rows(g)};
    s.rope_freqs = graph_rope_freqs(g, d->rotary_dim);
    buf_rope_table table = PUSH(g, rope_angles, .freqs = s.rope_freqs, .scale = 1.25f);
    buf_stream x = as_stream(
        PUSH(g, embed, .ids = s.token_ids, .table = WEIGHT(g, embed, d->vocab, d->hidden)));
    for (uint32_t l = 0; l < n_layers; l++) {
        graph_set_layer(g, l);
        if (d->guess) sample_guess(g, d, x);
        buf_attn_input in = push_attn_norm(g, x, WEIGHT(g, attn_norm, 1, d->hidden), 1e-6f);
        buf_attn_proj delta =
            linear[l] ? sample_delta_net(g, d, in) : sample_attention(g, d, in, table);
        x = as_stream(sample_moe(g, d, PUSH(g, residual_add, .stream = x, .delta = delta)));
    }
    if (d->others) x = sample_others(g, d, n_layers, x, table);
    graph_set_layer(g, UINT32_MAX);
    buf_tail_hidden rows = PUSH(g, select_rows, .x = x, .rows = s.output_rows);
    s.tail_normed = push_tail_norm(g, rows, WEIGHT(g, tail_norm, 1, d->hidden), 1e-6f);
    s.logits = push_lm_head(g, s.tail_normed, WEIGHT(g, lm_head, d->vocab, d->hidden));
    graph_keep(g, s.tail_normed);
    graph_keep(g, s.logits);
    return s;
}

/* A DeltaNet layer, then an attention layer. */
static inline struct sample_ids sample_graph(struct graph *g, const struct sample_dims *d)
{
    static const bool linear[] = {true, false};
    return sample_push(g, d, linear, 2);
}

#endif
