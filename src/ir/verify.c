/*
 * Rules of a finished graph that types cannot state. Every value is defined before it is read, and
 * read after it is defined. States are changed once. Values, weights and states of a layer serve
 * that layer: only the residual stream leaves it, and who reads the stream reads its newest value.
 * Nothing was declared in vain. Shapes are what the push functions would make of them again.
 */
#include <stdlib.h>

#include "ir/build.h"

struct checker {
    const struct graph *g;
    uint8_t *read;        /* per buffer: some node reads it */
    uint8_t *weight_used; /* per weight */
    uint32_t *changed_at; /* per state: node + 1 that changes it, 0 none */
    uint32_t stream;      /* the buffer that holds the newest residual stream */
    struct sluice_error *err;
};

static enum sluice_status broken(const struct checker *c, uint32_t n, const char *operand,
                                 const char *rule)
{
    const struct node *node = &c->g->nodes.items[n];
    return err_set(c->err, SLUICE_E_INTERNAL, "graph: node %u (%s): operand '%s' %s", n,
                   op_info(node->op)->name, operand, rule);
}

static uint32_t index_of(const struct graph *g, uint32_t id)
{
    uint32_t index = 0;
    return graph_buffer_index(g, id, &index) ? index : UINT32_MAX;
}

/* The layer of a value, or UINT32_MAX when every layer may read it. */
static uint32_t layer_of(const struct graph *g, const struct buffer *buffer)
{
    if (buffer->writer >= g->nodes.n || role_converts(buffer->role, ROLE_stream)) return UINT32_MAX;
    return g->nodes.items[buffer->writer].layer;
}

static enum sluice_status check_read(struct checker *c, uint32_t n, const struct operand *o,
                                     uint32_t b)
{
    const struct buffer *buffer = &c->g->buffers.items[b];
    uint32_t layer = layer_of(c->g, buffer);
    c->read[b] = 1;
    bool input = buffer->writer == (uint32_t)BUFFER_INPUT;
    if (!input && (buffer->writer == (uint32_t)BUFFER_UNWRITTEN || buffer->writer >= n))
        return broken(c, n, o->name, "is read before it is written");
    if (layer != UINT32_MAX && layer != c->g->nodes.items[n].layer)
        return broken(c, n, o->name, "is a value of another layer");
    if (role_converts(buffer->role, ROLE_stream) && b != c->stream)
        return broken(c, n, o->name, "is not the newest residual stream");
    return SLUICE_OK;
}

static enum sluice_status check_buffer(struct checker *c, uint32_t n, const struct operand *o)
{
    const struct node *node = &c->g->nodes.items[n];
    uint32_t b = index_of(c->g, operand_id(node, o));
    if (b == UINT32_MAX) return broken(c, n, o->name, "is no buffer of this graph");
    const struct buffer *buffer = &c->g->buffers.items[b];
    if (!role_converts(buffer->role, (enum role)o->role))
        return broken(c, n, o->name, "has a role that does not fit");
    if (o->mode == MODE_IN) return check_read(c, n, o, b);
    if (buffer->writer != n)
        return broken(c, n, o->name, "is written by another node or the caller");
    if (role_converts(buffer->role, ROLE_stream)) c->stream = b;
    if (o->mode == MODE_SCRATCH) c->read[b] = 1;
    return SLUICE_OK;
}

static enum sluice_status check_state(struct checker *c, uint32_t n, const struct operand *o)
{
    const struct node *node = &c->g->nodes.items[n];
    uint32_t s;
    if (!graph_state_index(c->g, operand_id(node, o), &s))
        return broken(c, n, o->name, "is no state of this graph");
    const struct state_decl *decl = &c->g->states.items[s];
    if (!graph_state_fits(decl->kind, (enum state_kind)o->role))
        return broken(c, n, o->name, "is another kind of state");
    if (decl->layer != node->layer) return broken(c, n, o->name, "is the state of another layer");
    if (o->mode == MODE_INOUT) {
        if (c->changed_at[s]) return broken(c, n, o->name, "is changed a second time");
        c->changed_at[s] = n + 1;
    } else if (c->changed_at[s] == 0) {
        return broken(c, n, o->name, "is read before the batch is in it");
    }
    return SLUICE_OK;
}

