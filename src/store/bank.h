/*
 * A bank: the routed experts of one layer, wherever their bytes lie. Here they are mapped, and the
 * page cache decides what is in memory.
 */
#ifndef SLUICE_STORE_BANK_H
#define SLUICE_STORE_BANK_H

#include "kernel/wtype.h"

/* The three matrices of one expert: gate and up [n_inter][hidden], down [hidden][n_inter]. */
struct expert_view {
    struct wmat gate, up, down;
};

struct expert_bank {
    uint32_t n_experts;
    struct expert_view *experts;
};

#endif
