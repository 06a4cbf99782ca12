/* Gated DeltaNet (arXiv:2412.06464), token by token. */
#include <math.h>

#include "opcheck.h"

void gen_split_qkvz(struct world *w, const struct op_split_qkvz *o)
{
    fill(w, o->x.id, -3, 3);
}

/* Where each value of a row comes from: the head, then the place within it. */
void ref_split_qkvz(const struct world *w, const struct op_split_qkvz *o, struct expected *e)
{
    uint32_t width = width_of(w, o->x.id), channels = width_of(w, o->qkv.id);
    uint32_t values = width_of(w, o->z.id), heads = o->n_k_heads, dk = o->dk;
    uint32_t head = width / heads, each = values / heads;
    for (uint32_t t = 0; t < w->batch.n_tokens; t++) {
        const float *x = floats(w, o->x.id) + (size_t)t * width;
        for (uint32_t i = 0; i < heads * dk; i++) {
            e->out[0][(size_t)t * channels + i] = x[i / dk * head + i % dk];
            e->out[0][(size_t)t * channels + heads * dk + i] = x[i / dk * head + dk + i % dk];
        }
        for (uint32_t i = 0; i < values; i++) {
            const float *v = x + i / each * head + 2 * dk + i % each;
            e->out[0][(size_t)t * channels + 2 * heads * dk + i] = v[0];
            e->out[1][(size_t)t * values + i] = v[each];
        }
    }
}

void gen_split_ba(struct world *w, const struct op_split_ba *o)
{
    fill(w, o->x.id, -3, 3);
}

void ref_split_ba(const struct world *w, const struct op_split_ba *o, struct expected *e)
{
    uint32_t heads = width_of(w, o->beta.id), each = heads / o->n_k_heads;
    for (uint32_t t = 0; t < w->batch.n_tokens; t++)
        for (uint32_t h = 0; h < heads; h++) {
            const float *x = floats(w, o->x.id) + (size_t)t * 2 * heads + h / each * 2 * each;
            e->out[0][(size_t)t * heads + h] = x[h % each];
            e->out[1][(size_t)t * heads + h] = x[each + h % each];
        }
}

