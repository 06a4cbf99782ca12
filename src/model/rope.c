#include "model/rope.h"

#include <math.h>
#include <string.h>

#include "model/config.h"

double rope_yarn_magnitude(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

/* 0 counts as left out, as it does in the references. */
static enum sluice_status read_or(const struct json_node *node, const char *key, double max,
                                  double fallback, double *out, struct sluice_error *err)
{
    TRY(json_get_f64_or(node, key, 0, max, fallback, out, err));
    if (*out == 0) *out = fallback;
    return SLUICE_OK;
}

static enum sluice_status read_yarn(const struct json_node *node, const struct json_node *rope,
                                    struct rope *out, struct sluice_error *err)
{
    struct yarn *y = &out->yarn;
    uint32_t context;
    double mscale, attention;
    y->on = true;
    TRY(json_get_u32_or(node, "max_position_embeddings", 1, UINT32_MAX, 2048, &context, err));
    TRY(read_or(rope, "original_max_position_embeddings", UINT32_MAX, context, &y->original, err));
    TRY(read_or(rope, "factor", 1e6, context / y->original, &y->factor, err));
    TRY(read_or(rope, "beta_fast", 1e6, 32, &y->beta_fast, err));
    TRY(read_or(rope, "beta_slow", 1e6, 1, &y->beta_slow, err));
    TRY(json_get_bool_or(rope, "truncate", true, &y->truncate, err));
    TRY(json_get_f64_or(rope, "mscale", 0, 1e3, 0, &mscale, err));
    TRY(json_get_f64_or(rope, "mscale_all_dim", 0, 1e3, 0, &y->mscale_all_dim, err));
    double factor = mscale > 0 && y->mscale_all_dim > 0
                        ? rope_yarn_magnitude(y->factor, mscale) /
                              rope_yarn_magnitude(y->factor, y->mscale_all_dim)
                        : rope_yarn_magnitude(y->factor, 1);
    TRY(json_get_f64_or(rope, "attention_factor", 1e-3, 1e3, factor, &attention, err));
    out->scale = (float)attention;
    if (out->theta > 1) return SLUICE_OK;
    return err_set(err, SLUICE_E_UNSUPPORTED,
                   "%s: field 'rope_theta' is 1, by which YaRN cannot tell rotations apart",
                   node->file);
}

enum sluice_status rope_read(const struct json_node *node, uint32_t head_dim, double partial,
                             struct rope *out, struct sluice_error *err)
{
    struct json_node rope;
    *out = (struct rope){.scale = 1};
    TRY(json_get_object_or(node, "rope_parameters", &rope, err));
    if (!rope.object) TRY(json_get_object_or(node, "rope_scaling", &rope, err));
    double factor, theta;
    TRY(json_get_f64_or(node, "partial_rotary_factor", 0, 1, partial, &factor, err));
    TRY(json_get_f64_or(node, "rope_theta", 1, 1e12, 10000, &theta, err));
    if (rope.object) {
        TRY(json_get_f64_or(&rope, "partial_rotary_factor", 0, 1, factor, &factor, err));
        TRY(json_get_f64_or(&rope, "rope_theta", 1, 1e12, theta, &theta, err));
    }
    out->theta = theta;
    out->rotary_dim = (uint32_t)(head_dim * factor);
    if (out->rotary_dim == 0 || out->rotary_dim % 2 != 0)
        return err_set(err, SLUICE_E_MISMATCH,
                       "%s: head_dim %u times partial_rotary_factor %g gives %u rotated "
                       "dimensions; an even number is needed",
                       node->file, head_dim, factor, out->rotary_dim);
    if (!rope.object) return SLUICE_OK;
    const char *type;
    TRY(json_get_string_or(&rope, "type", "default", &type, err));
    TRY(json_get_string_or(&rope, "rope_type", type, &type, err));
    if (strcmp(type, "default") == 0 || strcmp(type, "mrope") == 0) return SLUICE_OK;
    if (strcmp(type, "yarn") == 0) return read_yarn(node, &rope, out, err);
    return config_unsupported(&rope, "rope_type", type, err);
}

/* The dimension, a real number, that turns this many times within the original context. */
static double dimension_of(const struct rope *rope, double rotations)
{
    double wavelength = rope->yarn.original / (rotations * 2 * acos(-1));
    return rope->rotary_dim * log(wavelength) / (2 * log(rope->theta));
}

/* From 0 (too fast to be slowed down) to 1 (slowed down by the whole factor). */
static float ramp(float i, double low, double high)
{
    float share = (i - (float)low) / (float)(high - low);
    return fminf(fmaxf(share, 0), 1);
}

/* arXiv:2309.00071, equations 17 to 23. */
static void slow_down(const struct rope *rope, float *freqs)
{
    const struct yarn *y = &rope->yarn;
    double low = dimension_of(rope, y->beta_fast), high = dimension_of(rope, y->beta_slow);
    if (y->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, rope->rotary_dim - 1);
    if (low == high) high += 0.001;
    for (uint32_t i = 0; i < rope->rotary_dim / 2; i++) {
        float period = powf((float)rope->theta, (float)(2 * i) / (float)rope->rotary_dim);
        float kept = 1 - ramp((float)i, low, high);
        freqs[i] = 1 / ((float)y->factor * period) * (1 - kept) + 1 / period * kept;
    }
}

enum sluice_status rope_frequencies(const struct rope *rope, struct arena *arena, const float **out,
                                    struct sluice_error *err)
{
    uint32_t half = rope->rotary_dim / 2;
    float *freqs = arena_alloc(arena, half, sizeof *freqs);
    if (!freqs) return err_nomem(err, "rope frequencies", half * sizeof *freqs);
    for (uint32_t i = 0; i < half; i++) {
        float exponent = (float)(2 * i) / (float)rope->rotary_dim;
        freqs[i] = 1.0f / powf((float)rope->theta, exponent);
    }
    if (rope->yarn.on) slow_down(rope, freqs);
    *out = freqs;
    return SLUICE_OK;
}

double rope_score_scale(const struct rope *rope)
{
    double m = rope->yarn.on && rope->yarn.mscale_all_dim > 0
                   ? rope_yarn_magnitude(rope->yarn.factor, rope->yarn.mscale_all_dim)
                   : 1;
    return m * m;
}
