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

void check_weighted_sum(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    for (c->round = 0; c->round < LENGTH_ROUNDS; c->round++) {
        operands_reset(c);
        uint32_t n = length_of(c), count = 1 + rng_below(&c->rng, 10);
        size_t ldx = n + rng_below(&c->rng, 4);
        float *x = in_f32(c, "x", (count - 1) * ldx + n), *w = in_f32(c, "w", count);
        float *y = out_f32(c, "y", n);
        fill(c, x, (count - 1) * ldx + n, pattern_of(c));
        fill_uniform(c, w, count, 0, 1);
        if (c->round % 6 == 5) w[count - 1] = NAN;
        operands_begin(c);
        k->weighted_sum(x, ldx, w, count, n, y);
        operands_end(c);
        for (uint32_t i = 0; i < n; i++) {
            float want = 0;
            for (uint32_t j = 0; j < count; j++) {
                float product = w[j] * x[j * ldx + i];
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
