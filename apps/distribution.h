/* What perplexity measures of rows of logits, in double precision. */
#ifndef APPS_DISTRIBUTION_H
#define APPS_DISTRIBUTION_H

#include <stdbool.h>
#include <stddef.h>

/* log(sum(exp(row[0..n)))), shifted by the largest so that nothing overflows. */
double log_sum_exp(const float *row, size_t n);

/* The first of the largest. */
size_t index_of_largest(const float *row, size_t n);

/*
 * The Kullback-Leibler divergence of q from p, sum(p log(p / q)), of the softmax of two rows of
 * logits. Not negative but for rounding.
 */
double kl_divergence(const float *p, double p_log_sum, const float *q, double q_log_sum, size_t n);

#endif
