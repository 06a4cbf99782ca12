#include "ir/plan.h"

#include <stdlib.h>

#include "base/bits.h"

enum { SLOT_ALIGN = 64 };

uint64_t plan_rows(enum rows rows, struct plan_dims dims, uint32_t n_picks)
{
    switch (rows) {
    case ROWS_TOKENS: return dims.tokens;
    case ROWS_OUTPUTS: return dims.outputs;
    case ROWS_PICKS: return (uint64_t)dims.tokens * n_picks;
    case ROWS_FIXED: return 1;
    }
    return 0;
}

static bool buffer_bytes(const struct graph *g, const struct buffer *b, struct plan_dims dims,
                         size_t *out)
{
    uint64_t rows = plan_rows(role_rows(b->role), dims, g->n_picks);
    return rows <= SIZE_MAX && mul_size((size_t)rows, b->width, out) && mul_size(*out, 4, out) &&
           *out <= SIZE_MAX - SLOT_ALIGN;
}

static void find_lifetimes(struct plan *plan, const struct graph *g)
{
    for (uint32_t b = 0; b < plan->n_buffers; b++) {
        uint32_t writer = g->buffers.items[b].writer;
        plan->first[b] = plan->last[b] = writer < g->nodes.n ? writer : 0;
    }
    for (uint32_t n = 0; n < g->nodes.n; n++) {
        const struct node *node = &g->nodes.items[n];
        const struct op_info *info = op_info(node->op);
        for (uint32_t i = 0; i < info->n_operands; i++) {
            const struct operand *o = &info->operands[i];
            uint32_t b;
            if (o->kind == OPERAND_BUFFER && graph_buffer_index(g, operand_id(node, o), &b))
                plan->last[b] = max_u32(plan->last[b], n);
        }
    }
}

/* A free slot of at least bytes with the least waste, else the largest free one, else none. */
static uint32_t best_slot(const struct plan *plan, const uint32_t *busy_until, uint32_t start,
                          size_t bytes)
{
    uint32_t best = UINT32_MAX;
    for (uint32_t s = 0; s < plan->n_slots; s++) {
        if (busy_until[s] >= start) continue;
        if (best == UINT32_MAX) {
            best = s;
            continue;
        }
        size_t have = plan->slot_bytes[s], old = plan->slot_bytes[best];
        bool better = old < bytes ? have > old : have >= bytes && have < old;
        if (better) best = s;
    }
    return best;
}

static uint32_t new_slot(struct plan *plan, uint32_t *busy_until)
{
    busy_until[plan->n_slots] = 0;
    plan->slot_bytes[plan->n_slots] = 0;
    return plan->n_slots++;
}

/* Values are written once and buffers are made in order of their writers, so that buffer order is
 * interval order except for inputs, which keep slots of their own anyway. */
static void assign_slots(struct plan *plan, const struct graph *g, uint32_t *busy_until, bool share,
                         const bool *unused, uint32_t rest)
{
    for (uint32_t b = 0; b < plan->n_buffers; b++) {
        const struct buffer *buffer = &g->buffers.items[b];
        if (buffer->lifetime == LIFE_BORROWED || (unused && unused[b])) {
            plan->slot[b] = (uint32_t)PLAN_BORROWED;
            continue;
        }
        bool alone = !share || buffer->lifetime == LIFE_PERSISTENT;
        uint32_t s =
            alone ? UINT32_MAX : best_slot(plan, busy_until, plan->first[b], plan->bytes[b]);
        if (s == UINT32_MAX) s = new_slot(plan, busy_until);
        plan->slot[b] = s;
        plan->slot_bytes[s] = max_size(plan->slot_bytes[s], align_up(plan->bytes[b], SLOT_ALIGN));
        busy_until[s] = alone ? UINT32_MAX : plan->last[b] + rest;
    }
}

static enum sluice_status add_up(struct plan *plan, struct sluice_error *err)
{
    for (uint32_t s = 0; s < plan->n_slots; s++)
        if (!add_size(plan->total_bytes, plan->slot_bytes[s], &plan->total_bytes))
            return err_set(err, SLUICE_E_NOMEM, "memory plan: the batch is too large");
    return SLUICE_OK;
}

enum sluice_status plan_init(struct plan *plan, const struct graph *g, struct plan_dims dims,
                             bool share, struct sluice_error *err)
{
    return plan_init_without(plan, g, dims, share, NULL, 0, err);
}

enum sluice_status plan_init_without(struct plan *plan, const struct graph *g,
                                     struct plan_dims dims, bool share, const bool *unused,
                                     uint32_t rest, struct sluice_error *err)
{
    size_t n = g->buffers.n;
    *plan = (struct plan){.n_buffers = (uint32_t)n};
    uint32_t *busy_until = calloc(n + 1, sizeof *busy_until);
    plan->slot = calloc(n + 1, sizeof *plan->slot);
    plan->bytes = calloc(n + 1, sizeof *plan->bytes);
    plan->first = calloc(n + 1, sizeof *plan->first);
    plan->last = calloc(n + 1, sizeof *plan->last);
    plan->slot_bytes = calloc(n + 1, sizeof *plan->slot_bytes);
    enum sluice_status status = SLUICE_OK;
    if (!busy_until || !plan->slot || !plan->bytes || !plan->first || !plan->last ||
        !plan->slot_bytes)
        status = err_nomem(err, "memory plan", n);
    for (uint32_t b = 0; b < n && status == SLUICE_OK; b++)
        if (!buffer_bytes(g, &g->buffers.items[b], dims, &plan->bytes[b]))
            status = err_set(err, SLUICE_E_NOMEM, "memory plan: the batch is too large");
    if (status == SLUICE_OK) {
        find_lifetimes(plan, g);
        assign_slots(plan, g, busy_until, share, unused, rest);
        status = add_up(plan, err);
    }
    free(busy_until);
    if (status != SLUICE_OK) plan_release(plan);
    return status;
}

void plan_release(struct plan *plan)
{
    free(plan->slot);
    free(plan->bytes);
    free(plan->first);
    free(plan->last);
    free(plan->slot_bytes);
    *plan = (struct plan){0};
}
