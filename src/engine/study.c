/* Routing traces, made-up routing and the simulated cache, as the public header offers them. */
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/bits.h"
#include "base/options.h"
#include "engine/internal.h"
#include "store/cache_sim.h"
#include "store/hit_plot.h"
#include "store/route.h"
#include "store/trace.h"

/* Writing traces */

struct sluice_trace_writer {
    struct trace_writer *trace;
    uint32_t n_layers, n_experts;
    uint32_t layer;             /* the next one of the batch */
    uint32_t *tally;            /* [n_experts], zero between calls */
    uint32_t *experts, *counts; /* [n_experts] */
};

static uint64_t mix(uint64_t hash, const void *data, size_t len)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < len; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

/* FNV-1a, twice with different beginnings, over what tells one model's tensors from another's. */
void model_fingerprint(const struct checkpoint *cp, uint8_t out[HEAT_FINGERPRINT_BYTES])
{
    uint64_t hash[2] = {0xcbf29ce484222325u, 0x84222325cbf29ce4u};
    for (size_t i = 0; i < cp->n_tensors; i++) {
        const struct tensor *t = &cp->tensors[i];
        const char *dtype = dtype_name(t->dtype);
        for (int h = 0; h < 2; h++) {
            hash[h] = mix(hash[h], t->name, strlen(t->name) + 1);
            hash[h] = mix(hash[h], dtype, strlen(dtype) + 1);
            hash[h] = mix(hash[h], t->shape, t->rank * sizeof t->shape[0]);
        }
    }
    memcpy(out, hash, sizeof hash);
}

static bool allocate_tally(struct sluice_trace_writer *w)
{
    w->tally = calloc(w->n_experts, sizeof *w->tally);
    w->experts = calloc(w->n_experts, sizeof *w->experts);
    w->counts = calloc(w->n_experts, sizeof *w->counts);
    return w->tally && w->experts && w->counts;
}

enum sluice_status sluice_trace_writer_open(sluice_trace_writer **writer,
                                            const sluice_engine *engine, sluice_write_fn *write,
                                            void *user, struct sluice_error *err)
{
    *writer = NULL;
    const struct model *m = &engine->model;
    if (m->n_banks == 0)
        return err_set(err, SLUICE_E_UNSUPPORTED, "%s: the model has no routed experts",
                       engine->path);
    struct sluice_trace_writer *w = calloc(1, sizeof *w);
    if (!w) return err_nomem(err, "trace", sizeof *w);
    w->n_layers = m->n_banks;
    w->n_experts = m->n_experts;
    struct trace_header header = {
        .n_layers = m->n_banks, .n_experts = m->n_experts, .k = m->n_picks};
    model_fingerprint(&engine->checkpoint, header.fingerprint);
    enum sluice_status status = allocate_tally(w)
                                    ? trace_writer_open(&w->trace, &header, write, user, err)
                                    : err_nomem(err, "trace", 3 * w->n_experts * sizeof *w->tally);
    if (status != SLUICE_OK) sluice_trace_writer_close(&w);
    *writer = w;
    return status;
}

void sluice_trace_writer_close(sluice_trace_writer **writer)
{
    struct sluice_trace_writer *w = *writer;
    if (!w) return;
    *writer = NULL;
    trace_writer_close(&w->trace);
    free(w->tally);
    free(w->experts);
    free(w->counts);
    free(w);
}

/* Ascending distinct experts with their counts; their number. The tally is zero again. */
static uint32_t list_tally(struct sluice_trace_writer *w)
{
    uint32_t n = 0;
    for (uint32_t e = 0; e < w->n_experts; e++) {
        if (w->tally[e] == 0) continue;
        w->experts[n] = e;
        w->counts[n++] = w->tally[e];
        w->tally[e] = 0;
    }
    return n;
}

