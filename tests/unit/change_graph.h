/* Copying a graph and changing the copy behind the builder's back, for tests of the IR. */
#ifndef TESTS_CHANGE_GRAPH_H
#define TESTS_CHANGE_GRAPH_H

#include <stdlib.h>
#include <string.h>

#include "ir/graph.h"

enum { ID_BITS = 20 };

static inline void *copied(const void *p, size_t bytes)
{
    void *copy = malloc(bytes + 1);
    if (!copy) abort();
    if (bytes) memcpy(copy, p, bytes);
    return copy;
}

static inline struct graph graph_copy(const struct graph *g)
{
    struct graph copy = *g;
    copy.nodes.items = copied(g->nodes.items, g->nodes.n * sizeof *g->nodes.items);
    copy.buffers.items = copied(g->buffers.items, g->buffers.n * sizeof *g->buffers.items);
    copy.weights.items = copied(g->weights.items, g->weights.n * sizeof *g->weights.items);
    copy.states.items = copied(g->states.items, g->states.n * sizeof *g->states.items);
    copy.nodes.cap = g->nodes.n;
    copy.buffers.cap = g->buffers.n;
    copy.weights.cap = g->weights.n;
    copy.states.cap = g->states.n;
    return copy;
}

/* The id of a buffer, weight or state by its index. */
static inline uint32_t id_of(const struct graph *g, size_t index)
{
    return g->generation << ID_BITS | (uint32_t)(index + 1);
}

static inline void set_u32(struct node *node, const struct operand *o, uint32_t value)
{
    memcpy((char *)&node->u + o->offset, &value, sizeof value);
}

/* Writers as a builder of these nodes would note them. */
static inline void note_writers(struct graph *g)
{
    for (size_t b = 0; b < g->buffers.n; b++)
        if (g->buffers.items[b].writer != (uint32_t)BUFFER_INPUT)
            g->buffers.items[b].writer = (uint32_t)BUFFER_UNWRITTEN;
    for (uint32_t n = 0; n < g->nodes.n; n++) {
        const struct op_info *info = op_info(g->nodes.items[n].op);
        for (uint32_t i = 0; i < info->n_operands; i++) {
            const struct operand *o = &info->operands[i];
            uint32_t b;
            if (o->kind != OPERAND_BUFFER || o->mode == MODE_IN) continue;
            if (graph_buffer_index(g, operand_id(&g->nodes.items[n], o), &b) &&
                g->buffers.items[b].writer != (uint32_t)BUFFER_INPUT)
                g->buffers.items[b].writer = n;
        }
    }
}

#endif
