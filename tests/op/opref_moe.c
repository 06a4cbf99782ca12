/* The MoE block: router, grouping, experts, sums. */
#include <math.h>
#include <stdlib.h>

#include "opcheck.h"

/* Rows of their own kinds: spread out, all equal, equal in pairs. */
void gen_router(struct world *w, const struct op_router *o)
{
    uint32_t n = width_of(w, o->logits.id);
    fill(w, o->logits.id, -6, 6);
    for (uint32_t t = 0; t < w->batch.n_tokens; t++)
        for (uint32_t i = 0; i < n; i++) {
            float *row = floats(w, o->logits.id) + (size_t)t * n;
            if (t % 7 == 3) row[i] = row[0];
            if (t % 7 == 5) row[i] = row[i / 2];
        }
}

/* Whether expert a goes before expert b: the larger logit, of equal ones the lower id. */
static bool precedes(const float *logits, uint32_t a, uint32_t b)
{
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

void ref_router(const struct world *w, const struct op_router *o, struct expected *e)
{
    uint32_t n = width_of(w, o->logits.id);
    for (uint32_t t = 0; t < w->batch.n_tokens; t++) {
        const float *logits = floats(w, o->logits.id) + (size_t)t * n;
        double sum = 0, chosen = 0, *weights = e->out[1] + (size_t)t * o->k;
        uint32_t slot = 0;
        for (uint32_t a = 0; a < n; a++) {
            uint32_t before = 0;
            for (uint32_t b = 0; b < n; b++) before += precedes(logits, b, a);
            sum += exp((double)logits[a]);
            if (before >= o->k) continue;
            e->out[0][(size_t)t * o->k + slot] = a;
            weights[slot++] = exp((double)logits[a]);
            chosen += exp((double)logits[a]);
        }
        for (uint32_t j = 0; j < o->k; j++) weights[j] /= o->normalize ? chosen : sum;
    }
}

void gen_guess_experts(struct world *w, const struct op_guess_experts *o)
{
    fill(w, o->x.id, -3, 3);
}

/* The ids of the k largest of n scores, ascending; of equal scores the lower id. */
static void largest(const double *scores, uint32_t n, uint32_t k, double *ids)
{
    uint32_t slot = 0;
    for (uint32_t a = 0; a < n; a++) {
        uint32_t before = 0;
        for (uint32_t b = 0; b < n; b++)
            before += scores[b] > scores[a] || (scores[b] == scores[a] && b < a);
        if (before < k) ids[slot++] = a;
    }
}

/* What a router says of a row after its norm. */
static void guessed_scores(const float *x, uint32_t width, const float *norm, double eps,
                           const struct wmat *router, double *scores)
{
    double squares = 0;
    for (uint32_t c = 0; c < width; c++) squares += (double)x[c] * (double)x[c];
    double scale = 1 / sqrt(squares / width + eps);
    for (uint32_t a = 0; a < router->rows; a++) {
        scores[a] = 0;
        for (uint32_t c = 0; c < width; c++)
            scores[a] += weight_at(router, a, c) * (double)x[c] * scale * (double)norm[c];
    }
}

static double *take_scores(uint32_t n)
{
    double *scores = calloc(n + 1, sizeof *scores);
    if (!scores) abort();
    return scores;
}

/* The scores in double precision; experts whose scores are so near that rounding decides are rare.
 */
void ref_guess_experts(const struct world *w, const struct op_guess_experts *o, struct expected *e)
{
    uint32_t width = width_of(w, o->x.id), n = width_of(w, o->logits.id);
    double *scores = take_scores(n);
    for (uint32_t t = 0; t < w->batch.n_tokens; t++) {
        guessed_scores(floats(w, o->x.id) + (size_t)t * width, width,
                       weight_of(w, o->norm.id)->values, (double)o->eps,
                       &weight_of(w, o->router.id)->matrix, scores);
        largest(scores, n, o->k, e->out[0] + (size_t)t * o->k);
    }
    free(scores);
}

/* How the sigmoid router chooses: see op sigmoid_router. */
struct choice {
    const float *correction;
    uint32_t n, k, n_groups, top_groups;
};

/* The sum of the two largest of a group. */
static double best_two(const double *x, uint32_t n)
{
    double best = -INFINITY;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < i; j++) best = fmax(best, x[i] + x[j]);
    return best;
}

