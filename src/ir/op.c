#include "ir/op.h"

#include "base/bits.h"

#define B(op, mode, role, name)                                                                    \
    {#name, offsetof(struct op_##op, name), OPERAND_BUFFER, MODE_##mode, ROLE_##role},
#define W(op, role, name)                                                                          \
    {#name, offsetof(struct op_##op, name), OPERAND_WEIGHT, MODE_IN, WEIGHT_##role},
#define S(op, mode, kind, name)                                                                    \
    {#name, offsetof(struct op_##op, name), OPERAND_STATE, MODE_##mode, STATE_##kind},
#define V(op, type, name)                                                                          \
    {#name, offsetof(struct op_##op, name), OPERAND_SCALAR, MODE_IN, SCALAR_##type},
#define P(op) static const struct operand operands_##op[] = {OP_##op(B, W, S, V)};
OPS(P)
#undef P
#undef B
#undef W
#undef S
#undef V

static const struct op_info infos[OP_COUNT] = {
#define P(op) [OP_KIND_##op] = {#op, operands_##op, COUNT_OF(operands_##op)},
    OPS(P)
#undef P
};

const struct op_info *op_info(enum op op)
{
    return &infos[op];
}
