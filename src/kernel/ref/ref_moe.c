/* The router's choice and the sum of what the chosen experts return. */
#include <math.h>

#include "base/fp16.h"
#include "kernel/ref/ref.h"

/* Orders floats as integers: NaN below everything, -0 equal to 0. */
static int32_t order_of(float logit)
{
    if (isnan(logit)) return INT32_MIN;
    uint32_t bits = f32_bits(logit + 0.0f);
    return bits >> 31 ? -(int32_t)(bits & 0x7fffffffu) : (int32_t)bits;
}

struct candidate {
    int32_t order;
    int32_t id;
};

static bool precedes(struct candidate a, struct candidate b)
{
    return a.order > b.order || (a.order == b.order && a.id < b.id);
}

/* The first candidate that comes after last in the order of precedence. */
static struct candidate next_best(const float *logits, uint32_t n, struct candidate last)
{
    struct candidate best = {INT32_MIN, INT32_MAX};
    for (uint32_t i = 0; i < n; i++) {
        struct candidate c = {order_of(logits[i]), (int32_t)i};
        if (precedes(last, c) && precedes(c, best)) best = c;
    }
    return best;
}

static void insert_ascending(int32_t *ids, uint32_t count, int32_t id)
{
    uint32_t at = count;
    for (; at > 0 && ids[at - 1] > id; at--) ids[at] = ids[at - 1];
    ids[at] = id;
}

/* The k best, ascending. */
static void choose(const float *x, uint32_t n, uint32_t k, int32_t *ids)
{
    struct candidate last = {INT32_MAX, -1};
    for (uint32_t j = 0; j < k; j++) {
        last = next_best(x, n, last);
        insert_ascending(ids, j, last.id);
    }
}

/* exp(logit - max) for every logit; returns their sum. */
static float exponentials(const float *logits, uint32_t n, float *e)
{
    float max = -INFINITY;
    float sum = 0;
    for (uint32_t i = 0; i < n; i++) max = fmaxf(max, logits[i]);
    for (uint32_t i = 0; i < n; i++) {
        e[i] = expf(logits[i] - max);
        sum += e[i];
    }
    return sum;
}

static void softmax_top_k(const float *logits, uint32_t n, uint32_t k, bool normalize, int32_t *ids,
                          float *weights, float *scratch)
{
    choose(logits, n, k, ids);
    float sum = exponentials(logits, n, scratch);
    float chosen = 0;
    for (uint32_t j = 0; j < k; j++) {
        weights[j] = scratch[ids[j]] / sum;
        chosen += weights[j];
    }
    if (!normalize) return;
    for (uint32_t j = 0; j < k; j++) weights[j] /= chosen;
}

/* The sum of the two largest of a group of at least two. */
static float group_score(const float *choice, uint32_t each)
{
    struct candidate first = next_best(choice, each, (struct candidate){INT32_MAX, -1});
    struct candidate second = next_best(choice, each, first);
    return choice[first.id] + choice[second.id];
}

/* What is outside of the best groups becomes NaN, which comes last. */
static void keep_groups(float *choice, uint32_t n, const struct sigmoid_choice *how, float *groups)
{
    uint32_t each = n / how->n_groups;
    struct candidate last = {INT32_MAX, -1};
    for (uint32_t g = 0; g < how->n_groups; g++)
        groups[g] = group_score(choice + (size_t)g * each, each);
    for (uint32_t j = 0; j < how->top_groups; j++) last = next_best(groups, how->n_groups, last);
    for (uint32_t g = 0; g < how->n_groups; g++) {
        if (!precedes(last, (struct candidate){order_of(groups[g]), (int32_t)g})) continue;
        for (uint32_t i = 0; i < each; i++) choice[(size_t)g * each + i] = NAN;
    }
}

static void sigmoid_top_k(const float *logits, uint32_t n, const struct sigmoid_choice *how,
                          int32_t *ids, float *weights, float *scratch)
{
    float *scores = scratch, *choice = scratch + n, sum = 0;
    bool bad = false;
    for (uint32_t i = 0; i < n; i++) {
        scores[i] = ref_sigmoid(logits[i]);
        choice[i] = scores[i] + how->correction[i];
        bad |= isnan(choice[i]);
    }
    if (how->n_groups > 1) keep_groups(choice, n, how, choice + n);
    choose(choice, n, how->k, ids);
    for (uint32_t j = 0; j < how->k; j++) {
        weights[j] = bad ? NAN : scores[ids[j]];
        sum += weights[j];
    }
    for (uint32_t j = 0; j < how->k && how->normalize; j++) weights[j] /= sum + 1e-20f;
    for (uint32_t j = 0; j < how->k; j++) weights[j] *= how->scale;
}

static void weighted_sum(const float *const *rows, const float *w, uint32_t k, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float sum = 0;
        for (uint32_t j = 0; j < k; j++) sum += w[j] * rows[j][i];
        y[i] = sum;
    }
}

static void combine(const float *residual, const float *moe, const float *shared, float shared_gate,
                    uint32_t n, float *y)
{
    float gate = ref_sigmoid(shared_gate);
    for (uint32_t i = 0; i < n; i++) y[i] = residual[i] + moe[i] + gate * shared[i];
}

void ref_init_moe(struct kernels *k)
{
    k->softmax_top_k = softmax_top_k;
    k->sigmoid_top_k = sigmoid_top_k;
    k->weighted_sum = weighted_sum;
    k->combine = combine;
}
