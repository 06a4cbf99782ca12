/* The results of `sluice bench --stream`, as a table and as JSON. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bench_stats.h"
#include "bench_stream.h"
#include "units.h"

enum { MOST_SAMPLES = 1024 };

/* What is derived from a window and its limits; fractions are 0 when there is nothing to read. */
struct figures {
    double ms, hits, misses, bytes, wait_ms;
    double limit_ms;  /* to read the missed experts at the drive's best rate of the run */
    double of_limit;  /* limit_ms / ms */
    double of_near;   /* the same against the drive's rate beside the window */
    double drive_use; /* bytes that were read, against what the drive would give in that time */
    double of_bound;  /* ms / (limit_ms + 0.9 * resident time); 0: resident is not known */
    double speedup;   /* over mapped experts; 0: not measured */
};

static struct figures derive(const struct stream_report *r, const struct window *w,
                             double near_rate, const struct window *mapped)
{
    double missed = w->misses * (double)r->info.expert_bytes / stream_all_experts(&r->info);
    struct figures f = {.ms = w->ms,
                        .hits = w->hits,
                        .misses = w->misses,
                        .bytes = w->bytes,
                        .wait_ms = w->wait_ms,
                        .limit_ms = missed * 1e3 / r->drive_rate};
    f.of_limit = f.limit_ms / w->ms;
    f.of_near = near_rate > 0 ? missed * 1e3 / near_rate / w->ms : 0;
    f.drive_use = w->bytes * 1e3 / r->drive_rate / w->ms;
    if (r->resident.n) f.of_bound = w->ms / (f.limit_ms + 0.9 * r->resident.ms);
    if (mapped && mapped->n) f.speedup = mapped->ms / w->ms;
    return f;
}

/* The median of each figure over the samples. */
static struct figures medians(const struct stream_report *r, const struct budget_result *b,
                              struct spread *ms)
{
    struct figures all[MOST_SAMPLES], out = {0};
    double values[MOST_SAMPLES];
    size_t n = b->n_samples < MOST_SAMPLES ? b->n_samples : MOST_SAMPLES;
    for (size_t i = 0; i < n; i++)
        all[i] = derive(r, &b->samples[i].window, b->samples[i].drive_rate, &b->samples[i].mapped);
    for (size_t field = 0; field < sizeof out / sizeof(double); field++) {
        for (size_t i = 0; i < n; i++)
            memcpy(&values[i], (const char *)&all[i] + field * sizeof(double), sizeof(double));
        struct spread s = spread_of(values, n);
        if (field == 0) *ms = s;
        memcpy((char *)&out + field * sizeof(double), &s.median, sizeof(double));
    }
    return out;
}

/* As text */

static void print_rates(struct buffer *out, const char *label, const double rates[DRIVE_DEPTHS])
{
    buffer_printf(out, "  %s", label);
    for (size_t i = 0; i < DRIVE_DEPTHS; i++) buffer_printf(out, " %.2f", rates[i] / 1e9);
}

static void print_head(const struct stream_report *r, struct buffer *out)
{
    const struct sluice_engine_info *info = &r->info;
    char each[UNITS_CAP], all[UNITS_CAP];
    units_bytes(info->bytes_per_expert, each);
    units_bytes(info->expert_bytes, all);
    buffer_printf(out, "model     %s, %u x %u experts, %s each, %s\n", r->path,
                  info->n_expert_layers, info->n_experts, each, all);
    if (r->route.spec)
        buffer_printf(out, "routing   forced, %s: the tokens mean nothing\n", r->route.spec);
    else
        buffer_text(out, "routing   the model's own\n");
    buffer_printf(out, "DRAM      %.1f GB/s, %u threads\n", r->dram_rate / 1e9, info->n_threads);
    buffer_printf(out, "load      %.1f\n", r->load);
    buffer_printf(out, "drive     %.2f GB/s at best; %zu KiB at random, depths 1 4 16 64,",
                  r->drive_rate / 1e9, r->drive_piece / 1024);
    print_rates(out, "before", r->drive_before);
    print_rates(out, "after", r->drive_after);
    buffer_printf(out, " (%s%s)\n", r->drive_uring ? "io_uring" : "pread",
                  r->drive_direct ? "" : ", through the page cache");
    if (r->resident.n)
        buffer_printf(out, "resident  %.2f ms a token, %.2f tokens/s\n", r->resident.ms,
                      1e3 / r->resident.ms);
    buffer_printf(out, "checked   against %s\n", r->reference);
}

