/* Routing and the sums of expert results. */
#include "kerncheck.h"

static int compare_ids(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static bool better(float a, float b)
{
    return a > b || (isnan(b) && !isnan(a));
}

/* k times the first of the best that are left, then by id. */
static void select_naively(const float *logits, uint32_t n, uint32_t k, int32_t *ids)
{
    bool taken[512] = {false};
    for (uint32_t j = 0; j < k; j++) {
        uint32_t best = n;
        for (uint32_t i = 0; i < n; i++)
            if (!taken[i] && (best == n || better(logits[i], logits[best]))) best = i;
        taken[best] = true;
        ids[j] = (int32_t)best;
    }
    qsort(ids, k, sizeof *ids, compare_ids);
}

static void fill_logits(struct check *c, float *x, uint32_t n)
{
    fill_uniform(c, x, n, -8, 8);
    switch (c->round % 8) {
    case 1: /* ties */
        for (uint32_t i = 0; i < n; i++) x[i] = (float)rng_below(&c->rng, 4);
        break;
    case 2: fill(c, x, n, PATTERN_EQUAL); break;
    case 3: fill(c, x, n, PATTERN_ZEROS); break;
    case 4: fill(c, x, n, PATTERN_ONE_HUGE); break;
    case 5: /* so far below the largest that exp gives equal zeros */
        for (uint32_t i = 0; i < n; i++) x[i] *= 1000;
        break;
    case 6:
        for (uint32_t i = 0; i < n; i++)
            if (i > 0 && rng_below(&c->rng, 3) == 0) x[i] = -INFINITY;
        break;
    case 7: x[rng_below(&c->rng, n)] = NAN; break;
    default: break;
    }
}

static void check_weights(struct check *c, const float *logits, uint32_t n, uint32_t k,
                          bool normalize, const int32_t *ids, const float *weights)
{
    double max = -(double)INFINITY, sum = 0, chosen = 0;
    for (uint32_t i = 0; i < n; i++) max = fmax(max, (double)logits[i]);
    for (uint32_t i = 0; i < n; i++) sum += exp((double)logits[i] - max);
    for (uint32_t j = 0; j < k; j++) chosen += exp((double)logits[ids[j]] - max);
    for (uint32_t j = 0; j < k; j++) {
        double below = max - (double)logits[ids[j]];
        double want = exp(-below) / (normalize ? chosen : sum);
        double relative = (n / 8.0 + k + 24 + (isinf(below) ? 0 : below)) * 2 * EPS;
        if (isnan(sum)) {
            expect_nan(c, "weights", j, weights[j]);
        } else {
            expect_near(c, "weights", j, weights[j], want, relative * want + 1e-38);
        }
    }
}

void check_softmax_top_k(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    static const uint16_t experts[] = {64, 128, 256, 384, 512};
    for (c->round = 0; c->round < 160; c->round++) {
        operands_reset(c);
        uint32_t n = c->round < 40 ? c->round + 1 : experts[rng_below(&c->rng, COUNT_OF(experts))];
        uint32_t count = 1 + rng_below(&c->rng, min_u32(n, 20));
        bool normalize = rng_below(&c->rng, 2);
        int32_t want[20];
        float *logits = in_f32(c, "logits", n), *weights = out_f32(c, "weights", count);
        int32_t *ids = operand_out("ids", c, count * 4ul, 4);
        float *scratch = out_f32(c, "the scratch", n);
        fill_logits(c, logits, n);
        operands_begin(c);
        k->softmax_top_k(logits, n, count, normalize, ids, weights, scratch);
        operands_end(c);
        select_naively(logits, n, count, want);
        for (uint32_t j = 0; j < count; j++)
            if (ids[j] != want[j]) fail(c, "ids[%u] is %d, not %d", j, ids[j], want[j]);
        check_weights(c, logits, n, count, normalize, ids, weights);
    }
}

/* What kernel.h says of sigmoid_top_k, in f32 up to the choice. */
static void select_by_sigmoid(const float *logits, uint32_t n, const struct sigmoid_choice *how,
                              int32_t *ids)
{
    float choice[512], groups[512];
    int32_t best[512];
    uint32_t each = n / how->n_groups;
    for (uint32_t i = 0; i < n; i++)
        choice[i] = (float)(1 / (1 + exp(-(double)logits[i]))) + how->correction[i];
    for (uint32_t g = 0; g < how->n_groups; g++) {
        select_naively(choice + g * each, each, min_u32(2, each), best);
        groups[g] = choice[g * each + (uint32_t)best[0]];
        if (each > 1) groups[g] += choice[g * each + (uint32_t)best[1]];
    }
    select_naively(groups, how->n_groups, how->top_groups, best);
    for (uint32_t g = 0, b = 0; g < how->n_groups; g++) {
        bool kept = b < how->top_groups && best[b] == (int32_t)g;
        b += kept;
        for (uint32_t i = 0; i < each && !kept; i++) choice[g * each + i] = -INFINITY;
    }
    select_naively(choice, n, how->k, ids);
}

/* Logits on a coarse grid, so that rounding decides no choice; corrections that make ties too. */
static void fill_sigmoid(struct check *c, float *logits, float *correction, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        logits[i] = (float)((int)rng_below(&c->rng, 65) - 32) / 8;
        correction[i] = (float)((int)rng_below(&c->rng, 9) - 4) / 4;
    }
    if (c->round % 5 == 1) fill(c, correction, n, PATTERN_ZEROS);
    if (c->round % 5 == 2) fill(c, logits, n, PATTERN_EQUAL);
    if (c->round % 5 == 3) logits[rng_below(&c->rng, n)] = c->round % 2 ? -200.0f : 200.0f;
    if (c->round % 5 == 4) logits[rng_below(&c->rng, n)] = NAN;
}

