/* Building graphs: the sticky error; ids that are missing, stale or forged; declarations. */
#include "change_graph.h"
#include "graph_parts.h"
#include "ir/build.h"

static void test_weights_and_states_make_sense(void)
{
    FAILS("graph: layer 3: qg_proj: a weight of 0 x 4", (void)WEIGHT(g, qg_proj, 0, 4));
    FAILS("graph: layer 3: qg_proj: a weight of 4 x 0", (void)WEIGHT(g, qg_proj, 4, 0));
    FAILS("graph: layer 3: q_norm: a weight of 2 x 4", (void)WEIGHT(g, q_norm, 2, 4));
    FAILS("graph: layer 3: experts: a bank of 0 experts", graph_experts(g, 0, 4, 4));
    FAILS("graph: layer 3: experts: a bank of 0 experts", (void)WEIGHT(g, experts, 4, 4));
    FAILS("graph: layer 3: lm_head: a bank of 2 experts",
          graph_weight(g, (struct weight_decl){
                              .role = WEIGHT_lm_head, .rows = 1, .cols = 1, .n_experts = 2}));
    FAILS("graph: layer 3: none: this is no role of a weight",
          graph_weight(g, (struct weight_decl){.rows = 1, .cols = 1}));
    FAILS("graph: layer 3: matrix: this is no role of a weight",
          graph_weight(g, (struct weight_decl){.role = WEIGHT_matrix, .rows = 1, .cols = 1}));
}

/* Ids that types cannot refuse. */
static void test_ids_that_do_not_fit(void)
{
    FAILS("graph: layer 3: qg_proj: operand 'x' is missing, stale or of another role",
          push_qg_proj(g, (buf_attn_input){0}, WEIGHT(g, qg_proj, 4, HIDDEN)));
    FAILS("graph: layer 3: qg_proj: operand 'w' is missing, stale or of another role",
          push_qg_proj(g, p.in, (wt_qg_proj){0}));
    FAILS("graph: layer 3: qg_proj: moe_input where attn_input is meant",
          push_qg_proj(g, (buf_attn_input){p.moe.id}, WEIGHT(g, qg_proj, 4, HIDDEN)));
    FAILS("graph: layer 3: qg_proj: operand 'x' is missing, stale or of another role",
          push_qg_proj(g, (buf_attn_input){p.x.id}, WEIGHT(g, qg_proj, 4, HIDDEN)));
    FAILS("graph: layer 3: attn_norm: residual where stream is meant",
          push_attn_norm(g, (buf_stream){p.residual.id}, WEIGHT(g, attn_norm, 1, HIDDEN), 0));
    FAILS("graph: layer 3: rope: k_normed where q_normed is meant",
          push_rope_q(g, (buf_q_normed){p.k_normed.id}, p.table, HEAD_DIM, ROTARY));
    FAILS("graph: layer 3: kv_append: operand 'cache' is missing, stale or of another role",
          buf_k k = push_rope_k(g, p.k_normed, p.table, HEAD_DIM, ROTARY);
          PUSH(g, kv_append, .k = k, .v = p.v, .cache = (state_kv){graph_state_conv(g, 2, 2).id}));
    FAILS("graph: layer 3: swiglu: mlp_gate where shared_ffn_gate is meant",
          push_shared_swiglu(g, (buf_shared_ffn_gate){build_buffer(g, ROLE_mlp_gate, 3)},
                             (buf_shared_ffn_up){build_buffer(g, ROLE_shared_ffn_up, 3)}));
    FAILS("graph: layer 3: swiglu: mlp_up where shared_ffn_up is meant",
          push_shared_swiglu(g, (buf_shared_ffn_gate){build_buffer(g, ROLE_shared_ffn_gate, 3)},
                             (buf_shared_ffn_up){build_buffer(g, ROLE_mlp_up, 3)}));
    FAILS("graph: layer 3: keep: buffer %0 is unknown", graph_keep_id(g, 0));
    FAILS("graph: layer 3: keep: buffer %4095 is unknown", graph_keep_id(g, 5u << 20 | 4095));
}

static void test_ids_of_another_graph_are_stale(void)
{
    struct graph old;
    graph_init(&old, 4);
    sample_graph(&old, &sample_distinct);
    buf_attn_input stale_x = {id_of(&old, 4)};
    wt_qg_proj stale_w = {id_of(&old, 1)};
    FAILS("graph: layer 3: qg_proj: operand 'x' is missing, stale or of another role",
          push_qg_proj(g, stale_x, WEIGHT(g, qg_proj, 4, HIDDEN)));
    FAILS("graph: layer 3: qg_proj: operand 'w' is missing, stale or of another role",
          push_qg_proj(g, p.in, stale_w));
    FAILS("graph: layer 3: keep: buffer %5 is unknown", graph_keep_id(g, stale_x.id));
    graph_release(&old);
}

