/* Rotary position embedding: its fields in config.json, and the frequencies they mean. */
#ifndef SLUICE_MODEL_ROPE_H
#define SLUICE_MODEL_ROPE_H

#include "base/arena.h"
#include "format/json.h"

struct rope {
    uint32_t rotary_dim; /* values of a head that are rotated, even */
    double theta;
};

/*
 * Reads rope_parameters or rope_scaling, or the same fields beside them. head_dim times
 * partial_rotary_factor (or partial) values rotate. Errors: UNSUPPORTED, naming the kind of rope;
 * MISMATCH when an odd number would rotate.
 */
enum sluice_status rope_read(const struct json_node *node, uint32_t head_dim, double partial,
                             struct rope *rope, struct sluice_error *err);

/* [rotary_dim / 2] in arena: theta^(-2i / rotary_dim), in f32 as the references compute it. */
enum sluice_status rope_frequencies(const struct rope *rope, struct arena *arena,
                                    const float **freqs, struct sluice_error *err);

#endif
