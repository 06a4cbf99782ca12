/*
 * Random graphs through the real push functions. Every choice comes from one callback, so a seeded
 * generator and the bytes of a fuzzer drive the same code. Values are wired at random among those
 * of a fitting role; in a careless graph operands may also be missing, stale or of a wrong shape.
 */
#ifndef TESTS_RANDOM_GRAPH_H
#define TESTS_RANDOM_GRAPH_H

#include "base/bits.h"
#include "ir/graph.h"
#include "sample_graph.h"

enum { RANDOM_POOL = 6 };

struct random_graph {
    struct graph *g;
    uint32_t (*below)(void *source, uint32_t n); /* a number in [0, n) */
    void *source;
    bool careless;
    struct sample_dims d;
    uint32_t pool[ROLE_COUNT][RANDOM_POOL]; /* ids that the current layer may read, by role */
    uint32_t n[ROLE_COUNT];
    uint32_t ready[RANDOM_POOL], n_ready; /* caches that hold the batch */
    uint32_t latent_ready[RANDOM_POOL], n_latent_ready;
};

static inline bool random_slip(struct random_graph *r)
{
    return r->careless && r->below(r->source, 40) == 0;
}

static inline uint32_t random_id(struct random_graph *r, enum role role)
{
    uint32_t n = r->n[role];
    if (random_slip(r)) return r->below(r->source, 3) << 20 | r->below(r->source, 64);
    return n ? r->pool[role][r->below(r->source, n)] : 0;
}

static inline void random_put(struct random_graph *r, enum role role, uint32_t id)
{
    if (id == 0) return;
    uint32_t n = r->n[role];
    if (n < RANDOM_POOL)
        r->pool[role][r->n[role]++] = id;
    else
        r->pool[role][r->below(r->source, n)] = id;
}

/* A dimension, nearly always d itself. */
static inline uint32_t random_dim(struct random_graph *r, uint32_t d)
{
    static const uint32_t odd[] = {0, 1, 2, 65536, UINT32_MAX, UINT32_MAX / 2 + 1};
    return random_slip(r) ? odd[r->below(r->source, COUNT_OF(odd))] : d;
}

static inline struct sample_dims random_dims(struct random_graph *r)
{
#define DIM(n) (1 + r->below(r->source, n))
    struct sample_dims d = {.hidden = DIM(24),
                            .vocab = DIM(40),
                            .kv_heads = DIM(3),
                            .rotary_dim = 2 * DIM(3),
                            .k_heads = DIM(3),
                            .dk = DIM(6),
                            .dv = DIM(6),
                            .conv_width = DIM(4),
                            .experts = DIM(8),
                            .expert_inter = DIM(16),
                            .shared_inter = DIM(16)};
    d.heads = d.kv_heads * DIM(3);
    d.head_dim = d.rotary_dim + DIM(4) - 1;
    d.v_heads = d.k_heads * DIM(3);
    d.picks = DIM(d.experts);
#undef DIM
    return d;
}

/* Rows of a projection's weight. */
static inline uint32_t random_rows(const struct sample_dims *d, enum weight_role role)
{
    uint32_t values = d->v_heads * d->dv;
    switch (role) {
    case WEIGHT_qg_proj: return 2 * d->heads * d->head_dim;
    case WEIGHT_q_proj: return d->heads * d->head_dim;
    case WEIGHT_k_proj:
    case WEIGHT_v_proj: return d->kv_heads * d->head_dim;
    case WEIGHT_qkv_proj: return 2 * d->k_heads * d->dk + values;
    case WEIGHT_qkvz_proj: return 2 * d->k_heads * d->dk + 2 * values;
    case WEIGHT_ba_proj: return 2 * d->v_heads;
    case WEIGHT_z_proj: return values;
    case WEIGHT_alpha_proj:
    case WEIGHT_beta_proj: return d->v_heads;
    case WEIGHT_q_a_proj: return d->dv;
    case WEIGHT_q_b_proj:
    case WEIGHT_mla_q_proj: return d->heads * (d->head_dim + d->rotary_dim);
    case WEIGHT_kv_a_proj: return d->dk + d->dv + d->rotary_dim;
    case WEIGHT_router_proj: return d->experts;
    case WEIGHT_shared_gate_proj: return 1;
    case WEIGHT_mlp_gate_proj:
    case WEIGHT_mlp_up_proj:
    case WEIGHT_shared_ffn_gate_proj:
    case WEIGHT_shared_ffn_up_proj: return d->shared_inter;
    case WEIGHT_lm_head: return d->vocab;
    default: return d->hidden;
    }
}

