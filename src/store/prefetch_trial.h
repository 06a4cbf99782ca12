/*
 * Which way of guessing makes decoding faster on this machine, if any does. A trial gives each way
 * its turn over some batches, in rounds; one that was clearly faster than none is then used until
 * the next trial. Knows no clock: the caller says how long each batch took. Nothing here touches
 * what is computed.
 */
#ifndef SLUICE_STORE_PREFETCH_TRIAL_H
#define SLUICE_STORE_PREFETCH_TRIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "store/prefetch.h"

struct prefetch_trial {
    bool router;                  /* the model's routers can be asked early */
    enum prefetch_kind leader;    /* between trials */
    uint32_t n_left;              /* batches until the next trial; 0: one is under way */
    uint32_t round, turn, batch;  /* of the trial, of the round, of the turn */
    uint64_t ns[PREFETCH_KINDS];  /* of this round */
    uint64_t sum[PREFETCH_KINDS]; /* of the trial */
    uint32_t won[PREFETCH_KINDS]; /* rounds in which it was faster than none */
};

void prefetch_trial_init(struct prefetch_trial *trial, bool router);
/* How the next batch is to guess. */
enum prefetch_kind prefetch_trial_kind(const struct prefetch_trial *trial);
/* It took that long. */
void prefetch_trial_add(struct prefetch_trial *trial, uint64_t ns);

#endif
