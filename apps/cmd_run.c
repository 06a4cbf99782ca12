/*
 * sluice run: evaluates a prompt, then draws token after token. Text goes out as soon as it is
 * certain: whole characters only, and nothing that may turn out to begin a stop string.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "clock.h"
#include "interrupt.h"
#include "report.h"
#include "stop_text.h"

struct run {
    struct app *app;
    sluice_engine *engine;
    sluice_session *session;
    sluice_sampler *sampler;
    const sluice_tokenizer *tokenizer; /* NULL: only ids are known */
    uint32_t vocab_size;
    float *logits; /* [vocab_size] */
    struct ids prompt;
    struct ids generated; /* with the token that ended the text, if one did */
    struct buffer piece;  /* the text of one token */
    struct buffer text;   /* what can be printed; with --json all of it */
    struct sluice_text_stream stream;
    struct stop_text stop;
    const char *finish_reason;
    uint64_t prompt_ns, decode_ns;
};

/* Preparation */

static enum sluice_status find_tokenizer(struct run *run, struct sluice_error *err)
{
    const struct args *args = run->app->args;
    bool needed = !args->ids || !args->print_ids || args->stop.n;
    enum sluice_status status = app_tokenizer(run->engine, &run->tokenizer, err);
    return needed ? status : SLUICE_OK;
}

static enum sluice_status open_session(struct run *run, struct sluice_error *err)
{
    struct sluice_session_options options;
    sluice_session_options_default(&options);
    options.n_ctx = (uint32_t)run->app->args->ctx;
    TRY(sluice_session_open(&run->session, run->engine, &options, err));
    uint32_t capacity = sluice_session_capacity(run->session);
    if (run->prompt.n <= capacity) return SLUICE_OK;
    return fail(err, SLUICE_E_CONTEXT_FULL,
                "the prompt has %zu tokens, the context holds %" PRIu32 "; give --ctx %zu or more",
                run->prompt.n, capacity, run->prompt.n);
}

static enum sluice_status open_sampler(struct run *run, uint32_t vocab_size,
                                       struct sluice_error *err)
{
    const struct args *args = run->app->args;
    struct sluice_sampler_options options;
    sluice_sampler_options_default(&options);
    options.temperature = (float)args->temperature;
    options.top_k = (uint32_t)args->top_k;
    options.top_p = (float)args->top_p;
    options.min_p = (float)args->min_p;
    options.repeat_penalty = (float)args->repeat_penalty;
    options.presence_penalty = (float)args->presence_penalty;
    options.frequency_penalty = (float)args->frequency_penalty;
    options.seed = args->seed;
    options.bias = args->logit_bias.items;
    options.n_bias = args->logit_bias.n;
    TRY(sluice_sampler_open(&run->sampler, vocab_size, &options, err));
    for (size_t i = 0; i < run->prompt.n; i++)
        sluice_sampler_accept(run->sampler, run->prompt.items[i]);
    return SLUICE_OK;
}

static enum sluice_status prepare(struct run *run, struct sluice_error *err)
{
    TRY(app_open(run->app, &run->engine, err));
    struct sluice_engine_info info = {.size = sizeof info};
    sluice_engine_get_info(run->engine, &info);
    TRY(find_tokenizer(run, err));
    TRY(app_read_prompt(run->app, run->engine, &run->prompt, err));
    TRY(open_session(run, err));
    TRY(open_sampler(run, info.vocab_size, err));
    run->vocab_size = info.vocab_size;
    run->logits = malloc(info.vocab_size * sizeof *run->logits);
    return run->logits ? SLUICE_OK : fail_nomem(err, "logits");
}

/* Printing */

static bool streams_text(const struct run *run)
{
    return !run->app->args->json && !run->app->args->print_ids;
}

static void print_new_text(struct run *run)
{
    if (!streams_text(run)) return;
    output_buffer(&run->app->out, &run->text);
    run->text.len = 0;
}

static void print_id(struct run *run, int32_t id)
{
    const struct args *args = run->app->args;
    if (args->json || !args->print_ids) return;
    struct buffer text = {0};
    buffer_printf(&text, run->generated.n > 1 ? " %" PRId32 : "%" PRId32, id);
    output_buffer(&run->app->out, &text);
    buffer_release(&text);
}