/* Columns of a weight that is applied to rows of that role. */
static inline uint32_t random_cols(const struct sample_dims *d, enum role in)
{
    switch (in) {
    case ROLE_attn_out:
    case ROLE_attn_gated: return d->heads * d->head_dim;
    case ROLE_value_out: return d->v_heads * d->dv;
    case ROLE_mlp_act:
    case ROLE_shared_ffn_act: return d->shared_inter;
    case ROLE_q_raw:
    case ROLE_k_raw: return d->head_dim;
    case ROLE_q_latent_raw:
    case ROLE_q_latent: return d->dv;
    case ROLE_latent_raw: return d->dk + d->dv;
    default: return d->hidden;
    }
}

/* Random ops, one function a family. HAVE and ID need r and g in scope. */
#define HAVE(role) (r->n[ROLE_##role] > 0 || random_slip(r))
#define ID(role) ((buf_##role){random_id(r, ROLE_##role)})
#define PUT(role, value) random_put(r, ROLE_##role, (value).id)

static inline void random_projection(struct random_graph *r, struct graph *g, enum weight_role w)
{
    const struct sample_dims *d = &r->d;
    switch (w) {
#define P(weight, in, out)                                                                         \
    case WEIGHT_##weight:                                                                          \
        if (HAVE(in))                                                                              \
            PUT(out, push_##weight(g, ID(in),                                                      \
                                   WEIGHT(g, weight, random_dim(r, random_rows(d, w)),             \
                                          random_dim(r, random_cols(d, ROLE_##in)))));             \
        break;
        PROJECTIONS(P)
#undef P
    default: break;
    }
}

static inline void random_affine(struct random_graph *r, struct graph *g, enum weight_role w)
{
    const struct sample_dims *d = &r->d;
    uint32_t rows = random_rows(d, w);
    switch (w) {
#define A(weight, bias, in, out)                                                                   \
    case WEIGHT_##weight:                                                                          \
        if (HAVE(in))                                                                              \
            PUT(out, push_##weight##_biased(g, ID(in),                                             \
                                            WEIGHT(g, weight, rows, random_cols(d, ROLE_##in)),    \
                                            WEIGHT(g, bias, 1, random_dim(r, rows))));             \
        break;
        AFFINES(A)
#undef A
    default: break;
    }
}

/* Columns of a norm of rows of that role: a head, or sometimes all heads together. */
static inline uint32_t random_run(struct random_graph *r, enum role in)
{
    const struct sample_dims *d = &r->d;
    bool whole = r->below(r->source, 4) == 0;
    if (in == ROLE_k_raw && whole) return d->kv_heads * d->head_dim;
    return random_cols(d, in);
}

static inline void random_norm(struct random_graph *r, struct graph *g, enum weight_role w)
{
    switch (w) {
#define N(weight, in, out)                                                                         \
    case WEIGHT_##weight:                                                                          \
        if (HAVE(in))                                                                              \
            PUT(out, push_##weight(g, ID(in),                                                      \
                                   WEIGHT(g, weight, 1, random_dim(r, random_run(r, ROLE_##in))),  \
                                   1e-6f));                                                        \
        break;
        NORMS(N)
#undef N
    default: break;
    }
}

static inline void random_cache(struct random_graph *r, struct graph *g)
{
    if (!HAVE(k) || !HAVE(v) || r->n_ready == RANDOM_POOL) return;
    state_kv kv = graph_state_kv(g, random_dim(r, r->d.kv_heads), r->d.head_dim);
    state_kv_ready ready = PUSH(g, kv_append, .k = ID(k), .v = ID(v), .cache = kv);
    r->ready[r->n_ready++] = ready.id;
}

static inline void random_attention(struct random_graph *r, struct graph *g, uint32_t which)
{
    const struct sample_dims *d = &r->d;
    if (which == 0 && HAVE(q_stack)) {
        struct q_and_gate q =
            PUSH(g, split_q_gate, .x = ID(q_stack), .head_dim = random_dim(r, d->head_dim));
        PUT(q_raw, q.q);
        PUT(q_gate, q.gate);
    } else if (which == 1 && HAVE(q_normed) && HAVE(rope_table)) {
        PUT(q, push_rope_q(g, ID(q_normed), ID(rope_table), random_dim(r, d->head_dim),
                           random_dim(r, d->rotary_dim)));
    } else if (which == 2 && HAVE(k_normed) && HAVE(rope_table)) {
        PUT(k, push_rope_k(g, ID(k_normed), ID(rope_table), d->head_dim, d->rotary_dim));
    } else if (which == 6 && HAVE(q_raw) && HAVE(rope_table)) {
        PUT(q, push_rope_raw_q(g, ID(q_raw), ID(rope_table), d->head_dim, d->rotary_dim));
    } else if (which == 7 && HAVE(k_raw) && HAVE(rope_table)) {
        PUT(k, push_rope_raw_k(g, ID(k_raw), ID(rope_table), random_dim(r, d->head_dim),
                               d->rotary_dim));
    } else if (which == 3) {
        random_cache(r, g);
    } else if (which == 4 && HAVE(q) && r->n_ready) {
        state_kv_ready ready = {r->ready[r->below(r->source, r->n_ready)]};
        PUT(attn_out, PUSH(g, attention, .q = ID(q), .cache = ready,
                           .n_heads = random_dim(r, d->heads), .scale = 0.5f));
    } else if (which == 8 && HAVE(q) && r->n_ready) {
        state_kv_ready ready = {r->ready[r->below(r->source, r->n_ready)]};
        PUT(attn_out, PUSH(g, sink_attention, .q = ID(q), .cache = ready,
                           .sinks = WEIGHT(g, sinks, 1, random_dim(r, d->heads)),
                           .n_heads = d->heads, .scale = 0.5f, .window = 3));
    } else if (which == 5 && HAVE(attn_out) && HAVE(q_gate)) {
        PUT(attn_gated, PUSH(g, sigmoid_gate, .x = ID(attn_out), .gate = ID(q_gate)));
    }
}

/* Latents have rank dk + dv; queries are compressed to dv. */
static inline void random_latent(struct random_graph *r, struct graph *g, uint32_t which)
{
    const struct sample_dims *d = &r->d;
    uint32_t rank = d->dk + d->dv;
    if (which == 0 && HAVE(mla_q)) {
        struct mla_q_parts q =
            PUSH(g, split_mla_q, .x = ID(mla_q), .n_heads = random_dim(r, d->heads),
                 .rotated = random_dim(r, d->rotary_dim));
        PUT(q_nope, q.nope);
        PUT(q_rot_raw, q.rot);
    } else if (which == 1 && HAVE(latent_stack)) {
        struct latent_parts kv =
            PUSH(g, split_latent, .x = ID(latent_stack), .rank = random_dim(r, rank));
        PUT(latent_raw, kv.latent);
        PUT(k_rot_raw, kv.rot);
    } else if (which == 2 && HAVE(q_rot_raw) && HAVE(rope_table)) {
        PUT(q_rot, push_rope_as_q_rot(g, ID(q_rot_raw), ID(rope_table), d->rotary_dim,
                                      random_dim(r, d->rotary_dim), d->dk > d->dv));
    } else if (which == 3 && HAVE(k_rot_raw) && HAVE(rope_table)) {
        PUT(k_rot, push_rope_k_rot(g, ID(k_rot_raw), ID(rope_table), random_dim(r, d->rotary_dim),
                                   d->rotary_dim));
    } else if (which == 4 && HAVE(latent) && HAVE(k_rot) && r->n_latent_ready < RANDOM_POOL) {
        state_latent cache = graph_state_latent(g, random_dim(r, rank), d->rotary_dim);
        r->latent_ready[r->n_latent_ready++] =
            PUSH(g, latent_append, .latent = ID(latent), .rot = ID(k_rot), .cache = cache).id;
    } else if (which == 5 && HAVE(q_nope)) {
        PUT(q_absorbed, PUSH(g, absorb, .x = ID(q_nope), .n_heads = random_dim(r, d->heads),
                             .w = HEAD_WEIGHTS(g, k_b_proj, random_dim(r, d->heads), d->head_dim,
                                               random_dim(r, rank))));
    } else if (which == 6 && HAVE(q_absorbed) && HAVE(q_rot) && r->n_latent_ready) {
        state_latent_ready ready = {r->latent_ready[r->below(r->source, r->n_latent_ready)]};
        PUT(latent_out, PUSH(g, latent_attention, .q = ID(q_absorbed), .rot = ID(q_rot),
                             .cache = ready, .n_heads = random_dim(r, d->heads), .scale = 0.5f));
    } else if (which == 7 && HAVE(latent_out)) {
        PUT(attn_out, PUSH(g, expand, .x = ID(latent_out), .n_heads = random_dim(r, d->heads),
                           .w = HEAD_WEIGHTS(g, v_b_proj, d->heads, random_dim(r, d->head_dim),
                                             random_dim(r, rank))));
    }
}

static inline void random_delta(struct random_graph *r, struct graph *g, uint32_t which)
{
    const struct sample_dims *d = &r->d;
    uint32_t channels = 2 * d->k_heads * d->dk + d->v_heads * d->dv;
    if (which == 0 && HAVE(qkv_stack)) {
        state_conv state = graph_state_conv(g, random_dim(r, d->conv_width), channels);
        PUT(conv_out, PUSH(g, conv, .x = ID(qkv_stack),
                           .w = WEIGHT(g, conv, d->conv_width, channels), .state = state));
    } else if (which == 5 && HAVE(qkvz_stack)) {
        struct qkv_and_z split = PUSH(g, split_qkvz, .x = ID(qkvz_stack),
                                      .n_k_heads = random_dim(r, d->k_heads), .dk = d->dk);
        PUT(qkv_stack, split.qkv);
        PUT(z_stack, split.z);
    } else if (which == 6 && HAVE(ba_stack)) {
        struct beta_and_alpha split =
            PUSH(g, split_ba, .x = ID(ba_stack), .n_k_heads = random_dim(r, d->k_heads));
        PUT(beta_stack, split.beta);
        PUT(alpha_stack, split.alpha);
    } else if (which == 1 && HAVE(conv_out)) {
        PUT(delta_qkv,
            PUSH(g, delta_norm, .x = ID(conv_out), .n_k_heads = random_dim(r, d->k_heads),
                 .dk = random_dim(r, d->dk), .eps = 1e-6f));
    } else if (which == 2 && HAVE(alpha_stack) && HAVE(beta_stack)) {
        struct decay_and_beta db = PUSH(
            g, decay_beta, .alpha = ID(alpha_stack), .beta = ID(beta_stack),
            .neg_a = WEIGHT(g, neg_a, 1, d->v_heads), .dt_bias = WEIGHT(g, dt_bias, 1, d->v_heads));
        PUT(g_decay, db.g);
        PUT(beta_gate, db.b);
    } else if (which == 3 && HAVE(delta_qkv) && HAVE(g_decay)) {
        state_delta state = graph_state_delta(g, d->v_heads, random_dim(r, d->dv), d->dk);
        PUT(delta_out,
            PUSH(g, delta_net, .x = ID(delta_qkv), .g = ID(g_decay), .b = ID(beta_gate),
                 .state = state, .n_k_heads = random_dim(r, d->k_heads), .tiled = d->dk > d->dv));
    } else if (which == 4 && HAVE(delta_out) && HAVE(z_stack)) {
        PUT(value_out, PUSH(g, gated_norm, .x = ID(delta_out), .z = ID(z_stack),
                            .w = WEIGHT(g, delta_norm, 1, d->dv), .eps = 1e-6f));
    }
}

static inline void random_experts(struct random_graph *r, struct graph *g, uint32_t which)
{
    const struct sample_dims *d = &r->d;
    if (which == 0 && HAVE(router_logits)) {
        struct picks picks =
            PUSH(g, router, .logits = ID(router_logits), .k = random_dim(r, d->picks));
        PUT(router_ids, picks.ids);
        PUT(router_weights, picks.weights);
    } else if (which == 6 && HAVE(router_logits)) {
        struct picks picks =
            PUSH(g, sigmoid_router, .logits = ID(router_logits),
                 .correction = WEIGHT(g, router_correction, 1, random_dim(r, d->experts)),
                 .k = random_dim(r, d->picks), .n_groups = random_dim(r, 1), .top_groups = 1);
        PUT(router_ids, picks.ids);
        PUT(router_weights, picks.weights);
    } else if (which == 7 && HAVE(stream)) {
        PUSH(g, guess_by_sigmoid, .x = ID(stream), .norm = WEIGHT(g, moe_norm, 1, d->hidden),
             .router = WEIGHT(g, router_proj, d->experts, d->hidden),
             .correction = WEIGHT(g, router_correction, 1, d->experts),
             .bank = graph_experts(g, random_dim(r, d->experts), d->expert_inter, d->hidden),
             .k = random_dim(r, d->picks), .n_groups = 1, .top_groups = random_dim(r, 1),
             .eps = 1e-6f);
    } else if (which == 1 && HAVE(router_ids)) {
        struct grouped_picks grouped =
            PUSH(g, group_picks, .ids = ID(router_ids), .n_experts = random_dim(r, d->experts));
        PUT(expert_offsets, grouped.offsets);
        PUT(expert_rows, grouped.rows);
        PUT(pick_places, grouped.places);
    } else if (which == 2 && HAVE(moe_input) && HAVE(expert_rows)) {
        PUT(expert_input, PUSH(g, gather_rows, .x = ID(moe_input), .rows = ID(expert_rows)));
    } else if (which == 3 && HAVE(expert_input) && HAVE(expert_offsets)) {
        uint32_t n = random_dim(r, d->experts);
        bool biased = r->below(r->source, 2);
        wt_experts bank = biased ? graph_biased_experts(g, n, d->expert_inter, d->hidden)
                                 : graph_experts(g, n, d->expert_inter, d->hidden);
        PUT(expert_out, PUSH(g, experts, .x = ID(expert_input), .offsets = ID(expert_offsets),
                             .bank = bank, .limit = biased ? 7 : 0));
    } else if (which == 5 && HAVE(stream)) {
        PUSH(g, guess_experts, .x = ID(stream), .norm = WEIGHT(g, moe_norm, 1, d->hidden),
             .router = WEIGHT(g, router_proj, d->experts, d->hidden),
             .bank = graph_experts(g, random_dim(r, d->experts), d->expert_inter, d->hidden),
             .k = random_dim(r, d->picks), .eps = 1e-6f);
    } else if (which == 4 && HAVE(expert_out) && HAVE(router_weights)) {
        PUT(moe_sum, PUSH(g, expert_sum, .x = ID(expert_out), .places = ID(pick_places),
                          .weights = ID(router_weights)));
    }
}

/* The new value of the residual stream is the only one that may be read from now on. */
static inline void random_stream(struct random_graph *r, buf_stream x)
{
    r->n[ROLE_stream] = 0;
    PUT(stream, x);
}

static inline void random_block(struct random_graph *r, struct graph *g, uint32_t which)
{
    if (which == 0 && HAVE(stream) && HAVE(attn_proj)) {
        PUT(residual, PUSH(g, residual_add, .stream = ID(stream), .delta = ID(attn_proj)));
    } else if (which == 1 && HAVE(shared_ffn_gate) && HAVE(shared_ffn_up)) {
        PUT(shared_ffn_act, push_shared_swiglu(g, ID(shared_ffn_gate), ID(shared_ffn_up)));
    } else if (which == 3 && HAVE(mlp_gate) && HAVE(mlp_up)) {
        PUT(mlp_act, push_mlp_swiglu(g, ID(mlp_gate), ID(mlp_up)));
    } else if (which == 4 && HAVE(residual) && HAVE(moe_sum) && HAVE(shared_out)) {
        random_stream(r, as_stream(PUSH(g, combine_ungated, .residual = ID(residual),
                                        .moe = ID(moe_sum), .shared = ID(shared_out))));
    } else if (which == 5 && HAVE(residual) && (HAVE(mlp_out) || HAVE(moe_sum))) {
        buf_layer_delta delta =
            HAVE(mlp_out) ? as_layer_delta(ID(mlp_out)) : as_layer_delta(ID(moe_sum));
        random_stream(r, as_stream(PUSH(g, layer_add, .residual = ID(residual), .delta = delta)));
    } else if (which == 2 && HAVE(residual) && HAVE(moe_sum) && HAVE(shared_out) &&
               HAVE(shared_gate)) {
        random_stream(r, as_stream(PUSH(g, combine, .residual = ID(residual), .moe = ID(moe_sum),
                                        .shared = ID(shared_out), .gate = ID(shared_gate))));
    }
}

struct random_step {
    char family; /* p: projection, f: with a bias, n: norm, a, l, d, e, b: the functions above */
    uint8_t which;
};

/* The ops of a layer in an order in which each finds what it needs. */
static const struct random_step random_steps[] = {
    {'e', 5},
    {'e', 7},
    {'n', WEIGHT_attn_norm},
    {'p', WEIGHT_qg_proj},
    {'f', WEIGHT_qg_proj},
    {'p', WEIGHT_q_proj},
    {'f', WEIGHT_q_proj},
    {'f', WEIGHT_k_proj},
    {'f', WEIGHT_v_proj},
    {'p', WEIGHT_k_proj},
    {'p', WEIGHT_v_proj},
    {'a', 0},
    {'n', WEIGHT_q_norm},
    {'n', WEIGHT_k_norm},
    {'a', 1},
    {'a', 2},
    {'a', 6},
    {'a', 7},
    {'a', 3},
    {'a', 4},
    {'a', 5},
    {'a', 8},
    {'p', WEIGHT_q_a_proj},
    {'n', WEIGHT_q_a_norm},
    {'p', WEIGHT_q_b_proj},
    {'p', WEIGHT_mla_q_proj},
    {'p', WEIGHT_kv_a_proj},
    {'l', 0},
    {'l', 1},
    {'n', WEIGHT_kv_a_norm},
    {'l', 2},
    {'l', 3},
    {'l', 4},
    {'l', 5},
    {'l', 6},
    {'l', 7},
    {'p', WEIGHT_og_proj},
    {'f', WEIGHT_og_proj},
    {'p', WEIGHT_o_proj},
    {'f', WEIGHT_o_proj},
    {'p', WEIGHT_qkvz_proj},
    {'p', WEIGHT_ba_proj},
    {'d', 5},
    {'d', 6},
    {'p', WEIGHT_qkv_proj},
    {'p', WEIGHT_z_proj},
    {'p', WEIGHT_alpha_proj},
    {'p', WEIGHT_beta_proj},
    {'d', 0},
    {'d', 1},
    {'d', 2},
    {'d', 3},
    {'d', 4},
    {'p', WEIGHT_delta_proj},
    {'b', 0},
    {'n', WEIGHT_mlp_norm},
    {'p', WEIGHT_mlp_gate_proj},
    {'p', WEIGHT_mlp_up_proj},
    {'b', 3},
    {'p', WEIGHT_mlp_down_proj},
    {'n', WEIGHT_moe_norm},
    {'p', WEIGHT_router_proj},
    {'f', WEIGHT_router_proj},
    {'e', 0},
    {'e', 6},
    {'e', 1},
    {'e', 2},
    {'e', 3},
    {'e', 4},
    {'p', WEIGHT_shared_gate_proj},
    {'p', WEIGHT_shared_ffn_gate_proj},
    {'p', WEIGHT_shared_ffn_up_proj},
    {'b', 1},
    {'p', WEIGHT_shared_ffn_down_proj},
    {'b', 2},
    {'b', 4},
    {'b', 5},
};

static inline void random_op(struct random_graph *r, struct random_step step)
{
    switch (step.family) {
    case 'p': random_projection(r, r->g, (enum weight_role)step.which); break;
    case 'f': random_affine(r, r->g, (enum weight_role)step.which); break;
    case 'n': random_norm(r, r->g, (enum weight_role)step.which); break;
    case 'a': random_attention(r, r->g, step.which); break;
    case 'l': random_latent(r, r->g, step.which); break;
    case 'd': random_delta(r, r->g, step.which); break;
    case 'e': random_experts(r, r->g, step.which); break;
    case 'b': random_block(r, r->g, step.which); break;
    }
}

/* Once or more through the steps in order; each is left out, taken, taken twice, or swapped. */
static inline void random_ops(struct random_graph *r)
{
    uint32_t n = COUNT_OF(random_steps);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t how = r->below(r->source, 12);
        if (how == 0) continue;
        if (how == 1) random_op(r, random_steps[r->below(r->source, n)]);
        if (how == 2) random_op(r, random_steps[i]);
        random_op(r, random_steps[i]);
    }
}

/* Another layer starts: what the last one made is out of reach, but for the residual stream. */
static inline void random_layer(struct random_graph *r, uint32_t layer)
{
    graph_set_layer(r->g, layer);
    for (uint32_t role = 0; role < ROLE_COUNT; role++)
        if (role != ROLE_stream && role != ROLE_rope_table && role != ROLE_output_rows)
            r->n[role] = 0;
    r->n_ready = r->n_latent_ready = 0;
}

static inline void random_tail(struct random_graph *r, struct graph *g)
{
    random_layer(r, UINT32_MAX);
    if (!HAVE(stream)) return;
    PUT(tail_hidden, PUSH(g, select_rows, .x = ID(stream), .rows = ID(output_rows)));
    random_norm(r, g, WEIGHT_tail_norm);
    random_projection(r, g, WEIGHT_lm_head);
}

/* Keeps what nobody reads, as the rules of a finished graph demand, and some more; no scratch. */
static inline void random_keep(struct random_graph *r, struct graph *g)
{
    uint8_t *read = calloc(g->buffers.n + 1, 1);
    if (!read) abort();
    for (size_t n = 0; n < g->nodes.n; n++) {
        const struct node *node = &g->nodes.items[n];
        const struct op_info *info = op_info(node->op);
        for (uint32_t i = 0; i < info->n_operands; i++) {
            const struct operand *o = &info->operands[i];
            uint32_t b;
            if (o->kind == OPERAND_BUFFER && o->mode != MODE_OUT &&
                graph_buffer_index(g, operand_id(node, o), &b))
                read[b] = o->mode == MODE_SCRATCH ? 2 : 1;
        }
    }
    for (uint32_t b = 0; b < g->buffers.n; b++)
        if (!random_slip(r) && (!read[b] || (read[b] == 1 && r->below(r->source, 16) == 0)))
            graph_keep_id(g, g->generation << 20 | (b + 1));
    free(read);
}

/* Writes a graph of up to n_layers layers, each up to n_rounds times longer; it is not finished. */
static inline void random_graph(struct random_graph *r, uint32_t n_layers, uint32_t n_rounds)
{
    struct graph *g = r->g;
    r->d = random_dims(r);
    buf_token_ids ids = graph_token_ids(g);
    PUT(output_rows, graph_output_rows(g));
    buf_rope_freqs freqs = graph_rope_freqs(g, random_dim(r, r->d.rotary_dim));
    PUT(rope_table, PUSH(g, rope_angles, .freqs = freqs, .scale = 1));
    wt_embed table = WEIGHT(g, embed, r->d.vocab, random_dim(r, r->d.hidden));
    random_stream(r, as_stream(PUSH(g, embed, .ids = ids, .table = table)));
    n_layers = r->below(r->source, n_layers + 1);
    for (uint32_t l = 0; l < n_layers; l++) {
        random_layer(r, l);
        for (uint32_t i = r->below(r->source, n_rounds + 1); i > 0; i--) random_ops(r);
    }
    if (r->below(r->source, 4)) random_tail(r, g);
    random_keep(r, g);
}

#undef HAVE
#undef ID
#undef PUT

#endif