void gen_conv(struct world *w, const struct op_conv *o)
{
    fill(w, o->x.id, -3, 3);
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

/* Row i of the segment's inputs, those of the state first: negative i. */
static float conv_input(const struct world *w, const struct op_conv *o,
                        const struct batch_segment *s, int64_t i, uint32_t c)
{
    uint32_t channels = width_of(w, o->x.id), index;
    size_t off = recurrent_of(w, o->state.id, &index)->off;
    if (i >= 0) return floats(w, o->x.id)[((size_t)s->first + (size_t)i) * channels + c];
    size_t row = (size_t)(i + o->width - 1);
    return s->sequence->recurrent[s->sequence->committed][off + row * channels + c];
}

void ref_conv(const struct world *w, const struct op_conv *o, struct expected *e)
{
    uint32_t channels = width_of(w, o->x.id), index;
    size_t off = recurrent_of(w, o->state.id, &index)->off;
    const float *weight = weight_of(w, o->w.id)->values;
    e->changed_recurrent = index + 1;
    for (uint32_t s = 0; s < w->batch.n_segments; s++) {
        const struct batch_segment *seg = &w->batch.segments[s];
        for (uint32_t t = 0; t < seg->count; t++)
            for (uint32_t c = 0; c < channels; c++) {
                double sum = 0;
                for (uint32_t j = 0; j < o->width; j++)
                    sum += (double)weight[(size_t)j * channels + c] *
                           conv_input(w, o, seg, (int64_t)t + j - (o->width - 1), c);
                e->out[0][((size_t)seg->first + t) * channels + c] = silu(sum);
            }
        for (uint32_t j = 0; j + 1 < o->width; j++)
            for (uint32_t c = 0; c < channels; c++)
                e->recurrent[s][off + (size_t)j * channels + c] =
                    conv_input(w, o, seg, (int64_t)seg->count + j - (o->width - 1), c);
    }
}

void gen_delta_norm(struct world *w, const struct op_delta_norm *o)
{
    fill(w, o->x.id, -3, 3);
}

void ref_delta_norm(const struct world *w, const struct op_delta_norm *o, struct expected *e)
{
    uint32_t width = width_of(w, o->x.id), qk = 2 * o->n_k_heads * o->dk;
    for (uint32_t t = 0; t < w->batch.n_tokens; t++) {
        const float *x = floats(w, o->x.id) + (size_t)t * width;
        double *y = e->out[0] + (size_t)t * width;
        for (uint32_t i = 0; i < width; i++) y[i] = x[i];
        for (uint32_t at = 0; at < qk; at += o->dk) {
            double squares = o->eps;
            for (uint32_t i = 0; i < o->dk; i++) squares += (double)x[at + i] * x[at + i];
            double length = sqrt(squares) * (at < qk / 2 ? sqrt(o->dk) : 1);
            for (uint32_t i = 0; i < o->dk; i++) y[at + i] = x[at + i] / length;
        }
    }
}

void gen_decay_beta(struct world *w, const struct op_decay_beta *o)
{
    fill(w, o->alpha.id, -12, 12);
    fill(w, o->beta.id, -12, 12);
}

void ref_decay_beta(const struct world *w, const struct op_decay_beta *o, struct expected *e)
{
    uint32_t heads = width_of(w, o->alpha.id);
    for (size_t i = 0; i < (size_t)w->batch.n_tokens * heads; i++) {
        double x =
            (double)floats(w, o->alpha.id)[i] + weight_of(w, o->dt_bias.id)->values[i % heads];
        double softplus = x > 40 ? x : log1p(exp(x));
        e->out[0][i] = exp(weight_of(w, o->neg_a.id)->values[i % heads] * softplus);
        e->out[1][i] = 1 / (1 + exp(-(double)floats(w, o->beta.id)[i]));
    }
}

/* q and k of unit length, as delta_norm makes them; half of the decays are slow. */
void gen_delta_net(struct world *w, const struct op_delta_net *o)
{
    fill(w, o->x.id, -1, 1);
    fill(w, o->b.id, 0, 1);
    uint32_t width = width_of(w, o->x.id), qk = 2 * o->n_k_heads * o->dk;
    for (uint32_t t = 0; t < w->batch.n_tokens; t++)
        for (uint32_t at = 0; at < qk; at += o->dk) {
            float *x = floats(w, o->x.id) + (size_t)t * width + at;
            float squares = 1e-6f;
            for (uint32_t i = 0; i < o->dk; i++) squares += x[i] * x[i];
            for (uint32_t i = 0; i < o->dk; i++) x[i] /= sqrtf(squares);
        }
    for (size_t i = 0; i < (size_t)w->batch.n_tokens * o->n_v_heads; i++)
        floats(w, o->g.id)[i] = 1 - rng_float(&w->rng, 0, i % 2 ? 0.02f : 0.9f);
}

/* S <- g S; S <- S + beta (v - S k) k^T; y = S q */
static void delta_token(const struct world *w, const struct op_delta_net *o, uint32_t row,
                        uint32_t head, double *state, double *y)
{
    uint32_t repeats = o->n_v_heads / o->n_k_heads;
    uint32_t k_head = o->tiled ? head % o->n_k_heads : head / repeats;
    const float *x = floats(w, o->x.id) + (size_t)row * width_of(w, o->x.id);
    const float *q = x + k_head * o->dk, *k = x + (o->n_k_heads + k_head) * o->dk;
    const float *v = x + 2 * o->n_k_heads * o->dk + head * o->dv;
    double g = floats(w, o->g.id)[(size_t)row * o->n_v_heads + head];
    double beta = floats(w, o->b.id)[(size_t)row * o->n_v_heads + head];
    for (uint32_t i = 0; i < o->dv; i++) {
        double *s = state + (size_t)i * o->dk, memory = 0;
        for (uint32_t j = 0; j < o->dk; j++) memory += g * s[j] * k[j];
        y[i] = 0;
        for (uint32_t j = 0; j < o->dk; j++) {
            s[j] = g * s[j] + beta * (v[i] - memory) * k[j];
            y[i] += s[j] * q[j];
        }
    }
}

enum { MAX_STATE = 1 << 16 };

void ref_delta_net(const struct world *w, const struct op_delta_net *o, struct expected *e)
{
    static double state[MAX_STATE];
    uint32_t index;
    size_t off = recurrent_of(w, o->state.id, &index)->off, n = (size_t)o->dv * o->dk;
    e->changed_recurrent = index + 1;
    for (uint32_t s = 0; s < w->batch.n_segments; s++)
        for (uint32_t h = 0; h < o->n_v_heads && n <= MAX_STATE; h++) {
            const struct batch_segment *seg = &w->batch.segments[s];
            const float *was = seg->sequence->recurrent[seg->sequence->committed] + off + h * n;
            for (size_t i = 0; i < n; i++) state[i] = was[i];
            for (uint32_t t = seg->first; t < seg->first + seg->count; t++)
                delta_token(w, o, t, h, state, e->out[0] + ((size_t)t * o->n_v_heads + h) * o->dv);
            for (size_t i = 0; i < n; i++) e->recurrent[s][off + h * n + i] = (float)state[i];
        }
}

void gen_gated_norm(struct world *w, const struct op_gated_norm *o)
{
    fill(w, o->x.id, -3, 3);
    fill(w, o->z.id, -20, 20);
}

void ref_gated_norm(const struct world *w, const struct op_gated_norm *o, struct expected *e)
{
    const float *x = floats(w, o->x.id), *z = floats(w, o->z.id);
    size_t n = (size_t)w->batch.n_tokens * width_of(w, o->x.id);
    for (size_t at = 0; at < n; at += o->dv) {
        double squares = 0;
        for (uint32_t i = 0; i < o->dv; i++) squares += (double)x[at + i] * x[at + i];
        double rms = sqrt(squares / o->dv + o->eps);
        for (uint32_t i = 0; i < o->dv; i++)
            e->out[0][at + i] =
                x[at + i] / rms * weight_of(w, o->w.id)->values[i] * silu(z[at + i]);
    }
}
