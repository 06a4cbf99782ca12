/*
 * The memory promise: one budget covers the program, dense weights, state, activations and expert
 * slots. It is planned before slots are taken, while dense weights come; what does not fit is
 * refused with the budget that would.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bits.h"
#include "engine/internal.h"
#include "io/memory_limit.h"
#include "store/mapped.h"

/*
 * What the process holds before the plan differs a little from one start to the next; the budget
 * that a refusal names has this much to spare, so that it works the next time.
 */
enum { SLACK_BYTES = 2 << 20 };

enum { MOST_POPULATERS = 4, LEAST_POPULATED = 64 << 20, TOKENS_AHEAD = 2 };
enum { ALIGN = MEMORY_ALIGN, THREAD_BYTES = 128 << 10, IO_BYTES = 1 << 20 };

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* All but slots. */
static uint64_t fixed_bytes(const struct memory_plan *p)
{
    return p->overhead + p->scratch + max_u64(p->session, p->sessions) + p->resident;
}

uint64_t memory_plan_total(const struct memory_plan *p)
{
    return fixed_bytes(p) + p->slots;
}

static uint64_t process_bytes(void)
{
    unsigned long long total, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f) return 0;
    if (fscanf(f, "%llu %llu", &total, &resident) != 2) resident = 0;
    fclose(f);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/*
 * What the process holds already: code, tokenizer, headers of the weight files. Not dense weights,
 * which may be on their way and are planned by their sizes.
 */
static uint64_t held_now(const struct sluice_engine *e)
{
    /* What comes between two looks at dense weights is counted half: nobody knows how much. */
    uint64_t before = resident_held(&e->resident), all = process_bytes();
    uint64_t dense = before + (max_u64(resident_held(&e->resident), before) - before) / 2;
    return all > dense ? all - dense : 0;
}

/* What the budget is, when so much is held already. */
static uint64_t budget_of(const struct sluice_engine *e, uint64_t held, uint64_t without_limit)
{
    uint64_t available = memory_available("");
    if (available) available += resident_held(&e->resident);
    /* Where the system does not say what it has, everything is tried. */
    if (e->options.ram_bytes) return e->options.ram_bytes;
    return available ? held + available / 20 * 19 : without_limit;
}

static uint64_t overhead(const struct sluice_engine *e, uint64_t held)
{
    return held + e->options.n_threads * (uint64_t)THREAD_BYTES + IO_BYTES;
}

static uint64_t session_bytes(const struct sluice_engine *e)
{
    uint32_t n_ctx = e->options.plan_ctx ? e->options.plan_ctx
                                         : min_u32(e->model.trained_context, SESSION_DEFAULT_CTX);
    return layout_session_bytes(&e->layout, n_ctx);
}

static uint64_t all_slot_bytes(const struct sluice_engine *e, uint64_t *largest)
{
    uint64_t all = 0;
    *largest = 0;
    for (uint32_t b = 0; b < e->model.n_banks; b++) {
        uint64_t one = store_slot_bytes(e->model.banks[b], ALIGN);
        all += one * e->model.banks[b]->n_experts;
        if (one > *largest) *largest = one;
    }
    return all;
}

/*
 * A long batch is worth memory that nobody wants, or a small part of what slots would get: more
 * slots help every token, but with a long batch a prompt reads each expert less often.
 */
enum { BATCH_PART = 16 };

uint32_t memory_batch(struct sluice_engine *e)
{
    uint64_t largest, slots = all_slot_bytes(e, &largest), held = held_now(e);
    uint64_t fixed = overhead(e, held) + session_bytes(e) + e->model.dense_bytes;
    uint64_t budget = budget_of(e, held, UINT64_MAX);
    uint64_t left = budget > fixed ? budget - fixed : 0;
    uint32_t batch = LEAST_BATCH, context = e->options.plan_ctx;
    if (context == 0) context = e->model.trained_context;
    if (e->options.n_slots) slots = min_u64(slots, largest * e->options.n_slots);
    for (uint32_t twice = 2 * batch; twice <= MOST_BATCH && batch < context; twice *= 2) {
        uint64_t scratch = e->plan.least_scratch * (twice / LEAST_BATCH);
        bool spare = left >= slots && scratch <= left - slots;
        if (!spare && scratch > left / BATCH_PART) break;
        batch = twice;
    }
    return batch;
}

