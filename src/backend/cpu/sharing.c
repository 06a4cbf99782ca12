/*
 * Who computes what of a node in a batch with one token. Threads share columns in grains, and steps
 * that follow each other share them in the same way where they can, so that each thread goes on
 * with what it has itself: heads all the way from a projection to what is made of them. What is
 * small and one piece is thread 0's, and beside its router the last thread computes a shared expert
 * that takes no longer. A large projection is shared in grains of its own, as evenly as may be, or
 * in pieces (pieces.c).
 */
#include <stdlib.h>

#include "backend/cpu/cpu_internal.h"
#include "base/bits.h"

enum {
    SMALL_WEIGHTS = 1 << 19, /* less than a barrier costs where heads share them unevenly */
    BESIDE_WEIGHTS = 1 << 17 /* of three matrices: what one thread reads beside a router */
};

static struct sharing *sharing_at(const struct cpu_backend *be, const struct node *node)
{
    return &be->sharing[node - be->graph->nodes.items];
}

static const struct node *writer_of(const struct cpu_backend *be, const struct buffer *b)
{
    return b->writer < be->graph->nodes.n ? &be->graph->nodes.items[b->writer] : NULL;
}

static uint64_t n_weights(const struct cpu_backend *be, const struct projection *p)
{
    const struct weight_decl *w = &be->graph->weights.items[p->w];
    return (uint64_t)w->rows * w->cols;
}

/* Columns of width in grains; a single grain is thread 0's. */
static struct sharing by_columns(uint32_t width, uint32_t grain)
{
    return width > grain ? (struct sharing){WHO_COLUMNS, grain} : (struct sharing){WHO_FIRST, 0};
}

#define COLUMNS(be, field, grain) by_columns(BUFFER_DECL(be, node->u.field)->width, grain)

static struct sharing by_rows(const struct cpu_backend *be, uint32_t w)
{
    const struct wmat *m = &be->weights[w].matrix;
    return by_columns(m->rows, row_grain(m));
}

/* What is known of a node by itself. */
static struct sharing own_sharing(const struct cpu_backend *be, const struct node *node)
{
    if (cpu_is_in_pieces(be, node)) return (struct sharing){WHO_ALL, 0};
    switch ((int)node->op) {
    case OP_KIND_matmul: return by_rows(be, WEIGHT_INDEX(node->u.matmul.w));
    case OP_KIND_affine: return by_rows(be, WEIGHT_INDEX(node->u.affine.w));
    case OP_KIND_swiglu: return COLUMNS(be, swiglu.y, ROW_GRAIN);
    case OP_KIND_residual_add: return COLUMNS(be, residual_add.y, ROW_GRAIN);
    case OP_KIND_layer_add: return COLUMNS(be, layer_add.y, ROW_GRAIN);
    case OP_KIND_expert_sum: return COLUMNS(be, expert_sum.y, ROW_GRAIN);
    case OP_KIND_combine: return COLUMNS(be, combine.y, ROW_GRAIN);
    case OP_KIND_combine_ungated: return COLUMNS(be, combine_ungated.y, ROW_GRAIN);
    case OP_KIND_sigmoid_gate: return COLUMNS(be, sigmoid_gate.y, ROW_GRAIN);
    case OP_KIND_rms_norm: return COLUMNS(be, rms_norm.y, node->u.rms_norm.dim);
    case OP_KIND_split_q_gate: return COLUMNS(be, split_q_gate.q, node->u.split_q_gate.head_dim);
    case OP_KIND_rope: return COLUMNS(be, rope.y, node->u.rope.head_dim);
    case OP_KIND_kv_append: return COLUMNS(be, kv_append.k, node->u.kv_append.head_dim);
    case OP_KIND_conv: return COLUMNS(be, conv.y, ROW_GRAIN);
    case OP_KIND_delta_norm: return COLUMNS(be, delta_norm.y, node->u.delta_norm.dk);
    case OP_KIND_delta_net: return COLUMNS(be, delta_net.y, node->u.delta_net.dv);
    case OP_KIND_gated_norm: return COLUMNS(be, gated_norm.y, node->u.gated_norm.dv);
    case OP_KIND_gather_rows:
        return cpu_finds_rows(be, BUFFER_DECL(be, node->u.gather_rows.y))
                   ? (struct sharing){WHO_FIRST, 0}
                   : (struct sharing){WHO_ALL, 0};
    case OP_KIND_embed:
    case OP_KIND_rope_angles:
    case OP_KIND_split_latent:
    case OP_KIND_latent_append:
    case OP_KIND_split_qkvz:
    case OP_KIND_decay_beta:
    case OP_KIND_router:
    case OP_KIND_sigmoid_router:
    case OP_KIND_group_picks:
    case OP_KIND_select_rows: return (struct sharing){WHO_FIRST, 0};
    default: return (struct sharing){WHO_ALL, 0};
    }
}

