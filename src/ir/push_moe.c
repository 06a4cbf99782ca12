/* Push functions of the MoE block, and of the dense MLP that some layers have instead. */
#include "ir/build.h"

/* What both guesses check of their norm, router and bank. */
static void check_guess(struct graph *g, const char *name, uint32_t width,
                        const struct weight_decl *norm, const struct weight_decl *router,
                        const struct weight_decl *bank, uint32_t k)
{
    build_check(g, norm->cols == width, name, "width of the norm", norm->cols, width);
    build_check(g, router->cols == width, name, "row width", width, router->cols);
    build_check(g, router->rows == bank->n_experts, name, "number of experts", router->rows,
                bank->n_experts);
    build_check(g, k >= 1 && k <= router->rows, name, "experts per token", k, router->rows);
}

/* The ids are nobody's operand: the backend hands them to whoever reads experts. */
buf_guess_ids push_guess_experts(struct graph *g, struct op_guess_experts guess_experts)
{
    BUILD_INPUTS(g, guess_experts);
    uint32_t width = build_width(g, guess_experts.x.id), k = guess_experts.k;
    const struct weight_decl *router = build_weight(g, guess_experts.router.id);
    check_guess(g, "guess_experts", width, build_weight(g, guess_experts.norm.id), router,
                build_weight(g, guess_experts.bank.id), k);
    guess_experts.input = (buf_guess_input){build_buffer(g, ROLE_guess_input, width)};
    guess_experts.logits = (buf_guess_logits){build_buffer(g, ROLE_guess_logits, router->rows)};
    guess_experts.ids = (buf_guess_ids){build_buffer(g, ROLE_guess_ids, k)};
    guess_experts.weights = (buf_guess_weights){build_buffer(g, ROLE_guess_weights, k)};
    BUILD_NODE(g, guess_experts);
    graph_keep(g, guess_experts.ids);
    return guess_experts.ids;
}

/* k experts are chosen in top_groups of n_groups equal groups; a group's score is of two experts.
 */
static void check_groups(struct graph *g, const char *name, uint32_t n_experts, uint32_t n_groups,
                         uint32_t top_groups, uint32_t k)
{
    bool even = n_groups >= 1 && n_experts % n_groups == 0;
    if (!build_check(g, even, name, "number of groups", n_groups, n_experts)) return;
    uint32_t each = n_experts / n_groups;
    build_check(g, n_groups == 1 || each >= 2, name, "experts of a group", each, 2);
    build_check(g, top_groups >= 1 && top_groups <= n_groups, name, "chosen groups", top_groups,
                n_groups);
    build_check(g, (uint64_t)top_groups * each >= k, name, "experts of the chosen groups",
                top_groups * each, k);
}

buf_guess_ids push_guess_by_sigmoid(struct graph *g, struct op_guess_by_sigmoid guess_by_sigmoid)
{
    BUILD_INPUTS(g, guess_by_sigmoid);
    const char *name = "guess_by_sigmoid";
    uint32_t width = build_width(g, guess_by_sigmoid.x.id), k = guess_by_sigmoid.k;
    const struct weight_decl *router = build_weight(g, guess_by_sigmoid.router.id);
    uint32_t correction = build_weight(g, guess_by_sigmoid.correction.id)->cols;
    check_guess(g, name, width, build_weight(g, guess_by_sigmoid.norm.id), router,
                build_weight(g, guess_by_sigmoid.bank.id), k);
    build_check(g, correction == router->rows, name, "width of the correction", correction,
                router->rows);
    check_groups(g, name, router->rows, guess_by_sigmoid.n_groups, guess_by_sigmoid.top_groups, k);
    guess_by_sigmoid.input = (buf_guess_input){build_buffer(g, ROLE_guess_input, width)};
    guess_by_sigmoid.logits = (buf_guess_logits){build_buffer(g, ROLE_guess_logits, router->rows)};
    guess_by_sigmoid.ids = (buf_guess_ids){build_buffer(g, ROLE_guess_ids, k)};
    guess_by_sigmoid.weights = (buf_guess_weights){build_buffer(g, ROLE_guess_weights, k)};
    BUILD_NODE(g, guess_by_sigmoid);
    graph_keep(g, guess_by_sigmoid.ids);
    return guess_by_sigmoid.ids;
}

/* All routers of a graph choose equally many experts. */
static void check_picks(struct graph *g, const char *name, uint32_t n_experts, uint32_t k)
{
    build_check(g, k >= 1 && k <= n_experts, name, "experts per token", k, n_experts);
    if (g->n_picks == 0 && !g->finished) g->n_picks = k;
    build_check(g, g->n_picks == k, name, "experts per token", k, g->n_picks);
}

