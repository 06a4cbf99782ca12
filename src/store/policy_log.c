#include "store/policy_log.h"

#include <string.h>

/*
 * Of a half; a use takes little more than one. So a full log knows at least 8 uses a key, two
 * half-lives of LFU.
 */
enum { WORDS_PER_KEY = 12, HEADER = 2, USES = 4 };

struct policy_log *policy_log_new(struct policy *p)
{
    struct arena *arena = &p->arena;
    struct policy_log *log = arena_alloc(arena, 1, sizeof *log);
    if (!log) return NULL;
    log->room = WORDS_PER_KEY * p->shape.n_keys;
    log->halves[0] = arena_alloc(arena, log->room, sizeof *log->halves[0]);
    log->halves[1] = arena_alloc(arena, log->room, sizeof *log->halves[1]);
    log->told = arena_alloc(arena, p->shape.n_keys, sizeof *log->told);
    return log->halves[0] && log->halves[1] && log->told ? log : NULL;
}

void policy_log_step(struct policy_log *log, uint32_t layer, const uint32_t *keys, uint32_t n,
                     enum policy_use use)
{
    if (log->room - log->n[log->newer] < HEADER + n) {
        log->newer ^= 1;
        log->n[log->newer] = 0;
    }
    uint32_t *at = log->halves[log->newer] + log->n[log->newer];
    at[0] = layer;
    at[1] = USES * n + use;
    memcpy(at + HEADER, keys, n * sizeof *keys);
    log->n[log->newer] += HEADER + n;
    if (use != USE_GUESS) log->in_step = true;
}

/* As the store does: first what was there, then what came in. */
static void tell_step(struct policy *p, uint32_t layer, const uint32_t *keys, uint32_t n,
                      enum policy_use use)
{
    bool *told = p->log->told;
    if (use != USE_GUESS && p->ops->step) p->ops->step(p, layer, keys, n, use);
    for (uint32_t i = 0; i < n; i++)
        if (told[keys[i]]) p->ops->hit(p, keys[i], use);
    for (uint32_t i = 0; i < n; i++) {
        if (told[keys[i]] || !p->present[keys[i]]) continue;
        p->ops->insert(p, keys[i], use);
        told[keys[i]] = true;
    }
}

static void tell_half(struct policy *p, uint32_t half)
{
    const uint32_t *at = p->log->halves[half], *end = at + p->log->n[half];
    while (at != end) {
        uint32_t n = at[1] / USES;
        tell_step(p, at[0], at + HEADER, n, (enum policy_use)(at[1] % USES));
        at += HEADER + n;
    }
    p->log->n[half] = 0;
}

void policy_log_tell(struct policy *p)
{
    struct policy_log *log = p->log;
    log->in_step = false;
    if (log->n[0] + log->n[1] == 0) return;
    tell_half(p, log->newer ^ 1);
    tell_half(p, log->newer);
    for (uint32_t key = 0; key < p->shape.n_keys; key++) {
        if (!p->present[key] || log->told[key]) continue;
        p->ops->insert(p, key, USE_GUESS);
        log->told[key] = true;
    }
}