static void check_sigmoid_weights(struct check *c, const float *logits, uint32_t n,
                                  const struct sigmoid_choice *how, const int32_t *ids,
                                  const float *weights)
{
    double sum = 0;
    bool bad = false;
    for (uint32_t i = 0; i < n; i++) bad |= isnan(logits[i]);
    for (uint32_t j = 0; j < how->k; j++) sum += 1 / (1 + exp(-(double)logits[ids[j]]));
    for (uint32_t j = 0; j < how->k; j++) {
        double want = 1 / (1 + exp(-(double)logits[ids[j]])) * (double)how->scale;
        if (how->normalize) want /= sum + 1e-20;
        if (bad)
            expect_nan(c, "weights", j, weights[j]);
        else
            expect_near(c, "weights", j, weights[j], want, (how->k + 16) * EPS * want + 1e-38);
    }
}

void check_sigmoid_top_k(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    static const uint16_t groups[] = {1, 1, 2, 4, 8};
    for (c->round = 0; c->round < 160; c->round++) {
        operands_reset(c);
        struct sigmoid_choice how = {.n_groups = groups[rng_below(&c->rng, COUNT_OF(groups))],
                                     .normalize = rng_below(&c->rng, 2),
                                     .scale = rng_below(&c->rng, 2) ? 1.0f : 2.5f};
        uint32_t each = (how.n_groups > 1 ? 2 : 1) + rng_below(&c->rng, 512 / how.n_groups - 1);
        uint32_t n = how.n_groups * each;
        how.top_groups = 1 + rng_below(&c->rng, how.n_groups);
        how.k = 1 + rng_below(&c->rng, min_u32(how.top_groups * each, 20));
        int32_t want[20];
        float *logits = in_f32(c, "logits", n), *correction = in_f32(c, "the correction", n);
        float *weights = out_f32(c, "weights", how.k), *scratch = out_f32(c, "the scratch", 3 * n);
        int32_t *ids = operand_out("ids", c, how.k * 4ul, 4);
        fill_sigmoid(c, logits, correction, n);
        how.correction = correction;
        operands_begin(c);
        k->sigmoid_top_k(logits, n, &how, ids, weights, scratch);
        operands_end(c);
        bool bad = false;
        for (uint32_t i = 0; i < n; i++) bad |= isnan(logits[i]);
        if (!bad) select_by_sigmoid(logits, n, &how, want);
        for (uint32_t j = 0; j < how.k; j++)
            if (ids[j] < 0 || ids[j] >= (int32_t)n || (!bad && ids[j] != want[j]))
                fail(c, "ids[%u] is %d, not %d", j, ids[j], bad ? -1 : want[j]);
        check_sigmoid_weights(c, logits, n, &how, ids, weights);
    }
}

void check_weighted_sum(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    for (c->round = 0; c->round < LENGTH_ROUNDS; c->round++) {
        operands_reset(c);
        uint32_t n = length_of(c), count = 1 + rng_below(&c->rng, 10);
        float *w = in_f32(c, "w", count), *y = out_f32(c, "y", n);
        const float *rows[10];
        for (uint32_t j = 0; j < count; j++) {
            float *row = in_f32(c, "a row", n);
            fill(c, row, n, pattern_of(c));
            rows[j] = row;
        }
        fill_uniform(c, w, count, 0, 1);
        if (c->round % 6 == 5) w[count - 1] = NAN;
        operands_begin(c);
        k->weighted_sum(rows, w, count, n, y);
        operands_end(c);
        for (uint32_t i = 0; i < n; i++) {
            float want = 0;
            for (uint32_t j = 0; j < count; j++) {
                float product = w[j] * rows[j][i];
                want += product;
            }
            expect_bits(c, "y", i, y[i], want);
        }
    }
}

void check_combine(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    for (c->round = 0; c->round < LENGTH_ROUNDS; c->round++) {
        operands_reset(c);
        uint32_t n = length_of(c);
        float *residual = in_f32(c, "the residual", n), *moe = in_f32(c, "moe", n);
        float *shared = in_f32(c, "shared", n), *y = out_f32(c, "y", n);
        float gate = rng_float(&c->rng, -12, 12);
        fill(c, residual, n, pattern_of(c));
        fill(c, moe, n, PATTERN_MIXED);
        fill(c, shared, n, PATTERN_UNIFORM);
        if (c->round % 6 == 5) shared[n - 1] = NAN;
        operands_begin(c);
        k->combine(residual, moe, shared, gate, n, y);
        operands_end(c);
        for (uint32_t i = 0; i < n; i++) {
            double s = (double)shared[i] / (1 + exp(-(double)gate));
            double want = (double)residual[i] + (double)moe[i] + s;
            double size = fabs((double)residual[i]) + fabs((double)moe[i]) + 4 * fabs(s);
            expect_near(c, "y", i, y[i], want, 3 * EPS * size + 0x1p-148);
        }
    }
}
