/*
 * The parts of an expert store. Private to the files that make it up: store_open.c builds them,
 * slots.c fills and empties slots, expert_store.c runs the steps, prefetch.c reads ahead of them.
 */
#ifndef SLUICE_STORE_STORE_PARTS_H
#define SLUICE_STORE_STORE_PARTS_H

#include "base/populate.h"
#include "store/expert_store.h"

enum { NONE = -1 };
/*
 * Errors of a slot beside those of reads: the check refused what was read; a read ahead was given
 * up when part of it had begun.
 */
enum { SLOT_REFUSED = -10, SLOT_WITHDRAWN = -11 };

/* What one slot holds. A slot is free when key is NONE, coming while reads are pending. */
struct slot {
    uint32_t key;
    uint32_t bank;
    uint32_t pins;
    uint32_t pending; /* windows still to come */
    uint64_t bytes;   /* of its windows */
    bool by_guess;    /* its reads were started by a guess, and are not all there yet */
    bool ahead;       /* read by a guess, and not asked for since */
    bool hinted;      /* of the guess that stands */
    int error;        /* of the first window that failed */
    uint32_t error_file;
    uint64_t error_offset;
    uint8_t *data;
    struct expert_view view;
};

/*
 * Slots of one size: the experts of some banks. The policy numbers them by rank, their place among
 * the experts of the class.
 */
struct slot_class {
    uint64_t slot_bytes;
    uint32_t n_experts; /* that could be in it */
    uint32_t first, n;  /* slots in use, the first n of the slab */
    uint32_t room;      /* slots that the slab has addresses for */
    uint32_t *free_slots;
    uint32_t n_free;
    uint32_t n_ahead;  /* slots that are ahead */
    uint32_t n_coming; /* slots that are by_guess */
    struct policy *policy;
    uint32_t *layer_of; /* per rank: the bank */
    uint32_t *key_of;   /* per rank: the key */
    void *slab;
    size_t slab_bytes;
};

struct bank_entry {
    const struct expert_bank *bank;
    uint32_t first_key;
    uint32_t first_rank; /* in its class */
    uint32_t class;
    uint64_t n_decode_steps;
};

enum step_state { STEP_UNASKED, STEP_WAITING, STEP_COMING, STEP_READY, STEP_GIVEN };

/* The step in progress. */
struct step {
    struct bank_entry *bank;
    uint32_t *experts; /* ascending */
    uint32_t n;
    uint32_t n_left;  /* not given yet */
    uint32_t n_ready; /* ready and not given */
    uint8_t *state;   /* per expert of the bank */
    uint32_t *ranks;  /* of the experts, for the policy */
    enum policy_use use;
};

/* The guess that stands: experts that the next step, one of that bank, may need. */
struct guess {
    const struct bank_entry *bank; /* NULL: no guess stands */
    uint32_t *experts;
    uint32_t n;
    bool sure; /* see store_read_on */
};

struct expert_store {
    const struct file_map *files;
    uint32_t n_files;
    struct reader *reader;
    struct bank_entry *banks;
    uint32_t n_banks;
    struct slot_class *classes;
    uint32_t n_classes;
    struct slot *slots;
    uint32_t n_slots;   /* in use, of all classes */
    uint32_t slot_room; /* entries of slots */
    uint32_t n_populaters;
    size_t populate_ahead;     /* bytes; 0: all */
    struct populate *populate; /* of the slots in use; NULL: none, or not possible */
    uint32_t *slot_of;         /* per key: its slot, or NONE */
    uint32_t n_keys;
    uint32_t failed; /* slot of the step whose read failed, or NONE */
    store_check_fn *check;
    const void *check_user;
    bool *checked;  /* per key: the check accepted it once */
    uint32_t *uses; /* per key: decode steps that asked for it */
    struct step step;
    struct guess guess;
    struct store_stats stats;
};

/* slots.c */

/* What a slot is filled with, and for whom. */
struct slot_load {
    const struct bank_entry *bank;
    uint32_t expert;
    enum policy_use use;
    bool ahead; /* reads have the priority of prefetch */
    bool sure;  /* and are as good as asked for */
};

static inline struct slot_class *class_of_bank(const struct expert_store *s,
                                               const struct bank_entry *bank)
{
    return &s->classes[bank->class];
}

/*
 * A slot of the class that holds nothing: a free one, else that of the expert which the policy
 * gives up first among those that may leave. NONE: no such.
 */
typedef bool slot_may_leave_fn(const struct slot *slot);
/* Nobody holds it, it is not on its way, and no step is likely to ask for it next. */
bool slot_is_spare(const struct slot *slot);
uint32_t slot_take(struct expert_store *s, struct slot_class *k, slot_may_leave_fn *may_leave);
/* Starts the reads of a slot that holds nothing. Errors: INTERNAL, NOMEM; some may be under way. */
enum sluice_status slot_fill(struct expert_store *s, uint32_t index, const struct slot_load *what,
                             struct sluice_error *err);
/* The slot holds nothing any more and is free. */
void slot_free(struct expert_store *s, uint32_t index);
/* A step asks for what was read ahead, or is being: from here on it is like any other. */
void slot_claim(struct expert_store *s, struct slot *slot);

/* expert_store.c */

/* What the step asked for is in its slot. */
void step_ready(struct expert_store *s, const struct slot *slot);
/* Gives up the guess that stands and waits for all reads. */
void store_drain(struct expert_store *s);

/* slot_memory.c */

/* Slots that a class gets of so many bytes for all of them: at least one, at most all experts. */
uint32_t slots_by_bytes(const struct expert_store *s, const struct slot_class *k,
                        uint64_t slot_bytes);
/* Takes addresses for all slots that a class could have, or at least for n. False: refused. */
bool slots_reserve(struct slot_class *k, uint32_t n);
/* Lets the class have n slots, at most its room; nothing may populate them meanwhile. */
void slots_set(struct expert_store *s, struct slot_class *k, uint32_t n);

/* prefetch.c */

/* A step begins: what the guess got right is counted, what it got wrong is given up. */
void guess_meets_step(struct expert_store *s);
/* Gives up what has not been read yet. */
void guess_end(struct expert_store *s);
/* All reads of a guess for this slot are there; the error is that of the slot. */
void guess_landed(struct expert_store *s, uint32_t index);

#endif
