#include "app.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "clean_text.h"
#include "interrupt.h"
#include "model_path.h"
#include "report.h"
#include "units.h"

enum sluice_status app_model_path(const struct app *app, struct buffer *path,
                                  struct sluice_error *err)
{
    if (app->args->model) {
        buffer_text(path, app->args->model);
        return path->failed ? fail_nomem(err, "the path of the model") : SLUICE_OK;
    }
    struct buffer program = {0};
    model_path_program(&program);
    enum sluice_status status = program.failed
                                    ? fail_nomem(err, "the path of the program")
                                    : model_path_find(program.data ? program.data : "", path, err);
    buffer_release(&program);
    return status;
}

void app_print_log(void *user, enum sluice_log_level level, const char *message)
{
    struct app *app = user;
    if (level > app->log_level) return;
    progress_hide(&app->progress);
    say("%s%s", level == SLUICE_LOG_WARNING ? "warning: " : "", message);
}

/* Reading weights at open: one line on a terminal, for each of its parts. */
static void show_loading(void *user, uint64_t done, uint64_t total)
{
    struct app *app = user;
    if (app->progress.total != total) progress_begin(&app->progress, "loading", "", total);
    progress_update(&app->progress, done);
    if (done >= total) progress_end(&app->progress);
}

static bool cancelled(void *user)
{
    (void)user;
    return interrupt_signal() != 0;
}

void app_engine_options(struct app *app, struct sluice_engine_options *options)
{
    const struct args *args = app->args;
    sluice_engine_options_default(options);
    options->n_threads = (uint32_t)args->threads;
    options->precision = args->precision;
    options->keep_hidden = args->hidden;
    options->top_k_experts = (uint32_t)args->top_k_experts;
    /* A chunk above the engine's own batch size needs room for it. */
    if (args->chunk > 512) options->max_batch_tokens = (uint32_t)args->chunk;
    options->ram_bytes = numbers_last(&args->ram);
    options->n_slots = (uint32_t)numbers_last(&args->slots);
    options->io = (enum sluice_io)args->io;
    options->mmap_advice = (enum sluice_mmap_advice)args->mmap_advice;
    options->policy = (enum sluice_policy)args->policy;
    options->prefetch = (enum sluice_prefetch)args->prefetch;
    options->queue_depth = (uint32_t)args->queue_depth;
    options->preload = args->preload;
    options->plan_ctx = app->plan_ctx ? app->plan_ctx : (uint32_t)args->ctx;
    options->max_logit_rows = app->many_logits ? 0 : 1;
    options->verify = !args->no_verify;
    options->load_progress = show_loading;
    options->load_cancelled = cancelled;
    options->load_user = app;
    options->log = app_print_log;
    options->log_user = app;
}

enum sluice_status app_open(struct app *app, sluice_engine **engine, struct sluice_error *err)
{
    *engine = NULL;
    struct buffer path = {0}, heat = {0};
    enum sluice_status status = app_model_path(app, &path, err);
    if (status == SLUICE_OK) status = app_read_heat(app, &heat, err);
    if (status == SLUICE_OK) {
        struct sluice_engine_options options;
        app_engine_options(app, &options);
        options.heat = heat.len ? heat.data : NULL;
        options.heat_len = heat.len;
        status = sluice_engine_open(engine, path.data, &options, err);
        /* The library was given bytes and does not know where they are from. */
        if (status != SLUICE_OK && strncmp(err->message, "heat profile: ", 14) == 0)
            fail_in(err, app->args->heat);
    }
    buffer_release(&path);
    buffer_release(&heat);
    return status;
}

enum sluice_status app_tokenizer(const sluice_engine *engine, const sluice_tokenizer **tokenizer,
                                 struct sluice_error *err)
{
    *tokenizer = sluice_engine_tokenizer(engine);
    return *tokenizer ? SLUICE_OK : sluice_engine_tokenizer_status(engine, err);
}

