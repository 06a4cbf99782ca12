/* What an engine tells of its steps, and sessions whose past is made up. */
#include <math.h>

#include "base/clock.h"
#include "engine_fixture.h"

/* What a profile was told. */
struct seen {
    uint64_t steps, ns, bytes, products, heads, quantized;
    uint32_t n_tokens;
    sluice_engine *asked; /* not NULL: to end the profile within the callback */
    enum sluice_status answer;
};

static void see(void *user, const struct sluice_step *step)
{
    struct seen *s = user;
    s->steps++;
    s->ns += step->ns + step->waited_ns;
    s->bytes += step->bytes;
    s->products += step->products;
    s->heads += strcmp(step->op, "matmul") == 0 && strcmp(step->weight, "lm_head") == 0;
    s->quantized += strcmp(step->op, "quantize") == 0;
    s->n_tokens = step->n_tokens;
    if (s->asked) s->answer = sluice_engine_set_profile(s->asked, NULL, NULL, NULL);
}

static struct seen profile(struct fixture *f, size_t begin, size_t n)
{
    struct sluice_error err = {0};
    struct seen s = {0};
    CHECK_OK(sluice_engine_set_profile(f->engine, see, &s, &err));
    uint64_t began = clock_ns();
    CHECK_OK(prompt_eval(&f->p, f->engine, f->session, begin, n, f->p.logits, &err));
    uint64_t ns = clock_ns() - began;
    CHECK(s.ns > 0 && s.ns <= ns, "%g of %g", (double)s.ns, (double)ns);
    CHECK_OK(sluice_engine_set_profile(f->engine, NULL, NULL, &err));
    return s;
}

/* Weights, the keys and values of all positions and the new one's, states read and written. */
static uint64_t bytes_at(const struct sluice_engine_info *i, uint32_t position)
{
    uint64_t picked = i->expert_bytes / i->n_experts * i->n_experts_used;
    return i->token_dense_bytes + i->converted_bytes + picked +
           i->kv_bytes_per_token * (position + 2) + i->recurrent_bytes;
}

static void test_bytes_of_a_token(void)
{
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    struct sluice_engine_info info = {.size = sizeof info};
    struct fixture f;
    fixture_open(&f, &o);
    sluice_engine_get_info(f.engine, &info);
    for (uint32_t i = 0; i < 3; i++) {
        struct seen s = profile(&f, 3 + i, 1);
        CHECK(s.bytes == bytes_at(&info, 3 + i), "%g, not %g", (double)s.bytes,
              (double)bytes_at(&info, 3 + i));
        CHECK(s.heads == 1 && s.quantized > 0 && s.n_tokens == 1);
    }
    fixture_close(&f);
}

/* The body is computed for every token, the head for every row of logits. */
static void test_products_of_batches(void)
{
    struct sluice_engine_options o = run_options(SLUICE_EXACT, 1);
    struct fixture f;
    fixture_open(&f, &o);
    struct seen one = profile(&f, 3, 1), many = profile(&f, 4, 9);
    CHECK(many.products == 9 * one.products, "%g and %g", (double)many.products,
          (double)one.products);
    CHECK(one.products > 0 && many.bytes < 9 * one.bytes && many.n_tokens == 9);
    CHECK(one.quantized == 0);
    fixture_close(&f);
}

static void test_nothing_changes(void)
{
    struct sluice_error err = {0};
    struct sluice_engine_options o = run_options(SLUICE_FAST, 3);
    struct fixture f;
    fixture_open(&f, &o);
    struct prompt plain = prompt_make(run_vocab(f.engine), 24, 5);
    prompt_run(&plain, f.engine);
    struct seen s = {0};
    CHECK_OK(sluice_engine_set_profile(f.engine, see, &s, &err));
    struct prompt told = prompt_make(run_vocab(f.engine), 24, 5);
    prompt_run(&told, f.engine);
    CHECK(memcmp(plain.logits, told.logits, plain.n * plain.vocab * sizeof(float)) == 0);
    CHECK(s.steps > 0);
    CHECK_OK(sluice_engine_set_profile(f.engine, NULL, NULL, &err));
    uint64_t steps = s.steps;
    prompt_run(&told, f.engine);
    CHECK(s.steps == steps);
    prompt_release(&plain);
    prompt_release(&told);
    fixture_close(&f);
}

static void test_not_in_a_callback(void)
{
    struct sluice_error err = {0};
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    struct fixture f;
    fixture_open(&f, &o);
    struct seen s = {.asked = f.engine};
    CHECK_OK(sluice_engine_set_profile(f.engine, see, &s, &err));
    CHECK_OK(prompt_eval(&f.p, f.engine, f.session, 3, 1, f.p.logits, &err));
    CHECK(s.answer == SLUICE_E_STATE && s.steps > 1);
    fixture_close(&f);
}

/* Logits of one token behind n positions made from seed. */
static float *behind(struct fixture *f, uint32_t n, uint64_t seed)
{
    struct sluice_error err = {0};
    float *logits = must(calloc(f->p.vocab, sizeof *logits));
    sluice_session_reset(f->session);
    CHECK_OK(sluice_session_fill(f->session, n, seed, &err));
    CHECK(sluice_session_position(f->session) == n);
    CHECK_OK(prompt_eval(&f->p, f->engine, f->session, 0, 1, logits, &err));
    CHECK(sluice_session_position(f->session) == n + 1);
    for (uint32_t i = 0; i < f->p.vocab; i++) CHECK(isfinite(logits[i]));
    return logits;
}

static void test_made_up_past(void)
{
    for (int exact = 0; exact < 2; exact++) {
        struct sluice_error err = {0};
        struct sluice_engine_options o = run_options(exact ? SLUICE_EXACT : SLUICE_FAST, 2);
        struct fixture f;
        fixture_open(&f, &o);
        FAILS(STATE, "a session of 3 tokens is to be filled, not an empty one",
              sluice_session_fill(f.session, 5, 1, &err));
        size_t bytes = f.p.vocab * sizeof(float);
        float *a = behind(&f, 33, 1), *b = behind(&f, 33, 1), *c = behind(&f, 33, 2);
        CHECK(memcmp(a, b, bytes) == 0 && memcmp(a, c, bytes) != 0);
        sluice_session_reset(f.session);
        FAILS(CONTEXT_FULL, "the context of 40 tokens is full: it holds 0 and 41 more were given",
              sluice_session_fill(f.session, 41, 1, &err));
        CHECK_OK(sluice_session_fill(f.session, 40, 1, &err));
        free(a);
        free(b);
        free(c);
        fixture_close(&f);
    }
}

#define CASES(C)                                                                                   \
    C(bytes_of_a_token)                                                                            \
    C(products_of_batches)                                                                         \
    C(nothing_changes)                                                                             \
    C(not_in_a_callback)                                                                           \
    C(made_up_past)
CHECK_MAIN(CASES)