struct picks push_router(struct graph *g, struct op_router router)
{
    BUILD_INPUTS(g, router);
    check_picks(g, "router", build_width(g, router.logits.id), router.k);
    router.ids = (buf_router_ids){build_buffer(g, ROLE_router_ids, router.k)};
    router.weights = (buf_router_weights){build_buffer(g, ROLE_router_weights, router.k)};
    BUILD_NODE(g, router);
    return (struct picks){router.ids, router.weights};
}

struct picks push_sigmoid_router(struct graph *g, struct op_sigmoid_router sigmoid_router)
{
    BUILD_INPUTS(g, sigmoid_router);
    const char *name = "sigmoid_router";
    uint32_t n_experts = build_width(g, sigmoid_router.logits.id), k = sigmoid_router.k;
    uint32_t correction = build_weight(g, sigmoid_router.correction.id)->cols;
    check_picks(g, name, n_experts, k);
    build_check(g, correction == n_experts, name, "width of the correction", correction, n_experts);
    check_groups(g, name, n_experts, sigmoid_router.n_groups, sigmoid_router.top_groups, k);
    sigmoid_router.ids = (buf_router_ids){build_buffer(g, ROLE_router_ids, k)};
    sigmoid_router.weights = (buf_router_weights){build_buffer(g, ROLE_router_weights, k)};
    BUILD_NODE(g, sigmoid_router);
    return (struct picks){sigmoid_router.ids, sigmoid_router.weights};
}

/* The number of experts that were scored for these picks. */
static uint32_t scored_for(const struct graph *g, uint32_t ids)
{
    const struct node *writer = build_writer(g, ids);
    bool sigmoid = writer->op == OP_KIND_sigmoid_router;
    return build_width(g,
                       sigmoid ? writer->u.sigmoid_router.logits.id : writer->u.router.logits.id);
}

struct grouped_picks push_group_picks(struct graph *g, struct op_group_picks group_picks)
{
    BUILD_INPUTS(g, group_picks);
    uint32_t k = build_width(g, group_picks.ids.id);
    uint32_t scored = scored_for(g, group_picks.ids.id);
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
    uint32_t both = build_product(g, "experts", 2, bank->n_inter);
    experts.gate_up = (buf_expert_gate_up){build_buffer(g, ROLE_expert_gate_up, both)};
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

static uint32_t push_swiglu(struct graph *g, uint32_t gate, uint32_t up, enum role gate_role,
                            enum role up_role, enum role out)
{
    struct op_swiglu swiglu = {.gate = {gate}, .up = {up}};
    if (!BUILD_INPUTS(g, swiglu)) return 0;
    build_role(g, "swiglu", gate, gate_role);
    build_role(g, "swiglu", up, up_role);
    uint32_t width = build_width(g, gate);
    uint32_t have = build_width(g, up);
    build_check(g, have == width, "swiglu", "width of up", have, width);
    swiglu.y.id = build_buffer(g, out, width);
    BUILD_NODE(g, swiglu);
    return swiglu.y.id;
}

buf_shared_ffn_act push_shared_swiglu(struct graph *g, buf_shared_ffn_gate gate,
                                      buf_shared_ffn_up up)
{
    return (buf_shared_ffn_act){push_swiglu(g, gate.id, up.id, ROLE_shared_ffn_gate,
                                            ROLE_shared_ffn_up, ROLE_shared_ffn_act)};
}

buf_mlp_act push_mlp_swiglu(struct graph *g, buf_mlp_gate gate, buf_mlp_up up)
{
    return (buf_mlp_act){push_swiglu(g, gate.id, up.id, ROLE_mlp_gate, ROLE_mlp_up, ROLE_mlp_act)};
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

buf_hidden push_combine_ungated(struct graph *g, struct op_combine_ungated combine_ungated)
{
    BUILD_INPUTS(g, combine_ungated);
    const char *name = "combine_ungated";
    uint32_t width = build_width(g, combine_ungated.residual.id);
    uint32_t moe = build_width(g, combine_ungated.moe.id);
    uint32_t shared = build_width(g, combine_ungated.shared.id);
    build_check(g, moe == width, name, "width of moe", moe, width);
    build_check(g, shared == width, name, "width of shared", shared, width);
    combine_ungated.y = (buf_hidden){build_buffer(g, ROLE_hidden, width)};
    BUILD_NODE(g, combine_ungated);
    return combine_ungated.y;
}
