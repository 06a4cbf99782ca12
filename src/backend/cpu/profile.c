/*
 * What a step did, for who wants a profile: how long it took, which bytes of weights and states it
 * read or wrote, each counted once, and how many products of weights it computed. Activations are
 * not counted: they stay in caches.
 */
#include "backend/cpu/cpu_internal.h"
#include "base/clock.h"

/* Sums over the batch of what a state costs. */
static uint64_t recurrent_bytes(const struct cpu_backend *be, uint32_t state)
{
    const struct batch *batch = be->batch;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < batch->n_segments; i++) {
        const struct state_layout *layout = batch->segments[i].sequence->layout;
        bytes += 2 * layout->recurrent[cpu_state_index(be, state)].n * sizeof(float);
    }
    return bytes;
}

/* Positions that the row at position sees. */
static uint64_t seen(uint64_t position, uint32_t window)
{
    return window && position + 1 > window ? window : position + 1;
}

/* Positions of which a segment's rows see at least one. */
static uint64_t seen_by_any(const struct batch_segment *s, uint32_t window)
{
    return seen(s->sequence->position, window) + s->count - 1;
}

/* Bytes of a position in a cache: keys and values, or latents. */
static uint64_t position_bytes(const struct cpu_backend *be, const struct state_decl *d)
{
    uint64_t each = be->batch->segments[0].sequence->layout->kv_type == KV_F16 ? 2 : 4;
    return each * (d->kind == STATE_kv ? (uint64_t)2 * d->dims[0] * d->dims[1]
                                       : (uint64_t)d->dims[0] + d->dims[1]);
}

/* What is read of a cache once a segment, or written to it. */
static uint64_t cache_bytes(const struct cpu_backend *be, const struct state_decl *d, bool written,
                            uint32_t window)
{
    uint64_t positions = 0;
    for (uint32_t i = 0; i < be->batch->n_segments; i++) {
        const struct batch_segment *s = &be->batch->segments[i];
        positions += written ? s->count : seen_by_any(s, window);
    }
    return positions * position_bytes(be, d);
}

static uint64_t state_bytes(const struct cpu_backend *be, const struct node *node,
                            const struct operand *o)
{
    uint32_t id = operand_id(node, o), index;
    if (!graph_state_index(be->graph, id, &index)) return 0;
    const struct state_decl *d = &be->graph->states.items[index];
    if (d->kind != STATE_kv && d->kind != STATE_latent) return recurrent_bytes(be, id);
    uint32_t window = 0;
    if (node->op == OP_KIND_attention) window = node->u.attention.window;
    if (node->op == OP_KIND_sink_attention) window = node->u.sink_attention.window;
    return cache_bytes(be, d, o->mode != MODE_IN, window);
}

static uint64_t view_bytes(const struct expert_view *v)
{
    return wmat_bytes(&v->gate) + wmat_bytes(&v->up) + wmat_bytes(&v->down);
}

/* The matrices of all heads, which may lie among others. */
static uint64_t heads_bytes(const struct weight_data *w, const struct weight_decl *d)
{
    uint32_t rows = w->heads.transposed ? d->cols : d->rows;
    struct wmat all = wmat_rows(&w->matrix, 0, rows * d->n_heads);
    return wmat_bytes(&all);
}

/* All experts of the batch that runs, in the layer that was routed last. */
static uint64_t bank_bytes(const struct cpu_backend *be, const struct expert_bank *bank)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < be->round.n_active; i++)
        bytes += view_bytes(&bank->experts[be->round.active[i]]);
    return bytes;
}

/* Of all but experts. */
static uint64_t weight_bytes(const struct cpu_backend *be, const struct node *node,
                             const struct operand *o)
{
    uint32_t index;
    if (!graph_weight_index(be->graph, operand_id(node, o), &index)) return 0;
    const struct weight_data *w = &be->weights[index];
    const struct weight_decl *d = &be->graph->weights.items[index];
    uint64_t bytes = 0;
    switch (weight_role_kind(d->role)) {
    case WEIGHT_KIND_MATRIX:
        bytes = wmat_bytes(&w->matrix);
        if (node->op == OP_KIND_embed) bytes = bytes / w->matrix.rows * be->batch->n_tokens;
        break;
    case WEIGHT_KIND_HEADS: bytes = heads_bytes(w, d); break;
    case WEIGHT_KIND_BANK: break;
    case WEIGHT_KIND_VECTOR:
    case WEIGHT_KIND_CONV: bytes = (uint64_t)d->rows * d->cols * sizeof(float); break;
    }
    return bytes;
}

