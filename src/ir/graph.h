/*
 * The graph: a straight line of typed ops over buffers, weights and session states, built once per
 * model, with the number of tokens as its symbolic dimension. Values are written once. The builder
 * keeps the first error and turns later calls into no-ops, so that a model is written without
 * checking each push; graph_finish() reports it. Knows no model, no file and no device.
 *
 * A push function checks shapes and returns the ids of its results; see push_*.c.
 */
#ifndef SLUICE_IR_GRAPH_H
#define SLUICE_IR_GRAPH_H

#include "base/array.h"
#include "base/err.h"
#include "ir/op.h"

/* Who owns a buffer's storage, and for how long. */
enum lifetime {
    LIFE_TRANSIENT,  /* between its writer and its last reader; storage is shared */
    LIFE_PERSISTENT, /* as long as the plan: inputs, logits, what the caller reads afterwards */
    LIFE_BORROWED,   /* memory of the caller, bound to the id at run time */
};

struct buffer {
    enum role role;
    enum lifetime lifetime;
    uint32_t width;  /* elements per row */
    uint32_t writer; /* index of the node that writes it; BUFFER_INPUT: filled by the caller */
};
enum { BUFFER_INPUT = -1, BUFFER_UNWRITTEN = -2 };

/* A weight the graph wants: its role and shape, bound to a file by the model layer. */
struct weight_decl {
    enum weight_role role;
    uint32_t layer;
    uint32_t rows, cols;         /* VECTOR: rows 1; CONV: rows = width, cols = channels */
    uint32_t n_heads;            /* HEADS: matrices of rows x cols */
    uint32_t n_experts, n_inter; /* BANK: gate and up [n_inter][cols], down [cols][n_inter] */
    bool biased;                 /* BANK: each matrix has a bias */
};

struct state_decl {
    enum state_kind kind;
    uint32_t layer;
    uint32_t index; /* among the states of this kind */
    /* kv: kv_heads, head_dim; latent: rank, rotated; conv: width - 1, channels; delta: heads, dv,
     * dk
     */
    uint32_t dims[4];
};

struct graph {
    uint32_t generation; /* 1..4095, part of every id */
    uint32_t layer;      /* of the nodes pushed now */
    uint32_t n_picks;    /* experts per token; 0 before the first router */
    ARRAY(struct node) nodes;
    ARRAY(struct buffer) buffers;
    ARRAY(struct weight_decl) weights;
    ARRAY(struct state_decl) states;
    struct sluice_error err; /* the first one; code SLUICE_OK: none */
    bool finished;
};

/* A new graph; ids of an earlier graph with another generation are refused. */
void graph_init(struct graph *g, uint32_t generation);
void graph_release(struct graph *g);

/* Nodes pushed from here belong to layer (UINT32_MAX: none). */
void graph_set_layer(struct graph *g, uint32_t layer);

/*
 * Ends building: reports the first error of the builder or of graph_verify(). A finished graph does
 * not change. Calling it again gives the same answer.
 */
enum sluice_status graph_finish(struct graph *g, struct sluice_error *err);

/* Rules that types cannot state; see verify.c. */
enum sluice_status graph_verify(const struct graph *g, struct sluice_error *err);

/* Text form, one line an op, stable. Returns the bytes needed; writes at most cap with a NUL. */
size_t graph_dump(const struct graph *g, char *out, size_t cap);

/* Index of a buffer, weight or state, or false when the id is 0, stale or out of range. */
bool graph_buffer_index(const struct graph *g, uint32_t id, uint32_t *index);
bool graph_weight_index(const struct graph *g, uint32_t id, uint32_t *index);
bool graph_state_index(const struct graph *g, uint32_t id, uint32_t *index);
/* kv_ready names the same state as kv, latent_ready as latent; every other kind only itself. */
bool graph_state_fits(enum state_kind have, enum state_kind want);

/* Inputs: filled by the caller before each run. */
buf_token_ids graph_token_ids(struct graph *g);
buf_output_rows graph_output_rows(struct graph *g);
/* Memory of the caller, bound at run time: [rotary_dim / 2]. */
buf_rope_freqs graph_rope_freqs(struct graph *g, uint32_t rotary_dim);

/*
 * The caller will read the buffer after a run: its storage is not shared. Of a borrowed buffer that
 * is so already.
 */
#define graph_keep(g, b) graph_keep_id((g), (b).id)
void graph_keep_id(struct graph *g, uint32_t id);

