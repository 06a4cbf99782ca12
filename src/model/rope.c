#include "model/rope.h"

#include <math.h>
#include <string.h>

#include "model/config.h"

enum sluice_status rope_read(const struct json_node *node, uint32_t head_dim, double partial,
                             struct rope *out, struct sluice_error *err)
{
    struct json_node rope;
    TRY(json_get_object_or(node, "rope_parameters", &rope, err));
    if (!rope.object) TRY(json_get_object_or(node, "rope_scaling", &rope, err));
    double factor, theta;
    TRY(json_get_f64_or(node, "partial_rotary_factor", 0, 1, partial, &factor, err));
    TRY(json_get_f64_or(node, "rope_theta", 1, 1e12, 10000, &theta, err));
    if (rope.object) {
        const char *type;
        TRY(json_get_f64_or(&rope, "partial_rotary_factor", 0, 1, factor, &factor, err));
        TRY(json_get_f64_or(&rope, "rope_theta", 1, 1e12, theta, &theta, err));
        TRY(json_get_string_or(&rope, "type", "default", &type, err));
        TRY(json_get_string_or(&rope, "rope_type", type, &type, err));
        if (strcmp(type, "default") != 0 && strcmp(type, "mrope") != 0)
            return config_unsupported(&rope, "rope_type", type, err);
    }
    out->theta = theta;
    out->rotary_dim = (uint32_t)(head_dim * factor);
    if (out->rotary_dim == 0 || out->rotary_dim % 2 != 0)
        return err_set(err, SLUICE_E_MISMATCH,
                       "%s: head_dim %u times partial_rotary_factor %g gives %u rotated "
                       "dimensions; an even number is needed",
                       node->file, head_dim, factor, out->rotary_dim);
    return SLUICE_OK;
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
    *out = freqs;
    return SLUICE_OK;
}
