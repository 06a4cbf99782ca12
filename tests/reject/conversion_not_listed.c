/* Conversions that no table lists. */
#include "ir/graph.h"

void wire(struct graph *g, buf_residual residual, buf_hidden hidden, buf_stream stream, buf_k key,
          buf_attn_gated gated, wt_embed embed, wt_lm_head head, wt_delta_norm delta,
          wt_attn_norm norm);
void wire(struct graph *g, buf_residual residual, buf_hidden hidden, buf_stream stream, buf_k key,
          buf_attn_gated gated, wt_embed embed, wt_lm_head head, wt_delta_norm delta,
          wt_attn_norm norm)
{
#ifdef ACCEPT
    (void)as_stream(hidden);
    (void)as_matmul_in(gated);
    (void)as_matrix(head);
    (void)as_norm(norm);
#else
    (void)as_stream(residual); /* REJECT */
    (void)as_stream(stream);   /* REJECT */
    (void)as_matmul_in(key);   /* REJECT */
    (void)as_matrix(embed);    /* REJECT */
    (void)as_norm(delta);      /* REJECT */
    (void)as_norm(gated);      /* REJECT */
#endif
}
