#include "distribution.h"

#include <math.h>

size_t index_of_largest(const float *row, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (row[i] > row[best]) best = i;
    return best;
}

double log_sum_exp(const float *row, size_t n)
{
    double most = (double)row[index_of_largest(row, n)];
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += exp((double)row[i] - most);
    return most + log(sum);
}

double kl_divergence(const float *p, double p_log_sum, const float *q, double q_log_sum, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double log_p = (double)p[i] - p_log_sum;
        double probability = exp(log_p);
        /* The limit of x log x at 0 is 0. */
        if (probability > 0) sum += probability * (log_p - ((double)q[i] - q_log_sum));
    }
    return sum;
}
