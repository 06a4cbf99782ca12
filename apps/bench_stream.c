/*
 * sluice bench --stream: decoding with experts read from disk. Every rate stands beside the limits
 * measured in the same run, and none is given unless a run with another cache made the same tokens.
 */
#include "bench_stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_dram.h"
#include "report.h"

enum { DEFAULT_TOKENS = 32, NAME_CAP = 64, MAPPED_CHECK = 8 };

struct stream {
    struct app *app;
    struct buffer path;
    uint32_t n;        /* tokens of a window */
    uint32_t n_fill;   /* most tokens to fill the slots with */
    uint32_t n_tokens; /* most tokens of a run */
    uint32_t best_depth;
    struct drive_probe drive;
    struct stream_report report;
};

uint32_t stream_all_experts(const struct sluice_engine_info *info)
{
    return info->n_expert_layers * info->n_experts;
}

/* The machine */

/* Opens the model without reading weights, to learn its shape and where its experts are. */
static enum sluice_status look_at_model(struct stream *s, struct sluice_error *err)
{
    const struct args *args = s->app->args;
    sluice_engine *engine;
    struct sluice_engine_options options;
    app_engine_options(s->app, &options);
    options.io = SLUICE_IO_MMAP;
    options.prefetch = SLUICE_PREFETCH_OFF;
    options.ram_bytes = options.n_slots = 0;
    options.preload = false;
    TRY(app_model_path(s->app, &s->path, err));
    TRY(sluice_engine_open(&engine, s->path.data, &options, err));
    s->report.info.size = sizeof s->report.info;
    sluice_engine_get_info(engine, &s->report.info);
    s->report.path = s->path.data;
    const struct sluice_engine_info *info = &s->report.info;
    enum sluice_status status = info->n_expert_layers
                                    ? drive_open(&s->drive, engine, err)
                                    : fail(err, SLUICE_E_UNSUPPORTED,
                                           "%s: the model has no experts to stream", s->path.data);
    sluice_engine_close(&engine);
    if (status != SLUICE_OK) return status;
    s->n = ARG_GIVEN(args, n_tokens) ? (uint32_t)args->n_tokens : DEFAULT_TOKENS;
    s->n_fill = 8 * info->n_experts / info->n_experts_used;
    uint64_t total = s->n_fill + (uint64_t)s->n * (args->pairs + 1) + 1;
    if (s->n == 0 || total > UINT16_MAX)
        return fail(err, SLUICE_E_ARGUMENT, "-n %u and --pairs %u make %u tokens, not 1 to %u",
                    s->n, (unsigned)args->pairs, (unsigned)total, UINT16_MAX);
    s->n_tokens = (uint32_t)total;
    return SLUICE_OK;
}

static enum sluice_status measure_dram(struct stream *s, struct sluice_error *err)
{
    struct dram_probe probe;
    TRY(dram_open(&probe, s->report.info.n_threads, UINT64_MAX, err));
    double rate;
    enum sluice_status status = dram_measure(&probe, &rate, err);
    dram_close(&probe);
    if (status == SLUICE_OK && rate > s->report.dram_rate) s->report.dram_rate = rate;
    return status;
}

/* Seconds; between measurements, at the best depth alone, less will do. */
static double probe_seconds(const struct stream *s)
{
    return (double)s->app->args->probe / 1e3;
}

static enum sluice_status measure_drive(struct stream *s, double rates[DRIVE_DEPTHS],
                                        struct sluice_error *err)
{
    progress_begin(&s->app->progress, "reading the drive", "depths", DRIVE_DEPTHS);
    for (size_t i = 0; i < DRIVE_DEPTHS; i++) {
        TRY(drive_measure(&s->drive, drive_depths[i], probe_seconds(s), &rates[i], err));
        if (rates[i] > s->report.drive_rate) {
            s->report.drive_rate = rates[i];
            s->best_depth = drive_depths[i];
        }
        progress_update(&s->app->progress, i + 1);
    }
    progress_end(&s->app->progress);
    return SLUICE_OK;
}

