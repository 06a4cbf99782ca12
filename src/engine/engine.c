/* Opening an engine: files, model, state layout, backend, tokenizer; and what it says of itself. */
#include <stdlib.h>
#include <string.h>

#include "backend/layout.h"
#include "base/bits.h"
#include "base/options.h"
#include "engine/internal.h"
#include "model/bind.h"
#include "token/tokenizer.h"

enum {
    MAX_BATCH = 1 << 16,
    MAX_THREADS = 1024,
    TAIL_BYTES = 16 << 20, /* logits of one run of the tail */
};

void sluice_engine_options_default(struct sluice_engine_options *options)
{
    *options = (struct sluice_engine_options){
        .size = sizeof *options, .policy = SLUICE_POLICY_AUTO, .verify = true};
}

static enum sluice_status take_options(struct sluice_engine *e,
                                       const struct sluice_engine_options *options,
                                       struct sluice_error *err)
{
    struct sluice_engine_options *o = &e->options;
    sluice_engine_options_default(o);
    TRY(options_take(o, sizeof *o, options, "engine", err));
    if (o->n_threads == 0) o->n_threads = e->processors.n_threads;
    if (o->n_threads > MAX_THREADS)
        return err_set(err, SLUICE_E_ARGUMENT, "%u threads were asked for; at most %d are possible",
                       o->n_threads, MAX_THREADS);
    if (o->max_logit_rows == 0) o->max_logit_rows = UINT32_MAX;
    if (o->max_batch_tokens > MAX_BATCH)
        return err_set(err, SLUICE_E_ARGUMENT, "a batch of %u tokens was asked for; at most %d fit",
                       o->max_batch_tokens, MAX_BATCH);
    if (o->precision != SLUICE_FAST && o->precision != SLUICE_EXACT)
        return err_set(err, SLUICE_E_ARGUMENT, "precision %d is neither fast nor exact",
                       (int)o->precision);
    if (o->io > SLUICE_IO_MMAP)
        return err_set(err, SLUICE_E_ARGUMENT, "I/O engine %d is unknown", (int)o->io);
    if (o->mmap_advice > SLUICE_MMAP_WILLNEED)
        return err_set(err, SLUICE_E_ARGUMENT, "advice %d is unknown", (int)o->mmap_advice);
    if (o->mmap_advice != SLUICE_MMAP_NORMAL && o->io != SLUICE_IO_MMAP)
        return err_set(err, SLUICE_E_ARGUMENT, "advice was given, but experts are not mapped");
    if (o->prefetch > SLUICE_PREFETCH_AUTO)
        return err_set(err, SLUICE_E_ARGUMENT, "prefetch %d is unknown", (int)o->prefetch);
    if (o->policy > SLUICE_POLICY_AUTO)
        return err_set(err, SLUICE_E_ARGUMENT, "policy %d is unknown", (int)o->policy);
    e->log = (struct log){o->log, o->log_user};
    return SLUICE_OK;
}

/* SLUICE_CPU narrows what the processor offers, for tests. */
static enum sluice_status take_features(struct sluice_engine *e, uint32_t *features,
                                        struct sluice_error *err)
{
    const char *mask = getenv("SLUICE_CPU");
    *features = cpu_detect();
    if (!cpu_mask(mask, features))
        return err_set(err, SLUICE_E_ARGUMENT, "SLUICE_CPU is '%s', which names no instruction set",
                       mask);
    cpu_describe(*features, e->cpu_text, sizeof e->cpu_text);
    return SLUICE_OK;
}

static uint32_t tail_rows(const struct sluice_engine *e)
{
    size_t rows = max_size(TAIL_BYTES / sizeof(float) / e->model.vocab_size, 1);
    uint32_t most = min_u32(e->options.max_logit_rows, e->options.max_batch_tokens);
    return (uint32_t)min_size(rows, most);
}

/* places: one per thread, for as long as the result is used. */
static struct pool_options pool_of(const struct sluice_engine *e, cpu_set_t *places)
{
    const struct processors *p = &e->processors;
    bool placed = processors_place(p, e->options.n_threads, places);
    return (struct pool_options){.n_threads = e->options.n_threads,
                                 .n_cores =
                                     p->quota ? min_u32(p->quota, p->n_logical) : p->n_logical,
                                 .adapt = true,
                                 .places = placed ? places : NULL};
}

