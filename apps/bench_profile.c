#include "bench_profile.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_limits.h"

/* A profile may cost an evaluation little: names live on, so their addresses are compared. */
static struct profile_row *row_of(struct profile *p, const char *op, const char *weight)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->rows[i].op == op && p->rows[i].weight == weight) return &p->rows[i];
    if (p->n == PROFILE_ROWS) return &p->rows[p->n - 1];
    struct profile_row *row = &p->rows[p->n++];
    if (p->n == PROFILE_ROWS) op = "others", weight = "";
    row->op = op;
    row->weight = weight;
    snprintf(row->name, sizeof row->name, "%s%s%s", op, *weight ? " " : "", weight);
    return row;
}

static const char waiting[] = "waiting", no_weight[] = "";

void profile_add(void *user, const struct sluice_step *step)
{
    struct profile_row *row = row_of(user, step->op, step->weight);
    row->steps++;
    row->ns += step->ns;
    row->bytes += step->bytes;
    row->products += step->products;
    if (step->waited_ns) row_of(user, waiting, no_weight)->ns += step->waited_ns;
}

struct profile_row profile_sum(const struct profile *p)
{
    struct profile_row sum = {.name = "all steps"};
    for (size_t i = 0; i < p->n; i++) {
        sum.steps += p->rows[i].steps;
        sum.ns += p->rows[i].ns;
        sum.bytes += p->rows[i].bytes;
        sum.products += p->rows[i].products;
    }
    return sum;
}

double profile_of_limit(const struct profile_row *row, const struct machine_limits *limits)
{
    double rate = row->own_rate > limits->bytes ? row->own_rate : limits->bytes;
    double read = (double)row->bytes / rate;
    double computed = (double)row->products / limits->products;
    double least = read > computed ? read : computed;
    return row->ns ? least * 1e9 / (double)row->ns : 0;
}

static int longest_first(const void *a, const void *b)
{
    const struct profile_row *x = a, *y = b;
    return (x->ns < y->ns) - (x->ns > y->ns);
}

void profile_sort(struct profile *p)
{
    qsort(p->rows, p->n, sizeof p->rows[0], longest_first);
}

/* Amounts in billions a second: what happens in a nanosecond. */
static double per_ns(uint64_t amount, uint64_t ns)
{
    return ns ? (double)amount / (double)ns : 0;
}

static void print_row(const struct profile_row *r, uint32_t n, uint64_t total_ns,
                      const struct machine_limits *limits, struct buffer *out)
{
    buffer_printf(out, "%-30s%8" PRIu64 "%11.2f%7.1f%10.3f%8.2f%10.2f", r->name, r->steps,
                  (double)r->ns / 1e3 / n, 100 * (double)r->ns / (double)total_ns,
                  (double)r->bytes / 1e6 / n, per_ns(r->bytes, r->ns), per_ns(r->products, r->ns));
    double part = profile_of_limit(r, limits);
    buffer_printf(out, part > 0 ? "%8.1f" : "       -", 100 * part);
    if (r->own_rate > limits->bytes)
        buffer_printf(out, " of a cache for %.2f MB", (double)r->own_bytes / 1e6);
    buffer_text(out, limit_suspect(part) ? ": limit measured badly\n" : "\n");
}

void profile_print(const struct profile *p, const char *phase, uint32_t n, uint64_t total_ns,
                   const struct machine_limits *limits, struct buffer *out)
{
    struct profile_row sum = profile_sum(p);
    buffer_printf(out, "\n%-30s%8s%11s%7s%10s%8s%10s%8s\n", phase, "steps", "us", "%", "MB", "GB/s",
                  "Gprod/s", "limit %");
    for (size_t i = 0; i < p->n; i++) print_row(&p->rows[i], n, total_ns, limits, out);
    print_row(&sum, n, total_ns, limits, out);
    double outside = (double)total_ns - (double)sum.ns;
    buffer_printf(out, "%-38s%11.2f%7.1f\n", "outside of steps", outside / 1e3 / n,
                  100 * outside / (double)total_ns);
}

static json_t *row_json(const struct profile_row *r, uint32_t n,
                        const struct machine_limits *limits)
{
    double part = profile_of_limit(r, limits);
    return json_pack(
        "{s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:o, s:o, s:b}", "op", r->name, "steps",
        (json_int_t)r->steps, "us", (double)r->ns / 1e3 / n, "bytes", (double)r->bytes / n,
        "products", (double)r->products / n, "bytes_per_second", 1e9 * per_ns(r->bytes, r->ns),
        "products_per_second", 1e9 * per_ns(r->products, r->ns), "of_limit",
        part > 0 ? json_real(part) : json_null(), "limit_bytes",
        r->own_rate > limits->bytes ? json_integer((json_int_t)r->own_bytes) : json_null(),
        "suspect", limit_suspect(part));
}

json_t *profile_json(const struct profile *p, uint32_t n, uint64_t total_ns,
                     const struct machine_limits *limits)
{
    struct profile_row sum = profile_sum(p);
    json_t *rows = json_array();
    for (size_t i = 0; i < p->n; i++) json_array_append_new(rows, row_json(&p->rows[i], n, limits));
    return json_pack("{s:I, s:f, s:f, s:o, s:o}", "tokens", (json_int_t)n, "us",
                     (double)total_ns / 1e3 / n, "in_steps", (double)sum.ns / (double)total_ns,
                     "all", row_json(&sum, n, limits), "ops", rows);
}
