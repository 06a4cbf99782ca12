/* What one run evaluates: rows of tokens cut into segments, each the next tokens of a sequence. */
#ifndef SLUICE_BACKEND_BATCH_H
#define SLUICE_BACKEND_BATCH_H

#include "state/sequence.h"

struct batch_segment {
    struct sequence *sequence;
    uint32_t first; /* row of its first token */
    uint32_t count;
};

struct batch {
    uint32_t n_tokens;
    uint32_t n_outputs; /* rows of the tail; may change between runs of the same body */
    uint32_t n_segments;
    struct batch_segment *segments;
    /* Asked between layers, by the thread that called; true ends the run. NULL: nobody to ask. */
    bool (*cancelled)(void *user);
    void *user;
};

/* The segment a row belongs to. */
static inline const struct batch_segment *batch_segment_of(const struct batch *batch, uint32_t row)
{
    const struct batch_segment *s = batch->segments;
    while (row >= s->first + s->count) s++;
    return s;
}

/* A batch with a long segment evaluates a prompt: what it uses says little about decoding. */
static inline bool batch_is_prompt(const struct batch *batch)
{
    enum { DECODE_TOKENS = 8 };
    for (uint32_t i = 0; i < batch->n_segments; i++)
        if (batch->segments[i].count > DECODE_TOKENS) return true;
    return false;
}

#endif