/* Adds the text of an id. *stopped: a stop string is complete. */
static enum sluice_status add_text(struct run *run, int32_t id, bool *stopped,
                                   struct sluice_error *err)
{
    const char *bytes;
    size_t len = 0;
    if (sluice_token_bytes(run->tokenizer, id, &bytes, &len, NULL) != SLUICE_OK)
        return fail(err, SLUICE_E_MISMATCH, "the tokenizer has no text for id %" PRId32, id);
    run->piece.len = 0;
    /* Four pending bytes may become four replacement characters. */
    if (!buffer_reserve(&run->piece, 3 * (len + 4))) return fail_nomem(err, "the text of a token");
    TRY(sluice_text_stream_push(&run->stream, run->tokenizer, id, run->piece.data, 3 * (len + 4),
                                &run->piece.len, err));
    *stopped = stop_text_push(&run->stop, run->piece.data, run->piece.len, &run->text);
    if (run->text.failed) return fail_nomem(err, "the text");
    print_new_text(run);
    return SLUICE_OK;
}

/* What was held back because more might have followed. */
static void finish_text(struct run *run, bool by_stop_text)
{
    if (!by_stop_text) {
        char tail[4];
        size_t len = sluice_text_stream_finish(&run->stream, tail);
        if (!stop_text_push(&run->stop, tail, len, &run->text))
            stop_text_finish(&run->stop, &run->text);
    }
    print_new_text(run);
}

static void end_output(struct run *run)
{
    const struct args *args = run->app->args;
    if (args->json) return;
    if (args->print_ids) {
        if (run->generated.n || run->finish_reason) output_write(&run->app->out, "\n", 1);
    } else {
        output_end_line(&run->app->out);
    }
}

/* Generation */

static enum sluice_status eval_prompt(struct run *run, struct sluice_error *err)
{
    struct sluice_segment all = {
        .session = run->session, .ids = run->prompt.items, .n_ids = run->prompt.n, .n_logits = 1};
    uint64_t began = clock_ns();
    progress_begin(&run->app->progress, "reading the prompt", "tokens", run->prompt.n);
    enum sluice_status status = app_eval(run->app, run->engine, &all, NULL, run->logits, err);
    progress_end(&run->app->progress);
    run->prompt_ns = clock_ns() - began;
    return status;
}

/* A model that gives no numbers is broken; there is nothing to draw from. */
static enum sluice_status check_logits(const struct run *run, struct sluice_error *err)
{
    bool numbers = true;
    for (uint32_t i = 0; i < run->vocab_size; i++) numbers &= !isnan(run->logits[i]);
    if (numbers) return SLUICE_OK;
    return fail(err, SLUICE_E_FORMAT, "the model: the logits after %zu tokens are not numbers",
                run->prompt.n + run->generated.n);
}

/* Draws one token and prints what it adds. Sets finish_reason when it is the last. */
static enum sluice_status draw_one(struct run *run, struct sluice_error *err)
{
    const struct args *args = run->app->args;
    TRY(check_logits(run, err));
    int32_t id = sluice_sampler_draw(run->sampler, run->logits);
    sluice_sampler_accept(run->sampler, id);
    if (!ids_push(&run->generated, id)) return fail_nomem(err, "the generated ids");
    print_id(run, id);
    if (!args->ignore_eos && sluice_engine_is_eos(run->engine, id)) {
        run->finish_reason = "stop";
        finish_text(run, false);
        return SLUICE_OK;
    }
    bool stopped = false;
    if (run->tokenizer) TRY(add_text(run, id, &stopped, err));
    if (stopped) {
        run->finish_reason = "stop";
    } else if (run->generated.n >= args->n_tokens) {
        run->finish_reason = "length";
    } else if (sluice_session_position(run->session) == sluice_session_capacity(run->session)) {
        run->finish_reason = "context";
    }
    if (run->finish_reason) finish_text(run, stopped);
    return SLUICE_OK;
}

static enum sluice_status eval_last(struct run *run, struct sluice_error *err)
{
    struct sluice_segment one = {.session = run->session,
                                 .ids = &run->generated.items[run->generated.n - 1],
                                 .n_ids = 1,
                                 .n_logits = 1};
    return app_eval(run->app, run->engine, &one, NULL, run->logits, err);
}

