/* The heat profile: taken in when an engine opens, given out with what was used since. */
#include <stdlib.h>

#include "base/bits.h"
#include "engine/internal.h"

static enum sluice_status start_profile(const struct sluice_engine *e, struct heat *heat,
                                        struct sluice_error *err)
{
    uint8_t print[HEAT_FINGERPRINT_BYTES];
    model_fingerprint(&e->checkpoint, print);
    return heat_init(heat, e->model.n_banks, e->model.n_experts, print, err);
}

enum sluice_status heat_open(struct sluice_engine *e, struct sluice_error *err)
{
    TRY(start_profile(e, &e->heat, err));
    if (!e->options.heat) return SLUICE_OK;
    if (e->options.io == SLUICE_IO_MMAP || e->model.n_banks == 0)
        return err_set(err, SLUICE_E_ARGUMENT,
                       "mapped experts cannot be warmed by a heat profile: the page cache decides");
    return heat_parse(&e->heat, span_of(e->options.heat, e->options.heat_len), err);
}

struct warmth {
    struct expert_place place;
    uint16_t share;
};

/* The most used first, and in order of place among equals. */
static int compare(const void *a, const void *b)
{
    const struct warmth *x = a, *y = b;
    if (x->share != y->share) return x->share > y->share ? -1 : 1;
    if (x->place.bank != y->place.bank) return x->place.bank < y->place.bank ? -1 : 1;
    return x->place.expert < y->place.expert ? -1 : 1;
}

static size_t list_warm(const struct sluice_engine *e, struct warmth *list)
{
    const struct heat *heat = &e->heat;
    size_t n = 0;
    for (uint32_t b = 0; b < heat->n_layers; b++)
        for (uint32_t x = 0; x < e->model.banks[b]->n_experts; x++) {
            uint16_t share = heat->shares[(size_t)b * heat->n_experts + x];
            if (share) list[n++] = (struct warmth){{b, x}, share};
        }
    qsort(list, n, sizeof *list, compare);
    return n;
}

enum sluice_status heat_warm(struct sluice_engine *e, struct sluice_error *err)
{
    size_t most = (size_t)e->heat.n_layers * e->heat.n_experts;
    if (!e->options.heat) return SLUICE_OK;
    struct warmth *list = calloc(most + 1, sizeof *list);
    struct expert_place *places = calloc(most + 1, sizeof *places);
    enum sluice_status status = list && places ? SLUICE_OK : err_nomem(err, "heat profile", most);
    if (status == SLUICE_OK) {
        size_t n = list_warm(e, list);
        for (size_t i = 0; i < n; i++) places[i] = list[i].place;
        status = store_warm(e->store, places, n, memory_goes_on, e, err);
    }
    free(list);
    free(places);
    return status;
}

/* The profile that was taken in, and the uses since. */
static enum sluice_status make_profile(struct sluice_engine *e, struct heat *heat,
                                       struct sluice_error *err)
{
    uint32_t *uses = calloc((size_t)heat->n_experts + 1, sizeof *uses);
    uint64_t most_steps = 0;
    if (!uses) return err_nomem(err, "heat profile", heat->n_experts);
    heat->n_tokens = e->heat.n_tokens;
    memcpy(heat->shares, e->heat.shares,
           (size_t)heat->n_layers * heat->n_experts * sizeof *heat->shares);
    for (uint32_t b = 0; b < heat->n_layers; b++) {
        uint64_t n_steps;
        const uint32_t *since = store_uses(e->store, b, &n_steps);
        memset(uses, 0, heat->n_experts * sizeof *uses);
        memcpy(uses, since, e->model.banks[b]->n_experts * sizeof *uses);
        heat_add(heat, b, uses, n_steps);
        if (n_steps > most_steps) most_steps = n_steps;
    }
    heat_seen(heat, most_steps);
    free(uses);
    return SLUICE_OK;
}

static enum sluice_status write_profile(const struct heat *heat, sluice_write_fn *write, void *user,
                                        struct sluice_error *err)
{
    struct sluice_error inner = {0};
    uint8_t *bytes = malloc(heat_bytes(heat));
    if (!bytes) return err_nomem(err, "heat profile", heat_bytes(heat));
    heat_format(heat, bytes);
    enum sluice_status status = write(user, bytes, heat_bytes(heat), &inner);
    free(bytes);
    return status == SLUICE_OK ? SLUICE_OK : err_set(err, status, "%s", inner.message);
}

enum sluice_status sluice_engine_write_heat(const sluice_engine *engine, sluice_write_fn *write,
                                            void *user, struct sluice_error *err)
{
    /* The lock is state of the engine, not part of what const promises. */
    struct sluice_engine *e = (struct sluice_engine *)(uintptr_t)engine;
    struct heat heat;
    if (!e->store) return err_set(err, SLUICE_E_ARGUMENT, "mapped experts have no heat profile");
    TRY(start_profile(e, &heat, err));
    pthread_mutex_lock(&e->run_lock);
    enum sluice_status status = make_profile(e, &heat, err);
    pthread_mutex_unlock(&e->run_lock);
    if (status == SLUICE_OK) status = write_profile(&heat, write, user, err);
    heat_release(&heat);
    return status;
}
