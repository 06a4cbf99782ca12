/* Opening an expert store: where experts lie, how many slots of which size, their memory. */
#include <stdlib.h>

#include "base/bits.h"
#include "base/mem.h"
#include "store/expert_extents.h"
#include "store/store_parts.h"

static uint32_t widest_alignment(const struct expert_store *s)
{
    uint32_t align = 64;
    for (uint32_t f = 0; f < s->n_files; f++)
        align = max_u32(align, reader_alignment(s->reader, f));
    return align;
}

uint64_t store_slot_bytes(const struct expert_bank *bank, uint32_t align)
{
    uint64_t largest = 0;
    for (uint32_t e = 0; e < bank->n_experts; e++) {
        uint64_t bytes = extents_slot_bytes(&bank->experts[e], align);
        if (bytes > largest) largest = bytes;
    }
    return align_up(largest, align);
}

/* Whether experts of both have slots of one size whatever the alignment. */
static bool same_parts(const struct expert_bank *a, const struct expert_bank *b)
{
    struct part_ref x[EXPERT_PARTS], y[EXPERT_PARTS];
    extents_parts(&a->experts[0], x);
    extents_parts(&b->experts[0], y);
    bool same = true;
    for (uint32_t p = 0; p < EXPERT_PARTS; p++) same = same && x[p].bytes == y[p].bytes;
    return same;
}

uint64_t store_least_bytes(const struct expert_bank *const *banks, uint32_t n_banks, uint32_t align)
{
    uint64_t least = 0;
    for (uint32_t b = 0; b < n_banks; b++) {
        uint32_t first = 0;
        while (!same_parts(banks[first], banks[b])) first++;
        if (first == b) least += store_slot_bytes(banks[b], align);
    }
    return least;
}

/* Every expert must lie in the files, so that a read never starts from a wrong place. */
static enum sluice_status check_bank(const struct expert_store *s, const struct expert_bank *bank,
                                     struct sluice_error *err)
{
    struct expert_extents extents;
    for (uint32_t e = 0; e < bank->n_experts; e++) {
        if (!extents_find(&bank->experts[e], s->files, s->n_files, &extents))
            return err_set(err, SLUICE_E_INTERNAL, "layer %u, expert %u lies in no file",
                           bank->layer, e);
        if (extents_slot_bytes(&bank->experts[e], widest_alignment(s)) > UINT32_MAX)
            return err_set(err, SLUICE_E_UNSUPPORTED,
                           "layer %u, expert %u has more bytes than the 4 GiB a read can bring",
                           bank->layer, e);
    }
    return SLUICE_OK;
}

static uint32_t class_of(struct expert_store *s, uint64_t slot_bytes)
{
    for (uint32_t c = 0; c < s->n_classes; c++)
        if (s->classes[c].slot_bytes == slot_bytes) return c;
    s->classes[s->n_classes] = (struct slot_class){.slot_bytes = slot_bytes};
    return s->n_classes++;
}

static enum sluice_status add_banks(struct expert_store *s, const struct expert_bank *const *banks,
                                    uint32_t n, struct sluice_error *err)
{
    uint32_t align = widest_alignment(s), most = 0;
    s->banks = calloc(n + 1, sizeof *s->banks);
    s->classes = calloc(n + 1, sizeof *s->classes);
    if (!s->banks || !s->classes) return err_nomem(err, "expert store", n * sizeof *s->banks);
    for (; s->n_banks < n; s->n_banks++) {
        const struct expert_bank *bank = banks[s->n_banks];
        TRY(check_bank(s, bank, err));
        uint32_t class = class_of(s, store_slot_bytes(bank, align));
        s->banks[s->n_banks] = (struct bank_entry){.bank = bank,
                                                   .first_key = s->n_keys,
                                                   .first_rank = s->classes[class].n_experts,
                                                   .class = class};
        s->classes[class].n_experts += bank->n_experts;
        s->n_keys += bank->n_experts;
        most = max_u32(most, bank->n_experts);
    }
    s->step.experts = calloc(most + 1, sizeof *s->step.experts);
    s->step.state = calloc(most + 1, 1);
    s->step.ranks = calloc(most + 1, sizeof *s->step.ranks);
    s->guess.experts = calloc(most + 1, sizeof *s->guess.experts);
    s->slot_of = calloc(s->n_keys + 1, sizeof *s->slot_of);
    s->checked = calloc(s->n_keys + 1, sizeof *s->checked);
    s->uses = calloc(s->n_keys + 1, sizeof *s->uses);
    if (!s->step.experts || !s->step.state || !s->step.ranks || !s->guess.experts || !s->slot_of ||
        !s->checked || !s->uses)
        return err_nomem(err, "expert store", s->n_keys * sizeof *s->slot_of);
    for (uint32_t k = 0; k < s->n_keys; k++) s->slot_of[k] = (uint32_t)NONE;
    return SLUICE_OK;
}

/* One slot per class, and of what is left as many as is in proportion to its experts. */
static uint32_t slots_by_count(const struct expert_store *s, const struct slot_class *k, uint32_t n)
{
    uint64_t asked = max_u32(n, s->n_classes) - s->n_classes, of = s->n_keys - s->n_classes;
    uint32_t most = k->n_experts - 1;
    return 1 + (asked >= of ? most : (uint32_t)(asked * most / of));
}

