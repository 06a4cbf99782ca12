/* How tokens are cut, and what else is in a batch, changes no bit. */
#include "engine_run.h"

enum { SESSIONS = 4 };
static const size_t lengths[SESSIONS] = {90, 70, 37, 129};

struct crowd {
    sluice_engine *engine;
    struct prompt prompts[SESSIONS]; /* with the logits of isolated runs */
    sluice_session *sessions[SESSIONS];
    float *logits[SESSIONS]; /* of the runs together */
    size_t done[SESSIONS];
};

static void crowd_open(struct crowd *c, enum sluice_precision precision, uint32_t threads)
{
    struct sluice_engine_options o = run_options(precision, threads);
    *c = (struct crowd){.engine = run_engine(packed_model, &o)};
    for (int s = 0; s < SESSIONS; s++) {
        c->prompts[s] = prompt_make(run_vocab(c->engine), lengths[s], 10 + (uint64_t)s);
        prompt_run(&c->prompts[s], c->engine);
        c->logits[s] = must(calloc(lengths[s] * c->prompts[s].vocab, sizeof **c->logits));
        c->sessions[s] = run_session(c->engine);
    }
}

static void crowd_close(struct crowd *c)
{
    for (int s = 0; s < SESSIONS; s++) {
        sluice_session_close(&c->sessions[s]);
        prompt_release(&c->prompts[s]);
        free(c->logits[s]);
    }
    sluice_engine_close(&c->engine);
}

/* One call with counts[s] ids of each session that has some; results go to their places. */
static void crowd_step(struct crowd *c, const size_t counts[SESSIONS])
{
    struct sluice_error err = {0};
    struct sluice_segment segments[SESSIONS];
    size_t n = 0, rows = 0;
    for (int s = 0; s < SESSIONS; s++) {
        if (counts[s] == 0) continue;
        segments[n++] = prompt_segment(&c->prompts[s], c->sessions[s], c->done[s], counts[s]);
        rows += counts[s];
    }
    uint32_t vocab = c->prompts[0].vocab;
    float *logits = must(calloc(rows * vocab + 1, sizeof *logits));
    CHECK_OK(sluice_eval(c->engine, segments, n, NULL, logits, &err));
    rows = 0;
    for (int s = 0; s < SESSIONS; s++) {
        memcpy(c->logits[s] + c->done[s] * vocab, logits + rows * vocab,
               counts[s] * vocab * sizeof *logits);
        rows += counts[s];
        c->done[s] += counts[s];
        CHECK(sluice_session_position(c->sessions[s]) == c->done[s]);
    }
    free(logits);
}

/* All sessions are at their ends, with the bits of isolated runs; they start anew. */
static void crowd_compare(struct crowd *c, const char *what)
{
    for (int s = 0; s < SESSIONS; s++) {
        size_t row = first_difference(&c->prompts[s], c->logits[s]);
        CHECK(c->done[s] == lengths[s] && row == lengths[s], "%s: session %d differs from row %zu",
              what, s, row);
        sluice_session_reset(c->sessions[s]);
        c->done[s] = 0;
        memset(c->logits[s], 0, lengths[s] * c->prompts[s].vocab * sizeof **c->logits);
    }
}

/* Sessions skip calls, take a token, or take a chunk. */
static void interleave(struct crowd *c, uint64_t seed)
{
    struct rng rng = {seed};
    for (size_t left = 1; left > 0;) {
        size_t counts[SESSIONS] = {0}, wanted = 0;
        left = 0;
        for (int s = 0; s < SESSIONS; s++) {
            static const uint32_t most[] = {1, 2, 9, 40, 200};
            size_t rest = lengths[s] - c->done[s], n = 0;
            if (rng_below(&rng, 4)) n = 1 + rng_below(&rng, most[rng_below(&rng, 5)]);
            counts[s] = n < rest ? n : rest;
            wanted += counts[s];
            left += rest;
        }
        if (wanted) crowd_step(c, counts);
    }
}

static void check_crowd(enum sluice_precision precision, uint32_t threads)
{
    struct crowd c;
    char what[64];
    crowd_open(&c, precision, threads);
    for (uint64_t seed = 1; seed <= 4; seed++) {
        interleave(&c, seed);
        snprintf(what, sizeof what, "%u threads, schedule %d", threads, (int)seed);
        crowd_compare(&c, what);
    }
    crowd_close(&c);
}

