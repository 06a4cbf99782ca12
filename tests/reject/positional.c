/* Payloads without names: an operand too early. */
#include "ir/graph.h"

void wire(struct graph *g, buf_q_normed q, buf_rope_table table, buf_hidden hidden,
          buf_stream stream, buf_attn_proj delta);
void wire(struct graph *g, buf_q_normed q, buf_rope_table table, buf_hidden hidden,
          buf_stream stream, buf_attn_proj delta)
{
#ifdef ACCEPT
    push_rope_q(g, q, table, 8, 4);
    PUSH(g, residual_add, stream, delta);
#else
    push_rope_q(g, table, q, 8, 4);       /* REJECT */
    PUSH(g, residual_add, delta, stream); /* REJECT */
    PUSH(g, residual_add, hidden, delta); /* REJECT */
#endif
}