/* More than caches of most machines hold, and nothing to a model that is larger than memory. */
#define CACHE_BYTES ((uint64_t)128 << 20)

static enum sluice_status open_backend_at(struct sluice_engine *e, cpu_set_t *places,
                                          struct sluice_error *err)
{
    bool exact = e->options.precision == SLUICE_EXACT;
    const struct model *m = &e->model;
    uint32_t features;
    TRY(take_features(e, &features, err));
    TRY(layout_from_graph(&e->layout, &m->graph, exact ? KV_F32 : KV_F16, err));
    if (prefetch_can(e, PREFETCH_LAST)) e->layout.n_picks = (size_t)m->n_banks * m->n_picks;
    e->max_outputs = tail_rows(e);
    struct cpu_options o = {.pool = pool_of(e, places),
                            .features = features,
                            .int8 = !exact,
                            .dims = {e->options.max_batch_tokens, e->max_outputs},
                            .routing = {e->options.route, e->options.routed, e->options.route_user},
                            .share_buffers = true,
                            .will_need = e->options.mmap_advice == SLUICE_MMAP_WILLNEED,
                            .cache_bytes = CACHE_BYTES};
    TRY(cpu_open(&e->backend, &m->graph, m->weights, &o, err));
    if (m->rope_values && !CPU_BIND_BORROWED(e->backend, m->rope_freqs, m->rope_values))
        return err_set(err, SLUICE_E_INTERNAL, "the rope frequencies have no buffer");
    return SLUICE_OK;
}

static enum sluice_status open_backend_of(struct sluice_engine *e, uint32_t batch,
                                          struct sluice_error *err)
{
    e->options.max_batch_tokens = batch;
    cpu_close(&e->backend);
    layout_release(&e->layout);
    cpu_set_t *places = calloc(e->options.n_threads, sizeof *places);
    if (!places) return err_nomem(err, "places of threads", e->options.n_threads * sizeof *places);
    enum sluice_status status = open_backend_at(e, places, err);
    free(places);
    return status;
}

/*
 * The batch that was asked for, or the largest one that memory has room for: the longer it is, the
 * more tokens share an expert's weights once these are read and unpacked.
 */
static enum sluice_status open_backend(struct sluice_engine *e, struct sluice_error *err)
{
    uint32_t asked = e->options.max_batch_tokens, batch = asked ? asked : LEAST_BATCH;
    TRY(open_backend_of(e, batch, err));
    e->plan.least_scratch = cpu_scratch_bytes(e->backend);
    if (!asked) batch = memory_batch(e);
    return batch == e->options.max_batch_tokens ? SLUICE_OK : open_backend_of(e, batch, err);
}

/*
 * What takes long goes side by side: the tokenizer from the beginning, dense weights as soon as
 * their places are known.
 */
static enum sluice_status open_parts(struct sluice_engine *e, struct sluice_error *err)
{
    struct model_options options = {.keep_hidden = e->options.keep_hidden,
                                    .n_picks = e->options.top_k_experts,
                                    .guess = prefetch_can(e, PREFETCH_ROUTER),
                                    .log = &e->log};
    tokenizer_begin(e);
    TRY(checkpoint_open(&e->checkpoint, e->path, err));
    TRY(model_init(&e->model, &e->checkpoint, &options, err));
    TRY(memory_begin(e, err));
    TRY(prefetch_open(e, err));
    TRY(verify_open(e, err));
    TRY(heat_open(e, err));
    TRY(tokenizer_end(e, err));
    TRY(open_backend(e, err));
    return memory_open(e, err);
}

/* Recursive, so that a callback of an evaluation can ask for the counters. */
static void init_lock(pthread_mutex_t *lock)
{
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(lock, &kind);
    pthread_mutexattr_destroy(&kind);
}