static void test_generations_wrap(void)
{
    static const uint32_t given[] = {1, 4095, 4096, 8191, UINT32_MAX};
    static const uint32_t made[] = {1, 4095, 1, 1, 1048576 % 4095};
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++) {
        struct graph g;
        uint32_t index;
        graph_init(&g, given[i]);
        CHECK(g.generation >= 1 && g.generation <= 4095);
        CHECK(i == 4 || g.generation == made[i], "%u", g.generation);
        uint32_t id = graph_token_ids(&g).id;
        CHECK(graph_buffer_index(&g, id, &index) && index == 0);
        CHECK(!graph_buffer_index(&g, id + 1, &index));
        CHECK(!graph_buffer_index(&g, id - 1, &index));
        graph_release(&g);
    }
}

static void test_first_error_stays(void)
{
    struct parts p;
    parts_init(&p);
    struct graph *g = &p.g;
    struct sluice_error err = {0};
    push_qg_proj(g, p.in, WEIGHT(g, qg_proj, 4, HIDDEN + 1));
    size_t nodes = g->nodes.n, buffers = g->buffers.n, weights = g->weights.n;
    graph_set_layer(g, 8);
    CHECK(push_moe_norm(g, p.residual, (wt_moe_norm){0}, 0).id == 0);
    CHECK(push_qg_proj(g, p.in, WEIGHT(g, qg_proj, 4, HIDDEN)).id == 0);
    CHECK(graph_state_kv(g, 1, 1).id == 0 && graph_token_ids(g).id == 0);
    graph_keep(g, p.in);
    CHECK(g->nodes.n == nodes && g->buffers.n == buffers && g->weights.n == weights);
    for (int again = 0; again < 2; again++) {
        CHECK(graph_finish(g, &err) == SLUICE_E_INTERNAL);
        CHECK(strcmp(err.message, "graph: layer 3: qg_proj: row width is 16 where 17 is needed") ==
              0);
        CHECK(err.code == SLUICE_E_INTERNAL);
    }
    CHECK(graph_finish(g, NULL) == SLUICE_E_INTERNAL);
    graph_release(g);
}

static void test_finished_graph_does_not_change(void)
{
    struct graph g;
    struct sluice_error err = {0};
    graph_init(&g, 1);
    struct sample_ids ids = sample_graph(&g, &sample_distinct);
    CHECK_OK(graph_finish(&g, &err));
    CHECK_OK(graph_finish(&g, &err));
    struct graph before = graph_copy(&g);
    CHECK(push_lm_head(&g, ids.tail_normed, (wt_lm_head){id_of(&g, g.weights.n - 1)}).id == 0);
    CHECK(graph_token_ids(&g).id == 0);
    graph_keep_id(&g, id_of(&g, 4));
    CHECK(g.nodes.n == before.nodes.n && g.weights.n == before.weights.n);
    CHECK(memcmp(g.buffers.items, before.buffers.items, g.buffers.n * sizeof *g.buffers.items) ==
          0);
    CHECK(graph_finish(&g, &err) == SLUICE_E_INTERNAL);
    CHECK(strcmp(err.message, "graph: lm_head: the graph is finished") == 0, "%s", err.message);
    graph_release(&before);
    graph_release(&g);
}

static void test_one_writer(void)
{
    struct parts p;
    parts_init(&p);
    struct graph *g = &p.g;
    struct op_sigmoid_gate sigmoid_gate = {
        .x = {build_buffer(g, ROLE_attn_out, Q_WIDTH)},
        .gate = p.q.gate,
        .y = {build_buffer(g, ROLE_attn_gated, Q_WIDTH)},
    };
    BUILD_NODE(g, sigmoid_gate);
    CHECK(g->err.code == SLUICE_OK);
    BUILD_NODE(g, sigmoid_gate);
    CHECK(strcmp(g->err.message, "graph: layer 3: sigmoid_gate: 'y' is written a second time") == 0,
          "%s", g->err.message);
    graph_release(g);
}

static void test_nodes_need_their_results(void)
{
    struct parts p;
    parts_init(&p);
    struct graph *g = &p.g;
    struct op_sigmoid_gate sigmoid_gate = {
        .x = {build_buffer(g, ROLE_attn_out, Q_WIDTH)},
        .gate = p.q.gate,
    };
    BUILD_NODE(g, sigmoid_gate);
    CHECK(strcmp(g->err.message, "graph: layer 3: sigmoid_gate: operand 'y' is missing, stale or "
                                 "of another role") == 0,
          "%s", g->err.message);
    graph_release(g);
}

