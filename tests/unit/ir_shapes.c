/* Push functions: every shape rule, and what it says. */
#include "graph_parts.h"
#include "ir/build.h"

static void test_shapes_of_the_stream(void)
{
    FAILS("graph: layer 3: attn_norm: width of the weight is 8 where 16 is needed",
          push_attn_norm(g, p.x, WEIGHT(g, attn_norm, 1, 8), 1e-6f));
    FAILS("graph: layer 3: attn_norm: row width is 16 where 17 is needed",
          push_attn_norm(g, p.x, WEIGHT(g, attn_norm, 1, 17), 1e-6f));
    FAILS("graph: layer 3: moe_norm: width of the weight is 4 where 16 is needed",
          push_moe_norm(g, p.residual, WEIGHT(g, moe_norm, 1, 4), 1e-6f));
    FAILS("graph: layer 3: q_norm: width of the weight is 3 where 6 is needed",
          push_q_norm(g, p.q.q, WEIGHT(g, q_norm, 1, 3), 1e-6f));
    FAILS("graph: layer 3: k_norm: row width is 12 where 5 is needed",
          push_k_norm(g, push_k_proj(g, p.in, WEIGHT(g, k_proj, KV_WIDTH, HIDDEN)),
                      WEIGHT(g, k_norm, 1, 5), 1e-6f));
    FAILS("graph: layer 3: residual_add: width of delta is 15 where 16 is needed",
          PUSH(g, residual_add, .stream = p.x,
               .delta = push_og_proj(
                   g,
                   PUSH(g, sigmoid_gate,
                        .x = PUSH(g, attention, .q = push_rope_q(g, p.q_normed, p.table, 6, 4),
                                  .cache = PUSH(g, kv_append,
                                                .k = push_rope_k(g, p.k_normed, p.table, 6, 4),
                                                .v = p.v, .cache = graph_state_kv(g, 2, 6)),
                                  .n_heads = 4),
                        .gate = p.q.gate),
                   WEIGHT(g, og_proj, 15, Q_WIDTH))));
    FAILS("graph: layer 3: tail_norm: width of the weight is 2 where 16 is needed",
          buf_tail_hidden t = PUSH(g, select_rows, .x = p.x, .rows = graph_output_rows(g));
          push_tail_norm(g, t, WEIGHT(g, tail_norm, 1, 2), 1e-6f));
}

/* Every projection refuses rows of another width than its weight has columns. */
static void test_shapes_of_projections(void)
{
#define P(weight, in, out)                                                                         \
    FAILS(                                                                                         \
        "graph: layer 3: " #weight ": row width is 21 where 20 is needed",                         \
        push_##weight(g, (buf_##in){build_buffer(g, ROLE_##in, 21)}, WEIGHT(g, weight, 30, 20)));
    PROJECTIONS(P)
#undef P
}

static void test_shapes_of_biases(void)
{
#define A(weight, bias, in, out)                                                                   \
    FAILS("graph: layer 3: " #weight ": row width is 21 where 20 is needed",                       \
          push_##weight##_biased(g, (buf_##in){build_buffer(g, ROLE_##in, 21)},                    \
                                 WEIGHT(g, weight, 30, 20), WEIGHT(g, bias, 1, 30)));              \
    FAILS("graph: layer 3: " #weight ": width of the bias is 29 where 30 is needed",               \
          push_##weight##_biased(g, (buf_##in){build_buffer(g, ROLE_##in, 20)},                    \
                                 WEIGHT(g, weight, 30, 20), WEIGHT(g, bias, 1, 29)));
    AFFINES(A)
#undef A
}

static void test_roles_of_biases(void)
{
    FAILS("graph: layer 3: v_proj: k_bias where v_bias is meant",
          wt_k_bias b = WEIGHT(g, k_bias, 1, 30);
          push_v_proj_biased(g, p.in, WEIGHT(g, v_proj, 30, HIDDEN), (wt_v_bias){b.id}));
}

