/* Storage of the plan's buffers, and the way from typed ids to pointers. */
#include <stdlib.h>

#include "backend/cpu/cpu_internal.h"
#include "base/bits.h"
#include "base/mem.h"

enum { INDEX_MASK = (1 << 20) - 1 };

float *cpu_resolve(const struct cpu_backend *be, uint32_t id)
{
    return be->buffers[(id & INDEX_MASK) - 1];
}

const struct buffer *cpu_buffer_decl(const struct cpu_backend *be, uint32_t id)
{
    return &be->graph->buffers.items[(id & INDEX_MASK) - 1];
}

uint32_t cpu_weight_index(uint32_t id)
{
    return (id & INDEX_MASK) - 1;
}

uint32_t cpu_width(const struct cpu_backend *be, uint32_t id)
{
    return be->graph->buffers.items[(id & INDEX_MASK) - 1].width;
}

uint32_t cpu_rows(const struct cpu_backend *be, uint32_t id)
{
    enum rows rows = role_rows(be->graph->buffers.items[(id & INDEX_MASK) - 1].role);
    struct plan_dims dims = {be->batch->n_tokens, be->batch->n_outputs};
    return (uint32_t)plan_rows(rows, dims, be->graph->n_picks);
}

const struct weight_data *cpu_weight(const struct cpu_backend *be, uint32_t id)
{
    return &be->weights[(id & INDEX_MASK) - 1];
}

uint32_t cpu_state_index(const struct cpu_backend *be, uint32_t id)
{
    return be->state_index[(id & INDEX_MASK) - 1];
}

/* Where a bank's layer keeps its flags. */
uint8_t cpu_bank_int8(const struct cpu_backend *be, uint32_t id)
{
    return be->bank_int8[(id & INDEX_MASK) - 1];
}

void *cpu_buffer(struct cpu_backend *be, uint32_t id)
{
    uint32_t index;
    return graph_buffer_index(be->graph, id, &index) ? be->buffers[index] : NULL;
}

bool cpu_bind_borrowed(struct cpu_backend *be, uint32_t id, const void *data)
{
    uint32_t index;
    if (!graph_buffer_index(be->graph, id, &index)) return false;
    if (be->graph->buffers.items[index].lifetime != LIFE_BORROWED) return false;
    be->buffers[index] = (void *)(uintptr_t)data;
    return true;
}

enum sluice_status cpu_alloc_buffers(struct cpu_backend *be, struct sluice_error *err)
{
    const struct plan *plan = &be->plan;
    be->slots = calloc(plan->n_slots + 1, sizeof *be->slots);
    be->buffers = calloc(plan->n_buffers + 1, sizeof *be->buffers);
    if (!be->slots || !be->buffers) return err_nomem(err, "buffers", plan->n_buffers);
    for (uint32_t s = 0; s < plan->n_slots; s++)
        if (!mem_reserve(plan->slot_bytes[s], &be->slots[s]))
            return err_nomem(err, "activations of a batch", plan->total_bytes);
    be->total_bytes += plan->total_bytes;
    for (uint32_t b = 0; b < plan->n_buffers; b++)
        if (plan->slot[b] != (uint32_t)PLAN_BORROWED) be->buffers[b] = be->slots[plan->slot[b]];
    return SLUICE_OK;
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
    for (uint32_t s = 0; be->slots && s < be->plan.n_slots; s++)
        mem_unreserve(be->slots[s], be->plan.slot_bytes[s]);
    free(be->slots);
    free(be->buffers);
    for (uint32_t i = 0; i < N_DENSE_ACTS; i++) free_act8(&be->act_dense[i]);
    free_act8(&be->act_expert_in);
    free_act8(&be->act_expert_mid);
}
