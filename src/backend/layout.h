/* Which states a graph's sequences hold, and where an op finds its own. */
#ifndef SLUICE_BACKEND_LAYOUT_H
#define SLUICE_BACKEND_LAYOUT_H

#include "ir/graph.h"
#include "state/sequence.h"

/*
 * Adds every state the graph declares to an empty layout, in order of declaration: kv and latent
 * states to pages, convolution and delta states as recurrent ones. Errors: NOMEM.
 */
enum sluice_status layout_from_graph(struct state_layout *layout, const struct graph *g,
                                     enum kv_type kv_type, struct sluice_error *err);

/* Index in the layout, among its kind, of the graph's state number s. */
uint32_t layout_index(const struct graph *g, uint32_t s);

#endif