static void test_shapes_of_rope(void)
{
    FAILS("graph: layer 3: split_q_gate: row width is 48 where 14 is needed",
          PUSH(g, split_q_gate, .x = p.q_stack, .head_dim = 7));
    FAILS("graph: layer 3: split_q_gate: row width is 48 where 0 is needed",
          PUSH(g, split_q_gate, .x = p.q_stack));
    FAILS("graph: layer 3: split_q_gate: 2 x 2147483649 is more than a row can have",
          PUSH(g, split_q_gate, .x = p.q_stack, .head_dim = (1u << 31) + 1));
    FAILS("graph: layer 3: rope: row width is 24 where 7 is needed",
          push_rope_q(g, p.q_normed, p.table, 7, 4));
    FAILS("graph: layer 3: rope: row width is 12 where 0 is needed",
          push_rope_k(g, p.k_normed, p.table, 0, 4));
    FAILS("graph: layer 3: rope: rotary_dim is 8 where 6 is needed",
          push_rope_q(g, p.q_normed, p.table, HEAD_DIM, 8));
    FAILS("graph: layer 3: rope: width of the table is 4 where 2 is needed",
          push_rope_k(g, p.k_normed, p.table, HEAD_DIM, 2));
    FAILS("graph: layer 3: rope: head_dim is 12 where 6 is needed",
          push_rope_q(g, p.q_normed, p.table, 12, 4));
    FAILS("graph: layer 3: rope_freqs: the buffer would have rows of no elements",
          PUSH(g, rope_angles, .freqs = graph_rope_freqs(g, 1), .scale = 1));
    FAILS("graph: layer 3: rope_angles: a scale that is not above 0",
          PUSH(g, rope_angles, .freqs = graph_rope_freqs(g, 4)));
}

/* Without gates or norms, or with a norm over all heads, the head's size is only divided by. */
static void test_shapes_of_plain_rope(void)
{
    FAILS("graph: layer 3: rope: row width is 24 where 7 is needed",
          push_rope_raw_q(g, push_q_proj(g, p.in, WEIGHT(g, q_proj, Q_WIDTH, HIDDEN)), p.table, 7,
                          4));
    FAILS("graph: layer 3: rope: row width is 12 where 0 is needed",
          push_rope_raw_k(g, push_k_proj(g, p.in, WEIGHT(g, k_proj, KV_WIDTH, HIDDEN)), p.table, 0,
                          4));
    FAILS("graph: layer 3: q_norm: row width is 24 where 7 is needed",
          push_q_norm(g, push_q_proj(g, p.in, WEIGHT(g, q_proj, Q_WIDTH, HIDDEN)),
                      WEIGHT(g, q_norm, 1, 7), 1e-6f));
    FAILS("graph: layer 3: rope: head_dim is 6 where 12 is needed",
          buf_q_raw raw = push_q_proj(g, p.in, WEIGHT(g, q_proj, Q_WIDTH, HIDDEN));
          push_rope_q(g, push_q_norm(g, raw, WEIGHT(g, q_norm, 1, 12), 1e-6f), p.table, 6, 4));
}

static void push_cache(struct parts *p, uint32_t n_kv_heads, uint32_t head_dim)
{
    struct graph *g = &p->g;
    buf_k k = push_rope_k(g, p->k_normed, p->table, HEAD_DIM, ROTARY);
    state_kv cache = graph_state_kv(g, n_kv_heads, head_dim);
    PUSH(g, kv_append, .k = k, .v = p->v, .cache = cache);
}

static void push_attended(struct parts *p, uint32_t n_kv_heads, uint32_t head_dim, uint32_t n_heads)
{
    struct graph *g = &p->g;
    state_kv_ready ready = {graph_state_kv(g, n_kv_heads, head_dim).id};
    buf_q q = push_rope_q(g, p->q_normed, p->table, HEAD_DIM, ROTARY);
    PUSH(g, attention, .q = q, .cache = ready, .n_heads = n_heads);
}

