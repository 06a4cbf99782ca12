#include "model/block.h"

enum sluice_status mlp_read(struct mlp *m, const struct json_node *node,
                            const struct config_frame *f, bool any, struct sluice_error *err)
{
    *m = (struct mlp){.hidden = f->hidden, .eps = f->eps};
    if (!any) return SLUICE_OK;
    return json_get_u32(node, "intermediate_size", 1, CONFIG_MAX_DIM, &m->inter, err);
}

buf_hidden push_mlp_block(struct graph *g, const struct mlp *m, buf_residual x)
{
    buf_mlp_input in = push_mlp_norm(g, x, WEIGHT(g, mlp_norm, 1, m->hidden), m->eps);
    buf_mlp_gate gate = push_mlp_gate_proj(g, in, WEIGHT(g, mlp_gate_proj, m->inter, m->hidden));
    buf_mlp_up up = push_mlp_up_proj(g, in, WEIGHT(g, mlp_up_proj, m->inter, m->hidden));
    buf_mlp_out out = push_mlp_down_proj(g, push_mlp_swiglu(g, gate, up),
                                         WEIGHT(g, mlp_down_proj, m->hidden, m->inter));
    return PUSH(g, layer_add, .residual = x, .delta = as_layer_delta(out));
}

enum sluice_status moe_read(struct moe *m, const struct json_node *node,
                            const struct config_frame *f, const char *count, const char *width,
                            const struct model_options *options, struct sluice_error *err)
{
    *m = (struct moe){.hidden = f->hidden, .eps = f->eps, .guess = options->guess};
    TRY(count ? json_get_u32(node, count, 1, CONFIG_MAX_EXPERTS, &m->experts, err)
              : config_read_experts(node, &m->experts, err));
    TRY(config_read_picks(node, m->experts, options, &m->picks, err));
    return json_get_u32(node, width, 1, CONFIG_MAX_DIM, &m->inter, err);
}

enum sluice_status moe_read_gated(struct moe *m, const struct json_node *node,
                                  struct sluice_error *err)
{
    m->shared = SHARED_GATED;
    return json_get_u32(node, "shared_expert_intermediate_size", 1, CONFIG_MAX_DIM,
                        &m->shared_inter, err);
}

enum sluice_status moe_read_shared(struct moe *m, const struct json_node *node, uint32_t fallback,
                                   struct sluice_error *err)
{
    uint32_t n;
    TRY(json_get_u32_or(node, "n_shared_experts", 0, CONFIG_MAX_EXPERTS, fallback, &n, err));
    TRY(config_check_width(node, "shared experts", n, m->inter, err));
    m->shared = n ? SHARED_PLAIN : SHARED_NONE;
    m->shared_inter = n * m->inter;
    return SLUICE_OK;
}

enum sluice_status moe_read_sigmoid(struct moe *m, const struct json_node *node,
                                    struct sluice_error *err)
{
    double scale;
    m->sigmoid = true;
    TRY(config_expect_string(node, "scoring_func", "sigmoid", err));
    TRY(config_expect_string(node, "topk_method", "noaux_tc", err));
    TRY(json_get_u32_or(node, "n_group", 1, CONFIG_MAX_EXPERTS, 1, &m->n_groups, err));
    TRY(json_get_u32_or(node, "topk_group", 1, CONFIG_MAX_EXPERTS, 1, &m->top_groups, err));
    TRY(json_get_bool_or(node, "norm_topk_prob", true, &m->normalize, err));
    TRY(json_get_f64_or(node, "routed_scaling_factor", 0, 1e6, 1, &scale, err));
    m->scale = (float)scale;
    uint32_t each = m->experts / m->n_groups;
    if (m->experts % m->n_groups != 0 || (m->n_groups > 1 && each < 2))
        return err_set(err, SLUICE_E_MISMATCH,
                       "%s: %u experts cannot be in %u equal groups of at least two (field "
                       "'n_group')",
                       node->file, m->experts, m->n_groups);
    if (m->top_groups > m->n_groups || (uint64_t)m->top_groups * each < m->picks)
        return err_set(err, SLUICE_E_MISMATCH,
                       "%s: %u experts per token cannot come from %u of %u groups of %u experts "
                       "(field 'topk_group')",
                       node->file, m->picks, m->top_groups, m->n_groups, each);
    return SLUICE_OK;
}

static void push_guess(struct graph *g, const struct moe *m, struct routing w, buf_stream x)
{
    if (m->sigmoid)
        PUSH(g, guess_by_sigmoid, .x = x, .norm = w.norm, .router = w.router,
             .correction = w.correction, .bank = w.bank, .k = m->picks, .n_groups = m->n_groups,
             .top_groups = m->top_groups, .eps = m->eps);
    else
        PUSH(g, guess_experts, .x = x, .norm = w.norm, .router = w.router, .bank = w.bank,
             .k = m->picks, .eps = m->eps);
}

