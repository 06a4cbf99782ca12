/* The measures of perplexity against sums done the long way. */
#include <math.h>

#include "base/rng.h"
#include "check.h"
#include "distribution.h"

enum { N = 500 };

static void random_row(struct rng *rng, float *row)
{
    for (int i = 0; i < N; i++) row[i] = rng_float(rng, -9, 9);
}

static void test_log_sum_exp(void)
{
    struct rng rng = {1};
    float row[N];
    random_row(&rng, row);
    long double sum = 0;
    for (int i = 0; i < N; i++) sum += expl((long double)row[i]);
    CHECK(fabs(log_sum_exp(row, N) - (double)logl(sum)) < 1e-12);
    CHECK(log_sum_exp((float[]){3e38f, 3e38f}, 2) > 2.9e38, "no overflow");
    CHECK(fabs(log_sum_exp((float[]){-1000, -1000}, 2) - (-1000 + log(2))) < 1e-9);
    CHECK(log_sum_exp((float[]){0, -INFINITY}, 2) == 0);
    CHECK(isnan(log_sum_exp((float[]){0, NAN}, 2)));
}

static void test_kl_divergence(void)
{
    struct rng rng = {2};
    float p[N];
    float q[N];
    random_row(&rng, p);
    random_row(&rng, q);
    double p_sum = log_sum_exp(p, N);
    double q_sum = log_sum_exp(q, N);
    long double want = 0;
    for (int i = 0; i < N; i++) {
        long double pi = expl((long double)p[i] - (long double)p_sum);
        long double qi = expl((long double)q[i] - (long double)q_sum);
        want += pi * logl(pi / qi);
    }
    double got = kl_divergence(p, p_sum, q, q_sum, N);
    CHECK(want > 1 && fabs(got - (double)want) < 1e-10, "%.15g %.15Lg", got, want);
    CHECK(fabs(kl_divergence(p, p_sum, p, p_sum, N)) < 1e-14);
    for (int i = 0; i < N; i++) q[i] = p[i] + 5;
    CHECK(fabs(kl_divergence(p, p_sum, q, log_sum_exp(q, N), N)) < 1e-6, "a shift changes nothing");
    CHECK(kl_divergence((float[]){0, -INFINITY}, 0, (float[]){0, -INFINITY}, 0, 2) == 0,
          "a banned id adds nothing");
}

static void test_index_of_largest(void)
{
    CHECK(index_of_largest((float[]){1, 5, 3, 5}, 4) == 1);
    CHECK(index_of_largest((float[]){-1}, 1) == 0);
}

#define CASES(C)                                                                                   \
    C(log_sum_exp)                                                                                 \
    C(kl_divergence)                                                                               \
    C(index_of_largest)
CHECK_MAIN(CASES)
