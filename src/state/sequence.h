/*
 * The state of one timeline: a paged KV cache and the recurrent states. A page holds the keys and
 * values, or the latents they come from, of SEQUENCE_PAGE positions for every attention layer, so
 * that a position costs one table look-up. Recurrent states come in pairs: a step reads the
 * committed one and writes the other, and sequence_commit() makes the step's result the committed
 * one. A step that fails is therefore undone by not committing it. Knows no graph and no kernel.
 */
#ifndef SLUICE_STATE_SEQUENCE_H
#define SLUICE_STATE_SEQUENCE_H

#include "base/err.h"

enum { SEQUENCE_PAGE = 64 };

enum kv_type { KV_F32, KV_F16 };

/* Shapes of all states of a model; shared by its sequences. */
struct state_layout {
    enum kv_type kv_type;
    uint32_t n_kv, n_recurrent;
    struct kv_shape {
        uint32_t n_heads, head_dim;
        /* in a page: [n_heads][SEQUENCE_PAGE][head_dim] each; of latents, the same rows */
        size_t keys_off, values_off;
    } * kv;
    struct recurrent_shape {
        size_t off, n; /* floats */
    } * recurrent;
    size_t page_bytes;
    size_t recurrent_floats;
    size_t n_picks; /* expert picks of a token in all layers that sequences remember; 0: none */
};

/* Adding gives the index of the new state among its kind. False: out of memory or too large. */
bool layout_add_kv(struct state_layout *layout, uint32_t n_heads, uint32_t head_dim,
                   uint32_t *index);
/* Rows that all heads share as keys and values: rank values of both, then rotated ones of keys. */
bool layout_add_latent(struct state_layout *layout, uint32_t rank, uint32_t rotated,
                       uint32_t *index);
bool layout_add_recurrent(struct state_layout *layout, size_t n_floats, uint32_t *index);
void layout_release(struct state_layout *layout);
size_t layout_kv_bytes_per_token(const struct state_layout *layout);
size_t layout_recurrent_bytes(const struct state_layout *layout); /* of one sequence */
/* Of a sequence that holds n_ctx tokens; at most 2^60, which no machine has. */
uint64_t layout_session_bytes(const struct state_layout *layout, uint32_t n_ctx);

struct sequence {
    const struct state_layout *layout;
    uint32_t position; /* tokens held */
    uint32_t n_ctx;    /* most tokens it can hold */
    uint8_t *pages;    /* room for n_ctx positions; memory is taken when a page is touched */
    size_t pages_bytes;
    float *recurrent[2];
    uint32_t committed; /* which of the two */
    /* [n_picks]: experts that the last token used, -1: none yet. A hint, not part of the state. */
    int32_t *picks;
};

/* An empty sequence; states are zero. layout must outlive it. Errors: NOMEM. */
enum sluice_status sequence_init(struct sequence *seq, const struct state_layout *layout,
                                 uint32_t n_ctx, struct sluice_error *err);
void sequence_release(struct sequence *seq);
/* Back to empty; pages are kept. */
void sequence_reset(struct sequence *seq);
/* Checks that n more tokens fit. Errors: CONTEXT_FULL. */
enum sluice_status sequence_reserve(struct sequence *seq, uint32_t n, struct sluice_error *err);
/* The step that evaluated n tokens is part of the sequence. */
void sequence_commit(struct sequence *seq, uint32_t n);

/*
 * The empty sequence becomes one of n positions whose keys and values are random numbers made from
 * seed; recurrent states stay zero. For measurements. Errors: CONTEXT_FULL.
 */
enum sluice_status sequence_fill(struct sequence *seq, uint32_t n, uint64_t seed,
                                 struct sluice_error *err);

/* Keys or values of a head in the page of positions page * SEQUENCE_PAGE ...: [SEQUENCE_PAGE][dim].
 */
void *sequence_keys(const struct sequence *seq, uint32_t kv, uint32_t page, uint32_t head);
void *sequence_values(const struct sequence *seq, uint32_t kv, uint32_t page, uint32_t head);
/* The committed recurrent state, and the one the step writes. */
const float *sequence_recurrent(const struct sequence *seq, uint32_t index);
float *sequence_recurrent_next(struct sequence *seq, uint32_t index);

#endif
