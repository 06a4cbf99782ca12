/* Made-up routing: valid picks, the chosen statistics, the same for the same seed. */
#include <math.h>

#include "check.h"
#include "fail_alloc.h"
#include "store/route.h"

enum { LAYERS = 4, EXPERTS = 64, K = 4, TOKENS = 20000 };

static struct sluice_error err;

static const struct route_options plain = {
    .n_layers = LAYERS, .n_experts = EXPERTS, .k = K, .reuse = -1, .seed = 1};

static struct route *open_route(const struct route_options *options)
{
    struct route *route;
    CHECK_OK(route_open(&route, options, &err));
    return route;
}

/* Share of picks that the layer's last token had, and how often each expert was picked. */
static double measure(const struct route_options *options, uint32_t *counts)
{
    struct route *route = open_route(options);
    uint32_t last[K] = {0}, now[K], same = 0;
    memset(counts, 0, EXPERTS * sizeof *counts);
    for (uint32_t t = 0; t < TOKENS; t++) {
        route_pick(route, 1, now);
        for (uint32_t i = 0; i < K; i++) {
            CHECK(now[i] < EXPERTS && (i == 0 || now[i] > now[i - 1]));
            counts[now[i]]++;
            for (uint32_t j = 0; t && j < K; j++) same += now[i] == last[j];
        }
        memcpy(last, now, sizeof last);
    }
    route_close(&route);
    return (double)same / ((TOKENS - 1) * K);
}

static uint32_t largest(const uint32_t *counts)
{
    uint32_t max = 0;
    for (uint32_t e = 0; e < EXPERTS; e++)
        if (counts[e] > max) max = counts[e];
    return max;
}

static void test_uniform(void)
{
    uint32_t counts[EXPERTS];
    double mean = (double)TOKENS * K / EXPERTS, same = measure(&plain, counts);
    for (uint32_t e = 0; e < EXPERTS; e++)
        CHECK(fabs(counts[e] - mean) < 5 * sqrt(mean), "%u: %u", e, counts[e]);
    CHECK(fabs(same - (double)K / EXPERTS) < 0.005, "%.4f", same);
}

static void test_zipf(void)
{
    struct route_options options = plain;
    uint32_t flat[EXPERTS], steep[EXPERTS];
    options.zipf = 0.7;
    measure(&options, flat);
    options.zipf = 1.2;
    measure(&options, steep);
    CHECK(largest(steep) > largest(flat) && largest(flat) > TOKENS * K / EXPERTS * 2);
    /* The first draw of a token is Zipf's: with one pick per token, shares are r^-s exactly. */
    options.k = 1;
    options.zipf = 1;
    struct route *route = open_route(&options);
    uint32_t counts[EXPERTS] = {0}, e;
    for (uint32_t t = 0; t < TOKENS; t++) {
        route_pick(route, 0, &e);
        counts[e]++;
    }
    double harmonic = 0;
    for (int r = 1; r <= EXPERTS; r++) harmonic += 1.0 / r;
    CHECK(fabs(largest(counts) / (double)TOKENS - 1 / harmonic) < 0.01);
    route_close(&route);
}

static void test_reuse(void)
{
    struct route_options options = plain;
    uint32_t counts[EXPERTS];
    for (int tenths = 0; tenths <= 10; tenths += 2) {
        options.reuse = tenths / 10.0;
        double same = measure(&options, counts);
        CHECK(fabs(same - options.reuse) < 0.01, "%.4f, not %.1f", same, options.reuse);
    }
    options.zipf = 1;
    options.reuse = 0.3;
    CHECK(fabs(measure(&options, counts) - 0.3) < 0.01);
}

static void test_drift_moves_the_favourites(void)
{
    struct route_options options = plain;
    uint32_t counts[EXPERTS], first[EXPERTS] = {0}, later[EXPERTS] = {0};
    options.zipf = 1.2;
    uint32_t fixed = (measure(&options, counts), largest(counts));
    options.drift = 0.1;
    CHECK((measure(&options, counts), largest(counts)) < fixed * 2 / 3);
    struct route *route = open_route(&options);
    for (uint32_t t = 0; t < 4000; t++) {
        uint32_t experts[K];
        route_pick(route, 0, experts);
        for (uint32_t i = 0; i < K; i++) (t < 2000 ? first : later)[experts[i]]++;
    }
    uint32_t moved = 0;
    for (uint32_t e = 0; e < EXPERTS; e++) moved += first[e] > 2 * later[e] + 50;
    CHECK(moved > 0);
    route_close(&route);
}

