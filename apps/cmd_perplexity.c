/*
 * sluice perplexity: how well a model predicts a text. The text is cut into windows that do not
 * overlap, each evaluated from an empty context; a window of w ids predicts its last w - 1. nll is
 * the mean of -log p over all predicted ids of all windows, ppl its exponential.
 *
 * With --compare the same windows go through a second model, the reference: kl is the mean
 * divergence of this model's distribution from the reference's, top1_agreement the fraction of
 * positions where both think the same id the likeliest, nll_difference this nll minus the other.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "clock.h"
#include "distribution.h"
#include "input.h"
#include "report.h"

enum { MEASURED, REFERENCE, N_SIDES };

struct side {
    sluice_engine *engine;
    sluice_session *session;
    float *logits; /* [rows][vocab_size] */
    double nll;    /* sum over predicted ids */
};

struct test {
    struct app *app;
    struct side sides[N_SIDES];
    size_t n_sides; /* 2 with --compare */
    uint32_t vocab_size;
    struct buffer text; /* of --text, until it is ids */
    struct ids ids;
    size_t window; /* ids */
    size_t rows;   /* positions at once */
    size_t n_predicted, n_windows;
    double kl;
    size_t n_agreed;
    uint64_t ns;
};

/* Preparation */

static enum sluice_status open_reference(struct test *test, struct sluice_error *err)
{
    const char *other = test->app->args->compare;
    struct sluice_engine_options options;
    app_engine_options(test->app, &options);
    options.top_k_experts = 0;
    struct buffer path = {0};
    enum sluice_status status = SLUICE_OK;
    if (strcmp(other, "exact") == 0) {
        options.precision = SLUICE_EXACT;
        status = app_model_path(test->app, &path, err);
    } else {
        buffer_text(&path, other);
        if (path.failed) status = fail_nomem(err, "the path of the other model");
    }
    struct side *side = &test->sides[REFERENCE];
    if (status == SLUICE_OK) status = sluice_engine_open(&side->engine, path.data, &options, err);
    buffer_release(&path);
    return status;
}

static enum sluice_status open_engines(struct test *test, struct sluice_error *err)
{
    struct sluice_engine_info info = {.size = sizeof info};
    TRY(app_open(test->app, &test->sides[MEASURED].engine, err));
    sluice_engine_get_info(test->sides[MEASURED].engine, &info);
    test->vocab_size = info.vocab_size;
    test->n_sides = 1;
    if (!test->app->args->compare) return SLUICE_OK;
    TRY(open_reference(test, err));
    sluice_engine_get_info(test->sides[REFERENCE].engine, &info);
    test->n_sides = 2;
    if (info.vocab_size == test->vocab_size) return SLUICE_OK;
    return fail(err, SLUICE_E_MISMATCH,
                "%s: a vocabulary of %" PRIu32 " ids cannot be compared with one of %" PRIu32,
                info.path, info.vocab_size, test->vocab_size);
}

/* The text or the ids come before the model: their number decides how much memory is planned. */
static enum sluice_status read_input(struct test *test, struct sluice_error *err)
{
    const struct args *args = test->app->args;
    size_t most; /* ids */
    if (args->text) {
        TRY(input_read(args->text, &test->text, err));
        most =
            3 * test->text.len + 16; /* one id a byte, and NFC makes three bytes of one at most */
    } else {
        TRY(ids_read(&test->ids, args->ids, err));
        most = test->ids.n;
    }
    size_t window = (size_t)args->window;
    test->app->many_logits = true;
    if (!ARG_GIVEN(args, ctx)) test->app->plan_ctx = (uint32_t)(window < most ? window : most);
    return SLUICE_OK;
}

static enum sluice_status take_ids(struct test *test, struct sluice_error *err)
{
    const struct args *args = test->app->args;
    const char *file = args->ids ? args->ids : args->text;
    if (args->text) {
        const sluice_tokenizer *tokenizer;
        TRY(app_tokenizer(test->sides[MEASURED].engine, &tokenizer, err));
        TRY(app_tokenize(tokenizer, test->text.data, test->text.len, &test->ids, err));
        buffer_release(&test->text);
    }
    TRY(ids_check(&test->ids, file, test->vocab_size, err));
    if (test->ids.n >= 2) return SLUICE_OK;
    return fail(err, SLUICE_E_ARGUMENT,
                "%s: %zu tokens are too few, the second is the first that "
                "can be predicted",
                input_name(file), test->ids.n);
}

static enum sluice_status open_sessions(struct test *test, struct sluice_error *err)
{
    size_t window = (size_t)test->app->args->window;
    test->window = window < test->ids.n ? window : test->ids.n;
    if (ARG_GIVEN(test->app->args, ctx) && test->window > test->app->args->ctx)
        return fail(err, SLUICE_E_CONTEXT_FULL,
                    "a window of %zu ids does not fit in a context of %" PRIu64 " tokens",
                    test->window, test->app->args->ctx);
    test->rows = app_rows_at_once(test->vocab_size);
    if (test->rows > test->window - 1) test->rows = test->window - 1;
    struct sluice_session_options options;
    sluice_session_options_default(&options);
    options.n_ctx = (uint32_t)test->window;
    for (size_t i = 0; i < test->n_sides; i++) {
        struct side *side = &test->sides[i];
        TRY(sluice_session_open(&side->session, side->engine, &options, err));
        side->logits = calloc(test->rows * test->vocab_size, sizeof *side->logits);
        if (!side->logits) return fail_nomem(err, "logits");
    }
    return SLUICE_OK;
}

