/* Building a graph anew from its own nodes, to compare: see build.h. */
#include <string.h>

#include "ir/build.h"

/* Ids are taken over as they are: equal as long as what was built is. */
static void push_norm_again(struct graph *r, const struct op_rms_norm *op)
{
    uint32_t x = op->x.id, w = op->w.id;
    switch (build_weight(r, w)->role) {
#define N(weight, in, out)                                                                         \
    case WEIGHT_##weight: push_##weight(r, (buf_##in){x}, (wt_##weight){w}, op->eps); break;
        NORMS(N)
#undef N
    default: build_fail(r, "rms_norm", "its weight is not of a norm");
    }
}

static void push_projection_again(struct graph *r, const struct op_matmul *op)
{
    uint32_t x = op->x.id, w = op->w.id;
    switch (build_weight(r, w)->role) {
#define P(weight, in, out)                                                                         \
    case WEIGHT_##weight: push_##weight(r, (buf_##in){x}, (wt_##weight){w}); break;
        PROJECTIONS(P)
#undef P
    default: build_fail(r, "matmul", "its weight is not of a projection");
    }
}

static void push_affine_again(struct graph *r, const struct op_affine *op)
{
    uint32_t x = op->x.id, w = op->w.id, b = op->b.id;
    switch (build_weight(r, w)->role) {
#define A(weight, bias, in, out)                                                                   \
    case WEIGHT_##weight:                                                                          \
        push_##weight##_biased(r, (buf_##in){x}, (wt_##weight){w}, (wt_##bias){b});                \
        break;
        AFFINES(A)
#undef A
    default: build_fail(r, "affine", "its weight is not of a projection with a bias");
    }
}

static enum role role_of(const struct graph *r, uint32_t id)
{
    uint32_t index;
    return graph_buffer_index(r, id, &index) ? r->buffers.items[index].role : ROLE_NONE;
}

static void push_rotation_again(struct graph *r, const struct op_rope *op)
{
    switch (role_of(r, op->x.id)) {
#define T(name, in, out)                                                                           \
    case ROLE_##in:                                                                                \
        push_rope_as_##name(r, (buf_##in){op->x.id}, op->table, op->head_dim, op->rotary_dim,      \
                            op->pairs);                                                            \
        break;
        ROTATIONS(T)
#undef T
    default: build_fail(r, "rope", "its input is not rotated in any family");
    }
}

static void push_swiglu_again(struct graph *r, const struct op_swiglu *op)
{
    uint32_t gate = op->gate.id, up = op->up.id;
    if (role_of(r, gate) == ROLE_mlp_gate)
        push_mlp_swiglu(r, (buf_mlp_gate){gate}, (buf_mlp_up){up});
    else
        push_shared_swiglu(r, (buf_shared_ffn_gate){gate}, (buf_shared_ffn_up){up});
}

static void push_again(struct graph *r, const struct node *node)
{
    graph_set_layer(r, node->layer);
    switch (node->op) {
    case OP_KIND_rms_norm: push_norm_again(r, &node->u.rms_norm); break;
    case OP_KIND_matmul: push_projection_again(r, &node->u.matmul); break;
    case OP_KIND_rope: push_rotation_again(r, &node->u.rope); break;
    case OP_KIND_affine: push_affine_again(r, &node->u.affine); break;
    case OP_KIND_swiglu: push_swiglu_again(r, &node->u.swiglu); break;
#define AGAIN(op)                                                                                  \
    case OP_KIND_##op: push_##op(r, node->u.op); break;
        AGAIN(embed)
        AGAIN(guess_experts)
        AGAIN(guess_by_sigmoid)
        AGAIN(rope_angles)
        AGAIN(split_q_gate)
        AGAIN(kv_append)
        AGAIN(attention)
        AGAIN(sink_attention)
        AGAIN(split_mla_q)
        AGAIN(split_latent)
        AGAIN(absorb)
        AGAIN(latent_append)
        AGAIN(latent_attention)
        AGAIN(expand)
        AGAIN(sigmoid_gate)
        AGAIN(residual_add)
        AGAIN(split_qkvz)
        AGAIN(split_ba)
        AGAIN(conv)
        AGAIN(delta_norm)
        AGAIN(decay_beta)
        AGAIN(delta_net)
        AGAIN(gated_norm)
        AGAIN(router)
        AGAIN(sigmoid_router)
        AGAIN(group_picks)
        AGAIN(gather_rows)
        AGAIN(experts)
        AGAIN(expert_sum)
        AGAIN(combine)
        AGAIN(combine_ungated)
        AGAIN(layer_add)
        AGAIN(select_rows)
#undef AGAIN
    case OP_COUNT: break;
    }
}