/* The chosen ids of a row of logits. */
static void choose_by_sigmoid(const struct choice *c, const double *logits, double *ids)
{
    uint32_t each = c->n / c->n_groups;
    double *scores = take_scores(c->n), *groups = take_scores(c->n_groups);
    double *best = take_scores(c->n_groups);
    for (uint32_t i = 0; i < c->n; i++)
        scores[i] = 1 / (1 + exp(-logits[i])) + (double)c->correction[i];
    for (uint32_t g = 0; g < c->n_groups; g++) groups[g] = best_two(scores + g * each, each);
    largest(groups, c->n_groups, c->top_groups, best);
    for (uint32_t g = 0, b = 0; g < c->n_groups; g++) {
        bool kept = c->n_groups == 1 || (b < c->top_groups && best[b] == g);
        b += kept;
        for (uint32_t i = g * each; i < (g + 1) * each && !kept; i++) scores[i] = -INFINITY;
    }
    largest(scores, c->n, c->k, ids);
    free(scores);
    free(groups);
    free(best);
}

void gen_guess_by_sigmoid(struct world *w, const struct op_guess_by_sigmoid *o)
{
    fill(w, o->x.id, -3, 3);
}

void ref_guess_by_sigmoid(const struct world *w, const struct op_guess_by_sigmoid *o,
                          struct expected *e)
{
    uint32_t width = width_of(w, o->x.id), n = width_of(w, o->logits.id);
    struct choice c = {weight_of(w, o->correction.id)->values, n, o->k, o->n_groups, o->top_groups};
    double *logits = take_scores(n);
    for (uint32_t t = 0; t < w->batch.n_tokens; t++) {
        guessed_scores(floats(w, o->x.id) + (size_t)t * width, width,
                       weight_of(w, o->norm.id)->values, (double)o->eps,
                       &weight_of(w, o->router.id)->matrix, logits);
        choose_by_sigmoid(&c, logits, e->out[0] + (size_t)t * o->k);
    }
    free(logits);
}

void gen_sigmoid_router(struct world *w, const struct op_sigmoid_router *o)
{
    fill(w, o->logits.id, -6, 6);
}

void ref_sigmoid_router(const struct world *w, const struct op_sigmoid_router *o,
                        struct expected *e)
{
    uint32_t n = width_of(w, o->logits.id);
    struct choice c = {weight_of(w, o->correction.id)->values, n, o->k, o->n_groups, o->top_groups};
    double *logits = take_scores(n);
    for (uint32_t t = 0; t < w->batch.n_tokens; t++) {
        double *ids = e->out[0] + (size_t)t * o->k, *weights = e->out[1] + (size_t)t * o->k;
        double sum = 0;
        for (uint32_t i = 0; i < n; i++) logits[i] = floats(w, o->logits.id)[(size_t)t * n + i];
        choose_by_sigmoid(&c, logits, ids);
        for (uint32_t j = 0; j < o->k; j++) {
            weights[j] = 1 / (1 + exp(-logits[(uint32_t)ids[j]]));
            sum += weights[j];
        }
        for (uint32_t j = 0; j < o->k; j++) {
            if (o->normalize) weights[j] /= sum;
            weights[j] *= (double)o->scale;
        }
    }
    free(logits);
}

/* k distinct ascending ids a row, some experts left without any. */
static void random_picks(struct world *w, uint32_t ids_id, uint32_t n_experts)
{
    uint32_t k = width_of(w, ids_id), used = n_experts > k + 1 ? n_experts - 1 : n_experts;
    for (uint32_t t = 0; t < w->batch.n_tokens; t++) {
        uint32_t slot = 0;
        for (uint32_t e = 0; e < used && slot < k; e++)
            if (rng_below(&w->rng, used - e) < k - slot)
                ints(w, ids_id)[(size_t)t * k + slot++] = (int32_t)e;
    }
}

void gen_group_picks(struct world *w, const struct op_group_picks *o)
{
    random_picks(w, o->ids.id, o->n_experts);
}