static void test_shapes_of_attention(void)
{
    FAILS("graph: layer 3: kv_append: width of k is 12 where 18 is needed", push_cache(&p, 3, 6));
    FAILS("graph: layer 3: kv_append: head_dim of k is 6 where 4 is needed", push_cache(&p, 3, 4));
    FAILS("graph: layer 3: kv_append: 65536 x 65536 is more than a row can have",
          push_cache(&p, 65536, 65536));
    FAILS("graph: layer 3: kv_append: width of v is 13 where 12 is needed",
          p.v = push_v_proj(g, p.in, WEIGHT(g, v_proj, 13, HIDDEN));
          push_cache(&p, 2, 6));
    FAILS("graph: layer 3: attention: width of q is 24 where 30 is needed",
          push_attended(&p, 2, 6, 5));
    FAILS("graph: layer 3: attention: head_dim of q is 6 where 8 is needed",
          push_attended(&p, 2, 8, 3));
    FAILS("graph: layer 3: attention: query heads is 4 where 3 is needed",
          push_attended(&p, 3, 6, 4));
    FAILS("graph: layer 3: attention: 4294967295 x 6 is more than a row can have",
          push_attended(&p, 2, 6, UINT32_MAX));
    FAILS("graph: layer 3: sigmoid_gate: width of the gate is 12 where 24 is needed",
          struct q_and_gate other =
              PUSH(g, split_q_gate, .x = push_qg_proj(g, p.in, WEIGHT(g, qg_proj, 24, HIDDEN)),
                   .head_dim = HEAD_DIM);
          buf_attn_out x = {build_buffer(g, ROLE_attn_out, Q_WIDTH)};
          PUSH(g, sigmoid_gate, .x = x, .gate = other.gate));
}

static buf_conv_out push_convolved(struct graph *g, buf_attn_input in)
{
    buf_qkv_stack x = push_qkv_proj(g, in, WEIGHT(g, qkv_proj, CHANNELS, HIDDEN));
    return PUSH(g, conv, .x = x, .w = WEIGHT(g, conv, 4, CHANNELS),
                .state = graph_state_conv(g, 4, CHANNELS));
}

static void test_shapes_of_convolution(void)
{
#define CONV(rows, cols, width, channels)                                                          \
    buf_qkv_stack x = push_qkv_proj(g, p.in, WEIGHT(g, qkv_proj, CHANNELS, HIDDEN));               \
    PUSH(g, conv, .x = x, .w = WEIGHT(g, conv, rows, cols),                                        \
         .state = graph_state_conv(g, width, channels))
    FAILS("graph: layer 3: conv: channels is 32 where 33 is needed", CONV(4, 33, 4, 33));
    FAILS("graph: layer 3: conv: rows of state is 4 where 3 is needed", CONV(4, 32, 5, 32));
    FAILS("graph: layer 3: conv: channels of state is 31 where 32 is needed", CONV(4, 32, 4, 31));
    FAILS("graph: layer 3: conv: a convolution of width 0", graph_state_conv(g, 0, 3));
#undef CONV
#define NORM(heads, dk_)                                                                           \
    PUSH(g, delta_norm, .x = push_convolved(g, p.in), .n_k_heads = heads, .dk = dk_)
    FAILS("graph: layer 3: delta_norm: width of q and k is 32 where 32 is needed", NORM(4, 4));
    FAILS("graph: layer 3: delta_norm: width of q and k is 0 where 32 is needed", NORM(4, 0));
    FAILS("graph: layer 3: delta_norm: 8 x 1073741824 is more than a row can have",
          NORM(4, 1u << 30));
    FAILS("graph: layer 3: delta_norm: 2 x 2147483648 is more than a row can have",
          NORM(1u << 31, 2));
#undef NORM
}

static struct decay_and_beta push_gates(struct parts *p, const uint32_t *width)
{
    struct graph *g = &p->g;
    return PUSH(g, decay_beta,
                .alpha = push_alpha_proj(g, p->in, WEIGHT(g, alpha_proj, width[0], HIDDEN)),
                .beta = push_beta_proj(g, p->in, WEIGHT(g, beta_proj, width[1], HIDDEN)),
                .neg_a = WEIGHT(g, neg_a, 1, width[2]), .dt_bias = WEIGHT(g, dt_bias, 1, width[3]));
}

struct delta_dims {
    uint32_t n_k_heads, n_v_heads, dv, dk, gates;
};

static buf_delta_out push_read_out(struct parts *p, struct delta_dims s)
{
    struct graph *g = &p->g;
    buf_delta_qkv x =
        PUSH(g, delta_norm, .x = push_convolved(g, p->in), .n_k_heads = 2, .dk = 3, .eps = 1e-6f);
    struct decay_and_beta gates = push_gates(p, (uint32_t[]){s.gates, s.gates, s.gates, s.gates});
    return PUSH(g, delta_net, .x = x, .g = gates.g, .b = gates.b,
                .state = graph_state_delta(g, s.n_v_heads, s.dv, s.dk), .n_k_heads = s.n_k_heads);
}

