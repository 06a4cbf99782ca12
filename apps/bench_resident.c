/*
 * sluice bench: prompts and decoding with all experts in memory, beside the rate at which this
 * machine reads memory and computes integer products. No rate is given unless single tokens agree
 * with exact precision, and batches with single tokens.
 */
#include "bench_resident.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_limits.h"
#include "bench_peak.h"
#include "bench_stream.h"
#include "clock.h"
#include "interrupt.h"
#include "report.h"
#include "result_file.h"

enum { DEFAULT_TOKENS = 32, ID_STEP = 7919, MOST_PROFILED = 4, DEFAULT_BATCH = 512 };
#define LEAST_IN_STEPS 0.95

/* Opening */

static enum sluice_status take_phase(struct resident *b, struct phase p, struct sluice_error *err)
{
    struct phase *out = &b->phases[b->n_phases++];
    *out = p;
    out->rates = calloc(b->rounds, sizeof *out->rates);
    if (b->app->args->profile) out->profile = calloc(1, sizeof *out->profile);
    bool ok = out->rates && (out->profile || !b->app->args->profile);
    return ok ? SLUICE_OK : fail_nomem(err, "results");
}

/* The usual lengths are left out where they are too long; what was asked for is not. */
static enum sluice_status plan_prompt(struct resident *b, uint64_t length, struct sluice_error *err)
{
    uint32_t most = b->info.trained_context;
    if (length > most && b->app->args->prefill.n)
        return fail(err, SLUICE_E_ARGUMENT,
                    "--prefill %" PRIu64 " is more than the %" PRIu32
                    " tokens that the model was trained for",
                    length, most);
    struct phase p = {.n = length <= most ? (uint32_t)length : 0};
    snprintf(p.name, sizeof p.name, "prefill %" PRIu64, length);
    return take_phase(b, p, err);
}

static enum sluice_status plan_phases(struct resident *b, struct sluice_error *err)
{
    const struct args *args = b->app->args;
    uint32_t most = b->info.trained_context;
    uint32_t n = ARG_GIVEN(args, n_tokens) ? (uint32_t)args->n_tokens : DEFAULT_TOKENS;
    if (n == 0 || args->n_tokens > most / 2)
        return fail(err, SLUICE_E_ARGUMENT, "-n %" PRIu64 ", not 1 to %" PRIu32, args->n_tokens,
                    most / 2);
    const struct numbers prompts =
        args->prefill.n ? args->prefill : (struct numbers){(uint64_t[]){512, 2048}, 2};
    b->n_prefills = prompts.n;
    b->n_contexts = args->context.n;
    b->phases = calloc(1 + b->n_prefills + b->n_contexts, sizeof *b->phases);
    if (!b->phases) return fail_nomem(err, "results");
    TRY(take_phase(b, (struct phase){.name = "decode", .context = 1, .n = n, .decode = true}, err));
    for (size_t i = 0; i < b->n_prefills; i++) TRY(plan_prompt(b, prompts.items[i], err));
    for (size_t i = 0; i < b->n_contexts; i++) {
        uint64_t context = args->context.items[i];
        if (context + n > most)
            return fail(err, SLUICE_E_ARGUMENT,
                        "--context %" PRIu64 " and %" PRIu32 " tokens are more than the %" PRIu32
                        " that the model was trained for",
                        context, n, most);
        struct phase p = {.context = (uint32_t)context, .n = n, .decode = true};
        snprintf(p.name, sizeof p.name, "decode at %" PRIu32, p.context);
        TRY(take_phase(b, p, err));
    }
    return SLUICE_OK;
}

static enum sluice_status take_memory(struct resident *b, struct sluice_error *err)
{
    uint32_t n_ids = GATE_TOKENS;
    for (size_t i = 0; i < b->n_phases; i++)
        if (b->phases[i].n > n_ids) n_ids = b->phases[i].n;
    b->ids = calloc(n_ids, sizeof *b->ids);
    b->logits = malloc(b->info.vocab_size * sizeof *b->logits);
    b->other = malloc(b->info.vocab_size * sizeof *b->other);
    b->dram_rates = calloc(b->rounds, sizeof *b->dram_rates);
    b->peak_rates = calloc(b->rounds, sizeof *b->peak_rates);
    if (!b->ids || !b->logits || !b->other || !b->dram_rates || !b->peak_rates)
        return fail_nomem(err, "results");
    for (uint32_t i = 0; i < n_ids; i++)
        b->ids[i] = (int32_t)(i * (uint64_t)ID_STEP % b->info.vocab_size);
    return SLUICE_OK;
}

