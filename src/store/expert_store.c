#include "store/expert_store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/clock.h"
#include "store/store_parts.h"

enum { RESULTS = 64, CACHE_LINE = 64 };

/* Loading */

static uint32_t key_of(const struct step *step, uint32_t expert)
{
    return step->bank->first_key + expert;
}

static uint32_t rank_of(const struct step *step, uint32_t expert)
{
    return step->bank->first_rank + expert;
}

static struct policy *policy_of(const struct expert_store *s)
{
    return s->classes[s->step.bank->class].policy;
}

/* A guess never keeps a step from a slot. */
static uint32_t find_slot(struct expert_store *s)
{
    struct slot_class *k = class_of_bank(s, s->step.bank);
    uint32_t index = slot_take(s, k, slot_is_spare);
    if (index != (uint32_t)NONE || !s->guess.bank) return index;
    guess_end(s);
    return slot_take(s, k, slot_is_spare);
}

/* Gives a slot to the expert and starts its reads. */
static enum sluice_status load(struct expert_store *s, uint32_t index, uint32_t expert,
                               struct sluice_error *err)
{
    struct slot_load what = {.bank = s->step.bank, .expert = expert, .use = s->step.use};
    s->step.state[expert] = STEP_COMING;
    enum sluice_status status = slot_fill(s, index, &what, err);
    s->slots[index].pins = 1;
    return status;
}

/* Starts as many waiting experts as there are slots for, in ascending order. */
static enum sluice_status start_loads(struct expert_store *s, struct sluice_error *err)
{
    for (uint32_t i = 0; i < s->step.n; i++) {
        uint32_t expert = s->step.experts[i];
        if (s->step.state[expert] != STEP_WAITING) continue;
        uint32_t slot = find_slot(s);
        if (slot == (uint32_t)NONE) return SLUICE_OK;
        TRY(load(s, slot, expert, err));
    }
    return SLUICE_OK;
}

void step_ready(struct expert_store *s, const struct slot *slot)
{
    s->step.state[slot->key - s->step.bank->first_key] = STEP_READY;
    s->step.n_ready++;
}

/* False: the expert was read for the first time and is not what it should be. */
static bool is_accepted(struct expert_store *s, const struct slot *slot)
{
    const struct bank_entry *b = &s->banks[slot->bank];
    if (!s->check || s->checked[slot->key]) return true;
    if (s->check(s->check_user, b->bank, slot->key - b->first_key, &slot->view, NULL) != SLUICE_OK)
        return false;
    s->checked[slot->key] = true;
    return true;
}

static void fail_slot(struct expert_store *s, struct slot *slot, int error)
{
    slot->error = error;
    if (!slot->by_guess) s->failed = (uint32_t)(slot - s->slots);
}

static void take_result(struct expert_store *s, const struct read_result *r)
{
    struct slot *slot = &s->slots[r->tag];
    if (r->error && !slot->error) {
        slot->error_file = r->file;
        slot->error_offset = r->offset;
        fail_slot(s, slot, r->error);
    }
    if (--slot->pending) return;
    if (!slot->error && !is_accepted(s, slot)) fail_slot(s, slot, SLOT_REFUSED);
    if (slot->by_guess)
        guess_landed(s, (uint32_t)r->tag);
    else if (!slot->error)
        step_ready(s, slot);
}

static enum sluice_status failure(const struct expert_store *s, const struct slot *slot,
                                  struct sluice_error *err)
{
    const struct expert_bank *bank = s->step.bank->bank;
    uint32_t expert = slot->key - s->step.bank->first_key;
    if (slot->error == SLOT_REFUSED) {
        TRY(s->check(s->check_user, bank, expert, &slot->view, err));
        return err_nomem(err, "checking an expert", 0); /* what else can pass the second time */
    }
    return err_set(err, SLUICE_E_IO, "layer %u, expert %u: reading file '%s' at offset %llu: %s",
                   bank->layer, expert, s->files[slot->error_file].path,
                   (unsigned long long)slot->error_offset, reader_error_text(slot->error));
}

