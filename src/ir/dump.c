/*
 * The text form of a graph:
 * "rms_norm %3:hidden[64] attn_norm(1 x 64) dim=64 eps=1e-06 -> %7:attn_input[64]".
 */
#include <stdarg.h>
#include <stdio.h>

#include "base/bits.h"
#include "ir/build.h"

struct text {
    char *out;
    size_t cap, len;
};

static void put(struct text *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void put(struct text *t, const char *fmt, ...)
{
    size_t room = t->len < t->cap ? t->cap - t->len : 0;
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(room ? t->out + t->len : NULL, room, fmt, args);
    va_end(args);
    if (n > 0) t->len += (size_t)n;
}

static void put_weight(struct text *t, const struct graph *g, uint32_t id)
{
    const struct weight_decl *w = build_weight(g, id);
    put(t, " %s", weight_role_name(w->role));
    if (w->n_experts)
        put(t, "(%u x %u x %u%s)", w->n_experts, w->n_inter, w->cols, w->biased ? ", biased" : "");
    else if (w->n_heads)
        put(t, "(%u x %u x %u)", w->n_heads, w->rows, w->cols);
    else
        put(t, "(%u x %u)", w->rows, w->cols);
}

static void put_scalar(struct text *t, const struct node *node, const struct operand *o)
{
    const char *at = (const char *)&node->u + o->offset;
    switch ((enum scalar_type)o->role) {
    case SCALAR_u32: put(t, " %s=%u", o->name, *(const uint32_t *)at); break;
    case SCALAR_f32: put(t, " %s=%.9g", o->name, (double)*(const float *)at); break;
    case SCALAR_flag: put(t, " %s=%d", o->name, *(const bool *)at); break;
    }
}

static void put_buffer(struct text *t, const struct graph *g, uint32_t id)
{
    uint32_t index;
    if (!graph_buffer_index(g, id, &index)) {
        put(t, " %%?");
        return;
    }
    const struct buffer *b = &g->buffers.items[index];
    put(t, " %%%u:%s[%u]", index + 1, role_name(b->role), b->width);
}

static void put_operand(struct text *t, const struct graph *g, const struct node *node,
                        const struct operand *o)
{
    uint32_t id = o->kind == OPERAND_SCALAR ? 0 : operand_id(node, o);
    switch ((enum operand_kind)o->kind) {
    case OPERAND_BUFFER:
        if (o->mode == MODE_IN) put_buffer(t, g, id);
        break;
    case OPERAND_WEIGHT: put_weight(t, g, id); break;
    case OPERAND_STATE:
        put(t, " @%s.%u", state_kind_name((enum state_kind)o->role), build_state(g, id)->index);
        break;
    case OPERAND_SCALAR: put_scalar(t, node, o); break;
    }
}

static void put_node(struct text *t, const struct graph *g, const struct node *node)
{
    const struct op_info *info = op_info(node->op);
    put(t, "%s", info->name);
    for (uint32_t i = 0; i < info->n_operands; i++) put_operand(t, g, node, &info->operands[i]);
    put(t, " ->");
    for (uint32_t i = 0; i < info->n_operands; i++) {
        const struct operand *o = &info->operands[i];
        if (o->kind != OPERAND_BUFFER || o->mode == MODE_IN) continue;
        put_buffer(t, g, operand_id(node, o));
        if (o->mode == MODE_SCRATCH) put(t, "~");
    }
    put(t, "\n");
}

size_t graph_dump(const struct graph *g, char *out, size_t cap)
{
    struct text t = {out, cap, 0};
    uint32_t layer = UINT32_MAX;
    if (cap) out[0] = '\0';
    for (size_t n = 0; n < g->nodes.n; n++) {
        const struct node *node = &g->nodes.items[n];
        if (node->layer != layer) {
            if (node->layer == UINT32_MAX)
                put(&t, "tail\n");
            else
                put(&t, "layer %u\n", node->layer);
        }
        layer = node->layer;
        put_node(&t, g, node);
    }
    return t.len + 1;
}
