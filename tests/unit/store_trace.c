/* Routing traces: what was written is read, in about a byte per pick; damage is told or harmless.
 */
#include <stdlib.h>

#include "base/rng.h"
#include "check.h"
#include "fail_alloc.h"
#include "store/route.h"
#include "store/trace.h"

enum { HEADER = TRACE_HEADER_BYTES };

static struct sluice_error err;

struct sink {
    uint8_t *data;
    size_t n, cap, limit; /* writes beyond limit fail */
};

static enum sluice_status sink_write(void *user, const void *data, size_t len,
                                     struct sluice_error *e)
{
    struct sink *sink = user;
    if (len > sink->limit - sink->n) return err_set(e, SLUICE_E_IO, "the disk is full");
    while (sink->cap - sink->n < len) {
        sink->cap = sink->cap * 2 + 4096;
        sink->data = realloc(sink->data, sink->cap);
        if (!sink->data) return err_nomem(e, "sink", sink->cap);
    }
    memcpy(sink->data + sink->n, data, len);
    sink->n += len;
    return SLUICE_OK;
}

static const struct trace_header small = {
    .fingerprint = "0123456789abcde", .n_layers = 3, .n_experts = 8, .k = 2};

/* n_batches of made-up routing; batch sizes are taken in turn from sizes. */
static struct sink write_trace(const struct trace_header *h, uint32_t n_batches,
                               const uint32_t *sizes, uint32_t n_sizes, uint64_t *picks)
{
    struct sink sink = {.limit = SIZE_MAX};
    struct trace_writer *w;
    struct route *route;
    const struct route_options options = {
        .n_layers = h->n_layers, .n_experts = h->n_experts, .k = h->k, .reuse = -1, .seed = 5};
    uint32_t *experts = calloc(h->n_experts, 4), *counts = calloc(h->n_experts, 4);
    CHECK_OK(route_open(&route, &options, &err));
    CHECK_OK(trace_writer_open(&w, h, sink_write, &sink, &err));
    *picks = 0;
    for (uint32_t b = 0; b < n_batches; b++) {
        uint32_t n_tokens = sizes[b % n_sizes];
        CHECK_OK(trace_begin(w, n_tokens, n_tokens > 1, &err));
        for (uint32_t l = 0; l < h->n_layers; l++) {
            uint32_t n = route_batch(route, l, n_tokens, experts, counts);
            CHECK_OK(trace_layer(w, experts, counts, n, &err));
        }
        *picks += (uint64_t)n_tokens * h->k * h->n_layers;
    }
    CHECK_OK(trace_flush(w, &err));
    trace_writer_close(&w);
    CHECK(!w);
    route_close(&route);
    free(experts);
    free(counts);
    return sink;
}

/* Reads a trace and writes it again. Returns the status at its end and the steps before it. */
static enum sluice_status copy_trace(struct span bytes, struct sink *copy, uint64_t *n_steps)
{
    struct arena arena = {0};
    struct trace_reader r;
    struct trace_writer *w = NULL;
    const struct trace_step *step = NULL;
    *n_steps = 0;
    err = (struct sluice_error){0};
    enum sluice_status status = trace_open(&r, bytes, &arena, &err);
    if (status == SLUICE_OK) {
        CHECK_OK(trace_writer_open(&w, &r.header, sink_write, copy, &err));
        status = trace_next(&r, &step, &err);
    }
    for (; step; (*n_steps)++) {
        CHECK(step->layer == *n_steps % r.header.n_layers);
        CHECK(step->batch == *n_steps / r.header.n_layers);
        struct sluice_error e = {0};
        if (step->layer == 0)
            CHECK(trace_begin(w, step->n_tokens, step->prefill, &e) == SLUICE_OK, "%s", e.message);
        CHECK(trace_layer(w, step->experts, step->counts, step->n, &e) == SLUICE_OK, "%s",
              e.message);
        status = trace_next(&r, &step, &err);
    }
    struct sluice_error e;
    if (w && *n_steps % r.header.n_layers == 0) CHECK(trace_flush(w, &e) == SLUICE_OK);
    trace_writer_close(&w);
    arena_release(&arena);
    return status;
}

static void check_round_trip(const struct trace_header *h, const uint32_t *sizes, uint32_t n_sizes,
                             double max_bytes_per_pick)
{
    uint64_t picks, n_steps;
    struct sink sink = write_trace(h, 200, sizes, n_sizes, &picks);
    struct sink copy = {.limit = SIZE_MAX};
    CHECK(copy_trace(span_of(sink.data, sink.n), &copy, &n_steps) == SLUICE_OK, "%s", err.message);
    CHECK(n_steps == 200 * (uint64_t)h->n_layers);
    CHECK(span_equal(span_of(sink.data, sink.n), span_of(copy.data, copy.n)));
    double per_pick = (double)(sink.n - HEADER) / (double)picks;
    CHECK(per_pick <= max_bytes_per_pick, "%.3f bytes per pick", per_pick);
    free(sink.data);
    free(copy.data);
}

