/*
 * The steps of a run and the barriers between them. A node is one step; the int8 copy of a
 * projection's input is a step of its own, taken as soon as the input is there. A barrier stands
 * before a step only where it touches what another thread may have touched since the last one:
 * storage is compared, not buffers, so reuse of a slot counts. With a single token most ops have
 * one row, which thread 0 takes: such steps follow each other without a barrier. So do a small
 * projection and what is made of its result column by column, where each thread goes on with what
 * it has. Rows of a large one belong to the threads that come for them (pieces.c).
 */
#include <stdlib.h>

#include "backend/cpu/cpu_internal.h"
#include "base/bits.h"

/* Which threads a step's accesses come from. */
enum split {
    SPLIT_NONE,  /* not touched */
    SPLIT_FIRST, /* thread 0 only */
    SPLIT_HEADS, /* by value heads: the threads that write what delta_net returns read it */
    SPLIT_ROWS,  /* by rows: the threads that gather an expert's input quantise it */
    SPLIT_ALL,   /* whoever has a share */
    SPLIT_COLS,  /* by columns of one row in grains of ROW_GRAIN: this, and how many there are */
    SPLIT_CHANNELS = 1 << 30 /* the same in grains of CHANNEL_GRAIN */
};

/* What has been touched since the last barrier. */
struct phase {
    uint32_t *reads, *writes; /* per resource: enum split */
    uint32_t n;
    bool fenced; /* the next step needs a barrier whatever it touches */
};

/* Resources: slots of the plan, states of the graph, and these. */
enum { RESOURCE_ACT8, RESOURCE_ROUND = RESOURCE_ACT8 + N_DENSE_ACTS, MORE_RESOURCES };

static uint32_t resource(const struct cpu_backend *be, uint32_t more)
{
    return (uint32_t)(be->plan.n_slots + be->graph->states.n) + more;
}

/* The int8 rows that a projection reads. */
static uint32_t act8_resource(const struct cpu_backend *be, const struct step *step)
{
    return resource(be, RESOURCE_ACT8 + be->node_act[step->node]);
}

/* False: memory of the caller, which nobody writes. */
static bool resource_of(const struct cpu_backend *be, const struct node *node,
                        const struct operand *o, uint32_t *out)
{
    uint32_t i;
    if (o->kind == OPERAND_STATE && graph_state_index(be->graph, operand_id(node, o), &i)) {
        *out = be->plan.n_slots + i;
        return true;
    }
    if (o->kind != OPERAND_BUFFER || !graph_buffer_index(be->graph, operand_id(node, o), &i))
        return false;
    *out = be->plan.slot[i];
    return be->plan.slot[i] != (uint32_t)PLAN_BORROWED;
}

/* Ops whose steps say all they touch by their operands; the others get barriers on both sides. */
static bool is_plain(enum op op)
{
    switch ((int)op) {
    case OP_KIND_embed:
    case OP_KIND_rope_angles:
    case OP_KIND_rms_norm:
    case OP_KIND_matmul:
    case OP_KIND_affine:
    case OP_KIND_split_q_gate:
    case OP_KIND_rope:
    case OP_KIND_kv_append:
    case OP_KIND_attention:
    case OP_KIND_sink_attention:
    case OP_KIND_sigmoid_gate:
    case OP_KIND_split_mla_q:
    case OP_KIND_split_latent:
    case OP_KIND_absorb:
    case OP_KIND_latent_append:
    case OP_KIND_latent_attention:
    case OP_KIND_expand:
    case OP_KIND_residual_add:
    case OP_KIND_split_qkvz:
    case OP_KIND_split_ba:
    case OP_KIND_conv:
    case OP_KIND_delta_norm:
    case OP_KIND_decay_beta:
    case OP_KIND_delta_net:
    case OP_KIND_gated_norm:
    case OP_KIND_router:
    case OP_KIND_sigmoid_router:
    case OP_KIND_group_picks:
    case OP_KIND_gather_rows:
    case OP_KIND_expert_sum:
    case OP_KIND_swiglu:
    case OP_KIND_combine:
    case OP_KIND_combine_ungated:
    case OP_KIND_layer_add:
    case OP_KIND_select_rows: return true;
    default: return false;
    }
}

