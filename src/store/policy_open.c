#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "store/policy.h"
#include "store/policy_auto.h"
#include "store/policy_log.h"

static const struct {
    const char *name, *text;
    const struct policy_ops *ops;
} table[] = {
#define P(id, name, text) {#name, text, &policy_##name##_ops},
#include "store/policy.def"
#undef P
};

const char *policy_name(enum policy_kind kind)
{
    return table[kind].name;
}

const char *policy_text(enum policy_kind kind)
{
    return table[kind].text;
}

const struct policy_ops *policy_ops_of(enum policy_kind kind)
{
    return table[kind].ops;
}

bool policy_from_name(const char *name, enum policy_kind *kind)
{
    for (unsigned i = 0; i < POLICY_COUNT; i++)
        if (strcmp(name, table[i].name) == 0) {
            *kind = (enum policy_kind)i;
            return true;
        }
    return false;
}

static enum sluice_status check_shape(const struct policy_shape *shape, struct sluice_error *err)
{
    if (shape->n_layers == 0 || shape->n_keys > POLICY_MAX_KEYS)
        return err_set(err, SLUICE_E_ARGUMENT,
                       "replacement policy: %u experts in %u layers cannot be kept track of",
                       shape->n_keys, shape->n_layers);
    for (uint32_t i = 0; i < shape->n_keys; i++)
        if (shape->layer_of[i] >= shape->n_layers)
            return err_set(err, SLUICE_E_ARGUMENT,
                           "replacement policy: expert %u is in layer %u of %u", i,
                           shape->layer_of[i], shape->n_layers);
    return SLUICE_OK;
}

enum sluice_status policy_open(struct policy **p, enum policy_kind kind,
                               const struct policy_shape *shape, uint32_t capacity,
                               struct sluice_error *err)
{
    return policy_open_with(p, table[kind].ops, shape, capacity, err);
}

enum sluice_status policy_open_with(struct policy **p, const struct policy_ops *ops,
                                    const struct policy_shape *shape, uint32_t capacity,
                                    struct sluice_error *err)
{
    *p = NULL;
    TRY(check_shape(shape, err));
    struct policy *new = calloc(1, ops->bytes);
    if (!new) return err_nomem(err, "replacement policy", ops->bytes);
    new->ops = ops;
    new->shape = *shape;
    new->capacity = capacity;
    new->present = arena_alloc(&new->arena, shape->n_keys, sizeof *new->present);
    if (!new->present || !ops->init(new)) {
        policy_close(&new);
        return err_nomem(err, "replacement policy", (size_t)shape->n_keys * 64);
    }
    *p = new;
    return SLUICE_OK;
}

void policy_close(struct policy **p)
{
    if (!*p) return;
    if ((*p)->ops->release) (*p)->ops->release(*p);
    arena_release(&(*p)->arena);
    free(*p);
    *p = NULL;
}

size_t policy_bytes(const struct policy *p)
{
    return p->ops->bytes + p->arena.bytes + policy_auto_bytes(p);
}

enum sluice_status policy_put_off(struct policy *p, struct sluice_error *err)
{
    assert(p->n == 0);
    p->log = policy_log_new(p);
    return p->log ? SLUICE_OK : err_nomem(err, "replacement policy", p->shape.n_keys);
}

static bool is_put_off(const struct policy *p)
{
    return p->log && p->capacity >= p->shape.n_keys;
}

static void tell(struct policy *p)
{
    if (p->log) policy_log_tell(p);
}

void policy_step(struct policy *p, uint32_t layer, const uint32_t *keys, uint32_t n,
                 enum policy_use use)
{
    assert(layer < p->shape.n_layers);
    if (is_put_off(p))
        policy_log_step(p->log, layer, keys, n, use);
    else if (p->ops->step)
        p->ops->step(p, layer, keys, n, use);
}

/* Whether what a step does with a key need not be told now. */
static bool is_written(const struct policy *p, enum policy_use use)
{
    return is_put_off(p) && (use == USE_GUESS || p->log->in_step);
}

void policy_hit(struct policy *p, uint32_t key, enum policy_use use)
{
    assert(p->present[key]);
    if (is_written(p, use)) return;
    tell(p);
    p->ops->hit(p, key, use);
}

static void mark_present(struct policy *p, uint32_t key)
{
    p->present[key] = true;
    p->n++;
}

void policy_insert(struct policy *p, uint32_t key, enum policy_use use)
{
    assert(!p->present[key]);
    if (is_written(p, use)) {
        if (use == USE_GUESS) policy_log_step(p->log, p->shape.layer_of[key], &key, 1, use);
        mark_present(p, key);
        return;
    }
    tell(p);
    mark_present(p, key);
    p->ops->insert(p, key, use);
    if (p->log) p->log->told[key] = true;
}

uint32_t policy_victim(struct policy *p, policy_evictable_fn *evictable, const void *user)
{
    tell(p);
    return p->ops->victim(p, evictable, user);
}

void policy_remove(struct policy *p, uint32_t key)
{
    assert(p->present[key]);
    tell(p);
    p->ops->remove(p, key);
    if (p->log) p->log->told[key] = false;
    p->present[key] = false;
    p->n--;
}

void policy_set_capacity(struct policy *p, uint32_t capacity)
{
    tell(p);
    p->capacity = capacity;
    if (p->ops->resized) p->ops->resized(p);
}
