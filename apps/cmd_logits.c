/* sluice logits: the logits (and the residual stream) of every position, written piece by piece. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "clock.h"
#include "input.h"
#include "report.h"
#include "safetensors_out.h"

struct job {
    struct app *app;
    sluice_engine *engine;
    sluice_session *session;
    struct sluice_engine_info info;
    struct ids ids;
    size_t rows; /* positions at once */
    float *logits, *hidden;
    struct out_tensor *tensors; /* logits, then hidden.0 ... hidden.L with --hidden */
    size_t n_tensors;
    struct safetensors_out out;
    bool out_open;
};

/* The ids come before the model: how many there are decides how much memory is planned. */
static enum sluice_status read_ids(struct job *job, struct sluice_error *err)
{
    const struct args *args = job->app->args;
    TRY(ids_read(&job->ids, args->ids, err));
    if (!job->ids.n)
        return fail(err, SLUICE_E_ARGUMENT, "%s: there are no ids", input_name(args->ids));
    uint64_t ctx = ARG_GIVEN(args, ctx) ? args->ctx : job->ids.n;
    if (job->ids.n > ctx || ctx > UINT32_MAX)
        return fail(err, SLUICE_E_CONTEXT_FULL,
                    "%s: %zu ids do not fit in a context of %" PRIu64 " tokens",
                    input_name(args->ids), job->ids.n, ctx);
    job->app->plan_ctx = (uint32_t)ctx;
    job->app->many_logits = true;
    return SLUICE_OK;
}

static enum sluice_status open_session(struct job *job, struct sluice_error *err)
{
    struct sluice_session_options options;
    sluice_session_options_default(&options);
    options.n_ctx = job->app->plan_ctx;
    return sluice_session_open(&job->session, job->engine, &options, err);
}

static enum sluice_status make_tensors(struct job *job, struct sluice_error *err)
{
    bool hidden = job->app->args->hidden;
    job->n_tensors = hidden ? (size_t)job->info.n_layers + 2 : 1;
    job->tensors = calloc(job->n_tensors, sizeof *job->tensors);
    if (!job->tensors) return fail_nomem(err, "the tensors of the output");
    for (size_t i = 0; i < job->n_tensors; i++) {
        struct out_tensor *t = &job->tensors[i];
        t->rows = job->ids.n;
        t->columns = i == 0 ? job->info.vocab_size : job->info.hidden_size;
        if (i == 0) snprintf(t->name, sizeof t->name, "logits");
        if (i > 0) snprintf(t->name, sizeof t->name, "hidden.%zu", i - 1);
    }
    return SLUICE_OK;
}

static enum sluice_status make_buffers(struct job *job, struct sluice_error *err)
{
    size_t vocab = job->info.vocab_size;
    size_t stream =
        job->app->args->hidden ? ((size_t)job->info.n_layers + 1) * job->info.hidden_size : 0;
    job->rows = app_rows_at_once(vocab > stream ? vocab : stream);
    if (job->rows > job->ids.n) job->rows = job->ids.n;
    job->logits = calloc(job->rows * vocab, sizeof *job->logits);
    if (stream) job->hidden = calloc(job->rows * stream, sizeof *job->hidden);
    return job->logits && (job->hidden || !stream) ? SLUICE_OK : fail_nomem(err, "logits");
}

/* Evaluates n ids from first on and writes their rows. */
static enum sluice_status write_piece(struct job *job, size_t first, size_t n,
                                      struct sluice_error *err)
{
    struct sluice_segment piece = {
        .session = job->session, .ids = job->ids.items + first, .n_ids = n, .n_logits = n};
    TRY(app_eval(job->app, job->engine, &piece, job->hidden, job->logits, err));
    TRY(safetensors_out_rows(&job->out, 0, job->logits, n, err));
    size_t layer_floats = n * job->info.hidden_size;
    for (size_t i = 1; i < job->n_tensors; i++)
        TRY(safetensors_out_rows(&job->out, i, job->hidden + (i - 1) * layer_floats, n, err));
    return SLUICE_OK;
}

static enum sluice_status write_all(struct job *job, struct sluice_error *err)
{
    progress_begin(&job->app->progress, "evaluating", "tokens", job->ids.n);
    for (size_t first = 0; first < job->ids.n; first += job->rows) {
        size_t left = job->ids.n - first;
        TRY(write_piece(job, first, left < job->rows ? left : job->rows, err));
    }
    progress_end(&job->app->progress);
    job->out_open = false;
    return safetensors_out_close(&job->out, err);
}

static enum sluice_status run_job(struct job *job, struct sluice_error *err)
{
    TRY(read_ids(job, err));
    TRY(app_open(job->app, &job->engine, err));
    job->info.size = sizeof job->info;
    sluice_engine_get_info(job->engine, &job->info);
    TRY(ids_check(&job->ids, job->app->args->ids, job->info.vocab_size, err));
    TRY(open_session(job, err));
    TRY(make_tensors(job, err));
    TRY(make_buffers(job, err));
    TRY(safetensors_out_open(&job->out, job->app->args->out, job->tensors, job->n_tensors, err));
    job->out_open = true;
    uint64_t began = clock_ns();
    TRY(write_all(job, err));
    double ms = (double)(clock_ns() - began) / 1e6;
    if (job->app->args->stats) {
        say("evaluated: %zu tokens in %.1f ms", job->ids.n, ms);
        app_say_stats(job->engine);
    }
    if (!job->app->args->json) return SLUICE_OK;
    const char *path = job->app->args->out;
    return app_print_json(job->app,
                          json_pack("{s:I, s:I, s:I, s:o, s:f}", "tokens", (json_int_t)job->ids.n,
                                    "vocab_size", (json_int_t)job->info.vocab_size, "tensors",
                                    (json_int_t)job->n_tensors, "out",
                                    app_json_text(path, strlen(path)), "ms", ms),
                          err);
}

enum sluice_status cmd_logits(struct app *app, struct sluice_error *err)
{
    struct job job = {.app = app};
    enum sluice_status status = run_job(&job, err);
    if (job.out_open) safetensors_out_abort(&job.out);
    free(job.tensors);
    free(job.logits);
    free(job.hidden);
    ids_release(&job.ids);
    sluice_session_close(&job.session);
    sluice_engine_close(&job.engine);
    return status;
}