/* A model that caches hold is read from there: the probe reads as much as the model has. */
static enum sluice_status open_probe(struct resident *b, struct sluice_error *err)
{
    const struct sluice_engine_info *info = &b->info;
    return dram_open(&b->dram, info->n_threads,
                     info->dense_bytes + info->expert_bytes + info->recurrent_bytes, err);
}

static enum sluice_status open_engine(struct resident *b, struct sluice_error *err)
{
    struct sluice_engine_options options;
    b->app->many_logits = true;
    app_engine_options(b->app, &options);
    options.preload = options.io != SLUICE_IO_MMAP;
    b->batch = options.max_batch_tokens ? options.max_batch_tokens : DEFAULT_BATCH;
    b->rounds = (size_t)b->app->args->pairs;
    TRY(app_model_path(b->app, &b->path, err));
    TRY(gate_open(&b->gate, b->app, b->path.data, err));
    TRY(sluice_engine_open(&b->engine, b->path.data, &options, err));
    b->info.size = sizeof b->info;
    sluice_engine_get_info(b->engine, &b->info);
    uint32_t all = stream_all_experts(&b->info);
    if (!b->info.mapped && b->info.n_slots < all)
        return fail(err, SLUICE_E_BUDGET,
                    "there is memory for %" PRIu32 " of %" PRIu32
                    " experts only; --stream measures that",
                    b->info.n_slots, all);
    TRY(plan_phases(b, err));
    TRY(take_memory(b, err));
    return open_probe(b, err);
}

/* Evaluating */

static enum sluice_status open_session(struct resident *b, uint32_t n_ctx, sluice_session **session,
                                       struct sluice_error *err)
{
    struct sluice_session_options options;
    sluice_session_options_default(&options);
    options.n_ctx = n_ctx;
    return sluice_session_open(session, b->engine, &options, err);
}

static enum sluice_status evaluate(struct resident *b, sluice_session *session, const int32_t *ids,
                                   size_t n, float *logits, struct sluice_error *err)
{
    if (interrupt_signal()) return fail(err, SLUICE_E_CANCELLED, "interrupted");
    struct sluice_segment segment = {.session = session, .ids = ids, .n_ids = n, .n_logits = 1};
    return app_eval(b->app, b->engine, &segment, NULL, logits, err);
}

static enum sluice_status one_by_one(struct resident *b, sluice_session *session, uint32_t n,
                                     float *logits, struct sluice_error *err)
{
    for (uint32_t i = 0; i < n; i++) TRY(evaluate(b, session, b->ids + i, 1, logits, err));
    return SLUICE_OK;
}

/* What two batches of the gate read and compute gives what any phase does. */
static void count_work(struct resident *b, const struct profile *batch,
                       const struct profile *single)
{
    struct profile_row all = profile_sum(batch), each = profile_sum(single);
    double body = (double)(all.products - each.products / GATE_TOKENS) / (GATE_TOKENS - 1);
    double one = (double)each.products / GATE_TOKENS, kv = (double)b->info.kv_bytes_per_token;
    /* Token i reads i + 1 positions and writes one. */
    double bytes = (double)each.bytes / GATE_TOKENS - kv * (GATE_TOKENS + 3) / 2;
    for (size_t i = 0; i < b->n_phases; i++) {
        struct phase *p = &b->phases[i];
        p->products = p->decode ? one : (body * (p->n - 1) + one) / (p->n ? p->n : 1);
        p->bytes = bytes + kv * (p->context + (p->n + 3) / 2.0);
    }
}

static enum sluice_status set_profile(struct resident *b, struct profile *profile,
                                      struct sluice_error *err)
{
    return sluice_engine_set_profile(b->engine, profile ? profile_add : NULL, profile, err);
}

static enum sluice_status compare_with_exact(struct resident *b, sluice_session *session,
                                             struct sluice_error *err)
{
    for (size_t i = 0; i < GATE_STEPS; i++) {
        TRY(evaluate(b, session, &b->gate.ids[i], 1, b->logits, err));
        TRY(gate_judge(&b->gate, b->logits, err));
    }
    sluice_session_reset(session);
    return SLUICE_OK;
}

/* The golden gate: single tokens are those of exact precision, and what a batch computes is the
 * same as what they do, bit for bit. */