enum sluice_status sluice_trace_append(sluice_trace_writer *w, uint32_t n_tokens, bool prefill,
                                       uint32_t k, const int32_t *ids, struct sluice_error *err)
{
    size_t n_ids = (size_t)n_tokens * k;
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= w->n_experts)
            return err_set(err, SLUICE_E_ARGUMENT, "trace: expert %d of layer %u, not 0 to %u",
                           ids[i], w->layer, w->n_experts - 1);
    if (w->layer == 0) TRY(trace_begin(w->trace, n_tokens, prefill, err));
    for (size_t i = 0; i < n_ids; i++) w->tally[ids[i]]++;
    TRY(trace_layer(w->trace, w->experts, w->counts, list_tally(w), err));
    w->layer = (w->layer + 1) % w->n_layers;
    return SLUICE_OK;
}

enum sluice_status sluice_trace_flush(sluice_trace_writer *writer, struct sluice_error *err)
{
    return trace_flush(writer->trace, err);
}

/* Reading traces */

struct sluice_trace_reader {
    struct arena arena;
    struct trace_reader trace;
};

enum sluice_status sluice_trace_reader_open(sluice_trace_reader **reader, const void *bytes,
                                            size_t len, struct sluice_error *err)
{
    *reader = NULL;
    struct sluice_trace_reader *r = calloc(1, sizeof *r);
    if (!r) return err_nomem(err, "trace", sizeof *r);
    enum sluice_status status = trace_open(&r->trace, (struct span){bytes, len}, &r->arena, err);
    if (status != SLUICE_OK) sluice_trace_reader_close(&r);
    *reader = r;
    return status;
}

void sluice_trace_reader_info(const sluice_trace_reader *reader, struct sluice_trace_info *info)
{
    const struct trace_header *h = &reader->trace.header;
    struct sluice_trace_info full = {.size = info->size,
                                     .n_layers = h->n_layers,
                                     .n_experts = h->n_experts,
                                     .n_experts_used = h->k};
    memcpy(full.fingerprint, h->fingerprint, sizeof full.fingerprint);
    memcpy(info, &full, min_size(info->size, sizeof full));
}

enum sluice_status sluice_trace_next(sluice_trace_reader *reader, struct sluice_trace_step *step,
                                     struct sluice_error *err)
{
    const struct trace_step *next;
    *step = (struct sluice_trace_step){0};
    TRY(trace_next(&reader->trace, &next, err));
    if (!next) return SLUICE_OK;
    *step = (struct sluice_trace_step){.batch = next->batch,
                                       .layer = next->layer,
                                       .n_tokens = next->n_tokens,
                                       .prefill = next->prefill,
                                       .n = next->n,
                                       .experts = next->experts,
                                       .counts = next->counts};
    return SLUICE_OK;
}

void sluice_trace_reader_close(sluice_trace_reader **reader)
{
    if (!*reader) return;
    arena_release(&(*reader)->arena);
    free(*reader);
    *reader = NULL;
}

/* Made-up routing */

struct sluice_route {
    struct route *route;
};

void sluice_route_options_default(struct sluice_route_options *options)
{
    *options = (struct sluice_route_options){.size = sizeof *options, .reuse = -1};
}

enum sluice_status sluice_route_open(sluice_route **route,
                                     const struct sluice_route_options *options,
                                     struct sluice_error *err)
{
    *route = NULL;
    struct sluice_route_options o;
    sluice_route_options_default(&o);
    TRY(options_take(&o, sizeof o, options, "route", err));
    struct sluice_route *r = calloc(1, sizeof *r);
    if (!r) return err_nomem(err, "route", sizeof *r);
    struct route_options inner = {.n_layers = o.n_layers,
                                  .n_experts = o.n_experts,
                                  .k = o.n_experts_used,
                                  .zipf = o.zipf,
                                  .reuse = o.reuse,
                                  .drift = o.drift,
                                  .seed = o.seed};
    enum sluice_status status = route_open(&r->route, &inner, err);
    if (status != SLUICE_OK) sluice_route_close(&r);
    *route = r;
    return status;
}

void sluice_route_pick(sluice_route *route, uint32_t layer, uint32_t *experts)
{
    route_pick(route->route, layer, experts);
}

void sluice_route_close(sluice_route **route)
{
    if (!*route) return;
    route_close(&(*route)->route);
    free(*route);
    *route = NULL;
}

/* The simulated cache */

enum { TENTHS = 10 };

