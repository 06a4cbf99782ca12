/*
 * The memory plan: which buffers share storage. Two buffers share a slot only when their lifetimes
 * [writer, last reader] do not touch, so an op's inputs and outputs never alias. Greedy colouring
 * of intervals in order of their start, which uses the least number of slots (the largest number of
 * buffers alive at once); among free slots the best fitting one is taken. A pure function of the
 * graph and the sizes.
 */
#ifndef SLUICE_IR_PLAN_H
#define SLUICE_IR_PLAN_H

#include "ir/graph.h"

/* The largest batch the plan has room for. */
struct plan_dims {
    uint32_t tokens;
    uint32_t outputs;
};

enum { PLAN_BORROWED = -1 };

struct plan {
    uint32_t n_buffers;
    uint32_t *slot;  /* per buffer; PLAN_BORROWED: no storage of the plan */
    size_t *bytes;   /* per buffer, at plan_dims */
    uint32_t *first; /* per buffer: node that writes it (0 for inputs) */
    uint32_t *last;  /* per buffer: last node that reads it */
    uint32_t n_slots;
    size_t *slot_bytes; /* a multiple of 64 */
    size_t total_bytes;
};

/* share false gives every buffer a slot of its own (for tests and debugging). */
enum sluice_status plan_init(struct plan *plan, const struct graph *g, struct plan_dims dims,
                             bool share, struct sluice_error *err);
/*
 * The same without storage for some buffers, as if they were borrowed; unused: per buffer. A slot
 * rests for so many nodes before another buffer has it: steps that are near each other then meet in
 * no storage, and threads need not wait for that.
 */
enum sluice_status plan_init_without(struct plan *plan, const struct graph *g,
                                     struct plan_dims dims, bool share, const bool *unused,
                                     uint32_t rest, struct sluice_error *err);
void plan_release(struct plan *plan);

/* Rows of a buffer of that kind in a batch. */
uint64_t plan_rows(enum rows rows, struct plan_dims dims, uint32_t n_picks);

#endif
