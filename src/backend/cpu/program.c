/*
 * The steps of a run and the barriers between them. A node is one step; the int8 copy of a
 * projection's input is a step of its own, taken as soon as the input is there. A barrier stands
 * before a step only where it touches what another thread may have touched since the last one:
 * storage is compared, not buffers, so reuse of a slot counts. With a single token most ops have
 * one row, which thread 0 takes: such steps follow each other without a barrier. So do a small
 * projection and what is made of its result column by column, where each thread goes on with what
 * it has (sharing.c). Rows of a large one belong to the threads that come for them (pieces.c).
 */
#include <stdlib.h>

#include "backend/cpu/cpu_internal.h"
#include "base/bits.h"

/* Which threads a step's accesses come from; columns() has more. */
enum {
    SPLIT_NONE,  /* not touched */
    SPLIT_FIRST, /* thread 0 only */
    SPLIT_LAST,  /* the last thread only */
    SPLIT_ROWS,  /* by rows: the threads that gather an expert's input quantise it */
    SPLIT_ALL,   /* whoever has a share */
};
typedef uint64_t split;

/* By columns of one row: the same threads where width and grain are the same. */
static split columns(uint32_t width, uint32_t grain)
{
    return width > grain ? (split)width << 32 | grain : SPLIT_FIRST;
}

/* What has been touched since the last barrier. */
struct phase {
    split *reads, *writes; /* per resource */
    uint32_t n;
    bool one;    /* of a batch of one token */
    bool fenced; /* the next step needs a barrier whatever it touches */
};

/* Resources: slots of the plan, states of the graph, and these. */
enum { RESOURCE_ACT8, RESOURCE_ROUND = RESOURCE_ACT8 + N_DENSE_ACTS, MORE_RESOURCES };

static uint32_t resource(const struct cpu_backend *be, bool one, uint32_t more)
{
    return (uint32_t)(be->plan[one].n_slots + be->graph->states.n) + more;
}

/* The int8 rows that a projection reads. */
static uint32_t act8_resource(const struct cpu_backend *be, bool one, const struct step *step)
{
    return resource(be, one, RESOURCE_ACT8 + be->node_act[step->node]);
}

/* False: memory of the caller, which nobody writes. */
static bool resource_of(const struct cpu_backend *be, bool one, const struct node *node,
                        const struct operand *o, uint32_t *out)
{
    const struct plan *plan = &be->plan[one];
    uint32_t i;
    if (o->kind == OPERAND_STATE && graph_state_index(be->graph, operand_id(node, o), &i)) {
        *out = plan->n_slots + i;
        return true;
    }
    if (o->kind != OPERAND_BUFFER || !graph_buffer_index(be->graph, operand_id(node, o), &i))
        return false;
    *out = plan->slot[i];
    return plan->slot[i] != (uint32_t)PLAN_BORROWED;
}

