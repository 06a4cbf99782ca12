#include "store/prefetch.h"

#include <string.h>

#include "base/bits.h"
#include "store/store_parts.h"

/*
 * Of the slots of a size, those that guesses may take from experts which steps have used: a part,
 * and at most so many. A step that asks for what was guessed gives the room back: it would have
 * needed a slot as well.
 */
enum { AHEAD_SHARE = 8, AHEAD_MOST = 16 };

static struct slot *slot_with(const struct expert_store *s, const struct bank_entry *bank,
                              uint32_t expert)
{
    uint32_t index = s->slot_of[bank->first_key + expert];
    return index == (uint32_t)NONE ? NULL : &s->slots[index];
}

static bool is_old_guess(const struct slot *slot)
{
    return slot_is_spare(slot) && slot->ahead;
}

/*
 * With free slots only those on their way are counted: what has come is the first to leave when a
 * step needs its slot.
 */
static uint32_t take_slot(struct expert_store *s, const struct bank_entry *bank)
{
    struct slot_class *k = class_of_bank(s, bank);
    uint32_t most = min_u32(k->n / AHEAD_SHARE, s->guess.sure ? k->n : AHEAD_MOST);
    if (k->n_coming >= most) return (uint32_t)NONE;
    return slot_take(s, k, k->n_ahead < most ? slot_is_spare : is_old_guess);
}

/* A slot whose reads have not begun is free again; one with some under way is when they have come.
 */
static void give_up(struct expert_store *s, struct slot *slot)
{
    uint32_t index = (uint32_t)(slot - s->slots);
    struct reads_moved dropped = reader_withdraw(s->reader, index);
    slot->pending -= dropped.n;
    slot->bytes -= dropped.bytes;
    if (dropped.n) slot->error = SLOT_WITHDRAWN;
    if (slot->error && slot->pending == 0) guess_landed(s, index);
}

/* Reads one expert ahead; false: there is no slot for it. */
static bool read_ahead(struct expert_store *s, const struct bank_entry *bank, uint32_t expert)
{
    struct slot_load what = {
        .bank = bank, .expert = expert, .use = USE_GUESS, .ahead = true, .sure = s->guess.sure};
    uint32_t index = take_slot(s, bank);
    if (index == (uint32_t)NONE) return false;
    class_of_bank(s, bank)->n_coming++;
    bool ok = slot_fill(s, index, &what, NULL) == SLUICE_OK;
    if (!ok) give_up(s, &s->slots[index]);
    return ok;
}

/* Starts what has just been put into the guess. */
static void begin(struct expert_store *s, const struct expert_bank *bank, uint32_t n, bool sure)
{
    struct guess *guess = &s->guess;
    const uint32_t *experts = guess->experts;
    guess->bank = &s->banks[bank->index];
    guess->n = n;
    guess->sure = sure;
    s->stats.guesses += n;
    for (uint32_t i = 0; i < n; i++) {
        struct slot *slot = slot_with(s, guess->bank, experts[i]);
        if (slot) slot->hinted = true;
    }
    for (uint32_t i = 0; i < n; i++)
        if (!slot_with(s, guess->bank, experts[i]) && !read_ahead(s, guess->bank, experts[i]))
            break;
}

void store_guess(struct expert_store *s, const struct expert_bank *bank, const uint32_t *experts,
                 uint32_t n)
{
    guess_end(s);
    memcpy(s->guess.experts, experts, n * sizeof *experts);
    begin(s, bank, n, false);
}

void store_read_on(struct expert_store *s, const struct expert_bank *bank)
{
    guess_end(s);
    for (uint32_t e = 0; e < bank->n_experts; e++) s->guess.experts[e] = e;
    begin(s, bank, bank->n_experts, true);
}

/* Ends the guess; kept: whether a step asks for the expert. */
static void end(struct expert_store *s, bool (*kept)(const struct step *step, uint32_t expert))
{
    struct guess *guess = &s->guess;
    for (uint32_t i = 0; i < guess->n && guess->bank; i++) {
        struct slot *slot = slot_with(s, guess->bank, guess->experts[i]);
        bool right = kept && kept(&s->step, guess->experts[i]);
        s->stats.guesses_right += right;
        if (!slot) continue;
        slot->hinted = false;
        if (slot->by_guess && slot->ahead && !right) give_up(s, slot);
    }
    guess->bank = NULL;
    guess->n = 0;
}

void guess_end(struct expert_store *s)
{
    end(s, NULL);
}

static bool is_asked(const struct step *step, uint32_t expert)
{
    uint32_t lo = 0, hi = step->n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (step->experts[mid] < expert)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < step->n && step->experts[lo] == expert;
}

void guess_meets_step(struct expert_store *s)
{
    end(s, s->guess.bank == s->step.bank ? is_asked : NULL);
}

/* A step that joined the reads of a guess that failed reads the expert itself. */
void guess_landed(struct expert_store *s, uint32_t index)
{
    struct slot *slot = &s->slots[index];
    const struct bank_entry *b = &s->banks[slot->bank];
    uint32_t expert = slot->key - b->first_key;
    bool joined = slot->pins > 0;
    slot->by_guess = false;
    class_of_bank(s, b)->n_coming--;
    if (slot->error) {
        if (slot->error != SLOT_WITHDRAWN) slot->bytes = 0; /* nothing came */
        slot->pins = 0;
        slot_free(s, index);
        if (joined) s->step.state[expert] = STEP_WAITING;
    } else {
        s->stats.guesses_read++;
        if (joined) step_ready(s, slot);
    }
}
