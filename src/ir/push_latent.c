/* Push functions of multi-head latent attention in its absorbed form (arXiv:2405.04434). */
#include "ir/build.h"

struct mla_q_parts push_split_mla_q(struct graph *g, struct op_split_mla_q split_mla_q)
{
    BUILD_INPUTS(g, split_mla_q);
    uint32_t width = build_width(g, split_mla_q.x.id), heads = split_mla_q.n_heads;
    uint32_t rotated = build_product(g, "split_mla_q", heads, split_mla_q.rotated);
    build_check(g, heads && width % heads == 0, "split_mla_q", "row width", width, heads);
    build_check(g, rotated < width, "split_mla_q", "rotated values", rotated, width);
    uint32_t nope = rotated < width ? width - rotated : 0;
    split_mla_q.nope = (buf_q_nope){build_buffer(g, ROLE_q_nope, nope)};
    split_mla_q.rot = (buf_q_rot_raw){build_buffer(g, ROLE_q_rot_raw, rotated)};
    BUILD_NODE(g, split_mla_q);
    return (struct mla_q_parts){split_mla_q.nope, split_mla_q.rot};
}

struct latent_parts push_split_latent(struct graph *g, struct op_split_latent split_latent)
{
    BUILD_INPUTS(g, split_latent);
    uint32_t width = build_width(g, split_latent.x.id), rank = split_latent.rank;
    build_check(g, rank < width, "split_latent", "rank", rank, width);
    split_latent.latent = (buf_latent_raw){build_buffer(g, ROLE_latent_raw, rank)};
    split_latent.rot =
        (buf_k_rot_raw){build_buffer(g, ROLE_k_rot_raw, rank < width ? width - rank : 0)};
    BUILD_NODE(g, split_latent);
    return (struct latent_parts){split_latent.latent, split_latent.rot};
}

/* The width of a row of values for all heads of a HEADS weight: one for each row or column. */
static uint32_t heads_width(struct graph *g, const char *op, const struct weight_decl *w,
                            uint32_t n_heads, uint32_t each)
{
    build_check(g, n_heads == w->n_heads, op, "number of heads", n_heads, w->n_heads);
    return build_product(g, op, n_heads, each);
}

buf_q_absorbed push_absorb(struct graph *g, struct op_absorb absorb)
{
    BUILD_INPUTS(g, absorb);
    const struct weight_decl *w = build_weight(g, absorb.w.id);
    uint32_t width = build_width(g, absorb.x.id);
    uint32_t want = heads_width(g, "absorb", w, absorb.n_heads, w->rows);
    build_check(g, width == want, "absorb", "row width", width, want);
    uint32_t ranks = heads_width(g, "absorb", w, absorb.n_heads, w->cols);
    absorb.y = (buf_q_absorbed){build_buffer(g, ROLE_q_absorbed, ranks)};
    BUILD_NODE(g, absorb);
    return absorb.y;
}

state_latent_ready push_latent_append(struct graph *g, struct op_latent_append latent_append)
{
    BUILD_INPUTS(g, latent_append);
    const struct state_decl *state = build_state(g, latent_append.cache.id);
    uint32_t rank = state->dims[0], rotated = state->dims[1];
    uint32_t latent = build_width(g, latent_append.latent.id);
    uint32_t rot = build_width(g, latent_append.rot.id);
    latent_append.rank = rank;
    latent_append.rotated = rotated;
    build_check(g, latent == rank, "latent_append", "width of the latent", latent, rank);
    build_check(g, rot == rotated, "latent_append", "width of the rotated key", rot, rotated);
    BUILD_NODE(g, latent_append);
    return (state_latent_ready){latent_append.cache.id};
}

buf_latent_out push_latent_attention(struct graph *g, struct op_latent_attention latent_attention)
{
    BUILD_INPUTS(g, latent_attention);
    const struct state_decl *state = build_state(g, latent_attention.cache.id);
    uint32_t heads = latent_attention.n_heads;
    latent_attention.rank = state->dims[0];
    latent_attention.rotated = state->dims[1];
    uint32_t q = build_width(g, latent_attention.q.id);
    uint32_t rot = build_width(g, latent_attention.rot.id);
    uint32_t ranks = build_product(g, "latent_attention", heads, state->dims[0]);
    uint32_t rotated = build_product(g, "latent_attention", heads, state->dims[1]);
    build_check(g, q == ranks, "latent_attention", "width of q", q, ranks);
    build_check(g, rot == rotated, "latent_attention", "width of the rotated q", rot, rotated);
    latent_attention.y = (buf_latent_out){build_buffer(g, ROLE_latent_out, ranks)};
    BUILD_NODE(g, latent_attention);
    return latent_attention.y;
}

buf_attn_out push_expand(struct graph *g, struct op_expand expand)
{
    BUILD_INPUTS(g, expand);
    const struct weight_decl *w = build_weight(g, expand.w.id);
    uint32_t width = build_width(g, expand.x.id);
    uint32_t want = heads_width(g, "expand", w, expand.n_heads, w->cols);
    build_check(g, width == want, "expand", "row width", width, want);
    uint32_t values = heads_width(g, "expand", w, expand.n_heads, w->rows);
    expand.y = (buf_attn_out){build_buffer(g, ROLE_attn_out, values)};
    BUILD_NODE(g, expand);
    return expand.y;
}