/* The slot of a buffer; false: none that anyone writes. */
static bool slot_of(const struct cpu_backend *be, bool one, const struct buffer *b, uint32_t *out)
{
    *out = be->plan[one].slot[b - be->graph->buffers.items];
    return *out != (uint32_t)PLAN_BORROWED;
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

/* Columns that threads share of one row of an operand; 0: whoever has a share looks at any. */
static uint32_t grain_of_operand(const struct node *node, uint32_t grain, const struct operand *o)
{
    switch ((int)node->op) {
    case OP_KIND_matmul:
    case OP_KIND_affine: return o->mode == MODE_IN ? 0 : grain;
    case OP_KIND_split_q_gate: return o->role == ROLE_q_stack ? 2 * grain : grain;
    case OP_KIND_rope: return o->role == ROLE_rope_table ? 0 : grain;
    case OP_KIND_delta_net:
        if (o->role == ROLE_delta_qkv) return 0;
        return o->role == ROLE_delta_out ? grain : 1;
    case OP_KIND_combine: return o->role == ROLE_shared_gate ? 0 : grain;
    case OP_KIND_expert_sum:
        return o->role == ROLE_pick_places || o->role == ROLE_router_weights ? 0 : grain;
    default: return grain;
    }
}

static split split_of_columns(const struct cpu_backend *be, const struct node *node, uint32_t grain,
                              const struct operand *o)
{
    uint32_t i, each = o->kind == OPERAND_BUFFER ? grain_of_operand(node, grain, o) : 0;
    if (!each || !graph_buffer_index(be->graph, operand_id(node, o), &i)) return SPLIT_ALL;
    return columns(be->graph->buffers.items[i].width, each);
}

/* Who touches an operand of a node; one: in a batch of one token. */
static split split_of_operand(const struct cpu_backend *be, const struct node *node, bool one,
                              const struct operand *o)
{
    const struct sharing *s = &be->sharing[node - be->graph->nodes.items];
    if (node->op == OP_KIND_group_picks) return SPLIT_FIRST;
    if (o->kind == OPERAND_BUFFER && o->role == ROLE_expert_input) return SPLIT_ROWS;
    if (!one) return SPLIT_ALL;
    switch (s->who) {
    case WHO_FIRST: return SPLIT_FIRST;
    case WHO_LAST: return SPLIT_LAST;
    case WHO_COLUMNS: return split_of_columns(be, node, s->grain, o);
    case WHO_ALL: break;
    }
    return SPLIT_ALL;
}

/* The input of a projection and its int8 copy. */
static split split_of_quantize(const struct cpu_backend *be, const struct step *step, bool one)
{
    if (!one) return SPLIT_ALL;
    if (step->sharing.who == WHO_LAST) return SPLIT_LAST;
    return step->sharing.who == WHO_FIRST
               ? SPLIT_FIRST
               : columns(be->graph->buffers.items[step->input].width, step->sharing.grain);
}

static bool clash(split before, split now)
{
    return before != SPLIT_NONE && (before != now || now == SPLIT_ALL);
}

/* What a step does with its resources: asks whether they clash with the phase, or adds them. */
typedef bool visit_fn(struct phase *phase, uint32_t resource, bool write, split by);

static bool visit_clash(struct phase *phase, uint32_t r, bool write, split by)
{
    return clash(phase->writes[r], by) || (write && clash(phase->reads[r], by));
}

static bool visit_add(struct phase *phase, uint32_t r, bool write, split by)
{
    split *at = write ? &phase->writes[r] : &phase->reads[r];
    *at = *at == SPLIT_NONE || *at == by ? by : SPLIT_ALL;
    return false;
}

static bool visit_quantize(const struct cpu_backend *be, const struct step *step,
                           struct phase *phase, visit_fn *fn)
{
    const bool one = phase->one;
    const split by = split_of_quantize(be, step, one);
    uint32_t x;
    bool result =
        slot_of(be, one, &be->graph->buffers.items[step->input], &x) && fn(phase, x, false, by);
    return fn(phase, act8_resource(be, one, step), true, by) || result;
}

/* Experts have barriers of their own: what they touch before the first one. */
static bool visit_experts_first(const struct cpu_backend *be, const struct node *node,
                                struct phase *phase, visit_fn *fn)
{
    uint32_t x;
    bool result = slot_of(be, phase->one, BUFFER_DECL(be, node->u.experts.x), &x) &&
                  fn(phase, x, false, SPLIT_ROWS);
    return fn(phase, resource(be, phase->one, RESOURCE_ROUND), true, SPLIT_FIRST) || result;
}

/* And after the last one. */
static void add_experts_last(const struct cpu_backend *be, const struct node *node,
                             struct phase *phase)
{
    const struct op_experts *op = &node->u.experts;
    const bool one = phase->one;
    const bool shares = one && !cpu_is_in_pieces(be, node) && !cpu_whole_experts(be, node);
    const split by = shares ? columns(BUFFER_DECL(be, op->y)->width, ROW_GRAIN) : SPLIT_ALL;
    uint32_t r;
    if (slot_of(be, one, BUFFER_DECL(be, op->y), &r)) (void)visit_add(phase, r, true, by);
    if (slot_of(be, one, BUFFER_DECL(be, op->act), &r)) (void)visit_add(phase, r, false, SPLIT_ALL);
    if (slot_of(be, one, BUFFER_DECL(be, op->offsets), &r))
        (void)visit_add(phase, r, false, SPLIT_ALL);
    (void)visit_add(phase, resource(be, one, RESOURCE_ROUND), false, SPLIT_ALL);
}

static bool visit_node(const struct cpu_backend *be, const struct step *step, struct phase *phase,
                       visit_fn *fn)
{
    const struct node *node = &be->graph->nodes.items[step->node];
    const struct op_info *info = op_info(node->op);
    const bool one = phase->one;
    bool result = false;
    for (uint32_t i = 0; i < info->n_operands; i++) {
        const struct operand *o = &info->operands[i];
        uint32_t r;
        if (!resource_of(be, one, node, o, &r)) continue;
        split by = split_of_operand(be, node, one, o);
        if (o->mode != MODE_OUT && o->mode != MODE_SCRATCH) result |= fn(phase, r, false, by);
        if (o->mode != MODE_IN) result |= fn(phase, r, true, by);
    }
    if (cpu_reads_int8(be, step->node)) {
        bool last = one && be->sharing[step->node].who == WHO_LAST;
        result |= fn(phase, act8_resource(be, one, step), false, last ? SPLIT_LAST : SPLIT_ALL);
    }
    if (node->op == OP_KIND_group_picks)
        result |= fn(phase, resource(be, one, RESOURCE_ROUND), true, SPLIT_FIRST);
    return result;
}

static bool visit(const struct cpu_backend *be, const struct step *step, struct phase *phase,
                  visit_fn *fn)
{
    const struct node *node = &be->graph->nodes.items[step->node];
    if (step->quantize) return visit_quantize(be, step, phase, fn);
    if (node->op == OP_KIND_experts) return visit_experts_first(be, node, phase, fn);
    return visit_node(be, step, phase, fn);
}

static void begin_phase(struct phase *phase)
{
    for (uint32_t r = 0; r < phase->n; r++) phase->reads[r] = phase->writes[r] = SPLIT_NONE;
    phase->fenced = false;
}

static bool is_lasts(const struct cpu_backend *be, const struct step *step, bool one)
{
    return one && (step->quantize ? step->sharing : be->sharing[step->node]).who == WHO_LAST;
}

/*
 * Where the barrier goes for step s, which clashes with the phase from step `begin` on. Of a step
 * of the last thread: as early as it helps, so that this thread does not wait for what thread 0
 * computes meanwhile. The phase begins there.
 */
static uint32_t barrier_for(const struct cpu_backend *be, struct phase *phase, uint32_t begin,
                            uint32_t s)
{
    for (uint32_t at = begin + 1; at < s && is_lasts(be, &be->steps[s], phase->one); at++) {
        begin_phase(phase);
        for (uint32_t i = at; i < s; i++) (void)visit(be, &be->steps[i], phase, visit_add);
        if (!visit(be, &be->steps[s], phase, visit_clash)) return at;
    }
    begin_phase(phase);
    return s;
}

static void place_barriers(struct cpu_backend *be, struct phase *phase)
{
    uint32_t begin = 0; /* the step with the last barrier before it or in it */
    begin_phase(phase);
    for (uint32_t s = 0; s < be->n_steps; s++) {
        struct step *step = &be->steps[s];
        const struct node *node = &be->graph->nodes.items[step->node];
        bool experts = !step->quantize && node->op == OP_KIND_experts;
        bool plain = step->quantize || experts || is_plain(node->op);
        if (!plain || phase->fenced) {
            begin_phase(phase);
            begin = s;
            step->barrier[phase->one] = true;
        } else if (visit(be, step, phase, visit_clash)) {
            begin = barrier_for(be, phase, begin, s);
            be->steps[begin].barrier[phase->one] = true;
        }
        if (experts) {
            begin_phase(phase);
            add_experts_last(be, node, phase);
            begin = s;
        } else if (plain) {
            (void)visit(be, step, phase, visit_add);
        }
        phase->fenced = !plain;
    }
}

/* The node after which the input of projection n may be quantised: its writer, if it can wait. */
static uint32_t quantize_after(const struct cpu_backend *be, uint32_t n, uint32_t input)
{
    uint32_t writer = be->graph->buffers.items[input].writer;
    if (writer >= n) return n - 1;
    for (uint32_t i = writer + 1; i < n; i++)
        if (cpu_reads_int8(be, i)) return n - 1;
    return writer;
}

/* The threads that computed a buffer quantise it, where they did so in whole groups. */
static struct sharing quantize_by(const struct cpu_backend *be, const struct buffer *x)
{
    const struct sharing first = {WHO_FIRST, 0};
    if (x->writer >= be->graph->nodes.n) return first;
    struct sharing s = be->sharing[x->writer];
    if (s.who == WHO_LAST) return s;
    return s.who == WHO_COLUMNS && s.grain % ACT8_GROUP == 0 ? s : first;
}

static uint32_t input_of(const struct cpu_backend *be, uint32_t n)
{
    struct projection p = {.x = be->graph->buffers.items};
    (void)cpu_projection(be, &be->graph->nodes.items[n], &p);
    return (uint32_t)(p.x - be->graph->buffers.items);
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
                          .sharing = quantize_by(be, &be->graph->buffers.items[input])};
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
    struct phase phase = {
        .n = max_u32(resource(be, false, MORE_RESOURCES), resource(be, true, MORE_RESOURCES))};
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
        place_barriers(be, &phase);
        phase.one = true;
        place_barriers(be, &phase);
    }
    free(after);
    free(phase.reads);
    free(phase.writes);
    return ok ? SLUICE_OK : err_nomem(err, "backend", n_nodes);
}
