/* Push functions that do not exist, or not for this op. */
#include "ir/graph.h"

void wire(struct graph *g, buf_attn_input x, buf_shared_ffn_gate gate, buf_shared_ffn_up up);
void wire(struct graph *g, buf_attn_input x, buf_shared_ffn_gate gate, buf_shared_ffn_up up)
{
#ifdef ACCEPT
    push_qg_proj(g, x, WEIGHT(g, qg_proj, 32, 16));
    push_shared_swiglu(g, gate, up);
    push_qg_proj(g, x, WEIGHT(g, qg_proj, 4, 4));
#else
    push_qg_projection(g, x, WEIGHT(g, qg_proj, 32, 16));                  /* REJECT */
    PUSH(g, swiglu, .gate = as_swiglu_gate(gate), .up = as_swiglu_up(up)); /* REJECT */
    PUSH(g, matmul, .x = as_matmul_in(x));                                 /* REJECT */
#endif
}