static void test_interleaved_exact(void)
{
    check_crowd(SLUICE_EXACT, 1);
    check_crowd(SLUICE_EXACT, 2);
    check_crowd(SLUICE_EXACT, 4);
}

static void test_interleaved_fast(void)
{
    check_crowd(SLUICE_FAST, 1);
    check_crowd(SLUICE_FAST, 2);
    check_crowd(SLUICE_FAST, 4);
}

/* Three sessions decode a token a call; a fourth joins with pieces of a prompt. */
static void test_prompt_beside_decoding(void)
{
    struct crowd c;
    crowd_open(&c, SLUICE_FAST, 2);
    crowd_step(&c, (size_t[]){30, 1, 2, 0});
    while (c.done[2] < lengths[2]) {
        size_t rest = lengths[3] - c.done[3];
        crowd_step(&c, (size_t[]){1, 1, 1, rest < 33 ? rest : 33});
    }
    for (int s = 0; s < SESSIONS; s++) {
        size_t counts[SESSIONS] = {0};
        counts[s] = lengths[s] - c.done[s];
        if (counts[s]) crowd_step(&c, counts);
    }
    crowd_compare(&c, "joined");
    crowd_close(&c);
}

/* Only the last row of each segment is asked for. */
static void test_last_rows_only(void)
{
    struct crowd c;
    struct sluice_error err = {0};
    struct sluice_segment segments[SESSIONS];
    crowd_open(&c, SLUICE_FAST, 2);
    uint32_t vocab = c.prompts[0].vocab;
    float *logits = must(calloc((size_t)SESSIONS * vocab, sizeof *logits));
    for (int s = 0; s < SESSIONS; s++) {
        segments[s] = prompt_segment(&c.prompts[s], c.sessions[s], 0, lengths[s]);
        segments[s].n_logits = s == 1 ? 0 : 1;
    }
    CHECK_OK(sluice_eval(c.engine, segments, SESSIONS, NULL, logits, &err));
    for (int s = 0, row = 0; s < SESSIONS; s++) {
        if (s == 1) continue;
        const float *want = c.prompts[s].logits + (lengths[s] - 1) * vocab;
        CHECK(memcmp(logits + (size_t)row++ * vocab, want, vocab * sizeof *want) == 0, "%d", s);
    }
    free(logits);
    crowd_close(&c);
}

static void cut_anyhow(sluice_engine *engine, const struct prompt *want, uint64_t seed)
{
    struct rng rng = {seed};
    struct sluice_error err = {0};
    sluice_session *session = run_session(engine);
    float *logits = must(calloc(want->n * want->vocab, sizeof *logits));
    uint32_t most = 1 + rng_below(&rng, (uint32_t)want->n);
    for (size_t at = 0; at < want->n;) {
        size_t n = 1 + rng_below(&rng, most);
        if (n > want->n - at) n = want->n - at;
        CHECK_OK(prompt_eval(want, engine, session, at, n, logits + at * want->vocab, &err));
        at += n;
    }
    size_t row = first_difference(want, logits);
    CHECK(row == want->n, "cuts of seed %d: differs from row %zu", (int)seed, row);
    free(logits);
    sluice_session_close(&session);
}

static void check_cuts(const char *model, enum sluice_precision precision)
{
    struct sluice_engine_options o = run_options(precision, 2);
    sluice_engine *engine = run_engine(model, &o);
    struct prompt p = prompt_make(run_vocab(engine), 150, 3);
    prompt_run(&p, engine);
    for (uint64_t seed = 0; seed < 8; seed++) cut_anyhow(engine, &p, seed);
    prompt_release(&p);
    sluice_engine_close(&engine);
}

static void test_cuts(void)
{
    check_cuts(packed_model, SLUICE_FAST);
    check_cuts(packed_model, SLUICE_EXACT);
    check_cuts(float_model, SLUICE_FAST);
    check_cuts("tests/reference/all-linear", SLUICE_EXACT);
    check_cuts("tests/reference/all-full", SLUICE_FAST);
}