enum sluice_status sluice_engine_open(sluice_engine **engine, const char *path,
                                      const struct sluice_engine_options *options,
                                      struct sluice_error *err)
{
    *engine = NULL;
    if (!path) return err_set(err, SLUICE_E_ARGUMENT, "no path of a model was given");
    struct sluice_engine *e = calloc(1, sizeof *e);
    if (!e) return err_nomem(err, "engine", sizeof *e);
    init_lock(&e->run_lock);
    pthread_mutex_init(&e->plan_lock, NULL);
    e->path = strdup(path);
    enum sluice_status status = e->path ? SLUICE_OK : err_nomem(err, "engine", strlen(path));
    if (status == SLUICE_OK) status = processors_here(&e->processors, err);
    if (status == SLUICE_OK) status = take_options(e, options, err);
    if (status == SLUICE_OK) status = open_parts(e, err);
    if (status != SLUICE_OK) sluice_engine_close(&e);
    *engine = e;
    return status;
}

void sluice_engine_close(sluice_engine **engine)
{
    struct sluice_engine *e = *engine;
    if (!e) return;
    *engine = NULL;
    tokenizer_join(e);
    dense_abandon(e);
    cpu_close(&e->backend);
    store_close(&e->store);
    resident_release(&e->resident);
    pack_check_release(&e->pack);
    heat_release(&e->heat);
    layout_release(&e->layout);
    model_release(&e->model);
    checkpoint_release(&e->checkpoint);
    tokenizer_close(e->tokenizer);
    pthread_mutex_destroy(&e->run_lock);
    pthread_mutex_destroy(&e->plan_lock);
    call_memory_free(&e->call_memory);
    processors_release(&e->processors);
    free(e->path);
    free(e);
}

/* A tied embedding is read as the head. */
static uint64_t token_dense_bytes(const struct model *m)
{
    const struct graph *g = &m->graph;
    uint64_t bytes = m->dense_bytes;
    for (size_t w = 0; w < g->weights.n; w++) {
        const struct wmat *table = &m->weights[w].matrix;
        if (g->weights.items[w].role != WEIGHT_embed || m->tied || table->rows == 0) continue;
        bytes -= wmat_bytes(table) / table->rows * (table->rows - 1);
    }
    return bytes;
}

static void describe_memory(const struct sluice_engine *engine, struct sluice_engine_info *info)
{
    /* The lock is state of the engine, not part of what const promises. */
    struct sluice_engine *e = (struct sluice_engine *)(uintptr_t)engine;
    struct memory_plan plan = memory_plan_now(e), *p = &plan;
    info->mapped = p->mapped;
    info->plan_bytes = memory_plan_total(p);
    info->resident_bytes = p->resident;
    info->slot_bytes = p->slots;
    info->session_bytes = p->session > p->sessions ? p->session : p->sessions;
    info->overhead_bytes = p->overhead;
    info->smallest_plan_bytes = p->smallest;
    info->io_engine = "mmap";
    info->io_note = "";
    if (!e->store) return;
    info->budget_bytes = p->budget;
    const struct reader_info *io = store_reader_info(e->store);
    info->n_slots = p->n_slots;
    info->io_engine = io->engine;
    info->io_note = io->reason;
    info->io_direct = io->direct;
    info->io_depth = io->depth;
    info->io_registered_files = io->registered_files;
    info->io_registered_buffers = io->registered_buffers;
}

void sluice_engine_get_info(const sluice_engine *e, struct sluice_engine_info *info)
{
    const struct model *m = &e->model;
    struct sluice_engine_info full = {
        .size = info->size,
        .architecture = m->architecture,
        .path = e->path,
        .vocab_size = m->vocab_size,
        .hidden_size = m->hidden_size,
        .n_layers = m->n_layers,
        .n_experts = m->n_experts,
        .n_experts_used = m->n_picks,
        .trained_context = m->trained_context,
        .n_threads = e->options.n_threads,
        .precision = e->options.precision,
        .cpu_features = e->cpu_text,
        .n_parameters = m->n_parameters,
        .dense_bytes = m->dense_bytes,
        .expert_bytes = m->expert_bytes,
        .bytes_per_expert = m->bytes_per_expert,
        .kv_bytes_per_token = layout_kv_bytes_per_token(&e->layout),
        .recurrent_bytes = layout_recurrent_bytes(&e->layout),
        .scratch_bytes = cpu_scratch_bytes(e->backend),
        .skipped_bytes = m->skipped_bytes,
        .padding_bytes = m->padding_bytes,
        .converted_bytes = m->converted_bytes,
        .n_expert_layers = m->n_banks,
        .token_dense_bytes = token_dense_bytes(m),
        .max_batch_tokens = e->options.max_batch_tokens,
    };
    describe_memory(e, &full);
    memcpy(info, &full, min_size(info->size, sizeof full));
}

