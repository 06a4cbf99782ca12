#include "bench_gate.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "distribution.h"
#include "interrupt.h"
#include "report.h"

enum { FIRST_ID = 1 };

/* What 8-bit activations and 16-bit keys may change: of the standard deviation of the logits, nats
 * a token. */
static const double near_margin = 0.05, most_kl = 5e-3;

static enum sluice_status decode_exact(struct gate *g, struct app *app, sluice_engine *engine,
                                       sluice_session *session, struct sluice_error *err)
{
    int32_t id = FIRST_ID;
    for (size_t i = 0; i < GATE_STEPS; i++) {
        if (interrupt_signal()) return fail(err, SLUICE_E_CANCELLED, "interrupted");
        float *row = g->logits + i * g->vocab_size;
        struct sluice_segment one = {.session = session, .ids = &id, .n_ids = 1, .n_logits = 1};
        g->ids[i] = id;
        TRY(app_eval(app, engine, &one, NULL, row, err));
        id = (int32_t)index_of_largest(row, g->vocab_size);
    }
    return SLUICE_OK;
}

static enum sluice_status run_exact(struct gate *g, struct app *app, sluice_engine *engine,
                                    struct sluice_error *err)
{
    struct sluice_engine_info info = {.size = sizeof info};
    sluice_engine_get_info(engine, &info);
    g->vocab_size = info.vocab_size;
    g->logits = malloc(GATE_STEPS * (size_t)info.vocab_size * sizeof *g->logits);
    if (!g->logits) return fail_nomem(err, "the logits to compare with");
    sluice_session *session;
    struct sluice_session_options options;
    sluice_session_options_default(&options);
    options.n_ctx = GATE_STEPS;
    TRY(sluice_session_open(&session, engine, &options, err));
    enum sluice_status status = decode_exact(g, app, engine, session, err);
    sluice_session_close(&session);
    return status;
}

enum sluice_status gate_open(struct gate *gate, struct app *app, const char *path,
                             struct sluice_error *err)
{
    *gate = (struct gate){0};
    sluice_engine *engine;
    struct sluice_engine_options options;
    app_engine_options(app, &options);
    options.precision = SLUICE_EXACT;
    options.max_batch_tokens = 1;
    options.plan_ctx = GATE_STEPS;
    options.n_slots = 1; /* the engine takes as many as a layer needs */
    options.preload = false;
    TRY(sluice_engine_open(&engine, path, &options, err));
    enum sluice_status status = run_exact(gate, app, engine, err);
    sluice_engine_close(&engine);
    if (status != SLUICE_OK) gate_close(gate);
    return status;
}

void gate_close(struct gate *gate)
{
    free(gate->logits);
    gate->logits = NULL;
}

static double standard_deviation(const float *row, size_t n)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += (double)row[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) squares += ((double)row[i] - mean) * ((double)row[i] - mean);
    return sqrt(squares / (double)n);
}

enum sluice_status gate_judge(struct gate *g, const float *logits, struct sluice_error *err)
{
    size_t n = g->vocab_size, step = g->n_judged++;
    const float *exact = g->logits + step * n;
    size_t want = index_of_largest(exact, n), got = index_of_largest(logits, n);
    double margin = (double)(exact[want] - exact[got]) / standard_deviation(exact, n);
    if (!isfinite(logits[got]))
        return fail(err, SLUICE_E_MISMATCH, "token %zu: its logits are not finite", step);
    if (got != want && !(margin < near_margin))
        return fail(err, SLUICE_E_MISMATCH,
                    "token %zu is %zu, but %zu in exact precision, by %.2g standard deviations of "
                    "its logits; no rate is printed",
                    step, got, want, margin);
    g->n_agreed += got == want;
    double kl = kl_divergence(exact, log_sum_exp(exact, n), logits, log_sum_exp(logits, n), n);
    g->kl += (kl - g->kl) / (double)g->n_judged;
    if (g->n_judged < GATE_STEPS || g->kl <= most_kl) return SLUICE_OK;
    return fail(err, SLUICE_E_MISMATCH,
                "%d tokens diverge from those in exact precision by %.2g nats each, more than "
                "%.2g; no rate is printed",
                GATE_STEPS, g->kl, most_kl);
}
