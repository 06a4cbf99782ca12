/*
 * A bank: the routed experts of one layer, and where their bytes lie. Views point into mapped
 * files; the expert store turns them into extents and gives views of its slots instead.
 */
#ifndef SLUICE_STORE_BANK_H
#define SLUICE_STORE_BANK_H

#include "kernel/wtype.h"

/* The three matrices of one expert: gate and up [n_inter][hidden], down [hidden][n_inter]. */
struct expert_view {
    struct wmat gate, up, down;
};

struct expert_bank {
    uint32_t index; /* among the banks of the model */
    uint32_t layer; /* for messages */
    uint32_t n_experts;
    struct expert_view *experts; /* mapped */
};

#endif
