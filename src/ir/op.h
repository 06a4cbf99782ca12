/*
 * Ops: one payload struct per op, typed field by field, and for each op the table of its operands
 * and scalars that generic passes walk. Both come from op.def.
 */
#ifndef SLUICE_IR_OP_H
#define SLUICE_IR_OP_H

#include <stddef.h>

#include "ir/op.def"
#include "ir/role.h"

typedef uint32_t scalar_u32;
typedef float scalar_f32;
typedef bool scalar_flag;

enum op {
#define P(op) OP_KIND_##op,
    OPS(P)
#undef P
        OP_COUNT
};

#define B(op, mode, role, name) buf_##role name;
#define W(op, role, name) wt_##role name;
#define S(op, mode, kind, name) state_##kind name;
#define V(op, type, name) scalar_##type name;
#define P(op)                                                                                      \
    struct op_##op {                                                                               \
        OP_##op(B, W, S, V)                                                                        \
    };
OPS(P)
#undef P
#undef B
#undef W
#undef S
#undef V

enum operand_kind { OPERAND_BUFFER, OPERAND_WEIGHT, OPERAND_STATE, OPERAND_SCALAR };
enum operand_mode { MODE_IN, MODE_OUT, MODE_SCRATCH, MODE_INOUT };
enum scalar_type { SCALAR_u32, SCALAR_f32, SCALAR_flag };

struct operand {
    const char *name;
    uint16_t offset; /* in the payload */
    uint8_t kind;    /* enum operand_kind */
    uint8_t mode;    /* enum operand_mode; weights are MODE_IN */
    uint8_t role;    /* enum role, weight_role, state_kind or scalar_type */
};

struct op_info {
    const char *name;
    const struct operand *operands;
    uint32_t n_operands;
};

const struct op_info *op_info(enum op op);

/* One node of a graph. */
struct node {
    enum op op;
    uint32_t layer; /* for messages and dumps; UINT32_MAX outside the layers */
    union {
#define P(op) struct op_##op op;
        OPS(P)
#undef P
    } u;
};

/* The id in an operand of kind buffer, weight or state. */
static inline uint32_t operand_id(const struct node *node, const struct operand *operand)
{
    return *(const uint32_t *)((const char *)&node->u + operand->offset);
}

#endif
