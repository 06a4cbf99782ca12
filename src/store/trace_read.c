#include <inttypes.h>

#include "base/bits.h"
#include "store/trace.h"
#include "store/trace_format.h"

static enum sluice_status header_error(const char *what, uint32_t value, const char *range,
                                       struct sluice_error *err)
{
    return err_set(err, SLUICE_E_FORMAT, "trace: header: %u %s, where %s are possible", value, what,
                   range);
}

enum sluice_status trace_check_header(const struct trace_header *h, struct sluice_error *err)
{
    if (h->n_layers == 0 || h->n_layers > TRACE_MAX_LAYERS)
        return header_error("layers", h->n_layers, "1 to 4096", err);
    if (h->n_experts == 0 || h->n_experts > TRACE_MAX_EXPERTS)
        return header_error("experts per layer", h->n_experts, "1 to 65536", err);
    if (h->k == 0 || h->k > h->n_experts)
        return header_error("experts per token", h->k, "1 to the experts per layer", err);
    return SLUICE_OK;
}

enum sluice_status trace_open(struct trace_reader *r, struct span bytes, struct arena *arena,
                              struct sluice_error *err)
{
    *r = (struct trace_reader){.bytes = bytes, .at = TRACE_HEADER_BYTES};
    if (bytes.len < TRACE_HEADER_BYTES)
        return err_set(err, SLUICE_E_FORMAT,
                       "trace: %zu bytes are fewer than a header has, which is %d", bytes.len,
                       TRACE_HEADER_BYTES);
    if (memcmp(bytes.data, TRACE_MAGIC, MAGIC_BYTES) != 0)
        return err_set(err, SLUICE_E_FORMAT,
                       "trace: does not begin with '%s'; not a routing trace?", TRACE_MAGIC);
    uint32_t version = load_u32le(bytes.data + VERSION_AT);
    if (version != TRACE_VERSION)
        return err_set(err, SLUICE_E_UNSUPPORTED, "trace: version %u, where %d is known", version,
                       TRACE_VERSION);
    struct trace_header *h = &r->header;
    memcpy(h->fingerprint, bytes.data + FINGERPRINT_AT, sizeof h->fingerprint);
    h->n_layers = load_u32le(bytes.data + SHAPE_AT);
    h->n_experts = load_u32le(bytes.data + SHAPE_AT + 4);
    h->k = load_u32le(bytes.data + SHAPE_AT + 8);
    TRY(trace_check_header(h, err));
    r->experts = arena_alloc(arena, h->n_experts, sizeof *r->experts);
    r->counts = arena_alloc(arena, h->n_experts, sizeof *r->counts);
    if (!r->experts || !r->counts)
        return err_nomem(err, "trace", 2 * h->n_experts * sizeof *r->experts);
    r->step.layer = h->n_layers; /* as if a batch had just ended */
    r->step.experts = r->experts;
    r->step.counts = r->counts;
    return SLUICE_OK;
}

#define STEP_ERROR(r, off, fmt, ...)                                                               \
    err_set(err, SLUICE_E_FORMAT, "trace: offset %zu: batch %" PRIu64 ", layer %u: " fmt, off,     \
            (r)->step.batch, (r)->step.layer, __VA_ARGS__)

static enum sluice_status read_varint(struct trace_reader *r, uint32_t *value,
                                      struct sluice_error *err)
{
    size_t begin = r->at;
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 35; shift += 7) {
        if (r->at == r->bytes.len)
            return STEP_ERROR(r, begin, "%s", "the trace ends here; was its writer stopped?");
        uint8_t byte = r->bytes.data[r->at++];
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte & 0x80) continue;
        if (v > UINT32_MAX) break;
        if (byte == 0 && shift)
            return STEP_ERROR(r, begin, "%s", "a number is not in its shortest form");
        *value = (uint32_t)v;
        return SLUICE_OK;
    }
    return STEP_ERROR(r, begin, "%s", "a number is over 2^32 - 1");
}

static enum sluice_status read_batch(struct trace_reader *r, struct sluice_error *err)
{
    size_t begin = r->at;
    uint32_t head;
    TRY(read_varint(r, &head, err));
    r->step.n_tokens = head >> 1;
    r->step.prefill = head & 1;
    if (r->step.n_tokens == 0 || r->step.n_tokens > TRACE_MAX_TOKENS)
        return STEP_ERROR(r, begin, "a batch of %u tokens, where 1 to %d are possible",
                          r->step.n_tokens, TRACE_MAX_TOKENS);
    return SLUICE_OK;
}

/* Adds the expert that follows the last one after a gap. */
static enum sluice_status add_expert(struct trace_reader *r, size_t begin, uint32_t gap,
                                     uint32_t count, struct sluice_error *err)
{
    uint32_t n = r->step.n;
    uint64_t expert = (uint64_t)gap + (n ? (uint64_t)r->experts[n - 1] + 1 : 0);
    if (expert >= r->header.n_experts)
        return STEP_ERROR(r, begin, "expert %" PRIu64 " of %u", expert, r->header.n_experts);
    r->experts[n] = (uint32_t)expert;
    r->counts[n] = count;
    r->step.n++;
    return SLUICE_OK;
}

static enum sluice_status read_single(struct trace_reader *r, struct sluice_error *err)
{
    for (uint32_t i = 0; i < r->header.k; i++) {
        size_t begin = r->at;
        uint32_t gap;
        TRY(read_varint(r, &gap, err));
        TRY(add_expert(r, begin, gap, 1, err));
    }
    return SLUICE_OK;
}

static enum sluice_status read_counted(struct trace_reader *r, struct sluice_error *err)
{
    uint64_t picks = (uint64_t)r->header.k * r->step.n_tokens;
    for (uint64_t sum = 0; sum < picks; sum += r->counts[r->step.n - 1]) {
        size_t begin = r->at;
        uint32_t value = 0, more = 0;
        TRY(read_varint(r, &value, err));
        if (value & 1) TRY(read_varint(r, &more, err));
        uint64_t count = 1 + (uint64_t)(value & 1) + more;
        if (count > r->step.n_tokens || count > picks - sum)
            return STEP_ERROR(r, begin, "an expert was picked %" PRIu64 " times by %u tokens",
                              count, r->step.n_tokens);
        TRY(add_expert(r, begin, value >> 1, (uint32_t)count, err));
    }
    return SLUICE_OK;
}

enum sluice_status trace_next(struct trace_reader *r, const struct trace_step **step,
                              struct sluice_error *err)
{
    *step = NULL;
    r->step.layer++;
    if (r->step.layer >= r->header.n_layers) {
        bool first = r->at == TRACE_HEADER_BYTES;
        if (r->at == r->bytes.len) {
            r->step.layer = r->header.n_layers;
            return SLUICE_OK;
        }
        r->step.batch += !first;
        r->step.layer = 0;
        TRY(read_batch(r, err));
    }
    r->step.n = 0;
    TRY(r->step.n_tokens == 1 ? read_single(r, err) : read_counted(r, err));
    *step = &r->step;
    return SLUICE_OK;
}
