/* A real model with a backend over it, and steps of two sequences. */
#ifndef TESTS_BACKEND_BENCH_H
#define TESTS_BACKEND_BENCH_H

#include <stdlib.h>

#include "backend/cpu/cpu_internal.h"
#include "backend/layout.h"
#include "base/rng.h"
#include "check.h"
#include "model/model.h"

enum { TOKENS = 48, N_CTX = 200 };

struct bench {
    struct checkpoint cp;
    struct model m;
    struct state_layout layout;
    struct cpu_backend *be;
    struct sequence seq[2];
    struct batch_segment segments[2];
};

static inline enum sluice_status try_bench(struct bench *b, const char *path,
                                           const struct cpu_options *options,
                                           struct sluice_error *err)
{
    TRY(checkpoint_open(&b->cp, path, err));
    TRY(model_init(&b->m, &b->cp, &(struct model_options){0}, err));
    TRY(layout_from_graph(&b->layout, &b->m.graph, options->int8 ? KV_F16 : KV_F32, err));
    TRY(cpu_open(&b->be, &b->m.graph, b->m.weights, options, err));
    for (int s = 0; s < 2; s++) TRY(sequence_init(&b->seq[s], &b->layout, N_CTX, err));
    if (!CPU_BIND_BORROWED(b->be, b->m.rope_freqs, b->m.rope_values)) abort();
    return SLUICE_OK;
}

static inline void bench_open_with(struct bench *b, const char *path, const struct cpu_options *o)
{
    struct sluice_error err = {0};
    *b = (struct bench){0};
    if (try_bench(b, path, o, &err) == SLUICE_OK) return;
    printf("# %s\n", err.message);
    abort();
}

static inline void bench_open_in(struct bench *b, const char *path, bool int8, uint32_t threads,
                                 enum pool_order order, uint64_t pieces_from)
{
    struct cpu_options o = {.pool = {.n_threads = threads, .order = order},
                            .features = cpu_detect(),
                            .int8 = int8,
                            .dims = {TOKENS, TOKENS},
                            .share_buffers = true,
                            .pieces_from = pieces_from};
    bench_open_with(b, path, &o);
}

static inline void bench_open(struct bench *b, const char *path, bool int8, bool share,
                              uint32_t threads)
{
    struct cpu_options o = {.pool = {.n_threads = threads},
                            .features = cpu_detect(),
                            .int8 = int8,
                            .dims = {TOKENS, TOKENS},
                            .share_buffers = share};
    bench_open_with(b, path, &o);
}

static inline void bench_close(struct bench *b)
{
    cpu_close(&b->be);
    for (int s = 0; s < 2; s++) sequence_release(&b->seq[s]);
    layout_release(&b->layout);
    model_release(&b->m);
    checkpoint_release(&b->cp);
}

/* n ids for each sequence that has some, all rows wanted; results stay in the backend. */
static inline void bench_step(struct bench *b, struct rng *ids, uint32_t first, uint32_t second,
                              bool commit)
{
    struct sluice_error err = {0};
    struct batch batch = {.n_tokens = first + second, .segments = b->segments};
    if (first) b->segments[batch.n_segments++] = (struct batch_segment){&b->seq[0], 0, first};
    if (second) b->segments[batch.n_segments++] = (struct batch_segment){&b->seq[1], first, second};
    int32_t *in = CPU_BUFFER(b->be, b->m.token_ids), *rows = CPU_BUFFER(b->be, b->m.output_rows);
    for (uint32_t t = 0; t < batch.n_tokens; t++) in[t] = (int32_t)rng_below(ids, b->m.vocab_size);
    CHECK_OK(cpu_run(b->be, &batch, 0, b->m.tail_node, &err));
    batch.n_outputs = batch.n_tokens;
    for (uint32_t t = 0; t < batch.n_tokens; t++) rows[t] = (int32_t)t;
    CHECK_OK(cpu_run(b->be, &batch, b->m.tail_node, (uint32_t)b->m.graph.nodes.n, &err));
    if (first && commit) sequence_commit(&b->seq[0], first);
    if (second && commit) sequence_commit(&b->seq[1], second);
}

static inline bool same_logits(struct bench *a, struct bench *b, uint32_t rows)
{
    return memcmp(CPU_BUFFER(a->be, a->m.logits), CPU_BUFFER(b->be, b->m.logits),
                  (size_t)rows * a->m.vocab_size * sizeof(float)) == 0;
}

static inline bool same_states(const struct bench *a, const struct bench *b)
{
    bool same = true;
    for (int s = 0; s < 2; s++) {
        same &= a->seq[s].position == b->seq[s].position;
        same &= memcmp(a->seq[s].pages, b->seq[s].pages, a->seq[s].pages_bytes) == 0;
        for (uint32_t i = 0; i < a->layout.n_recurrent; i++)
            same &= memcmp(sequence_recurrent(&a->seq[s], i), sequence_recurrent(&b->seq[s], i),
                           a->layout.recurrent[i].n * sizeof(float)) == 0;
    }
    return same;
}

#endif
