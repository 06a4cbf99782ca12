/* Building: ids, declarations, nodes, and the sticky error. */
#include "ir/graph.h"

#include <stdarg.h>
#include <stdio.h>

#include <string.h>

#include "ir/build.h"

enum { GENERATION_MAX = 4095 };

void graph_init(struct graph *g, uint32_t generation)
{
    *g = (struct graph){.generation = (generation - 1) % GENERATION_MAX + 1, .layer = UINT32_MAX};
}

void graph_release(struct graph *g)
{
    array_release(&g->nodes);
    array_release(&g->buffers);
    array_release(&g->weights);
    array_release(&g->states);
    *g = (struct graph){0};
}

void graph_set_layer(struct graph *g, uint32_t layer)
{
    g->layer = layer;
}

enum sluice_status graph_finish(struct graph *g, struct sluice_error *err)
{
    if (g->err.code == SLUICE_OK) (void)graph_verify(g, &g->err);
    g->finished = true;
    if (g->err.code != SLUICE_OK && err) *err = g->err;
    return g->err.code;
}

void build_fail(struct graph *g, const char *op, const char *fmt, ...)
{
    if (g->err.code != SLUICE_OK) return;
    char text[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (g->layer == UINT32_MAX)
        err_set(&g->err, SLUICE_E_INTERNAL, "graph: %s: %s", op, text);
    else
        err_set(&g->err, SLUICE_E_INTERNAL, "graph: layer %u: %s: %s", g->layer, op, text);
}

bool build_check(struct graph *g, bool cond, const char *op, const char *what, uint32_t have,
                 uint32_t want)
{
    if (!cond) build_fail(g, op, "%s is %u where %u is needed", what, have, want);
    return cond;
}

static uint32_t make_id(const struct graph *g, size_t index)
{
    return g->generation << ID_INDEX_BITS | (uint32_t)(index + 1);
}

/* False for id 0, another generation, or an index not below n. */
static bool split_id(const struct graph *g, uint32_t id, size_t n, uint32_t *index)
{
    uint32_t place = id & ((1u << ID_INDEX_BITS) - 1);
    if (id >> ID_INDEX_BITS != g->generation || place == 0 || place > n) return false;
    *index = place - 1;
    return true;
}

bool graph_buffer_index(const struct graph *g, uint32_t id, uint32_t *index)
{
    return split_id(g, id, g->buffers.n, index);
}

bool graph_weight_index(const struct graph *g, uint32_t id, uint32_t *index)
{
    return split_id(g, id, g->weights.n, index);
}

bool graph_state_index(const struct graph *g, uint32_t id, uint32_t *index)
{
    return split_id(g, id, g->states.n, index);
}

static bool may_add(struct graph *g, size_t n, const char *what)
{
    if (g->finished) build_fail(g, what, "the graph is finished");
    if (n >= (1u << ID_INDEX_BITS) - 1) build_fail(g, what, "too many");
    return g->err.code == SLUICE_OK;
}

static uint32_t added(struct graph *g, bool ok, size_t n)
{
    if (ok) return make_id(g, n - 1);
    err_nomem(&g->err, "graph", 0);
    return 0;
}

uint32_t build_buffer(struct graph *g, enum role role, uint32_t width)
{
    if (!may_add(g, g->buffers.n, role_name(role))) return 0;
    if (width == 0) {
        build_fail(g, role_name(role), "the buffer would have rows of no elements");
        return 0;
    }
    struct buffer b = {.role = role, .width = width, .writer = (uint32_t)BUFFER_UNWRITTEN};
    bool ok = array_push(&g->buffers, b);
    return added(g, ok, g->buffers.n);
}

static uint32_t input_buffer(struct graph *g, enum role role, uint32_t width, enum lifetime life)
{
    uint32_t id = build_buffer(g, role, width);
    uint32_t index;
    if (!graph_buffer_index(g, id, &index)) return 0;
    g->buffers.items[index].writer = (uint32_t)BUFFER_INPUT;
    g->buffers.items[index].lifetime = life;
    return id;
}

buf_token_ids graph_token_ids(struct graph *g)
{
    return (buf_token_ids){input_buffer(g, ROLE_token_ids, 1, LIFE_PERSISTENT)};
}

buf_output_rows graph_output_rows(struct graph *g)
{
    return (buf_output_rows){input_buffer(g, ROLE_output_rows, 1, LIFE_PERSISTENT)};
}

buf_rope_freqs graph_rope_freqs(struct graph *g, uint32_t rotary_dim)
{
    return (buf_rope_freqs){input_buffer(g, ROLE_rope_freqs, rotary_dim / 2, LIFE_BORROWED)};
}

void graph_keep_id(struct graph *g, uint32_t id)
{
    uint32_t index;
    if (!may_add(g, 0, "keep")) return;
    if (!graph_buffer_index(g, id, &index))
        build_fail(g, "keep", "buffer %%%u is unknown", id & ((1u << ID_INDEX_BITS) - 1));
    else if (g->buffers.items[index].lifetime == LIFE_TRANSIENT)
        g->buffers.items[index].lifetime = LIFE_PERSISTENT;
}

uint32_t graph_weight(struct graph *g, struct weight_decl decl)
{
    const char *name = weight_role_name(decl.role);
    if (!may_add(g, g->weights.n, name)) return 0;
    if (decl.role == WEIGHT_NONE || decl.role >= WEIGHT_UNIONS_) {
        build_fail(g, name, "this is no role of a weight");
        return 0;
    }
    bool vector = weight_role_kind(decl.role) == WEIGHT_KIND_VECTOR;
    if (decl.rows == 0 || decl.cols == 0 || (vector && decl.rows != 1)) {
        build_fail(g, name, "a weight of %u x %u", decl.rows, decl.cols);
        return 0;
    }
    bool heads = weight_role_kind(decl.role) == WEIGHT_KIND_HEADS;
    if (heads == (decl.n_heads == 0)) {
        build_fail(g, name, "a weight of %u heads", decl.n_heads);
        return 0;
    }
    bool bank = weight_role_kind(decl.role) == WEIGHT_KIND_BANK;
    if (bank ? decl.n_experts == 0 || decl.n_inter != decl.rows : decl.n_experts || decl.n_inter) {
        build_fail(g, name, "a bank of %u experts", decl.n_experts);
        return 0;
    }
    decl.layer = g->layer;
    bool ok = array_push(&g->weights, decl);
    return added(g, ok, g->weights.n);
}

static wt_experts add_bank(struct graph *g, uint32_t n_experts, uint32_t n_inter, uint32_t hidden,
                           bool biased)
{
    struct weight_decl decl = {.role = WEIGHT_experts,
                               .rows = n_inter,
                               .cols = hidden,
                               .n_experts = n_experts,
                               .n_inter = n_inter,
                               .biased = biased};
    return (wt_experts){graph_weight(g, decl)};
}

wt_experts graph_experts(struct graph *g, uint32_t n_experts, uint32_t n_inter, uint32_t hidden)
{
    return add_bank(g, n_experts, n_inter, hidden, false);
}

wt_experts graph_biased_experts(struct graph *g, uint32_t n_experts, uint32_t n_inter,
                                uint32_t hidden)
{
    return add_bank(g, n_experts, n_inter, hidden, true);
}

static uint32_t add_state(struct graph *g, struct state_decl decl)
{
    if (!may_add(g, g->states.n, state_kind_name(decl.kind))) return 0;
    decl.layer = g->layer;
    for (size_t i = 0; i < g->states.n; i++)
        if (g->states.items[i].kind == decl.kind) decl.index++;
    bool ok = array_push(&g->states, decl);
    return added(g, ok, g->states.n);
}

state_kv graph_state_kv(struct graph *g, uint32_t n_kv_heads, uint32_t head_dim)
{
    struct state_decl decl = {.kind = STATE_kv, .dims = {n_kv_heads, head_dim}};
    return (state_kv){add_state(g, decl)};
}

state_latent graph_state_latent(struct graph *g, uint32_t rank, uint32_t rotated)
{
    struct state_decl decl = {.kind = STATE_latent, .dims = {rank, rotated}};
    return (state_latent){add_state(g, decl)};
}

state_conv graph_state_conv(struct graph *g, uint32_t width, uint32_t channels)
{
    if (width == 0) build_fail(g, "conv", "a convolution of width 0");
    struct state_decl decl = {.kind = STATE_conv, .dims = {width - 1, channels}};
    return (state_conv){add_state(g, decl)};
}

state_delta graph_state_delta(struct graph *g, uint32_t n_v_heads, uint32_t dv, uint32_t dk)
{
    struct state_decl decl = {.kind = STATE_delta, .dims = {n_v_heads, dv, dk}};
    return (state_delta){add_state(g, decl)};
}

uint32_t build_width(const struct graph *g, uint32_t id)
{
    uint32_t index;
    return graph_buffer_index(g, id, &index) ? g->buffers.items[index].width : 0;
}

const struct weight_decl *build_weight(const struct graph *g, uint32_t id)
{
    static const struct weight_decl none;
    uint32_t index;
    return graph_weight_index(g, id, &index) ? &g->weights.items[index] : &none;
}

const struct state_decl *build_state(const struct graph *g, uint32_t id)
{
    static const struct state_decl none;
    uint32_t index;
    return graph_state_index(g, id, &index) ? &g->states.items[index] : &none;
}

const struct node *build_writer(const struct graph *g, uint32_t id)
{
    static const struct node none;
    uint32_t index;
    if (!graph_buffer_index(g, id, &index)) return &none;
    uint32_t writer = g->buffers.items[index].writer;
    return writer < g->nodes.n ? &g->nodes.items[writer] : &none;
}

uint32_t build_product(struct graph *g, const char *op, uint32_t a, uint32_t b)
{
    uint64_t product = (uint64_t)a * b;
    if (product <= UINT32_MAX) return (uint32_t)product;
    build_fail(g, op, "%u x %u is more than a row can have", a, b);
    return 0;
}

bool graph_state_fits(enum state_kind have, enum state_kind want)
{
    return have == want || (have == STATE_kv && want == STATE_kv_ready) ||
           (have == STATE_latent && want == STATE_latent_ready);
}

static bool operand_fits(const struct graph *g, const struct node *node, const struct operand *o)
{
    uint32_t id = operand_id(node, o);
    uint32_t index;
    switch (o->kind) {
    case OPERAND_BUFFER:
        return graph_buffer_index(g, id, &index) &&
               role_converts(g->buffers.items[index].role, (enum role)o->role);
    case OPERAND_WEIGHT:
        return graph_weight_index(g, id, &index) &&
               weight_role_converts(g->weights.items[index].role, (enum weight_role)o->role);
    case OPERAND_STATE:
        return graph_state_index(g, id, &index) &&
               graph_state_fits(g->states.items[index].kind, (enum state_kind)o->role);
    default: return true;
    }
}

bool build_role(struct graph *g, const char *op, uint32_t id, enum role want)
{
    uint32_t index;
    if (!graph_buffer_index(g, id, &index)) return false;
    enum role have = g->buffers.items[index].role;
    if (role_converts(have, want)) return true;
    build_fail(g, op, "%s where %s is meant", role_name(have), role_name(want));
    return false;
}

static bool is_result(const struct operand *o)
{
    return o->kind == OPERAND_BUFFER && o->mode != MODE_IN;
}

/* Whether the operands that are results, or those that are not, fit. */
static bool operands_fit(struct graph *g, const struct node *node, const char *name, bool results)
{
    const struct op_info *info = op_info(node->op);
    for (uint32_t i = 0; i < info->n_operands; i++) {
        const struct operand *o = &info->operands[i];
        if (is_result(o) != results || operand_fits(g, node, o)) continue;
        build_fail(g, name, "operand '%s' is missing, stale or of another role", o->name);
        return false;
    }
    return true;
}

bool build_inputs(struct graph *g, enum op op, const char *name, const void *payload, size_t bytes)
{
    if (!may_add(g, g->nodes.n, name)) return false;
    struct node node = {.op = op};
    memcpy(&node.u, payload, bytes);
    return operands_fit(g, &node, name, false);
}

static void mark_outputs(struct graph *g, const struct node *node, uint32_t index)
{
    const struct op_info *info = op_info(node->op);
    for (uint32_t i = 0; i < info->n_operands; i++) {
        const struct operand *o = &info->operands[i];
        uint32_t b;
        if (!is_result(o)) continue;
        if (!graph_buffer_index(g, operand_id(node, o), &b)) continue;
        if (g->buffers.items[b].writer != (uint32_t)BUFFER_UNWRITTEN)
            build_fail(g, info->name, "'%s' is written a second time", o->name);
        g->buffers.items[b].writer = index;
    }
}

void build_node(struct graph *g, enum op op, const void *payload, size_t bytes)
{
    const struct op_info *info = op_info(op);
    if (!may_add(g, g->nodes.n, info->name)) return;
    struct node node = {.op = op, .layer = g->layer};
    memcpy(&node.u, payload, bytes);
    if (!operands_fit(g, &node, info->name, false) || !operands_fit(g, &node, info->name, true))
        return;
    if (!array_push(&g->nodes, node)) {
        err_nomem(&g->err, "graph", sizeof node);
        return;
    }
    mark_outputs(g, &node, (uint32_t)(g->nodes.n - 1));
}
