/* Opening engines on the reference models, and evaluating made-up tokens with them. */
#ifndef TESTS_ENGINE_RUN_H
#define TESTS_ENGINE_RUN_H

#include <stdlib.h>

#include "base/rng.h"
#include "check.h"
#include "sluice/sluice.h"

/* Packed weights, three DeltaNet layers and an attention layer; a small one without packing. */
static const char packed_model[] = "tests/reference/qwen3_5_moe-mlx4";
static const char float_model[] = "tests/reference/tied";

/* One evaluation: what goes in, and a row of logits for each id. */
struct prompt {
    int32_t *ids;
    float *logits;
    size_t n;
    uint32_t vocab;
};

/* Memory of a sanitizer counts as the program's, and grows. */
#define INSTRUMENTED "a sanitizer's own memory is in the way"

static inline void *must(void *p)
{
    if (!p) abort();
    return p;
}

static inline struct sluice_engine_options run_options(enum sluice_precision precision,
                                                       uint32_t n_threads)
{
    struct sluice_engine_options o;
    sluice_engine_options_default(&o);
    o.precision = precision;
    o.n_threads = n_threads;
    o.max_batch_tokens = 64;
    return o;
}

/* An engine that must open; the message is printed when it does not. */
static inline sluice_engine *run_engine(const char *path, const struct sluice_engine_options *o)
{
    struct sluice_error err = {0};
    sluice_engine *engine;
    CHECK_OK(sluice_engine_open(&engine, path, o, &err));
    return must(engine);
}

static inline sluice_session *run_session(sluice_engine *engine)
{
    struct sluice_error err = {0};
    sluice_session *session;
    CHECK_OK(sluice_session_open(&session, engine, NULL, &err));
    return must(session);
}

static inline sluice_session *run_session_of(sluice_engine *engine, uint32_t n_ctx)
{
    struct sluice_error err = {0};
    struct sluice_session_options o;
    sluice_session *session;
    sluice_session_options_default(&o);
    o.n_ctx = n_ctx;
    CHECK_OK(sluice_session_open(&session, engine, &o, &err));
    return must(session);
}

static inline uint32_t run_vocab(const sluice_engine *engine)
{
    struct sluice_engine_info info = {.size = sizeof info};
    sluice_engine_get_info(engine, &info);
    return info.vocab_size;
}

static inline struct prompt prompt_make(uint32_t vocab, size_t n, uint64_t seed)
{
    struct rng rng = {seed};
    struct prompt p = {.n = n, .vocab = vocab};
    p.ids = must(calloc(n + 1, sizeof *p.ids));
    p.logits = must(calloc(n * vocab + 1, sizeof *p.logits));
    for (size_t i = 0; i < n; i++) p.ids[i] = (int32_t)rng_below(&rng, vocab);
    return p;
}

static inline void prompt_release(struct prompt *p)
{
    free(p->ids);
    free(p->logits);
    *p = (struct prompt){0};
}

/* The segment of ids [at, at + n) with logits for all of them. */
static inline struct sluice_segment prompt_segment(const struct prompt *p, sluice_session *session,
                                                   size_t at, size_t n)
{
    return (struct sluice_segment){
        .session = session, .ids = p->ids + at, .n_ids = n, .n_logits = n};
}

/* Ids [at, at + n) into logits, alone in their call. */
static inline enum sluice_status prompt_eval(const struct prompt *p, sluice_engine *engine,
                                             sluice_session *session, size_t at, size_t n,
                                             float *logits, struct sluice_error *err)
{
    struct sluice_segment s = prompt_segment(p, session, at, n);
    return sluice_eval(engine, &s, 1, NULL, logits, err);
}

/* The whole prompt in one call and a session of its own. */
static inline void prompt_run(struct prompt *p, sluice_engine *engine)
{
    struct sluice_error err = {0};
    sluice_session *session = run_session(engine);
    CHECK_OK(prompt_eval(p, engine, session, 0, p->n, p->logits, &err));
    sluice_session_close(&session);
}

/* Made-up ids and their logits in fast precision, with all experts mapped. */
static inline struct prompt prompt_mapped(const char *path, size_t n, uint64_t seed)
{
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    o.io = SLUICE_IO_MMAP;
    sluice_engine *engine = run_engine(path, &o);
    struct prompt p = prompt_make(run_vocab(engine), n, seed);
    prompt_run(&p, engine);
    sluice_engine_close(&engine);
    return p;
}

/* Rows from which on the logits are other bits than want's; p->n when none is. */
static inline size_t first_difference(const struct prompt *p, const float *logits)
{
    for (size_t i = 0; i < p->n; i++)
        if (memcmp(p->logits + i * p->vocab, logits + i * p->vocab, p->vocab * sizeof *logits) != 0)
            return i;
    return p->n;
}

#endif
