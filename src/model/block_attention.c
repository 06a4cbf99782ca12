#include <math.h>

#include "model/block.h"

enum sluice_status attention_read(struct attention *a, const struct json_node *node,
                                  const struct config_frame *f, double partial,
                                  struct sluice_error *err)
{
    *a = (struct attention){.hidden = f->hidden, .eps = f->eps};
    TRY(config_read_heads(node, f->hidden, &a->heads, err));
    return rope_read(node, a->heads.head_dim, partial, &a->rope, err);
}

static uint32_t q_width(const struct attention *a)
{
    return a->heads.heads * a->heads.head_dim;
}

static uint32_t kv_width(const struct attention *a)
{
    return a->heads.kv_heads * a->heads.head_dim;
}

/* Queries, and what the head's result is multiplied by. */
static struct q_and_gate gated_queries(struct graph *g, const struct attention *a, buf_attn_input x)
{
    uint32_t width = 2 * q_width(a);
    wt_qg_proj w = WEIGHT(g, qg_proj, width, a->hidden);
    buf_q_stack stack =
        a->bias ? push_qg_proj_biased(g, x, w, WEIGHT(g, q_bias, 1, width)) : push_qg_proj(g, x, w);
    return PUSH(g, split_q_gate, .x = stack, .head_dim = a->heads.head_dim);
}

static buf_q_raw queries(struct graph *g, const struct attention *a, buf_attn_input x)
{
    wt_q_proj w = WEIGHT(g, q_proj, q_width(a), a->hidden);
    return a->bias ? push_q_proj_biased(g, x, w, WEIGHT(g, q_bias, 1, q_width(a)))
                   : push_q_proj(g, x, w);
}

static buf_k_raw keys(struct graph *g, const struct attention *a, buf_attn_input x)
{
    wt_k_proj w = WEIGHT(g, k_proj, kv_width(a), a->hidden);
    return a->bias ? push_k_proj_biased(g, x, w, WEIGHT(g, k_bias, 1, kv_width(a)))
                   : push_k_proj(g, x, w);
}

static buf_v values(struct graph *g, const struct attention *a, buf_attn_input x)
{
    wt_v_proj w = WEIGHT(g, v_proj, kv_width(a), a->hidden);
    return a->bias ? push_v_proj_biased(g, x, w, WEIGHT(g, v_bias, 1, kv_width(a)))
                   : push_v_proj(g, x, w);
}

static buf_q rotated_q(struct graph *g, const struct attention *a, buf_q_raw q,
                       buf_rope_table table)
{
    uint32_t dim = a->heads.head_dim, rotary = a->rope.rotary_dim;
    uint32_t run = a->norm == QK_NORM_HEADS ? dim : q_width(a);
    if (a->norm == QK_NORM_NONE) return push_rope_as_raw_q(g, q, table, dim, rotary, a->pairs);
    buf_q_normed normed = push_q_norm(g, q, WEIGHT(g, q_norm, 1, run), a->eps);
    return push_rope_as_q(g, normed, table, dim, rotary, a->pairs);
}

static buf_k rotated_k(struct graph *g, const struct attention *a, buf_k_raw k,
                       buf_rope_table table)
{
    uint32_t dim = a->heads.head_dim, rotary = a->rope.rotary_dim;
    uint32_t run = a->norm == QK_NORM_HEADS ? dim : kv_width(a);
    if (a->norm == QK_NORM_NONE) return push_rope_as_raw_k(g, k, table, dim, rotary, a->pairs);
    buf_k_normed normed = push_k_norm(g, k, WEIGHT(g, k_norm, 1, run), a->eps);
    return push_rope_as_k(g, normed, table, dim, rotary, a->pairs);
}

static buf_attn_proj gated_output(struct graph *g, const struct attention *a, buf_attn_gated x)
{
    wt_og_proj w = WEIGHT(g, og_proj, a->hidden, q_width(a));
    return a->out_bias ? push_og_proj_biased(g, x, w, WEIGHT(g, o_bias, 1, a->hidden))
                       : push_og_proj(g, x, w);
}

static buf_attn_proj output(struct graph *g, const struct attention *a, buf_attn_out x)
{
    wt_o_proj w = WEIGHT(g, o_proj, a->hidden, q_width(a));
    return a->out_bias ? push_o_proj_biased(g, x, w, WEIGHT(g, o_bias, 1, a->hidden))
                       : push_o_proj(g, x, w);
}

static buf_attn_out attended(struct graph *g, const struct attention *a, buf_q q,
                             state_kv_ready cache)
{
    uint32_t heads = a->heads.heads;
    float scale = 1.0f / sqrtf((float)a->heads.head_dim);
    if (a->sinks)
        return PUSH(g, sink_attention, .q = q, .cache = cache, .sinks = WEIGHT(g, sinks, 1, heads),
                    .n_heads = heads, .scale = scale, .window = a->window);
    return PUSH(g, attention, .q = q, .cache = cache, .n_heads = heads, .scale = scale,
                .window = a->window);
}

buf_attn_proj push_attention_block(struct graph *g, const struct attention *a, buf_attn_input x,
                                   buf_rope_table table)
{
    struct q_and_gate q = {0};
    if (a->gated)
        q = gated_queries(g, a, x);
    else
        q.q = queries(g, a, x);
    buf_k_raw k = keys(g, a, x);
    buf_v v = values(g, a, x);
    buf_q q_rope = rotated_q(g, a, q.q, table);
    buf_k k_rope = rotated_k(g, a, k, table);

    state_kv cache = graph_state_kv(g, a->heads.kv_heads, a->heads.head_dim);
    state_kv_ready ready = PUSH(g, kv_append, .k = k_rope, .v = v, .cache = cache);
    buf_attn_out out = attended(g, a, q_rope, ready);
    if (!a->gated) return output(g, a, out);
    return gated_output(g, a, PUSH(g, sigmoid_gate, .x = out, .gate = q.gate));
}
