/* Calls over time: cancelled, continued, repeated, from several threads, on several engines. */
#include <math.h>
#include <pthread.h>

#include "engine_fixture.h"

struct watch {
    size_t calls, stop_after, last_done, total;
    bool falls;
};

static bool watch_cancelled(void *user)
{
    struct watch *w = user;
    return ++w->calls >= w->stop_after;
}

static void watch_progress(void *user, size_t done, size_t total)
{
    struct watch *w = user;
    w->falls |= done <= w->last_done;
    w->last_done = done;
    w->total = total;
}

static struct sluice_eval_options watched(struct watch *w, uint32_t chunk)
{
    struct sluice_eval_options o;
    sluice_eval_options_default(&o);
    o.chunk = chunk;
    o.cancelled = watch_cancelled;
    o.progress = watch_progress;
    o.user = w;
    return o;
}

/* A cancelled call ends at a piece; continuing gives the bits of never having stopped. */
static void test_cancel(void)
{
    struct sluice_error err = {0};
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    sluice_engine *engine = run_engine(packed_model, &o);
    sluice_session *session = run_session(engine);
    struct prompt p = prompt_make(run_vocab(engine), 60, 2);
    prompt_run(&p, engine);
    float *logits = must(calloc(p.n * p.vocab, sizeof *logits));
    struct watch w = {.stop_after = 3};
    struct sluice_eval_options eval = watched(&w, 7);
    struct sluice_segment s = prompt_segment(&p, session, 0, 60);
    FAILS(CANCELLED, "cancelled after 21 of 60 tokens",
          sluice_eval(engine, &s, 1, &eval, logits, &err));
    CHECK(sluice_session_position(session) == 21);
    CHECK(w.calls == 3 && w.last_done == 21 && w.total == 60 && !w.falls);
    CHECK_OK(prompt_eval(&p, engine, session, 21, 39, logits + 21 * p.vocab, &err));
    CHECK(memcmp(logits + 21 * p.vocab, p.logits + 21 * p.vocab, 39 * p.vocab * 4) == 0);
    free(logits);
    prompt_release(&p);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
}

/*
 * A long piece can be cancelled between its layers, and leaves no trace then; evaluated, it gives
 * the bits of short ones.
 */
static void test_cancel_within_a_piece(void)
{
    enum { LONG = 600 };
    struct sluice_error err = {0};
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    o.max_batch_tokens = LONG;
    sluice_engine *engine = run_engine(packed_model, &o);
    sluice_session *session = run_session_of(engine, LONG);
    struct prompt p = prompt_make(run_vocab(engine), LONG, 2);
    float *logits = must(calloc(2 * p.vocab, sizeof *logits));
    struct sluice_segment s = {.session = session, .ids = p.ids, .n_ids = LONG, .n_logits = 1};
    struct sluice_eval_options pieces;
    sluice_eval_options_default(&pieces);
    pieces.chunk = 50;
    CHECK_OK(sluice_eval(engine, &s, 1, &pieces, logits, &err));
    sluice_session_reset(session);
    struct watch w = {.stop_after = 2};
    struct sluice_eval_options eval = watched(&w, 0);
    FAILS(CANCELLED, "cancelled after 0 of 600 tokens",
          sluice_eval(engine, &s, 1, &eval, logits + p.vocab, &err));
    CHECK(sluice_session_position(session) == 0 && w.calls == 2 && w.last_done == 0);
    CHECK_OK(sluice_eval(engine, &s, 1, NULL, logits + p.vocab, &err));
    CHECK(memcmp(logits, logits + p.vocab, p.vocab * sizeof *logits) == 0);
    free(logits);
    prompt_release(&p);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
}

/* Nothing is left to cancel once the last piece is done. */
static void test_cancel_too_late(void)
{
    struct sluice_error err = {0};
    struct fixture f;
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    fixture_open(&f, &o);
    struct watch w = {.stop_after = 1};
    struct sluice_eval_options eval = watched(&w, 0);
    struct sluice_segment s = prompt_segment(&f.p, f.session, 3, 9);
    CHECK_OK(sluice_eval(f.engine, &s, 1, &eval, f.p.logits, &err));
    CHECK(w.calls == 0 && w.last_done == 9 && w.total == 9);
    CHECK(sluice_session_position(f.session) == 12);
    fixture_close(&f);
}

