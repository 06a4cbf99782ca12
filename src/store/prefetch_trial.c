#include "store/prefetch_trial.h"

#include <string.h>

/*
 * A turn's first batch runs on what the turn before had read, and is not counted. A way of guessing
 * must save one part in MARGIN, and be faster in all but MAY_LOSE rounds.
 */
enum { BATCHES = 4, ROUNDS = 8, MAY_LOSE = 1, MARGIN = 32, HOLD = 1024 };

void prefetch_trial_init(struct prefetch_trial *t, bool router)
{
    *t = (struct prefetch_trial){.router = router};
}

static uint32_t n_turns(const struct prefetch_trial *t)
{
    return t->router ? PREFETCH_KINDS : PREFETCH_ROUTER;
}

/* Each round begins with another way, so that none always follows the same one. */
enum prefetch_kind prefetch_trial_kind(const struct prefetch_trial *t)
{
    if (t->n_left) return t->leader;
    return (enum prefetch_kind)((t->turn + t->round) % n_turns(t));
}

static void end_round(struct prefetch_trial *t)
{
    for (uint32_t k = 0; k < n_turns(t); k++) {
        t->sum[k] += t->ns[k];
        t->won[k] += t->ns[k] < t->ns[PREFETCH_OFF];
    }
    memset(t->ns, 0, sizeof t->ns);
    t->turn = 0;
    t->round++;
}

static void end_trial(struct prefetch_trial *t)
{
    uint32_t best = PREFETCH_OFF;
    uint64_t enough = t->sum[PREFETCH_OFF] - t->sum[PREFETCH_OFF] / MARGIN;
    for (uint32_t k = PREFETCH_LAST; k < n_turns(t); k++)
        if (t->won[k] >= ROUNDS - MAY_LOSE && t->sum[k] < enough && t->sum[k] < t->sum[best])
            best = k;
    *t = (struct prefetch_trial){
        .router = t->router, .leader = (enum prefetch_kind)best, .n_left = HOLD};
}

void prefetch_trial_add(struct prefetch_trial *t, uint64_t ns)
{
    if (t->n_left) {
        t->n_left--;
        return;
    }
    if (t->batch > 0) t->ns[prefetch_trial_kind(t)] += ns;
    if (++t->batch < BATCHES) return;
    t->batch = 0;
    if (++t->turn < n_turns(t)) return;
    end_round(t);
    if (t->round == ROUNDS) end_trial(t);
}