struct study {
    const struct sluice_cache_sim_options *options;
    struct cache_sim sim;
    uint32_t tenths[TENTHS];
    const uint32_t *capacities;
    uint32_t n;
    double *rates; /* [SIM_COUNT][n] */
};

void sluice_cache_sim_options_default(struct sluice_cache_sim_options *options)
{
    *options = (struct sluice_cache_sim_options){.size = sizeof *options};
}

static enum sluice_status take_capacities(struct study *s, struct sluice_error *err)
{
    const struct sluice_cache_sim_options *o = s->options;
    uint64_t all = (uint64_t)s->sim.n_layers * s->sim.n_experts;
    s->capacities = o->n_capacities ? o->capacities : s->tenths;
    if (o->n_capacities > UINT16_MAX)
        return err_set(err, SLUICE_E_ARGUMENT, "%zu capacities, over %d", o->n_capacities,
                       UINT16_MAX);
    s->n = o->n_capacities ? (uint32_t)o->n_capacities : TENTHS;
    for (uint32_t i = 0; i < TENTHS; i++)
        s->tenths[i] = (uint32_t)((all * (i + 1) + TENTHS - 1) / TENTHS);
    for (uint32_t i = 1; i < s->n; i++)
        if (s->capacities[i] < s->capacities[i - 1])
            return err_set(err, SLUICE_E_ARGUMENT, "capacities must ascend: %u comes behind %u",
                           s->capacities[i], s->capacities[i - 1]);
    s->rates = calloc((size_t)s->n * SIM_COUNT, sizeof *s->rates);
    return s->rates ? SLUICE_OK : err_nomem(err, "hit rates", (size_t)s->n * SIM_COUNT);
}

static enum sluice_status simulate(struct study *s, uint32_t at, unsigned kind,
                                   struct sluice_error *err)
{
    struct sim_options options = {.capacity = s->capacities[at], .entry_bytes = 1};
    struct sim_result result;
    TRY(cache_sim_run(&s->sim, kind, &options, &result, err));
    double rate = s->rates[(size_t)kind * s->n + at] = sim_hit_rate(&result);
    struct sluice_cache_sim_row row = {.policy = cache_sim_name(kind),
                                       .capacity = options.capacity,
                                       .decode_hits = result.hits[0],
                                       .decode_misses = result.misses[0],
                                       .prefill_hits = result.hits[1],
                                       .prefill_misses = result.misses[1],
                                       .hit_rate = rate,
                                       .switches = result.switches};
    if (s->options->row) s->options->row(s->options->row_user, &row);
    return SLUICE_OK;
}

static enum sluice_status draw(const struct study *s, struct sluice_error *err)
{
    struct plot_line lines[SIM_COUNT];
    for (unsigned kind = 0; kind < SIM_COUNT; kind++)
        lines[kind] = (struct plot_line){.name = cache_sim_name(kind),
                                         .rates = s->rates + (size_t)kind * s->n,
                                         .dashed = kind == SIM_OPTIMUM};
    struct hit_plot plot = {.title = s->options->title ? s->options->title : "expert cache",
                            .x_label = "slots",
                            .capacities = s->capacities,
                            .n_points = s->n,
                            .lines = lines,
                            .n_lines = SIM_COUNT};
    return hit_plot_write(&plot, s->options->svg, s->options->svg_user, err);
}

static enum sluice_status run_study(struct study *s, struct sluice_error *err)
{
    TRY(take_capacities(s, err));
    for (uint32_t i = 0; i < s->n; i++)
        for (unsigned kind = 0; kind < SIM_COUNT; kind++) TRY(simulate(s, i, kind, err));
    return s->options->svg ? draw(s, err) : SLUICE_OK;
}

enum sluice_status sluice_cache_sim(const void *trace, size_t len,
                                    const struct sluice_cache_sim_options *options,
                                    struct sluice_error *err)
{
    struct sluice_cache_sim_options o;
    sluice_cache_sim_options_default(&o);
    TRY(options_take(&o, sizeof o, options, "cache_sim", err));
    struct study s = {.options = &o};
    TRY(cache_sim_load(&s.sim, (struct span){trace, len}, err));
    enum sluice_status status = run_study(&s, err);
    free(s.rates);
    cache_sim_release(&s.sim);
    return status;
}
