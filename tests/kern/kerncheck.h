/*
 * kerncheck: every version of every kernel against the mathematics in double, and against its own
 * promises (kernel.h): nothing touched outside the operands, the same bits for every n and split,
 * NaN kept. kernel.def is the list of what must be checked: each slot NAME needs check_NAME.
 */
#ifndef TESTS_KERNCHECK_H
#define TESTS_KERNCHECK_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fp16.h"
#include "base/rng.h"
#include "kernel/kernel.h"

/* Half an ulp of 1. */
#define EPS 0x1p-24

struct check {
    struct rng rng;
    const struct kernels *ref;
    uint32_t round; /* of the check that runs */
};

/* Ends the check of this version with a message. */
_Noreturn void fail(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * guard.c: operands. Each lies in its own pages, flush with an inaccessible page at its end or at
 * its start, or at any offset between canaries. reset forgets all of them. Between begin and end
 * (around the call of a kernel) inputs are read-only; end fails when a canary has changed.
 */
void operands_reset(struct check *c);
void *operand_in(const char *name, struct check *c, size_t bytes, size_t align);
/* Filled with POISON. */
void *operand_out(const char *name, struct check *c, size_t bytes, size_t align);
void operands_begin(struct check *c);
void operands_end(struct check *c);
/* Memory until the next reset, also when a check fails in between. */
void *temporary(size_t bytes);
/* What lies at an address that faulted; writes one phrase. */
void operands_describe(const void *address, char *out, size_t cap);
#define POISON 0x7fc0deadu /* as float: a NaN that no kernel computes */

static inline float *in_f32(struct check *c, const char *name, size_t n)
{
    return operand_in(name, c, n * sizeof(float), sizeof(float));
}
static inline float *out_f32(struct check *c, const char *name, size_t n)
{
    return operand_out(name, c, n * sizeof(float), sizeof(float));
}

/* inputs.c: values that hurt. */
enum pattern {
    PATTERN_UNIFORM,
    PATTERN_ZEROS,
    PATTERN_DENORMAL,
    PATTERN_LARGE,
    PATTERN_ALTERNATING,
    PATTERN_ONE_HUGE,
    PATTERN_EQUAL,
    PATTERN_MIXED, /* magnitudes from 2^-40 to 2^20 */
    PATTERN_COUNT
};
enum pattern pattern_of(struct check *c);
void fill(struct check *c, float *x, size_t n, enum pattern pattern);
void fill_uniform(struct check *c, float *x, size_t n, float lo, float hi);
float gaussian(struct rng *rng);
/* 1 .. 33 in the first rounds, then sizes of models. */
uint32_t length_of(struct check *c);
enum { LENGTH_ROUNDS = 60 };

/* A matrix with its values as the format defines them (formats.h), one by one. */
struct weights {
    struct wmat w;
    float *dense;             /* [rows][cols], owned by inputs.c until the next call */
    struct format_value *raw; /* the same */
};
/* Columns and group that a matrix of the type may have. */
void random_columns(struct check *c, enum wtype type, uint32_t *cols, uint32_t *group);
struct weights random_weights(struct check *c, enum wtype type, uint32_t rows, uint32_t cols,
                              uint32_t group);

/* compare.c */
/* |got - want| <= bound; a NaN for a NaN; infinity is right beyond f32. */
void expect_near(struct check *c, const char *what, size_t i, float got, double want, double bound);
void expect_bits(struct check *c, const char *what, size_t i, float got, float want);
void expect_nan(struct check *c, const char *what, size_t i, float got);
/* Bound of a dot product in at least eight partial sums: sum_abs is the sum of |a_i b_i|. */
static inline double dot_bound(uint32_t n, double sum_abs)
{
    return (n / 8.0 + 16) * EPS * sum_abs + (n + 2) * 0x1p-149;
}

#define K(ret, name, params)                                                                       \
    void check_##name(struct check *c, const struct kernels *k, enum wtype type);
#define KW K
#include "kernel/kernel.def"
#undef K
#undef KW

/* One version of one slot. */
typedef void (*any_kernel)(void);
struct slot {
    const char *name;
    size_t offset; /* in struct kernels */
    enum wtype type;
    bool typed;
    void (*check)(struct check *c, const struct kernels *k, enum wtype type);
};
any_kernel slot_get(const struct kernels *k, const struct slot *s);
void slot_set(struct kernels *k, const struct slot *s, any_kernel f);

/* broken_*.c: kernels with one planted bug each, which the check of their slot must find. */
struct broken {
    const char *slot;
    const char *bug;
    const char *message; /* a glob: what the check must say */
    any_kernel kernel;
    enum wtype type;
};
extern const struct broken broken_blocks[], broken_latent[], broken_matmul[], broken_rows[],
    broken_state[];
extern const size_t broken_blocks_count, broken_latent_count, broken_matmul_count,
    broken_rows_count, broken_state_count;

/* bench.c */
struct bench_options {
    uint32_t threads;
    bool json;
    char *const *globs;
    int n_globs;
};
/* How many versions were wrong, and so not measured. */
int bench_run(const struct bench_options *options, uint64_t seed);
/* kerncheck.c: whether the slot's check accepts what is in it; prints to stderr why it does not. */
bool kernel_accepted(const char *name, enum wtype type, const struct kernels *k, uint64_t seed);

#endif