enum sluice_status app_tokenize(const sluice_tokenizer *tokenizer, const char *text, size_t len,
                                struct ids *ids, struct sluice_error *err)
{
    size_t cap = len / 2 + 16;
    for (;;) {
        if (cap > SIZE_MAX / sizeof(int32_t) / 2) return fail_nomem(err, "token ids");
        int32_t *items = realloc(ids->items, cap * sizeof *items);
        if (!items) return fail_nomem(err, "token ids");
        ids->items = items;
        ids->cap = cap;
        TRY(sluice_tokenize(tokenizer, text ? text : "", len, 0, items, cap, &ids->n, err));
        if (ids->n <= cap) return SLUICE_OK;
        cap = ids->n;
        ids->n = 0;
    }
}

static void report_progress(void *user, size_t done, size_t total)
{
    struct app *app = user;
    (void)total;
    progress_update(&app->progress, app->progress_base + done);
}

enum sluice_status app_eval(struct app *app, sluice_engine *engine,
                            const struct sluice_segment *segment, float *hidden, float *logits,
                            struct sluice_error *err)
{
    struct sluice_eval_options options;
    sluice_eval_options_default(&options);
    options.chunk = (uint32_t)app->args->chunk;
    options.hidden = hidden;
    options.cancelled = cancelled;
    options.progress = report_progress;
    options.user = app;
    TRY(sluice_eval(engine, segment, 1, &options, logits, err));
    app->progress_base += segment->n_ids;
    return SLUICE_OK;
}

size_t app_rows_at_once(size_t floats_per_row)
{
    size_t rows = ((size_t)64 << 20) / sizeof(float) / (floats_per_row ? floats_per_row : 1);
    return rows ? rows : 1;
}

static void say_metric(const char *text, uint64_t value, const char *unit)
{
    if (strcmp(unit, "ns") == 0) {
        say("%s: %.1f ms", text, (double)value / 1e6);
    } else if (strcmp(unit, "B") == 0) {
        char size[UNITS_CAP];
        units_bytes(value, size);
        say("%s: %s", text, size);
    } else {
        say("%s: %" PRIu64 "%s%s", text, value, *unit ? " " : "", unit);
    }
}

/* Each line of a text by itself. */
static void say_lines(char *text)
{
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        say("%s", line);
}

static void say_plan(const sluice_engine *engine)
{
    struct buffer text = {0};
    app_plan_text(engine, &text);
    buffer_add(&text, "", 1);
    if (!text.failed) say_lines(text.data);
    buffer_release(&text);
}

void app_say_stats(const sluice_engine *engine)
{
    say_plan(engine);
    struct sluice_stats stats = {.size = sizeof stats};
    sluice_engine_get_stats(engine, &stats);
#define M(name, unit, text) say_metric(text, stats.name, unit);
#include "sluice/metrics.def"
#undef M
}

json_t *app_stats_json(const sluice_engine *engine)
{
    struct sluice_stats stats = {.size = sizeof stats};
    sluice_engine_get_stats(engine, &stats);
    json_t *root = json_object();
#define M(name, unit, text) json_object_set_new(root, #name, json_integer((json_int_t)stats.name));
#include "sluice/metrics.def"
#undef M
    json_object_set_new(root, "plan", app_plan_json(engine));
    return root;
}

enum sluice_status app_print_json(struct app *app, json_t *root, struct sluice_error *err)
{
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(12)) : NULL;
    json_decref(root);
    if (!text) return fail_nomem(err, "the JSON result");
    output_write(&app->out, text, strlen(text));
    output_write(&app->out, "\n", 1);
    free(text);
    return SLUICE_OK;
}

json_t *app_json_text(const char *text, size_t len)
{
    struct buffer clean = {0};
    clean_text(text, len, &clean);
    json_t *value = clean.failed ? NULL : json_stringn(clean.data ? clean.data : "", clean.len);
    buffer_release(&clean);
    return value;
}