static void test_round_trip_and_size(void)
{
    static const uint32_t one[] = {1}, few[] = {1, 2, 3, 4}, many[] = {1, 512, 100, 1, 7};
    const struct trace_header q35 = {.n_layers = 40, .n_experts = 256, .k = 8};
    const struct trace_header q397 = {.n_layers = 60, .n_experts = 512, .k = 10};
    const struct trace_header dense = {.n_layers = 1, .n_experts = 1, .k = 1};
    const struct trace_header wide = {.n_layers = 2, .n_experts = TRACE_MAX_EXPERTS, .k = 4};
    check_round_trip(&q35, one, 1, 1.06);
    check_round_trip(&q397, one, 1, 1.07);
    check_round_trip(&q35, few, 4, 1.2);
    check_round_trip(&q397, few, 4, 1.2);
    check_round_trip(&q35, many, 5, 0.25);
    check_round_trip(&small, few, 4, 1.2);
    check_round_trip(&dense, many, 5, 2.5);
    check_round_trip(&wide, few, 4, 3.1);
}

static void test_header_is_kept(void)
{
    static const uint32_t one[] = {1};
    uint64_t picks;
    struct arena arena = {0};
    struct trace_reader r;
    struct sink sink = write_trace(&small, 1, one, 1, &picks);
    CHECK_OK(trace_open(&r, span_of(sink.data, sink.n), &arena, &err));
    CHECK(memcmp(r.header.fingerprint, small.fingerprint, TRACE_FINGERPRINT_BYTES) == 0);
    CHECK(r.header.n_layers == 3 && r.header.n_experts == 8 && r.header.k == 2);
    arena_release(&arena);
    free(sink.data);
}

static void test_every_cut_is_told(void)
{
    static const uint32_t sizes[] = {1, 3, 1};
    uint64_t picks, n_steps, at_boundary = 0;
    struct sink sink = write_trace(&small, 12, sizes, 3, &picks);
    for (size_t len = 0; len < sink.n; len++) {
        uint8_t *cut = malloc(len + 1); /* so that a read past the end is seen */
        if (len) memcpy(cut, sink.data, len);
        struct sink copy = {.limit = SIZE_MAX};
        enum sluice_status status = copy_trace(span_of(cut, len), &copy, &n_steps);
        CHECK(n_steps < 36);
        if (status == SLUICE_OK) {
            at_boundary++;
            CHECK(n_steps % 3 == 0 && copy.n == len);
        } else {
            CHECK(status == SLUICE_E_FORMAT && err.message[0]);
            CHECK(strstr(err.message, len < HEADER ? "than a header has" : "the trace ends here"),
                  "%s", err.message);
        }
        free(copy.data);
        free(cut);
    }
    CHECK(at_boundary == 12, "%" PRIu64, at_boundary);
    free(sink.data);
}