static uint32_t split_by_rows(const struct cpu_backend *be, uint32_t w)
{
    const struct wmat *m = &be->weights[w].matrix;
    return m->rows <= row_grain(m) ? SPLIT_FIRST : SPLIT_COLS + m->rows;
}

/* A single grain is thread 0's. */
static uint32_t split_by_columns(const struct buffer *y)
{
    return y->width <= ROW_GRAIN ? SPLIT_FIRST : SPLIT_COLS + y->width;
}

static uint32_t split_by_channels(const struct buffer *y)
{
    return y->width <= CHANNEL_GRAIN ? SPLIT_FIRST : SPLIT_CHANNELS + y->width;
}

/* Who computes a node of a batch with one token. */
static uint32_t split_of_one(const struct cpu_backend *be, const struct node *node)
{
    if (be->in_pieces[node - be->graph->nodes.items]) return SPLIT_ALL;
    switch ((int)node->op) {
    case OP_KIND_matmul: return split_by_rows(be, WEIGHT_INDEX(node->u.matmul.w));
    case OP_KIND_affine: return split_by_rows(be, WEIGHT_INDEX(node->u.affine.w));
    case OP_KIND_swiglu: return split_by_columns(BUFFER_DECL(be, node->u.swiglu.y));
    case OP_KIND_conv: return split_by_channels(BUFFER_DECL(be, node->u.conv.y));
    case OP_KIND_delta_norm:
        return cpu_shares_channels(node->u.delta_norm.dk)
                   ? split_by_channels(BUFFER_DECL(be, node->u.delta_norm.y))
                   : SPLIT_FIRST;
    case OP_KIND_rms_norm:
        return BUFFER_DECL(be, node->u.rms_norm.x)->width == node->u.rms_norm.dim ? SPLIT_FIRST
                                                                                  : SPLIT_ALL;
    case OP_KIND_embed:
    case OP_KIND_rope_angles:
    case OP_KIND_residual_add:
    case OP_KIND_layer_add:
    case OP_KIND_split_latent:
    case OP_KIND_latent_append:
    case OP_KIND_split_qkvz:
    case OP_KIND_decay_beta:
    case OP_KIND_sigmoid_gate:
    case OP_KIND_router:
    case OP_KIND_sigmoid_router:
    case OP_KIND_expert_sum:
    case OP_KIND_combine:
    case OP_KIND_combine_ungated:
    case OP_KIND_select_rows: return SPLIT_FIRST;
    case OP_KIND_delta_net:
    case OP_KIND_gated_norm: return SPLIT_HEADS;
    default: return SPLIT_ALL;
    }
}

/* The threads that computed an input quantise it, where they did so in whole groups. */
static uint32_t split_of_quantize(const struct cpu_backend *be, const struct step *step)
{
    const struct buffer *x = &be->graph->buffers.items[step->input];
    return step->grain ? split_of_one(be, &be->graph->nodes.items[x->writer]) : SPLIT_FIRST;
}

static uint32_t split_of(const struct cpu_backend *be, const struct step *step, bool one)
{
    const struct node *node = &be->graph->nodes.items[step->node];
    if (step->quantize) return one ? split_of_quantize(be, step) : SPLIT_ALL;
    if (node->op == OP_KIND_group_picks) return SPLIT_FIRST;
    return one ? split_of_one(be, node) : SPLIT_ALL;
}

static bool clash(uint32_t before, uint32_t now)
{
    return before != SPLIT_NONE && (before != now || now == SPLIT_ALL);
}

/*
 * Of a step by heads only what goes from one to the next is, of a projection by columns only the
 * result.
 */
