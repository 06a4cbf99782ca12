/* What a declared weight is bound to: one entry per weight of the graph, in its order. */
#ifndef SLUICE_IR_BINDING_H
#define SLUICE_IR_BINDING_H

#include "kernel/wtype.h"

struct expert_bank;

/*
 * Where the matrices of a HEADS weight lie in one of all heads: the first row of head h is first +
 * h * stride. Transposed: [cols][rows] each.
 */
struct head_rows {
    uint32_t first, stride;
    bool transposed;
};

struct weight_data {
    struct wmat matrix;             /* MATRIX, HEADS */
    struct head_rows heads;         /* HEADS */
    const struct weight_data *same; /* whose matrix this is; NULL: its own */
    const float *values;            /* VECTOR [cols], CONV [rows][cols] */
    const struct expert_bank *bank; /* BANK */
};

#endif