static void test_shapes_of_delta_net(void)
{
    FAILS("graph: layer 3: decay_beta: width of beta is 5 where 4 is needed",
          push_gates(&p, (uint32_t[]){4, 5, 4, 4}));
    FAILS("graph: layer 3: decay_beta: width of neg_a is 5 where 4 is needed",
          push_gates(&p, (uint32_t[]){4, 4, 5, 4}));
    FAILS("graph: layer 3: decay_beta: width of dt_bias is 5 where 4 is needed",
          push_gates(&p, (uint32_t[]){4, 4, 4, 5}));
    FAILS("graph: layer 3: delta_net: k heads is 1 where 2 is needed",
          push_read_out(&p, (struct delta_dims){1, 4, 5, 3, 4}));
    FAILS("graph: layer 3: delta_net: dk of the state is 4 where 3 is needed",
          push_read_out(&p, (struct delta_dims){2, 4, 5, 4, 4}));
    FAILS("graph: layer 3: delta_net: width of v is 20 where 24 is needed",
          push_read_out(&p, (struct delta_dims){2, 4, 6, 3, 4}));
    FAILS("graph: layer 3: delta_net: 65536 x 65536 is more than a row can have",
          push_read_out(&p, (struct delta_dims){2, 65536, 65536, 3, 4}));
    FAILS("graph: layer 3: delta_net: decay factors is 3 where 4 is needed",
          push_read_out(&p, (struct delta_dims){2, 4, 5, 3, 3}));
    FAILS("graph: layer 3: delta_net: v heads is 5 where 2 is needed",
          push_read_out(&p, (struct delta_dims){2, 5, 4, 3, 5}));
    FAILS("graph: layer 3: delta_net: write strengths is 3 where 4 is needed",
          buf_delta_qkv x =
              PUSH(g, delta_norm, .x = push_convolved(g, p.in), .n_k_heads = 2, .dk = 3);
          struct decay_and_beta a = push_gates(&p, (uint32_t[]){4, 4, 4, 4});
          struct decay_and_beta b = push_gates(&p, (uint32_t[]){3, 3, 3, 3});
          PUSH(g, delta_net, .x = x, .g = a.g, .b = b.b, .state = graph_state_delta(g, 4, 5, 3),
               .n_k_heads = 2));
#define GATED(z_width, w_cols)                                                                     \
    buf_delta_out x = push_read_out(&p, (struct delta_dims){2, 4, 5, 3, 4});                       \
    buf_z_stack z = push_z_proj(g, p.in, WEIGHT(g, z_proj, z_width, HIDDEN));                      \
    PUSH(g, gated_norm, .x = x, .z = z, .w = WEIGHT(g, delta_norm, 1, w_cols))
    FAILS("graph: layer 3: gated_norm: width of the gate is 19 where 20 is needed", GATED(19, 5));
    FAILS("graph: layer 3: gated_norm: width of the weight is 4 where 5 is needed",
          GATED(VALUES, 4));
#undef GATED
}

static void test_shapes_of_fused_inputs(void)
{
#define QKVZ(width, heads, dk_)                                                                    \
    buf_qkvz_stack x = push_qkvz_proj(g, p.in, WEIGHT(g, qkvz_proj, width, HIDDEN));               \
    PUSH(g, split_qkvz, .x = x, .n_k_heads = heads, .dk = dk_)
    FAILS("graph: layer 3: split_qkvz: width of q and k is 12 where 12 is needed", QKVZ(12, 2, 3));
    FAILS("graph: layer 3: split_qkvz: width of q and k is 0 where 52 is needed", QKVZ(52, 2, 0));
    FAILS("graph: layer 3: split_qkvz: width of v and z is 38 where 4 is needed", QKVZ(50, 2, 3));
    FAILS("graph: layer 3: split_qkvz: 4 x 1073741824 is more than a row can have",
          QKVZ(52, 2, 1u << 30));
#undef QKVZ
#define BA(width, heads)                                                                           \
    buf_ba_stack x = push_ba_proj(g, p.in, WEIGHT(g, ba_proj, width, HIDDEN));                     \
    PUSH(g, split_ba, .x = x, .n_k_heads = heads)
    FAILS("graph: layer 3: split_ba: row width is 8 where 6 is needed", BA(8, 3));
    FAILS("graph: layer 3: split_ba: row width is 8 where 0 is needed", BA(8, 0));
#undef BA
}