void store_drain(struct expert_store *s)
{
    struct read_result results[RESULTS];
    guess_end(s);
    while (reader_pending(s->reader)) {
        size_t n = reader_poll(s->reader, results, RESULTS, true);
        for (size_t i = 0; i < n; i++) take_result(s, &results[i]);
    }
}

/* Waits for the reads of a step that failed, forgets what failed and unpins the rest. */
static void abandon_step(struct expert_store *s)
{
    store_drain(s);
    for (uint32_t i = 0; i < s->slot_room; i++) {
        s->slots[i].pins = 0;
        if (s->slots[i].error) slot_free(s, i);
    }
    s->step.n = s->step.n_left = s->step.n_ready = 0;
    s->failed = (uint32_t)NONE;
}

static enum sluice_status find_failure(struct expert_store *s, struct sluice_error *err)
{
    if (s->failed == (uint32_t)NONE) return SLUICE_OK;
    return failure(s, &s->slots[s->failed], err);
}

/* Steps */

/* A guess is reading it: the step waits for these reads, which are no longer a guess's. */
static enum sluice_status join(struct expert_store *s, uint32_t expert, uint32_t index,
                               struct sluice_error *err)
{
    s->step.state[expert] = STEP_COMING;
    s->stats.misses++;
    s->stats.guesses_late++;
    return reader_promote(s->reader, index, err);
}

static enum sluice_status ask(struct expert_store *s, uint32_t expert, struct sluice_error *err)
{
    uint32_t index = s->slot_of[key_of(&s->step, expert)];
    if (index == (uint32_t)NONE) {
        s->step.state[expert] = STEP_WAITING;
        s->stats.misses++;
        return SLUICE_OK;
    }
    struct slot *slot = &s->slots[index];
    slot->pins = 1;
    policy_hit(policy_of(s), rank_of(&s->step, expert), s->step.use);
    bool ahead = slot->ahead;
    if (ahead) slot_claim(s, slot);
    if (slot->pending) return join(s, expert, index, err);
    step_ready(s, slot);
    s->stats.hits++;
    s->stats.guesses_useful += ahead;
    return SLUICE_OK;
}

static enum sluice_status ask_all(struct expert_store *s, struct sluice_error *err)
{
    for (uint32_t i = 0; i < s->step.n; i++) TRY(ask(s, s->step.experts[i], err));
    return start_loads(s, err);
}

static void fetch_slot(const struct slot *slot)
{
    const char *at = (const char *)slot;
    for (size_t i = 0; i < sizeof *slot; i += CACHE_LINE) __builtin_prefetch(at + i, 1);
}

void store_foresee(const struct expert_store *s, const struct expert_bank *bank,
                   const int32_t *experts, uint32_t n)
{
    const struct bank_entry *b = &s->banks[bank->index];
    for (uint32_t i = 0; i < n; i++) {
        __builtin_prefetch(&s->slot_of[b->first_key + (uint32_t)experts[i]]);
        __builtin_prefetch(&s->uses[b->first_key + (uint32_t)experts[i]], 1);
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t index = s->slot_of[b->first_key + (uint32_t)experts[i]];
        if (index != (uint32_t)NONE) fetch_slot(&s->slots[index]);
    }
}

static void count_uses(struct expert_store *s)
{
    struct step *step = &s->step;
    step->bank->n_decode_steps++;
    for (uint32_t i = 0; i < step->n; i++) s->uses[key_of(step, step->experts[i])]++;
}

enum sluice_status store_begin(struct expert_store *s, const struct expert_bank *bank,
                               const uint32_t *experts, uint32_t n, enum policy_use use,
                               struct sluice_error *err)
{
    struct step *step = &s->step;
    step->bank = &s->banks[bank->index];
    step->n = step->n_left = n;
    step->n_ready = 0;
    step->use = use;
    memcpy(step->experts, experts, n * sizeof *experts);
    for (uint32_t i = 0; i < n; i++) step->ranks[i] = rank_of(step, experts[i]);
    if (use == USE_DECODE) count_uses(s);
    if (use != USE_GUESS) policy_step(policy_of(s), bank->index, step->ranks, n, use);
    guess_meets_step(s);
    enum sluice_status status = ask_all(s, err);
    if (status != SLUICE_OK) abandon_step(s);
    return status;
}

