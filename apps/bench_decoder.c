#include "bench_decoder.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_stats.h"
#include "clock.h"
#include "distribution.h"
#include "interrupt.h"
#include "report.h"

enum { FIRST_ID = 1, LANES = 4 };

/* The golden gate */

void golden_release(struct golden *golden)
{
    free(golden->ids);
    free(golden->sums);
    *golden = (struct golden){0};
}

static bool grow(struct golden *g)
{
    size_t cap = g->cap ? 2 * g->cap : 256;
    int32_t *ids = realloc(g->ids, cap * sizeof *ids);
    if (ids) g->ids = ids;
    uint64_t *sums = realloc(g->sums, cap * sizeof *sums);
    if (sums) g->sums = sums;
    if (!ids || !sums) return false;
    g->cap = cap;
    return true;
}

/* FNV-1a over words, in lanes so that a quarter of a million logits take no time to speak of. */
static uint64_t sum_logits(const float *logits, size_t n)
{
    uint64_t lanes[LANES] = {1, 2, 3, 4};
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &logits[i], sizeof bits);
        lanes[i % LANES] = (lanes[i % LANES] ^ bits) * 0x100000001b3u;
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < LANES; i++) sum = (sum ^ lanes[i]) * 0x100000001b3u;
    return sum;
}

static enum sluice_status check_token(const struct decoder *d, int32_t id, struct sluice_error *err)
{
    struct golden *g = d->plan->golden;
    if (!isfinite(d->logits[id]))
        return fail(err, SLUICE_E_MISMATCH, "token %zu of %s: its logits are not finite", d->n_made,
                    d->plan->name);
    if (!g) return SLUICE_OK;
    uint64_t sum = sum_logits(d->logits, d->info.vocab_size);
    if (d->n_made < g->n) {
        if (g->ids[d->n_made] != id)
            return fail(err, SLUICE_E_MISMATCH,
                        "token %zu of %s is %" PRId32 ", but %" PRId32
                        " in a run with another cache; no rate is printed",
                        d->n_made, d->plan->name, id, g->ids[d->n_made]);
        if (g->sums[d->n_made] != sum)
            return fail(err, SLUICE_E_MISMATCH,
                        "token %zu of %s has other logits than in a run with another cache; no "
                        "rate is printed",
                        d->n_made, d->plan->name);
        if (g->n_agreed <= d->n_made) g->n_agreed = d->n_made + 1;
        return SLUICE_OK;
    }
    if (g->n == g->cap && !grow(g)) return fail_nomem(err, "the tokens to compare with");
    g->ids[g->n] = id;
    g->sums[g->n++] = sum;
    return SLUICE_OK;
}

/* Decoding */

static void pick(void *user, uint32_t layer, uint64_t token, uint32_t k, int32_t *ids)
{
    const struct decoder *d = user;
    memcpy(ids, forced_route_picks(d->plan->route, token, layer), k * sizeof *ids);
}

static void record(void *user, uint32_t layer, uint32_t n_tokens, uint32_t k, const int32_t *ids)
{
    struct decoder *d = user;
    (void)layer; /* layers come in ascending order */
    if (d->written == SLUICE_OK)
        d->written = sluice_trace_append(d->writer, n_tokens, false, k, ids, NULL);
}

static enum sluice_status add_to_buffer(void *user, const void *data, size_t len,
                                        struct sluice_error *err)
{
    struct buffer *b = user;
    buffer_add(b, data, len);
    return b->failed ? fail_nomem(err, "the trace") : SLUICE_OK;
}

enum sluice_status decoder_end_trace(struct decoder *d, struct sluice_error *err)
{
    if (d->written != SLUICE_OK) return fail(err, d->written, "the routing was not recorded");
    return sluice_trace_flush(d->writer, err);
}

