/* Filling and emptying slots. */
#include <errno.h>

#include "base/bits.h"
#include "store/expert_extents.h"
#include "store/store_parts.h"

static uint32_t rank_in(const struct expert_store *s, const struct slot *slot)
{
    const struct bank_entry *b = &s->banks[slot->bank];
    return slot->key - b->first_key + b->first_rank;
}

static struct slot_class *class_of_slot(const struct expert_store *s, const struct slot *slot)
{
    return class_of_bank(s, &s->banks[slot->bank]);
}

void slot_claim(struct expert_store *s, struct slot *slot)
{
    slot->ahead = slot->hinted = false;
    class_of_slot(s, slot)->n_ahead--;
}

/* What was read ahead and never asked for was read in vain. */
static void empty(struct expert_store *s, struct slot *slot)
{
    if (slot->ahead) {
        slot_claim(s, slot);
        s->stats.guesses_wasted_bytes += slot->bytes;
    }
    policy_remove(class_of_slot(s, slot)->policy, rank_in(s, slot));
    s->slot_of[slot->key] = (uint32_t)NONE;
    slot->key = (uint32_t)NONE;
    slot->error = 0;
    slot->hinted = false;
}

void slot_free(struct expert_store *s, uint32_t index)
{
    struct slot *slot = &s->slots[index];
    struct slot_class *k = class_of_slot(s, slot);
    empty(s, slot);
    k->free_slots[k->n_free++] = index;
}

bool slot_is_spare(const struct slot *slot)
{
    return slot->pins == 0 && slot->pending == 0 && !slot->hinted;
}

struct victim_query {
    const struct expert_store *store;
    const struct slot_class *class;
    slot_may_leave_fn *may_leave;
};

static bool may_leave(const void *user, uint32_t rank)
{
    const struct victim_query *q = user;
    uint32_t key = q->class->key_of[rank];
    return q->may_leave(&q->store->slots[q->store->slot_of[key]]);
}

uint32_t slot_take(struct expert_store *s, struct slot_class *k, slot_may_leave_fn *leaves)
{
    if (k->n_free) return k->free_slots[--k->n_free];
    struct victim_query query = {s, k, leaves};
    uint32_t rank = policy_victim(k->policy, may_leave, &query);
    if (rank == NO_KEY) return (uint32_t)NONE;
    uint32_t index = s->slot_of[k->key_of[rank]];
    empty(s, &s->slots[index]);
    return index;
}

static enum sluice_status submit_windows(struct expert_store *s, uint32_t index,
                                         const struct slot_load *what,
                                         const struct expert_windows *windows,
                                         struct sluice_error *err)
{
    struct slot *slot = &s->slots[index];
    populate_avoid(s->populate, slot->data, class_of_bank(s, what->bank)->slot_bytes);
    for (uint32_t i = 0; i < windows->n; i++) {
        const struct window *w = &windows->window[i];
        struct read_op op = {.file = w->file,
                             .offset = w->offset,
                             .bytes = (uint32_t)w->bytes,
                             .need = (uint32_t)w->need,
                             .into = slot->data + w->slot_off,
                             .tag = index,
                             .prefetch = what->ahead,
                             .sure = what->sure};
        TRY(reader_submit(s->reader, &op, err));
        slot->pending++;
        slot->bytes += w->need;
    }
    return SLUICE_OK;
}

enum sluice_status slot_fill(struct expert_store *s, uint32_t index, const struct slot_load *what,
                             struct sluice_error *err)
{
    struct slot *slot = &s->slots[index];
    const struct bank_entry *b = what->bank;
    const struct expert_view *mapped = &b->bank->experts[what->expert];
    struct slot_class *k = class_of_bank(s, b);
    struct expert_extents extents = {0};
    struct expert_windows windows = {0};
    bool found = extents_find(mapped, s->files, s->n_files, &extents);
    uint32_t align = 1;
    for (uint32_t p = 0; p < EXPERT_PARTS; p++)
        if (extents.part[p].bytes)
            align = max_u32(align, reader_alignment(s->reader, extents.part[p].file));
    if (found) extents_windows(&extents, align, &windows);
    slot->view = extents_view(mapped, &windows, slot->data);
    slot->key = b->first_key + what->expert;
    slot->bank = b->bank->index;
    slot->bytes = 0;
    slot->by_guess = slot->ahead = slot->hinted = what->ahead;
    k->n_ahead += what->ahead;
    s->slot_of[slot->key] = index;
    policy_insert(k->policy, b->first_rank + what->expert, what->use);
    enum sluice_status status =
        found ? submit_windows(s, index, what, &windows, err)
              : err_set(err, SLUICE_E_INTERNAL, "layer %u, expert %u lies in no file",
                        b->bank->layer, what->expert);
    if (status != SLUICE_OK) slot->error = ENOMEM; /* what is in it is not the expert */
    return status;
}