static enum sluice_status generate(struct run *run, struct sluice_error *err)
{
    TRY(eval_prompt(run, err));
    if (run->app->args->n_tokens == 0) run->finish_reason = "length";
    uint64_t began = clock_ns();
    enum sluice_status status = SLUICE_OK;
    while (!run->finish_reason && status == SLUICE_OK && !run->app->out.error) {
        status = draw_one(run, err);
        if (status == SLUICE_OK && interrupt_signal())
            status = fail(err, SLUICE_E_CANCELLED, "interrupted");
        if (status == SLUICE_OK && !run->finish_reason) status = eval_last(run, err);
    }
    run->decode_ns = clock_ns() - began;
    return status;
}

/* Results */

static double per_second(size_t n, uint64_t ns)
{
    return ns ? (double)n * 1e9 / (double)ns : 0;
}

/* The first token comes from the prompt's logits; the time is that of the others. */
static double decode_rate(const struct run *run)
{
    return run->generated.n > 1 ? per_second(run->generated.n - 1, run->decode_ns) : 0;
}

static json_t *ids_json(const struct ids *ids)
{
    json_t *list = json_array();
    for (size_t i = 0; i < ids->n; i++) json_array_append_new(list, json_integer(ids->items[i]));
    return list;
}

static enum sluice_status print_result(struct run *run, struct sluice_error *err)
{
    json_t *stats = json_pack(
        "{s:I, s:I, s:f, s:f, s:f, s:f, s:o}", "prompt_tokens", (json_int_t)run->prompt.n,
        "generated_tokens", (json_int_t)run->generated.n, "prompt_ms", (double)run->prompt_ns / 1e6,
        "decode_ms", (double)run->decode_ns / 1e6, "prompt_tokens_per_second",
        per_second(run->prompt.n, run->prompt_ns), "decode_tokens_per_second", decode_rate(run),
        "engine", app_stats_json(run->engine));
    json_t *text = run->tokenizer ? app_json_text(run->text.data, run->text.len) : json_null();
    return app_print_json(run->app,
                          json_pack("{s:o, s:o, s:s, s:o}", "text", text, "ids",
                                    ids_json(&run->generated), "finish_reason", run->finish_reason,
                                    "stats", stats),
                          err);
}

static void say_stats(const struct run *run)
{
    say("prompt: %zu tokens in %.1f ms, %.1f tokens/s", run->prompt.n, (double)run->prompt_ns / 1e6,
        per_second(run->prompt.n, run->prompt_ns));
    say("generated: %zu tokens in %.1f ms, %.1f tokens/s", run->generated.n,
        (double)run->decode_ns / 1e6, decode_rate(run));
    app_say_stats(run->engine);
}

/* Everything that is printed after the last token, or after an interruption. */
static enum sluice_status conclude(struct run *run, enum sluice_status status,
                                   struct sluice_error *err)
{
    if (status != SLUICE_OK && status != SLUICE_E_CANCELLED) {
        end_output(run);
        return status;
    }
    if (status == SLUICE_E_CANCELLED) {
        run->finish_reason = "cancelled";
        finish_text(run, false);
    }
    end_output(run);
    if (run->app->out.error) return SLUICE_OK;
    if (strcmp(run->finish_reason, "context") == 0)
        say("the context of %" PRIu32 " tokens is full; a larger --ctx lets the text go on",
            sluice_session_capacity(run->session));
    if (run->app->args->json) {
        struct sluice_error json_err;
        enum sluice_status printed = print_result(run, &json_err);
        if (printed != SLUICE_OK) {
            *err = json_err;
            return printed;
        }
    }
    if (run->app->args->stats) say_stats(run);
    struct sluice_error heat_err;
    enum sluice_status heat = app_write_heat(run->app, run->engine, &heat_err);
    if (heat == SLUICE_OK) return status;
    *err = heat_err;
    return heat;
}

enum sluice_status cmd_run(struct app *app, struct sluice_error *err)
{
    struct run run = {.app = app,
                      .stop = {.stops = app->args->stop.items, .n_stops = app->args->stop.n}};
    enum sluice_status status = prepare(&run, err);
    if (status == SLUICE_OK) status = conclude(&run, generate(&run, err), err);
    free(run.logits);
    ids_release(&run.prompt);
    ids_release(&run.generated);
    buffer_release(&run.piece);
    buffer_release(&run.text);
    stop_text_release(&run.stop);
    sluice_sampler_close(&run.sampler);
    sluice_session_close(&run.session);
    sluice_engine_close(&run.engine);
    return status;
}
