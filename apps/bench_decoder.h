/*
 * Greedy decoding that is measured, and the golden gate: every token and every logit of a run is
 * remembered, and another run of the same tokens must agree bit for bit.
 */
#ifndef APPS_BENCH_DECODER_H
#define APPS_BENCH_DECODER_H

#include "app.h"
#include "bench_route.h"

/* What tokens of a sequence came out as. */
struct golden {
    int32_t *ids;
    uint64_t *sums; /* of the logits that gave the id */
    size_t n, cap;
    size_t n_agreed; /* tokens that another run confirmed */
};

void golden_release(struct golden *golden);

/* What a decoder is opened with. Everything is the caller's and outlives the decoder. */
struct decode_plan {
    const char *path;                 /* of the model */
    const char *name;                 /* "the run with 64 slots", for messages */
    const struct forced_route *route; /* NULL: the model's own */
    struct golden *golden;            /* NULL: nothing to compare with */
    struct buffer *trace;             /* receives the routing as a trace; NULL: not wanted */
    uint32_t n_tokens;                /* at most so many will be decoded */
};

struct decoder {
    struct app *app;
    const struct decode_plan *plan;
    sluice_engine *engine;
    sluice_session *session;
    struct sluice_engine_info info;
    sluice_trace_writer *writer; /* of plan->trace */
    enum sluice_status written;  /* of what it wrote during an evaluation */
    float *logits;               /* [vocab_size] */
    int32_t next;                /* the id that is evaluated next */
    size_t n_made;
    double *token_ms; /* [cap_ms] of the window that runs */
    size_t cap_ms;
};

/* Tokens that were measured together; all but n are means or medians for one token. */
struct window {
    size_t n;
    double ms;        /* inside evaluations */
    double median_ms; /* of its tokens */
    double hits, misses, bytes, wait_ms;
};

/* Opens the model. options: those of the command line, changed as the caller likes. */
SLUICE_NODISCARD enum sluice_status decoder_open(struct decoder *d, struct app *app,
                                                 const struct decode_plan *plan,
                                                 struct sluice_engine_options *options,
                                                 struct sluice_error *err);
void decoder_close(struct decoder *d);
/*
 * Decodes n tokens. window may be NULL. Errors: those of sluice_eval; MISMATCH when a token
 * differs from what golden holds or is not a number.
 */
SLUICE_NODISCARD enum sluice_status decoder_run(struct decoder *d, size_t n, struct window *window,
                                                struct sluice_error *err);

/* Completes the trace of the plan. */
SLUICE_NODISCARD enum sluice_status decoder_end_trace(struct decoder *d, struct sluice_error *err);

#endif
