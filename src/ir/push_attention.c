/* Push functions of softmax attention: split, rope, cache, attention, gate. */
#include "ir/build.h"

struct q_and_gate push_split_q_gate(struct graph *g, struct op_split_q_gate split_q_gate)
{
    BUILD_INPUTS(g, split_q_gate);
    uint32_t width = build_width(g, split_q_gate.x.id);
    uint32_t pair = build_product(g, "split_q_gate", 2, split_q_gate.head_dim);
    build_check(g, pair && width % pair == 0, "split_q_gate", "row width", width, pair);
    split_q_gate.q = (buf_q_raw){build_buffer(g, ROLE_q_raw, width / 2)};
    split_q_gate.gate = (buf_q_gate){build_buffer(g, ROLE_q_gate, width / 2)};
    BUILD_NODE(g, split_q_gate);
    return (struct q_and_gate){split_q_gate.q, split_q_gate.gate};
}

buf_rope_table push_rope_angles(struct graph *g, struct op_rope_angles rope_angles)
{
    BUILD_INPUTS(g, rope_angles);
    uint32_t half = build_width(g, rope_angles.freqs.id);
    if (!(rope_angles.scale > 0)) build_fail(g, "rope_angles", "a scale that is not above 0");
    rope_angles.y = (buf_rope_table){build_buffer(g, ROLE_rope_table, 2 * half)};
    BUILD_NODE(g, rope_angles);
    return rope_angles.y;
}

static uint32_t push_rotation(struct graph *g, struct op_rope rope, enum role in, enum role out)
{
    uint32_t x = rope.x.id, head_dim = rope.head_dim, rotary_dim = rope.rotary_dim;
    BUILD_INPUTS(g, rope);
    build_role(g, "rope", x, in);
    uint32_t width = build_width(g, x);
    uint32_t angles = build_width(g, rope.table.id);
    build_check(g, head_dim && width % head_dim == 0, "rope", "row width", width, head_dim);
    build_check(g, rotary_dim <= head_dim, "rope", "rotary_dim", rotary_dim, head_dim);
    build_check(g, angles == rotary_dim, "rope", "width of the table", angles, rotary_dim);
    const struct node *writer = build_writer(g, x);
    uint32_t normed = writer->op == OP_KIND_rms_norm ? writer->u.rms_norm.dim : width;
    if (writer->op == OP_KIND_split_mla_q) normed = writer->u.split_mla_q.rotated;
    build_check(g, normed == head_dim || normed == width, "rope", "head_dim", head_dim, normed);
    rope.y.id = build_buffer(g, out, width);
    BUILD_NODE(g, rope);
    return rope.y.id;
}

#define T(name, in, out)                                                                           \
    buf_##out push_rope_##name(struct graph *g, buf_##in x, buf_rope_table table,                  \
                               uint32_t head_dim, uint32_t rotary_dim)                             \
    {                                                                                              \
        return push_rope_as_##name(g, x, table, head_dim, rotary_dim, false);                      \
    }                                                                                              \
    buf_##out push_rope_as_##name(struct graph *g, buf_##in x, buf_rope_table table,               \
                                  uint32_t head_dim, uint32_t rotary_dim, bool pairs)              \
    {                                                                                              \
        struct op_rope rope = {.x = {x.id},                                                        \
                               .table = table,                                                     \
                               .head_dim = head_dim,                                               \
                               .rotary_dim = rotary_dim,                                           \
                               .pairs = pairs};                                                    \
        return (buf_##out){push_rotation(g, rope, ROLE_##in, ROLE_##out)};                         \
    }
ROTATIONS(T)
#undef T

state_kv_ready push_kv_append(struct graph *g, struct op_kv_append kv_append)
{
    BUILD_INPUTS(g, kv_append);
    const struct state_decl *state = build_state(g, kv_append.cache.id);
    kv_append.n_kv_heads = state->dims[0];
    kv_append.head_dim = state->dims[1];
    uint32_t want = build_product(g, "kv_append", state->dims[0], state->dims[1]);
    uint32_t k = build_width(g, kv_append.k.id);
    uint32_t v = build_width(g, kv_append.v.id);
    build_check(g, k == want, "kv_append", "width of k", k, want);
    build_check(g, v == want, "kv_append", "width of v", v, want);
    uint32_t head_dim = build_writer(g, kv_append.k.id)->u.rope.head_dim;
    build_check(g, head_dim == state->dims[1], "kv_append", "head_dim of k", head_dim,
                state->dims[1]);
    BUILD_NODE(g, kv_append);
    return (state_kv_ready){kv_append.cache.id};
}

/* Queries of so many heads that fit the cache; gives the result's width. */
static uint32_t check_queries(struct graph *g, const char *op, buf_q q, uint32_t heads,
                              const struct state_decl *cache)
{
    uint32_t kv_heads = cache->dims[0], dim = cache->dims[1], width = build_width(g, q.id);
    uint32_t want = build_product(g, op, heads, dim);
    build_check(g, width == want, op, "width of q", width, want);
    uint32_t head_dim = build_writer(g, q.id)->u.rope.head_dim;
    build_check(g, head_dim == dim, op, "head_dim of q", head_dim, dim);
    build_check(g, kv_heads && heads % kv_heads == 0, op, "query heads", heads, kv_heads);
    return width;
}

buf_attn_out push_attention(struct graph *g, struct op_attention attention)
{
    BUILD_INPUTS(g, attention);
    const struct state_decl *state = build_state(g, attention.cache.id);
    attention.n_kv_heads = state->dims[0];
    attention.head_dim = state->dims[1];
    uint32_t width = check_queries(g, "attention", attention.q, attention.n_heads, state);
    attention.y = (buf_attn_out){build_buffer(g, ROLE_attn_out, width)};
    BUILD_NODE(g, attention);
    return attention.y;
}

buf_attn_out push_sink_attention(struct graph *g, struct op_sink_attention sink_attention)
{
    BUILD_INPUTS(g, sink_attention);
    const struct state_decl *state = build_state(g, sink_attention.cache.id);
    uint32_t sinks = build_weight(g, sink_attention.sinks.id)->cols;
    uint32_t heads = sink_attention.n_heads;
    sink_attention.n_kv_heads = state->dims[0];
    sink_attention.head_dim = state->dims[1];
    uint32_t width = check_queries(g, "sink_attention", sink_attention.q, heads, state);
    build_check(g, sinks == heads, "sink_attention", "number of sinks", sinks, heads);
    sink_attention.y = (buf_attn_out){build_buffer(g, ROLE_attn_out, width)};
    BUILD_NODE(g, sink_attention);
    return sink_attention.y;
}

buf_attn_gated push_sigmoid_gate(struct graph *g, struct op_sigmoid_gate sigmoid_gate)
{
    BUILD_INPUTS(g, sigmoid_gate);
    uint32_t width = build_width(g, sigmoid_gate.x.id);
    uint32_t gate = build_width(g, sigmoid_gate.gate.id);
    build_check(g, width == gate, "sigmoid_gate", "width of the gate", gate, width);
    sigmoid_gate.y = (buf_attn_gated){build_buffer(g, ROLE_attn_gated, width)};
    BUILD_NODE(g, sigmoid_gate);
    return sigmoid_gate.y;
}
