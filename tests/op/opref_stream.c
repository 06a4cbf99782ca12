/* The residual stream: embedding, norms, projections, additions, selection of rows. */
#include <math.h>

#include "opcheck.h"

void gen_embed(struct world *w, const struct op_embed *o)
{
    uint32_t vocab = weight_of(w, o->table.id)->matrix.rows;
    for (uint32_t t = 0; t < w->batch.n_tokens; t++)
        ints(w, o->ids.id)[t] = (int32_t)rng_below(&w->rng, vocab);
    ints(w, o->ids.id)[0] = (int32_t)vocab - 1;
}

void ref_embed(const struct world *w, const struct op_embed *o, struct expected *e)
{
    const struct wmat *table = &weight_of(w, o->table.id)->matrix;
    for (uint32_t t = 0; t < w->batch.n_tokens; t++)
        for (uint32_t k = 0; k < table->cols; k++)
            e->out[0][(size_t)t * table->cols + k] =
                weight_at(table, (uint32_t)ints(w, o->ids.id)[t], k);
}

void gen_rms_norm(struct world *w, const struct op_rms_norm *o)
{
    fill(w, o->x.id, -3, 5);
}

void ref_rms_norm(const struct world *w, const struct op_rms_norm *o, struct expected *e)
{
    const float *x = floats(w, o->x.id), *scale = weight_of(w, o->w.id)->values;
    size_t n = (size_t)rows_of(w, o->x.id) * width_of(w, o->x.id);
    for (size_t at = 0; at < n; at += o->dim) {
        double squares = 0;
        for (uint32_t i = 0; i < o->dim; i++) squares += (double)x[at + i] * x[at + i];
        double rms = sqrt(squares / o->dim + o->eps);
        for (uint32_t i = 0; i < o->dim; i++) e->out[0][at + i] = x[at + i] / rms * scale[i];
    }
}

void gen_matmul(struct world *w, const struct op_matmul *o)
{
    fill(w, o->x.id, -2, 2);
}

void ref_matmul(const struct world *w, const struct op_matmul *o, struct expected *e)
{
    product(&weight_of(w, o->w.id)->matrix, floats(w, o->x.id), rows_of(w, o->x.id),
            inputs_of(w, o->w.id), e->out[0]);
}

void gen_affine(struct world *w, const struct op_affine *o)
{
    fill(w, o->x.id, -2, 2);
}

void ref_affine(const struct world *w, const struct op_affine *o, struct expected *e)
{
    const struct wmat *m = &weight_of(w, o->w.id)->matrix;
    size_t n = (size_t)rows_of(w, o->x.id) * m->rows;
    product(m, floats(w, o->x.id), rows_of(w, o->x.id), inputs_of(w, o->w.id), e->out[0]);
    for (size_t i = 0; i < n; i++) e->out[0][i] += weight_of(w, o->b.id)->values[i % m->rows];
}

void gen_residual_add(struct world *w, const struct op_residual_add *o)
{
    fill(w, o->stream.id, -100, 100);
    fill(w, o->delta.id, -1, 1);
}

void ref_residual_add(const struct world *w, const struct op_residual_add *o, struct expected *e)
{
    const float *a = floats(w, o->stream.id), *b = floats(w, o->delta.id);
    size_t n = (size_t)w->batch.n_tokens * width_of(w, o->stream.id);
    for (size_t i = 0; i < n; i++) e->out[0][i] = (double)a[i] + b[i];
}

void gen_layer_add(struct world *w, const struct op_layer_add *o)
{
    fill(w, o->residual.id, -100, 100);
    fill(w, o->delta.id, -1, 1);
}

void ref_layer_add(const struct world *w, const struct op_layer_add *o, struct expected *e)
{
    const float *a = floats(w, o->residual.id), *b = floats(w, o->delta.id);
    size_t n = (size_t)w->batch.n_tokens * width_of(w, o->residual.id);
    for (size_t i = 0; i < n; i++) e->out[0][i] = (double)a[i] + b[i];
}

/* Ascending, with gaps. */
void gen_select_rows(struct world *w, const struct op_select_rows *o)
{
    fill(w, o->x.id, -10, 10);
    for (uint32_t i = 0; i < w->batch.n_outputs; i++)
        ints(w, o->rows.id)[i] = (int32_t)(w->batch.n_tokens - w->batch.n_outputs + i);
    if (w->batch.n_outputs < w->batch.n_tokens) ints(w, o->rows.id)[0] = 0;
}

void ref_select_rows(const struct world *w, const struct op_select_rows *o, struct expected *e)
{
    size_t width = width_of(w, o->x.id);
    for (uint32_t i = 0; i < w->batch.n_outputs; i++)
        for (size_t k = 0; k < width; k++)
            e->out[0][i * width + k] =
                floats(w, o->x.id)[(size_t)ints(w, o->rows.id)[i] * width + k];
}
