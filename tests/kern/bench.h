/* Measuring kernels: what bench.c and bench_rows.c share. */
#ifndef TESTS_BENCH_H
#define TESTS_BENCH_H

#include "kerncheck.h"

enum { COLS = 2048, KV_HEAD = 256, SHARING = 8, DRAM_BYTES = 192 << 20 };

/* What one thread does in a sample: rows [row0, row1) of a matrix, or repeats of a row kernel. */
struct job {
    void (*run)(const struct job *job);
    const struct kernels *k;
    const void *operands;
    uint32_t row0, row1, n;
    void *scratch;
    uint32_t passes; /* 0: one */
};

struct result {
    double median, low, high, best; /* seconds; low and high are the quartiles */
    double hz;                      /* cycles a second of this thread around the samples */
    double read, share; /* medians: rate of the reads in between, and the kernel's beside the read
                           before it; 0: none */
};

struct world {
    const struct bench_options *options;
    uint8_t *memory; /* DRAM_BYTES of random bits */
    uint8_t *bf16;   /* as many scales as any matrix has */
    uint8_t *e8m0;   /* the same of MXFP4 */
    float *x, *y;
    struct act8 act;
    void *scratch;
    uint64_t seed;
    int *n_wrong; /* versions that their check refused */
};

struct result measure(const struct job *job, uint32_t threads);
void print_result(const struct bench_options *o, const char *name, const char *from, uint32_t n,
                  struct result r, double bytes, double operations);
/* Whether a glob asks for it and the slot's own check accepts it: what is wrong is not measured. */
bool may_measure(const struct world *world, const struct kernels *k, const char *slot,
                 enum wtype type, const char *name);

/* Blocks [row0, row1) of keys and values, which follow each other in memory. */
void run_blocks_f16(const struct job *job);
void run_blocks_f32(const struct job *job);

/* bench_rows.c: every kernel of one row, in cache, one thread. */
void bench_rows(const struct world *world, const struct kernels *k, const char *set);

#endif