/* Picks in the order of (expert, token), by looking through all of them for each expert. */
void ref_group_picks(const struct world *w, const struct op_group_picks *o, struct expected *e)
{
    uint32_t k = width_of(w, o->ids.id), n = w->batch.n_tokens * k, place = 0;
    for (uint32_t expert = 0; expert < o->n_experts; expert++) {
        e->out[0][expert] = place;
        for (uint32_t i = 0; i < n; i++) {
            if (ints(w, o->ids.id)[i] != (int32_t)expert) continue;
            e->out[1][place] = i / k;
            e->out[2][i] = place++;
        }
    }
    e->out[0][o->n_experts] = n;
}

void gen_gather_rows(struct world *w, const struct op_gather_rows *o)
{
    fill(w, o->x.id, -5, 5);
    for (uint32_t p = 0; p < rows_of(w, o->rows.id); p++)
        ints(w, o->rows.id)[p] = (int32_t)rng_below(&w->rng, w->batch.n_tokens);
}

void ref_gather_rows(const struct world *w, const struct op_gather_rows *o, struct expected *e)
{
    size_t width = width_of(w, o->x.id);
    for (uint32_t p = 0; p < rows_of(w, o->rows.id); p++)
        for (size_t k = 0; k < width; k++)
            e->out[0][p * width + k] =
                floats(w, o->x.id)[(size_t)ints(w, o->rows.id)[p] * width + k];
}

/* The op that groups the picks an experts op works on. */
static const struct op_group_picks *grouping_of(const struct world *w, const struct op_experts *o)
{
    return &w->g->nodes.items[w->g->buffers.items[index_of(o->offsets.id)].writer].u.group_picks;
}

void gen_experts(struct world *w, const struct op_experts *o)
{
    const struct op_group_picks *grouping = grouping_of(w, o);
    fill(w, o->x.id, -2, 2);
    random_picks(w, grouping->ids.id, o->n_experts);
    const int32_t *ids = ints(w, grouping->ids.id);
    uint32_t n = rows_of(w, o->x.id);
    for (uint32_t e = 0, before = 0; e <= o->n_experts; e++) {
        ints(w, o->offsets.id)[e] = (int32_t)before;
        for (uint32_t i = 0; i < n; i++) before += ids[i] == (int32_t)e;
    }
}

/* y = W x or W^T x, of one row */
static void expert_product(const struct world *w, const struct wmat *m, bool transposed,
                           const float *x, double *y)
{
    if (!transposed) {
        product(m, x, 1, inputs_of_matrix(w, m), y);
        return;
    }
    for (uint32_t c = 0; c < m->cols; c++) {
        y[c] = 0;
        for (uint32_t r = 0; r < m->rows; r++) y[c] += weight_at(m, r, c) * (double)x[r];
    }
}

/* Gate and up of one pick, one after the other, whatever the bank's layout. */
static void gate_and_up(const struct world *w, const struct expert_bank *bank, uint32_t expert,
                        const float *x, uint32_t inter, double *y)
{
    const struct expert_view *v = &bank->experts[expert];
    double *both = calloc(2 * (size_t)inter, sizeof *both);
    if (!both) abort();
    expert_product(w, &v->gate, bank->transposed, x, both);
    if (!bank->paired) expert_product(w, &v->up, false, x, both + inter);
    for (uint32_t i = 0; i < 2 * inter; i++) {
        uint32_t to = bank->paired ? i / 2 + i % 2 * inter : i;
        y[to] = both[i];
        if (bank->gate_up_bias) y[to] += bank->gate_up_bias[(size_t)expert * 2 * inter + i];
    }
    free(both);
}

static double activation(double gate, double up, double limit)
{
    if (!(limit > 0)) return gate / (1 + exp(-gate)) * up;
    gate = fmin(gate, limit);
    up = fmax(fmin(up, limit), -limit);
    return gate / (1 + exp(-1.702 * gate)) * (up + 1);
}

