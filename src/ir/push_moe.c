/* Push functions of the MoE block: router, grouping of picks, experts, combination. */
#include "ir/build.h"

/* The ids are nobody's operand: the backend hands them to whoever reads experts. */
buf_guess_ids push_guess_experts(struct graph *g, struct op_guess_experts guess_experts)
{
    BUILD_INPUTS(g, guess_experts);
    uint32_t width = build_width(g, guess_experts.x.id);
    const struct weight_decl *bank = build_weight(g, guess_experts.bank.id);
    const struct weight_decl *router = build_weight(g, guess_experts.router.id);
    uint32_t norm = build_weight(g, guess_experts.norm.id)->cols, k = guess_experts.k;
    build_check(g, norm == width, "guess_experts", "width of the norm", norm, width);
    build_check(g, router->cols == width, "guess_experts", "row width", width, router->cols);
    build_check(g, router->rows == bank->n_experts, "guess_experts", "number of experts",
                router->rows, bank->n_experts);
    build_check(g, k >= 1 && k <= router->rows, "guess_experts", "experts per token", k,
                router->rows);
    guess_experts.input = (buf_guess_input){build_buffer(g, ROLE_guess_input, width)};
    guess_experts.logits = (buf_guess_logits){build_buffer(g, ROLE_guess_logits, router->rows)};
    guess_experts.ids = (buf_guess_ids){build_buffer(g, ROLE_guess_ids, k)};
    guess_experts.weights = (buf_guess_weights){build_buffer(g, ROLE_guess_weights, k)};
    BUILD_NODE(g, guess_experts);
    graph_keep(g, guess_experts.ids);
    return guess_experts.ids;
}

struct picks push_router(struct graph *g, struct op_router router)
{
    BUILD_INPUTS(g, router);
    uint32_t n_experts = build_width(g, router.logits.id);
    build_check(g, router.k >= 1 && router.k <= n_experts, "router", "experts per token", router.k,
                n_experts);
    if (g->n_picks == 0 && !g->finished) g->n_picks = router.k;
    build_check(g, g->n_picks == router.k, "router", "experts per token", router.k, g->n_picks);
    router.ids = (buf_router_ids){build_buffer(g, ROLE_router_ids, router.k)};
    router.weights = (buf_router_weights){build_buffer(g, ROLE_router_weights, router.k)};
    BUILD_NODE(g, router);
    return (struct picks){router.ids, router.weights};
}

struct grouped_picks push_group_picks(struct graph *g, struct op_group_picks group_picks)
{
    BUILD_INPUTS(g, group_picks);
    uint32_t k = build_width(g, group_picks.ids.id);
    uint32_t scored = build_width(g, build_writer(g, group_picks.ids.id)->u.router.logits.id);
    build_check(g, group_picks.n_experts == scored, "group_picks", "number of experts",
                group_picks.n_experts, scored);
    group_picks.offsets =
        (buf_expert_offsets){build_buffer(g, ROLE_expert_offsets, group_picks.n_experts + 1)};
    group_picks.rows = (buf_expert_rows){build_buffer(g, ROLE_expert_rows, 1)};
    group_picks.places = (buf_pick_places){build_buffer(g, ROLE_pick_places, k)};
    BUILD_NODE(g, group_picks);
    return (struct grouped_picks){group_picks.offsets, group_picks.rows, group_picks.places};
}

buf_expert_input push_gather_rows(struct graph *g, struct op_gather_rows gather_rows)
{
    BUILD_INPUTS(g, gather_rows);
    uint32_t width = build_width(g, gather_rows.x.id);
    gather_rows.y = (buf_expert_input){build_buffer(g, ROLE_expert_input, width)};
    BUILD_NODE(g, gather_rows);
    return gather_rows.y;
}

buf_expert_out push_experts(struct graph *g, struct op_experts experts)
{
    BUILD_INPUTS(g, experts);
    const struct weight_decl *bank = build_weight(g, experts.bank.id);
    uint32_t width = build_width(g, experts.x.id);
    uint32_t offsets = build_width(g, experts.offsets.id);
    build_check(g, width == bank->cols, "experts", "row width", width, bank->cols);
    build_check(g, offsets == bank->n_experts + 1, "experts", "offsets", offsets,
                bank->n_experts + 1);
    experts.n_experts = bank->n_experts;
    experts.gate = (buf_expert_gate){build_buffer(g, ROLE_expert_gate, bank->n_inter)};
    experts.up = (buf_expert_up){build_buffer(g, ROLE_expert_up, bank->n_inter)};
    experts.act = (buf_expert_act){build_buffer(g, ROLE_expert_act, bank->n_inter)};
    experts.y = (buf_expert_out){build_buffer(g, ROLE_expert_out, width)};
    BUILD_NODE(g, experts);
    return experts.y;
}

buf_moe_sum push_expert_sum(struct graph *g, struct op_expert_sum expert_sum)
{
    BUILD_INPUTS(g, expert_sum);
    uint32_t places = build_width(g, expert_sum.places.id);
    uint32_t weights = build_width(g, expert_sum.weights.id);
    build_check(g, places == weights, "expert_sum", "picks", places, weights);
    uint32_t width = build_width(g, expert_sum.x.id);
    expert_sum.y = (buf_moe_sum){build_buffer(g, ROLE_moe_sum, width)};
    BUILD_NODE(g, expert_sum);
    return expert_sum.y;
}

buf_shared_ffn_act push_shared_swiglu(struct graph *g, buf_shared_ffn_gate gate,
                                      buf_shared_ffn_up up)
{
    struct op_swiglu swiglu = {.gate = as_swiglu_gate(gate), .up = as_swiglu_up(up)};
    BUILD_INPUTS(g, swiglu);
    build_role(g, "swiglu", gate.id, ROLE_shared_ffn_gate);
    build_role(g, "swiglu", up.id, ROLE_shared_ffn_up);
    uint32_t width = build_width(g, gate.id);
    uint32_t have = build_width(g, up.id);
    build_check(g, have == width, "swiglu", "width of up", have, width);
    buf_shared_ffn_act y = {build_buffer(g, ROLE_shared_ffn_act, width)};
    swiglu.y = as_swiglu_out(y);
    BUILD_NODE(g, swiglu);
    return y;
}

buf_hidden push_combine(struct graph *g, struct op_combine combine)
{
    BUILD_INPUTS(g, combine);
    uint32_t width = build_width(g, combine.residual.id);
    uint32_t moe = build_width(g, combine.moe.id);
    uint32_t shared = build_width(g, combine.shared.id);
    uint32_t gate = build_width(g, combine.gate.id);
    build_check(g, moe == width, "combine", "width of moe", moe, width);
    build_check(g, shared == width, "combine", "width of shared", shared, width);
    build_check(g, gate == 1, "combine", "width of the shared gate", gate, 1);
    combine.y = (buf_hidden){build_buffer(g, ROLE_hidden, width)};
    BUILD_NODE(g, combine);
    return combine.y;
}
