/*
 * The parts of an expert store. Private to the files that make it up: store_open.c builds them,
 * expert_store.c moves experts in and out of them.
 */
#ifndef SLUICE_STORE_STORE_PARTS_H
#define SLUICE_STORE_STORE_PARTS_H

#include "store/expert_store.h"

enum { NONE = -1 };
/* An error of a slot beside errno values and READER_EOF: the check refused what was read. */
enum { SLOT_REFUSED = -2 };

/* What one slot holds. A slot is free when key is NONE, coming while reads are pending. */
struct slot {
    uint32_t key;
    uint32_t pins;
    uint32_t pending; /* windows still to come */
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
    uint32_t first, n;  /* slots */
    uint32_t *free_slots;
    uint32_t n_free;
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
};

enum step_state { STEP_UNASKED, STEP_WAITING, STEP_COMING, STEP_READY, STEP_GIVEN };

/* The step in progress. */
struct step {
    const struct bank_entry *bank;
    uint32_t *experts; /* ascending */
    uint32_t n;
    uint32_t n_left;  /* not given yet */
    uint32_t n_ready; /* ready and not given */
    uint8_t *state;   /* per expert of the bank */
    uint32_t *ranks;  /* of the experts, for the policy */
    enum policy_use use;
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
    uint32_t n_slots;
    uint32_t *slot_of; /* per key: its slot, or NONE */
    uint32_t n_keys;
    uint32_t failed; /* slot of the step whose read failed, or NONE */
    store_check_fn *check;
    const void *check_user;
    bool *checked; /* per key: the check accepted it once */
    struct step step;
    struct store_stats stats;
};

#endif
