/*
 * The CPU backend: runs a graph's nodes in order on all threads of a pool, with a barrier where one
 * needs what other threads computed. It knows ops, kernels and sequences; it knows no model.
 * Everything is allocated when it is opened; a run allocates nothing.
 */
#ifndef SLUICE_BACKEND_CPU_BACKEND_H
#define SLUICE_BACKEND_CPU_BACKEND_H

#include "backend/batch.h"
#include "base/thread.h"
#include "ir/binding.h"
#include "ir/plan.h"
#include "kernel/kernel.h"
#include "store/prefetch.h"

/* Hooks of sluice_engine_options; NULL: off. Called by thread 0. */
struct cpu_routing {
    void (*route)(void *user, uint32_t layer, uint64_t token, uint32_t k, int32_t *ids);
    void (*routed)(void *user, uint32_t layer, uint32_t n_tokens, uint32_t k, const int32_t *ids);
    void *user;
};

/* Told about each step of a run, by thread 0; NULL: off. */
struct cpu_profile {
    void (*step)(void *user, const struct sluice_step *step);
    void *user;
};

struct cpu_options {
    struct pool_options pool; /* places are copied */
    uint32_t features;        /* enum cpu_feature */
    /* Activations of packed weights in int8, those of bf16 in bf16 where features say it is faster.
     */
    bool int8;
    struct plan_dims dims;
    bool share_buffers;   /* false: every buffer has storage of its own */
    uint64_t pieces_from; /* bytes of a matrix whose rows threads take in pieces; 0: a default */
    struct cpu_routing routing;
    struct expert_store *store; /* NULL: experts are where banks say they are mapped */
    bool will_need;             /* the kernel is told which of these are computed next */
    enum prefetch_kind prefetch;
    /* Dense matrices of more leave no recurrent state in a cache, so it is written past them. */
    uint64_t cache_bytes;
};

struct cpu_backend;

/*
 * graph (finished), layout and weights (one per weight of the graph) must outlive the backend.
 * Errors: NOMEM, SYSTEM, UNSUPPORTED (a shape no kernel takes).
 */
enum sluice_status cpu_open(struct cpu_backend **out, const struct graph *graph,
                            const struct weight_data *weights, const struct cpu_options *options,
                            struct sluice_error *err);
void cpu_close(struct cpu_backend **backend);

/* Storage of a buffer of the graph, for filling inputs and reading results; NULL: unknown id. */
#define CPU_BUFFER(backend, b) cpu_buffer((backend), (b).id)
void *cpu_buffer(struct cpu_backend *backend, uint32_t id);
/* Gives a borrowed buffer its memory, which must outlive the backend. False: not such a buffer. */
#define CPU_BIND_BORROWED(backend, b, data) cpu_bind_borrowed((backend), (b).id, (data))
bool cpu_bind_borrowed(struct cpu_backend *backend, uint32_t id, const void *data);

/*
 * Runs nodes [begin, end) over the batch, which must fit the dims given at open. Sequences are read
 * and their next states written; committing them is the caller's. Errors: those of the expert
 * store, CANCELLED without a message; the rest of the run is then skipped and nothing may be
 * committed.
 */
enum sluice_status cpu_run(struct cpu_backend *backend, const struct batch *batch, uint32_t begin,
                           uint32_t end, struct sluice_error *err);

/* From the next run on, experts come from this store; NULL: from where they are mapped. */
void cpu_use_store(struct cpu_backend *backend, struct expert_store *store);

/* From the next run on, experts are guessed in this way. */
void cpu_set_prefetch(struct cpu_backend *backend, enum prefetch_kind kind);

/* From the next run on, steps are told of. */
void cpu_set_profile(struct cpu_backend *backend, struct cpu_profile profile);

/* Bytes the backend holds for activations and scratch. */
size_t cpu_scratch_bytes(const struct cpu_backend *backend);
/* Distinct experts that runs have used so far. */
uint64_t cpu_expert_uses(const struct cpu_backend *backend);

#endif