static enum sluice_status compare(struct resident *b, sluice_session *session,
                                  struct profile profiles[2], struct sluice_error *err)
{
    TRY(compare_with_exact(b, session, err));
    TRY(set_profile(b, &profiles[0], err));
    TRY(evaluate(b, session, b->ids, GATE_TOKENS, b->logits, err));
    sluice_session_reset(session);
    TRY(set_profile(b, &profiles[1], err));
    TRY(one_by_one(b, session, GATE_TOKENS, b->other, err));
    TRY(set_profile(b, NULL, err));
    count_work(b, &profiles[0], &profiles[1]);
    if (memcmp(b->logits, b->other, b->info.vocab_size * sizeof *b->logits) == 0) return SLUICE_OK;
    return fail(err, SLUICE_E_MISMATCH,
                "%d tokens at once and one by one give different logits; no rate is printed",
                GATE_TOKENS);
}

static enum sluice_status check(struct resident *b, struct sluice_error *err)
{
    sluice_session *session;
    struct profile *profiles = calloc(2, sizeof *profiles);
    if (!profiles) return fail_nomem(err, "results");
    enum sluice_status status = open_session(b, GATE_TOKENS, &session, err);
    if (status == SLUICE_OK) {
        status = compare(b, session, profiles, err);
        sluice_session_close(&session);
    }
    free(profiles);
    return status;
}

/* Measuring */

static enum sluice_status run_phase(struct resident *b, const struct phase *p,
                                    sluice_session *session, uint64_t *ns, struct sluice_error *err)
{
    if (p->context > 1) TRY(sluice_session_fill(session, p->context - 1, p->context, err));
    /* The first token wakes the threads. */
    if (p->decode) TRY(evaluate(b, session, b->ids, 1, b->logits, err));
    if (p->profile) *p->profile = (struct profile){0};
    uint64_t began = clock_ns();
    enum sluice_status status = p->decode ? one_by_one(b, session, p->n, b->logits, err)
                                          : evaluate(b, session, b->ids, p->n, b->logits, err);
    *ns = clock_ns() - began;
    return status;
}

static enum sluice_status time_phase(struct resident *b, const struct phase *p, uint64_t *ns,
                                     struct sluice_error *err)
{
    sluice_session *session;
    TRY(open_session(b, p->context + p->n, &session, err));
    enum sluice_status status = run_phase(b, p, session, ns, err);
    sluice_session_close(&session);
    return status;
}

/* Limits: the best of the run, measured again where something seems to be faster. */

static enum sluice_status probe_memory(void *user, double *rate, struct sluice_error *err)
{
    return dram_measure(user, rate, err);
}

/* Some ops write as much as they read. */
static enum sluice_status probe_cache(void *user, double *rate, struct sluice_error *err)
{
    double copied;
    TRY(dram_measure(user, rate, err));
    TRY(dram_measure_copy(user, &copied, err));
    if (copied > *rate) *rate = copied;
    return SLUICE_OK;
}

static enum sluice_status probe_peak(void *user, double *rate, struct sluice_error *err)
{
    struct resident *b = user;
    return peak_measure(b->info.n_threads, rate, &b->peak_how, err);
}

/* What was reached a second; a better limit becomes that of the last round so far. */
static enum sluice_status settle(struct resident *b, size_t round, double bytes, double products,
                                 struct sluice_error *err)
{
    struct machine_limits limits = resident_limits(b);
    TRY(limit_settle(bytes, &limits.bytes, probe_memory, &b->dram, err));
    TRY(limit_settle(products, &limits.products, probe_peak, b, err));
    if (limits.bytes > resident_limits(b).bytes) b->dram_rates[round] = limits.bytes;
    if (limits.products > resident_limits(b).products) b->peak_rates[round] = limits.products;
    return SLUICE_OK;
}

/* Few bytes stay in a cache, so that the rate at which it gives as many is what bounds their op. */
static enum sluice_status settle_cached(const struct resident *b, struct profile_row *row,
                                        uint64_t bytes, double reached, struct sluice_error *err)
{
    if (bytes >= b->dram.bytes) return SLUICE_OK;
    struct dram_probe probe;
    TRY(dram_open(&probe, b->info.n_threads, bytes, err));
    row->own_bytes = bytes;
    row->own_rate = resident_limits(b).bytes;
    enum sluice_status status = limit_settle(reached, &row->own_rate, probe_cache, &probe, err);
    dram_close(&probe);
    return status;
}