/* The projection that writes b is shared as its reader wants it, unless that costs more. */
static bool want(const struct cpu_backend *be, const struct buffer *b, uint32_t grain)
{
    const struct node *writer = writer_of(be, b);
    struct projection p;
    if (!writer || !cpu_projection(be, writer, &p) || cpu_is_in_pieces(be, writer)) return false;
    if (n_weights(be, &p) > SMALL_WEIGHTS) return false;
    *sharing_at(be, writer) = by_columns(b->width, grain);
    return true;
}

#define WANT(be, field, grain) want(be, BUFFER_DECL(be, node->u.field), grain)

static void want_decay(const struct cpu_backend *be, const struct node *node)
{
    const struct buffer *alpha = BUFFER_DECL(be, node->u.decay_beta.alpha);
    if (WANT(be, decay_beta.alpha, 1) && WANT(be, decay_beta.beta, 1))
        *sharing_at(be, node) = by_columns(alpha->width, 1);
}

/* Channels of the convolution by the heads of q and k, all the way. */
static void want_delta(const struct cpu_backend *be, const struct node *node)
{
    const struct buffer *x = BUFFER_DECL(be, node->u.delta_norm.x);
    const struct node *conv = writer_of(be, x);
    uint32_t dk = node->u.delta_norm.dk;
    if (!conv || conv->op != OP_KIND_conv) return;
    *sharing_at(be, conv) = by_columns(x->width, dk);
    (void)want(be, BUFFER_DECL(be, conv->u.conv.x), dk);
}

/* What a node asks of those before it. */
static void want_writers(const struct cpu_backend *be, const struct node *node)
{
    switch ((int)node->op) {
    case OP_KIND_split_q_gate:
        (void)WANT(be, split_q_gate.x, 2 * node->u.split_q_gate.head_dim);
        break;
    case OP_KIND_rms_norm:
        if (BUFFER_DECL(be, node->u.rms_norm.x)->width > node->u.rms_norm.dim)
            (void)WANT(be, rms_norm.x, node->u.rms_norm.dim);
        break;
    case OP_KIND_rope: (void)WANT(be, rope.x, node->u.rope.head_dim); break;
    case OP_KIND_kv_append: (void)WANT(be, kv_append.v, node->u.kv_append.head_dim); break;
    case OP_KIND_decay_beta: want_decay(be, node); break;
    case OP_KIND_delta_norm: want_delta(be, node); break;
    case OP_KIND_gated_norm: (void)WANT(be, gated_norm.z, node->u.gated_norm.dv); break;
    default: break;
    }
}

/* The nodes of a shared expert that is small, whose last projection this is. */
static void share_beside(const struct cpu_backend *be, const struct node *down)
{
    struct projection d, g, u;
    if (!cpu_projection(be, down, &d)) return;
    if (be->graph->weights.items[d.w].role != WEIGHT_shared_ffn_down_proj) return;
    const struct node *act = writer_of(be, d.x);
    if (!act || act->op != OP_KIND_swiglu) return;
    const struct node *gate = writer_of(be, BUFFER_DECL(be, act->u.swiglu.gate));
    const struct node *up = writer_of(be, BUFFER_DECL(be, act->u.swiglu.up));
    if (!gate || !cpu_projection(be, gate, &g) || !up || !cpu_projection(be, up, &u)) return;
    if (cpu_is_in_pieces(be, gate) || cpu_is_in_pieces(be, up) || cpu_is_in_pieces(be, down))
        return;
    uint64_t n = n_weights(be, &g) + n_weights(be, &u) + n_weights(be, &d);
    if (n > BESIDE_WEIGHTS) return;
    const struct node *nodes[] = {gate, up, act, down};
    for (size_t i = 0; i < COUNT_OF(nodes); i++)
        *sharing_at(be, nodes[i]) = (struct sharing){WHO_LAST, 0};
}

enum sluice_status cpu_plan_sharing(struct cpu_backend *be, struct sluice_error *err)
{
    const struct graph *g = be->graph;
    be->sharing = calloc(g->nodes.n + 1, sizeof *be->sharing);
    if (!be->sharing) return err_nomem(err, "backend", g->nodes.n);
    for (uint32_t n = 0; n < g->nodes.n; n++) be->sharing[n] = own_sharing(be, &g->nodes.items[n]);
    for (uint32_t n = 0; n < g->nodes.n; n++) want_writers(be, &g->nodes.items[n]);
    for (uint32_t n = 0; n < g->nodes.n; n++) share_beside(be, &g->nodes.items[n]);
    return SLUICE_OK;
}
