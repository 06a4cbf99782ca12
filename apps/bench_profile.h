/* Where the time of evaluations goes: the steps of an engine, added up by op and weight. */
#ifndef APPS_BENCH_PROFILE_H
#define APPS_BENCH_PROFILE_H

#include "app.h"

enum { PROFILE_ROWS = 96 };

struct profile_row {
    char name[48];           /* "matmul o_proj" */
    const char *op, *weight; /* of the steps, which are told apart by these addresses */
    uint64_t steps, ns, bytes, products;
    uint64_t own_bytes; /* that a cache keeps from one evaluation to the next; 0: not so few */
    double own_rate;    /* at which as many are read or copied, again and again */
};

struct profile {
    struct profile_row rows[PROFILE_ROWS]; /* the last one takes what finds no room */
    size_t n;
};

/* What the machine could do at best. */
struct machine_limits {
    double bytes;    /* read a second */
    double products; /* computed a second */
};

/* What sluice_engine_set_profile() tells; user is a struct profile. */
void profile_add(void *user, const struct sluice_step *step);
struct profile_row profile_sum(const struct profile *profile);
/*
 * The least time for the bytes and the products of a row, of the time that it took; 0: neither.
 * What its own bytes allow counts where that is more than what the memory does.
 */
double profile_of_limit(const struct profile_row *row, const struct machine_limits *limits);
/* The longest row first. */
void profile_sort(struct profile *profile);
/* A sorted profile of n tokens that took total_ns; all but the steps is for one token. */
void profile_print(const struct profile *profile, const char *phase, uint32_t n, uint64_t total_ns,
                   const struct machine_limits *limits, struct buffer *out);
json_t *profile_json(const struct profile *profile, uint32_t n, uint64_t total_ns,
                     const struct machine_limits *limits);

#endif
