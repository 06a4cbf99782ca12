/* A bare integer initialises the first member of a nested struct, unless that is an error. */
#include "ir/graph.h"

void wire(struct graph *g, buf_expert_rows rows, buf_moe_input moe, buf_router_logits logits,
          buf_k k, buf_v v, state_kv kv);
void wire(struct graph *g, buf_expert_rows rows, buf_moe_input moe, buf_router_logits logits,
          buf_k k, buf_v v, state_kv kv)
{
#ifdef ACCEPT
    PUSH(g, gather_rows, .x = moe, .rows = rows);
    PUSH(g, gather_rows, moe, rows);
    PUSH(g, router, logits, .k = 2);
    PUSH(g, kv_append, .k = k, .v = v, .cache = kv);
    buf_moe_input one[] = {moe};
    (void)one;
#else
    PUSH(g, gather_rows, .x = 7, .rows = rows);     /* REJECT */
    PUSH(g, gather_rows, 1, 2);                     /* REJECT */
    PUSH(g, router, 3, .k = 2);                     /* REJECT */
    PUSH(g, kv_append, .k = k, .v = v, .cache = 0); /* REJECT */
    buf_moe_input two[] = {7, 8};                   /* REJECT */
    (void)two;
#endif
}