static uint32_t split_of_operand(const struct node *node, uint32_t split, const struct operand *o)
{
    if (o->kind != OPERAND_BUFFER) return split == SPLIT_HEADS ? SPLIT_ALL : split;
    if (o->role == ROLE_expert_input) return SPLIT_ROWS;
    if (split == SPLIT_HEADS)
        return o->role == ROLE_delta_out || o->role == ROLE_value_out ? split : SPLIT_ALL;
    bool projects = node->op == OP_KIND_matmul || node->op == OP_KIND_affine;
    return projects && split >= SPLIT_COLS && o->mode == MODE_IN ? SPLIT_ALL : split;
}

/*
 * What a step touches before its first own barrier: experts has one before any thread looks at more
 * than the rows that it gathered itself.
 */
static bool is_touched_first(const struct node *node, const struct operand *o)
{
    return node->op != OP_KIND_experts ||
           (o->kind == OPERAND_BUFFER && o->role == ROLE_expert_input);
}

/* What a step does with its resources: asks whether they clash with the phase, or adds them. */
typedef bool visit_fn(struct phase *phase, uint32_t resource, bool write, uint32_t split);

static bool visit_clash(struct phase *phase, uint32_t r, bool write, uint32_t split)
{
    return clash(phase->writes[r], split) || (write && clash(phase->reads[r], split));
}

static bool visit_add(struct phase *phase, uint32_t r, bool write, uint32_t split)
{
    uint32_t *at = write ? &phase->writes[r] : &phase->reads[r];
    *at = *at == SPLIT_NONE || *at == split ? split : SPLIT_ALL;
    return false;
}

static bool visit(const struct cpu_backend *be, const struct step *step, bool one,
                  struct phase *phase, visit_fn *fn)
{
    const struct node *node = &be->graph->nodes.items[step->node];
    const struct op_info *info = op_info(node->op);
    const uint32_t split = split_of(be, step, one);
    bool result = false;
    if (step->quantize) {
        uint32_t x = be->plan.slot[step->input];
        if (x != (uint32_t)PLAN_BORROWED) result = fn(phase, x, false, split);
        return fn(phase, act8_resource(be, step), true, split) || result;
    }
    for (uint32_t i = 0; i < info->n_operands; i++) {
        const struct operand *o = &info->operands[i];
        uint32_t r;
        if (!is_touched_first(node, o) || !resource_of(be, node, o, &r)) continue;
        uint32_t by = split_of_operand(node, split, o);
        if (o->mode != MODE_OUT && o->mode != MODE_SCRATCH) result |= fn(phase, r, false, by);
        if (o->mode != MODE_IN) result |= fn(phase, r, true, by);
    }
    if (be->node_mode[step->node] != NODE_F32)
        result |= fn(phase, act8_resource(be, step), false, SPLIT_ALL);
    if (node->op == OP_KIND_group_picks)
        result |= fn(phase, resource(be, RESOURCE_ROUND), true, split);
    return result;
}

static void begin_phase(struct phase *phase)
{
    for (uint32_t r = 0; r < phase->n; r++) phase->reads[r] = phase->writes[r] = SPLIT_NONE;
    phase->fenced = false;
}

static void place_barriers(struct cpu_backend *be, struct phase *phase, bool one)
{
    begin_phase(phase);
    for (uint32_t s = 0; s < be->n_steps; s++) {
        struct step *step = &be->steps[s];
        const enum op op = be->graph->nodes.items[step->node].op;
        bool experts = !step->quantize && op == OP_KIND_experts;
        bool plain = step->quantize || experts || is_plain(op);
        step->barrier[one] = !plain || phase->fenced || visit(be, step, one, phase, visit_clash);
        /* experts ends with a barrier of its own */
        if (step->barrier[one] || experts) begin_phase(phase);
        if (plain && !experts) (void)visit(be, step, one, phase, visit_add);
        phase->fenced = !plain;
    }
}

