/* There is no way back from a union to a role. */
#include "ir/graph.h"

void wire(struct graph *g, buf_stream stream, buf_hidden hidden, buf_matmul_in wide,
          buf_attn_input x, buf_rms_out normed, wt_matrix matrix, wt_qg_proj w);
void wire(struct graph *g, buf_stream stream, buf_hidden hidden, buf_matmul_in wide,
          buf_attn_input x, buf_rms_out normed, wt_matrix matrix, wt_qg_proj w)
{
#ifdef ACCEPT
    push_qg_proj(g, x, w);
    hidden = hidden;
    w = w;
#else
    push_qg_proj(g, wide, w);   /* REJECT */
    push_qg_proj(g, normed, w); /* REJECT */
    push_qg_proj(g, x, matrix); /* REJECT */
    hidden = stream;            /* REJECT */
    hidden = as_stream(hidden); /* REJECT */
    w = as_matrix(w);           /* REJECT */
#endif
}