enum sluice_status sluice_engine_set_profile(sluice_engine *e,
                                             void (*step)(void *user,
                                                          const struct sluice_step *step),
                                             void *user, struct sluice_error *err)
{
    pthread_mutex_lock(&e->run_lock);
    enum sluice_status status =
        e->running ? err_set(err, SLUICE_E_STATE,
                             "a profile cannot begin or end in a callback of sluice_eval()")
                   : SLUICE_OK;
    if (status == SLUICE_OK) cpu_set_profile(e->backend, (struct cpu_profile){step, user});
    pthread_mutex_unlock(&e->run_lock);
    return status;
}

size_t sluice_engine_tensor_count(const sluice_engine *e)
{
    return e->checkpoint.n_tensors;
}

enum sluice_status sluice_engine_get_tensor(const sluice_engine *e, size_t index,
                                            struct sluice_tensor_info *info)
{
    static const char *const kinds[] = {[TENSOR_UNCLAIMED] = "unused",
                                        [TENSOR_DENSE] = "dense",
                                        [TENSOR_EXPERT] = "expert",
                                        [TENSOR_SKIPPED] = "skipped",
                                        [TENSOR_PADDING] = "padding"};
    if (index >= e->checkpoint.n_tensors) return SLUICE_E_ARGUMENT;
    const struct tensor *t = &e->checkpoint.tensors[index];
    struct sluice_tensor_info full = {.size = info->size,
                                      .name = t->name,
                                      .dtype = dtype_name(t->dtype),
                                      .rank = t->rank,
                                      .bytes = t->bytes,
                                      .file = checkpoint_file_name(&e->checkpoint, t),
                                      .offset = t->offset,
                                      .kind = kinds[e->model.tensor_kind[index]]};
    memcpy(full.shape, t->shape, sizeof full.shape);
    memcpy(info, &full, min_size(info->size, sizeof full));
    return SLUICE_OK;
}

const sluice_tokenizer *sluice_engine_tokenizer(const sluice_engine *e)
{
    return e->tokenizer;
}

enum sluice_status sluice_engine_tokenizer_status(const sluice_engine *e, struct sluice_error *err)
{
    if (e->tokenizer) return SLUICE_OK;
    if (err) *err = e->tokenizer_error;
    return e->tokenizer_error.code;
}

bool sluice_engine_is_eos(const sluice_engine *e, int32_t id)
{
    for (uint32_t i = 0; i < e->model.n_eos; i++)
        if (e->model.eos[i] == id) return true;
    return false;
}

void sluice_engine_get_stats(const sluice_engine *engine, struct sluice_stats *stats)
{
    /* The lock is state of the engine, not part of what const promises. */
    struct sluice_engine *e = (struct sluice_engine *)(uintptr_t)engine;
    pthread_mutex_lock(&e->run_lock);
    struct sluice_stats full = e->stats;
    if (e->store) {
        struct store_stats io;
        store_get_stats(e->store, &io);
        full.expert_hits = io.hits;
        full.expert_misses = io.misses;
        full.bytes_read = io.bytes_read;
        full.wait_ns = io.wait_ns;
        full.prefetch_predicted = io.guesses;
        full.prefetch_right = io.guesses_right;
        full.prefetch_read = io.guesses_read;
        full.prefetch_useful = io.guesses_useful;
        full.prefetch_late = io.guesses_late;
        full.prefetch_wasted = io.guesses_wasted_bytes;
    }
    pthread_mutex_unlock(&e->run_lock);
    full.size = stats->size;
    memcpy(stats, &full, min_size(stats->size, sizeof full));
}