static enum sluice_status check_bytes(const struct expert_store *s, uint64_t slot_bytes,
                                      struct sluice_error *err)
{
    uint64_t least = 0;
    for (uint32_t c = 0; c < s->n_classes; c++) least += s->classes[c].slot_bytes;
    if (slot_bytes >= least) return SLUICE_OK;
    return err_set(err, SLUICE_E_BUDGET,
                   "%.1f MiB are left for experts; at least %.1f MiB are needed for one expert "
                   "of each size",
                   (double)slot_bytes / 1048576.0, (double)least / 1048576.0);
}

/* Room for the slots that classes could have, and as many as were asked for. */
static enum sluice_status alloc_slots(struct expert_store *s, const struct store_options *o,
                                      struct sluice_error *err)
{
    if (o->slot_bytes) TRY(check_bytes(s, o->slot_bytes, err));
    s->slots = calloc((size_t)s->n_keys + 1, sizeof *s->slots);
    if (!s->slots) return err_nomem(err, "expert slots", s->n_keys * sizeof *s->slots);
    for (uint32_t c = 0; c < s->n_classes; c++) {
        struct slot_class *k = &s->classes[c];
        uint32_t n =
            o->slot_bytes ? slots_by_bytes(s, k, o->slot_bytes) : slots_by_count(s, k, o->n_slots);
        if (!slots_reserve(k, n)) return err_nomem(err, "expert slots", n * k->slot_bytes);
        mem_spread(k->slab, k->slab_bytes, o->reader.memory_nodes);
        k->first = s->slot_room;
        s->slot_room += k->room;
        slots_set(s, k, n);
    }
    if (s->n_classes == 1) reader_register_buffer(s->reader, s->classes[0].slab, store_bytes(s));
    return SLUICE_OK;
}

static enum sluice_status open_policy(struct expert_store *s, uint32_t c, enum policy_kind kind,
                                      struct sluice_error *err)
{
    struct slot_class *k = &s->classes[c];
    k->layer_of = calloc(k->n_experts + 1, sizeof *k->layer_of);
    k->key_of = calloc(k->n_experts + 1, sizeof *k->key_of);
    if (!k->layer_of || !k->key_of) return err_nomem(err, "expert store", k->n_experts);
    for (uint32_t b = 0; b < s->n_banks; b++) {
        const struct bank_entry *entry = &s->banks[b];
        if (entry->class != c) continue;
        for (uint32_t e = 0; e < entry->bank->n_experts; e++) {
            k->layer_of[entry->first_rank + e] = b;
            k->key_of[entry->first_rank + e] = entry->first_key + e;
        }
    }
    struct policy_shape shape = {.n_keys = k->n_experts,
                                 .n_layers = s->n_banks,
                                 .layer_of = k->layer_of,
                                 .entry_bytes = k->slot_bytes};
    TRY(policy_open(&k->policy, kind, &shape, k->n, err));
    return policy_put_off(k->policy, err);
}

static enum sluice_status open_policies(struct expert_store *s, enum policy_kind kind,
                                        struct sluice_error *err)
{
    for (uint32_t c = 0; c < s->n_classes; c++) TRY(open_policy(s, c, kind, err));
    return SLUICE_OK;
}

enum sluice_status store_open(struct expert_store **out, const struct file_map *files,
                              uint32_t n_files, const struct expert_bank *const *banks,
                              uint32_t n_banks, const struct store_options *options,
                              struct sluice_error *err)
{
    *out = NULL;
    struct expert_store *s = calloc(1, sizeof *s);
    if (!s) return err_nomem(err, "expert store", sizeof *s);
    s->files = files;
    s->n_files = n_files;
    s->failed = (uint32_t)NONE;
    s->check = options->check;
    s->check_user = options->check_user;
    enum sluice_status status =
        reader_open_mapped(&s->reader, files, n_files, &options->reader, err);
    if (status == SLUICE_OK) status = add_banks(s, banks, n_banks, err);
    if (status == SLUICE_OK) status = alloc_slots(s, options, err);
    if (status == SLUICE_OK) status = open_policies(s, options->policy, err);
    if (status != SLUICE_OK) store_close(&s);
    *out = s;
    return status;
}

void store_close(struct expert_store **out)
{
    struct expert_store *s = *out;
    if (!s) return;
    *out = NULL;
    populate_stop(&s->populate);
    reader_close(&s->reader);
    for (uint32_t c = 0; c < s->n_classes; c++) {
        mem_unreserve(s->classes[c].slab, s->classes[c].slab_bytes);
        policy_close(&s->classes[c].policy);
        free(s->classes[c].free_slots);
        free(s->classes[c].layer_of);
        free(s->classes[c].key_of);
    }
    free(s->classes);
    free(s->banks);
    free(s->slots);
    free(s->slot_of);
    free(s->checked);
    free(s->uses);
    free(s->step.experts);
    free(s->step.state);
    free(s->step.ranks);
    free(s->guess.experts);
    free(s);
}
