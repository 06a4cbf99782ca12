/* Storage of the plan's buffers. */
#include <stdlib.h>

#include "backend/cpu/cpu_internal.h"
#include "base/bits.h"
#include "base/mem.h"

const struct buffer *cpu_buffer_decl(const struct cpu_backend *be, uint32_t id)
{
    return &be->graph->buffers.items[cpu_index(id)];
}

uint32_t cpu_weight_index(uint32_t id)
{
    return cpu_index(id);
}

uint32_t cpu_state_index(const struct cpu_backend *be, uint32_t id)
{
    return be->state_index[cpu_index(id)];
}

/* Where a bank's layer keeps its flags. */
uint8_t cpu_bank_int8(const struct cpu_backend *be, uint32_t id)
{
    return be->bank_int8[cpu_index(id)];
}

bool cpu_projection(const struct cpu_backend *be, const struct node *node, struct projection *out)
{
    if (node->op == OP_KIND_matmul)
        *out =
            (struct projection){WEIGHT_INDEX(node->u.matmul.w), BUFFER_DECL(be, node->u.matmul.x),
                                BUFFER_DECL(be, node->u.matmul.y)};
    else if (node->op == OP_KIND_affine)
        *out =
            (struct projection){WEIGHT_INDEX(node->u.affine.w), BUFFER_DECL(be, node->u.affine.x),
                                BUFFER_DECL(be, node->u.affine.y)};
    else
        return false;
    return true;
}

void *cpu_buffer(struct cpu_backend *be, uint32_t id)
{
    uint32_t index;
    return graph_buffer_index(be->graph, id, &index) ? be->places[0][index] : NULL;
}

bool cpu_bind_borrowed(struct cpu_backend *be, uint32_t id, const void *data)
{
    uint32_t index;
    if (!graph_buffer_index(be->graph, id, &index)) return false;
    if (be->graph->buffers.items[index].lifetime != LIFE_BORROWED) return false;
    for (int i = 0; i < 2; i++) be->places[i][index] = (void *)(uintptr_t)data;
    return true;
}

/* Whether a buffer has storage of its own in the plan of one token. */
static bool is_apart(const struct cpu_backend *be, uint32_t b)
{
    return be->options.share_buffers && be->graph->buffers.items[b].lifetime == LIFE_TRANSIENT &&
           be->plan[1].slot[b] != (uint32_t)PLAN_BORROWED;
}

/*
 * Transient buffers of one token lie close together; others are where they are for many, since the
 * caller looks for them there.
 */
static enum sluice_status alloc_one(struct cpu_backend *be, struct sluice_error *err)
{
    const struct plan *plan = &be->plan[1];
    size_t *at = calloc(plan->n_slots + 1, sizeof *at);
    if (!at) return err_nomem(err, "buffers", plan->n_slots);
    for (uint32_t b = 0; b < plan->n_buffers; b++)
        if (is_apart(be, b)) at[plan->slot[b]] = plan->slot_bytes[plan->slot[b]];
    for (uint32_t s = 0; s < plan->n_slots; s++) {
        size_t bytes = at[s];
        at[s] = be->one_bytes;
        be->one_bytes += bytes;
    }
    bool ok = mem_reserve(max_size(be->one_bytes, 1), &be->one_storage);
    for (uint32_t b = 0; b < plan->n_buffers && ok; b++)
        be->places[1][b] =
            is_apart(be, b) ? (uint8_t *)be->one_storage + at[plan->slot[b]] : be->places[0][b];
    free(at);
    be->total_bytes += be->one_bytes;
    return ok ? SLUICE_OK : err_nomem(err, "activations of a token", be->one_bytes);
}

enum sluice_status cpu_alloc_buffers(struct cpu_backend *be, struct sluice_error *err)
{
    const struct plan *plan = &be->plan[0];
    be->slots = calloc(plan->n_slots + 1, sizeof *be->slots);
    for (int i = 0; i < 2; i++) be->places[i] = calloc(plan->n_buffers + 1, sizeof *be->places[i]);
    be->rows_of = calloc(plan->n_buffers + 1, sizeof *be->rows_of);
    if (!be->slots || !be->places[0] || !be->places[1] || !be->rows_of)
        return err_nomem(err, "buffers", plan->n_buffers);
    for (uint32_t b = 0; b < plan->n_buffers; b++)
        be->rows_of[b] = (uint8_t)role_rows(be->graph->buffers.items[b].role);
    for (uint32_t s = 0; s < plan->n_slots; s++)
        if (!mem_reserve(plan->slot_bytes[s], &be->slots[s]))
            return err_nomem(err, "activations of a batch", plan->total_bytes);
    be->total_bytes += plan->total_bytes;
    for (uint32_t b = 0; b < plan->n_buffers; b++)
        if (plan->slot[b] != (uint32_t)PLAN_BORROWED) be->places[0][b] = be->slots[plan->slot[b]];
    be->buffers = be->places[0];
    return alloc_one(be, err);
}

enum sluice_status cpu_alloc_act8(struct act8_storage *store, uint64_t rows, uint32_t cols,
                                  size_t *total, struct sluice_error *err)
{
    struct act8 *a = &store->act;
    *a = (struct act8){.cols = cols};
    uint64_t n;
    if (!mul_u64(rows, cols, &n) || n > SIZE_MAX / 8)
        return err_set(err, SLUICE_E_NOMEM, "int8 activations: the batch is too large");
    size_t groups = (size_t)(n / ACT8_GROUP);
    size_t scales = align_up(groups * sizeof(float), MEM_ALIGN);
    size_t bytes = align_up((size_t)n, MEM_ALIGN) + 2 * scales;
    void *p;
    if (!mem_reserve(bytes, &p)) return err_nomem(err, "int8 activations", bytes);
    a->q = p;
    a->scale = (float *)(void *)((uint8_t *)p + bytes - 2 * scales);
    a->sum = (float *)(void *)((uint8_t *)p + bytes - scales);
    store->bytes = bytes;
    *total += bytes;
    return SLUICE_OK;
}

static void free_act8(struct act8_storage *store)
{
    mem_unreserve(store->act.q, store->bytes);
}

void cpu_free_buffers(struct cpu_backend *be)
{
    for (uint32_t s = 0; be->slots && s < be->plan[0].n_slots; s++)
        mem_unreserve(be->slots[s], be->plan[0].slot_bytes[s]);
    free(be->slots);
    for (int i = 0; i < 2; i++) free(be->places[i]);
    free(be->rows_of);
    mem_unreserve(be->one_storage, max_size(be->one_bytes, 1));
    for (uint32_t i = 0; i < N_DENSE_ACTS; i++) free_act8(&be->act_dense[i]);
    free_act8(&be->act_expert_in);
    free_act8(&be->act_expert_mid);
}
