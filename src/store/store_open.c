/* Opening an expert store: where experts lie, how many slots of which size, their memory. */
#include <stdlib.h>
#include <sys/mman.h>

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
    if (!s->step.experts || !s->step.state || !s->step.ranks || !s->guess.experts || !s->slot_of ||
        !s->checked)
        return err_nomem(err, "expert store", s->n_keys * sizeof *s->slot_of);
    for (uint32_t k = 0; k < s->n_keys; k++) s->slot_of[k] = (uint32_t)NONE;
    return SLUICE_OK;
}

/* Of n things, as many as part is of whole. */
static uint32_t portion(uint64_t part, uint64_t whole, uint32_t n)
{
    return part >= whole ? n : (uint32_t)(part * n / whole);
}

/* One slot per class, and of what is left as many as is in proportion to its experts. */
static enum sluice_status share_slots(struct expert_store *s, const struct store_options *o,
                                      struct sluice_error *err)
{
    uint64_t all = 0, least = 0;
    for (uint32_t c = 0; c < s->n_classes; c++) {
        all += s->classes[c].slot_bytes * s->classes[c].n_experts;
        least += s->classes[c].slot_bytes;
    }
    if (o->slot_bytes && o->slot_bytes < least)
        return err_set(err, SLUICE_E_BUDGET,
                       "%.1f MiB are left for experts; at least %.1f MiB are needed for one expert "
                       "of each size",
                       (double)o->slot_bytes / 1048576.0, (double)least / 1048576.0);
    for (uint32_t c = 0; c < s->n_classes; c++) {
        struct slot_class *k = &s->classes[c];
        uint32_t asked = max_u32(o->n_slots, s->n_classes) - s->n_classes;
        k->n = 1 + (o->slot_bytes ? portion(o->slot_bytes - least, all - least, k->n_experts - 1)
                                  : portion(asked, s->n_keys - s->n_classes, k->n_experts - 1));
        k->first = s->n_slots;
        s->n_slots += k->n;
    }
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
    return policy_open(&k->policy, kind, &shape, k->n, err);
}

static enum sluice_status open_policies(struct expert_store *s, enum policy_kind kind,
                                        struct sluice_error *err)
{
    for (uint32_t c = 0; c < s->n_classes; c++) TRY(open_policy(s, c, kind, err));
    return SLUICE_OK;
}

static enum sluice_status alloc_slots(struct expert_store *s, uint64_t memory_nodes,
                                      struct sluice_error *err)
{
    s->slots = calloc(s->n_slots + 1, sizeof *s->slots);
    if (!s->slots) return err_nomem(err, "expert slots", s->n_slots * sizeof *s->slots);
    for (uint32_t c = 0; c < s->n_classes; c++) {
        struct slot_class *k = &s->classes[c];
        if (!mul_size(k->slot_bytes, k->n, &k->slab_bytes) || !mem_reserve(k->slab_bytes, &k->slab))
            return err_nomem(err, "expert slots", k->slab_bytes);
        (void)madvise(k->slab, k->slab_bytes, MADV_HUGEPAGE);
        mem_spread(k->slab, k->slab_bytes, memory_nodes);
        k->free_slots = calloc(k->n + 1, sizeof *k->free_slots);
        if (!k->free_slots) return err_nomem(err, "expert slots", k->n);
        while (k->n_free < k->n) {
            k->free_slots[k->n_free] = k->first + k->n - 1 - k->n_free;
            k->n_free++;
        }
        for (uint32_t i = 0; i < k->n; i++)
            s->slots[k->first + i] = (struct slot){.key = (uint32_t)NONE,
                                                   .data = (uint8_t *)k->slab + i * k->slot_bytes};
    }
    if (s->n_classes == 1)
        reader_register_buffer(s->reader, s->classes[0].slab, s->classes[0].slab_bytes);
    return SLUICE_OK;
}

static enum sluice_status open_reader(struct expert_store *s, const struct reader_options *o,
                                      struct sluice_error *err)
{
    const char **paths = calloc(s->n_files + 1, sizeof *paths);
    if (!paths) return err_nomem(err, "expert store", s->n_files * sizeof *paths);
    for (uint32_t f = 0; f < s->n_files; f++) paths[f] = s->files[f].path;
    enum sluice_status status = reader_open(&s->reader, paths, s->n_files, o, err);
    free(paths);
    return status;
}

/* The reader's own view of the files must be the one the headers were checked against. */
static enum sluice_status check_files(const struct expert_store *s, struct sluice_error *err)
{
    for (uint32_t f = 0; f < s->n_files; f++)
        if (reader_file_bytes(s->reader, f) != s->files[f].bytes)
            return err_set(err, SLUICE_E_IO, "file '%s' changed its size while it was opened",
                           s->files[f].path);
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
    enum sluice_status status = open_reader(s, &options->reader, err);
    if (status == SLUICE_OK) status = check_files(s, err);
    if (status == SLUICE_OK) status = add_banks(s, banks, n_banks, err);
    if (status == SLUICE_OK) status = share_slots(s, options, err);
    if (status == SLUICE_OK) status = alloc_slots(s, options->reader.memory_nodes, err);
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
    free(s->step.experts);
    free(s->step.state);
    free(s->step.ranks);
    free(s->guess.experts);
    free(s);
}
