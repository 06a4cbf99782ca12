/* Projections fed by a stream that is not theirs: not gated, not normed, not of the tail. */
#include "ir/graph.h"

void wire(struct graph *g, buf_attn_out out, buf_attn_gated gated, buf_delta_out read,
          buf_value_out value, buf_hidden hidden, buf_tail_hidden rows, buf_tail_normed normed);
void wire(struct graph *g, buf_attn_out out, buf_attn_gated gated, buf_delta_out read,
          buf_value_out value, buf_hidden hidden, buf_tail_hidden rows, buf_tail_normed normed)
{
#ifdef ACCEPT
    push_og_proj(g, gated, WEIGHT(g, og_proj, 16, 16));
    push_delta_proj(g, value, WEIGHT(g, delta_proj, 16, 16));
    push_lm_head(g, normed, WEIGHT(g, lm_head, 40, 16));
    push_tail_norm(g, rows, WEIGHT(g, tail_norm, 1, 16), 1e-6f);
#else
    push_og_proj(g, out, WEIGHT(g, og_proj, 16, 16));              /* REJECT */
    push_delta_proj(g, read, WEIGHT(g, delta_proj, 16, 16));       /* REJECT */
    push_lm_head(g, rows, WEIGHT(g, lm_head, 40, 16));             /* REJECT */
    push_lm_head(g, hidden, WEIGHT(g, lm_head, 40, 16));           /* REJECT */
    push_tail_norm(g, hidden, WEIGHT(g, tail_norm, 1, 16), 1e-6f); /* REJECT */
#endif
}