void ref_experts(const struct world *w, const struct op_experts *o, struct expected *e)
{
    uint32_t hidden = width_of(w, o->x.id), inter = width_of(w, o->act.id);
    const struct expert_bank *bank = weight_of(w, o->bank.id)->bank;
    double *both = calloc(3 * (size_t)inter, sizeof *both);
    float *act = (float *)(both + 2 * (size_t)inter);
    if (!both) abort();
    for (uint32_t x = 0; x < o->n_experts; x++) {
        uint32_t end = (uint32_t)ints(w, o->offsets.id)[x + 1];
        for (size_t p = (size_t)ints(w, o->offsets.id)[x]; p < end; p++) {
            double *y = e->out[0] + p * hidden;
            gate_and_up(w, bank, x, floats(w, o->x.id) + p * hidden, inter, both);
            for (uint32_t i = 0; i < inter; i++)
                act[i] = (float)activation(both[i], both[inter + i], (double)o->limit);
            expert_product(w, &bank->experts[x].down, bank->transposed, act, y);
            for (uint32_t i = 0; i < hidden && bank->down_bias; i++)
                y[i] += bank->down_bias[(size_t)x * hidden + i];
        }
    }
    free(both);
}

void gen_expert_sum(struct world *w, const struct op_expert_sum *o)
{
    fill(w, o->x.id, -5, 5);
    fill(w, o->weights.id, 0, 1);
    uint32_t n = rows_of(w, o->x.id);
    int32_t *places = ints(w, o->places.id);
    for (uint32_t i = 0; i < n; i++) places[i] = (int32_t)i;
    for (uint32_t i = n; i-- > 1;) {
        uint32_t j = rng_below(&w->rng, i + 1);
        int32_t was = places[i];
        places[i] = places[j];
        places[j] = was;
    }
}

void ref_expert_sum(const struct world *w, const struct op_expert_sum *o, struct expected *e)
{
    uint32_t k = width_of(w, o->places.id), width = width_of(w, o->x.id);
    for (uint32_t t = 0; t < w->batch.n_tokens; t++)
        for (uint32_t j = 0; j < k; j++) {
            const float *x =
                floats(w, o->x.id) + (size_t)ints(w, o->places.id)[(size_t)t * k + j] * width;
            double weight = floats(w, o->weights.id)[(size_t)t * k + j];
            for (uint32_t i = 0; i < width; i++) e->out[0][(size_t)t * width + i] += weight * x[i];
        }
}

void gen_swiglu(struct world *w, const struct op_swiglu *o)
{
    fill(w, o->gate.id, -40, 40);
    fill(w, o->up.id, -3, 3);
}

void ref_swiglu(const struct world *w, const struct op_swiglu *o, struct expected *e)
{
    size_t n = (size_t)w->batch.n_tokens * width_of(w, o->gate.id);
    for (size_t i = 0; i < n; i++) {
        double z = floats(w, o->gate.id)[i];
        e->out[0][i] = z / (1 + exp(-z)) * floats(w, o->up.id)[i];
    }
}

void gen_combine(struct world *w, const struct op_combine *o)
{
    fill(w, o->residual.id, -9, 9);
    fill(w, o->moe.id, -2, 2);
    fill(w, o->shared.id, -2, 2);
    fill(w, o->gate.id, -12, 12);
}

void ref_combine(const struct world *w, const struct op_combine *o, struct expected *e)
{
    uint32_t width = width_of(w, o->residual.id);
    for (size_t i = 0; i < (size_t)w->batch.n_tokens * width; i++) {
        double gate = 1 / (1 + exp(-(double)floats(w, o->gate.id)[i / width]));
        e->out[0][i] = (double)floats(w, o->residual.id)[i] + floats(w, o->moe.id)[i] +
                       gate * floats(w, o->shared.id)[i];
    }
}

void gen_combine_ungated(struct world *w, const struct op_combine_ungated *o)
{
    fill(w, o->residual.id, -9, 9);
    fill(w, o->moe.id, -2, 2);
    fill(w, o->shared.id, -2, 2);
}

void ref_combine_ungated(const struct world *w, const struct op_combine_ungated *o,
                         struct expected *e)
{
    size_t n = (size_t)w->batch.n_tokens * width_of(w, o->residual.id);
    for (size_t i = 0; i < n; i++)
        e->out[0][i] = (double)floats(w, o->residual.id)[i] + floats(w, o->moe.id)[i] +
                       floats(w, o->shared.id)[i];
}