/* The inputs of a layer with 2 key heads and dk 3, split by others. */
static void push_split_by(struct parts *p, uint32_t heads, uint32_t dk)
{
    struct graph *g = &p->g;
    buf_qkvz_stack x = push_qkvz_proj(g, p->in, WEIGHT(g, qkvz_proj, 52, HIDDEN));
    struct qkv_and_z split = PUSH(g, split_qkvz, .x = x, .n_k_heads = heads, .dk = dk);
    buf_conv_out conv = PUSH(g, conv, .x = split.qkv, .w = WEIGHT(g, conv, 4, CHANNELS),
                             .state = graph_state_conv(g, 4, CHANNELS));
    PUSH(g, delta_norm, .x = conv, .n_k_heads = 2, .dk = 3, .eps = 1e-6f);
}

static void push_gates_by(struct parts *p, uint32_t heads)
{
    struct graph *g = &p->g;
    buf_delta_qkv x = PUSH(g, delta_norm, .x = push_convolved(g, p->in), .n_k_heads = 2, .dk = 3);
    struct beta_and_alpha split =
        PUSH(g, split_ba, .x = push_ba_proj(g, p->in, WEIGHT(g, ba_proj, 8, HIDDEN)),
             .n_k_heads = heads);
    struct decay_and_beta gates =
        PUSH(g, decay_beta, .alpha = split.alpha, .beta = split.beta,
             .neg_a = WEIGHT(g, neg_a, 1, 4), .dt_bias = WEIGHT(g, dt_bias, 1, 4));
    PUSH(g, delta_net, .x = x, .g = gates.g, .b = gates.b, .state = graph_state_delta(g, 4, 5, 3),
         .n_k_heads = 2);
}

static void test_heads_of_fused_inputs(void)
{
    FAILS("graph: layer 3: delta_norm: k heads is 2 where 1 is needed", push_split_by(&p, 1, 6));
    FAILS("graph: layer 3: delta_net: k heads of the gates is 2 where 1 is needed",
          push_gates_by(&p, 1));
}

static struct picks push_picks(struct parts *p, uint32_t n_experts, uint32_t k)
{
    struct graph *g = &p->g;
    buf_router_logits scores =
        push_router_proj(g, p->moe, WEIGHT(g, router_proj, n_experts, HIDDEN));
    return PUSH(g, router, .logits = scores, .k = k);
}

static struct grouped_picks push_grouped(struct parts *p, uint32_t n_experts)
{
    struct picks picks = push_picks(p, EXPERTS, PICKS);
    return PUSH(&p->g, group_picks, .ids = picks.ids, .n_experts = n_experts);
}

static buf_expert_out push_routed(struct parts *p, uint32_t n_experts, uint32_t hidden)
{
    struct graph *g = &p->g;
    struct grouped_picks grouped = push_grouped(p, EXPERTS);
    buf_expert_input x = PUSH(g, gather_rows, .x = p->moe, .rows = grouped.rows);
    wt_experts bank = graph_experts(g, n_experts, 9, hidden);
    return PUSH(g, experts, .x = x, .offsets = grouped.offsets, .bank = bank);
}

