/* Made-up experts in files, in every way a checkpoint lays them out, and steps of a store over
 * them. */
#ifndef TESTS_EXPERT_FILES_H
#define TESTS_EXPERT_FILES_H

#include "base/bits.h"
#include "base/thread.h"
#include "fault_run.h"
#include "store/expert_extents.h"
#include "store/expert_store.h"

/*
 * Packed: an expert's parts follow one another. Stacked: all experts' first part, then all their
 * second one, and so on, each stack in a file of its own choosing. Scattered: anywhere.
 */
enum layout { PACKED, STACKED, SCATTERED };

struct bank_shape {
    enum layout layout;
    uint32_t n_experts, hidden, inter;
    enum wtype in, out; /* of gate and up; of down */
};

enum { MAX_BANKS = 6, MAX_EXPERTS = 32, MAX_HELD = MAX_EXPERTS };

struct place {
    uint32_t file;
    size_t offset;
};

struct world {
    struct corpus corpus;
    struct file_map maps[MAX_FILES];
    uint32_t n_banks;
    struct expert_bank banks[MAX_BANKS];
    const struct expert_bank *list[MAX_BANKS];
    struct expert_view views[MAX_BANKS][MAX_EXPERTS];
    struct place places[MAX_BANKS][MAX_EXPERTS][EXPERT_PARTS];
    uint64_t sizes[MAX_BANKS][EXPERT_PARTS];
};

static inline struct wmat shape_matrix(enum wtype type, uint32_t rows, uint32_t cols)
{
    return (struct wmat){.type = type, .rows = rows, .cols = cols, .group = 32};
}

static inline void world_place(struct world *w, struct rng *rng, size_t cursor[MAX_FILES],
                               uint32_t bank, uint32_t expert, uint32_t part, uint32_t file)
{
    (void)rng;
    w->places[bank][expert][part] = (struct place){file, cursor[file]};
    cursor[file] += w->sizes[bank][part];
}

static inline void world_lay_out(struct world *w, struct rng *rng, size_t cursor[MAX_FILES],
                                 uint32_t bank, enum layout layout)
{
    uint32_t n = w->banks[bank].n_experts, outer = layout == STACKED ? EXPERT_PARTS : n;
    for (uint32_t i = 0; i < outer; i++) {
        uint32_t file = rng_below(rng, MAX_FILES);
        cursor[file] += rng_below(rng, 3) ? rng_below(rng, 1500) : 0;
        for (uint32_t j = 0; j < (layout == STACKED ? n : EXPERT_PARTS); j++) {
            if (layout == SCATTERED) {
                file = rng_below(rng, MAX_FILES);
                cursor[file] += rng_below(rng, 5000);
            }
            world_place(w, rng, cursor, bank, layout == STACKED ? j : i, layout == STACKED ? i : j,
                        file);
        }
    }
}

static inline void world_point(struct world *w, uint32_t bank, uint32_t expert)
{
    struct expert_view *v = &w->views[bank][expert];
    struct wmat *mats[3] = {&v->gate, &v->up, &v->down};
    for (uint32_t p = 0; p < EXPERT_PARTS; p++) {
        const struct place *at = &w->places[bank][expert][p];
        struct wmat *m = mats[p / 3];
        if (w->sizes[bank][p] == 0) continue;
        const uint8_t **pointers[3] = {&m->data, &m->scales, &m->biases};
        *pointers[p % 3] = w->maps[at->file].data + at->offset;
    }
}

/* Files that begin with some other bytes and end with the last part, and banks that see them. */
static inline bool world_make(struct world *w, const struct bank_shape *shapes, uint32_t n,
                              uint64_t seed)
{
    struct rng rng = {seed};
    struct sluice_error err;
    size_t cursor[MAX_FILES] = {0};
    *w = (struct world){.n_banks = n};
    for (uint32_t f = 0; f < MAX_FILES; f++) cursor[f] = 1 + rng_below(&rng, 9000);
    for (uint32_t b = 0; b < n; b++) {
        const struct bank_shape *s = &shapes[b];
        struct expert_view view = {.gate = shape_matrix(s->in, s->inter, s->hidden),
                                   .up = shape_matrix(s->in, s->inter, s->hidden),
                                   .down = shape_matrix(s->out, s->hidden, s->inter)};
        struct part_ref parts[EXPERT_PARTS];
        extents_parts(&view, parts);
        for (uint32_t p = 0; p < EXPERT_PARTS; p++) w->sizes[b][p] = parts[p].bytes;
        for (uint32_t e = 0; e < s->n_experts; e++) w->views[b][e] = view;
        w->banks[b] = (struct expert_bank){
            .index = b, .layer = 3 * b + 5, .n_experts = s->n_experts, .experts = w->views[b]};
        w->list[b] = &w->banks[b];
        world_lay_out(w, &rng, cursor, b, s->layout);
    }
    bool ok = tempdir_make(&w->corpus.dir);
    for (uint32_t f = 0; f < MAX_FILES && ok; f++)
        ok = corpus_add(&w->corpus, cursor[f], seed * 100 + f) &&
             file_map_open(&w->maps[f], w->corpus.paths[f], &err) == SLUICE_OK;
    for (uint32_t b = 0; b < n && ok; b++)
        for (uint32_t e = 0; e < shapes[b].n_experts; e++) world_point(w, b, e);
    return ok;
}

static inline void world_release(struct world *w)
{
    for (uint32_t f = 0; f < MAX_FILES; f++) file_map_release(&w->maps[f]);
    corpus_release(&w->corpus);
}

static inline uint64_t world_expert_bytes(const struct world *w, uint32_t bank)
{
    uint64_t bytes = 0;
    for (uint32_t p = 0; p < EXPERT_PARTS; p++) bytes += w->sizes[bank][p];
    return bytes;
}