/* Of weights with activations. */
static uint64_t products(const struct cpu_backend *be, const struct node *node)
{
    const struct {
        const struct cpu_backend *be;
    } t = {be}; /* what the macros want of a task */
    switch ((int)node->op) {
    case OP_KIND_matmul:
        return (uint64_t)WIDTH(&t, node->u.matmul.x) * WIDTH(&t, node->u.matmul.y) *
               N_ROWS(&t, node->u.matmul.x);
    case OP_KIND_affine:
        return (uint64_t)WIDTH(&t, node->u.affine.x) * WIDTH(&t, node->u.affine.y) *
               N_ROWS(&t, node->u.affine.x);
    case OP_KIND_experts:
        return (uint64_t)3 * WIDTH(&t, node->u.experts.x) * WIDTH(&t, node->u.experts.act) *
               N_ROWS(&t, node->u.experts.x);
    case OP_KIND_absorb:
        return (uint64_t)WIDTH(&t, node->u.absorb.x) * WIDTH(&t, node->u.absorb.y) /
               node->u.absorb.n_heads * N_ROWS(&t, node->u.absorb.x);
    case OP_KIND_expand:
        return (uint64_t)WIDTH(&t, node->u.expand.x) * WIDTH(&t, node->u.expand.y) /
               node->u.expand.n_heads * N_ROWS(&t, node->u.expand.x);
    default: return 0;
    }
}

/* The role of a projection's weight; other ops have one kind of weights. */
static const char *weight_of(const struct cpu_backend *be, const struct node *node)
{
    uint32_t index;
    if (node->op == OP_KIND_matmul)
        index = WEIGHT_INDEX(node->u.matmul.w);
    else if (node->op == OP_KIND_affine)
        index = WEIGHT_INDEX(node->u.affine.w);
    else
        return "";
    return weight_role_name(be->graph->weights.items[index].role);
}

void cpu_note_step(struct cpu_backend *be, uint32_t s)
{
    const struct node *node = &be->graph->nodes.items[be->steps[s].node];
    uint64_t now = clock_ns(), waited = pool_waited_ns(be->pool) - be->waited_ns;
    struct step_note note = {.ns = now - be->noted_ns - waited, .waited_ns = waited};
    if (node->op == OP_KIND_experts)
        note.expert_bytes = bank_bytes(be, be->weights[WEIGHT_INDEX(node->u.experts.bank)].bank);
    be->notes[s] = note;
    be->noted_ns = now;
    be->waited_ns += waited;
}

static void profile_step(const struct cpu_backend *be, const struct step *step,
                         const struct step_note *note)
{
    const struct node *node = &be->graph->nodes.items[step->node];
    const struct op_info *info = op_info(node->op);
    struct sluice_step out = {.op = step->quantize ? "quantize" : info->name,
                              .weight = step->quantize ? "" : weight_of(be, node),
                              .layer = node->layer,
                              .n_tokens = be->batch->n_tokens,
                              .ns = note->ns,
                              .waited_ns = note->waited_ns,
                              .bytes = note->expert_bytes};
    for (uint32_t i = 0; i < info->n_operands && !step->quantize; i++) {
        const struct operand *o = &info->operands[i];
        if (o->kind == OPERAND_WEIGHT) out.bytes += weight_bytes(be, node, o);
        if (o->kind == OPERAND_STATE) out.bytes += state_bytes(be, node, o);
    }
    if (!step->quantize) out.products = products(be, node);
    be->profile.step(be->profile.user, &out);
}

void cpu_profile_steps(const struct cpu_backend *be, uint32_t begin, uint32_t end)
{
    for (uint32_t s = begin; s < end; s++) profile_step(be, &be->steps[s], &be->notes[s]);
}
