/* The MoE block's input where the input of attention is meant. */
#include "ir/graph.h"

void wire(struct graph *g, buf_moe_input moe, buf_attn_input attn);
void wire(struct graph *g, buf_moe_input moe, buf_attn_input attn)
{
#ifdef ACCEPT
    push_qg_proj(g, attn, WEIGHT(g, qg_proj, 32, 16));
    push_qkv_proj(g, attn, WEIGHT(g, qkv_proj, 32, 16));
#else
    push_qg_proj(g, moe, WEIGHT(g, qg_proj, 32, 16));   /* REJECT */
    push_qkv_proj(g, moe, WEIGHT(g, qkv_proj, 32, 16)); /* REJECT */
#endif
}