/* Bytes for slots that the budget leaves. */
static uint64_t slots_left(const struct memory_plan *p)
{
    uint64_t fixed = fixed_bytes(p);
    return min_u64(p->budget > fixed ? p->budget - fixed : 0, p->most_slots);
}

static enum sluice_status too_small(const struct memory_plan *p, struct sluice_error *err)
{
    return err_set(err, SLUICE_E_BUDGET,
                   "%.1f MiB of memory are too few: dense weights take %.1f, activations %.1f, the "
                   "session %.1f, the program %.1f; the smallest budget that works is %.1f MiB",
                   (double)p->budget / 1048576.0, (double)p->resident / 1048576.0,
                   (double)p->least_scratch / 1048576.0, (double)p->session / 1048576.0,
                   (double)p->overhead / 1048576.0, (double)p->smallest / 1048576.0);
}

/* Fills the plan; slots get what is left of the budget, or what n_slots asks for. */
static enum sluice_status make_plan(struct sluice_engine *e, uint64_t resident,
                                    struct sluice_error *err)
{
    const struct sluice_engine_options *o = &e->options;
    struct memory_plan *p = &e->plan;
    uint64_t largest, all = all_slot_bytes(e, &largest), held = held_now(e);
    uint64_t least = store_least_bytes(e->model.banks, e->model.n_banks, ALIGN);
    p->overhead = overhead(e, held);
    p->scratch = cpu_scratch_bytes(e->backend);
    p->session = session_bytes(e);
    p->resident = resident;
    uint64_t fixed = fixed_bytes(p);
    p->least_slots = least;
    p->most_slots = all;
    uint64_t saved = p->scratch - min_u64(p->least_scratch, p->scratch);
    p->smallest = fixed - saved + least + SLACK_BYTES;
    p->budget = budget_of(e, held, fixed + all);
    if (o->n_slots) {
        uint64_t wanted = largest * o->n_slots;
        p->slots = p->most_slots = max_u64(min_u64(wanted, all), least);
        p->smallest = fixed - saved + p->slots + SLACK_BYTES;
        return o->ram_bytes && fixed + p->slots > o->ram_bytes ? too_small(p, err) : SLUICE_OK;
    }
    if (p->budget < fixed + least) return too_small(p, err);
    p->slots = slots_left(p);
    return SLUICE_OK;
}

struct reader_options memory_reader_options(const struct sluice_engine *e)
{
    static const enum reader_kind kinds[] = {[SLUICE_IO_AUTO] = READER_AUTO,
                                             [SLUICE_IO_URING] = READER_URING,
                                             [SLUICE_IO_PREAD] = READER_PREAD,
                                             [SLUICE_IO_MMAP] = READER_AUTO};
    return (struct reader_options){.kind = kinds[e->options.io],
                                   .depth = e->options.queue_depth,
                                   .memory_nodes = e->processors.nodes};
}

_Static_assert((int)SLUICE_POLICY_LRU == (int)POLICY_LRU, "policies are numbered as in policy.def");
_Static_assert((int)SLUICE_POLICY_AUTO == (int)POLICY_AUTO,
               "policies are numbered as in policy.def");

/* A few cores clear memory as fast as many, and a little of it is soon there anyway. */
uint32_t memory_populaters(const struct sluice_engine *e, uint64_t bytes)
{
    bool pays = !e->options.plan_only && bytes >= LEAST_POPULATED;
    return pays ? min_u32(e->options.n_threads, MOST_POPULATERS) : 0;
}

