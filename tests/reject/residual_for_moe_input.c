/* The residual stream where the normed input of the MoE block is meant. */
#include "ir/graph.h"

void wire(struct graph *g, buf_residual residual, buf_moe_input moe, buf_expert_rows rows);
void wire(struct graph *g, buf_residual residual, buf_moe_input moe, buf_expert_rows rows)
{
#ifdef ACCEPT
    push_router_proj(g, moe, WEIGHT(g, router_proj, 8, 16));
    push_shared_gate_proj(g, moe, WEIGHT(g, shared_gate_proj, 1, 16));
    PUSH(g, gather_rows, .x = moe, .rows = rows);
#else
    push_router_proj(g, residual, WEIGHT(g, router_proj, 8, 16));           /* REJECT */
    push_shared_gate_proj(g, residual, WEIGHT(g, shared_gate_proj, 1, 16)); /* REJECT */
    PUSH(g, gather_rows, .x = residual, .rows = rows);                      /* REJECT */
#endif
}
