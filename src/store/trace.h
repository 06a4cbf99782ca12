/*
 * Routing traces: which experts every layer picked for every batch of a run, in about one byte per
 * pick. Layout, integers little-endian:
 *
 *   "SluiceRT", u32 version (1), u8[16] fingerprint of the model, u32 layers, u32 experts per
 *   layer, u32 experts per token (k); then batch after batch until the end:
 *     varint of 2 * tokens + prefill
 *     for every layer, its experts in ascending order; gap: the experts left out since the last one
 *       one token:   k times varint of gap
 *       more tokens: varint of 2 * gap + many, and if many, varint of count - 2,
 *                    until the counts sum to k * tokens
 *
 * Varints are LEB128 in their shortest form, so a trace has one encoding only.
 */
#ifndef SLUICE_STORE_TRACE_H
#define SLUICE_STORE_TRACE_H

#include "base/arena.h"
#include "base/err.h"
#include "base/span.h"

enum {
    TRACE_HEADER_BYTES = 40,
    TRACE_FINGERPRINT_BYTES = 16,
    TRACE_MAX_LAYERS = 4096,
    TRACE_MAX_EXPERTS = 65536, /* per layer */
    TRACE_MAX_TOKENS = 1 << 20 /* per batch */
};

struct trace_header {
    uint8_t fingerprint[TRACE_FINGERPRINT_BYTES];
    uint32_t n_layers, n_experts, k;
};

/* Takes len bytes in full, or fails for good. */
typedef enum sluice_status trace_write_fn(void *user, const void *data, size_t len,
                                          struct sluice_error *err);

struct trace_writer;

/* Errors: ARGUMENT (the header is out of range), NOMEM, and those of write. */
enum sluice_status trace_writer_open(struct trace_writer **w, const struct trace_header *header,
                                     trace_write_fn *write, void *user, struct sluice_error *err);
/* Begins a batch; every layer of the last one must have been given. Errors: ARGUMENT, and write's.
 */
enum sluice_status trace_begin(struct trace_writer *w, uint32_t n_tokens, bool prefill,
                               struct sluice_error *err);
/*
 * The next layer's n distinct experts in ascending order, and how many tokens picked each; counts
 * sum to k * n_tokens. Errors: ARGUMENT (nothing is written), and write's, which repeat from then
 * on.
 */
enum sluice_status trace_layer(struct trace_writer *w, const uint32_t *experts,
                               const uint32_t *counts, uint32_t n, struct sluice_error *err);
/* Writes what is buffered. Errors: ARGUMENT (a batch is incomplete), and write's. */
enum sluice_status trace_flush(struct trace_writer *w, struct sluice_error *err);
/* Drops what was not flushed. */
void trace_writer_close(struct trace_writer **w);

/* One layer of one batch; the arrays are valid until the next call. */
struct trace_step {
    uint64_t batch;
    uint32_t layer;
    uint32_t n_tokens;
    bool prefill;
    uint32_t n;              /* distinct experts */
    const uint32_t *experts; /* [n], ascending */
    const uint32_t *counts;  /* [n], tokens that picked each, at least 1 */
};

struct trace_reader {
    struct trace_header header;
    struct span bytes;
    size_t at;
    struct trace_step step;
    uint32_t *experts, *counts; /* [n_experts], in the arena */
};

/*
 * Checks the header. The bytes must outlive the reader, whose arrays live in arena. Errors: FORMAT,
 * UNSUPPORTED (a newer version), NOMEM.
 */
enum sluice_status trace_open(struct trace_reader *r, struct span bytes, struct arena *arena,
                              struct sluice_error *err);
/*
 * The next step; *step is NULL at the end. Errors: FORMAT, naming the offset and the step; a trace
 * whose writer was killed gives it after all complete steps.
 */
enum sluice_status trace_next(struct trace_reader *r, const struct trace_step **step,
                              struct sluice_error *err);

#endif
