/* What a declared weight is bound to: one entry per weight of the graph, in its order. */
#ifndef SLUICE_IR_BINDING_H
#define SLUICE_IR_BINDING_H

#include "kernel/wtype.h"

struct expert_bank;

struct weight_data {
    struct wmat matrix;             /* MATRIX */
    const float *values;            /* VECTOR [cols], CONV [rows][cols] */
    const struct expert_bank *bank; /* BANK */
};

#endif