static void test_shapes_of_routing(void)
{
    FAILS("graph: layer 3: router: experts per token is 0 where 7 is needed", push_picks(&p, 7, 0));
    FAILS("graph: layer 3: router: experts per token is 8 where 7 is needed", push_picks(&p, 7, 8));
    FAILS("graph: layer 3: router: experts per token is 2 where 3 is needed", push_picks(&p, 7, 3);
          push_picks(&p, 7, 2));
    FAILS("graph: layer 3: group_picks: number of experts is 8 where 7 is needed",
          push_grouped(&p, 8));
    FAILS("graph: layer 3: group_picks: number of experts is 0 where 7 is needed",
          push_grouped(&p, 0));
    FAILS("graph: layer 3: experts: row width is 16 where 17 is needed", push_routed(&p, 7, 17));
    FAILS("graph: layer 3: experts: offsets is 8 where 9 is needed", push_routed(&p, 8, 16));
    FAILS("graph: layer 3: expert_sum: picks is 2 where 3 is needed",
          buf_expert_out y = push_routed(&p, EXPERTS, HIDDEN);
          buf_router_weights w = {build_buffer(g, ROLE_router_weights, 3)};
          PUSH(g, expert_sum, .x = y,
               .places = (buf_pick_places){build_buffer(g, ROLE_pick_places, 2)}, .weights = w));
    FAILS("graph: layer 3: gather_rows: operand 'rows' is missing, stale or of another role",
          PUSH(g, gather_rows, .x = p.moe));
}

/* A sigmoid router of 12 experts: a correction, the picks and the groups. */
static void push_by_sigmoid(struct parts *p, uint32_t correction, uint32_t k, uint32_t n_groups,
                            uint32_t top_groups)
{
    struct graph *g = &p->g;
    buf_router_logits scores = push_router_proj(g, p->moe, WEIGHT(g, router_proj, 12, HIDDEN));
    struct picks picks = PUSH(g, sigmoid_router, .logits = scores,
                              .correction = WEIGHT(g, router_correction, 1, correction), .k = k,
                              .n_groups = n_groups, .top_groups = top_groups);
    PUSH(g, group_picks, .ids = picks.ids, .n_experts = 13);
}

static void test_shapes_of_groups(void)
{
#define NAME "graph: layer 3: sigmoid_router: "
    FAILS(NAME "experts per token is 13 where 12 is needed", push_by_sigmoid(&p, 12, 13, 1, 1));
    FAILS(NAME "width of the correction is 11 where 12 is needed",
          push_by_sigmoid(&p, 11, 2, 1, 1));
    FAILS(NAME "number of groups is 0 where 12 is needed", push_by_sigmoid(&p, 12, 2, 0, 1));
    FAILS(NAME "number of groups is 5 where 12 is needed", push_by_sigmoid(&p, 12, 2, 5, 1));
    FAILS(NAME "experts of a group is 1 where 2 is needed", push_by_sigmoid(&p, 12, 2, 12, 3));
    FAILS(NAME "chosen groups is 0 where 3 is needed", push_by_sigmoid(&p, 12, 2, 3, 0));
    FAILS(NAME "chosen groups is 4 where 3 is needed", push_by_sigmoid(&p, 12, 2, 3, 4));
    FAILS(NAME "experts of the chosen groups is 4 where 5 is needed",
          push_by_sigmoid(&p, 12, 5, 3, 1));
    FAILS("graph: layer 3: group_picks: number of experts is 13 where 12 is needed",
          push_by_sigmoid(&p, 12, 4, 3, 1));
#undef NAME
}

struct guess_dims {
    uint32_t norm, rows, cols, correction, experts, k;
};

static void push_guesses(struct parts *p, struct guess_dims d)
{
    struct graph *g = &p->g;
    PUSH(g, guess_by_sigmoid, .x = p->x, .norm = WEIGHT(g, moe_norm, 1, d.norm),
         .router = WEIGHT(g, router_proj, d.rows, d.cols),
         .correction = WEIGHT(g, router_correction, 1, d.correction),
         .bank = graph_experts(g, d.experts, 9, HIDDEN), .k = d.k, .n_groups = 1, .top_groups = 1);
}

static void test_shapes_of_guesses(void)
{
#define NAME "graph: layer 3: guess_by_sigmoid: "
    FAILS(NAME "width of the norm is 15 where 16 is needed",
          push_guesses(&p, (struct guess_dims){15, 7, 16, 7, 7, 3}));
    FAILS(NAME "row width is 16 where 15 is needed",
          push_guesses(&p, (struct guess_dims){16, 7, 15, 7, 7, 3}));
    FAILS(NAME "number of experts is 7 where 8 is needed",
          push_guesses(&p, (struct guess_dims){16, 7, 16, 7, 8, 3}));
    FAILS(NAME "experts per token is 8 where 7 is needed",
          push_guesses(&p, (struct guess_dims){16, 7, 16, 7, 7, 8}));
    FAILS(NAME "width of the correction is 6 where 7 is needed",
          push_guesses(&p, (struct guess_dims){16, 7, 16, 6, 7, 3}));
#undef NAME
}