static uint32_t give_ready(struct expert_store *s, uint32_t *ready, uint32_t cap)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->step.n && n < cap && s->step.n_ready; i++) {
        uint32_t expert = s->step.experts[i];
        if (s->step.state[expert] != STEP_READY) continue;
        s->step.state[expert] = STEP_GIVEN;
        s->step.n_ready--;
        s->step.n_left--;
        ready[n++] = expert;
    }
    return n;
}

static enum sluice_status collect(struct expert_store *s, bool wait, struct sluice_error *err)
{
    struct read_result results[RESULTS];
    uint64_t start = wait ? clock_ns() : 0;
    size_t n = reader_poll(s->reader, results, RESULTS, wait);
    if (wait) s->stats.wait_ns += clock_ns() - start;
    for (size_t i = 0; i < n; i++) take_result(s, &results[i]);
    return find_failure(s, err);
}

/* What has come frees slots, and a guess that failed leaves its expert to be read again. */
static enum sluice_status advance_step(struct expert_store *s, bool wait, struct sluice_error *err)
{
    if (reader_pending(s->reader)) TRY(collect(s, false, err));
    TRY(find_failure(s, err));
    TRY(start_loads(s, err));
    while (wait && s->step.n_ready == 0 && s->step.n_left) {
        if (!reader_pending(s->reader))
            return err_set(err, SLUICE_E_INTERNAL,
                           "layer %u: %u experts wait for slots that "
                           "nobody gives back",
                           s->step.bank->bank->layer, s->step.n_left);
        TRY(collect(s, true, err));
        TRY(start_loads(s, err));
    }
    return SLUICE_OK;
}

enum sluice_status store_next(struct expert_store *s, uint32_t *ready, uint32_t cap, bool wait,
                              uint32_t *n, struct sluice_error *err)
{
    *n = 0;
    enum sluice_status status = advance_step(s, wait, err);
    if (status == SLUICE_OK)
        *n = give_ready(s, ready, cap);
    else
        abandon_step(s);
    return status;
}

void store_poll(struct expert_store *s)
{
    struct read_result results[RESULTS];
    if (!reader_pending(s->reader)) return;
    size_t n = reader_poll(s->reader, results, RESULTS, false);
    for (size_t i = 0; i < n; i++) take_result(s, &results[i]);
}

bool store_has_read(const struct expert_store *s)
{
    return reader_pending(s->reader) == 0 && s->step.n_left == s->step.n_ready;
}

void store_done(struct expert_store *s, uint32_t expert)
{
    s->slots[s->slot_of[key_of(&s->step, expert)]].pins = 0;
}

const struct expert_view *store_view(const struct expert_store *s, const struct expert_bank *bank,
                                     uint32_t expert)
{
    return &s->slots[s->slot_of[s->banks[bank->index].first_key + expert]].view;
}

/* Preloading */

/* What is loaded before any step: all there is room for, or what is chosen. */
struct preload {
    const bool *chosen; /* per key; NULL: all */
    uint32_t *experts, *ready;
};

/* The absent experts of a bank, as many as free slots hold. */
static uint32_t absent_experts(const struct expert_store *s, const struct bank_entry *b,
                               const struct preload *p)
{
    uint32_t room = s->classes[b->class].n_free, n = 0;
    for (uint32_t e = 0; e < b->bank->n_experts && n < room; e++) {
        uint32_t key = b->first_key + e;
        if (s->slot_of[key] == (uint32_t)NONE && (!p->chosen || p->chosen[key]))
            p->experts[n++] = e;
    }
    return n;
}

