/*
 * What a policy was told while it had room for all keys, so that nothing can leave. Its order is
 * not asked for then, and keeping it means looking up each key in memory that is in no cache, for
 * `auto` six times. So steps are only written down, and told as soon as the order counts: before
 * a victim or a removal, and before the capacity changes. The victims are those of a policy that
 * was told at once, unless the log was full: then the oldest steps are forgotten, and what was used
 * in none of the others is ranked as never used.
 */
#ifndef SLUICE_STORE_POLICY_LOG_H
#define SLUICE_STORE_POLICY_LOG_H

#include "store/policy.h"

/* A half, in the order of telling: per step the layer, 4 x number of keys + use, and the keys. */
struct policy_log {
    uint32_t *halves[2]; /* [room]; the older one is forgotten when the newer one is full */
    uint32_t n[2];
    uint32_t newer;
    uint32_t room;
    bool in_step; /* the step in progress is among them */
    bool *told;   /* [n_keys]: present, and the policy knows */
};

/* In the arena of the policy. NULL: out of memory. */
struct policy_log *policy_log_new(struct policy *p);
/* n is at most the number of keys. */
void policy_log_step(struct policy_log *log, uint32_t layer, const uint32_t *keys, uint32_t n,
                     enum policy_use use);
/* Tells the policy all that was written down, and forgets it. */
void policy_log_tell(struct policy *p);

#endif
