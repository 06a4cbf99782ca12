/*
 * A bank: the routed experts of one layer, and where their bytes lie. Views point into mapped
 * files; the expert store turns them into extents and gives views of its slots instead.
 */
#ifndef SLUICE_STORE_BANK_H
#define SLUICE_STORE_BANK_H

#include "kernel/wtype.h"

/*
 * The matrices of one expert: gate and up [n_inter][hidden], down [hidden][n_inter]. In a paired
 * bank gate has both, row 2 i being of the gate and row 2 i + 1 of up, and up has no rows. In a
 * transposed bank rows and columns change places.
 */
struct expert_view {
    struct wmat gate, up, down;
};

struct expert_bank {
    uint32_t index; /* among the banks of the model */
    uint32_t layer; /* for messages */
    uint32_t n_experts;
    bool paired, transposed;
    /* [n_experts][2 n_inter] in the order of gate and up, [n_experts][hidden]; NULL: none */
    const float *gate_up_bias, *down_bias;
    struct expert_view *experts; /* mapped */
};

#endif
