#include "bench_route.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "input.h"
#include "report.h"

enum { MOST_TOKENS = 1 << 20 };

static int32_t *picks_of(const struct forced_route *route, uint64_t token, uint32_t layer)
{
    size_t row = (size_t)(token % route->n_tokens) * route->n_layers + layer;
    return route->picks + row * route->k;
}

static enum sluice_status take_memory(struct forced_route *route, struct sluice_error *err)
{
    route->picks = calloc((size_t)route->n_tokens * route->n_layers * route->k, sizeof(int32_t));
    return route->picks ? SLUICE_OK : fail_nomem(err, "the routing");
}

/* Made-up routing */

/* "name:X" gives X. */
static bool number_after(const char *spec, const char *name, double *number)
{
    size_t len = strlen(name);
    if (strncmp(spec, name, len) != 0 || spec[len] != ':' || spec[len + 1] == '\0') return false;
    char *end;
    *number = strtod(spec + len + 1, &end);
    return *end == '\0' && !isnan(*number);
}

static bool is_made_up(const char *spec, struct sluice_route_options *options)
{
    return strcmp(spec, "uniform") == 0 || number_after(spec, "zipf", &options->zipf) ||
           number_after(spec, "reuse", &options->reuse);
}

static enum sluice_status draw(struct forced_route *route, const struct sluice_route_options *o,
                               struct sluice_error *err)
{
    sluice_route *generator;
    TRY(sluice_route_open(&generator, o, err));
    enum sluice_status status = take_memory(route, err);
    for (uint32_t t = 0; t < route->n_tokens && status == SLUICE_OK; t++)
        for (uint32_t l = 0; l < route->n_layers; l++)
            sluice_route_pick(generator, l, (uint32_t *)picks_of(route, t, l));
    sluice_route_close(&generator);
    return status;
}

/* Traces */

static enum sluice_status check_shape(const sluice_trace_reader *reader,
                                      const struct forced_route *route,
                                      const struct sluice_engine_info *info,
                                      struct sluice_error *err)
{
    struct sluice_trace_info trace = {.size = sizeof trace};
    sluice_trace_reader_info(reader, &trace);
    if (trace.n_layers == route->n_layers && trace.n_experts == info->n_experts &&
        trace.n_experts_used == route->k)
        return SLUICE_OK;
    return fail(err, SLUICE_E_MISMATCH,
                "%s: the trace has %" PRIu32 " layers with %" PRIu32 " experts, %" PRIu32
                " used; the model %" PRIu32 " with %" PRIu32 ", %" PRIu32 " used",
                route->spec, trace.n_layers, trace.n_experts, trace.n_experts_used, route->n_layers,
                info->n_experts, route->k);
}

/* Batches of one token say which experts that token picked; of longer ones only sums are known. */
static bool is_decode(const struct sluice_trace_step *step)
{
    return step->n_tokens == 1 && !step->prefill;
}

/* Counts the decoded tokens, or copies them when there is memory for them. */
static enum sluice_status read_steps(struct forced_route *route, const struct buffer *trace,
                                     const struct sluice_engine_info *info,
                                     struct sluice_error *err)
{
    sluice_trace_reader *reader;
    if (sluice_trace_reader_open(&reader, trace->data, trace->len, err) != SLUICE_OK)
        return fail_in(err, route->spec);
    enum sluice_status status = check_shape(reader, route, info, err);
    struct sluice_trace_step step;
    uint32_t n = 0;
    while (status == SLUICE_OK) {
        status = sluice_trace_next(reader, &step, err);
        if (status != SLUICE_OK) fail_in(err, route->spec);
        if (status != SLUICE_OK || step.n == 0 || n == MOST_TOKENS) break;
        if (!is_decode(&step)) continue;
        for (uint32_t i = 0; i < route->k && route->picks; i++)
            picks_of(route, n, step.layer)[i] = (int32_t)step.experts[i];
        n += step.layer + 1 == route->n_layers;
    }
    route->n_tokens = n;
    sluice_trace_reader_close(&reader);
    return status;
}

static enum sluice_status read_trace(struct forced_route *route,
                                     const struct sluice_engine_info *info,
                                     struct sluice_error *err)
{
    struct buffer trace = {0};
    route->is_trace = true;
    enum sluice_status status = input_read(route->spec, &trace, err);
    if (status == SLUICE_OK) status = read_steps(route, &trace, info, err);
    if (status == SLUICE_OK && route->n_tokens == 0)
        status = fail(err, SLUICE_E_ARGUMENT, "%s: the trace has no decoded tokens", route->spec);
    if (status == SLUICE_OK) status = take_memory(route, err);
    if (status == SLUICE_OK) status = read_steps(route, &trace, info, err);
    buffer_release(&trace);
    return status;
}

enum sluice_status forced_route_open(struct forced_route *route, const char *spec,
                                     const struct sluice_engine_info *info, uint32_t n_tokens,
                                     uint64_t seed, struct sluice_error *err)
{
    *route = (struct forced_route){.spec = spec,
                                   .n_tokens = n_tokens,
                                   .n_layers = info->n_expert_layers,
                                   .k = info->n_experts_used};
    if (!spec) return SLUICE_OK;
    struct sluice_route_options options;
    sluice_route_options_default(&options);
    options.n_layers = route->n_layers;
    options.n_experts = info->n_experts;
    options.n_experts_used = route->k;
    options.seed = seed;
    enum sluice_status status =
        is_made_up(spec, &options) ? draw(route, &options, err) : read_trace(route, info, err);
    if (status == SLUICE_E_NOT_FOUND && !strpbrk(spec, "./"))
        status = fail(err, SLUICE_E_ARGUMENT,
                      "--route %s: neither uniform, zipf:S or reuse:P, nor a trace", spec);
    if (status != SLUICE_OK) forced_route_close(route);
    return status;
}

void forced_route_close(struct forced_route *route)
{
    free(route->picks);
    *route = (struct forced_route){0};
}

const int32_t *forced_route_picks(const struct forced_route *route, uint64_t token, uint32_t layer)
{
    return picks_of(route, token, layer);
}
