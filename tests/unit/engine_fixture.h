/* An engine with a session to try calls on, and how a call must fail. */
#ifndef TESTS_ENGINE_FIXTURE_H
#define TESTS_ENGINE_FIXTURE_H

#include "engine_run.h"

/* Needs `struct sluice_error err`. */
#define FAILS(code_, text, call)                                                                   \
    do {                                                                                           \
        err = (struct sluice_error){0};                                                            \
        enum sluice_status got_ = (call);                                                          \
        CHECK(got_ == SLUICE_E_##code_ && err.code == got_, "%d", (int)got_);                      \
        CHECK(strcmp(err.message, text) == 0, "got '%s'", err.message);                            \
    } while (0)

/* An engine with a session of 40 tokens that holds 3. */
struct fixture {
    sluice_engine *engine;
    sluice_session *session;
    struct prompt p;
};

static inline void fixture_open(struct fixture *f, const struct sluice_engine_options *o)
{
    struct sluice_error err = {0};
    struct sluice_session_options s;
    sluice_session_options_default(&s);
    s.n_ctx = 40;
    f->engine = run_engine(packed_model, o);
    CHECK_OK(sluice_session_open(&f->session, f->engine, &s, &err));
    f->p = prompt_make(run_vocab(f->engine), 100, 1);
    CHECK_OK(prompt_eval(&f->p, f->engine, f->session, 0, 3, f->p.logits, &err));
}

static inline void fixture_close(struct fixture *f)
{
    sluice_session_close(&f->session);
    prompt_release(&f->p);
    sluice_engine_close(&f->engine);
    CHECK(f->session == NULL && f->engine == NULL);
}

#endif