static void test_cancel_of_two_sessions(void)
{
    struct sluice_error err = {0};
    struct sluice_engine_options o = run_options(SLUICE_EXACT, 1);
    sluice_engine *engine = run_engine(packed_model, &o);
    sluice_session *a = run_session(engine), *b = run_session(engine);
    struct prompt p = prompt_make(run_vocab(engine), 40, 2);
    prompt_run(&p, engine);
    float *logits = must(calloc(2 * p.n * p.vocab, sizeof *logits));
    struct watch w = {.stop_after = 2};
    struct sluice_eval_options eval = watched(&w, 6);
    struct sluice_segment segments[] = {prompt_segment(&p, a, 0, 40), prompt_segment(&p, b, 0, 9)};
    FAILS(CANCELLED, "cancelled after 21 of 49 tokens",
          sluice_eval(engine, segments, 2, &eval, logits, &err));
    CHECK(sluice_session_position(a) == 12 && sluice_session_position(b) == 9);
    CHECK_OK(prompt_eval(&p, engine, a, 12, 28, logits, &err));
    CHECK(memcmp(logits, p.logits + 12 * p.vocab, 28 * p.vocab * 4) == 0);
    CHECK_OK(prompt_eval(&p, engine, b, 9, 31, logits, &err));
    CHECK(memcmp(logits, p.logits + 9 * p.vocab, 31 * p.vocab * 4) == 0);
    free(logits);
    prompt_release(&p);
    sluice_session_close(&a);
    sluice_session_close(&b);
    sluice_engine_close(&engine);
}

static void test_reset_is_new(void)
{
    struct sluice_error err = {0};
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    sluice_engine *engine = run_engine(packed_model, &o);
    sluice_session *session = run_session(engine);
    struct prompt p = prompt_make(run_vocab(engine), 80, 5), other = prompt_make(p.vocab, 131, 6);
    prompt_run(&p, engine);
    float *logits = must(calloc(other.n * p.vocab, sizeof *logits));
    for (size_t before = 1; before <= 131; before += 65) {
        CHECK_OK(prompt_eval(&other, engine, session, 0, before, logits, &err));
        sluice_session_reset(session);
        CHECK(sluice_session_position(session) == 0);
        CHECK_OK(prompt_eval(&p, engine, session, 0, 80, logits, &err));
        CHECK(first_difference(&p, logits) == 80, "after %zu tokens", before);
        sluice_session_reset(session);
    }
    free(logits);
    prompt_release(&p);
    prompt_release(&other);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
}

/* Two engines of other models, precisions and experts per token take turns. */
static void test_two_engines_take_turns(void)
{
    struct sluice_error err = {0};
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    sluice_engine *engines[2];
    engines[0] = run_engine(packed_model, &o);
    o.precision = SLUICE_EXACT;
    o.top_k_experts = 1;
    o.max_batch_tokens = 5;
    engines[1] = run_engine(float_model, &o);
    struct prompt p[2];
    float *logits[2];
    sluice_session *sessions[2];
    for (int i = 0; i < 2; i++) {
        p[i] = prompt_make(run_vocab(engines[i]), 40, 8);
        prompt_run(&p[i], engines[i]);
        logits[i] = must(calloc(p[i].n * p[i].vocab, sizeof **logits));
        sessions[i] = run_session(engines[i]);
    }
    for (size_t t = 0; t < 40; t++)
        for (int i = 0; i < 2; i++)
            CHECK_OK(prompt_eval(&p[i], engines[i], sessions[i], t, 1, logits[i] + t * p[i].vocab,
                                 &err));
    for (int i = 0; i < 2; i++) {
        CHECK(first_difference(&p[i], logits[i]) == 40, "engine %d", i);
        free(logits[i]);
        prompt_release(&p[i]);
        sluice_session_close(&sessions[i]);
        sluice_engine_close(&engines[i]);
    }
}

/* What one thread does: decode its prompt on its own session. */
struct worker {
    pthread_t thread;
    sluice_engine *engine;
    sluice_session *session;
    struct prompt p;
    float *logits;
    size_t chunk;
    struct sluice_error err;
    enum sluice_status status;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    for (size_t at = 0; at < w->p.n && w->status == SLUICE_OK; at += w->chunk) {
        size_t left = w->p.n - at, n = left < w->chunk ? left : w->chunk;
        w->status =
            prompt_eval(&w->p, w->engine, w->session, at, n, w->logits + at * w->p.vocab, &w->err);
    }
    return NULL;
}

static void test_concurrent_calls(void)
{
    enum { WORKERS = 4 };
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    struct sluice_stats stats = {.size = sizeof stats};
    struct worker w[WORKERS] = {0};
    sluice_engine *engine = run_engine(packed_model, &o);
    for (int i = 0; i < WORKERS; i++) {
        w[i].engine = engine;
        w[i].session = run_session(engine);
        w[i].chunk = (size_t)(i == 3 ? 9 : i + 1);
        w[i].p = prompt_make(run_vocab(engine), 30, 20 + (uint64_t)i);
        prompt_run(&w[i].p, engine);
        w[i].logits = must(calloc(w[i].p.n * w[i].p.vocab, sizeof(float)));
    }
    for (int i = 0; i < WORKERS; i++) CHECK(pthread_create(&w[i].thread, NULL, work, &w[i]) == 0);
    for (int i = 0; i < 50; i++) sluice_engine_get_stats(engine, &stats);
    for (int i = 0; i < WORKERS; i++) pthread_join(w[i].thread, NULL);
    for (int i = 0; i < WORKERS; i++) {
        CHECK(w[i].status == SLUICE_OK, "%s", w[i].err.message);
        CHECK(first_difference(&w[i].p, w[i].logits) == w[i].p.n, "worker %d", i);
        free(w[i].logits);
        prompt_release(&w[i].p);
        sluice_session_close(&w[i].session);
    }
    sluice_engine_close(&engine);
}

