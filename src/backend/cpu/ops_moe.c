/* Ops of the MoE block around its experts: routers, picks, sums. */
#include <string.h>

#include "backend/cpu/cpu_internal.h"
#include "base/bits.h"
#include "store/mapped.h"
#include "store/prefetch.h"

/* The caller's choice instead of the router's, with equal weights. */
static void route_by_hook(const struct task *t, uint32_t layer, uint32_t n, uint32_t k,
                          int32_t *ids, float *weights)
{
    const struct cpu_routing *routing = &t->be->options.routing;
    for (uint32_t r = 0; r < n; r++)
        routing->route(routing->user, layer, t->be->tokens + r, k, ids + (size_t)r * k);
    for (size_t i = 0; i < (size_t)n * k; i++) weights[i] = 1.0f / (float)k;
}

/* Hooks count the layers that have routed experts. */
static uint32_t expert_layer(const struct task *t, const struct node *node)
{
    const struct expert_bank *bank = t->be->next_bank[node - t->be->graph->nodes.items];
    return bank ? bank->index : node->layer;
}

/* Whether a hook chooses; thread 0 asks it. */
static bool is_hooked(const struct task *t, const struct node *node, uint32_t n, uint32_t k,
                      int32_t *ids, float *weights)
{
    bool hooked = t->be->options.routing.route != NULL;
    if (hooked && t->thread == 0) route_by_hook(t, expert_layer(t, node), n, k, ids, weights);
    return hooked;
}

void cpu_router(const struct task *t, const struct node *node)
{
    const struct op_router *op = &node->u.router;
    int32_t *ids = BUF_I32(t, op->ids);
    float *weights = BUF(t, op->weights);
    size_t n_experts = WIDTH(t, op->logits);
    uint32_t n = N_ROWS(t, op->logits), begin, end;
    if (is_hooked(t, node, n, op->k, ids, weights)) return;
    share(t, n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++)
        t->k->softmax_top_k(BUF(t, op->logits) + r * n_experts, (uint32_t)n_experts, op->k,
                            op->normalize, ids + r * op->k, weights + r * op->k, scratch_of(t));
}

void cpu_sigmoid_router(const struct task *t, const struct node *node)
{
    const struct op_sigmoid_router *op = &node->u.sigmoid_router;
    int32_t *ids = BUF_I32(t, op->ids);
    float *weights = BUF(t, op->weights);
    size_t n_experts = WIDTH(t, op->logits);
    uint32_t n = N_ROWS(t, op->logits), begin, end;
    if (is_hooked(t, node, n, op->k, ids, weights)) return;
    struct sigmoid_choice how = {WT(t, op->correction)->values,
                                 op->k,
                                 op->n_groups,
                                 op->top_groups,
                                 op->normalize,
                                 op->scale};
    share(t, n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++)
        t->k->sigmoid_top_k(BUF(t, op->logits) + r * n_experts, (uint32_t)n_experts, &how,
                            ids + r * op->k, weights + r * op->k, scratch_of(t));
}

/* The experts with picks, ascending. */
static void list_active(struct cpu_backend *be, const int32_t *offsets, uint32_t n_experts)
{
    struct experts_round *round = &be->round;
    round->n_active = 0;
    for (uint32_t e = 0; e < n_experts; e++)
        if (offsets[e] != offsets[e + 1]) round->active[round->n_active++] = e;
    be->expert_uses += round->n_active;
}

/* A prompt that needs nearly all experts of a layer will of the next. */
static const struct expert_bank *bank_to_read_on(const struct cpu_backend *be,
                                                 const struct expert_bank *bank)
{
    bool nearly_all = (uint64_t)be->round.n_active * 8 >= (uint64_t)bank->n_experts * 7;
    bool last = bank->index + 1 >= be->n_banks;
    return batch_is_prompt(be->batch) && nearly_all && !last ? be->banks[bank->index + 1] : NULL;
}

/*
 * Reads of missing experts start as soon as the picks are known, so that the shared expert is
 * computed meanwhile.
 */
static void request_experts(struct cpu_backend *be, const struct node *node)
{
    const struct expert_bank *bank = be->next_bank[node - be->graph->nodes.items];
    struct expert_store *store = be->options.store;
    if (!store && bank && be->options.will_need)
        mapped_will_need(bank, be->round.active, be->round.n_active);
    if (!store || !bank) return;
    be->round.next = bank_to_read_on(be, bank);
    be->status = store_begin(store, bank, be->round.active, be->round.n_active,
                             batch_is_prompt(be->batch) ? USE_PREFILL : USE_DECODE, &be->error);
    if (be->status == SLUICE_OK && be->prefetch == PREFETCH_LAST) cpu_guess_last(be, bank);
}

