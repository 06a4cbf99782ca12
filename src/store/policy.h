/*
 * Replacement policies of the expert cache: which expert leaves when room is needed. Pure
 * bookkeeping over dense keys 0..n_keys-1 (a key is an expert of a layer); no bytes, no files, no
 * pins. Entries of one instance have one size: the store keeps an instance per size class.
 *
 * The caller announces every step (one layer of one batch) with the keys it needs, then reports for
 * each of them a hit or, when the key is absent, an insertion, after making room with policy_victim
 * and policy_remove. The evaluation of a prompt passes over nearly all experts and says little
 * about what decoding will use: to every policy USE_PREFILL is no use at all, and a key it brings
 * in that was never used otherwise is the first to leave, the latest first, so that a part of a
 * longer pass stays.
 *
 * Nothing allocates after policy_open. A hit or an insertion costs O(log n_keys), a victim
 * O(n_layers + entries passed over as not evictable). The same calls give the same victims
 * everywhere. One thread at a time.
 */
#ifndef SLUICE_STORE_POLICY_H
#define SLUICE_STORE_POLICY_H

#include "base/arena.h"
#include "base/err.h"

enum policy_kind {
#define P(id, name, text) POLICY_##id,
#include "store/policy.def"
#undef P
    POLICY_COUNT,
    POLICY_SINGLES = POLICY_AUTO /* those below follow no other */
};

enum policy_use {
    USE_DECODE,
    USE_PREFILL,
    USE_GUESS /* brought in by prefetch or preload, outside of steps; ranked like USE_PREFILL */
};

#define NO_KEY UINT32_MAX

enum { POLICY_MAX_KEYS = 1 << 28 };

struct policy_shape {
    uint32_t n_keys;          /* at most POLICY_MAX_KEYS */
    uint32_t n_layers;        /* at least 1 */
    const uint32_t *layer_of; /* [n_keys]; outlives the policy. Layers run in ascending order */
    uint64_t entry_bytes;     /* what one miss reads */
};

struct policy;

typedef bool policy_evictable_fn(const void *user, uint32_t key);

/* What a policy implements. It sees valid calls only: hits of present keys and so on. */
struct policy_ops {
    size_t bytes;                      /* of the structure that begins with struct policy */
    bool (*init)(struct policy *p);    /* the base is set; false: out of memory */
    void (*release)(struct policy *p); /* may be NULL */
    /* May be NULL. */
    void (*step)(struct policy *p, uint32_t layer, const uint32_t *keys, uint32_t n,
                 enum policy_use use);
    void (*resized)(struct policy *p); /* may be NULL */
    void (*hit)(struct policy *p, uint32_t key, enum policy_use use);
    void (*insert)(struct policy *p, uint32_t key, enum policy_use use);
    void (*remove)(struct policy *p, uint32_t key);
    uint32_t (*victim)(const struct policy *p, policy_evictable_fn *evictable, const void *user);
};

struct policy_log;

/* What every policy begins with; read-only for callers. */
struct policy {
    const struct policy_ops *ops;
    struct policy_log *log; /* NULL: it is told everything at once */
    struct arena arena;
    struct policy_shape shape;
    uint32_t capacity; /* entries that should be present at most */
    uint32_t n;        /* entries present */
    bool *present;     /* [n_keys] */
};

const char *policy_name(enum policy_kind kind);
const char *policy_text(enum policy_kind kind); /* one line for help */
const struct policy_ops *policy_ops_of(enum policy_kind kind);
/* False: no policy is called that. */
bool policy_from_name(const char *name, enum policy_kind *kind);

/* Errors: ARGUMENT (a shape without layers, a layer out of range), NOMEM; *p is then NULL. */
enum sluice_status policy_open(struct policy **p, enum policy_kind kind,
                               const struct policy_shape *shape, uint32_t capacity,
                               struct sluice_error *err);
/* The same for an implementation that is not in the table, as simulations have. */
enum sluice_status policy_open_with(struct policy **p, const struct policy_ops *ops,
                                    const struct policy_shape *shape, uint32_t capacity,
                                    struct sluice_error *err);
void policy_close(struct policy **p);
/*
 * From now on, while there is room for all keys, steps are only written down (see
 * store/policy_log.h). Before any key is present. Hits and insertions, but those of guesses, are
 * then of keys that the last step announced. What `auto` knows lags behind until a victim is
 * asked for. Errors: NOMEM.
 */
enum sluice_status policy_put_off(struct policy *p, struct sluice_error *err);
/* Memory in use. */
size_t policy_bytes(const struct policy *p);

/*
 * A batch is about to use n keys of the layer, each once; none need be present. Only decode
 * steps count as passes.
 */
void policy_step(struct policy *p, uint32_t layer, const uint32_t *keys, uint32_t n,
                 enum policy_use use);
static inline bool policy_has(const struct policy *p, uint32_t key)
{
    return p->present[key];
}
/* A present key is used. */
void policy_hit(struct policy *p, uint32_t key, enum policy_use use);
/* An absent key comes in. */
void policy_insert(struct policy *p, uint32_t key, enum policy_use use);
/*
 * The present key that should leave first among those that evictable (NULL: all) accepts, or
 * NO_KEY. It stays until policy_remove.
 */
uint32_t policy_victim(struct policy *p, policy_evictable_fn *evictable, const void *user);
void policy_remove(struct policy *p, uint32_t key);
/* After shrinking, the caller removes victims until n <= capacity, as pins allow. */
void policy_set_capacity(struct policy *p, uint32_t capacity);

#define P(id, name, text) extern const struct policy_ops policy_##name##_ops;
#include "store/policy.def"
#undef P

#endif
