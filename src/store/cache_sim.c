#include "store/cache_sim.h"

#include "store/key_heap.h"
#include "store/policy_auto.h"
#include "store/trace.h"

/* Knows of every key when it is needed next. */
struct optimum {
    struct policy base;
    struct key_heap heap;
    uint32_t *next; /* [n_keys]: step, NO_KEY: never; set before each hit and insertion */
};

static bool needed_later(const void *ranks, uint32_t a, uint32_t b)
{
    const uint32_t *next = ranks;
    return next[a] != next[b] ? next[a] > next[b] : a > b;
}

static bool optimum_init(struct policy *p)
{
    struct optimum *o = (struct optimum *)p;
    o->next = arena_alloc(&p->arena, p->shape.n_keys, sizeof *o->next);
    o->heap = (struct key_heap){
        .keys = arena_alloc(&p->arena, p->shape.n_keys, sizeof *o->heap.keys),
        .pos = arena_alloc(&p->arena, p->shape.n_keys, sizeof *o->heap.pos),
        .before = needed_later,
        .ranks = o->next,
    };
    return o->next && o->heap.keys && o->heap.pos;
}

static void optimum_hit(struct policy *p, uint32_t key, enum policy_use use)
{
    (void)use;
    heap_fix(&((struct optimum *)p)->heap, key);
}

static void optimum_insert(struct policy *p, uint32_t key, enum policy_use use)
{
    (void)use;
    heap_push(&((struct optimum *)p)->heap, key);
}

static void optimum_remove(struct policy *p, uint32_t key)
{
    heap_remove(&((struct optimum *)p)->heap, key);
}

static uint32_t optimum_victim(const struct policy *p, policy_evictable_fn *evictable,
                               const void *user)
{
    return heap_first(&((const struct optimum *)p)->heap, evictable, user);
}

static const struct policy_ops optimum_ops = {
    .bytes = sizeof(struct optimum),
    .init = optimum_init,
    .hit = optimum_hit,
    .insert = optimum_insert,
    .remove = optimum_remove,
    .victim = optimum_victim,
};

const char *cache_sim_name(unsigned kind)
{
    return kind == SIM_OPTIMUM ? "optimum" : policy_name((enum policy_kind)kind);
}

enum sluice_status cache_sim_init(struct cache_sim *sim, uint32_t n_layers, uint32_t n_experts,
                                  struct sluice_error *err)
{
    *sim = (struct cache_sim){.n_layers = n_layers, .n_experts = n_experts};
    uint64_t n_keys = (uint64_t)n_layers * n_experts;
    if (n_keys == 0 || n_keys > POLICY_MAX_KEYS)
        return err_set(err, SLUICE_E_ARGUMENT,
                       "cache simulation: %u layers of %u experts, where 1 to %d experts in all "
                       "are possible",
                       n_layers, n_experts, POLICY_MAX_KEYS);
    sim->layer_of = calloc(n_keys, sizeof *sim->layer_of);
    sim->last_use = calloc(n_keys, sizeof *sim->last_use);
    if (!sim->layer_of || !sim->last_use) {
        cache_sim_release(sim);
        return err_nomem(err, "cache simulation", 2 * n_keys * sizeof *sim->layer_of);
    }
    for (uint32_t i = 0; i < n_keys; i++) sim->layer_of[i] = i / n_experts;
    return SLUICE_OK;
}

void cache_sim_release(struct cache_sim *sim)
{
    array_release(&sim->steps);
    array_release(&sim->keys);
    array_release(&sim->next_use);
    free(sim->layer_of);
    free(sim->last_use);
    *sim = (struct cache_sim){0};
}

static enum sluice_status check_step(const struct cache_sim *sim, uint32_t layer,
                                     const uint32_t *experts, uint32_t n, struct sluice_error *err)
{
    if (layer >= sim->n_layers)
        return err_set(err, SLUICE_E_ARGUMENT, "cache simulation: layer %u of %u", layer,
                       sim->n_layers);
    for (uint32_t i = 0; i < n; i++)
        if (experts[i] >= sim->n_experts || (i && experts[i] <= experts[i - 1]))
            return err_set(err, SLUICE_E_ARGUMENT,
                           "cache simulation: layer %u: expert %u of %u is out of range or order",
                           layer, experts[i], sim->n_experts);
    if (sim->keys.n + n >= NO_KEY || sim->steps.n + 1 >= NO_KEY)
        return err_set(err, SLUICE_E_ARGUMENT, "cache simulation: over %u uses", NO_KEY - 1);
    return SLUICE_OK;
}

