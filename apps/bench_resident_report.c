/* The results of `sluice bench` with the model in memory, as a table and as JSON. */
#include <string.h>

#include "bench_limits.h"
#include "bench_resident.h"

/* The spread of values, which stay in their order. */
static struct spread spread_copy(const double *values, size_t n, double factor)
{
    double sorted[MOST_ROUNDS];
    for (size_t i = 0; i < n; i++) sorted[i] = values[i] * factor;
    return spread_of(sorted, n);
}

struct machine_limits resident_limits(const struct resident *b)
{
    return (struct machine_limits){spread_copy(b->dram_rates, b->rounds, 1).high,
                                   spread_copy(b->peak_rates, b->rounds, 1).high};
}

/* Of the memory's rate when decoding, of the integer peak else. */
static struct spread of_limit(const struct resident *b, const struct phase *p, double factor)
{
    struct machine_limits limits = resident_limits(b);
    double least = p->decode ? p->bytes / limits.bytes : p->products / limits.products;
    return spread_copy(p->rates, b->rounds, factor * least);
}

/* Seconds of a token, the median. */
static double time_of(const struct resident *b, const struct phase *p)
{
    return 1 / spread_copy(p->rates, b->rounds, 1).median;
}

/* The line of least squares through the time of a token over the positions behind it. */
bool resident_growth(const struct resident *b, struct growth *growth)
{
    const struct phase *at = b->phases + (b->n_phases - b->n_contexts);
    double n = (double)b->n_contexts, x = 0, y = 0, xx = 0, xy = 0;
    if (b->n_contexts < 3) return false;
    for (size_t i = 0; i < b->n_contexts; i++) {
        double position = at[i].context + at[i].n / 2.0, time = time_of(b, &at[i]);
        x += position / n;
        y += time / n;
        xx += position * position / n;
        xy += position * time / n;
    }
    if (xx - x * x <= 0) return false;
    double slope = (xy - x * y) / (xx - x * x);
    *growth =
        (struct growth){slope * resident_limits(b).bytes / (double)b->info.kv_bytes_per_token, 0};
    for (size_t i = 0; i < b->n_contexts; i++) {
        double line = y + slope * (at[i].context + at[i].n / 2.0 - x);
        double away = time_of(b, &at[i]) - line;
        if (away < 0) away = -away;
        if (away / line > growth->deviation) growth->deviation = away / line;
    }
    return true;
}

/* As text */

static void print_line(struct buffer *out, const char *label, struct spread s, const char *unit)
{
    buffer_printf(out, "%-18s%10.2f %s, %.2f to %.2f", label, s.median, unit, s.low, s.high);
}

static void print_phase(const struct resident *b, const struct phase *p, struct buffer *out)
{
    print_line(out, p->name, spread_copy(p->rates, b->rounds, 1), "tokens/s");
    struct spread f = of_limit(b, p, 100);
    buffer_printf(out, "; %.1f %% of %s, %.1f to %.1f%s\n", f.median,
                  p->decode ? "memory" : "the int8 peak", f.low, f.high,
                  limit_suspect(f.high / 100) ? ": limit measured badly" : "");
}