static void push_combined(struct parts *p, uint32_t moe, uint32_t shared, uint32_t gate)
{
    struct graph *g = &p->g;
    PUSH(g, combine, .residual = p->residual,
         .moe = (buf_moe_sum){build_buffer(g, ROLE_moe_sum, moe)},
         .shared = (buf_shared_out){build_buffer(g, ROLE_shared_out, shared)},
         .gate = (buf_shared_gate){build_buffer(g, ROLE_shared_gate, gate)});
}

static void push_ungated(struct parts *p, uint32_t moe, uint32_t shared)
{
    struct graph *g = &p->g;
    PUSH(g, combine_ungated, .residual = p->residual,
         .moe = (buf_moe_sum){build_buffer(g, ROLE_moe_sum, moe)},
         .shared = (buf_shared_out){build_buffer(g, ROLE_shared_out, shared)});
}

static void test_shapes_of_combination(void)
{
    FAILS("graph: layer 3: combine_ungated: width of moe is 15 where 16 is needed",
          push_ungated(&p, 15, 16));
    FAILS("graph: layer 3: combine_ungated: width of shared is 17 where 16 is needed",
          push_ungated(&p, 16, 17));
    FAILS("graph: layer 3: layer_add: width of delta is 17 where 16 is needed",
          buf_mlp_out out = {build_buffer(g, ROLE_mlp_out, 17)};
          PUSH(g, layer_add, .residual = p.residual, .delta = as_layer_delta(out)));
    FAILS("graph: layer 3: swiglu: width of up is 10 where 11 is needed",
          push_mlp_swiglu(g, (buf_mlp_gate){build_buffer(g, ROLE_mlp_gate, 11)},
                          (buf_mlp_up){build_buffer(g, ROLE_mlp_up, 10)}));
    FAILS("graph: layer 3: combine: width of moe is 15 where 16 is needed",
          push_combined(&p, 15, 16, 1));
    FAILS("graph: layer 3: combine: width of shared is 17 where 16 is needed",
          push_combined(&p, 16, 17, 1));
    FAILS("graph: layer 3: combine: width of the shared gate is 2 where 1 is needed",
          push_combined(&p, 16, 16, 2));
    FAILS("graph: layer 3: swiglu: width of up is 10 where 11 is needed",
          push_shared_swiglu(
              g, push_shared_ffn_gate_proj(g, p.moe, WEIGHT(g, shared_ffn_gate_proj, 11, HIDDEN)),
              push_shared_ffn_up_proj(g, p.moe, WEIGHT(g, shared_ffn_up_proj, 10, HIDDEN))));
}

static buf_mla_q mla_queries(struct parts *p)
{
    return push_mla_q_proj(&p->g, p->in,
                           WEIGHT(&p->g, mla_q_proj, 4 * (HEAD_DIM + ROTARY), HIDDEN));
}

static buf_latent_stack latent_rows(struct parts *p)
{
    return push_kv_a_proj(&p->g, p->in, WEIGHT(&p->g, kv_a_proj, 10 + ROTARY, HIDDEN));
}

static void push_latents(struct parts *p, uint32_t rank, uint32_t rotated)
{
    struct graph *g = &p->g;
    struct latent_parts kv = PUSH(g, split_latent, .x = latent_rows(p), .rank = 10);
    buf_latent latent = push_kv_a_norm(g, kv.latent, WEIGHT(g, kv_a_norm, 1, 10), 1e-6f);
    buf_k_rot rot = push_rope_k_rot(g, kv.rot, p->table, ROTARY, ROTARY);
    state_latent cache = graph_state_latent(g, rank, rotated);
    PUSH(g, latent_append, .latent = latent, .rot = rot, .cache = cache);
}

