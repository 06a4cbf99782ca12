#include <stdlib.h>

#include "store/trace.h"
#include "store/trace_format.h"

enum { BUFFER_BYTES = 1 << 16, VARINT_MAX_BYTES = 5 };

struct trace_writer {
    struct trace_header header;
    trace_write_fn *write;
    void *user;
    uint32_t n_tokens; /* of the current batch */
    uint32_t layer;    /* the next one; n_layers: the batch is complete */
    bool failed;
    struct sluice_error error; /* of the write that failed */
    size_t n;                  /* bytes in the buffer */
    uint8_t buffer[BUFFER_BYTES];
};

static void put_u32le(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (8 * i));
}

static void put_header(struct trace_writer *w)
{
    const struct trace_header *h = &w->header;
    memcpy(w->buffer, TRACE_MAGIC, MAGIC_BYTES);
    put_u32le(w->buffer + VERSION_AT, TRACE_VERSION);
    memcpy(w->buffer + FINGERPRINT_AT, h->fingerprint, sizeof h->fingerprint);
    put_u32le(w->buffer + SHAPE_AT, h->n_layers);
    put_u32le(w->buffer + SHAPE_AT + 4, h->n_experts);
    put_u32le(w->buffer + SHAPE_AT + 8, h->k);
    w->n = TRACE_HEADER_BYTES;
}

static enum sluice_status drain(struct trace_writer *w, struct sluice_error *err)
{
    if (!w->failed && w->n) {
        w->error = (struct sluice_error){0};
        w->failed = w->write(w->user, w->buffer, w->n, &w->error) != SLUICE_OK;
        w->n = 0;
    }
    if (!w->failed) return SLUICE_OK;
    return err_set(err, w->error.code, "%s", w->error.message);
}

enum sluice_status trace_writer_open(struct trace_writer **out, const struct trace_header *header,
                                     trace_write_fn *write, void *user, struct sluice_error *err)
{
    *out = NULL;
    if (trace_check_header(header, err) != SLUICE_OK)
        return err_wrap(err, SLUICE_E_ARGUMENT, "cannot be written");
    struct trace_writer *w = calloc(1, sizeof *w);
    if (!w) return err_nomem(err, "trace", sizeof *w);
    w->header = *header;
    w->write = write;
    w->user = user;
    w->layer = header->n_layers;
    put_header(w);
    enum sluice_status status = drain(w, err);
    if (status != SLUICE_OK)
        trace_writer_close(&w);
    else
        *out = w;
    return status;
}

void trace_writer_close(struct trace_writer **w)
{
    free(*w);
    *w = NULL;
}

static enum sluice_status put_varint(struct trace_writer *w, uint32_t v, struct sluice_error *err)
{
    if (w->n > BUFFER_BYTES - VARINT_MAX_BYTES) TRY(drain(w, err));
    for (; v >= 0x80; v >>= 7) w->buffer[w->n++] = (uint8_t)(v | 0x80);
    w->buffer[w->n++] = (uint8_t)v;
    return SLUICE_OK;
}

enum sluice_status trace_begin(struct trace_writer *w, uint32_t n_tokens, bool prefill,
                               struct sluice_error *err)
{
    if (w->failed) return drain(w, err);
    if (w->layer != w->header.n_layers)
        return err_set(err, SLUICE_E_ARGUMENT, "trace: the last batch has %u of %u layers",
                       w->layer, w->header.n_layers);
    if (n_tokens == 0 || n_tokens > TRACE_MAX_TOKENS)
        return err_set(err, SLUICE_E_ARGUMENT, "trace: a batch has %u tokens, not 1 to %d",
                       n_tokens, TRACE_MAX_TOKENS);
    TRY(put_varint(w, n_tokens << 1 | prefill, err));
    w->n_tokens = n_tokens;
    w->layer = 0;
    return SLUICE_OK;
}

/* That the reader would take the layer as it is. */
static enum sluice_status check_layer(const struct trace_writer *w, const uint32_t *experts,
                                      const uint32_t *counts, uint32_t n, struct sluice_error *err)
{
    if (w->layer == w->header.n_layers)
        return err_set(err, SLUICE_E_ARGUMENT, "trace: the batch already has its %u layers",
                       w->layer);
    uint64_t picks = (uint64_t)w->header.k * w->n_tokens, sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (experts[i] >= w->header.n_experts || (i && experts[i] <= experts[i - 1]))
            return err_set(err, SLUICE_E_ARGUMENT,
                           "trace: layer %u: expert %u of %u is out of range or order", w->layer,
                           experts[i], w->header.n_experts);
        if (counts[i] == 0 || counts[i] > w->n_tokens)
            return err_set(err, SLUICE_E_ARGUMENT,
                           "trace: layer %u: expert %u was picked %u times by %u tokens", w->layer,
                           experts[i], counts[i], w->n_tokens);
        sum += counts[i];
    }
    if (sum != picks)
        return err_set(err, SLUICE_E_ARGUMENT,
                       "trace: layer %u: %llu picks, where %u tokens make %llu", w->layer,
                       (unsigned long long)sum, w->n_tokens, (unsigned long long)picks);
    return SLUICE_OK;
}

enum sluice_status trace_layer(struct trace_writer *w, const uint32_t *experts,
                               const uint32_t *counts, uint32_t n, struct sluice_error *err)
{
    if (w->failed) return drain(w, err);
    TRY(check_layer(w, experts, counts, n, err));
    for (uint32_t i = 0; i < n; i++) {
        uint32_t gap = i ? experts[i] - experts[i - 1] - 1 : experts[i];
        if (w->n_tokens == 1) {
            TRY(put_varint(w, gap, err));
            continue;
        }
        TRY(put_varint(w, gap << 1 | (counts[i] > 1), err));
        if (counts[i] > 1) TRY(put_varint(w, counts[i] - 2, err));
    }
    w->layer++;
    return SLUICE_OK;
}

enum sluice_status trace_flush(struct trace_writer *w, struct sluice_error *err)
{
    TRY(drain(w, err));
    if (w->layer != w->header.n_layers)
        return err_set(err, SLUICE_E_ARGUMENT, "trace: the last batch has %u of %u layers",
                       w->layer, w->header.n_layers);
    return SLUICE_OK;
}
