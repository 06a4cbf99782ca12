/*
 * A toy interpreter of graphs: it walks the operand tables and lets every op fill its results with
 * a hash of what goes in. Two ways to lay out memory, or two graphs, compute the same exactly when
 * their digests agree. Before an op reads, its results and scratch are filled with noise of the
 * run, as is its scratch when it ends, and all storage at the start: sharing that must not be shows
 * as a different digest.
 */
#ifndef TESTS_TOY_RUN_H
#define TESTS_TOY_RUN_H

#include <stdlib.h>
#include <string.h>

#include "ir/plan.h"

struct toy {
    const struct graph *g;
    const struct plan *plan;
    unsigned char *storage; /* all slots, then all borrowed buffers */
    unsigned char **at;     /* per buffer */
    uint64_t *states;       /* per state */
    uint64_t noise;
};

static inline uint64_t toy_mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static inline uint64_t toy_hash(uint64_t h, const unsigned char *p, size_t n)
{
    for (; n >= 4; p += 4, n -= 4) {
        uint32_t word;
        memcpy(&word, p, 4);
        h = toy_mix(h, word);
    }
    return toy_mix(h, n);
}

static inline void toy_fill(unsigned char *p, size_t n, uint64_t seed)
{
    for (size_t i = 0; i + 4 <= n; i += 4) {
        seed = toy_mix(seed, i + 1);
        uint32_t word = (uint32_t)(seed >> 16);
        memcpy(p + i, &word, 4);
    }
}

static inline uint32_t toy_buffer(const struct toy *t, const struct node *node,
                                  const struct operand *o)
{
    uint32_t index = 0;
    graph_buffer_index(t->g, operand_id(node, o), &index);
    return index;
}

/* What goes into an op, in the order of its operands. */
static inline uint64_t toy_inputs(const struct toy *t, const struct node *node)
{
    const struct op_info *info = op_info(node->op);
    uint64_t h = toy_mix(node->op, 1);
    for (uint32_t i = 0; i < info->n_operands; i++) {
        const struct operand *o = &info->operands[i];
        uint32_t index = 0;
        if (o->kind == OPERAND_BUFFER && o->mode == MODE_IN) {
            uint32_t b = toy_buffer(t, node, o);
            h = toy_hash(h, t->at[b], t->plan->bytes[b]);
        } else if (o->kind == OPERAND_WEIGHT) {
            graph_weight_index(t->g, operand_id(node, o), &index);
            h = toy_mix(h, index);
        } else if (o->kind == OPERAND_STATE) {
            graph_state_index(t->g, operand_id(node, o), &index);
            h = toy_mix(h, t->states[index]);
        } else if (o->kind == OPERAND_SCALAR) {
            const unsigned char *p = (const unsigned char *)&node->u + o->offset;
            for (size_t k = 0; k < (o->role == SCALAR_flag ? 1 : 4); k++) h = toy_mix(h, p[k]);
        }
    }
    return h;
}

/* Fills every buffer of that mode; the seed differs from one operand to the next. */
static inline void toy_write(const struct toy *t, const struct node *node, enum operand_mode mode,
                             uint64_t seed)
{
    const struct op_info *info = op_info(node->op);
    for (uint32_t i = 0; i < info->n_operands; i++) {
        const struct operand *o = &info->operands[i];
        if (o->kind != OPERAND_BUFFER || o->mode != mode) continue;
        uint32_t b = toy_buffer(t, node, o);
        toy_fill(t->at[b], t->plan->bytes[b], toy_mix(seed, i));
    }
}

static inline uint64_t toy_scratch(const struct toy *t, const struct node *node, uint64_t h)
{
    const struct op_info *info = op_info(node->op);
    for (uint32_t i = 0; i < info->n_operands; i++) {
        const struct operand *o = &info->operands[i];
        if (o->kind != OPERAND_BUFFER || o->mode != MODE_SCRATCH) continue;
        uint32_t b = toy_buffer(t, node, o);
        h = toy_hash(h, t->at[b], t->plan->bytes[b]);
    }
    return h;
}

static inline void toy_states(const struct toy *t, const struct node *node, uint64_t h)
{
    const struct op_info *info = op_info(node->op);
    for (uint32_t i = 0; i < info->n_operands; i++) {
        const struct operand *o = &info->operands[i];
        uint32_t s;
        if (o->kind == OPERAND_STATE && o->mode == MODE_INOUT &&
            graph_state_index(t->g, operand_id(node, o), &s))
            t->states[s] = toy_mix(h, i);
    }
}

static inline void toy_step(const struct toy *t, const struct node *node)
{
    toy_write(t, node, MODE_OUT, t->noise);
    toy_write(t, node, MODE_SCRATCH, t->noise + 1);
    uint64_t h = toy_inputs(t, node);
    toy_write(t, node, MODE_SCRATCH, h);
    h = toy_scratch(t, node, h);
    toy_write(t, node, MODE_OUT, h);
    toy_write(t, node, MODE_SCRATCH, t->noise + 2);
    toy_states(t, node, h);
}

static inline bool toy_init(struct toy *t, const struct graph *g, const struct plan *plan,
                            uint64_t noise)
{
    size_t borrowed = 0;
    for (uint32_t b = 0; b < plan->n_buffers; b++)
        if (plan->slot[b] == (uint32_t)PLAN_BORROWED) borrowed += plan->bytes[b];
    size_t bytes = plan->total_bytes + borrowed;
    *t = (struct toy){.g = g, .plan = plan, .noise = noise};
    t->storage = malloc(bytes + 4);
    t->at = calloc(plan->n_buffers + 1, sizeof *t->at);
    t->states = calloc(g->states.n + 1, sizeof *t->states);
    size_t *slot_at = calloc(plan->n_slots + 1, sizeof *slot_at);
    bool ok = t->storage && t->at && t->states && slot_at;
    if (ok) {
        toy_fill(t->storage, bytes, noise);
        for (uint32_t s = 0; s < plan->n_slots; s++)
            slot_at[s + 1] = slot_at[s] + plan->slot_bytes[s];
        size_t end = plan->total_bytes;
        for (uint32_t b = 0; b < plan->n_buffers; b++) {
            bool own = plan->slot[b] != (uint32_t)PLAN_BORROWED;
            t->at[b] = t->storage + (own ? slot_at[plan->slot[b]] : end);
            if (!own) end += plan->bytes[b];
        }
    }
    free(slot_at);
    return ok;
}

static inline void toy_release(struct toy *t)
{
    free(t->storage);
    free(t->at);
    free(t->states);
}

/* Runs g and gives a digest of the states and of the buffers that the graph kept keeps. */
static inline uint64_t toy_digest(const struct graph *g, const struct plan *plan,
                                  const struct graph *kept, uint64_t noise)
{
    struct toy t;
    uint64_t h = 0;
    if (!toy_init(&t, g, plan, noise)) abort();
    for (uint32_t b = 0; b < g->buffers.n; b++)
        if (g->buffers.items[b].writer == (uint32_t)BUFFER_INPUT)
            toy_fill(t.at[b], plan->bytes[b], b + 1);
    for (size_t n = 0; n < g->nodes.n; n++) toy_step(&t, &g->nodes.items[n]);
    for (uint32_t b = 0; b < kept->buffers.n; b++)
        if (kept->buffers.items[b].lifetime == LIFE_PERSISTENT)
            h = toy_hash(h, t.at[b], plan->bytes[b]);
    for (size_t s = 0; s < kept->states.n; s++) h = toy_mix(h, t.states[s]);
    toy_release(&t);
    return h;
}

#endif
