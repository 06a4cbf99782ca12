/* Push functions of the residual stream: embedding, norms, projections, additions, the head. */
#include "ir/build.h"

buf_embed_out push_embed(struct graph *g, struct op_embed embed)
{
    BUILD_INPUTS(g, embed);
    uint32_t hidden = build_weight(g, embed.table.id)->cols;
    embed.y = (buf_embed_out){build_buffer(g, ROLE_embed_out, hidden)};
    BUILD_NODE(g, embed);
    return embed.y;
}

/*
 * What one run of a norm covers: a head of q or k where it is known (0: any divisor of the row),
 * else a whole row.
 */
static uint32_t norm_run(const struct graph *g, uint32_t x, enum role out)
{
    const struct node *writer = build_writer(g, x);
    if (out == ROLE_q_normed && writer->op == OP_KIND_split_q_gate)
        return writer->u.split_q_gate.head_dim;
    return out == ROLE_q_normed || out == ROLE_k_normed ? 0 : build_width(g, x);
}

static uint32_t push_rms(struct graph *g, const char *name, uint32_t x, uint32_t w, float eps,
                         enum role in, enum role out)
{
    struct op_rms_norm rms_norm = {.x = {x}, .w = {w}, .eps = eps};
    if (!build_inputs(g, OP_KIND_rms_norm, name, &rms_norm, sizeof rms_norm)) return 0;
    build_role(g, name, x, in);
    uint32_t width = build_width(g, x);
    uint32_t dim = build_weight(g, w)->cols;
    uint32_t run = norm_run(g, x, out);
    build_check(g, width % dim == 0, name, "row width", width, dim);
    build_check(g, run == 0 || dim == run, name, "width of the weight", dim, run);
    rms_norm.dim = dim;
    rms_norm.y.id = build_buffer(g, out, width);
    BUILD_NODE(g, rms_norm);
    return rms_norm.y.id;
}

#define N(weight, in, out)                                                                         \
    buf_##out push_##weight(struct graph *g, buf_##in x, wt_##weight w, float eps)                 \
    {                                                                                              \
        return (buf_##out){push_rms(g, #weight, x.id, w.id, eps, ROLE_##in, ROLE_##out)};          \
    }
NORMS(N)
#undef N

static uint32_t push_matmul(struct graph *g, const char *name, uint32_t x, uint32_t w, enum role in,
                            enum role out)
{
    struct op_matmul matmul = {.x = {x}, .w = {w}};
    if (!build_inputs(g, OP_KIND_matmul, name, &matmul, sizeof matmul)) return 0;
    build_role(g, name, x, in);
    const struct weight_decl *decl = build_weight(g, w);
    uint32_t width = build_width(g, x);
    build_check(g, width == decl->cols, name, "row width", width, decl->cols);
    matmul.y.id = build_buffer(g, out, decl->rows);
    BUILD_NODE(g, matmul);
    return matmul.y.id;
}

#define P(weight, in, out)                                                                         \
    buf_##out push_##weight(struct graph *g, buf_##in x, wt_##weight w)                            \
    {                                                                                              \
        return (buf_##out){push_matmul(g, #weight, x.id, w.id, ROLE_##in, ROLE_##out)};            \
    }
PROJECTIONS(P)
#undef P

static uint32_t push_with_bias(struct graph *g, const char *name, struct op_affine affine,
                               enum role in, enum role out, enum weight_role bias_role)
{
    if (!build_inputs(g, OP_KIND_affine, name, &affine, sizeof affine)) return 0;
    build_role(g, name, affine.x.id, in);
    const struct weight_decl *decl = build_weight(g, affine.w.id);
    const struct weight_decl *bias = build_weight(g, affine.b.id);
    uint32_t width = build_width(g, affine.x.id);
    if (bias->role != bias_role)
        build_fail(g, name, "%s where %s is meant", weight_role_name(bias->role),
                   weight_role_name(bias_role));
    build_check(g, width == decl->cols, name, "row width", width, decl->cols);
    build_check(g, bias->cols == decl->rows, name, "width of the bias", bias->cols, decl->rows);
    affine.y.id = build_buffer(g, out, decl->rows);
    BUILD_NODE(g, affine);
    return affine.y.id;
}

#define A(weight, bias, in, out)                                                                   \
    buf_##out push_##weight##_biased(struct graph *g, buf_##in x, wt_##weight w, wt_##bias b)      \
    {                                                                                              \
        struct op_affine affine = {.x = {x.id}, .w = {w.id}, .b = {b.id}};                         \
        return (buf_##out){                                                                        \
            push_with_bias(g, #weight, affine, ROLE_##in, ROLE_##out, WEIGHT_##bias)};             \
    }
AFFINES(A)
#undef A

buf_residual push_residual_add(struct graph *g, struct op_residual_add residual_add)
{
    BUILD_INPUTS(g, residual_add);
    uint32_t width = build_width(g, residual_add.stream.id);
    uint32_t delta = build_width(g, residual_add.delta.id);
    build_check(g, width == delta, "residual_add", "width of delta", delta, width);
    residual_add.y = (buf_residual){build_buffer(g, ROLE_residual, width)};
    BUILD_NODE(g, residual_add);
    return residual_add.y;
}

buf_hidden push_layer_add(struct graph *g, struct op_layer_add layer_add)
{
    BUILD_INPUTS(g, layer_add);
    uint32_t width = build_width(g, layer_add.residual.id);
    uint32_t delta = build_width(g, layer_add.delta.id);
    build_check(g, width == delta, "layer_add", "width of delta", delta, width);
    layer_add.y = (buf_hidden){build_buffer(g, ROLE_hidden, width)};
    BUILD_NODE(g, layer_add);
    return layer_add.y;
}

buf_tail_hidden push_select_rows(struct graph *g, struct op_select_rows select_rows)
{
    BUILD_INPUTS(g, select_rows);
    uint32_t width = build_width(g, select_rows.x.id);
    select_rows.y = (buf_tail_hidden){build_buffer(g, ROLE_tail_hidden, width)};
    BUILD_NODE(g, select_rows);
    return select_rows.y;
}
