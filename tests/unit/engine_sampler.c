/* The sampler against a naive one that sorts everything, and each option's effect. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/rng.h"
#include "check.h"
#include "sluice/sluice.h"

enum { V = 60, DRAWS = 20000 };

static struct sluice_error err;

/* Everything off: plain draws at temperature 1. */
static struct sluice_sampler_options plain(void)
{
    struct sluice_sampler_options o;
    sluice_sampler_options_default(&o);
    o.temperature = 1;
    o.top_k = 0;
    o.top_p = 1;
    o.min_p = 0;
    return o;
}

static sluice_sampler *open_sampler(uint32_t n, const struct sluice_sampler_options *o)
{
    sluice_sampler *s = NULL;
    CHECK_OK(sluice_sampler_open(&s, n, o, &err));
    return s;
}

static int32_t draw(sluice_sampler *s, const float *logits, uint32_t n)
{
    float copy[V];
    memcpy(copy, logits, n * sizeof *copy);
    return sluice_sampler_draw(s, copy);
}

/* The naive reference */

struct entry {
    int32_t id;
    double logit, p;
};

static int by_logit(const void *a, const void *b)
{
    const struct entry *x = a;
    const struct entry *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static double scale_to_one(struct entry *e, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += e[i].p;
    for (int i = 0; i < n; i++) e[i].p /= sum;
    return sum;
}

/* p[V]: the probability of each id, as the header describes it. history: the accepted ids. */
static void naive(const float *logits, const struct sluice_sampler_options *o,
                  const int32_t *history, int n_history, double *p)
{
    struct entry e[V];
    float l[V];
    memcpy(l, logits, sizeof l);
    for (size_t i = 0; i < o->n_bias; i++) l[o->bias[i].id] += o->bias[i].bias;
    for (int i = 0; i < V; i++) {
        float count = 0;
        for (int h = 0; h < n_history; h++)
            if (history[h] == i && h >= n_history - (int)o->penalty_window) count++;
        if (count > 0) {
            l[i] = l[i] > 0 ? l[i] / o->repeat_penalty : l[i] * o->repeat_penalty;
            l[i] = l[i] - o->presence_penalty - count * o->frequency_penalty;
        }
        e[i] = (struct entry){.id = i, .logit = l[i]};
    }
    qsort(e, V, sizeof *e, by_logit);
    for (int i = 0; i < V; i++) e[i].p = exp((e[i].logit - e[0].logit) / (double)o->temperature);
    int n = o->top_k && o->top_k < V ? (int)o->top_k : V;
    scale_to_one(e, n);
    if (o->top_p < 1) {
        double mass = 0;
        for (int i = 0; i < n; i++) {
            mass += e[i].p;
            if (mass >= (double)o->top_p) n = i + 1;
        }
    }
    while (n > 1 && e[n - 1].p < (double)o->min_p * e[0].p) n--;
    scale_to_one(e, n);
    for (int i = 0; i < V; i++) p[i] = 0;
    for (int i = 0; i < n; i++) p[e[i].id] = e[i].p;
}

/*
 * Pearson's chi-square of counts against p, as a number of standard deviations from its mean
 * (Wilson and Hilferty's cube root); rare ids are pooled. An id with p = 0 gives infinity.
 */
static double chi_square(const int *counts, const double *p, int n_draws)
{
    double x = 0;
    double pooled_p = 0;
    int pooled = 0;
    int cells = 0;
    for (int i = 0; i < V; i++) {
        double want = p[i] * n_draws;
        if (p[i] == 0 && counts[i]) return INFINITY;
        if (want < 8) {
            pooled += counts[i];
            pooled_p += p[i];
            continue;
        }
        x += (counts[i] - want) * (counts[i] - want) / want;
        cells++;
    }
    if (pooled_p * n_draws > 4) {
        double want = pooled_p * n_draws;
        x += (pooled - want) * (pooled - want) / want;
        cells++;
    }
    if (cells < 2) return 0;
    double k = cells - 1;
    return (cbrt(x / k) - (1 - 2 / (9 * k))) / sqrt(2 / (9 * k));
}

static void random_logits(struct rng *rng, float *logits)
{
    for (int i = 0; i < V; i++) logits[i] = rng_float(rng, -4, 4);
}

/* Draws often and compares with the naive distribution. */
static void compare(const char *what, const float *logits, const struct sluice_sampler_options *o,
                    const int32_t *history, int n_history)
{
    sluice_sampler *s = open_sampler(V, o);
    REQUIRE(s);
    for (int i = 0; i < n_history; i++) sluice_sampler_accept(s, history[i]);
    static int counts[V];
    memset(counts, 0, sizeof counts);
    for (int i = 0; i < DRAWS; i++) counts[draw(s, logits, V)]++;
    sluice_sampler_close(&s);
    CHECK(s == NULL);
    double p[V];
    naive(logits, o, history, n_history, p);
    double z = chi_square(counts, p, DRAWS);
    CHECK(z < 4.5, "%s: %.1f standard deviations", what, z);
}

static void test_distribution_follows_softmax(void)
{
    struct rng rng = {11};
    float logits[V];
    for (int round = 0; round < 4; round++) {
        random_logits(&rng, logits);
        struct sluice_sampler_options o = plain();
        o.seed = (uint64_t)round;
        o.temperature = 0.3f + 0.5f * (float)round;
        compare("temperature", logits, &o, NULL, 0);
    }
}

static void test_wrong_distribution_is_noticed(void)
{
    int counts[V] = {0};
    double p[V];
    struct rng rng = {5};
    for (int i = 0; i < V; i++) p[i] = 1.0 / V;
    for (int i = 0; i < DRAWS; i++) counts[rng_below(&rng, V)]++;
    CHECK(chi_square(counts, p, DRAWS) < 4.5);
    p[0] = 1.3 / V;
    p[1] = 0.7 / V;
    CHECK(chi_square(counts, p, DRAWS) > 4.5);
    p[2] = 0;
    CHECK(isinf(chi_square(counts, p, DRAWS)));
}

static void test_each_filter_matches_the_naive_one(void)
{
    struct rng rng = {12};
    float logits[V];
    for (int round = 0; round < 6; round++) {
        random_logits(&rng, logits);
        struct sluice_sampler_options o = plain();
        o.top_k = 1 + rng_below(&rng, V + 5);
        compare("top-k", logits, &o, NULL, 0);
        o = plain();
        o.top_p = rng_float(&rng, 0.05f, 0.999f);
        compare("top-p", logits, &o, NULL, 0);
        o = plain();
        o.min_p = rng_float(&rng, 0.001f, 0.9f);
        compare("min-p", logits, &o, NULL, 0);
    }
}

static void test_options_together_match_the_naive_ones(void)
{
    struct rng rng = {13};
    float logits[V];
    for (int round = 0; round < 12; round++) {
        random_logits(&rng, logits);
        struct sluice_logit_bias bias[3] = {
            {(int32_t)rng_below(&rng, 20), 3}, {25, -INFINITY}, {30, -2}};
        int32_t history[40];
        for (int i = 0; i < 40; i++) history[i] = (int32_t)rng_below(&rng, V);
        struct sluice_sampler_options o = plain();
        o.seed = 100 + (uint64_t)round;
        o.temperature = rng_float(&rng, 0.4f, 2);
        o.top_k = rng_below(&rng, V);
        o.top_p = rng_float(&rng, 0.3f, 1);
        o.min_p = rng_float(&rng, 0, 0.2f);
        o.repeat_penalty = rng_float(&rng, 0.8f, 1.6f);
        o.presence_penalty = rng_float(&rng, -0.5f, 1);
        o.frequency_penalty = rng_float(&rng, -0.2f, 0.5f);
        o.penalty_window = 1 + rng_below(&rng, 50);
        o.bias = bias;
        o.n_bias = 3;
        compare("all options", logits, &o, history, 40);
    }
}

static void test_greedy_takes_the_largest(void)
{
    struct sluice_sampler_options o = plain();
    o.temperature = 0;
    sluice_sampler *s = open_sampler(4, &o);
    REQUIRE(s);
    CHECK(draw(s, (float[]){1, 3, 2, 3}, 4) == 1, "the lower id of equal logits");
    CHECK(draw(s, (float[]){-5, -6, -4, -7}, 4) == 2);
    sluice_sampler_close(&s);

    struct sluice_logit_bias ban[] = {{1, -INFINITY}, {2, 0.5f}};
    o.bias = ban;
    o.n_bias = 2;
    s = open_sampler(4, &o);
    REQUIRE(s);
    CHECK(draw(s, (float[]){1, 3, 2, 2}, 4) == 2, "bias comes before the choice");
    sluice_sampler_close(&s);

    o = plain();
    o.temperature = 0;
    o.repeat_penalty = 2;
    s = open_sampler(4, &o);
    REQUIRE(s);
    sluice_sampler_accept(s, 1);
    CHECK(draw(s, (float[]){1, 3, 2, 0}, 4) == 2, "a penalty halves a positive logit");
    CHECK(draw(s, (float[]){-5, -3, -4, -5}, 4) == 2, "and doubles a negative one");
    sluice_sampler_close(&s);
}

static void test_top_k_prefers_lower_ids_among_equals(void)
{
    float equal[V];
    for (int i = 0; i < V; i++) equal[i] = 1;
    struct sluice_sampler_options o = plain();
    for (uint32_t k = 1; k < 9; k++) {
        o.top_k = k;
        compare("equal logits", equal, &o, NULL, 0);
        o.top_k = 0;
        o.top_p = (float)k / V - 0.001f;
        compare("equal logits, top-p", equal, &o, NULL, 0);
        o.top_p = 1;
    }
}

static void test_same_seed_same_draws(void)
{
    struct rng rng = {14};
    float logits[V];
    random_logits(&rng, logits);
    struct sluice_sampler_options o = plain();
    o.top_p = 0.97f;
    o.seed = 7;
    sluice_sampler *a = open_sampler(V, &o);
    sluice_sampler *b = open_sampler(V, &o);
    o.seed = 8;
    sluice_sampler *c = open_sampler(V, &o);
    REQUIRE(a && b && c);
    int differ = 0;
    for (int i = 0; i < 200; i++) {
        int32_t id = draw(a, logits, V);
        CHECK(id == draw(b, logits, V));
        differ += id != draw(c, logits, V);
    }
    CHECK(differ > 50, "only %d of 200 differ", differ);
    sluice_sampler_close(&a);
    sluice_sampler_close(&b);
    sluice_sampler_close(&c);
}

static void test_window_forgets(void)
{
    struct sluice_sampler_options o = plain();
    o.temperature = 0;
    o.presence_penalty = 10;
    o.penalty_window = 2;
    sluice_sampler *s = open_sampler(3, &o);
    REQUIRE(s);
    const float logits[] = {3, 2, 1};
    CHECK(draw(s, logits, 3) == 0);
    sluice_sampler_accept(s, 0);
    CHECK(draw(s, logits, 3) == 1);
    sluice_sampler_accept(s, 1);
    CHECK(draw(s, logits, 3) == 2);
    sluice_sampler_accept(s, 1);
    CHECK(draw(s, logits, 3) == 0, "0 has left the window");
    sluice_sampler_accept(s, -1);
    sluice_sampler_accept(s, 3);
    CHECK(draw(s, logits, 3) == 0, "ids that do not exist change nothing");
    sluice_sampler_close(&s);
}

static void test_odd_logits_do_not_crash(void)
{
    struct sluice_sampler_options o = plain();
    float temperatures[] = {0, 1, 1e-40f, 1e30f};
    for (size_t i = 0; i < 4; i++) {
        o.temperature = temperatures[i];
        sluice_sampler *s = open_sampler(4, &o);
        REQUIRE(s);
        CHECK(draw(s, (float[]){NAN, NAN, NAN, NAN}, 4) == 0);
        CHECK(draw(s, (float[]){-INFINITY, -INFINITY, NAN, -INFINITY}, 4) == 0);
        CHECK(draw(s, (float[]){NAN, -INFINITY, -3e38f, NAN}, 4) == 2);
        CHECK(draw(s, (float[]){1, INFINITY, NAN, INFINITY}, 4) == 1);
        int32_t id = draw(s, (float[]){3e38f, -3e38f, 3e38f, NAN}, 4);
        CHECK(id == 0 || (id == 2 && o.temperature > 0));
        sluice_sampler_close(&s);
    }
}

static void test_large_vocabulary_small_nucleus(void)
{
    enum { N = 200000 };
    struct sluice_sampler_options o = plain();
    o.top_p = 0.9f;
    sluice_sampler *s = open_sampler(N, &o);
    float *logits = malloc(N * sizeof *logits);
    REQUIRE(s && logits);
    int counts[3] = {0};
    for (int i = 0; i < 200; i++) {
        struct rng rng = {3};
        for (int j = 0; j < N; j++) logits[j] = rng_float(&rng, -12, -10);
        logits[77777] = 5;
        logits[123456] = 4;
        logits[199999] = 3;
        int32_t id = sluice_sampler_draw(s, logits);
        counts[0] += id == 77777;
        counts[1] += id == 123456;
        counts[2] += id == 199999;
    }
    CHECK(counts[0] > 100 && counts[1] > 20, "%d %d", counts[0], counts[1]);
    CHECK(counts[0] + counts[1] + counts[2] == 200);
    free(logits);
    sluice_sampler_close(&s);
}

static void rejects(struct sluice_sampler_options o, uint32_t vocab_size, const char *word)
{
    sluice_sampler *s = NULL;
    err.message[0] = '\0';
    CHECK(sluice_sampler_open(&s, vocab_size, &o, &err) == SLUICE_E_ARGUMENT, "%s", word);
    CHECK(s == NULL);
    CHECK(strstr(err.message, word), "'%s' does not mention %s", err.message, word);
}

static void test_options_out_of_range_are_refused(void)
{
    struct sluice_sampler_options good = plain();
    struct sluice_sampler_options o = good;
    rejects(good, 0, "vocabulary size");
    rejects(good, 0x80000000u, "vocabulary size");
    rejects((o = good, o.size = 3, o), 9, "size 3");
    rejects((o = good, o.temperature = -0.1f, o), 9, "temperature");
    rejects((o = good, o.temperature = NAN, o), 9, "temperature");
    rejects((o = good, o.top_p = 0, o), 9, "top_p");
    rejects((o = good, o.top_p = 1.01f, o), 9, "top_p");
    rejects((o = good, o.min_p = 1, o), 9, "min_p");
    rejects((o = good, o.min_p = -1, o), 9, "min_p");
    rejects((o = good, o.repeat_penalty = 0, o), 9, "repeat_penalty");
    rejects((o = good, o.presence_penalty = INFINITY, o), 9, "presence_penalty");
    rejects((o = good, o.frequency_penalty = NAN, o), 9, "frequency_penalty");
    struct sluice_logit_bias bias[] = {{9, 1}};
    rejects((o = good, o.bias = bias, o.n_bias = 1, o), 9, "id 9");
    bias[0] = (struct sluice_logit_bias){-1, 1};
    rejects((o = good, o.bias = bias, o.n_bias = 1, o), 9, "id -1");
    bias[0] = (struct sluice_logit_bias){1, NAN};
    rejects((o = good, o.bias = bias, o.n_bias = 1, o), 9, "id 1");
    rejects((o = good, o.n_bias = 1, o), 9, "biases");
}

static void test_bias_is_copied(void)
{
    struct sluice_logit_bias bias[] = {{2, 100}};
    struct sluice_sampler_options o = plain();
    o.bias = bias;
    o.n_bias = 1;
    sluice_sampler *s = open_sampler(4, &o);
    REQUIRE(s);
    bias[0] = (struct sluice_logit_bias){3, 1000};
    CHECK(draw(s, (float[]){0, 0, 0, 0}, 4) == 2);
    sluice_sampler_close(&s);
    sluice_sampler_close(&s);
    s = open_sampler(4, NULL);
    CHECK(s != NULL, "no options: the defaults");
    sluice_sampler_close(&s);
}

#define CASES(C)                                                                                   \
    C(distribution_follows_softmax)                                                                \
    C(wrong_distribution_is_noticed)                                                               \
    C(each_filter_matches_the_naive_one)                                                           \
    C(options_together_match_the_naive_ones)                                                       \
    C(greedy_takes_the_largest)                                                                    \
    C(top_k_prefers_lower_ids_among_equals)                                                        \
    C(same_seed_same_draws)                                                                        \
    C(window_forgets)                                                                              \
    C(odd_logits_do_not_crash)                                                                     \
    C(large_vocabulary_small_nucleus)                                                              \
    C(options_out_of_range_are_refused)                                                            \
    C(bias_is_copied)
CHECK_MAIN(CASES)
