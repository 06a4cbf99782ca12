/* Rotary position embedding: its fields in config.json, and the frequencies they mean. */
#ifndef SLUICE_MODEL_ROPE_H
#define SLUICE_MODEL_ROPE_H

#include "base/arena.h"
#include "format/json.h"

/* YaRN (arXiv:2309.00071): slow rotations are slowed down further, fast ones are left alone. */
struct yarn {
    bool on;
    double factor;               /* how many times longer than the original context */
    double original;             /* positions it was trained with first */
    double beta_fast, beta_slow; /* rotations in the original context where the ramp ends */
    bool truncate;               /* the ramp's ends are whole dimensions */
    double mscale_all_dim;       /* 0: none; see rope_score_scale() */
};

struct rope {
    uint32_t rotary_dim; /* values of a head that are rotated, even */
    double theta;
    float scale; /* of cosines and sines: YaRN's attention factor, else 1 */
    struct yarn yarn;
};

/*
 * Reads rope_parameters or rope_scaling, or the same fields beside them. head_dim times
 * partial_rotary_factor (or partial) values rotate. Errors: UNSUPPORTED, naming the kind of rope;
 * MISMATCH when an odd number would rotate; FORMAT and NOT_FOUND, naming a field.
 */
enum sluice_status rope_read(const struct json_node *node, uint32_t head_dim, double partial,
                             struct rope *rope, struct sluice_error *err);

/*
 * [rotary_dim / 2] in arena: theta^(-2i / rotary_dim), or what YaRN makes of it; in f32, by the
 * operations of the references.
 */
enum sluice_status rope_frequencies(const struct rope *rope, struct arena *arena,
                                    const float **freqs, struct sluice_error *err);

/* By what YaRN sharpens scores: 0.1 mscale ln(factor) + 1; 1 for a factor of at most 1. */
double rope_yarn_magnitude(double factor, double mscale);

/*
 * What DeepSeek-V3 multiplies its attention scores with beside 1 / sqrt(dim): (0.1 mscale_all_dim
 * ln factor + 1)^2 with YaRN, else 1.
 */
double rope_score_scale(const struct rope *rope);

#endif
