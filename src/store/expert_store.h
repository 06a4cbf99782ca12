/*
 * The expert store: slots of memory for routed experts, filled from disk as they are asked for. A
 * step (one layer of one batch) names the experts it needs; present ones are ready at once, missing
 * ones are read and become ready as they arrive. A ready expert is pinned until the step gives it
 * back, so that no other load can take its slot while kernels read it. When a step needs more
 * experts than there are slots, the rest wait for slots that the step gives back.
 *
 * One thread at a time uses a store; kernels on other threads only read the bytes of pinned
 * experts.
 */
#ifndef SLUICE_STORE_EXPERT_STORE_H
#define SLUICE_STORE_EXPERT_STORE_H

#include "io/file.h"
#include "io/reader.h"
#include "store/bank.h"
#include "store/policy.h"

/*
 * Asked once for each expert, when its bytes have been read to view for the first time and before
 * they are given to anybody. An error ends the step, and is what the step's caller gets.
 */
typedef enum sluice_status store_check_fn(const void *user, const struct expert_bank *bank,
                                          uint32_t expert, const struct expert_view *view,
                                          struct sluice_error *err);

struct store_options {
    uint64_t slot_bytes; /* memory for slots; 0: n_slots decides */
    uint32_t n_slots;    /* at least 1 per class; more than there are experts is cut */
    enum policy_kind policy;
    store_check_fn *check; /* NULL: what is read is not looked at */
    const void *check_user;
    struct reader_options reader;
};

struct store_stats {
    uint64_t hits, misses; /* experts asked for by steps */
    uint64_t bytes_read;
    uint64_t wait_ns; /* time a step had nothing to compute */
    /* Reading ahead (prefetch.h): experts guessed, and of them those that the step asked for. */
    uint64_t guesses, guesses_right;
    uint64_t guesses_read;         /* experts read ahead */
    uint64_t guesses_useful;       /* of them, those in a slot when a step asked for them: hits */
    uint64_t guesses_late;         /* still on their way then: misses */
    uint64_t guesses_wasted_bytes; /* read ahead, and given up before a step asked */
};

struct expert_store;

/*
 * files are the mapped files that the banks' views point into; banks and files must outlive the
 * store. Errors: BUDGET (not one slot per class fits; the message says what would), NOMEM, IO,
 * SYSTEM.
 */
enum sluice_status store_open(struct expert_store **store, const struct file_map *files,
                              uint32_t n_files, const struct expert_bank *const *banks,
                              uint32_t n_banks, const struct store_options *options,
                              struct sluice_error *err);
void store_close(struct expert_store **store);
/*
 * So many threads take memory for slots ahead of use from now on, in the order of their use; ahead:
 * how many bytes ahead, 0: all of it (base/populate.h).
 */
void store_populate(struct expert_store *store, uint32_t n_threads, size_t ahead);

/*
 * The step to come asks for these experts, in any order: what the store knows of them, which no
 * cache has kept since the last token, is fetched meanwhile. A hint.
 */
void store_foresee(const struct expert_store *store, const struct expert_bank *bank,
                   const int32_t *experts, uint32_t n);
/*
 * Begins a step: the distinct experts it needs, ascending. Reads of missing experts start now. use
 * tells the policy what the step is part of.
 * Errors: IO, NOMEM; the step is then over.
 */
enum sluice_status store_begin(struct expert_store *store, const struct expert_bank *bank,
                               const uint32_t *experts, uint32_t n, enum policy_use use,
                               struct sluice_error *err);
/*
 * Experts that became ready since the last call, at most cap, in ascending order among themselves;
 * wait: blocks until there is at least one. *n is 0 when all of the step's experts were given.
 * Errors: IO naming layer, expert, file and offset; the step is then over.
 */
enum sluice_status store_next(struct expert_store *store, uint32_t *ready, uint32_t cap, bool wait,
                              uint32_t *n, struct sluice_error *err);
/* Takes in what has been read and starts what may start, without waiting. Cheap when there is
 * nothing.
 */
void store_poll(struct expert_store *store);
/* Whether all that the step asked for has been read, and nothing else is being. */
bool store_has_read(const struct expert_store *store);
/* The step has computed with this expert. */
void store_done(struct expert_store *store, uint32_t expert);

/* The matrices of an expert that is ready. */
const struct expert_view *store_view(const struct expert_store *store,
                                     const struct expert_bank *bank, uint32_t expert);

/* Told how many layers are done; false ends the call with CANCELLED. */
typedef bool store_progress_fn(void *user, uint64_t done, uint64_t total);
/* Reads experts until the slots are full or all are there. progress may be NULL. */
enum sluice_status store_preload(struct expert_store *store, store_progress_fn *progress,
                                 void *user, struct sluice_error *err);

struct expert_place {
    uint32_t bank, expert;
};
/* The same with experts that are named, the first of them as far as free slots go. */
enum sluice_status store_warm(struct expert_store *store, const struct expert_place *places,
                              size_t n, store_progress_fn *progress, void *user,
                              struct sluice_error *err);
/* Per expert of a bank, the decode steps that asked for it; of so many. */
const uint32_t *store_uses(const struct expert_store *store, uint32_t bank, uint64_t *n_steps);

/*
 * Lets slots have so many bytes from here on, between steps: at least one slot of each size stays,
 * and there are never more than experts. Experts that must leave do so in the policy's order, and
 * their memory goes back to the system at once.
 */
void store_resize(struct expert_store *store, uint64_t slot_bytes);

void store_get_stats(const struct expert_store *store, struct store_stats *stats);
const struct reader_info *store_reader_info(const struct expert_store *store);
uint32_t store_slots(const struct expert_store *store);
uint64_t store_bytes(const struct expert_store *store); /* of the slots */
/* Bytes of a slot that holds the largest expert of the bank. */
uint64_t store_slot_bytes(const struct expert_bank *bank, uint32_t align);
/* Slot bytes that suffice for one slot of each size. */
uint64_t store_least_bytes(const struct expert_bank *const *banks, uint32_t n_banks,
                           uint32_t align);

#endif