static void test_keeping(void)
{
    struct parts p;
    parts_init(&p);
    struct graph *g = &p.g;
    uint32_t index;
    buf_rope_freqs freqs = graph_rope_freqs(g, ROTARY);
    graph_keep(g, freqs);
    graph_keep(g, p.x);
    REQUIRE(graph_buffer_index(g, freqs.id, &index));
    CHECK(g->buffers.items[index].lifetime == LIFE_BORROWED);
    REQUIRE(graph_buffer_index(g, p.x.id, &index));
    CHECK(g->buffers.items[index].lifetime == LIFE_PERSISTENT);
    graph_release(g);
}

static void test_too_many_buffers(void)
{
    struct graph g;
    graph_init(&g, 1);
    for (uint32_t i = 0; i < (1u << ID_BITS) - 1; i++)
        if (graph_token_ids(&g).id == 0) break;
    CHECK(g.buffers.n == (1u << ID_BITS) - 1 && g.err.code == SLUICE_OK);
    CHECK(graph_token_ids(&g).id == 0);
    CHECK(strcmp(g.err.message, "graph: token_ids: too many") == 0, "%s", g.err.message);
    graph_release(&g);
}

/* Runtime conversions are the rows of the tables, and no other. */
static void test_conversions_are_one_way(void)
{
    uint32_t n = 0;
    for (uint32_t have = 0; have < ROLE_COUNT; have++)
        for (uint32_t want = 0; want < ROLE_COUNT; want++) {
            if (!role_converts((enum role)have, (enum role)want)) continue;
            CHECK(have != ROLE_NONE && have != ROLE_UNIONS && want != ROLE_UNIONS);
            CHECK(have == want || (have < ROLE_UNIONS && want > ROLE_UNIONS));
            n += have != want;
        }
#define C(to, from) +1
#define U(role) CONVERSIONS_##role(C)
    CHECK(n == 0 UNIONS(U));
#undef U
#define U(role) WEIGHT_CONVERSIONS_##role(C)
    n = 0;
    for (uint32_t have = 0; have < WEIGHT_COUNT; have++)
        for (uint32_t want = 0; want < WEIGHT_COUNT; want++)
            n += have != want &&
                 weight_role_converts((enum weight_role)have, (enum weight_role)want);
    CHECK(n == 0 WEIGHT_UNIONS(U));
#undef U
#undef C
    CHECK(role_converts(ROLE_hidden, ROLE_stream) && !role_converts(ROLE_stream, ROLE_hidden));
    CHECK(!role_converts(ROLE_NONE, ROLE_NONE) && !role_converts(ROLE_residual, ROLE_stream));
    CHECK(!weight_role_converts(WEIGHT_NONE, WEIGHT_NONE));
    CHECK(!weight_role_converts(WEIGHT_UNIONS_, WEIGHT_UNIONS_));
}

static void test_names(void)
{
    CHECK(strcmp(role_name(ROLE_moe_input), "moe_input") == 0);
    CHECK(strcmp(role_name(ROLE_swiglu_out), "swiglu_out") == 0);
    CHECK(strcmp(role_name(ROLE_COUNT), "none") == 0);
    CHECK(strcmp(weight_role_name(WEIGHT_lm_head), "lm_head") == 0);
    CHECK(strcmp(weight_role_name(WEIGHT_COUNT), "none") == 0);
    CHECK(strcmp(state_kind_name(STATE_kv_ready), "kv_ready") == 0);
    CHECK(strcmp(state_kind_name(STATE_COUNT), "none") == 0);
    CHECK(role_elem(ROLE_router_ids) == ELEM_I32 && role_elem(ROLE_logits) == ELEM_F32);
    CHECK(role_rows(ROLE_logits) == ROWS_OUTPUTS && role_rows(ROLE_expert_act) == ROWS_PICKS);
    CHECK(weight_role_kind(WEIGHT_experts) == WEIGHT_KIND_BANK);
}

#define CASES(C)                                                                                   \
    C(weights_and_states_make_sense)                                                               \
    C(ids_that_do_not_fit)                                                                         \
    C(ids_of_another_graph_are_stale)                                                              \
    C(generations_wrap)                                                                            \
    C(first_error_stays)                                                                           \
    C(finished_graph_does_not_change)                                                              \
    C(one_writer)                                                                                  \
    C(nodes_need_their_results)                                                                    \
    C(keeping)                                                                                     \
    C(too_many_buffers)                                                                            \
    C(conversions_are_one_way)                                                                     \
    C(names)
CHECK_MAIN(CASES)
