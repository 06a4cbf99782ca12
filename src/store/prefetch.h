/*
 * Reading experts ahead of the step that may need them. A guess names experts of one bank; it
 * stands until the next step begins or another guess is made. What it reads goes into free slots or
 * into those of experts that the policy would give up next; once the slots are full, guesses that
 * no step has asked for hold at most an eighth of them, and at most 16. Its reads wait for all
 * demand reads; a step that needs an expert which is on its way joins the reads that are under way.
 * A guess changes what is read and when, never what a step gets: reads of a guess that fail are
 * forgotten, and the step reads again.
 */
#ifndef SLUICE_STORE_PREFETCH_H
#define SLUICE_STORE_PREFETCH_H

#include "store/expert_store.h"

/* Where guesses come from: what the sequence's last token used, or the router before its time. */
enum prefetch_kind { PREFETCH_OFF, PREFETCH_LAST, PREFETCH_ROUTER, PREFETCH_KINDS };

/* The next step, one of this bank, may need these experts. Likeliest first, each once. */
void store_guess(struct expert_store *store, const struct expert_bank *bank,
                 const uint32_t *experts, uint32_t n);

/*
 * The same for all experts of the bank, when nearly all will be needed, as by a long prompt: reads
 * may fill the drive's queue, and may take an eighth of the slots however many these are.
 */
void store_read_on(struct expert_store *store, const struct expert_bank *bank);

#endif
