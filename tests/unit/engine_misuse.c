/* What a careless program does: no defaults, no arguments, calls out of callbacks. */
#include "engine_fixture.h"

#define NO_SIZE(name) #name " options have size 0; sluice_" #name "_options_default() sets it"

/* A struct that was only zeroed must not be ignored without a word. */
static void test_options_without_defaults(void)
{
    struct sluice_error err;
    struct fixture f;
    struct sluice_engine_options good = run_options(SLUICE_FAST, 1);
    fixture_open(&f, &good);
    sluice_engine *engine;
    FAILS(ARGUMENT, NO_SIZE(engine),
          sluice_engine_open(&engine, packed_model, &(struct sluice_engine_options){.n_threads = 1},
                             &err));
    CHECK(engine == NULL);
    sluice_session *session;
    FAILS(ARGUMENT, NO_SIZE(session),
          sluice_session_open(&session, f.engine, &(struct sluice_session_options){.n_ctx = 9},
                              &err));
    CHECK(session == NULL);
    struct sluice_segment s = prompt_segment(&f.p, f.session, 0, 1);
    FAILS(
        ARGUMENT, NO_SIZE(eval),
        sluice_eval(f.engine, &s, 1, &(struct sluice_eval_options){.chunk = 1}, f.p.logits, &err));
    sluice_sampler *sampler;
    FAILS(
        ARGUMENT, NO_SIZE(sampler),
        sluice_sampler_open(&sampler, 5, &(struct sluice_sampler_options){.temperature = 1}, &err));
    CHECK(sampler == NULL);
    sluice_route *route;
    FAILS(ARGUMENT, NO_SIZE(route),
          sluice_route_open(&route, &(struct sluice_route_options){.n_layers = 1}, &err));
    CHECK(route == NULL);
    FAILS(ARGUMENT, NO_SIZE(cache_sim),
          sluice_cache_sim("", 0, &(struct sluice_cache_sim_options){.n_capacities = 1}, &err));
    FAILS(ARGUMENT, NO_SIZE(pack),
          sluice_pack(packed_model, "/nonexistent", &(struct sluice_pack_options){.verify = true},
                      &err));
    fixture_close(&f);
}

/* Built with an older header, a program's sampler options end early. */
static void test_sampler_of_an_older_header(void)
{
    struct sluice_error err = {0};
    struct sluice_sampler_options o;
    sluice_sampler_options_default(&o);
    o.temperature = 0;
    o.size = offsetof(struct sluice_sampler_options, top_k);
    memset((char *)&o + o.size, 0xee, sizeof o - o.size);
    sluice_sampler *sampler;
    CHECK_OK(sluice_sampler_open(&sampler, 3, &o, &err));
    REQUIRE(sampler);
    float logits[] = {1, 3, 2};
    CHECK(sluice_sampler_draw(sampler, logits) == 1);
    sluice_sampler_close(&sampler);
}

static void test_nothing_given(void)
{
    struct sluice_error err;
    struct fixture f;
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    fixture_open(&f, &o);
    sluice_engine *engine = f.engine;
    sluice_session *session = f.session;
    FAILS(ARGUMENT, "no path of a model was given", sluice_engine_open(&engine, NULL, &o, &err));
    FAILS(ARGUMENT, "no engine was given", sluice_session_open(&session, NULL, NULL, &err));
    CHECK(engine == NULL && session == NULL);
    struct sluice_segment s = prompt_segment(&f.p, f.session, 0, 1);
    FAILS(ARGUMENT, "no engine was given", sluice_eval(NULL, &s, 1, NULL, f.p.logits, &err));
    FAILS(ARGUMENT, "the call has no segments",
          sluice_eval(f.engine, NULL, 1, NULL, f.p.logits, &err));
    struct sluice_segment two[] = {s, {.session = NULL, .ids = s.ids, .n_ids = 1}};
    FAILS(ARGUMENT, "segment 1 has no session",
          sluice_eval(f.engine, two, 2, NULL, f.p.logits, &err));
    two[1] = (struct sluice_segment){.session = f.session, .ids = NULL, .n_ids = 1};
    FAILS(ARGUMENT, "segment 1 has no ids", sluice_eval(f.engine, two, 2, NULL, f.p.logits, &err));
    CHECK(sluice_session_position(f.session) == 3);
    CHECK_OK(sluice_eval(f.engine, &s, 1, NULL, f.p.logits, &err));
    FAILS(ARGUMENT, "no path of a model or of a folder was given",
          sluice_pack(packed_model, NULL, NULL, &err));
    fixture_close(&f);
}