void resident_print(struct resident *b)
{
    struct buffer text = {0};
    struct machine_limits limits = resident_limits(b);
    buffer_printf(&text, "%s, %u threads, medians of %zu and their spread; limits are the best\n",
                  b->path.data, b->info.n_threads, b->rounds);
    print_line(&text, "memory", spread_copy(b->dram_rates, b->rounds, 1e-9), "GB/s");
    buffer_printf(&text, ", reading %.0f MB%s\n", (double)b->dram.bytes / 1e6,
                  b->dram.cached ? ", which caches may hold: no limit of DRAM" : "");
    print_line(&text, "int8 peak", spread_copy(b->peak_rates, b->rounds, 1e-9), "Gprod/s");
    buffer_printf(&text, ", %s\n", b->peak_how);
    buffer_printf(&text, "%-18s%7zu of %d tokens as in exact precision, divergence %.1e nats\n",
                  "gate", b->gate.n_agreed, GATE_STEPS, b->gate.kl);
    buffer_printf(&text, "%-18s%10.1f MB, %.3f Gprod\n", "a token", b->phases[0].bytes / 1e6,
                  b->phases[0].products / 1e9);
    for (size_t i = 0; i < b->n_phases; i++)
        if (b->phases[i].n) print_phase(b, &b->phases[i], &text);
    struct growth growth;
    if (resident_growth(b, &growth))
        buffer_printf(&text,
                      "a longer context takes %.2f times what reading its keys and values would, "
                      "within %.1f %% of a line\n",
                      growth.of_limit, 100 * growth.deviation);
    for (size_t i = 0; i < b->n_phases; i++) {
        const struct phase *p = &b->phases[i];
        if (p->n && p->profile)
            profile_print(p->profile, p->name, p->n, p->profile_ns, &limits, &text);
    }
    output_buffer(&b->app->out, &text);
    buffer_release(&text);
}

/* As JSON */

static json_t *spread_json(struct spread s)
{
    return json_pack("{s:f, s:f, s:f}", "median", s.median, "low", s.low, "high", s.high);
}

static json_t *rates_json(const double *values, size_t n)
{
    return spread_json(spread_copy(values, n, 1));
}

static json_t *phase_json(const struct resident *b, const struct phase *p)
{
    struct machine_limits limits = resident_limits(b);
    struct spread part = of_limit(b, p, 1);
    json_t *root =
        json_pack("{s:I, s:o, s:f, s:f, s:o, s:b}", "tokens", (json_int_t)p->n, "tokens_per_second",
                  rates_json(p->rates, b->rounds), "bytes_per_token", p->bytes,
                  "products_per_token", p->products, p->decode ? "of_dram" : "of_int8_peak",
                  spread_json(part), "suspect", limit_suspect(part.high));
    if (p->profile)
        json_object_set_new(root, "profile",
                            profile_json(p->profile, p->n, p->profile_ns, &limits));
    return root;
}

static json_t *contexts_json(const struct resident *b)
{
    json_t *list = json_array();
    for (size_t i = b->n_phases - b->n_contexts; i < b->n_phases; i++) {
        json_t *one = phase_json(b, &b->phases[i]);
        json_object_set_new(one, "context", json_integer(b->phases[i].context));
        json_array_append_new(list, one);
    }
    return list;
}

static json_t *growth_json(const struct resident *b)
{
    struct growth growth;
    if (!resident_growth(b, &growth)) return json_null();
    return json_pack("{s:f, s:f}", "of_limit", growth.of_limit, "deviation", growth.deviation);
}

json_t *resident_json(struct resident *b)
{
    json_t *prefill = json_array();
    for (size_t i = 1; i <= b->n_prefills; i++)
        if (b->phases[i].n) json_array_append_new(prefill, phase_json(b, &b->phases[i]));
    json_t *gate =
        json_pack("{s:i, s:i, s:I, s:f}", "batch_tokens", GATE_TOKENS, "exact_tokens", GATE_STEPS,
                  "exact_agreed", (json_int_t)b->gate.n_agreed, "exact_kl", b->gate.kl);
    json_t *peak = json_pack("{s:s, s:o}", "how", b->peak_how, "products_per_second",
                             rates_json(b->peak_rates, b->rounds));
    return json_pack("{s:o, s:I, s:I, s:o, s:I, s:b, s:o, s:o, s:o, s:o, s:o, s:o}", "model",
                     app_json_text(b->path.data, b->path.len), "threads",
                     (json_int_t)b->info.n_threads, "rounds", (json_int_t)b->rounds, "dram_rate",
                     rates_json(b->dram_rates, b->rounds), "dram_bytes", (json_int_t)b->dram.bytes,
                     "dram_cached", b->dram.cached, "int8_peak", peak, "gate", gate, "decode",
                     phase_json(b, &b->phases[0]), "prefill", prefill, "contexts", contexts_json(b),
                     "context_growth", growth_json(b));
}
