/* Something else where the graph is meant. */
#include "ir/graph.h"

void wire(struct graph *g, struct sluice_error *err, const struct graph *constant, buf_attn_input x,
          wt_qg_proj w, struct graph **graphs);
void wire(struct graph *g, struct sluice_error *err, const struct graph *constant, buf_attn_input x,
          wt_qg_proj w, struct graph **graphs)
{
#ifdef ACCEPT
    push_qg_proj(g, x, w);
#else
    push_qg_proj(err, x, w);    /* REJECT */
    push_qg_proj(graphs, x, w); /* REJECT */
    push_qg_proj(*g, x, w);     /* REJECT */
    push_qg_proj(x, x, w);      /* REJECT */
    push_qg_proj(7, x, w);      /* REJECT */
#endif
}