struct routing push_routing(struct graph *g, const struct moe *m, buf_stream x)
{
    struct routing w = {.norm = WEIGHT(g, moe_norm, 1, m->hidden),
                        .router = WEIGHT(g, router_proj, m->experts, m->hidden)};
    if (m->sigmoid) w.correction = WEIGHT(g, router_correction, 1, m->experts);
    if (m->biased) w.bias = WEIGHT(g, router_bias, 1, m->experts);
    w.bank = m->biased ? graph_biased_experts(g, m->experts, m->inter, m->hidden)
                       : graph_experts(g, m->experts, m->inter, m->hidden);
    if (m->guess) push_guess(g, m, w, x);
    return w;
}

static struct picks choose_experts(struct graph *g, const struct moe *m, struct routing w,
                                   buf_moe_input x)
{
    buf_router_logits scores = m->biased ? push_router_proj_biased(g, x, w.router, w.bias)
                                         : push_router_proj(g, x, w.router);
    if (!m->sigmoid)
        return PUSH(g, router, .logits = scores, .k = m->picks, .normalize = m->normalize);
    return PUSH(g, sigmoid_router, .logits = scores, .correction = w.correction, .k = m->picks,
                .n_groups = m->n_groups, .top_groups = m->top_groups, .normalize = m->normalize,
                .scale = m->scale);
}

static buf_shared_out shared_expert(struct graph *g, const struct moe *m, buf_moe_input x)
{
    uint32_t inter = m->shared_inter;
    buf_shared_ffn_gate gate =
        push_shared_ffn_gate_proj(g, x, WEIGHT(g, shared_ffn_gate_proj, inter, m->hidden));
    buf_shared_ffn_up up =
        push_shared_ffn_up_proj(g, x, WEIGHT(g, shared_ffn_up_proj, inter, m->hidden));
    return push_shared_ffn_down_proj(g, push_shared_swiglu(g, gate, up),
                                     WEIGHT(g, shared_ffn_down_proj, m->hidden, inter));
}

static buf_moe_sum routed_experts(struct graph *g, const struct moe *m, struct routing w,
                                  buf_moe_input x, struct picks picks, struct grouped_picks grouped)
{
    buf_expert_input rows = PUSH(g, gather_rows, .x = x, .rows = grouped.rows);
    buf_expert_out out =
        PUSH(g, experts, .x = rows, .offsets = grouped.offsets, .bank = w.bank, .limit = m->limit);
    return PUSH(g, expert_sum, .x = out, .places = grouped.places, .weights = picks.weights);
}

buf_hidden push_moe_block(struct graph *g, const struct moe *m, struct routing w, buf_residual x)
{
    buf_moe_input in = push_moe_norm(g, x, w.norm, m->eps);
    struct picks picks = choose_experts(g, m, w, in);
    struct grouped_picks grouped = PUSH(g, group_picks, .ids = picks.ids, .n_experts = m->experts);
    if (m->shared == SHARED_NONE)
        return PUSH(g, layer_add, .residual = x,
                    .delta = as_layer_delta(routed_experts(g, m, w, in, picks, grouped)));
    buf_shared_gate gate = {0};
    if (m->shared == SHARED_GATED)
        gate = push_shared_gate_proj(g, in, WEIGHT(g, shared_gate_proj, 1, m->hidden));
    /* Before the routed experts, which may still be on their way. */
    buf_shared_out shared = shared_expert(g, m, in);
    buf_moe_sum sum = routed_experts(g, m, w, in, picks, grouped);
    if (m->shared == SHARED_PLAIN)
        return PUSH(g, combine_ungated, .residual = x, .moe = sum, .shared = shared);
    return PUSH(g, combine, .residual = x, .moe = sum, .shared = shared, .gate = gate);
}

static buf_residual attend(struct graph *g, const struct attention *a, buf_stream x,
                           buf_rope_table table)
{
    buf_attn_input in = push_attn_norm(g, x, WEIGHT(g, attn_norm, 1, a->hidden), a->eps);
    return PUSH(g, residual_add, .stream = x, .delta = push_attention_block(g, a, in, table));
}

buf_hidden push_moe_layer(struct graph *g, const struct attention *a, const struct moe *m,
                          buf_stream x, buf_rope_table table)
{
    struct routing routing = push_routing(g, m, x);
    return push_moe_block(g, m, routing, attend(g, a, x, table));
}

buf_hidden push_mlp_layer(struct graph *g, const struct attention *a, const struct mlp *m,
                          buf_stream x, buf_rope_table table)
{
    return push_mlp_block(g, m, attend(g, a, x, table));
}