static enum sluice_status probe_drive(struct stream *s, double *rate, struct sluice_error *err)
{
    TRY(drive_measure(&s->drive, s->best_depth, probe_seconds(s) * 2 / 3, rate, err));
    if (*rate > s->report.drive_rate) s->report.drive_rate = *rate;
    return SLUICE_OK;
}

static void note_load(struct stream *s)
{
    double load;
    if (getloadavg(&load, 1) == 1 && load > s->report.load) s->report.load = load;
}

/* Budgets */

static enum sluice_status plan_budgets(struct stream *s, struct sluice_error *err)
{
    const struct args *args = s->app->args;
    struct stream_report *r = &s->report;
    uint32_t all = stream_all_experts(&r->info);
    size_t n_given = args->ram.n + args->slots.n;
    r->n_results = n_given ? n_given : 3;
    r->results = calloc(r->n_results, sizeof *r->results);
    if (!r->results) return fail_nomem(err, "results");
    struct budget_result *next = r->results;
    for (size_t i = 0; i < args->slots.n; i++) (next++)->n_slots = (uint32_t)args->slots.items[i];
    for (size_t i = 0; i < args->ram.n; i++) (next++)->ram = args->ram.items[i];
    for (uint32_t i = 1; i <= 3 && n_given == 0; i++)
        (next++)->n_slots = (uint32_t)((uint64_t)all * i / 4);
    for (size_t i = 0; i < r->n_results; i++) {
        r->results[i].n_samples = (size_t)args->pairs;
        r->results[i].samples = calloc(args->pairs, sizeof *r->results[i].samples);
        if (!r->results[i].samples) return fail_nomem(err, "results");
    }
    return SLUICE_OK;
}

/* Advice is for the engine whose experts are mapped. */
static void store_options(const struct stream *s, struct sluice_engine_options *options)
{
    app_engine_options(s->app, options);
    if (s->app->args->against) options->mmap_advice = SLUICE_MMAP_NORMAL;
}

static enum sluice_status open_streamed(struct stream *s, struct decoder *d,
                                        struct decode_plan *plan, struct budget_result *result,
                                        struct sluice_error *err)
{
    struct sluice_engine_options options;
    store_options(s, &options);
    options.ram_bytes = result->ram;
    options.n_slots = result->n_slots;
    options.preload = false;
    TRY(decoder_open(d, s->app, plan, &options, err));
    result->n_slots = d->info.n_slots;
    result->plan_bytes = d->info.plan_bytes;
    result->io_direct = d->info.io_direct;
    snprintf(result->io_engine, sizeof result->io_engine, "%s", d->info.io_engine);
    return SLUICE_OK;
}

static enum sluice_status open_mapped(struct stream *s, struct decoder *d, struct decode_plan *plan,
                                      struct sluice_error *err)
{
    struct sluice_engine_options options;
    app_engine_options(s->app, &options);
    options.io = SLUICE_IO_MMAP;
    options.prefetch = SLUICE_PREFETCH_OFF;
    options.ram_bytes = options.n_slots = 0;
    options.preload = false;
    return decoder_open(d, s->app, plan, &options, err);
}

/* Decodes until every slot holds an expert, or for long enough that the rest is never asked for. */
static enum sluice_status warm_up(struct stream *s, struct decoder *d, struct budget_result *result,
                                  struct sluice_error *err)
{
    double misses = result->cold.misses * (double)result->cold.n;
    while (misses < result->n_slots && result->n_warmup < s->n_fill) {
        struct window window;
        TRY(decoder_run(d, 1, &window, err));
        misses += window.misses;
        result->n_warmup++;
    }
    result->filled = misses >= result->n_slots;
    return SLUICE_OK;
}

/* Samples take turns with the drive's own rate, and with the mapped engine if there is one. */
static enum sluice_status take_samples(struct stream *s, struct decoder *d, struct decoder *mapped,
                                       struct budget_result *result, struct sluice_error *err)
{
    double before, after;
    TRY(probe_drive(s, &before, err));
    for (size_t i = 0; i < result->n_samples; i++) {
        struct sample *sample = &result->samples[i];
        TRY(decoder_run(d, s->n, &sample->window, err));
        TRY(probe_drive(s, &after, err));
        sample->drive_rate = before > after ? before : after;
        if (mapped) {
            TRY(decoder_run(mapped, s->n, &sample->mapped, err));
            TRY(probe_drive(s, &after, err));
        }
        before = after;
    }
    return SLUICE_OK;
}

