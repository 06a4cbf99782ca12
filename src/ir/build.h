/* What push functions share: adding buffers and nodes, and the sticky error. Private to ir. */
#ifndef SLUICE_IR_BUILD_H
#define SLUICE_IR_BUILD_H

#include "ir/graph.h"

enum { ID_INDEX_BITS = 20 };

/* A new buffer of role; 0 after an error. */
uint32_t build_buffer(struct graph *g, enum role role, uint32_t width);
/*
 * Appends the node: every operand must be a known id of a fitting role. Marks its outputs as
 * written by it.
 */
void build_node(struct graph *g, enum op op, const void *payload, size_t bytes);
/*
 * Fails the graph, in the name of the op, unless each operand that goes in is a known id of a
 * fitting role: push functions call it before they ask for shapes. Results are not looked at.
 */
bool build_inputs(struct graph *g, enum op op, const char *name, const void *payload, size_t bytes);
/* Fails the graph unless the buffer's role is want or converts to it. */
bool build_role(struct graph *g, const char *op, uint32_t id, enum role want);
/* Elements per row of a buffer, 0 for an unknown id. */
uint32_t build_width(const struct graph *g, uint32_t id);
/* The node that writes a buffer; a static all-zero one for an input or an unknown id. */
const struct node *build_writer(const struct graph *g, uint32_t id);
/* The declared weight or state; a static all-zero one for an unknown id. */
const struct weight_decl *build_weight(const struct graph *g, uint32_t id);
const struct state_decl *build_state(const struct graph *g, uint32_t id);

/* Sets the sticky error unless there is one; the op and the layer are named. */
void build_fail(struct graph *g, const char *op, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Fails the graph unless cond; gives cond. */
bool build_check(struct graph *g, bool cond, const char *op, const char *what, uint32_t have,
                 uint32_t want);

/* a * b; fails the graph and gives 0 when that is no 32-bit number. */
uint32_t build_product(struct graph *g, const char *op, uint32_t a, uint32_t b);

/*
 * Builds a graph anew from the nodes of g, its declarations and inputs, by the push functions, and
 * fails unless the result is g again. So every shape rule holds for a graph that was changed after
 * it was built, or is not what the push functions would have made.
 */
enum sluice_status build_again(const struct graph *g, struct sluice_error *err);

#define BUILD_INPUTS(g, op) build_inputs((g), OP_KIND_##op, #op, &op, sizeof op)
#define BUILD_NODE(g, op) build_node((g), OP_KIND_##op, &op, sizeof op)

#endif