static enum sluice_status check_weight(struct checker *c, uint32_t n, const struct operand *o)
{
    const struct node *node = &c->g->nodes.items[n];
    uint32_t w;
    if (!graph_weight_index(c->g, operand_id(node, o), &w))
        return broken(c, n, o->name, "is no weight of this graph");
    const struct weight_decl *decl = &c->g->weights.items[w];
    if (!weight_role_converts(decl->role, (enum weight_role)o->role))
        return broken(c, n, o->name, "has a role that does not fit");
    if (decl->layer != node->layer) return broken(c, n, o->name, "is a weight of another layer");
    c->weight_used[w] = 1;
    return SLUICE_OK;
}

static enum sluice_status check_operand(struct checker *c, uint32_t n, const struct operand *o)
{
    switch (o->kind) {
    case OPERAND_BUFFER: return check_buffer(c, n, o);
    case OPERAND_STATE: return check_state(c, n, o);
    case OPERAND_WEIGHT: return check_weight(c, n, o);
    default: return SLUICE_OK;
    }
}

static enum sluice_status check_nodes(struct checker *c)
{
    for (uint32_t n = 0; n < c->g->nodes.n; n++) {
        const struct op_info *info = op_info(c->g->nodes.items[n].op);
        for (uint32_t i = 0; i < info->n_operands; i++)
            TRY(check_operand(c, n, &info->operands[i]));
    }
    return SLUICE_OK;
}

static enum sluice_status check_leftovers(const struct checker *c)
{
    const struct graph *g = c->g;
    for (uint32_t b = 0; b < g->buffers.n; b++) {
        const struct buffer *buffer = &g->buffers.items[b];
        if (buffer->writer == (uint32_t)BUFFER_UNWRITTEN)
            return err_set(c->err, SLUICE_E_INTERNAL, "graph: %%%u:%s is never written", b + 1,
                           role_name(buffer->role));
        if (!c->read[b] && buffer->lifetime == LIFE_TRANSIENT)
            return err_set(c->err, SLUICE_E_INTERNAL, "graph: %%%u:%s is never read", b + 1,
                           role_name(buffer->role));
    }
    for (uint32_t w = 0; w < g->weights.n; w++)
        if (!c->weight_used[w])
            return err_set(c->err, SLUICE_E_INTERNAL, "graph: layer %u: weight %s is never used",
                           g->weights.items[w].layer, weight_role_name(g->weights.items[w].role));
    for (uint32_t s = 0; s < g->states.n; s++)
        if (!c->changed_at[s])
            return err_set(c->err, SLUICE_E_INTERNAL, "graph: layer %u: state %s is never used",
                           g->states.items[s].layer, state_kind_name(g->states.items[s].kind));
    return SLUICE_OK;
}

enum sluice_status graph_verify(const struct graph *g, struct sluice_error *err)
{
    if (g->nodes.n == 0) return err_set(err, SLUICE_E_INTERNAL, "graph: it has no ops");
    struct checker c = {.g = g, .err = err, .stream = UINT32_MAX};
    c.read = calloc(g->buffers.n + 1, 1);
    c.weight_used = calloc(g->weights.n + 1, 1);
    c.changed_at = calloc(g->states.n + 1, sizeof *c.changed_at);
    enum sluice_status status = c.read && c.weight_used && c.changed_at
                                    ? check_nodes(&c)
                                    : err_nomem(err, "graph", g->buffers.n);
    if (status == SLUICE_OK) status = check_leftovers(&c);
    if (status == SLUICE_OK) status = build_again(g, err);
    free(c.read);
    free(c.weight_used);
    free(c.changed_at);
    return status;
}