static enum sluice_status preload_bank(struct expert_store *s, const struct bank_entry *b,
                                       const struct preload *p, struct sluice_error *err)
{
    uint32_t n = absent_experts(s, b, p), left = n, got;
    if (n == 0) return SLUICE_OK;
    TRY(store_begin(s, b->bank, p->experts, n, USE_GUESS, err));
    while (left) {
        TRY(store_next(s, p->ready, b->bank->n_experts, true, &got, err));
        for (uint32_t i = 0; i < got; i++) store_done(s, p->ready[i]);
        left -= got;
    }
    return SLUICE_OK;
}

static enum sluice_status load_chosen(struct expert_store *s, const bool *chosen,
                                      store_progress_fn *progress, void *user,
                                      struct sluice_error *err)
{
    uint32_t most = 0;
    for (uint32_t b = 0; b < s->n_banks; b++) most = max_u32(most, s->banks[b].bank->n_experts);
    uint32_t *lists = calloc(2 * (size_t)most + 1, sizeof *lists);
    if (!lists) return err_nomem(err, "preloading", most);
    struct preload p = {chosen, lists, lists + most};
    enum sluice_status status = SLUICE_OK;
    struct store_stats before = s->stats; /* nobody asked for these experts yet */
    for (uint32_t b = 0; b < s->n_banks && status == SLUICE_OK; b++) {
        status = preload_bank(s, &s->banks[b], &p, err);
        if (status == SLUICE_OK && progress && !progress(user, b + 1, s->n_banks))
            status = err_set(err, SLUICE_E_CANCELLED,
                             "cancelled after the experts of %u of %u layers", b + 1, s->n_banks);
    }
    s->stats = before;
    free(lists);
    return status;
}

enum sluice_status store_preload(struct expert_store *s, store_progress_fn *progress, void *user,
                                 struct sluice_error *err)
{
    return load_chosen(s, NULL, progress, user, err);
}

/* The first of the list that there are free slots for. */
static void choose(const struct expert_store *s, const struct expert_place *places, size_t n,
                   uint32_t *room, bool *chosen)
{
    for (uint32_t c = 0; c < s->n_classes; c++) room[c] = s->classes[c].n_free;
    for (size_t i = 0; i < n; i++) {
        const struct bank_entry *b = &s->banks[places[i].bank];
        uint32_t key = b->first_key + places[i].expert;
        if (room[b->class] == 0 || chosen[key] || s->slot_of[key] != (uint32_t)NONE) continue;
        chosen[key] = true;
        room[b->class]--;
    }
}

enum sluice_status store_warm(struct expert_store *s, const struct expert_place *places, size_t n,
                              store_progress_fn *progress, void *user, struct sluice_error *err)
{
    bool *chosen = calloc((size_t)s->n_keys + 1, sizeof *chosen);
    uint32_t *room = calloc((size_t)s->n_classes + 1, sizeof *room);
    enum sluice_status status =
        chosen && room ? SLUICE_OK : err_nomem(err, "warming expert slots", s->n_keys);
    if (status == SLUICE_OK) {
        choose(s, places, n, room, chosen);
        status = load_chosen(s, chosen, progress, user, err);
    }
    free(chosen);
    free(room);
    return status;
}

const uint32_t *store_uses(const struct expert_store *s, uint32_t bank, uint64_t *n_steps)
{
    *n_steps = s->banks[bank].n_decode_steps;
    return s->uses + s->banks[bank].first_key;
}

void store_get_stats(const struct expert_store *s, struct store_stats *stats)
{
    *stats = s->stats;
    stats->bytes_read = reader_bytes(s->reader);
}

const struct reader_info *store_reader_info(const struct expert_store *s)
{
    return reader_get_info(s->reader);
}

uint32_t store_slots(const struct expert_store *s)
{
    return s->n_slots;
}

uint64_t store_bytes(const struct expert_store *s)
{
    uint64_t bytes = 0;
    for (uint32_t c = 0; c < s->n_classes; c++) bytes += s->classes[c].slot_bytes * s->classes[c].n;
    return bytes;
}
