/* sluice cache-sim: what every policy of the cache, and the best possible one, make of a trace. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "input.h"
#include "report.h"
#include "result_file.h"

struct replay {
    struct app *app;
    struct buffer trace;
    struct sluice_trace_info info;
    uint64_t n_batches;
    struct result_file svg;
    uint32_t *capacities; /* NULL: tenths */
    struct sluice_cache_sim_row *rows;
    size_t n_rows, cap_rows;
    bool failed; /* a row found no memory */
};

static void take_row(void *user, const struct sluice_cache_sim_row *row)
{
    struct replay *r = user;
    if (r->n_rows == r->cap_rows) {
        size_t cap = r->cap_rows ? 2 * r->cap_rows : 64;
        struct sluice_cache_sim_row *grown = realloc(r->rows, cap * sizeof *grown);
        r->failed = r->failed || !grown;
        if (!grown) return;
        r->rows = grown;
        r->cap_rows = cap;
    }
    r->rows[r->n_rows++] = *row;
}

/* Rows of one capacity are one line. */
static bool begins_line(const struct replay *r, size_t row)
{
    return row == 0 || r->rows[row].capacity != r->rows[row - 1].capacity ||
           strcmp(r->rows[row].policy, r->rows[0].policy) == 0;
}

static void print_rows(const struct replay *r)
{
    uint32_t n_all = r->info.n_layers * r->info.n_experts;
    struct buffer text = {0};
    buffer_printf(&text,
                  "%" PRIu64 " batches, %" PRIu32 " layers with %" PRIu32 " experts, %" PRIu32
                  " used by a token; hits in percent\n%8s %6s",
                  r->n_batches, r->info.n_layers, r->info.n_experts, r->info.n_experts_used,
                  "slots", "of all");
    for (size_t i = 0; i < r->n_rows && (i == 0 || !begins_line(r, i)); i++)
        buffer_printf(&text, "  %9s", r->rows[i].policy);
    for (size_t i = 0; i < r->n_rows; i++) {
        const struct sluice_cache_sim_row *row = &r->rows[i];
        if (begins_line(r, i))
            buffer_printf(&text, "\n%8" PRIu32 " %5.1f%%", row->capacity,
                          100.0 * row->capacity / n_all);
        buffer_printf(&text, "  %9.2f", 100 * row->hit_rate);
    }
    buffer_text(&text, "\n");
    output_buffer(&r->app->out, &text);
    buffer_release(&text);
}

static json_t *rows_json(const struct replay *r)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < r->n_rows; i++) {
        const struct sluice_cache_sim_row *row = &r->rows[i];
        json_array_append_new(rows, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:I}", "policy",
                                              row->policy, "slots", (json_int_t)row->capacity,
                                              "decode_hits", (json_int_t)row->decode_hits,
                                              "decode_misses", (json_int_t)row->decode_misses,
                                              "prefill_hits", (json_int_t)row->prefill_hits,
                                              "prefill_misses", (json_int_t)row->prefill_misses,
                                              "hit_rate", row->hit_rate, "switches",
                                              (json_int_t)row->switches));
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:o}", "batches", (json_int_t)r->n_batches, "layers",
                     (json_int_t)r->info.n_layers, "experts", (json_int_t)r->info.n_experts,
                     "experts_used", (json_int_t)r->info.n_experts_used, "rows", rows);
}

/* Checks all of the trace, and counts its batches. */
static enum sluice_status describe(struct replay *r, struct sluice_error *err)
{
    sluice_trace_reader *reader;
    TRY(sluice_trace_reader_open(&reader, r->trace.data, r->trace.len, err));
    r->info.size = sizeof r->info;
    sluice_trace_reader_info(reader, &r->info);
    struct sluice_trace_step step;
    uint64_t steps = 0;
    enum sluice_status status;
    while ((status = sluice_trace_next(reader, &step, err)) == SLUICE_OK && step.n) steps++;
    sluice_trace_reader_close(&reader);
    r->n_batches = steps / r->info.n_layers;
    return status;
}

static enum sluice_status take_capacities(struct replay *r, struct sluice_error *err)
{
    const struct numbers *given = &r->app->args->capacity;
    if (given->n == 0) return SLUICE_OK;
    r->capacities = calloc(given->n, sizeof *r->capacities);
    if (!r->capacities) return fail_nomem(err, "capacities");
    for (size_t i = 0; i < given->n; i++) r->capacities[i] = (uint32_t)given->items[i];
    return SLUICE_OK;
}

static enum sluice_status simulate(struct replay *r, struct sluice_error *err)
{
    const struct args *args = r->app->args;
    struct sluice_cache_sim_options options;
    sluice_cache_sim_options_default(&options);
    options.capacities = r->capacities;
    options.n_capacities = args->capacity.n;
    const char *slash = strrchr(args->model, '/');
    options.title = slash ? slash + 1 : args->model;
    options.row = take_row;
    options.row_user = r;
    if (args->svg) {
        TRY(result_file_open(&r->svg, args->svg, err));
        options.svg = result_file_append;
        options.svg_user = &r->svg;
    }
    TRY(sluice_cache_sim(r->trace.data, r->trace.len, &options, err));
    return args->svg ? result_file_close(&r->svg, err) : SLUICE_OK;
}

static enum sluice_status replay(struct replay *r, struct sluice_error *err)
{
    TRY(input_read(r->app->args->model, &r->trace, err));
    TRY(describe(r, err));
    TRY(take_capacities(r, err));
    TRY(simulate(r, err));
    if (r->failed) return fail_nomem(err, "the results");
    if (r->app->args->json) return app_print_json(r->app, rows_json(r), err);
    print_rows(r);
    return SLUICE_OK;
}

enum sluice_status cmd_cache_sim(struct app *app, struct sluice_error *err)
{
    struct replay r = {.app = app, .svg = {.fd = -1}};
    enum sluice_status status = replay(&r, err);
    /* A bad trace is named, as every file is. */
    if (status == SLUICE_E_FORMAT || status == SLUICE_E_UNSUPPORTED)
        fail_in(err, input_name(app->args->model));
    result_file_abort(&r.svg);
    free(r.capacities);
    free(r.rows);
    buffer_release(&r.trace);
    return status;
}