/* Measuring */

/* Adds what the rows of n positions say about the ids that follow them. */
static void measure_rows(struct test *test, const int32_t *next, size_t n)
{
    size_t vocab = test->vocab_size;
    for (size_t i = 0; i < n; i++) {
        const float *row[N_SIDES] = {0};
        double log_sum[N_SIDES] = {0};
        for (size_t s = 0; s < test->n_sides; s++) {
            row[s] = test->sides[s].logits + i * vocab;
            log_sum[s] = log_sum_exp(row[s], vocab);
            test->sides[s].nll += log_sum[s] - (double)row[s][next[i]];
        }
        if (test->n_sides < 2) continue;
        test->kl += kl_divergence(row[REFERENCE], log_sum[REFERENCE], row[MEASURED],
                                  log_sum[MEASURED], vocab);
        test->n_agreed +=
            index_of_largest(row[REFERENCE], vocab) == index_of_largest(row[MEASURED], vocab);
    }
    test->n_predicted += n;
}

static enum sluice_status measure_window(struct test *test, const int32_t *ids, size_t n,
                                         struct sluice_error *err)
{
    for (size_t s = 0; s < test->n_sides; s++) sluice_session_reset(test->sides[s].session);
    for (size_t first = 0; first + 1 < n; first += test->rows) {
        size_t left = n - 1 - first;
        size_t rows = left < test->rows ? left : test->rows;
        for (size_t s = 0; s < test->n_sides; s++) {
            struct side *side = &test->sides[s];
            struct sluice_segment piece = {
                .session = side->session, .ids = ids + first, .n_ids = rows, .n_logits = rows};
            TRY(app_eval(test->app, side->engine, &piece, NULL, side->logits, err));
        }
        measure_rows(test, ids + first + 1, rows);
    }
    test->n_windows++;
    return SLUICE_OK;
}

static size_t n_to_predict(const struct test *test)
{
    size_t rest = test->ids.n % test->window;
    return test->ids.n / test->window * (test->window - 1) + (rest ? rest - 1 : 0);
}

static enum sluice_status measure(struct test *test, struct sluice_error *err)
{
    uint64_t began = clock_ns();
    progress_begin(&test->app->progress, "evaluating", "tokens",
                   n_to_predict(test) * test->n_sides);
    for (size_t first = 0; first + 1 < test->ids.n; first += test->window) {
        size_t left = test->ids.n - first;
        size_t n = left < test->window ? left : test->window;
        TRY(measure_window(test, test->ids.items + first, n, err));
    }
    progress_end(&test->app->progress);
    test->ns = clock_ns() - began;
    for (size_t s = 0; s < test->n_sides; s++)
        if (isnan(test->sides[s].nll))
            return fail(err, SLUICE_E_FORMAT, "%s: the logits are not numbers",
                        s == MEASURED ? "the model" : "the other model");
    return SLUICE_OK;
}

/* Results */

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static enum sluice_status print_result(struct test *test, struct sluice_error *err)
{
    double n = (double)test->n_predicted;
    double nll = test->sides[MEASURED].nll / n;
    double difference = nll - test->sides[REFERENCE].nll / n;
    if (test->app->args->json) {
        json_t *root =
            json_pack("{s:I, s:o, s:o, s:I}", "tokens", (json_int_t)test->n_predicted, "nll",
                      number(nll), "ppl", number(exp(nll)), "windows", (json_int_t)test->n_windows);
        if (test->n_sides > 1) {
            json_object_set_new(root, "kl", number(test->kl / n));
            json_object_set_new(root, "top1_agreement", number((double)test->n_agreed / n));
            json_object_set_new(root, "nll_difference", number(difference));
        }
        return app_print_json(test->app, root, err);
    }
    struct buffer text = {0};
    buffer_printf(&text, "tokens %zu\nnll %.6f\nppl %.4f\n", test->n_predicted, nll, exp(nll));
    if (test->n_sides > 1)
        buffer_printf(&text, "kl %.9f\ntop1_agreement %.6f\nnll_difference %.9f\n", test->kl / n,
                      (double)test->n_agreed / n, difference);
    output_buffer(&test->app->out, &text);
    buffer_release(&text);
    return SLUICE_OK;
}

static enum sluice_status run_test(struct test *test, struct sluice_error *err)
{
    TRY(read_input(test, err));
    TRY(open_engines(test, err));
    TRY(take_ids(test, err));
    TRY(open_sessions(test, err));
    TRY(measure(test, err));
    TRY(print_result(test, err));
    if (!test->app->args->stats) return SLUICE_OK;
    say("evaluated: %zu tokens in %.1f ms, %.1f tokens/s", test->n_predicted,
        (double)test->ns / 1e6, (double)test->n_predicted * 1e9 / (double)(test->ns + 1));
    app_say_stats(test->sides[MEASURED].engine);
    return SLUICE_OK;
}

enum sluice_status cmd_perplexity(struct app *app, struct sluice_error *err)
{
    struct test test = {.app = app};
    enum sluice_status status = run_test(&test, err);
    for (size_t s = 0; s < N_SIDES; s++) {
        free(test.sides[s].logits);
        sluice_session_close(&test.sides[s].session);
        sluice_engine_close(&test.sides[s].engine);
    }
    buffer_release(&test.text);
    ids_release(&test.ids);
    return status;
}
