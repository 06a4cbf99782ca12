/* What the files of the engine share. */
#ifndef SLUICE_ENGINE_INTERNAL_H
#define SLUICE_ENGINE_INTERNAL_H

#include <pthread.h>

#include "backend/cpu/cpu_backend.h"
#include "base/log.h"
#include "io/processors.h"
#include "model/model.h"
#include "state/sequence.h"
#include "store/expert_store.h"
#include "store/heat.h"
#include "store/pack_check.h"
#include "store/prefetch_trial.h"
#include "store/resident.h"

struct call_memory;

/* Where the bytes of the budget go. */
struct memory_plan {
    uint64_t budget;
    uint64_t overhead; /* program, tokenizer, directory of tensors, tables */
    uint64_t scratch, resident, slots;
    uint64_t session;                 /* of the one that there is always room for */
    uint64_t sessions;                /* of those that are open */
    uint64_t least_slots, most_slots; /* bytes: one slot of each size; all that were asked for */
    uint64_t granted_slots;           /* bytes that the store was told to keep to */
    uint32_t n_slots;
    uint64_t smallest;      /* the least budget that works */
    uint64_t least_scratch; /* of the smallest batch that the engine would have chosen */
    bool mapped;
};

struct sluice_engine {
    struct sluice_engine_options options;
    struct log log;
    char *path;
    char cpu_text[128];
    struct processors processors;
    struct checkpoint checkpoint;
    struct model model;
    struct state_layout layout;
    struct cpu_backend *backend;
    struct memory_plan plan;
    pthread_mutex_t plan_lock; /* guards plan; run_lock is taken before it, never behind */
    struct resident resident;
    struct dense_load *dense_load; /* NULL: dense weights are not being read */
    struct expert_store *store;    /* NULL: experts are mapped */
    struct heat heat;              /* as taken in at open */
    struct pack_check pack;        /* of a packed store, unless checking is off */
    bool packed;
    struct prefetch_trial prefetch; /* of SLUICE_PREFETCH_AUTO */
    uint32_t max_outputs;           /* rows of the tail in one run */
    struct sluice_tokenizer *tokenizer;
    struct sluice_error tokenizer_error;
    pthread_t tokenizer_thread;
    bool tokenizer_comes;     /* that thread has not been joined */
    pthread_mutex_t run_lock; /* one evaluation at a time; also guards what follows */
    bool running;             /* an evaluation is under way */
    bool told_of_replaced_file;
    struct call_memory *call_memory;
    struct sluice_stats stats;
};

enum { SESSION_DEFAULT_CTX = 4096 };

struct sluice_session {
    struct sluice_engine *engine;
    uint64_t bytes; /* that the plan counts for it */
    struct sequence sequence;
    bool in_call; /* guarded by run_lock: part of the call being checked */
};

/* Tokens of a batch, where nobody asked for a number: at least and at most. */
enum { LEAST_BATCH = 512, MOST_BATCH = 2048 };

/*
 * memory.c: the batch that memory has room for, a power of two. Before: a backend for LEAST_BATCH
 * tokens.
 */
uint32_t memory_batch(struct sluice_engine *e);
/*
 * Begins to read dense weights, unless they stay mapped, are not wanted or leave no room in the
 * budget for what else there must be. What is opened meanwhile counts in the plan.
 */
enum sluice_status memory_begin(struct sluice_engine *e, struct sluice_error *err);
/* Plans the budget, opens the store and waits for dense weights. */
enum sluice_status memory_open(struct sluice_engine *e, struct sluice_error *err);
/* Threads that take so much memory ahead of its use. */
uint32_t memory_populaters(const struct sluice_engine *e, uint64_t bytes);
struct reader_options memory_reader_options(const struct sluice_engine *e);
/* Tells how far reading at open is; false: the caller wants no more of it. */
bool memory_goes_on(void *engine, uint64_t done, uint64_t total);
enum { MEMORY_ALIGN = 4096 }; /* what O_DIRECT asks for at most, as far as is planned */
uint64_t memory_plan_total(const struct memory_plan *plan);
/* What the plan is now. */
struct memory_plan memory_plan_now(struct sluice_engine *e);
/*
 * A session of so many bytes opens: slots give back what it needs beyond the plan. Errors: BUDGET,
 * STATE (inside an evaluation, whose slots stay).
 */