/* The node after which the input of projection n may be quantised: its writer, if it can wait. */
static uint32_t quantize_after(const struct cpu_backend *be, uint32_t n, uint32_t input)
{
    uint32_t writer = be->graph->buffers.items[input].writer;
    if (writer >= n) return n - 1;
    for (uint32_t i = writer + 1; i < n; i++)
        if (be->node_mode[i] != NODE_F32) return n - 1;
    return writer;
}

/* How the op that computed a buffer divides the columns of one token; 0: not at all, or otherwise.
 */
static uint32_t grain_of(const struct cpu_backend *be, const struct buffer *x)
{
    if (x->writer >= be->graph->nodes.n) return 0;
    const struct node *writer = &be->graph->nodes.items[x->writer];
    uint32_t grain = 0;
    if (writer->op == OP_KIND_swiglu) grain = ROW_GRAIN;
    if (writer->op == OP_KIND_gated_norm) grain = writer->u.gated_norm.dv;
    return grain % ACT8_GROUP == 0 ? grain : 0;
}

static uint32_t input_of(const struct cpu_backend *be, uint32_t n)
{
    const struct node *node = &be->graph->nodes.items[n];
    const struct buffer *x = node->op == OP_KIND_matmul ? BUFFER_DECL(be, node->u.matmul.x)
                                                        : BUFFER_DECL(be, node->u.affine.x);
    return (uint32_t)(x - be->graph->buffers.items);
}

/* Node by node; after[m]: the projection whose input is quantised after node m, or none. */
static void list_steps(struct cpu_backend *be, const uint32_t *after)
{
    uint32_t n_nodes = (uint32_t)be->graph->nodes.n;
    for (uint32_t n = 0; n < n_nodes; n++) {
        be->first_step[n] = be->n_steps;
        be->steps[be->n_steps++] = (struct step){.node = n};
        if (after[n] == UINT32_MAX) continue;
        uint32_t input = input_of(be, after[n]);
        be->steps[be->n_steps++] =
            (struct step){.node = after[n],
                          .quantize = true,
                          .input = input,
                          .grain = grain_of(be, &be->graph->buffers.items[input])};
    }
    be->first_step[n_nodes] = be->n_steps;
}

const struct step *cpu_step_before(const struct cpu_backend *be, uint32_t begin, uint32_t end)
{
    for (uint32_t s = be->first_step[begin]; s-- > 0;) {
        const struct step *step = &be->steps[s];
        if (step->quantize) return step->node >= begin && step->node < end ? step : NULL;
    }
    return NULL;
}

enum sluice_status cpu_plan_steps(struct cpu_backend *be, struct sluice_error *err)
{
    uint32_t n_nodes = (uint32_t)be->graph->nodes.n;
    struct phase phase = {.n = resource(be, MORE_RESOURCES)};
    uint32_t *after = malloc((n_nodes + 1) * sizeof *after);
    phase.reads = malloc(phase.n * sizeof *phase.reads);
    phase.writes = malloc(phase.n * sizeof *phase.writes);
    be->steps = calloc(2 * (size_t)n_nodes + 1, sizeof *be->steps);
    be->notes = calloc(2 * (size_t)n_nodes + 1, sizeof *be->notes);
    be->first_step = calloc(n_nodes + 1, sizeof *be->first_step);
    bool ok = after && phase.reads && phase.writes && be->steps && be->notes && be->first_step;
    if (ok) {
        for (uint32_t n = 0; n < n_nodes; n++) after[n] = UINT32_MAX;
        for (uint32_t n = 1; n < n_nodes; n++)
            if (be->node_mode[n] == NODE_QUANTIZE)
                after[quantize_after(be, n, input_of(be, n))] = n;
        list_steps(be, after);
        place_barriers(be, &phase, false);
        place_barriers(be, &phase, true);
    }
    free(after);
    free(phase.reads);
    free(phase.writes);
    return ok ? SLUICE_OK : err_nomem(err, "backend", n_nodes);
}