enum sluice_status cache_sim_add(struct cache_sim *sim, uint32_t layer, const uint32_t *experts,
                                 uint32_t n, bool prefill, struct sluice_error *err)
{
    TRY(check_step(sim, layer, experts, n, err));
    uint32_t index = (uint32_t)sim->steps.n;
    struct sim_step step = {.layer = layer, .n = n, .first = sim->keys.n, .prefill = prefill};
    for (uint32_t i = 0; i < n; i++) {
        uint32_t key = layer * sim->n_experts + experts[i];
        if (!array_push(&sim->keys, key) || !array_push(&sim->next_use, NO_KEY))
            return err_nomem(err, "cache simulation", sim->keys.n * 2 * sizeof key);
        if (sim->last_use[key]) sim->next_use.items[sim->last_use[key] - 1] = index;
        sim->last_use[key] = (uint32_t)sim->keys.n;
    }
    if (!array_push(&sim->steps, step))
        return err_nomem(err, "cache simulation", sim->steps.n * sizeof step);
    return SLUICE_OK;
}

enum sluice_status cache_sim_load(struct cache_sim *sim, struct span trace,
                                  struct sluice_error *err)
{
    *sim = (struct cache_sim){0};
    struct arena arena = {0};
    struct trace_reader reader;
    const struct trace_step *step = NULL;
    enum sluice_status status;
    TRY_GOTO(done, trace_open(&reader, trace, &arena, err));
    TRY_GOTO(done, cache_sim_init(sim, reader.header.n_layers, reader.header.n_experts, err));
    do {
        TRY_GOTO(done, trace_next(&reader, &step, err));
        if (step)
            TRY_GOTO(done,
                     cache_sim_add(sim, step->layer, step->experts, step->n, step->prefill, err));
    } while (step);
done:
    if (status != SLUICE_OK) cache_sim_release(sim);
    arena_release(&arena);
    return status;
}

static void replay_step(const struct cache_sim *sim, const struct sim_step *step, bool no_hints,
                        struct ghost *ghost, struct sim_result *result)
{
    if (step->n == 0) return;
    const uint32_t *keys = sim->keys.items + step->first;
    if (ghost->policy->ops == &optimum_ops) {
        struct optimum *o = (struct optimum *)ghost->policy;
        for (uint32_t i = 0; i < step->n; i++)
            o->next[keys[i]] = sim->next_use.items[step->first + i];
    }
    enum policy_use use = step->prefill && !no_hints ? USE_PREFILL : USE_DECODE;
    uint32_t hits = ghost_step(ghost, step->layer, keys, step->n, use);
    result->hits[step->prefill] += hits;
    result->misses[step->prefill] += step->n - hits;
}

enum sluice_status cache_sim_run(const struct cache_sim *sim, unsigned kind,
                                 const struct sim_options *options, struct sim_result *result,
                                 struct sluice_error *err)
{
    *result = (struct sim_result){0};
    if (options->capacity == 0)
        return err_set(err, SLUICE_E_ARGUMENT, "cache simulation: there are no slots");
    const struct policy_ops *ops =
        kind == SIM_OPTIMUM ? &optimum_ops : policy_ops_of((enum policy_kind)kind);
    const struct policy_shape shape = {.n_keys = sim->n_layers * sim->n_experts,
                                       .n_layers = sim->n_layers,
                                       .layer_of = sim->layer_of,
                                       .entry_bytes = options->entry_bytes};
    struct ghost ghost;
    TRY(ghost_open(&ghost, ops, &shape, options->capacity, err));
    for (size_t i = 0; i < sim->steps.n; i++) {
        const struct sim_step *step = &sim->steps.items[i];
        if (!options->layers || options->layers[step->layer])
            replay_step(sim, step, options->no_hints, &ghost, result);
    }
    result->missed_bytes = ghost.missed_bytes;
    result->switches = policy_switches(ghost.policy);
    ghost_release(&ghost);
    return SLUICE_OK;
}

double sim_hit_rate(const struct sim_result *result)
{
    uint64_t hits = result->hits[0] + result->hits[1];
    uint64_t uses = hits + result->misses[0] + result->misses[1];
    return uses ? (double)hits / (double)uses : 0;
}
