/*
 * sluice bench: prefill and decoding with all experts in memory, beside the rate at which this
 * machine reads memory. No rate is given unless batches and single tokens give the same logits.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_dram.h"
#include "bench_stats.h"
#include "bench_stream.h"
#include "clock.h"
#include "interrupt.h"
#include "report.h"

enum { DEFAULT_TOKENS = 32, GATE_TOKENS = 48, N_PREFILLS = 2, ID_STEP = 7919 };

struct resident {
    struct app *app;
    struct buffer path;
    sluice_engine *engine;
    struct sluice_engine_info info;
    struct dram_probe dram;
    size_t rounds;
    uint32_t n_decode;
    int32_t *ids; /* [most tokens of a prefill] */
    float *logits, *other;
    uint32_t prefill[N_PREFILLS]; /* lengths; 0: more than the context holds */
    double *prefill_rates[N_PREFILLS], *decode_rates, *fractions, *dram_rates; /* [rounds] */
    double decode_bytes; /* that a token reads */
};

static bool take_memory(struct resident *b, size_t n_ids)
{
    b->rounds = (size_t)b->app->args->pairs;
    b->ids = calloc(n_ids, sizeof *b->ids);
    b->logits = malloc(b->info.vocab_size * sizeof *b->logits);
    b->other = malloc(b->info.vocab_size * sizeof *b->other);
    for (size_t i = 0; i < N_PREFILLS; i++)
        b->prefill_rates[i] = calloc(b->rounds, sizeof *b->prefill_rates[i]);
    b->decode_rates = calloc(b->rounds, sizeof *b->decode_rates);
    b->fractions = calloc(b->rounds, sizeof *b->fractions);
    b->dram_rates = calloc(b->rounds, sizeof *b->dram_rates);
    return b->ids && b->logits && b->other && b->prefill_rates[0] && b->prefill_rates[1] &&
           b->decode_rates && b->fractions && b->dram_rates;
}

static enum sluice_status open_engine(struct resident *b, struct sluice_error *err)
{
    const struct args *args = b->app->args;
    struct sluice_engine_options options;
    app_engine_options(b->app, &options);
    options.preload = options.io != SLUICE_IO_MMAP;
    TRY(app_model_path(b->app, &b->path, err));
    TRY(sluice_engine_open(&b->engine, b->path.data, &options, err));
    b->info.size = sizeof b->info;
    sluice_engine_get_info(b->engine, &b->info);
    uint32_t all = stream_all_experts(&b->info);
    if (!b->info.mapped && b->info.n_slots < all)
        return fail(err, SLUICE_E_BUDGET,
                    "there is memory for %" PRIu32 " of %" PRIu32
                    " experts only; --stream measures that",
                    b->info.n_slots, all);
    static const uint32_t lengths[N_PREFILLS] = {512, 2048};
    uint32_t most = b->info.trained_context, n_ids = GATE_TOKENS;
    for (size_t i = 0; i < N_PREFILLS; i++) {
        if (lengths[i] > most) continue;
        b->prefill[i] = n_ids = lengths[i];
    }
    b->n_decode = ARG_GIVEN(args, n_tokens) ? (uint32_t)args->n_tokens : DEFAULT_TOKENS;
    if (b->n_decode == 0 || args->n_tokens > most / 2)
        return fail(err, SLUICE_E_ARGUMENT, "-n %" PRIu64 ", not 1 to %" PRIu32, args->n_tokens,
                    most / 2);
    if (!take_memory(b, n_ids)) return fail_nomem(err, "results");
    for (uint32_t i = 0; i < n_ids; i++)
        b->ids[i] = (int32_t)(i * (uint64_t)ID_STEP % b->info.vocab_size);
    return dram_open(&b->dram, b->info.n_threads, err);
}

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

/* The golden gate: what a batch computes and what single tokens compute is the same, bit for bit.
 */
static enum sluice_status check(struct resident *b, struct sluice_error *err)
{
    sluice_session *session;
    TRY(open_session(b, GATE_TOKENS, &session, err));
    enum sluice_status status = evaluate(b, session, b->ids, GATE_TOKENS, b->logits, err);
    sluice_session_reset(session);
    for (size_t i = 0; i < GATE_TOKENS && status == SLUICE_OK; i++)
        status = evaluate(b, session, b->ids + i, 1, b->other, err);
    sluice_session_close(&session);
    if (status != SLUICE_OK) return status;
    if (memcmp(b->logits, b->other, b->info.vocab_size * sizeof *b->logits) == 0) return SLUICE_OK;
    return fail(err, SLUICE_E_MISMATCH,
                "%d tokens at once and one by one give different logits; no rate is printed",
                GATE_TOKENS);
}

static enum sluice_status time_prefill(struct resident *b, uint32_t n, double *rate,
                                       struct sluice_error *err)
{
    sluice_session *session;
    TRY(open_session(b, n, &session, err));
    uint64_t began = clock_ns();
    enum sluice_status status = evaluate(b, session, b->ids, n, b->logits, err);
    *rate = n * 1e9 / (double)(clock_ns() - began);
    sluice_session_close(&session);
    return status;
}

static enum sluice_status time_decode(struct resident *b, double *rate, struct sluice_error *err)
{
    sluice_session *session;
    TRY(open_session(b, 1 + b->n_decode, &session, err));
    enum sluice_status status = evaluate(b, session, b->ids, 1, b->logits, err);
    uint64_t began = clock_ns();
    for (uint32_t i = 0; i < b->n_decode && status == SLUICE_OK; i++)
        status = evaluate(b, session, b->ids + i % GATE_TOKENS, 1, b->logits, err);
    *rate = b->n_decode * 1e9 / (double)(clock_ns() - began);
    sluice_session_close(&session);
    return status;
}