/* A share in percent, or a dash where it is not known. */
static void print_share(struct buffer *out, double share)
{
    buffer_printf(out, share > 0 ? " %7.1f" : "       -", 100 * share);
}

static void print_row(const char *phase, const struct budget_result *b, double share,
                      const struct figures *f, struct buffer *out)
{
    buffer_printf(out, "%6u %4.0f%% %-5s %8.2f %8.1f %7.1f %7.1f %7.1f %8.1f", b->n_slots,
                  100 * share, phase, 1e3 / f->ms, f->ms, f->hits, f->misses, f->bytes / 1e6,
                  f->wait_ms);
    print_share(out, f->drive_use);
    print_share(out, f->of_limit);
    print_share(out, f->of_near);
    buffer_printf(out, f->of_bound > 0 ? " %7.2f" : "       -", f->of_bound);
    if (f->speedup > 0) buffer_printf(out, " %7.2f", f->speedup);
    buffer_text(out, "\n");
}

static void print_prefetch(const struct budget_result *b, struct buffer *out)
{
    const struct sluice_stats *s = &b->counted;
    if (!s->prefetch_predicted) return;
    char wasted[UNITS_CAP];
    units_bytes(s->prefetch_wasted, wasted);
    buffer_printf(out,
                  "%6u slots: %" PRIu64 " experts predicted, %.1f %% rightly; %" PRIu64
                  " read in time, %" PRIu64 " late, %s in vain\n",
                  b->n_slots, s->prefetch_predicted,
                  100 * (double)s->prefetch_right / (double)s->prefetch_predicted,
                  s->prefetch_useful, s->prefetch_late, wasted);
}

void stream_print(const struct stream_report *r, struct output *out)
{
    struct buffer text = {0};
    bool mapped = r->n_results && r->results[0].samples[0].mapped.n;
    print_head(r, &text);
    buffer_printf(&text, "\n%6s %5s %-5s %8s %8s %7s %7s %7s %8s %7s %7s %7s %7s%s\n", "slots",
                  "share", "cache", "tokens/s", "ms", "hits", "misses", "MB", "wait ms", "drive %",
                  "limit %", "near %", "bound", mapped ? "  x mmap" : "");
    for (size_t i = 0; i < r->n_results; i++) {
        const struct budget_result *b = &r->results[i];
        double share = (double)b->n_slots / stream_all_experts(&r->info);
        struct spread ms;
        struct figures cold = derive(r, &b->cold, 0, NULL), warm = medians(r, b, &ms);
        print_row("cold", b, share, &cold, &text);
        print_row(b->filled ? "warm" : "part", b, share, &warm, &text);
    }
    for (size_t i = 0; i < r->n_results; i++) {
        const struct budget_result *b = &r->results[i];
        buffer_printf(&text,
                      "%s%6u slots: %" PRIu64 " experts read in all; LRU %" PRIu64
                      ", the best possible choice %" PRIu64 "\n",
                      i ? "" : "\n", b->n_slots, b->misses, b->lru_misses, b->optimum_misses);
        print_prefetch(b, &text);
    }
    buffer_text(&text,
                "\nPer token. limit %: reading the missed experts at the drive's best rate, of the "
                "time; near %: at\nits rate beside the measurement; bound: the time over that "
                "reading and 0.9 of the resident time.\n");
    output_buffer(out, &text);
    buffer_release(&text);
}

/* As JSON */

static json_t *figures_json(const struct figures *f)
{
    json_t *root =
        json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "ms", f->ms,
                  "tokens_per_second", 1e3 / f->ms, "hits", f->hits, "misses", f->misses,
                  "bytes_read", f->bytes, "wait_ms", f->wait_ms, "limit_ms", f->limit_ms,
                  "drive_use", f->drive_use, "of_limit", f->of_limit, "of_near", f->of_near);
    json_object_set_new(root, "of_bound", f->of_bound > 0 ? json_real(f->of_bound) : json_null());
    json_object_set_new(root, "times_mmap", f->speedup > 0 ? json_real(f->speedup) : json_null());
    return root;
}