static enum sluice_status measure_opened(struct stream *s, struct decoder *d,
                                         struct decoder *mapped, struct budget_result *result,
                                         struct sluice_error *err)
{
    TRY(decoder_run(d, s->n, &result->cold, err));
    TRY(warm_up(s, d, result, err));
    /* The mapped engine comes to the same token, so that both do the same work. */
    if (mapped) TRY(decoder_run(mapped, s->n + result->n_warmup, NULL, err));
    return take_samples(s, d, mapped, result, err);
}

static void take_row(void *user, const struct sluice_cache_sim_row *row)
{
    struct budget_result *result = user;
    if (strcmp(row->policy, "lru") == 0) result->lru_misses = row->decode_misses;
    if (strcmp(row->policy, "optimum") == 0) result->optimum_misses = row->decode_misses;
}

/* What other policies would have read, with the same slots and the same routing. */
static enum sluice_status simulate(struct decoder *d, struct budget_result *result,
                                   struct sluice_error *err)
{
    result->counted.size = sizeof result->counted;
    sluice_engine_get_stats(d->engine, &result->counted);
    result->misses = result->counted.expert_misses;
    TRY(decoder_end_trace(d, err));
    struct sluice_cache_sim_options options;
    sluice_cache_sim_options_default(&options);
    options.capacities = &result->n_slots;
    options.n_capacities = 1;
    options.row = take_row;
    options.row_user = result;
    return sluice_cache_sim(d->plan->trace->data, d->plan->trace->len, &options, err);
}

static enum sluice_status measure_budget(struct stream *s, struct budget_result *result,
                                         struct sluice_error *err)
{
    char name[NAME_CAP] = "a run";
    struct buffer trace = {0};
    struct decode_plan plan = {.path = s->path.data,
                               .name = name,
                               .route = &s->report.route,
                               .golden = &s->report.golden,
                               .trace = &trace,
                               .n_tokens = s->n_tokens};
    struct decode_plan mapped_plan = plan;
    mapped_plan.name = "the run with mapped experts";
    mapped_plan.trace = NULL;
    struct decoder d = {0}, mapped = {0};
    bool against = s->app->args->against != 0;
    enum sluice_status status = open_streamed(s, &d, &plan, result, err);
    snprintf(name, sizeof name, "the run with %u slots", result->n_slots);
    if (status == SLUICE_OK && against) status = open_mapped(s, &mapped, &mapped_plan, err);
    if (status == SLUICE_OK) status = measure_opened(s, &d, against ? &mapped : NULL, result, err);
    if (status == SLUICE_OK) status = simulate(&d, result, err);
    decoder_close(&d);
    decoder_close(&mapped);
    buffer_release(&trace);
    return status;
}

/* The golden gate */

/* With every expert in memory: the tokens must be the same, and the time says what reading costs.
 */
static enum sluice_status check_resident(struct stream *s, bool *fits, struct sluice_error *err)
{
    struct sluice_engine_options options;
    store_options(s, &options);
    options.ram_bytes = options.n_slots = 0;
    options.preload = false;
    struct stream_report *r = &s->report;
    struct decode_plan plan = {.path = s->path.data,
                               .name = "the run with all experts in memory",
                               .route = &r->route,
                               .golden = &r->golden,
                               .n_tokens = s->n_tokens};
    struct decoder d = {0};
    TRY(decoder_open(&d, s->app, &plan, &options, err));
    *fits = d.info.n_slots >= stream_all_experts(&r->info) && !d.info.mapped;
    decoder_close(&d);
    if (!*fits) return SLUICE_OK;
    options.preload = true;
    TRY(decoder_open(&d, s->app, &plan, &options, err));
    size_t n = r->golden.n, last = n < s->n ? n : s->n;
    enum sluice_status status = decoder_run(&d, n - last, NULL, err);
    if (status == SLUICE_OK) status = decoder_run(&d, last, &r->resident, err);
    decoder_close(&d);
    r->reference = "a run with all experts in memory";
    return status;
}

