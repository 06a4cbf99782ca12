/*
 * Any bytes as a routing trace, and as what follows a good header. What is accepted writes the same
 * bytes again.
 */
#include <string.h>

#include "fuzz.h"
#include "store/trace.h"

struct copy {
    struct span want; /* what must be written */
    size_t at;
};

static enum sluice_status compare(void *user, const void *data, size_t len,
                                  struct sluice_error *err)
{
    struct copy *copy = user;
    (void)err;
    FUZZ_CHECK(len <= copy->want.len - copy->at);
    FUZZ_CHECK(memcmp(copy->want.data + copy->at, data, len) == 0);
    copy->at += len;
    return SLUICE_OK;
}

static void copy_step(struct trace_writer *w, const struct trace_step *step,
                      const struct trace_header *h)
{
    struct sluice_error err;
    FUZZ_CHECK(step->layer < h->n_layers && step->n <= h->n_experts);
    if (step->layer == 0)
        FUZZ_CHECK(trace_begin(w, step->n_tokens, step->prefill, &err) == SLUICE_OK);
    FUZZ_CHECK(trace_layer(w, step->experts, step->counts, step->n, &err) == SLUICE_OK);
}

static void read_all(struct span bytes)
{
    struct arena arena = {0};
    struct trace_reader r;
    struct copy copy = {.want = bytes};
    struct trace_writer *w = NULL;
    const struct trace_step *step = NULL;
    struct sluice_error err = {0};
    enum sluice_status status = trace_open(&r, bytes, &arena, &err);
    if (status == SLUICE_OK) {
        FUZZ_CHECK(trace_writer_open(&w, &r.header, compare, &copy, &err) == SLUICE_OK);
        status = trace_next(&r, &step, &err);
    }
    for (; step; status = trace_next(&r, &step, &err)) copy_step(w, step, &r.header);
    if (status == SLUICE_OK) {
        FUZZ_CHECK(trace_flush(w, &err) == SLUICE_OK && copy.at == bytes.len);
    } else {
        FUZZ_CHECK(err.code == status && err.message[0] != '\0');
    }
    trace_writer_close(&w);
    arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t header[TRACE_HEADER_BYTES] = {'S', 'l', 'u', 'i',      'c',      'e',
                                                       'R', 'T', 1,   [28] = 2, [32] = 9, [36] = 3};
    read_all(span_of(data, size));
    uint8_t *trace = malloc(sizeof header + size);
    if (!trace) return 0;
    memcpy(trace, header, sizeof header);
    if (size) memcpy(trace + sizeof header, data, size);
    read_all(span_of(trace, sizeof header + size));
    free(trace);
    return 0;
}