static void push_absorbed(struct parts *p, uint32_t n_heads, uint32_t nope, uint32_t rank,
                          uint32_t state_rank)
{
    struct graph *g = &p->g;
    struct mla_q_parts q =
        PUSH(g, split_mla_q, .x = mla_queries(p), .n_heads = 4, .rotated = ROTARY);
    buf_q_absorbed y = PUSH(g, absorb, .x = q.nope, .w = HEAD_WEIGHTS(g, k_b_proj, 4, nope, rank),
                            .n_heads = n_heads);
    buf_q_rot rot = push_rope_q_rot(g, q.rot, p->table, ROTARY, ROTARY);
    state_latent_ready ready = {graph_state_latent(g, state_rank, ROTARY).id};
    buf_latent_out out =
        PUSH(g, latent_attention, .q = y, .rot = rot, .cache = ready, .n_heads = 4);
    PUSH(g, expand, .x = out, .w = HEAD_WEIGHTS(g, v_b_proj, 4, 5, 11), .n_heads = 4);
}

static void test_shapes_of_latent_attention(void)
{
    FAILS("graph: layer 3: split_mla_q: row width is 40 where 3 is needed",
          PUSH(g, split_mla_q, .x = mla_queries(&p), .n_heads = 3, .rotated = 4));
    FAILS("graph: layer 3: split_mla_q: rotated values is 40 where 40 is needed",
          PUSH(g, split_mla_q, .x = mla_queries(&p), .n_heads = 4, .rotated = 10));
    FAILS("graph: layer 3: split_latent: rank is 14 where 14 is needed",
          PUSH(g, split_latent, .x = latent_rows(&p), .rank = 14));
    FAILS("graph: layer 3: rope: head_dim is 2 where 4 is needed",
          struct mla_q_parts q =
              PUSH(g, split_mla_q, .x = mla_queries(&p), .n_heads = 4, .rotated = ROTARY);
          push_rope_q_rot(
              g, q.rot, (PUSH(g, rope_angles, .freqs = graph_rope_freqs(g, 2), .scale = 1)), 2, 2));
    FAILS("graph: layer 3: latent_append: width of the latent is 10 where 9 is needed",
          push_latents(&p, 9, ROTARY));
    FAILS("graph: layer 3: latent_append: width of the rotated key is 4 where 6 is needed",
          push_latents(&p, 10, 6));
    FAILS("graph: layer 3: absorb: number of heads is 2 where 4 is needed",
          push_absorbed(&p, 2, HEAD_DIM, 10, 10));
    FAILS("graph: layer 3: absorb: row width is 24 where 20 is needed",
          push_absorbed(&p, 4, 5, 10, 10));
    FAILS("graph: layer 3: latent_attention: width of q is 40 where 44 is needed",
          push_absorbed(&p, 4, HEAD_DIM, 10, 11));
    FAILS("graph: layer 3: expand: row width is 40 where 44 is needed",
          push_absorbed(&p, 4, HEAD_DIM, 10, 10));
    FAILS("graph: layer 3: k_b_proj: a weight of 0 heads",
          (void)HEAD_WEIGHTS(g, k_b_proj, 0, 3, 4));
    FAILS("graph: layer 3: sink_attention: number of sinks is 3 where 4 is needed",
          state_kv_ready ready = {graph_state_kv(g, 2, 6).id};
          buf_q q = push_rope_q(g, p.q_normed, p.table, HEAD_DIM, ROTARY);
          PUSH(g, sink_attention, .q = q, .cache = ready, .sinks = WEIGHT(g, sinks, 1, 3),
               .n_heads = 4));
}

#define CASES(C)                                                                                   \
    C(shapes_of_the_stream)                                                                        \
    C(shapes_of_projections)                                                                       \
    C(roles_of_biases)                                                                             \
    C(heads_of_fused_inputs)                                                                       \
    C(shapes_of_biases)                                                                            \
    C(shapes_of_plain_rope)                                                                        \
    C(shapes_of_fused_inputs)                                                                      \
    C(shapes_of_groups)                                                                            \
    C(shapes_of_guesses)                                                                           \
    C(shapes_of_rope)                                                                              \
    C(shapes_of_latent_attention)                                                                  \
    C(shapes_of_attention)                                                                         \
    C(shapes_of_convolution)                                                                       \
    C(shapes_of_delta_net)                                                                         \
    C(shapes_of_routing)                                                                           \
    C(shapes_of_combination)
CHECK_MAIN(CASES)