/* Evaluates p on an engine of its own and compares; o may ask for anything that changes no bit. */
static void check_same(const struct prompt *p, const struct sluice_engine_options *o,
                       const struct sluice_eval_options *eval, const char *what)
{
    struct sluice_error err = {0};
    sluice_engine *engine = run_engine(packed_model, o);
    sluice_session *session = run_session(engine);
    struct sluice_segment s = prompt_segment(p, session, 0, p->n);
    float *logits = must(calloc(p->n * p->vocab, sizeof *logits));
    CHECK_OK(sluice_eval(engine, &s, 1, eval, logits, &err));
    size_t row = first_difference(p, logits);
    CHECK(row == p->n, "%s: differs from row %zu", what, row);
    free(logits);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
}

static void check_sizes(enum sluice_precision precision)
{
    struct sluice_engine_options o = run_options(precision, 1);
    sluice_engine *engine = run_engine(packed_model, &o);
    struct prompt p = prompt_make(run_vocab(engine), 140, 4);
    prompt_run(&p, engine);
    sluice_engine_close(&engine);
    static const uint32_t sizes[] = {1, 2, 7, 512, 0};
    for (int i = 0; i < 5; i++) {
        o.max_batch_tokens = sizes[i];
        o.n_threads = 1 + (uint32_t)i;
        check_same(&p, &o, NULL, "batch size");
        struct sluice_eval_options eval;
        sluice_eval_options_default(&eval);
        eval.chunk = 1u << 2 * i;
        check_same(&p, &o, &eval, "batch size and chunk");
    }
    o = run_options(precision, 2);
    o.keep_hidden = true;
    check_same(&p, &o, NULL, "keep_hidden");
    o = run_options(precision, 2);
    o.io = SLUICE_IO_MMAP;
    check_same(&p, &o, NULL, "mapped experts");
    prompt_release(&p);
}

static void test_batch_sizes(void)
{
    check_sizes(SLUICE_FAST);
    check_sizes(SLUICE_EXACT);
}

/* hidden [n_layers + 1][ids][hidden]: two sessions together, in chunks of 5, beside alone. */
static void test_hidden_states(void)
{
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    struct sluice_error err = {0};
    struct sluice_engine_info info = {.size = sizeof info};
    o.keep_hidden = true;
    sluice_engine *engine = run_engine(packed_model, &o);
    sluice_engine_get_info(engine, &info);
    size_t levels = info.n_layers + 1, width = info.hidden_size, a = 12, b = 31, n = a + b;
    struct prompt p = prompt_make(info.vocab_size, n, 6);
    float *both = must(calloc(levels * n * width, sizeof *both));
    float *alone = must(calloc(levels * b * width, sizeof *alone));
    static const float zeros[32];
    struct sluice_eval_options eval;
    sluice_eval_options_default(&eval);
    sluice_session *first = run_session(engine), *second = run_session(engine);
    struct sluice_segment segments[] = {prompt_segment(&p, first, 0, a),
                                        prompt_segment(&p, second, a, b)};
    segments[0].n_logits = 0;
    segments[1].n_logits = 3;
    eval.hidden = both;
    eval.chunk = 5;
    CHECK_OK(sluice_eval(engine, segments, 2, &eval, p.logits, &err));
    sluice_session_reset(second);
    eval.hidden = alone;
    eval.chunk = 0;
    CHECK_OK(sluice_eval(engine, segments + 1, 1, &eval, p.logits + 3 * p.vocab, &err));
    for (size_t l = 0; l < levels; l++)
        CHECK(memcmp(both + (l * n + a) * width, alone + l * b * width, b * width * 4) == 0,
              "level %zu", l);
    CHECK(memcmp(p.logits, p.logits + 3 * p.vocab, 3 * p.vocab * sizeof(float)) == 0);
    for (size_t i = 0; i < levels * n; i++)
        CHECK(memcmp(both + i * width, zeros, sizeof zeros) != 0, "row %zu", i);
    free(both);
    free(alone);
    prompt_release(&p);
    sluice_session_close(&first);
    sluice_session_close(&second);
    sluice_engine_close(&engine);
}

#define CASES(C)                                                                                   \
    C(interleaved_exact)                                                                           \
    C(interleaved_fast)                                                                            \
    C(prompt_beside_decoding) C(last_rows_only) C(cuts) C(batch_sizes) C(hidden_states)
CHECK_MAIN(CASES)
