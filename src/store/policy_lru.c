/* Least recently used: one list, the latest use at its head, intrusive in arrays by key. */
#include "store/policy.h"

struct link {
    uint32_t older, newer;
};

struct lru {
    struct policy base;
    struct link *links; /* [n_keys + 1]; the last is the ring's sentinel */
};

static bool lru_init(struct policy *p)
{
    struct lru *lru = (struct lru *)p;
    uint32_t end = p->shape.n_keys;
    lru->links = arena_alloc(&p->arena, (size_t)end + 1, sizeof *lru->links);
    if (!lru->links) return false;
    lru->links[end] = (struct link){.older = end, .newer = end};
    return true;
}

static void unlink_key(struct lru *lru, uint32_t key)
{
    struct link at = lru->links[key];
    lru->links[at.older].newer = at.newer;
    lru->links[at.newer].older = at.older;
}

/* Puts the key next to `older`, on its newer side. */
static void link_after(struct lru *lru, uint32_t key, uint32_t older)
{
    uint32_t newer = lru->links[older].newer;
    lru->links[key] = (struct link){.older = older, .newer = newer};
    lru->links[older].newer = key;
    lru->links[newer].older = key;
}

static void link_newest(struct lru *lru, uint32_t key)
{
    link_after(lru, key, lru->links[lru->base.shape.n_keys].older);
}

static void lru_hit(struct policy *p, uint32_t key, enum policy_use use)
{
    struct lru *lru = (struct lru *)p;
    if (use != USE_DECODE) return;
    unlink_key(lru, key);
    link_newest(lru, key);
}

static void lru_insert(struct policy *p, uint32_t key, enum policy_use use)
{
    struct lru *lru = (struct lru *)p;
    if (use == USE_DECODE)
        link_newest(lru, key);
    else
        link_after(lru, key, p->shape.n_keys);
}

static void lru_remove(struct policy *p, uint32_t key)
{
    unlink_key((struct lru *)p, key);
}

static uint32_t lru_victim(const struct policy *p, policy_evictable_fn *evictable, const void *user)
{
    const struct lru *lru = (const struct lru *)p;
    uint32_t end = p->shape.n_keys;
    for (uint32_t key = lru->links[end].newer; key != end; key = lru->links[key].newer)
        if (!evictable || evictable(user, key)) return key;
    return NO_KEY;
}

const struct policy_ops policy_lru_ops = {
    .bytes = sizeof(struct lru),
    .init = lru_init,
    .hit = lru_hit,
    .insert = lru_insert,
    .remove = lru_remove,
    .victim = lru_victim,
};