/* What sluice_engine_tokenizer() gives for a model without one. */
static void test_no_tokenizer(void)
{
    struct sluice_error err;
    int32_t id = 1;
    size_t n = 7, len = 7;
    char text[16];
    const char *bytes;
    sluice_tokenizer *tokenizer = (sluice_tokenizer *)text;
    struct sluice_text_stream stream = {0};
    FAILS(ARGUMENT, "no path of a model was given", sluice_tokenizer_open(&tokenizer, NULL, &err));
    CHECK(tokenizer == NULL);
    static const char none[] = "there is no tokenizer; sluice_engine_tokenizer_status() says why";
    FAILS(NO_TOKENIZER, none, sluice_tokenize(NULL, "a", 1, 0, &id, 1, &n, &err));
    FAILS(NO_TOKENIZER, none, sluice_detokenize(NULL, &id, 1, 0, text, sizeof text, &len, &err));
    CHECK(n == 0 && len == 0);
    FAILS(NO_TOKENIZER, none,
          sluice_text_stream_push(&stream, NULL, id, text, sizeof text, &len, &err));
    CHECK(sluice_token_bytes(NULL, id, &bytes, &len, NULL) == SLUICE_E_NO_TOKENIZER);
    CHECK(sluice_tokenizer_vocab_size(NULL) == 0);
}

struct caller {
    struct fixture *f;
    struct sluice_error err;
    enum sluice_status nested;
    uint64_t tokens;
    int calls;
};

/* A display of progress asks for counters; an evaluation out of here would wait for itself. */
static void call_back(void *user, size_t done, size_t total)
{
    struct caller *c = user;
    struct sluice_stats stats = {.size = sizeof stats};
    (void)done;
    (void)total;
    sluice_engine_get_stats(c->f->engine, &stats);
    c->tokens = stats.tokens;
    c->nested = prompt_eval(&c->f->p, c->f->engine, c->f->session, 0, 1, NULL, &c->err);
    c->calls++;
}

static void test_calls_from_a_callback(void)
{
    struct sluice_error err = {0};
    struct fixture f;
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    fixture_open(&f, &o);
    struct caller c = {.f = &f};
    struct sluice_eval_options eval;
    sluice_eval_options_default(&eval);
    eval.chunk = 4;
    eval.progress = call_back;
    eval.user = &c;
    struct sluice_segment s = prompt_segment(&f.p, f.session, 0, 8);
    CHECK_OK(sluice_eval(f.engine, &s, 1, &eval, f.p.logits, &err));
    CHECK(c.calls == 2 && c.tokens == 3 + 8);
    CHECK(c.nested == SLUICE_E_STATE);
    CHECK(strcmp(c.err.message, "sluice_eval() was called out of a callback of sluice_eval() on "
                                "the same engine") == 0,
          "%s", c.err.message);
    CHECK(sluice_session_position(f.session) == 11);
    CHECK_OK(prompt_eval(&f.p, f.engine, f.session, 0, 1, NULL, &err));
    fixture_close(&f);
}

#define CASES(C)                                                                                   \
    C(options_without_defaults)                                                                    \
    C(sampler_of_an_older_header)                                                                  \
    C(nothing_given)                                                                               \
    C(no_tokenizer)                                                                                \
    C(calls_from_a_callback)
CHECK_MAIN(CASES)