static void *open_there(void *arg)
{
    struct worker *w = arg;
    struct sluice_engine_options o = run_options(SLUICE_FAST, 3);
    w->status = sluice_engine_open(&w->engine, packed_model, &o, &w->err);
    if (w->status == SLUICE_OK)
        w->status = sluice_session_open(&w->session, w->engine, NULL, &w->err);
    return NULL;
}

/* Opened on one thread, evaluated on a second, closed here. */
static void test_moves_between_threads(void)
{
    struct worker w = {.chunk = 4};
    REQUIRE(pthread_create(&w.thread, NULL, open_there, &w) == 0);
    pthread_join(w.thread, NULL);
    REQUIRE(w.status == SLUICE_OK, "%s", w.err.message);
    w.p = prompt_make(run_vocab(w.engine), 20, 1);
    w.logits = must(calloc(w.p.n * w.p.vocab, sizeof(float)));
    prompt_run(&w.p, w.engine);
    REQUIRE(pthread_create(&w.thread, NULL, work, &w) == 0);
    pthread_join(w.thread, NULL);
    CHECK(w.status == SLUICE_OK, "%s", w.err.message);
    CHECK(first_difference(&w.p, w.logits) == 20);
    free(w.logits);
    prompt_release(&w.p);
    sluice_session_close(&w.session);
    sluice_engine_close(&w.engine);
}

/* sqrt of mean squared difference over that of want */
static double distance(const float *want, const float *have, size_t n)
{
    double error = 0, energy = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)have[i] - want[i]) * ((double)have[i] - want[i]);
        energy += (double)want[i] * want[i];
    }
    return sqrt(error / energy);
}

/* These bring other instructions for integer products alone, which are exact. */
static bool products_only(const char *level)
{
    static const char *const levels[] = {"streams",    "avxvnni", "avx512vnni",
                                         "avx512vbmi", "dotprod", "i8mm"};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if (strcmp(level, levels[i]) == 0) return true;
    return false;
}

/* Levels that the machine lacks narrow to those below, or to the scalar kernels. */
static void compare_levels(enum sluice_precision precision, double most)
{
    static const char *const levels[] = {
        "scalar",
#define F(name, bit, text) text,
#include "kernel/cpu.def"
#undef F
    };
    struct sluice_engine_options o = run_options(precision, 1);
    struct sluice_engine_info info = {.size = sizeof info};
    struct prompt want = {0}, before = {0};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        setenv("SLUICE_CPU", levels[i], 1);
        sluice_engine *engine = run_engine(packed_model, &o);
        sluice_engine_get_info(engine, &info);
        if (i == 0) CHECK(strcmp(info.cpu_features, "scalar") == 0, "%s", info.cpu_features);
        struct prompt p = prompt_make(info.vocab_size, 24, 9);
        prompt_run(&p, engine);
        sluice_engine_close(&engine);
        if (i == 0) {
            want = p;
            continue;
        }
        size_t n = p.n * p.vocab;
        double off = distance(want.logits, p.logits, n);
        CHECK(off < most, "%s is off by %g", levels[i], off);
        CHECK(!products_only(levels[i]) ||
                  memcmp((i == 1 ? &want : &before)->logits, p.logits, n * sizeof *p.logits) == 0,
              "%s: other bits than the level below", levels[i]);
        prompt_release(&before);
        before = p;
    }
    unsetenv("SLUICE_CPU");
    prompt_release(&before);
    prompt_release(&want);
}

/*
 * Sums of floats differ between levels; where that moves an activation across a step of its 8 bits,
 * fast is off by much more than a rounding.
 */
static void test_instruction_sets_agree(void)
{
    compare_levels(SLUICE_EXACT, 1e-5);
    compare_levels(SLUICE_FAST, 0.03);
}

#define CASES(C)                                                                                   \
    C(cancel)                                                                                      \
    C(cancel_within_a_piece)                                                                       \
    C(cancel_too_late)                                                                             \
    C(cancel_of_two_sessions)                                                                      \
    C(reset_is_new)                                                                                \
    C(two_engines_take_turns)                                                                      \
    C(concurrent_calls)                                                                            \
    C(moves_between_threads)                                                                       \
    C(instruction_sets_agree)
CHECK_MAIN(CASES)
