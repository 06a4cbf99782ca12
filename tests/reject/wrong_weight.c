/* A weight of another role, a buffer as a weight, a weight as a buffer. */
#include "ir/graph.h"

void wire(struct graph *g, buf_attn_input x, buf_qkv_stack qkv, buf_stream stream, wt_k_proj k,
          wt_qg_proj q, wt_conv conv, wt_attn_norm norm, wt_matrix matrix, state_conv state);
void wire(struct graph *g, buf_attn_input x, buf_qkv_stack qkv, buf_stream stream, wt_k_proj k,
          wt_qg_proj q, wt_conv conv, wt_attn_norm norm, wt_matrix matrix, state_conv state)
{
#ifdef ACCEPT
    push_qg_proj(g, x, q);
    push_attn_norm(g, stream, norm, 1e-6f);
    PUSH(g, conv, .x = qkv, .w = conv, .state = state);
#else
    push_qg_proj(g, x, k);                              /* REJECT */
    push_qg_proj(g, x, conv);                           /* REJECT */
    push_qg_proj(g, x, matrix);                         /* REJECT */
    push_qg_proj(g, x, x);                              /* REJECT */
    push_qg_proj(g, q, q);                              /* REJECT */
    push_attn_norm(g, stream, q, 1e-6f);                /* REJECT */
    PUSH(g, conv, .x = qkv, .w = norm, .state = state); /* REJECT */
    PUSH(g, conv, .x = qkv, .w = conv, .state = conv);  /* REJECT */
#endif
}