enum sluice_status memory_add_session(struct sluice_engine *e, uint64_t bytes,
                                      struct sluice_error *err);
/* It closed; slots grow when the next evaluation begins. */
void memory_remove_session(struct sluice_engine *e, uint64_t bytes);
/* Lets the store have what the plan leaves it. Under run_lock, outside of evaluations. */
void memory_settle(struct sluice_engine *e);

/* dense_load.c: dense weights are read by a thread of their own. */

/* Bytes that they take. Errors: NOMEM. */
enum sluice_status dense_bytes(struct sluice_engine *e, uint64_t *bytes, struct sluice_error *err);
enum sluice_status dense_begin(struct sluice_engine *e, struct sluice_error *err);
/*
 * Waits until all have been read, and checks them; calls has_memory, unless NULL, when their memory
 * is there, which may be long before. The weights of the model then point to what was read.
 */
enum sluice_status dense_end(struct sluice_engine *e, void (*has_memory)(struct sluice_engine *e),
                             struct sluice_error *err);
/* Gives up what is being read, if anything is. */
void dense_abandon(struct sluice_engine *e);

/* tokenizer_load.c: the tokenizer is built by a thread of its own, if the system lends one. */

void tokenizer_begin(struct sluice_engine *e);
void tokenizer_join(struct sluice_engine *e);
/*
 * Waits for it. A model without one is evaluated all the same; running out of memory is another
 * matter. Errors: NOMEM.
 */
enum sluice_status tokenizer_end(struct sluice_engine *e, struct sluice_error *err);

/* verify_pack.c: the checksums of a packed store; without one nothing is checked. */
enum sluice_status verify_open(struct sluice_engine *e, struct sluice_error *err);
/* A dense matrix as loaded, and as it was mapped; its tensors are noted in checked, by number. */
enum sluice_status verify_matrix(const struct sluice_engine *e, const struct wmat *mapped,
                                 const struct wmat *loaded, bool *checked,
                                 struct sluice_error *err);
/* All other dense tensors, as mapped; checked NULL: all. */
enum sluice_status verify_mapped(const struct sluice_engine *e, const bool *checked,
                                 struct sluice_error *err);
/* store_check_fn of the engine. */
enum sluice_status verify_expert(const void *user, const struct expert_bank *bank, uint32_t expert,
                                 const struct expert_view *view, struct sluice_error *err);

/* heat_profile.c */

/* Takes in the profile of the options. Errors: ARGUMENT (mapped), and those of heat_parse. */
enum sluice_status heat_open(struct sluice_engine *e, struct sluice_error *err);
/* Reads what the profile says into free slots. */
enum sluice_status heat_warm(struct sluice_engine *e, struct sluice_error *err);

/* study.c: tells one model's tensors from another's. */
void model_fingerprint(const struct checkpoint *cp, uint8_t out[HEAT_FINGERPRINT_BYTES]);

/* read_ahead.c */
bool prefetch_can(const struct sluice_engine *e, enum prefetch_kind kind);
/* Errors: ARGUMENT, UNSUPPORTED: the prefetch that was asked for cannot be had. */
enum sluice_status prefetch_open(struct sluice_engine *e, struct sluice_error *err);
/* Chooses how experts are guessed in the batch that comes. */
void prefetch_begin(struct sluice_engine *e, const struct batch *batch);
/* The batch took that long, body and tails. */
void prefetch_end(struct sluice_engine *e, const struct batch *batch, uint64_t ns);

/* eval.c */
void call_memory_free(struct call_memory **memory);

#endif