/* Few picks of one token; a prompt needs nearly all experts. */
static void foresee_picks(const struct task *t, const struct node *node, const int32_t *ids,
                          uint32_t n)
{
    const struct expert_bank *bank = t->be->next_bank[node - t->be->graph->nodes.items];
    if (t->be->one && bank && t->be->options.store)
        store_foresee(t->be->options.store, bank, ids, n);
}

/* Counting sort: count, prefix sum, place. Picks of an expert stay in token order. */
void cpu_group_picks(const struct task *t, const struct node *node)
{
    if (t->thread != 0) return;
    const struct op_group_picks *op = &node->u.group_picks;
    const int32_t *ids = BUF_I32(t, op->ids);
    int32_t *offsets = BUF_I32(t, op->offsets);
    int32_t *rows = BUF_I32(t, op->rows);
    int32_t *places = BUF_I32(t, op->places);
    uint32_t k = WIDTH(t, op->ids), n = N_ROWS(t, op->ids) * k;
    const struct cpu_routing *routing = &t->be->options.routing;
    foresee_picks(t, node, ids, n);
    if (routing->routed)
        routing->routed(routing->user, expert_layer(t, node), N_ROWS(t, op->ids), k, ids);
    memset(offsets, 0, (op->n_experts + 1) * sizeof *offsets);
    for (uint32_t i = 0; i < n; i++) offsets[ids[i] + 1]++;
    for (uint32_t e = 0; e < op->n_experts; e++) offsets[e + 1] += offsets[e];
    /* offsets[e] walks through e's places, then all move up by one. */
    for (uint32_t i = 0; i < n; i++) {
        int32_t place = offsets[ids[i]]++;
        places[i] = place;
        rows[place] = (int32_t)(i / k);
    }
    memmove(offsets + 1, offsets, op->n_experts * sizeof *offsets);
    offsets[0] = 0;
    list_active(t->be, offsets, op->n_experts);
    cpu_remember_picks(t, node);
    request_experts(t->be, node);
}

/* Slots of a token ascend in expert id, so the sum does. */
void cpu_expert_sum(const struct task *t, const struct node *node)
{
    const struct op_expert_sum *op = &node->u.expert_sum;
    const float *x = BUF(t, op->x);
    size_t width = WIDTH(t, op->y);
    uint32_t k = WIDTH(t, op->places), begin, end, first, last;
    share_columns(t, sharing_of(t, node), N_ROWS(t, op->y), (uint32_t)width, &begin, &end, &first,
                  &last);
    const float **rows = scratch_of(t);
    for (size_t r = begin; r < end; r++) {
        const int32_t *places = BUF_I32(t, op->places) + r * k;
        for (uint32_t j = 0; j < k; j++) rows[j] = x + (size_t)places[j] * width + first;
        t->k->weighted_sum(rows, BUF(t, op->weights) + r * k, k, last - first,
                           BUF(t, op->y) + r * width + first);
    }
}

void cpu_swiglu(const struct task *t, const struct node *node)
{
    const struct op_swiglu *op = &node->u.swiglu;
    uint32_t width = WIDTH(t, op->y), begin, end, first, last;
    share_columns(t, sharing_of(t, node), N_ROWS(t, op->y), width, &begin, &end, &first, &last);
    for (size_t r = begin; r < end; r++) {
        size_t at = r * width + first;
        t->k->swiglu(BUF(t, op->gate) + at, BUF(t, op->up) + at, last - first, BUF(t, op->y) + at);
    }
}

void cpu_combine(const struct task *t, const struct node *node)
{
    const struct op_combine *op = &node->u.combine;
    const uint32_t width = WIDTH(t, op->y);
    uint32_t begin, end, first, last;
    share_columns(t, sharing_of(t, node), N_ROWS(t, op->y), width, &begin, &end, &first, &last);
    for (size_t r = begin; r < end; r++) {
        size_t at = r * width + first;
        t->k->combine(BUF(t, op->residual) + at, BUF(t, op->moe) + at, BUF(t, op->shared) + at,
                      BUF(t, op->gate)[r], last - first, BUF(t, op->y) + at);
    }
}

void cpu_combine_ungated(const struct task *t, const struct node *node)
{
    const struct op_combine_ungated *op = &node->u.combine_ungated;
    const uint32_t width = WIDTH(t, op->y);
    uint32_t begin, end, first, last;
    share_columns(t, sharing_of(t, node), N_ROWS(t, op->y), width, &begin, &end, &first, &last);
    for (size_t r = begin; r < end; r++) {
        size_t at = r * width + first;
        float *y = BUF(t, op->y) + at;
        t->k->add(BUF(t, op->moe) + at, BUF(t, op->shared) + at, last - first, y);
        t->k->add(BUF(t, op->residual) + at, y, last - first, y);
    }
}
