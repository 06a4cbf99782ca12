/* 0, NULL, pointers and integers are no ids. */
#include "ir/graph.h"

void wire(struct graph *g, buf_attn_input x, wt_qg_proj w, buf_q q, state_kv_ready ready,
          uint32_t number, void *pointer);
void wire(struct graph *g, buf_attn_input x, wt_qg_proj w, buf_q q, state_kv_ready ready,
          uint32_t number, void *pointer)
{
#ifdef ACCEPT
    push_qg_proj(g, x, w);
    PUSH(g, attention, .q = q, .cache = ready, .n_heads = 2);
#else
    push_qg_proj(g, 0, w);                                   /* REJECT */
    push_qg_proj(g, NULL, w);                                /* REJECT */
    push_qg_proj(g, pointer, w);                             /* REJECT */
    push_qg_proj(g, number, w);                              /* REJECT */
    push_qg_proj(g, &x, w);                                  /* REJECT */
    push_qg_proj(g, x, 0);                                   /* REJECT */
    push_qg_proj(g, x, NULL);                                /* REJECT */
    PUSH(g, attention, .q = q, .cache = NULL, .n_heads = 2); /* REJECT */
#endif
}