/* Declares a weight. The typed form is WEIGHT(g, q_proj, rows, cols). */
uint32_t graph_weight(struct graph *g, struct weight_decl decl);
#define WEIGHT(g, role_, rows_, cols_)                                                             \
    ((wt_##role_){graph_weight(                                                                    \
        (g), (struct weight_decl){.role = WEIGHT_##role_, .rows = (rows_), .cols = (cols_)})})
/* A matrix for each head: HEAD_WEIGHTS(g, k_b_proj, n_heads, rows, cols). */
#define HEAD_WEIGHTS(g, role_, n_heads_, rows_, cols_)                                             \
    ((wt_##role_){graph_weight((g), (struct weight_decl){.role = WEIGHT_##role_,                   \
                                                         .rows = (rows_),                          \
                                                         .cols = (cols_),                          \
                                                         .n_heads = (n_heads_)})})
/* The routed experts of a layer. */
wt_experts graph_experts(struct graph *g, uint32_t n_experts, uint32_t n_inter, uint32_t hidden);
wt_experts graph_biased_experts(struct graph *g, uint32_t n_experts, uint32_t n_inter,
                                uint32_t hidden);

/* Declares the state of the current layer. */
state_kv graph_state_kv(struct graph *g, uint32_t n_kv_heads, uint32_t head_dim);
state_latent graph_state_latent(struct graph *g, uint32_t rank, uint32_t rotated);
state_conv graph_state_conv(struct graph *g, uint32_t width, uint32_t channels);
state_delta graph_state_delta(struct graph *g, uint32_t n_v_heads, uint32_t dv, uint32_t dk);

/* Push functions, by family. Fields that are results may be left out of the payload. */
#define PUSH(g, op, ...) push_##op((g), (struct op_##op){__VA_ARGS__})

struct q_and_gate {
    buf_q_raw q;
    buf_q_gate gate;
};
struct qkv_and_z {
    buf_qkv_stack qkv;
    buf_z_stack z;
};
struct beta_and_alpha {
    buf_beta_stack beta;
    buf_alpha_stack alpha;
};
struct mla_q_parts {
    buf_q_nope nope;
    buf_q_rot_raw rot;
};
struct latent_parts {
    buf_latent_raw latent;
    buf_k_rot_raw rot;
};
struct decay_and_beta {
    buf_g_decay g;
    buf_beta_gate b;
};
struct picks {
    buf_router_ids ids;
    buf_router_weights weights;
};
struct grouped_picks {
    buf_expert_offsets offsets;
    buf_expert_rows rows;
    buf_pick_places places;
};

buf_embed_out push_embed(struct graph *g, struct op_embed op);
buf_rope_table push_rope_angles(struct graph *g, struct op_rope_angles op);
struct q_and_gate push_split_q_gate(struct graph *g, struct op_split_q_gate op);
state_kv_ready push_kv_append(struct graph *g, struct op_kv_append op);
buf_attn_out push_attention(struct graph *g, struct op_attention op);
buf_attn_out push_sink_attention(struct graph *g, struct op_sink_attention op);
struct mla_q_parts push_split_mla_q(struct graph *g, struct op_split_mla_q op);
struct latent_parts push_split_latent(struct graph *g, struct op_split_latent op);
buf_q_absorbed push_absorb(struct graph *g, struct op_absorb op);
state_latent_ready push_latent_append(struct graph *g, struct op_latent_append op);
buf_latent_out push_latent_attention(struct graph *g, struct op_latent_attention op);
buf_attn_out push_expand(struct graph *g, struct op_expand op);
buf_attn_gated push_sigmoid_gate(struct graph *g, struct op_sigmoid_gate op);
buf_residual push_residual_add(struct graph *g, struct op_residual_add op);
struct qkv_and_z push_split_qkvz(struct graph *g, struct op_split_qkvz op);
struct beta_and_alpha push_split_ba(struct graph *g, struct op_split_ba op);
buf_conv_out push_conv(struct graph *g, struct op_conv op);
buf_delta_qkv push_delta_norm(struct graph *g, struct op_delta_norm op);
struct decay_and_beta push_decay_beta(struct graph *g, struct op_decay_beta op);
buf_delta_out push_delta_net(struct graph *g, struct op_delta_net op);
buf_value_out push_gated_norm(struct graph *g, struct op_gated_norm op);
buf_guess_ids push_guess_experts(struct graph *g, struct op_guess_experts op);
buf_guess_ids push_guess_by_sigmoid(struct graph *g, struct op_guess_by_sigmoid op);
struct picks push_router(struct graph *g, struct op_router op);
struct picks push_sigmoid_router(struct graph *g, struct op_sigmoid_router op);
struct grouped_picks push_group_picks(struct graph *g, struct op_group_picks op);
buf_expert_input push_gather_rows(struct graph *g, struct op_gather_rows op);
buf_expert_out push_experts(struct graph *g, struct op_experts op);
buf_moe_sum push_expert_sum(struct graph *g, struct op_expert_sum op);
buf_shared_ffn_act push_shared_swiglu(struct graph *g, buf_shared_ffn_gate gate,
                                      buf_shared_ffn_up up);
buf_mlp_act push_mlp_swiglu(struct graph *g, buf_mlp_gate gate, buf_mlp_up up);
buf_hidden push_combine(struct graph *g, struct op_combine op);
buf_hidden push_combine_ungated(struct graph *g, struct op_combine_ungated op);
buf_hidden push_layer_add(struct graph *g, struct op_layer_add op);
buf_tail_hidden push_select_rows(struct graph *g, struct op_select_rows op);

/* push_q_proj(g, x, w) and so on: what may go in and what comes out follows from the weight. */
#define P(weight, in, out) buf_##out push_##weight(struct graph *g, buf_##in x, wt_##weight w);
PROJECTIONS(P)
#undef P
/* push_q_proj_biased(g, x, w, b) and so on. */
#define A(weight, bias, in, out)                                                                   \
    buf_##out push_##weight##_biased(struct graph *g, buf_##in x, wt_##weight w, wt_##bias b);
AFFINES(A)
#undef A
/* push_attn_norm(g, x, w, eps) and so on; the norm runs over each w.cols values. */
#define N(weight, in, out)                                                                         \
    buf_##out push_##weight(struct graph *g, buf_##in x, wt_##weight w, float eps);
NORMS(N)
#undef N
/*
 * push_rope_q(g, x, table, head_dim, rotary_dim) and push_rope_k; push_rope_raw_q and
 * push_rope_raw_k for families that have no norm there. push_rope_as_q and so on also say which
 * values make a pair.
 */
#define T(name, in, out)                                                                           \
    buf_##out push_rope_##name(struct graph *g, buf_##in x, buf_rope_table table,                  \
                               uint32_t head_dim, uint32_t rotary_dim);                            \
    buf_##out push_rope_as_##name(struct graph *g, buf_##in x, buf_rope_table table,               \
                                  uint32_t head_dim, uint32_t rotary_dim, bool pairs);
ROTATIONS(T)
#undef T

#endif