static inline bool same_shape(const struct wmat *a, const struct wmat *b)
{
    return a->type == b->type && a->rows == b->rows && a->cols == b->cols && a->group == b->group;
}

/* Whether the store's view holds the bytes that were written to the files. */
static inline bool holds_expert(const struct world *w, const struct expert_store *s, uint32_t bank,
                                uint32_t expert)
{
    const struct expert_view *v = store_view(s, &w->banks[bank], expert);
    const struct expert_view *want = &w->views[bank][expert];
    struct part_ref parts[EXPERT_PARTS];
    extents_parts(v, parts);
    bool same = same_shape(&v->gate, &want->gate) && same_shape(&v->up, &want->up) &&
                same_shape(&v->down, &want->down);
    for (uint32_t p = 0; p < EXPERT_PARTS; p++) {
        const struct place *at = &w->places[bank][expert][p];
        same = same && parts[p].bytes == w->sizes[bank][p] &&
               (parts[p].bytes == 0 ||
                memcmp(parts[p].data, w->corpus.bytes[at->file] + at->offset, parts[p].bytes) == 0);
    }
    return same;
}

/* A step as the MoE op takes it: several threads look at the experts that are there. */
struct stepper {
    const struct world *world;
    struct expert_store *store;
    struct pool *pool;
    struct rng rng;
    uint32_t bank;
    uint32_t wanted[MAX_EXPERTS], n_wanted;
    uint32_t held[MAX_HELD], n_held;
    bool wrong[16];
    uint64_t n_asked; /* by steps that ended well */
    struct sluice_error err;
};

static inline void stepper_look(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct stepper *t = arg;
    for (uint32_t i = thread; i < t->n_held; i += n_threads)
        if (!holds_expert(t->world, t->store, t->bank, t->held[i])) t->wrong[thread] = true;
}

static inline void stepper_compare(struct stepper *t)
{
    if (t->pool)
        pool_run(t->pool, stepper_look, t, 1);
    else
        stepper_look(t, 0, 1);
    for (uint32_t i = 0; i < COUNT_OF(t->wrong); i++) {
        CHECK(!t->wrong[i], "bank %u holds other bytes", t->bank);
        t->wrong[i] = false;
    }
}

/* Distinct experts of a bank, ascending. */
static inline void stepper_choose(struct stepper *t, uint32_t bank, uint32_t n)
{
    uint32_t of = t->world->banks[bank].n_experts, left = min_u32(n, of);
    t->bank = bank;
    t->n_wanted = 0;
    for (uint32_t e = 0; e < of; e++) {
        if (rng_below(&t->rng, of - e) >= left) continue;
        t->wanted[t->n_wanted++] = e;
        left--;
    }
}

static inline void stepper_choose_any(struct stepper *t)
{
    uint32_t bank = rng_below(&t->rng, t->world->n_banks);
    uint32_t n = t->world->banks[bank].n_experts;
    stepper_choose(t, bank, 1 + rng_below(&t->rng, rng_below(&t->rng, 4) ? min_u32(n, 4) : n));
}

/* Takes what is ready: in order, asked for, and not twice. */
static inline enum sluice_status stepper_take(struct stepper *t, uint32_t cap, bool wait,
                                              bool given[MAX_EXPERTS])
{
    uint32_t ready[MAX_EXPERTS], n;
    enum sluice_status status = store_next(t->store, ready, cap, wait, &n, &t->err);
    CHECK(status == SLUICE_OK || n == 0);
    CHECK(n <= cap);
    for (uint32_t i = 0; i < n; i++) {
        bool asked = false;
        for (uint32_t k = 0; k < t->n_wanted; k++) asked |= t->wanted[k] == ready[i];
        CHECK(asked && !given[ready[i]] && (i == 0 || ready[i - 1] < ready[i]), "expert %u",
              ready[i]);
        given[ready[i]] = true;
        t->held[t->n_held++] = ready[i];
    }
    return status;
}

static inline void stepper_give_back(struct stepper *t, uint32_t n)
{
    for (; n && t->n_held; n--) {
        uint32_t i = rng_below(&t->rng, t->n_held);
        store_done(t->store, t->held[i]);
        t->held[i] = t->held[--t->n_held];
    }
}

/* The chosen step, with experts taken and given back in any rhythm the store allows. */
static inline enum sluice_status stepper_run(struct stepper *t)
{
    bool given[MAX_EXPERTS] = {0};
    const struct expert_bank *bank = &t->world->banks[t->bank];
    enum policy_use use = rng_below(&t->rng, 3) ? USE_DECODE : USE_PREFILL;
    uint32_t n_given = 0;
    t->n_held = 0;
    TRY(store_begin(t->store, bank, t->wanted, t->n_wanted, use, &t->err));
    while (n_given < t->n_wanted) {
        uint32_t before = t->n_held;
        uint32_t cap = rng_below(&t->rng, 3) ? MAX_EXPERTS : 1 + rng_below(&t->rng, 3);
        TRY(stepper_take(t, cap, t->n_held == 0, given));
        CHECK(before || t->n_held, "waiting brought nothing");
        if (check_failures) return SLUICE_E_INTERNAL;
        n_given += t->n_held - before;
        stepper_compare(t);
        stepper_give_back(t, rng_below(&t->rng, 4) ? t->n_held : rng_below(&t->rng, 1 + t->n_held));
    }
    uint32_t none;
    CHECK(store_next(t->store, &none, 1, true, &none, &t->err) == SLUICE_OK && none == 0);
    stepper_compare(t);
    stepper_give_back(t, t->n_held);
    t->n_asked += t->n_wanted;
    return SLUICE_OK;
}

#endif
