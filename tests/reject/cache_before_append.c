/* Attention over a cache that does not hold the batch yet. */
#include "ir/graph.h"

void wire(struct graph *g, buf_q q, buf_k k, buf_v v, state_kv kv, state_kv_ready ready);
void wire(struct graph *g, buf_q q, buf_k k, buf_v v, state_kv kv, state_kv_ready ready)
{
#ifdef ACCEPT
    PUSH(g, attention, .q = q, .cache = ready, .n_heads = 2);
    PUSH(g, kv_append, .k = k, .v = v, .cache = kv);
    kv = kv;
#else
    PUSH(g, attention, .q = q, .cache = kv, .n_heads = 2); /* REJECT */
    PUSH(g, kv_append, .k = k, .v = v, .cache = ready);    /* REJECT */
    kv = ready;                                            /* REJECT */
#endif
}
