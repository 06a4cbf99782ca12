/* sluice trace: runs a prompt and greedy decoding, and records which experts every layer picks. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "distribution.h"
#include "interrupt.h"
#include "report.h"
#include "result_file.h"

struct recording {
    struct app *app;
    sluice_engine *engine;
    sluice_session *session;
    sluice_trace_writer *writer;
    struct result_file file;
    struct ids ids; /* the prompt, then what followed */
    size_t n_prompt;
    float *logits; /* [vocab_size] */
    bool prefill;
    enum sluice_status status; /* of what was written during an evaluation */
    struct sluice_error error;
};

static void record(void *user, uint32_t layer, uint32_t n_tokens, uint32_t k, const int32_t *ids)
{
    struct recording *r = user;
    (void)layer; /* layers come in ascending order */
    if (r->status != SLUICE_OK) return;
    r->status = sluice_trace_append(r->writer, n_tokens, r->prefill, k, ids, &r->error);
}

static enum sluice_status open_engine(struct recording *r, struct sluice_error *err)
{
    struct buffer path = {0};
    enum sluice_status status = app_model_path(r->app, &path, err);
    if (status == SLUICE_OK) {
        struct sluice_engine_options options;
        app_engine_options(r->app, &options);
        options.routed = record;
        options.route_user = r;
        status = sluice_engine_open(&r->engine, path.data, &options, err);
    }
    buffer_release(&path);
    return status;
}

static enum sluice_status open_session(struct recording *r, struct sluice_error *err)
{
    struct sluice_session_options options;
    sluice_session_options_default(&options);
    options.n_ctx = (uint32_t)r->app->args->ctx;
    TRY(sluice_session_open(&r->session, r->engine, &options, err));
    uint32_t capacity = sluice_session_capacity(r->session);
    uint64_t wanted = r->n_prompt + r->app->args->n_tokens;
    if (wanted <= capacity) return SLUICE_OK;
    return fail(err, SLUICE_E_CONTEXT_FULL,
                "the prompt and -n ask for %" PRIu64 " tokens, the context holds %" PRIu32
                "; give a smaller -n or a larger --ctx",
                wanted, capacity);
}

static enum sluice_status prepare(struct recording *r, struct sluice_error *err)
{
    TRY(open_engine(r, err));
    TRY(app_read_prompt(r->app, r->engine, &r->ids, err));
    r->n_prompt = r->ids.n;
    TRY(open_session(r, err));
    struct sluice_engine_info info = {.size = sizeof info};
    sluice_engine_get_info(r->engine, &info);
    r->logits = malloc(info.vocab_size * sizeof *r->logits);
    if (!r->logits) return fail_nomem(err, "logits");
    TRY(result_file_open(&r->file, r->app->args->out, err));
    return sluice_trace_writer_open(&r->writer, r->engine, result_file_append, &r->file, err);
}

/* Evaluates the ids from first on; the likeliest id follows them. */
static enum sluice_status evaluate(struct recording *r, size_t first, struct sluice_error *err)
{
    struct sluice_segment segment = {.session = r->session,
                                     .ids = r->ids.items + first,
                                     .n_ids = r->ids.n - first,
                                     .n_logits = 1};
    struct sluice_engine_info info = {.size = sizeof info};
    if (interrupt_signal()) return fail(err, SLUICE_E_CANCELLED, "interrupted");
    TRY(app_eval(r->app, r->engine, &segment, NULL, r->logits, err));
    if (r->status != SLUICE_OK) {
        *err = r->error;
        return r->status;
    }
    sluice_engine_get_info(r->engine, &info);
    int32_t next = (int32_t)index_of_largest(r->logits, info.vocab_size);
    return ids_push(&r->ids, next) ? SLUICE_OK : fail_nomem(err, "the generated ids");
}

static enum sluice_status run(struct recording *r, struct sluice_error *err)
{
    uint64_t n = r->app->args->n_tokens;
    progress_begin(&r->app->progress, "recording", "tokens", r->n_prompt + n);
    r->prefill = true;
    TRY(evaluate(r, 0, err));
    r->prefill = false;
    for (uint64_t i = 0; i < n; i++) TRY(evaluate(r, r->ids.n - 1, err));
    progress_end(&r->app->progress);
    TRY(sluice_trace_flush(r->writer, err));
    return result_file_close(&r->file, err);
}

static enum sluice_status conclude(struct recording *r, struct sluice_error *err)
{
    const struct args *args = r->app->args;
    if (args->stats) app_say_stats(r->engine);
    if (!args->json) return SLUICE_OK;
    return app_print_json(
        r->app,
        json_pack("{s:I, s:I, s:I, s:o}", "prompt_tokens", (json_int_t)r->n_prompt,
                  "decoded_tokens", (json_int_t)args->n_tokens, "bytes",
                  (json_int_t)r->file.written, "out", app_json_text(args->out, strlen(args->out))),
        err);
}

enum sluice_status cmd_trace(struct app *app, struct sluice_error *err)
{
    struct recording r = {.app = app, .file = {.fd = -1}};
    enum sluice_status status = prepare(&r, err);
    if (status == SLUICE_OK) status = run(&r, err);
    if (status == SLUICE_OK) status = conclude(&r, err);
    sluice_trace_writer_close(&r.writer);
    result_file_abort(&r.file);
    free(r.logits);
    ids_release(&r.ids);
    sluice_session_close(&r.session);
    sluice_engine_close(&r.engine);
    return status;
}
