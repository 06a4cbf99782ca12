/* Random worlds: what is tried, and the backends it is tried on. */
#ifndef TESTS_OP_RANDOM_H
#define TESTS_OP_RANDOM_H

#include "opcheck.h"

enum { MAX_LANES = 20, MAX_ALLOCS = 4096 };

struct variant {
    const char *name;
    const struct sample_dims *dims;
    bool packed, int8;
    enum kv_type kv;
    uint32_t n_outputs, n_segments;
    uint32_t count[MAX_SEGMENTS], start[MAX_SEGMENTS];
};

/* One way to run a node. Lanes of one level are neighbours. */
struct lane {
    struct cpu_backend *be;
    unsigned char *at[512];
    uint32_t features, threads;
    bool bf16; /* inputs of weights in bf16 */
    const char *level;
};

struct random_world {
    const struct variant *v;
    struct world w;
    struct graph g;
    struct state_layout layout;
    struct plan plan;
    struct sequence sequences[MAX_SEGMENTS];
    struct lane lanes[MAX_LANES];
    uint32_t n_lanes;
    void *allocs[MAX_ALLOCS];
    uint32_t n_allocs;
};

/* What is tried: shapes, sizes of segments, positions, precisions. */
extern const struct variant variants[];
extern const size_t n_variants;

void world_open(struct random_world *r, const struct variant *v, uint64_t seed);
void world_close(struct random_world *r);

#endif