static enum sluice_status open_store(struct sluice_engine *e, struct sluice_error *err)
{
    struct store_options o = {.slot_bytes = e->options.n_slots ? 0 : e->plan.slots,
                              .n_slots = e->options.n_slots,
                              .policy = (enum policy_kind)e->options.policy,
                              .check = e->packed ? verify_expert : NULL,
                              .check_user = e,
                              .reader = memory_reader_options(e)};
    TRY(store_open(&e->store, e->checkpoint.files, (uint32_t)e->checkpoint.n_files, e->model.banks,
                   e->model.n_banks, &o, err));
    /* Slots that were asked for stay, until a session needs what they hold. */
    e->plan.granted_slots = slots_left(&e->plan);
    e->plan.slots = store_bytes(e->store);
    e->plan.n_slots = store_slots(e->store);
    cpu_use_store(e->backend, e->store);
    return SLUICE_OK;
}

bool memory_goes_on(void *engine, uint64_t done, uint64_t total)
{
    const struct sluice_engine_options *o = &((const struct sluice_engine *)engine)->options;
    if (o->load_progress) o->load_progress(o->load_user, done, total);
    return !o->load_cancelled || !o->load_cancelled(o->load_user);
}

static enum sluice_status fill_store(struct sluice_engine *e, struct sluice_error *err)
{
    TRY(heat_warm(e, err));
    if (!e->options.preload) return SLUICE_OK;
    return store_preload(e->store, memory_goes_on, e, err);
}

enum sluice_status memory_begin(struct sluice_engine *e, struct sluice_error *err)
{
    const struct sluice_engine_options *o = &e->options;
    if (o->io == SLUICE_IO_MMAP || e->model.n_banks == 0 || o->plan_only) return SLUICE_OK;
    uint64_t dense, held = held_now(e);
    TRY(dense_bytes(e, &dense, err));
    uint64_t least = held + dense + store_least_bytes(e->model.banks, e->model.n_banks, ALIGN);
    return budget_of(e, held, UINT64_MAX) < least ? SLUICE_OK : dense_begin(e, err);
}

/*
 * What two tokens may need is there before they do. All at once would hold up the first token: a
 * machine gives only so much new memory a second, and the process waits for whoever is taking some
 * when it maps a file or a stack.
 */
static void populate_store(struct sluice_engine *e)
{
    uint64_t largest, all = all_slot_bytes(e, &largest);
    uint64_t token = (uint64_t)e->model.n_banks * e->model.n_picks * largest;
    size_t ahead = (size_t)min_u64(all, max_u64(token * TOKENS_AHEAD, LEAST_POPULATED));
    store_populate(e->store, memory_populaters(e, e->plan.slots), ahead);
}

/*
 * Memory for slots is taken once dense weights have theirs: a machine gives only so much new memory
 * a second, and they are needed first.
 */
static enum sluice_status open_streamed(struct sluice_engine *e, struct sluice_error *err)
{
    uint64_t dense;
    TRY(dense_bytes(e, &dense, err));
    TRY(make_plan(e, dense, err));
    if (e->options.plan_only) return open_store(e, err);
    if (!e->dense_load) TRY(dense_begin(e, err));
    TRY(open_store(e, err));
    TRY(dense_end(e, populate_store, err));
    return fill_store(e, err);
}

enum sluice_status memory_open(struct sluice_engine *e, struct sluice_error *err)
{
    const struct sluice_engine_options *o = &e->options;
    e->plan.mapped = o->io == SLUICE_IO_MMAP || e->model.n_banks == 0;
    if (e->plan.mapped) {
        if (o->n_slots || o->ram_bytes || o->preload)
            return err_set(err, SLUICE_E_ARGUMENT,
                           "mapped experts have no slots and no budget: the page cache decides");
        if (o->mmap_advice == SLUICE_MMAP_RANDOM)
            mapped_read_here_and_there(e->checkpoint.files, e->checkpoint.n_files);
        e->plan.overhead = held_now(e);
        e->plan.scratch = cpu_scratch_bytes(e->backend);
        e->plan.session = session_bytes(e);
        return e->options.plan_only ? SLUICE_OK : verify_mapped(e, NULL, err);
    }
    return open_streamed(e, err);
}

/* Changes while running */