static json_t *rates_json(const double rates[DRIVE_DEPTHS])
{
    json_t *list = json_array();
    for (size_t i = 0; i < DRIVE_DEPTHS; i++) json_array_append_new(list, json_real(rates[i]));
    return list;
}

static json_t *result_json(const struct stream_report *r, const struct budget_result *b)
{
    struct spread ms;
    struct figures cold = derive(r, &b->cold, 0, NULL), warm = medians(r, b, &ms);
    json_t *samples = json_array();
    for (size_t i = 0; i < b->n_samples; i++) {
        const struct sample *s = &b->samples[i];
        struct figures f = derive(r, &s->window, s->drive_rate, &s->mapped);
        json_t *root = figures_json(&f);
        json_object_set_new(root, "drive_rate", json_real(s->drive_rate));
        json_object_set_new(root, "median_ms", json_real(s->window.median_ms));
        json_array_append_new(samples, root);
    }
    json_t *warm_root = figures_json(&warm);
    json_object_set_new(warm_root, "ms_low", json_real(ms.low));
    json_object_set_new(warm_root, "ms_high", json_real(ms.high));
    const struct sluice_stats *c = &b->counted;
    json_t *prefetch = json_pack(
        "{s:I, s:I, s:I, s:I, s:I}", "predicted", (json_int_t)c->prefetch_predicted, "right",
        (json_int_t)c->prefetch_right, "useful", (json_int_t)c->prefetch_useful, "late",
        (json_int_t)c->prefetch_late, "wasted_bytes", (json_int_t)c->prefetch_wasted);
    return json_pack("{s:I, s:I, s:f, s:I, s:s, s:b, s:I, s:b, s:I, s:I, s:I, s:o, s:o, s:o, s:o}",
                     "ram", (json_int_t)b->ram, "slots", (json_int_t)b->n_slots, "share",
                     (double)b->n_slots / stream_all_experts(&r->info), "plan_bytes",
                     (json_int_t)b->plan_bytes, "io", b->io_engine, "io_direct", b->io_direct,
                     "warmup_tokens", (json_int_t)b->n_warmup, "filled", b->filled, "misses",
                     (json_int_t)b->misses, "lru_misses", (json_int_t)b->lru_misses,
                     "optimum_misses", (json_int_t)b->optimum_misses, "cold", figures_json(&cold),
                     "warm", warm_root, "samples", samples, "prefetch", prefetch);
}

static json_t *drive_json(const struct stream_report *r)
{
    json_t *depths = json_array();
    for (size_t i = 0; i < DRIVE_DEPTHS; i++)
        json_array_append_new(depths, json_integer(drive_depths[i]));
    return json_pack("{s:f, s:I, s:b, s:s, s:o, s:o, s:o}", "rate", r->drive_rate, "piece",
                     (json_int_t)r->drive_piece, "direct", r->drive_direct, "engine",
                     r->drive_uring ? "io_uring" : "pread", "depths", depths, "before",
                     rates_json(r->drive_before), "after", rates_json(r->drive_after));
}

json_t *stream_json(const struct stream_report *r)
{
    json_t *results = json_array();
    for (size_t i = 0; i < r->n_results; i++)
        json_array_append_new(results, result_json(r, &r->results[i]));
    json_t *route =
        r->route.spec ? app_json_text(r->route.spec, strlen(r->route.spec)) : json_null();
    json_t *gate =
        json_pack("{s:s, s:I, s:I}", "reference", r->reference, "tokens_made",
                  (json_int_t)r->golden.n, "tokens_agreed", (json_int_t)r->golden.n_agreed);
    return json_pack("{s:o, s:o, s:b, s:I, s:I, s:f, s:f, s:o, s:o, s:o, s:o}", "model",
                     app_json_text(r->path, strlen(r->path)), "route", route, "forced",
                     r->route.spec != NULL, "experts", (json_int_t)stream_all_experts(&r->info),
                     "bytes_per_expert", (json_int_t)r->info.bytes_per_expert, "dram_rate",
                     r->dram_rate, "load", r->load, "drive", drive_json(r), "resident_ms",
                     r->resident.n ? json_real(r->resident.ms) : json_null(), "gate", gate,
                     "results", results);
}
