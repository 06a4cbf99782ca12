/* Ops of the residual stream: embedding, norms, projections, additions, selection of rows. */
#include <string.h>

#include "backend/cpu/cpu_internal.h"
#include "base/bits.h"

void cpu_embed(const struct task *t, const struct node *node)
{
    const struct op_embed *op = &node->u.embed;
    const struct wmat *table = &WT(t, op->table)->matrix;
    const int32_t *ids = BUF_I32(t, op->ids);
    float *y = BUF(t, op->y);
    uint32_t begin, end;
    share(t, N_ROWS(t, op->y), 1, &begin, &end);
    for (uint32_t r = begin; r < end; r++)
        t->k->dequant_row[table->type](table, (uint32_t)ids[r], y + (size_t)r * table->cols);
}

void cpu_rms_norm(const struct task *t, const struct node *node)
{
    const struct op_rms_norm *op = &node->u.rms_norm;
    const float *x = BUF(t, op->x);
    const float *w = WT(t, op->w)->values;
    float *y = BUF(t, op->y);
    uint32_t begin, end;
    share(t, N_ROWS(t, op->x) * (WIDTH(t, op->x) / op->dim), 1, &begin, &end);
    for (size_t i = begin; i < end; i++)
        t->k->rms_norm(x + i * op->dim, w, op->dim, op->eps, y + i * op->dim);
}

/* The input in int8, once for all projections that follow each other and share it. */
void cpu_quantize(const struct task *t, const struct step *step)
{
    const struct node *node = &t->be->graph->nodes.items[step->node];
    bool plain = node->op == OP_KIND_matmul;
    const float *x = plain ? BUF(t, node->u.matmul.x) : BUF(t, node->u.affine.x);
    uint32_t cols = plain ? WIDTH(t, node->u.matmul.x) : WIDTH(t, node->u.affine.x);
    uint32_t n = plain ? N_ROWS(t, node->u.matmul.x) : N_ROWS(t, node->u.affine.x);
    uint32_t begin, end, first, last;
    struct act8 *a = &t->be->act_dense[t->be->node_act[step->node]].act;
    share_columns(t, &step->sharing, n, cols, &begin, &end, &first, &last);
    if (begin + first == 0 && end) a->cols = cols;
    for (size_t r = begin; r < end; r++) {
        size_t at = r * cols + first, group = at / ACT8_GROUP;
        t->k->quantize_act8(x + at, last - first, a->q + at, a->scale + group, a->sum + group);
    }
}

/* Rows [begin, end) of W x for n rows of x. */
static void project(const struct task *t, const struct node *node, const struct wmat *w,
                    const float *x, uint32_t n, uint32_t begin, uint32_t end, float *y)
{
    size_t at = (size_t)(node - t->be->graph->nodes.items);
    const struct act8 *act = &t->be->act_dense[t->be->node_act[at]].act;
    void *scratch = scratch_of(t);
    switch ((enum node_mode)t->be->node_mode[at]) {
    case NODE_F32:
        t->k->matmul_f32[w->type](w, begin, end, x, w->cols, n, y, w->rows, scratch);
        break;
    case NODE_BF16:
        t->k->matmul_bf16[w->type](w, begin, end, x, w->cols, n, y, w->rows, scratch);
        break;
    case NODE_QUANTIZE:
    case NODE_INT8: t->k->matmul_i8[w->type](w, begin, end, act, 0, n, y, w->rows, scratch); break;
    }
}

/* What of a projection is this thread's. */
struct rows_left {
    struct pieces pieces;
    uint32_t first, last; /* a share that has not been taken */
};

static struct rows_left rows_of(const struct task *t, const struct node *node, const struct wmat *w,
                                uint32_t n_tokens)
{
    struct rows_left left = {.pieces = cpu_rows_in_pieces(t, node, w, n_tokens)};
    if (left.pieces.turn) return left;
    if (t->be->one)
        share_row(t, sharing_of(t, node), w->rows, &left.first, &left.last);
    else
        share(t, w->rows, row_grain(w), &left.first, &left.last);
    return left;
}

static bool next_rows(const struct task *t, struct rows_left *left, const struct wmat *w,
                      uint32_t *begin, uint32_t *end)
{
    if (!left->pieces.turn) {
        *begin = left->first;
        *end = left->first = left->last;
        return *begin < *end;
    }
    if (!cpu_next_piece(t, &left->pieces, begin, end)) return false;
    *begin *= row_grain(w);
    *end = min_u32(*end * row_grain(w), w->rows);
    return true;
}

void cpu_matmul(const struct task *t, const struct node *node)
{
    const struct op_matmul *op = &node->u.matmul;
    const struct wmat *w = &WT(t, op->w)->matrix;
    const uint32_t n = N_ROWS(t, op->x);
    struct rows_left left = rows_of(t, node, w, n);
    uint32_t begin, end;
    while (next_rows(t, &left, w, &begin, &end))
        project(t, node, w, BUF(t, op->x), n, begin, end, BUF(t, op->y));
}

void cpu_affine(const struct task *t, const struct node *node)
{
    const struct op_affine *op = &node->u.affine;
    const struct wmat *w = &WT(t, op->w)->matrix;
    const uint32_t n = N_ROWS(t, op->x);
    struct rows_left left = rows_of(t, node, w, n);
    uint32_t begin, end;
    while (next_rows(t, &left, w, &begin, &end)) {
        project(t, node, w, BUF(t, op->x), n, begin, end, BUF(t, op->y));
        for (size_t r = 0; r < n; r++) {
            float *y = BUF(t, op->y) + r * w->rows + begin;
            t->k->add(y, WT(t, op->b)->values + begin, end - begin, y);
        }
    }
}

void cpu_residual_add(const struct task *t, const struct node *node)
{
    const struct op_residual_add *op = &node->u.residual_add;
    const float *a = BUF(t, op->stream);
    const float *b = BUF(t, op->delta);
    float *y = BUF(t, op->y);
    const uint32_t width = WIDTH(t, op->y);
    uint32_t begin, end, first, last;
    share_columns(t, sharing_of(t, node), N_ROWS(t, op->y), width, &begin, &end, &first, &last);
    for (size_t r = begin; r < end; r++) {
        size_t at = r * width + first;
        t->k->add(a + at, b + at, last - first, y + at);
    }
}

void cpu_layer_add(const struct task *t, const struct node *node)
{
    const struct op_layer_add *op = &node->u.layer_add;
    const uint32_t width = WIDTH(t, op->y);
    uint32_t begin, end, first, last;
    share_columns(t, sharing_of(t, node), N_ROWS(t, op->y), width, &begin, &end, &first, &last);
    for (size_t r = begin; r < end; r++) {
        size_t at = r * width + first;
        t->k->add(BUF(t, op->residual) + at, BUF(t, op->delta) + at, last - first,
                  BUF(t, op->y) + at);
    }
}

void cpu_select_rows(const struct task *t, const struct node *node)
{
    const struct op_select_rows *op = &node->u.select_rows;
    const float *x = BUF(t, op->x);
    const int32_t *rows = BUF_I32(t, op->rows);
    float *y = BUF(t, op->y);
    size_t width = WIDTH(t, op->y);
    uint32_t begin, end;
    share(t, N_ROWS(t, op->y), 1, &begin, &end);
    for (size_t r = begin; r < end; r++)
        memcpy(y + r * width, x + (size_t)rows[r] * width, width * sizeof *y);
}
