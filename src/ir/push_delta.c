/* Push functions of the gated DeltaNet layer. */
#include "ir/build.h"

struct qkv_and_z push_split_qkvz(struct graph *g, struct op_split_qkvz split_qkvz)
{
    BUILD_INPUTS(g, split_qkvz);
    uint32_t width = build_width(g, split_qkvz.x.id);
    uint32_t heads = build_product(g, "split_qkvz", 2, split_qkvz.n_k_heads);
    uint32_t qk = build_product(g, "split_qkvz", heads, split_qkvz.dk);
    bool ok = build_check(g, qk && qk < width, "split_qkvz", "width of q and k", qk, width);
    uint32_t pairs = ok ? width - qk : 0;
    build_check(g, !ok || pairs % heads == 0, "split_qkvz", "width of v and z", pairs, heads);
    split_qkvz.qkv = (buf_qkv_stack){build_buffer(g, ROLE_qkv_stack, qk + pairs / 2)};
    split_qkvz.z = (buf_z_stack){build_buffer(g, ROLE_z_stack, pairs / 2)};
    BUILD_NODE(g, split_qkvz);
    return (struct qkv_and_z){split_qkvz.qkv, split_qkvz.z};
}

struct beta_and_alpha push_split_ba(struct graph *g, struct op_split_ba split_ba)
{
    BUILD_INPUTS(g, split_ba);
    uint32_t width = build_width(g, split_ba.x.id);
    uint32_t pair = build_product(g, "split_ba", 2, split_ba.n_k_heads);
    build_check(g, pair && width % pair == 0, "split_ba", "row width", width, pair);
    split_ba.beta = (buf_beta_stack){build_buffer(g, ROLE_beta_stack, width / 2)};
    split_ba.alpha = (buf_alpha_stack){build_buffer(g, ROLE_alpha_stack, width / 2)};
    BUILD_NODE(g, split_ba);
    return (struct beta_and_alpha){split_ba.beta, split_ba.alpha};
}

buf_conv_out push_conv(struct graph *g, struct op_conv conv)
{
    BUILD_INPUTS(g, conv);
    const struct weight_decl *w = build_weight(g, conv.w.id);
    const struct state_decl *state = build_state(g, conv.state.id);
    uint32_t width = build_width(g, conv.x.id);
    conv.width = w->rows;
    build_check(g, width == w->cols, "conv", "channels", width, w->cols);
    build_check(g, state->dims[0] + 1 == w->rows, "conv", "rows of state", state->dims[0],
                w->rows - 1);
    build_check(g, state->dims[1] == w->cols, "conv", "channels of state", state->dims[1], w->cols);
    conv.y = (buf_conv_out){build_buffer(g, ROLE_conv_out, width)};
    BUILD_NODE(g, conv);
    return conv.y;
}

/* Inputs that came by key head were split by the heads of this layer. */
static void check_split_qkvz(struct graph *g, const struct op_delta_norm *norm)
{
    const struct node *conv = build_writer(g, norm->x.id);
    if (conv->op != OP_KIND_conv) return;
    const struct node *split = build_writer(g, conv->u.conv.x.id);
    if (split->op != OP_KIND_split_qkvz) return;
    uint32_t heads = split->u.split_qkvz.n_k_heads, dk = split->u.split_qkvz.dk;
    build_check(g, heads == norm->n_k_heads, "delta_norm", "k heads", norm->n_k_heads, heads);
    build_check(g, dk == norm->dk, "delta_norm", "dk", norm->dk, dk);
}

static void check_split_ba(struct graph *g, const struct op_delta_net *delta)
{
    const struct node *gates = build_writer(g, delta->g.id);
    if (gates->op != OP_KIND_decay_beta) return;
    const struct node *split = build_writer(g, gates->u.decay_beta.alpha.id);
    if (split->op != OP_KIND_split_ba) return;
    uint32_t heads = split->u.split_ba.n_k_heads;
    build_check(g, heads == delta->n_k_heads, "delta_net", "k heads of the gates", delta->n_k_heads,
                heads);
}

