/* A graph with values of many roles, to try single push functions on. */
#ifndef TESTS_GRAPH_PARTS_H
#define TESTS_GRAPH_PARTS_H

#include "check.h"
#include "sample_graph.h"

/* Dimensions of sample_distinct. */
enum { HIDDEN = 16, HEAD_DIM = 6, Q_WIDTH = 24, KV_WIDTH = 12, ROTARY = 4, VALUES = 20 };
enum { CHANNELS = 32, EXPERTS = 7, PICKS = 3 };

/* A graph at layer 3, with values of many roles to build from. */
struct parts {
    struct graph g;
    buf_rope_table table;
    buf_stream x;
    buf_attn_input in;
    buf_q_stack q_stack;
    struct q_and_gate q;
    buf_q_normed q_normed;
    buf_k_normed k_normed;
    buf_v v;
    buf_moe_input moe;
    buf_residual residual;
};

static inline void parts_init(struct parts *p)
{
    struct graph *g = &p->g;
    graph_init(g, 5);
    p->table = PUSH(g, rope_angles, .freqs = graph_rope_freqs(g, ROTARY), .scale = 1);
    p->x = as_stream(PUSH(g, embed, .ids = graph_token_ids(g), .table = WEIGHT(g, embed, 9, 16)));
    graph_set_layer(g, 3);
    p->in = push_attn_norm(g, p->x, WEIGHT(g, attn_norm, 1, HIDDEN), 1e-6f);
    p->q_stack = push_qg_proj(g, p->in, WEIGHT(g, qg_proj, 2 * Q_WIDTH, HIDDEN));
    p->q = PUSH(g, split_q_gate, .x = p->q_stack, .head_dim = HEAD_DIM);
    p->q_normed = push_q_norm(g, p->q.q, WEIGHT(g, q_norm, 1, HEAD_DIM), 1e-6f);
    buf_k_raw k = push_k_proj(g, p->in, WEIGHT(g, k_proj, KV_WIDTH, HIDDEN));
    p->k_normed = push_k_norm(g, k, WEIGHT(g, k_norm, 1, HEAD_DIM), 1e-6f);
    p->v = push_v_proj(g, p->in, WEIGHT(g, v_proj, KV_WIDTH, HIDDEN));
    p->residual = PUSH(g, residual_add, .stream = p->x,
                       .delta = sample_delta_net(g, &sample_distinct, p->in));
    p->moe = push_moe_norm(g, p->residual, WEIGHT(g, moe_norm, 1, HIDDEN), 1e-6f);
}

/* Runs one or more pushes on fresh parts; the graph must end with exactly this error. */
#define FAILS(expected, ...)                                                                       \
    do {                                                                                           \
        struct parts p;                                                                            \
        parts_init(&p);                                                                            \
        struct graph *g = &p.g;                                                                    \
        CHECK(g->err.code == SLUICE_OK, "%s", g->err.message);                                     \
        __VA_ARGS__;                                                                               \
        struct sluice_error err = {0};                                                             \
        CHECK(graph_finish(g, &err) == SLUICE_E_INTERNAL);                                         \
        CHECK(strcmp(err.message, expected) == 0, "got '%s'", err.message);                        \
        graph_release(g);                                                                          \
    } while (0)

#endif