static void declare_state_again(struct graph *r, const struct state_decl *decl)
{
    graph_set_layer(r, decl->layer);
    const uint32_t *dims = decl->dims;
    switch (decl->kind) {
    case STATE_kv: graph_state_kv(r, dims[0], dims[1]); break;
    case STATE_latent: graph_state_latent(r, dims[0], dims[1]); break;
    case STATE_conv: graph_state_conv(r, dims[0] + 1, dims[1]); break;
    case STATE_delta: graph_state_delta(r, dims[0], dims[1], dims[2]); break;
    default: build_fail(r, state_kind_name(decl->kind), "this is no kind of state");
    }
}

static bool same_state(const struct state_decl *a, const struct state_decl *b)
{
    return a->kind == b->kind && a->layer == b->layer && a->index == b->index &&
           memcmp(a->dims, b->dims, sizeof a->dims) == 0;
}

static void declare_again(struct graph *r, const struct graph *g)
{
    for (size_t w = 0; w < g->weights.n; w++) {
        graph_set_layer(r, g->weights.items[w].layer);
        graph_weight(r, g->weights.items[w]);
    }
    for (size_t s = 0; s < g->states.n && r->err.code == SLUICE_OK; s++) {
        declare_state_again(r, &g->states.items[s]);
        if (r->err.code == SLUICE_OK && !same_state(&g->states.items[s], &r->states.items[s]))
            build_fail(r, state_kind_name(g->states.items[s].kind), "its declaration was changed");
    }
}

/* Inputs have no node: they are made when their turn comes among the buffers. */
static void inputs_again(struct graph *r, const struct graph *g)
{
    while (r->err.code == SLUICE_OK && r->buffers.n < g->buffers.n) {
        const struct buffer *b = &g->buffers.items[r->buffers.n];
        if (b->writer != (uint32_t)BUFFER_INPUT) return;
        graph_set_layer(r, UINT32_MAX);
        switch (b->role) {
        case ROLE_token_ids: graph_token_ids(r); break;
        case ROLE_output_rows: graph_output_rows(r); break;
        case ROLE_rope_freqs: graph_rope_freqs(r, b->width * 2); break;
        default: build_fail(r, role_name(b->role), "this is no role of an input");
        }
    }
}

static size_t operand_bytes(const struct operand *o)
{
    bool flag = o->kind == OPERAND_SCALAR && o->role == SCALAR_flag;
    return flag ? sizeof(scalar_flag) : sizeof(uint32_t);
}

/* Nodes of one op and layer: those the second was pushed for. */
static bool same_node(const struct node *a, const struct node *b)
{
    const struct op_info *info = op_info(a->op);
    for (uint32_t i = 0; i < info->n_operands; i++) {
        const struct operand *o = &info->operands[i];
        const char *p = (const char *)&a->u + o->offset, *q = (const char *)&b->u + o->offset;
        if (memcmp(p, q, operand_bytes(o)) != 0) return false;
    }
    return true;
}

/* Who may use the storage is the caller's choice for values, but not for inputs. */
static bool same_buffer(const struct buffer *a, const struct buffer *b)
{
    bool input = b->writer == (uint32_t)BUFFER_INPUT;
    bool life = input ? a->lifetime == b->lifetime : a->lifetime != LIFE_BORROWED;
    return life && a->role == b->role && a->width == b->width && a->writer == b->writer;
}

static void nodes_again(struct graph *r, const struct graph *g)
{
    for (size_t n = 0; n < g->nodes.n && r->err.code == SLUICE_OK; n++) {
        inputs_again(r, g);
        push_again(r, &g->nodes.items[n]);
        if (r->err.code == SLUICE_OK && !same_node(&g->nodes.items[n], &r->nodes.items[n]))
            build_fail(r, op_info(g->nodes.items[n].op)->name, "the node was changed");
    }
    inputs_again(r, g);
}

static void compare(struct graph *r, const struct graph *g)
{
    if (r->err.code != SLUICE_OK) return;
    graph_set_layer(r, UINT32_MAX);
    if (r->buffers.n != g->buffers.n || r->n_picks != g->n_picks)
        build_fail(r, "buffers", "their number was changed");
    for (size_t b = 0; b < g->buffers.n && r->err.code == SLUICE_OK; b++)
        if (!same_buffer(&g->buffers.items[b], &r->buffers.items[b]))
            build_fail(r, role_name(g->buffers.items[b].role), "%%%zu was changed", b + 1);
}

enum sluice_status build_again(const struct graph *g, struct sluice_error *err)
{
    struct graph r;
    graph_init(&r, g->generation);
    declare_again(&r, g);
    nodes_again(&r, g);
    compare(&r, g);
    enum sluice_status status = r.err.code;
    if (status != SLUICE_OK && err) *err = r.err;
    graph_release(&r);
    return status;
}
