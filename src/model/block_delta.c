#include "model/block.h"

static const float delta_norm_eps = 1e-6f;

enum sluice_status delta_net_read(struct delta_net *d, const struct json_node *node,
                                  struct sluice_error *err)
{
    TRY(json_get_u32(node, "linear_num_key_heads", 1, CONFIG_MAX_DIM, &d->k_heads, err));
    TRY(json_get_u32(node, "linear_num_value_heads", 1, CONFIG_MAX_DIM, &d->v_heads, err));
    TRY(json_get_u32(node, "linear_key_head_dim", 1, CONFIG_MAX_DIM, &d->dk, err));
    TRY(json_get_u32(node, "linear_value_head_dim", 1, CONFIG_MAX_DIM, &d->dv, err));
    TRY(json_get_u32_or(node, "linear_conv_kernel_dim", 1, 64, 4, &d->conv_width, err));
    TRY(config_check_width(node, "linear key heads", d->k_heads, d->dk, err));
    TRY(config_check_width(node, "linear value heads", d->v_heads, d->dv, err));
    if (d->v_heads % d->k_heads != 0)
        return err_set(err, SLUICE_E_MISMATCH,
                       "%s: %u linear value heads cannot share %u key heads evenly", node->file,
                       d->v_heads, d->k_heads);
    return SLUICE_OK;
}

static struct qkv_and_z wide_inputs(struct graph *g, const struct delta_net *d, buf_attn_input x,
                                    uint32_t channels)
{
    uint32_t values = d->v_heads * d->dv;
    struct qkv_and_z in;
    if (d->fused_qkvz) {
        buf_qkvz_stack stack =
            push_qkvz_proj(g, x, WEIGHT(g, qkvz_proj, channels + values, d->hidden));
        return PUSH(g, split_qkvz, .x = stack, .n_k_heads = d->k_heads, .dk = d->dk);
    }
    in.qkv = push_qkv_proj(g, x, WEIGHT(g, qkv_proj, channels, d->hidden));
    in.z = push_z_proj(g, x, WEIGHT(g, z_proj, values, d->hidden));
    return in;
}

static struct beta_and_alpha narrow_inputs(struct graph *g, const struct delta_net *d,
                                           buf_attn_input x)
{
    struct beta_and_alpha in;
    if (d->fused_ba) {
        buf_ba_stack ba = push_ba_proj(g, x, WEIGHT(g, ba_proj, 2 * d->v_heads, d->hidden));
        return PUSH(g, split_ba, .x = ba, .n_k_heads = d->k_heads);
    }
    in.beta = push_beta_proj(g, x, WEIGHT(g, beta_proj, d->v_heads, d->hidden));
    in.alpha = push_alpha_proj(g, x, WEIGHT(g, alpha_proj, d->v_heads, d->hidden));
    return in;
}

buf_attn_proj push_delta_net_block(struct graph *g, const struct delta_net *d, buf_attn_input x)
{
    uint32_t values = d->v_heads * d->dv;
    uint32_t channels = 2 * d->k_heads * d->dk + values;
    struct qkv_and_z wide = wide_inputs(g, d, x, channels);
    struct beta_and_alpha narrow = narrow_inputs(g, d, x);

    buf_conv_out conv = PUSH(g, conv, .x = wide.qkv, .w = WEIGHT(g, conv, d->conv_width, channels),
                             .state = graph_state_conv(g, d->conv_width, channels));
    buf_delta_qkv unit =
        PUSH(g, delta_norm, .x = conv, .n_k_heads = d->k_heads, .dk = d->dk, .eps = delta_norm_eps);
    struct decay_and_beta gates = PUSH(g, decay_beta, .alpha = narrow.alpha, .beta = narrow.beta,
                                       .neg_a = WEIGHT(g, neg_a, 1, d->v_heads),
                                       .dt_bias = WEIGHT(g, dt_bias, 1, d->v_heads));
    buf_delta_out out = PUSH(g, delta_net, .x = unit, .g = gates.g, .b = gates.b,
                             .state = graph_state_delta(g, d->v_heads, d->dv, d->dk),
                             .n_k_heads = d->k_heads, .tiled = d->tiled);
    buf_value_out value = PUSH(g, gated_norm, .x = out, .z = wide.z,
                               .w = WEIGHT(g, delta_norm, 1, d->dv), .eps = d->eps);
    return push_delta_proj(g, value, WEIGHT(g, delta_proj, d->hidden, values));
}