static void test_flipped_bits_are_told_or_harmless(void)
{
    static const uint32_t sizes[] = {1, 3, 200};
    uint64_t picks, n_steps, told = 0, taken = 0;
    struct sink sink = write_trace(&small, 30, sizes, 3, &picks);
    for (size_t bit = 0; bit < sink.n * 8; bit++) {
        sink.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        struct sink copy = {.limit = SIZE_MAX};
        enum sluice_status status = copy_trace(span_of(sink.data, sink.n), &copy, &n_steps);
        if (status == SLUICE_OK) {
            taken++; /* then it is a trace, and has one encoding */
            CHECK(span_equal(span_of(sink.data, sink.n), span_of(copy.data, copy.n)));
        } else {
            told++;
            CHECK(err.message[0]);
        }
        free(copy.data);
        sink.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    CHECK(told > 500 && taken > 100, "%" PRIu64 " %" PRIu64, told, taken);
    free(sink.data);
}

/* A header for 1 layer, 8 experts, k, then the bytes given. */
static void check_refused(uint8_t k, const char *body, size_t n, const char *message)
{
    uint8_t bytes[HEADER + 64] = "SluiceRT\1";
    bytes[28] = 1;
    bytes[32] = 8;
    bytes[36] = k;
    memcpy(bytes + HEADER, body, n);
    struct sink copy = {.limit = SIZE_MAX};
    uint64_t n_steps;
    enum sluice_status status = copy_trace(span_of(bytes, HEADER + n), &copy, &n_steps);
    CHECK(status == SLUICE_E_FORMAT, "%s", message);
    CHECK(strstr(err.message, message), "'%s', not '%s'", err.message, message);
    free(copy.data);
}

#define CHECK_REFUSED(k, body, message) check_refused(k, body, sizeof(body) - 1, message)

static void test_bad_steps(void)
{
    CHECK_REFUSED(2, "\0", "offset 40: batch 0, layer 0: a batch of 0 tokens");
    CHECK_REFUSED(2, "\x82\x80\x80\x01", "a batch of 1048577 tokens");
    CHECK_REFUSED(2, "\2\1\6", "offset 42: batch 0, layer 0: expert 8 of 8");
    CHECK_REFUSED(2, "\2\7\0", "expert 8 of 8");
    CHECK_REFUSED(2, "\2\1\0\2\xff\xff\xff\xff\xf\0",
                  "offset 44: batch 1, layer 0: expert 4294967295");
    CHECK_REFUSED(2, "\2\x81\0\0", "offset 41: batch 0, layer 0: a number is not in its shortest");
    CHECK_REFUSED(2, "\2\xff\xff\xff\xff\x10", "a number is over 2^32 - 1");
    CHECK_REFUSED(2, "\2\xff\xff\xff\xff\xff\xff", "a number is over 2^32 - 1");
    CHECK_REFUSED(2, "\4\1\1", "offset 41: batch 0, layer 0: an expert was picked 3 times by 2");
    CHECK_REFUSED(2, "\4\1\xff\xff\xff\xff\xf", "picked 4294967297 times");
    CHECK_REFUSED(1, "\4\0\1\0", "offset 42: batch 0, layer 0: an expert was picked 2 times by 2");
    CHECK_REFUSED(8, "\4\1\0\1\0\1\0\1\0\1\0\1\0\1\0\0\0", "expert 8 of 8");
    CHECK_REFUSED(2, "\2\1", "offset 42: batch 0, layer 0: the trace ends here");
}

static void test_bad_headers(void)
{
    static const struct {
        uint32_t at;
        uint8_t bytes[4];
        enum sluice_status status;
        const char *message;
    } cases[] = {
        {0, "sLUI", SLUICE_E_FORMAT, "does not begin with 'SluiceRT'"},
        {8, {2}, SLUICE_E_UNSUPPORTED, "version 2, where 1 is known"},
        {28, {0}, SLUICE_E_FORMAT, "0 layers"},
        {28, {1, 16}, SLUICE_E_FORMAT, "4097 layers"},
        {32, {0}, SLUICE_E_FORMAT, "0 experts per layer"},
        {32, {1, 0, 1}, SLUICE_E_FORMAT, "65537 experts per layer"},
        {36, {0}, SLUICE_E_FORMAT, "0 experts per token"},
        {36, {9}, SLUICE_E_FORMAT, "9 experts per token"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t bytes[HEADER] = "SluiceRT\1";
        struct arena arena = {0};
        struct trace_reader r;
        bytes[28] = 1;
        bytes[32] = 8;
        bytes[36] = 2;
        CHECK_OK(trace_open(&r, span_of(bytes, sizeof bytes), &arena, &err));
        memcpy(bytes + cases[i].at, cases[i].bytes, 4);
        CHECK(trace_open(&r, span_of(bytes, sizeof bytes), &arena, &err) == cases[i].status);
        CHECK(strstr(err.message, cases[i].message), "%s", err.message);
        arena_release(&arena);
    }
}

static void test_writer_refuses_bad_layers(void)
{
    struct sink sink = {.limit = SIZE_MAX};
    struct trace_writer *w;
    const struct trace_header none = {.n_layers = 1, .n_experts = 1};
    CHECK(trace_writer_open(&w, &none, sink_write, &sink, &err) == SLUICE_E_ARGUMENT && !w);
    CHECK_OK(trace_writer_open(&w, &small, sink_write, &sink, &err));
    const uint32_t ones[] = {1, 1, 1}, low[] = {1, 2, 3}, zero[] = {0, 2}, same[] = {4, 4};
    const uint32_t high[] = {3, 8}, twice[] = {2, 2};
    CHECK(trace_layer(w, low, ones, 2, &err) == SLUICE_E_ARGUMENT);
    CHECK(trace_begin(w, 0, false, &err) == SLUICE_E_ARGUMENT);
    CHECK(trace_begin(w, TRACE_MAX_TOKENS + 1, false, &err) == SLUICE_E_ARGUMENT);
    CHECK_OK(trace_begin(w, 1, false, &err));
    CHECK(trace_begin(w, 1, false, &err) == SLUICE_E_ARGUMENT);
    CHECK(strstr(err.message, "0 of 3 layers"));
    CHECK(trace_layer(w, low, ones, 3, &err) == SLUICE_E_ARGUMENT);
    CHECK(strstr(err.message, "3 picks, where 1 tokens make 2"), "%s", err.message);
    CHECK(trace_layer(w, low, ones, 1, &err) == SLUICE_E_ARGUMENT);
    CHECK(trace_layer(w, same, ones, 2, &err) == SLUICE_E_ARGUMENT);
    CHECK(trace_layer(w, high, ones, 2, &err) == SLUICE_E_ARGUMENT);
    CHECK(strstr(err.message, "expert 8 of 8"));
    CHECK(trace_layer(w, low, zero, 2, &err) == SLUICE_E_ARGUMENT);
    CHECK(trace_layer(w, low, twice, 1, &err) == SLUICE_E_ARGUMENT);
    CHECK(trace_flush(w, &err) == SLUICE_E_ARGUMENT);
    for (int l = 0; l < 3; l++) CHECK_OK(trace_layer(w, low, ones, 2, &err));
    CHECK(trace_layer(w, low, ones, 2, &err) == SLUICE_E_ARGUMENT);
    CHECK_OK(trace_flush(w, &err));
    trace_writer_close(&w);
    CHECK(sink.n == HEADER + 1 + 6, "%zu", sink.n);
    free(sink.data);
}

static void test_write_errors_stay(void)
{
    struct sink full = {.limit = HEADER - 1}, sink = {.limit = HEADER + 70000};
    struct trace_writer *w;
    const uint32_t experts[] = {1, 5}, counts[] = {1, 1};
    CHECK(trace_writer_open(&w, &small, sink_write, &full, &err) == SLUICE_E_IO && !w);
    CHECK_OK(trace_writer_open(&w, &small, sink_write, &sink, &err));
    enum sluice_status status = SLUICE_OK;
    for (int i = 0; i < 100000 && status == SLUICE_OK; i++) {
        status = trace_begin(w, 1, false, &err);
        for (int l = 0; l < 3 && status == SLUICE_OK; l++)
            status = trace_layer(w, experts, counts, 2, &err);
    }
    CHECK(status == SLUICE_E_IO);
    sink.limit = SIZE_MAX;
    err = (struct sluice_error){0};
    CHECK(trace_layer(w, experts, counts, 2, &err) == SLUICE_E_IO);
    CHECK(trace_begin(w, 1, false, &err) == SLUICE_E_IO);
    CHECK(trace_flush(w, &err) == SLUICE_E_IO && strcmp(err.message, "the disk is full") == 0);
    trace_writer_close(&w);
    CHECK(sink.n > 60000 && sink.n <= HEADER + 70000);
    free(sink.data);
}

static bool opens_writer(void)
{
    struct sink sink = {.limit = SIZE_MAX};
    struct trace_writer *w;
    sink.data = malloc(sink.cap = 4096);
    enum sluice_status status = trace_writer_open(&w, &small, sink_write, &sink, &err);
    CHECK(status == SLUICE_OK || (status == SLUICE_E_NOMEM && !w));
    trace_writer_close(&w);
    free(sink.data);
    return status == SLUICE_OK;
}

static bool opens_reader(void)
{
    uint8_t bytes[HEADER] = "SluiceRT\1";
    struct arena arena = {0};
    struct trace_reader r;
    bytes[28] = bytes[36] = 1;
    bytes[33] = 0x40; /* arrays too large for one block of the arena */
    enum sluice_status status = trace_open(&r, span_of(bytes, sizeof bytes), &arena, &err);
    CHECK(status == SLUICE_OK || status == SLUICE_E_NOMEM);
    arena_release(&arena);
    return status == SLUICE_OK;
}

static void test_out_of_memory(void)
{
    int failed;
    FAIL_SWEEP(opens_writer(), &failed);
    CHECK(failed == 1);
    FAIL_SWEEP(opens_reader(), &failed);
    CHECK(failed >= 1 && failed <= 2, "%d", failed);
}

#define CASES(C)                                                                                   \
    C(round_trip_and_size)                                                                         \
    C(header_is_kept)                                                                              \
    C(every_cut_is_told)                                                                           \
    C(flipped_bits_are_told_or_harmless)                                                           \
    C(bad_steps)                                                                                   \
    C(bad_headers)                                                                                 \
    C(writer_refuses_bad_layers)                                                                   \
    C(write_errors_stay)                                                                           \
    C(out_of_memory)
CHECK_MAIN(CASES)
