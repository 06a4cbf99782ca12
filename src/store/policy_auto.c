/*
 * Follows the policy that would have read the fewest bytes lately. Every single policy runs twice:
 * as a ghost, which shows what it would have missed, and over the entries that are really present,
 * so that a new leader finds its order complete and a switch moves nothing: from then on victims
 * are asked of another policy (the idea of adaptive caches: Subramanian, Smaragdakis, Loh, MICRO
 * 2006). Missed bytes are summed over a window that fades by 1/FADE each period; a rival takes over
 * when its sum is under the leader's by more than 1/MARGIN, so that noise does not make it swing.
 */
#include "store/policy_auto.h"

enum { PERIODS_PER_PASS = 4, FADE = 8, MARGIN = 64, SCALE = 256 };

struct automatic {
    struct policy base;
    struct policy *live[POLICY_SINGLES];
    struct ghost ghosts[POLICY_SINGLES];
    uint64_t faded[POLICY_SINGLES];   /* missed bytes of the window, times SCALE / entry_bytes */
    uint64_t counted[POLICY_SINGLES]; /* misses when the period began */
    uint64_t period, in_period;       /* accesses */
    enum policy_kind leader;
    uint64_t switches;
};

static bool auto_init(struct policy *p)
{
    struct automatic *a = (struct automatic *)p;
    a->leader = POLICY_LFUDA;
    a->period = p->shape.n_keys / PERIODS_PER_PASS + 1;
    for (unsigned i = 0; i < POLICY_SINGLES; i++) {
        enum policy_kind kind = (enum policy_kind)i;
        if (policy_open(&a->live[i], kind, &p->shape, p->capacity, NULL) != SLUICE_OK ||
            ghost_open(&a->ghosts[i], policy_ops_of(kind), &p->shape, p->capacity, NULL) !=
                SLUICE_OK)
            return false;
    }
    return true;
}

static void auto_release(struct policy *p)
{
    struct automatic *a = (struct automatic *)p;
    for (unsigned i = 0; i < POLICY_SINGLES; i++) {
        policy_close(&a->live[i]);
        ghost_release(&a->ghosts[i]);
    }
}

static void auto_resized(struct policy *p)
{
    struct automatic *a = (struct automatic *)p;
    for (unsigned i = 0; i < POLICY_SINGLES; i++) {
        policy_set_capacity(a->live[i], p->capacity);
        ghost_set_capacity(&a->ghosts[i], p->capacity);
    }
}

static void end_period(struct automatic *a)
{
    enum policy_kind best = a->leader;
    for (unsigned i = 0; i < POLICY_SINGLES; i++) {
        uint64_t misses = a->ghosts[i].misses - a->counted[i];
        a->counted[i] = a->ghosts[i].misses;
        a->faded[i] += misses * SCALE - a->faded[i] / FADE;
    }
    for (unsigned i = 0; i < POLICY_SINGLES; i++)
        if (a->faded[i] < a->faded[best]) best = (enum policy_kind)i;
    if (a->faded[best] >= a->faded[a->leader] - a->faded[a->leader] / MARGIN) return;
    a->leader = best;
    a->switches++;
}

/* Decides between steps only. */
static void auto_step(struct policy *p, uint32_t layer, const uint32_t *keys, uint32_t n,
                      enum policy_use use)
{
    struct automatic *a = (struct automatic *)p;
    if (a->in_period >= a->period) {
        a->in_period = 0;
        end_period(a);
    }
    for (unsigned i = 0; i < POLICY_SINGLES; i++) {
        policy_step(a->live[i], layer, keys, n, use);
        ghost_step(&a->ghosts[i], layer, keys, n, use);
    }
    a->in_period += n;
}

static void auto_hit(struct policy *p, uint32_t key, enum policy_use use)
{
    struct automatic *a = (struct automatic *)p;
    for (unsigned i = 0; i < POLICY_SINGLES; i++) policy_hit(a->live[i], key, use);
}

static void auto_insert(struct policy *p, uint32_t key, enum policy_use use)
{
    struct automatic *a = (struct automatic *)p;
    for (unsigned i = 0; i < POLICY_SINGLES; i++) policy_insert(a->live[i], key, use);
}

static void auto_remove(struct policy *p, uint32_t key)
{
    struct automatic *a = (struct automatic *)p;
    for (unsigned i = 0; i < POLICY_SINGLES; i++) policy_remove(a->live[i], key);
}

static uint32_t auto_victim(const struct policy *p, policy_evictable_fn *evictable,
                            const void *user)
{
    const struct automatic *a = (const struct automatic *)p;
    return policy_victim(a->live[a->leader], evictable, user);
}

const struct policy_ops policy_auto_ops = {
    .bytes = sizeof(struct automatic),
    .init = auto_init,
    .release = auto_release,
    .step = auto_step,
    .resized = auto_resized,
    .hit = auto_hit,
    .insert = auto_insert,
    .remove = auto_remove,
    .victim = auto_victim,
};

static const struct automatic *as_auto(const struct policy *p)
{
    return p->ops == &policy_auto_ops ? (const struct automatic *)p : NULL;
}

enum policy_kind policy_leader(const struct policy *p)
{
    const struct automatic *a = as_auto(p);
    return a ? a->leader : POLICY_AUTO;
}

uint64_t policy_switches(const struct policy *p)
{
    const struct automatic *a = as_auto(p);
    return a ? a->switches : 0;
}

const struct ghost *policy_ghost(const struct policy *p, enum policy_kind kind)
{
    const struct automatic *a = as_auto(p);
    return a ? &a->ghosts[kind] : NULL;
}

size_t policy_auto_bytes(const struct policy *p)
{
    const struct automatic *a = as_auto(p);
    size_t bytes = 0;
    for (unsigned i = 0; a && i < POLICY_SINGLES; i++)
        bytes += policy_bytes(a->live[i]) + ghost_bytes(&a->ghosts[i]);
    return bytes;
}