struct memory_plan memory_plan_now(struct sluice_engine *e)
{
    pthread_mutex_lock(&e->plan_lock);
    struct memory_plan plan = e->plan;
    pthread_mutex_unlock(&e->plan_lock);
    return plan;
}

void memory_settle(struct sluice_engine *e)
{
    if (!e->store) return;
    struct memory_plan plan = memory_plan_now(e);
    uint64_t left = slots_left(&plan);
    if (left == plan.granted_slots) return;
    store_resize(e->store, left);
    pthread_mutex_lock(&e->plan_lock);
    e->plan.granted_slots = left;
    e->plan.slots = store_bytes(e->store);
    e->plan.n_slots = store_slots(e->store);
    pthread_mutex_unlock(&e->plan_lock);
}

/* Slots that are too many go now, while nothing uses them; more of them come with time. */
static enum sluice_status shrink_now(struct sluice_engine *e, struct sluice_error *err)
{
    struct memory_plan plan = memory_plan_now(e);
    if (slots_left(&plan) >= plan.granted_slots) return SLUICE_OK;
    pthread_mutex_lock(&e->run_lock);
    /* The lock is recursive: who holds it already is this thread. */
    enum sluice_status status =
        e->running ? err_set(err, SLUICE_E_STATE,
                             "expert slots cannot give memory back in a callback of sluice_eval()")
                   : SLUICE_OK;
    if (status == SLUICE_OK) memory_settle(e);
    pthread_mutex_unlock(&e->run_lock);
    return status;
}

void memory_remove_session(struct sluice_engine *e, uint64_t bytes)
{
    pthread_mutex_lock(&e->plan_lock);
    e->plan.sessions -= bytes;
    pthread_mutex_unlock(&e->plan_lock);
}

/* The change is made when it fits. */
static bool try_plan(struct sluice_engine *e, uint64_t more_sessions, uint64_t budget,
                     struct memory_plan *tried)
{
    pthread_mutex_lock(&e->plan_lock);
    *tried = e->plan;
    tried->sessions += more_sessions;
    if (budget) tried->budget = budget;
    bool fits = tried->mapped || fixed_bytes(tried) + tried->least_slots <= tried->budget;
    if (fits) e->plan = *tried;
    pthread_mutex_unlock(&e->plan_lock);
    return fits;
}

enum sluice_status memory_add_session(struct sluice_engine *e, uint64_t bytes,
                                      struct sluice_error *err)
{
    struct memory_plan tried;
    if (!try_plan(e, bytes, 0, &tried))
        return err_set(err, SLUICE_E_BUDGET,
                       "a session of %.1f MiB does not fit: the others take %.1f MiB, and %.1f MiB "
                       "of memory would be needed, not %.1f; a smaller context needs less",
                       (double)bytes / 1048576.0, (double)(tried.sessions - bytes) / 1048576.0,
                       (double)(fixed_bytes(&tried) + tried.least_slots) / 1048576.0,
                       (double)tried.budget / 1048576.0);
    enum sluice_status status = shrink_now(e, err);
    if (status != SLUICE_OK) memory_remove_session(e, bytes);
    return status;
}

enum sluice_status sluice_engine_set_ram(sluice_engine *e, uint64_t ram_bytes,
                                         struct sluice_error *err)
{
    struct memory_plan before = memory_plan_now(e), tried;
    if (before.mapped) return err_set(err, SLUICE_E_ARGUMENT, "mapped experts have no budget");
    if (ram_bytes == 0) return err_set(err, SLUICE_E_ARGUMENT, "a budget of 0 bytes");
    if (!try_plan(e, 0, ram_bytes, &tried))
        return err_set(err, SLUICE_E_BUDGET,
                       "%.1f MiB of memory are too few now; the smallest budget that works is "
                       "%.1f MiB",
                       (double)ram_bytes / 1048576.0,
                       (double)(fixed_bytes(&tried) + tried.least_slots) / 1048576.0 + 0.1);
    enum sluice_status status = shrink_now(e, err);
    if (status != SLUICE_OK) (void)try_plan(e, 0, before.budget, &tried);
    return status;
}