static enum sluice_status open_parts(struct decoder *d, const struct sluice_engine_options *options,
                                     struct sluice_error *err)
{
    TRY(sluice_engine_open(&d->engine, d->plan->path, options, err));
    d->info.size = sizeof d->info;
    sluice_engine_get_info(d->engine, &d->info);
    struct sluice_session_options session;
    sluice_session_options_default(&session);
    session.n_ctx = d->plan->n_tokens;
    TRY(sluice_session_open(&d->session, d->engine, &session, err));
    if (d->plan->trace)
        TRY(sluice_trace_writer_open(&d->writer, d->engine, add_to_buffer, d->plan->trace, err));
    d->logits = malloc(d->info.vocab_size * sizeof *d->logits);
    return d->logits ? SLUICE_OK : fail_nomem(err, "logits");
}

enum sluice_status decoder_open(struct decoder *d, struct app *app, const struct decode_plan *plan,
                                struct sluice_engine_options *options, struct sluice_error *err)
{
    *d = (struct decoder){.app = app, .plan = plan, .next = FIRST_ID};
    options->plan_ctx = plan->n_tokens;
    options->max_batch_tokens = 1;
    options->route = plan->route && plan->route->picks ? pick : NULL;
    options->routed = plan->trace ? record : NULL;
    options->route_user = d;
    enum sluice_status status = open_parts(d, options, err);
    if (status != SLUICE_OK) decoder_close(d);
    return status;
}

void decoder_close(struct decoder *d)
{
    sluice_trace_writer_close(&d->writer);
    sluice_session_close(&d->session);
    sluice_engine_close(&d->engine);
    free(d->logits);
    free(d->token_ms);
    d->logits = NULL;
    d->token_ms = NULL;
    d->cap_ms = 0;
}

static enum sluice_status step(struct decoder *d, double *ms, struct sluice_error *err)
{
    struct sluice_segment one = {.session = d->session, .ids = &d->next, .n_ids = 1, .n_logits = 1};
    uint64_t began = clock_ns();
    TRY(app_eval(d->app, d->engine, &one, NULL, d->logits, err));
    *ms = (double)(clock_ns() - began) / 1e6;
    int32_t id = (int32_t)index_of_largest(d->logits, d->info.vocab_size);
    TRY(check_token(d, id, err));
    d->next = id;
    d->n_made++;
    return SLUICE_OK;
}

static void fill_window(struct decoder *d, size_t n, const struct sluice_stats *before,
                        struct window *window)
{
    struct sluice_stats after = {.size = sizeof after};
    sluice_engine_get_stats(d->engine, &after);
    double tokens = (double)n;
    double ms = 0;
    for (size_t i = 0; i < n; i++) ms += d->token_ms[i];
    *window = (struct window){
        .n = n,
        .ms = ms / tokens,
        .median_ms = spread_of(d->token_ms, n).median,
        .hits = (double)(after.expert_hits - before->expert_hits) / tokens,
        .misses = (double)(after.expert_misses - before->expert_misses) / tokens,
        .bytes = (double)(after.bytes_read - before->bytes_read) / tokens,
        .wait_ms = (double)(after.wait_ns - before->wait_ns) / 1e6 / tokens,
    };
}

enum sluice_status decoder_run(struct decoder *d, size_t n, struct window *window,
                               struct sluice_error *err)
{
    if (n > d->cap_ms) {
        double *grown = realloc(d->token_ms, n * sizeof *grown);
        if (!grown) return fail_nomem(err, "the times of tokens");
        d->token_ms = grown;
        d->cap_ms = n;
    }
    struct sluice_stats before = {.size = sizeof before};
    sluice_engine_get_stats(d->engine, &before);
    d->app->progress_base = 0; /* app_eval moves the line as well */
    progress_begin(&d->app->progress, d->plan->name, "tokens", n);
    enum sluice_status status = SLUICE_OK;
    for (size_t i = 0; i < n && status == SLUICE_OK; i++) {
        if (interrupt_signal())
            status = fail(err, SLUICE_E_CANCELLED, "interrupted");
        else
            status = step(d, &d->token_ms[i], err);
        progress_update(&d->app->progress, i + 1);
    }
    progress_end(&d->app->progress);
    if (status == SLUICE_OK && window) fill_window(d, n, &before, window);
    return status;
}