/* A smaller model of the same kind: few slots against all of them. */
static enum sluice_status check_smaller(struct stream *s, struct sluice_error *err)
{
    struct sluice_engine_options options;
    store_options(s, &options);
    options.ram_bytes = options.n_slots = 0;
    options.preload = true;
    struct golden golden = {0};
    struct forced_route route = {0};
    struct decode_plan plan = {.path = s->app->args->gate,
                               .name = "the smaller model with all experts in memory",
                               .golden = &golden,
                               .n_tokens = s->n_tokens};
    struct decoder d = {0};
    const struct args *args = s->app->args;
    TRY(decoder_open(&d, s->app, &plan, &options, err));
    uint32_t all = stream_all_experts(&d.info), n_slots = d.info.n_slots;
    struct sluice_engine_info info = d.info;
    decoder_close(&d);
    if (n_slots < all)
        return fail(err, SLUICE_E_BUDGET, "%s: this model does not fit in memory either",
                    args->gate);
    enum sluice_status status =
        forced_route_open(&route, args->route, &info, s->n_tokens, args->seed, err);
    plan.route = &route;
    for (uint32_t quarter = 4; quarter >= 1 && status == SLUICE_OK; quarter--) {
        options.n_slots = all / 4 * quarter;
        options.preload = quarter == 4;
        status = decoder_open(&d, s->app, &plan, &options, err);
        if (status == SLUICE_OK) status = decoder_run(&d, s->n, NULL, err);
        decoder_close(&d);
    }
    forced_route_close(&route);
    golden_release(&golden);
    s->report.reference = "a smaller model with all experts in memory";
    return status;
}

/* Neither fits: mapped experts give the same bits, but slowly. */
static enum sluice_status check_mapped(struct stream *s, struct sluice_error *err)
{
    struct stream_report *r = &s->report;
    struct decode_plan plan = {.path = s->path.data,
                               .name = "the run with mapped experts",
                               .route = &r->route,
                               .golden = &r->golden,
                               .n_tokens = s->n_tokens};
    struct decoder d = {0};
    TRY(open_mapped(s, &d, &plan, err));
    size_t n = r->golden.n < MAPPED_CHECK ? r->golden.n : MAPPED_CHECK;
    enum sluice_status status = decoder_run(&d, n, NULL, err);
    decoder_close(&d);
    r->reference = "a run with mapped experts, for its first tokens";
    return status;
}

static enum sluice_status check_tokens(struct stream *s, struct sluice_error *err)
{
    bool fits = false;
    TRY(check_resident(s, &fits, err));
    return fits ? SLUICE_OK : check_mapped(s, err);
}

/* All of it */

static enum sluice_status run(struct stream *s, struct sluice_error *err)
{
    const struct args *args = s->app->args;
    struct stream_report *r = &s->report;
    TRY(look_at_model(s, err));
    TRY(forced_route_open(&r->route, args->route, &r->info, s->n_tokens, args->seed, err));
    TRY(plan_budgets(s, err));
    r->drive_direct = s->drive.direct;
    r->drive_uring = s->drive.uring;
    r->drive_piece = s->drive.piece;
    note_load(s);
    /* Before all that takes minutes: it may be the wrong folder. */
    if (args->gate) TRY(check_smaller(s, err));
    TRY(measure_drive(s, r->drive_before, err));
    for (size_t i = 0; i < r->n_results; i++) TRY(measure_budget(s, &r->results[i], err));
    TRY(measure_drive(s, r->drive_after, err));
    TRY(measure_dram(s, err));
    if (!args->gate) TRY(check_tokens(s, err));
    TRY(measure_dram(s, err));
    note_load(s);
    if (args->json) return app_print_json(s->app, stream_json(r), err);
    stream_print(r, &s->app->out);
    return SLUICE_OK;
}

enum sluice_status bench_stream(struct app *app, struct sluice_error *err)
{
    struct stream s = {.app = app};
    enum sluice_status status = run(&s, err);
    for (size_t i = 0; i < s.report.n_results && s.report.results; i++)
        free(s.report.results[i].samples);
    free(s.report.results);
    forced_route_close(&s.report.route);
    golden_release(&s.report.golden);
    drive_close(&s.drive);
    buffer_release(&s.path);
    return status;
}