buf_delta_qkv push_delta_norm(struct graph *g, struct op_delta_norm delta_norm)
{
    BUILD_INPUTS(g, delta_norm);
    uint32_t width = build_width(g, delta_norm.x.id);
    uint32_t heads = build_product(g, "delta_norm", 2, delta_norm.n_k_heads);
    uint32_t qk = build_product(g, "delta_norm", heads, delta_norm.dk);
    build_check(g, qk && qk < width, "delta_norm", "width of q and k", qk, width);
    check_split_qkvz(g, &delta_norm);
    delta_norm.y = (buf_delta_qkv){build_buffer(g, ROLE_delta_qkv, width)};
    BUILD_NODE(g, delta_norm);
    return delta_norm.y;
}

struct decay_and_beta push_decay_beta(struct graph *g, struct op_decay_beta decay_beta)
{
    BUILD_INPUTS(g, decay_beta);
    uint32_t heads = build_width(g, decay_beta.alpha.id);
    uint32_t beta = build_width(g, decay_beta.beta.id);
    uint32_t neg_a = build_weight(g, decay_beta.neg_a.id)->cols;
    uint32_t dt_bias = build_weight(g, decay_beta.dt_bias.id)->cols;
    build_check(g, beta == heads, "decay_beta", "width of beta", beta, heads);
    build_check(g, neg_a == heads, "decay_beta", "width of neg_a", neg_a, heads);
    build_check(g, dt_bias == heads, "decay_beta", "width of dt_bias", dt_bias, heads);
    decay_beta.g = (buf_g_decay){build_buffer(g, ROLE_g_decay, heads)};
    decay_beta.b = (buf_beta_gate){build_buffer(g, ROLE_beta_gate, heads)};
    BUILD_NODE(g, decay_beta);
    return (struct decay_and_beta){decay_beta.g, decay_beta.b};
}

buf_delta_out push_delta_net(struct graph *g, struct op_delta_net delta_net)
{
    BUILD_INPUTS(g, delta_net);
    const struct state_decl *state = build_state(g, delta_net.state.id);
    delta_net.n_v_heads = state->dims[0];
    delta_net.dv = state->dims[1];
    delta_net.dk = state->dims[2];
    const struct op_delta_norm *norm = &build_writer(g, delta_net.x.id)->u.delta_norm;
    build_check(g, norm->n_k_heads == delta_net.n_k_heads, "delta_net", "k heads",
                delta_net.n_k_heads, norm->n_k_heads);
    build_check(g, norm->dk == delta_net.dk, "delta_net", "dk of the state", delta_net.dk,
                norm->dk);
    uint32_t values = build_product(g, "delta_net", delta_net.n_v_heads, delta_net.dv);
    uint32_t have = build_width(g, delta_net.x.id) - 2 * norm->n_k_heads * norm->dk;
    uint32_t decay = build_width(g, delta_net.g.id);
    uint32_t beta = build_width(g, delta_net.b.id);
    build_check(g, have == values, "delta_net", "width of v", have, values);
    build_check(g, decay == delta_net.n_v_heads, "delta_net", "decay factors", decay,
                delta_net.n_v_heads);
    build_check(g, beta == delta_net.n_v_heads, "delta_net", "write strengths", beta,
                delta_net.n_v_heads);
    build_check(g, delta_net.n_k_heads && delta_net.n_v_heads % delta_net.n_k_heads == 0,
                "delta_net", "v heads", delta_net.n_v_heads, delta_net.n_k_heads);
    check_split_ba(g, &delta_net);
    delta_net.y = (buf_delta_out){build_buffer(g, ROLE_delta_out, values)};
    BUILD_NODE(g, delta_net);
    return delta_net.y;
}

buf_value_out push_gated_norm(struct graph *g, struct op_gated_norm gated_norm)
{
    BUILD_INPUTS(g, gated_norm);
    uint32_t width = build_width(g, gated_norm.x.id);
    uint32_t gate = build_width(g, gated_norm.z.id);
    gated_norm.dv = build_weight(g, gated_norm.w.id)->cols;
    uint32_t dv = build_writer(g, gated_norm.x.id)->u.delta_net.dv;
    build_check(g, gated_norm.dv == dv, "gated_norm", "width of the weight", gated_norm.dv, dv);
    build_check(g, gate == width, "gated_norm", "width of the gate", gate, width);
    gated_norm.y = (buf_value_out){build_buffer(g, ROLE_value_out, width)};
    BUILD_NODE(g, gated_norm);
    return gated_norm.y;
}