static void test_seeds_and_layer_order(void)
{
    struct route_options options = plain;
    options.zipf = 0.5;
    options.reuse = 0.2;
    struct route *a = open_route(&options), *b = open_route(&options);
    options.seed = 2;
    struct route *c = open_route(&options);
    uint32_t of_a[LAYERS][K], of_b[LAYERS][K], of_c[K], different = 0, unlike = 0;
    for (int t = 0; t < 100; t++) {
        for (uint32_t l = 0; l < LAYERS; l++) route_pick(a, l, of_a[l]);
        for (uint32_t l = LAYERS; l-- > 0;) route_pick(b, l, of_b[l]);
        CHECK(memcmp(of_a, of_b, sizeof of_a) == 0);
        route_pick(c, 0, of_c);
        different += memcmp(of_a[0], of_c, sizeof of_c) != 0;
        unlike += memcmp(of_a[0], of_a[1], sizeof of_c) != 0;
    }
    CHECK(different > 90 && unlike > 90);
    route_close(&a);
    route_close(&b);
    route_close(&c);
}

static void test_batches_are_tokens_together(void)
{
    struct route_options options = plain;
    options.zipf = 1;
    struct route *a = open_route(&options), *b = open_route(&options);
    for (uint32_t n_tokens = 1; n_tokens < 60; n_tokens += 7) {
        uint32_t sums[EXPERTS] = {0}, experts[EXPERTS], counts[EXPERTS], one[K], total = 0;
        uint32_t n = route_batch(a, 2, n_tokens, experts, counts);
        for (uint32_t t = 0; t < n_tokens; t++) {
            route_pick(b, 2, one);
            for (uint32_t i = 0; i < K; i++) sums[one[i]]++;
        }
        for (uint32_t i = 0; i < n; i++) {
            CHECK(sums[experts[i]] == counts[i] && (i == 0 || experts[i] > experts[i - 1]));
            total += counts[i];
        }
        CHECK(total == n_tokens * K);
    }
    route_close(&a);
    route_close(&b);
}

static void test_every_expert_can_be_needed(void)
{
    struct route_options options = plain;
    uint32_t experts[EXPERTS];
    options.k = EXPERTS;
    options.zipf = 8; /* draws alone would hardly ever find the rare ones */
    struct route *route = open_route(&options);
    for (int t = 0; t < 3; t++) {
        route_pick(route, 3, experts);
        for (uint32_t e = 0; e < EXPERTS; e++) CHECK(experts[e] == e);
    }
    route_close(&route);
}

static void test_bad_options(void)
{
    static const struct {
        struct route_options options;
        const char *message;
    } cases[] = {
        {{0, 8, 2, 0, -1, 0, 0}, "0 layers"},
        {{5000, 8, 2, 0, -1, 0, 0}, "5000 layers"},
        {{1, 0, 2, 0, -1, 0, 0}, "0 experts"},
        {{1, 65537, 2, 0, -1, 0, 0}, "65537 experts"},
        {{1, 8, 0, 0, -1, 0, 0}, "0 experts per token"},
        {{1, 8, 9, 0, -1, 0, 0}, "9 experts per token"},
        {{1, 8, 2, -1, -1, 0, 0}, "exponent -1"},
        {{1, 8, 2, 17, -1, 0, 0}, "exponent 17"},
        {{1, 8, 2, NAN, -1, 0, 0}, "exponent nan"},
        {{1, 8, 2, 0, -1, 1.5, 0}, "drift 1.5"},
        {{1, 8, 2, 0, 1.5, 0, 0}, "reuse 1.5"},
        {{1, 8, 2, 0, NAN, 0, 0}, "reuse nan"},
        {{1, 8, 5, 0, 0.5, 0, 0}, "twice as many experts"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct route *route;
        CHECK(route_open(&route, &cases[i].options, &err) == SLUICE_E_ARGUMENT && !route);
        CHECK(strstr(err.message, cases[i].message), "%s", err.message);
    }
}

static bool opens(void)
{
    struct route *route;
    struct route_options options = plain;
    options.n_experts = 5000; /* several blocks of the arena */
    enum sluice_status status = route_open(&route, &options, &err);
    CHECK(status == SLUICE_OK || (status == SLUICE_E_NOMEM && !route));
    route_close(&route);
    return status == SLUICE_OK;
}

static void test_out_of_memory(void)
{
    int failed;
    FAIL_SWEEP(opens(), &failed);
    CHECK(failed >= 2 && failed < 1000, "%d", failed);
}

#define CASES(C)                                                                                   \
    C(uniform)                                                                                     \
    C(zipf)                                                                                        \
    C(reuse)                                                                                       \
    C(drift_moves_the_favourites)                                                                  \
    C(seeds_and_layer_order)                                                                       \
    C(batches_are_tokens_together)                                                                 \
    C(every_expert_can_be_needed)                                                                  \
    C(bad_options)                                                                                 \
    C(out_of_memory)
CHECK_MAIN(CASES)
