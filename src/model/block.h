/*
 * What layers of several families are made of: each block is described by a struct that a family
 * fills from its config, and pushed by one function. A block that is new to all families begins in
 * the family's own file and moves here when a second one needs it.
 */
#ifndef SLUICE_MODEL_BLOCK_H
#define SLUICE_MODEL_BLOCK_H

#include "model/config.h"
#include "model/rope.h"

/* What the norms of queries and keys cover. */
enum qk_norm { QK_NORM_NONE, QK_NORM_HEADS, QK_NORM_WHOLE };

/* Grouped-query attention (arXiv:2305.13245) with rotary positions. */
struct attention {
    uint32_t hidden;
    float eps; /* of the norms */
    struct config_heads heads;
    struct rope rope;
    enum qk_norm norm;
    uint32_t window; /* positions that a query sees; 0: all before it */
    bool pairs;      /* values that rotate together are neighbours, not half a head apart */
    bool gated;      /* q_proj has a gate behind each query; it scales the head's result */
    bool bias;       /* of q, k and v */
    bool out_bias;   /* of the output */
    bool sinks;      /* a score for each head that no position has */
};

/*
 * The fields of heads and rotation, of which partial says how much of a head turns by default, and
 * the sizes of f. What else there is to *a is zero.
 */
enum sluice_status attention_read(struct attention *a, const struct json_node *node,
                                  const struct config_frame *f, double partial,
                                  struct sluice_error *err);

/* o_proj(attention(rope(norm(q)), rope(norm(k)), v)), gated if a says so. */
buf_attn_proj push_attention_block(struct graph *g, const struct attention *a, buf_attn_input x,
                                   buf_rope_table table);

/* Gated DeltaNet (arXiv:2412.06464). */
struct delta_net {
    uint32_t hidden;
    float eps; /* of the gated norm */
    uint32_t k_heads, v_heads, dk, dv, conv_width;
    bool fused_qkvz; /* q, k, v and z in one matrix, by key head */
    bool fused_ba;   /* beta and alpha in one matrix, by key head */
    bool tiled;      /* order of the v heads; see op delta_net */
};

/* The linear_* fields. */
enum sluice_status delta_net_read(struct delta_net *d, const struct json_node *node,
                                  struct sluice_error *err);
/* out_proj(gated_norm(delta_net(conv(qkv)), z)) */
buf_attn_proj push_delta_net_block(struct graph *g, const struct delta_net *d, buf_attn_input x);

/* A SwiGLU block that every token passes (arXiv:2002.05202). */
struct mlp {
    uint32_t hidden, inter;
    float eps;
};

/* The sizes of f and, if any layer is dense, intermediate_size. */
enum sluice_status mlp_read(struct mlp *m, const struct json_node *node,
                            const struct config_frame *f, bool any, struct sluice_error *err);

/* x + down(silu(gate) * up), all of norm(x) */
buf_hidden push_mlp_block(struct graph *g, const struct mlp *m, buf_residual x);

enum shared_expert { SHARED_NONE, SHARED_PLAIN, SHARED_GATED };

/* A mixture of experts: router, routed experts, perhaps one that every token passes. */
struct moe {
    uint32_t hidden;
    float eps;
    uint32_t experts, picks, inter;
    enum shared_expert shared;
    uint32_t shared_inter;
    bool normalize; /* the weights of a token's experts are divided by their sum */
    bool sigmoid;   /* scores by sigmoid, chosen with a correction and by groups: sigmoid_router */
    uint32_t n_groups, top_groups;
    float scale; /* of the weights */
    bool biased; /* router and experts have biases */
    float limit; /* of the clamped SwiGLU, see op experts; 0: plain */
    bool guess;  /* a layer begins by guessing its experts */
};

/*
 * The number of experts, which the field count has (NULL: num_experts or num_local_experts), how
 * many a token uses, their width, which the field width has, and the sizes of f. What else there is
 * to *m is zero, but guess.
 */
enum sluice_status moe_read(struct moe *m, const struct json_node *node,
                            const struct config_frame *f, const char *count, const char *width,
                            const struct model_options *options, struct sluice_error *err);
/* A gated shared expert of shared_expert_intermediate_size. */
enum sluice_status moe_read_gated(struct moe *m, const struct json_node *node,
                                  struct sluice_error *err);
/* n_shared_experts of the routed ones' width, without a gate. */
enum sluice_status moe_read_shared(struct moe *m, const struct json_node *node, uint32_t fallback,
                                   struct sluice_error *err);
/*
 * The sigmoid router's fields: n_group, topk_group, norm_topk_prob and routed_scaling_factor. Of
 * scoring_func and topk_method only the values that mean it. m->experts and m->picks are known.
 */
enum sluice_status moe_read_sigmoid(struct moe *m, const struct json_node *node,
                                    struct sluice_error *err);

/* What the block shares with the guess of its experts. */
struct routing {
    wt_moe_norm norm;
    wt_router_proj router;
    wt_router_bias bias;
    wt_router_correction correction;
    wt_experts bank;
};

/* Declares what chooses experts, and guesses them from the layer's input if m says so. */
struct routing push_routing(struct graph *g, const struct moe *m, buf_stream x);
/* x + sum of chosen experts + shared expert, all of norm(x) */
buf_hidden push_moe_block(struct graph *g, const struct moe *m, struct routing w, buf_residual x);

/* r = x + attention(norm(x)), then r + moe(norm(r)) */
buf_hidden push_moe_layer(struct graph *g, const struct attention *a, const struct moe *m,
                          buf_stream x, buf_rope_table table);
/* r = x + attention(norm(x)), then r + mlp(norm(r)) */
buf_hidden push_mlp_layer(struct graph *g, const struct attention *a, const struct mlp *m,
                          buf_stream x, buf_rope_table table);

#endif