/*
 * Weights, half of the KV cache that the last token sees, recurrent state read and written. Small
 * weights that are kept as floats count as well.
 */
static double bytes_of_token(const struct resident *b)
{
    const struct sluice_engine_info *info = &b->info;
    double experts = (double)info->expert_bytes / info->n_experts * info->n_experts_used;
    return (double)(info->token_dense_bytes + info->converted_bytes) + experts +
           (double)info->kv_bytes_per_token * (1 + b->n_decode) / 2 +
           2 * (double)info->recurrent_bytes;
}

static enum sluice_status measure(struct resident *b, struct sluice_error *err)
{
    b->decode_bytes = bytes_of_token(b);
    for (size_t i = 0; i < b->rounds; i++) {
        progress_begin(&b->app->progress, "measuring", "rounds", b->rounds);
        double before, after;
        TRY(dram_measure(&b->dram, &before, err));
        TRY(time_decode(b, &b->decode_rates[i], err));
        TRY(dram_measure(&b->dram, &after, err));
        b->dram_rates[i] = before > after ? before : after;
        b->fractions[i] = b->decode_rates[i] * b->decode_bytes / b->dram_rates[i];
        for (size_t p = 0; p < N_PREFILLS; p++)
            if (b->prefill[p]) TRY(time_prefill(b, b->prefill[p], &b->prefill_rates[p][i], err));
        progress_end(&b->app->progress);
    }
    return SLUICE_OK;
}

/* Results */

static void print_line(struct buffer *out, const char *label, struct spread s, const char *unit)
{
    buffer_printf(out, "%-16s%10.2f %s, %.2f to %.2f\n", label, s.median, unit, s.low, s.high);
}

static void scale(double *values, size_t n, double factor)
{
    for (size_t i = 0; i < n; i++) values[i] *= factor;
}

static void print_text(struct resident *b)
{
    struct buffer text = {0};
    scale(b->dram_rates, b->rounds, 1e-9);
    scale(b->fractions, b->rounds, 100);
    buffer_printf(&text, "%s, %u threads, medians of %zu and their spread\n", b->path.data,
                  b->info.n_threads, b->rounds);
    print_line(&text, "DRAM", spread_of(b->dram_rates, b->rounds), "GB/s");
    print_line(&text, "decode", spread_of(b->decode_rates, b->rounds), "tokens/s");
    print_line(&text, "of DRAM", spread_of(b->fractions, b->rounds), "%");
    buffer_printf(&text, "%-16s%10.1f MB\n", "bytes a token", b->decode_bytes / 1e6);
    for (size_t p = 0; p < N_PREFILLS; p++) {
        char label[32];
        snprintf(label, sizeof label, "prefill %u", b->prefill[p]);
        if (b->prefill[p])
            print_line(&text, label, spread_of(b->prefill_rates[p], b->rounds), "tokens/s");
    }
    output_buffer(&b->app->out, &text);
    buffer_release(&text);
}

static json_t *spread_json(double *values, size_t n)
{
    struct spread s = spread_of(values, n);
    return json_pack("{s:f, s:f, s:f}", "median", s.median, "low", s.low, "high", s.high);
}

static json_t *report_json(struct resident *b)
{
    json_t *prefill = json_array();
    for (size_t p = 0; p < N_PREFILLS; p++) {
        if (!b->prefill[p]) continue;
        json_array_append_new(prefill, json_pack("{s:I, s:o}", "tokens", (json_int_t)b->prefill[p],
                                                 "tokens_per_second",
                                                 spread_json(b->prefill_rates[p], b->rounds)));
    }
    json_t *decode =
        json_pack("{s:I, s:o, s:f, s:o}", "tokens", (json_int_t)b->n_decode, "tokens_per_second",
                  spread_json(b->decode_rates, b->rounds), "bytes_per_token", b->decode_bytes,
                  "of_dram", spread_json(b->fractions, b->rounds));
    json_t *gate = json_pack("{s:s, s:i}", "reference", "the same tokens one by one",
                             "tokens_agreed", GATE_TOKENS);
    return json_pack(
        "{s:o, s:I, s:I, s:o, s:o, s:o, s:o}", "model", app_json_text(b->path.data, b->path.len),
        "threads", (json_int_t)b->info.n_threads, "rounds", (json_int_t)b->rounds, "dram_rate",
        spread_json(b->dram_rates, b->rounds), "gate", gate, "decode", decode, "prefill", prefill);
}

static enum sluice_status run(struct resident *b, struct sluice_error *err)
{
    TRY(open_engine(b, err));
    TRY(check(b, err));
    TRY(measure(b, err));
    if (b->app->args->json) return app_print_json(b->app, report_json(b), err);
    print_text(b);
    return SLUICE_OK;
}

enum sluice_status bench_resident(struct app *app, struct sluice_error *err)
{
    struct resident b = {.app = app};
    enum sluice_status status = run(&b, err);
    sluice_engine_close(&b.engine);
    dram_close(&b.dram);
    buffer_release(&b.path);
    free(b.ids);
    free(b.logits);
    free(b.other);
    for (size_t i = 0; i < N_PREFILLS; i++) free(b.prefill_rates[i]);
    free(b.decode_rates);
    free(b.fractions);
    free(b.dram_rates);
    return status;
}