static enum sluice_status settle_row(struct resident *b, const struct phase *p,
                                     struct profile_row *row, struct sluice_error *err)
{
    if (!row->ns) return SLUICE_OK;
    double bytes = (double)row->bytes * 1e9 / (double)row->ns;
    double products = (double)row->products * 1e9 / (double)row->ns;
    TRY(settle(b, b->rounds - 1, bytes, products, err));
    if (!limit_suspect(bytes / resident_limits(b).bytes)) return SLUICE_OK;
    uint32_t batch = p->decode ? 1 : b->batch;
    uint32_t passes = (p->n + batch - 1) / batch;
    return settle_cached(b, row, row->bytes / passes, bytes, err);
}

/* A round in which the system took the processor away between steps does not add up. */
static enum sluice_status profile_phase(struct resident *b, struct phase *p,
                                        struct sluice_error *err)
{
    TRY(set_profile(b, p->profile, err));
    for (int i = 0; i < MOST_PROFILED; i++) {
        TRY(time_phase(b, p, &p->profile_ns, err));
        if ((double)profile_sum(p->profile).ns >= LEAST_IN_STEPS * (double)p->profile_ns) break;
    }
    TRY(set_profile(b, NULL, err));
    for (size_t i = 0; i < p->profile->n; i++) TRY(settle_row(b, p, &p->profile->rows[i], err));
    profile_sort(p->profile);
    return SLUICE_OK;
}

/* Decoding stands between two looks at the memory; the best look counts. */
static enum sluice_status measure_round(struct resident *b, size_t round, struct sluice_error *err)
{
    double *best = &b->dram_rates[round], again;
    TRY(dram_measure(&b->dram, best, err));
    TRY(peak_measure(b->info.n_threads, &b->peak_rates[round], &b->peak_how, err));
    for (size_t i = 0; i < b->n_phases; i++) {
        struct phase *p = &b->phases[i];
        if (p->n == 0) continue;
        uint64_t ns;
        TRY(time_phase(b, p, &ns, err));
        p->rates[round] = p->n * 1e9 / (double)ns;
        if (p->decode) {
            TRY(dram_measure(&b->dram, &again, err));
            if (again > *best) *best = again;
        }
        TRY(settle(b, round, p->decode ? p->rates[round] * p->bytes : 0,
                   p->decode ? 0 : p->rates[round] * p->products, err));
    }
    return SLUICE_OK;
}

static enum sluice_status measure(struct resident *b, struct sluice_error *err)
{
    progress_begin(&b->app->progress, "measuring", "rounds", b->rounds);
    for (size_t i = 0; i < b->rounds; i++) {
        TRY(measure_round(b, i, err));
        progress_update(&b->app->progress, i + 1);
    }
    progress_end(&b->app->progress);
    for (size_t i = 0; i < b->n_phases; i++)
        if (b->phases[i].profile && b->phases[i].n) TRY(profile_phase(b, &b->phases[i], err));
    return SLUICE_OK;
}

static enum sluice_status write_plot(const struct resident *b, struct sluice_error *err)
{
    struct result_file file;
    struct buffer svg = {0};
    resident_plot(b, &svg);
    enum sluice_status status =
        svg.failed ? fail_nomem(err, "the plot") : result_file_open(&file, b->app->args->svg, err);
    if (status == SLUICE_OK) {
        status = result_file_append(&file, svg.data, svg.len, err);
        if (status == SLUICE_OK) status = result_file_close(&file, err);
        result_file_abort(&file);
    }
    buffer_release(&svg);
    return status;
}

static enum sluice_status run(struct resident *b, struct sluice_error *err)
{
    TRY(open_engine(b, err));
    TRY(check(b, err));
    TRY(measure(b, err));
    if (b->app->args->svg) TRY(write_plot(b, err));
    if (b->app->args->json) return app_print_json(b->app, resident_json(b), err);
    resident_print(b);
    return SLUICE_OK;
}

enum sluice_status bench_resident(struct app *app, struct sluice_error *err)
{
    struct resident b = {.app = app};
    enum sluice_status status = run(&b, err);
    sluice_engine_close(&b.engine);
    gate_close(&b.gate);
    dram_close(&b.dram);
    buffer_release(&b.path);
    for (size_t i = 0; i < b.n_phases; i++) {
        free(b.phases[i].rates);
        free(b.phases[i].profile);
    }
    free(b.phases);
    free(b.ids);
    free(b.logits);
    free(b.other);
    free(b.dram_rates);
    free(b.peak_rates);
    return status;
}
