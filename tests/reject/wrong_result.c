/* A result kept under another role. */
#include "ir/graph.h"

void wire(struct graph *g, buf_stream stream, buf_attn_input attn, buf_moe_input moe, buf_q_raw q,
          buf_q_gate gate, buf_q_stack stack);
void wire(struct graph *g, buf_stream stream, buf_attn_input attn, buf_moe_input moe, buf_q_raw q,
          buf_q_gate gate, buf_q_stack stack)
{
#ifdef ACCEPT
    attn = push_attn_norm(g, stream, WEIGHT(g, attn_norm, 1, 16), 1e-6f);
    q = PUSH(g, split_q_gate, .x = stack, .head_dim = 8).q;
    gate = PUSH(g, split_q_gate, .x = stack, .head_dim = 8).gate;
    graph_keep(g, attn);
#else
    moe = push_attn_norm(g, stream, WEIGHT(g, attn_norm, 1, 16), 1e-6f); /* REJECT */
    q = PUSH(g, split_q_gate, .x = stack, .head_dim = 8).gate;           /* REJECT */
    gate = PUSH(g, split_q_gate, .x = stack, .head_dim = 8).q;           /* REJECT */
    graph_keep(g, 16u);                                                  /* REJECT */
#endif
    (void)moe;
    (void)q;
    (void)gate;
}
