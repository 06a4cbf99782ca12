/* Something else where the graph is meant. */
#include "ir/graph.h"

void wire(struct graph *g, struct sluice_error *err, const struct graph *constant, buf_attn_input x,
          wt_q_proj w, struct graph **graphs);
void wire(struct graph *g, struct sluice_error *err, const struct graph *constant, buf_attn_input x,
          wt_q_proj w, struct graph **graphs)
{
#ifdef ACCEPT
    push_q_proj(g, x, w);
#else
    push_q_proj(err, x, w);    /* REJECT */
    push_q_proj(graphs, x, w); /* REJECT */
    push_q_proj(*g, x, w);     /* REJECT */
    push_q_proj(x, x, w);      /* REJECT */
    push_q_proj(7, x, w);      /* REJECT */
#endif
}
