/* Operands of one op that change places. */
#include "ir/graph.h"

void wire(struct graph *g, buf_k k, buf_v v, buf_alpha_stack a, buf_beta_stack b,
          buf_shared_ffn_gate gate, buf_shared_ffn_up up, wt_neg_a n, wt_dt_bias d, state_kv kv);
void wire(struct graph *g, buf_k k, buf_v v, buf_alpha_stack a, buf_beta_stack b,
          buf_shared_ffn_gate gate, buf_shared_ffn_up up, wt_neg_a n, wt_dt_bias d, state_kv kv)
{
#ifdef ACCEPT
    PUSH(g, kv_append, .k = k, .v = v, .cache = kv);
    push_shared_swiglu(g, gate, up);
    PUSH(g, decay_beta, .alpha = a, .beta = b, .neg_a = n, .dt_bias = d);
#else
    PUSH(g, kv_append, .k = v, .v = v, .cache = kv);                      /* REJECT */
    PUSH(g, kv_append, .k = k, .v = k, .cache = kv);                      /* REJECT */
    push_shared_swiglu(g, up, gate);                                      /* REJECT */
    PUSH(g, decay_beta, .alpha = b, .beta = b, .neg_a = n, .dt_bias = d); /* REJECT */
    PUSH(g, decay_beta, .alpha = a, .beta = b, .neg_a = d, .dt_bias = d); /* REJECT */
#endif
}
