#include "model/quant.h"

#include <stdio.h>

static enum sluice_status check_mode(const struct json_node *node, struct sluice_error *err)
{
    const char *mode;
    TRY(json_get_string_or(node, "mode", "affine", &mode, err));
    if (strcmp(mode, "affine") == 0) return SLUICE_OK;
    return err_set(err, SLUICE_E_UNSUPPORTED,
                   "%s: field '%s.mode' is '%s'; only 'affine' quantisation is supported",
                   node->file, node->path, mode);
}

static enum sluice_status read_params(const struct json_node *node, uint32_t bits, uint32_t group,
                                      struct quant_params *out, struct sluice_error *err)
{
    enum wtype type;
    TRY(check_mode(node, err));
    TRY(json_get_u32_or(node, "bits", 1, 32, bits, &out->bits, err));
    TRY(json_get_u32_or(node, "group_size", 1, 1u << 20, group, &out->group, err));
    if (!quant_wtype(out->bits, &type))
        return err_set(err, SLUICE_E_UNSUPPORTED,
                       "%s: field '%s.bits' is %u; 2, 3, 4, 5, 6 and 8 are supported", node->file,
                       node->path, out->bits);
    if (out->group != 32 && out->group != 64 && out->group != 128)
        return err_set(err, SLUICE_E_UNSUPPORTED,
                       "%s: field '%s.group_size' is %u; 32, 64 and 128 are supported", node->file,
                       node->path, out->group);
    return SLUICE_OK;
}

enum sluice_status quant_read(struct quant *q, const struct json_node *config,
                              struct sluice_error *err)
{
    *q = (struct quant){.file = config->file};
    struct json_node node;
    TRY(json_get_object_or(config, "quantization", &node, err));
    if (!node.object) {
        TRY(json_get_object_or(config, "quantization_config", &node, err));
        const char *method;
        if (!node.object) return SLUICE_OK;
        TRY(json_get_string_or(&node, "quant_method", "affine", &method, err));
        if (strcmp(method, "affine") != 0)
            return err_set(err, SLUICE_E_UNSUPPORTED,
                           "%s: field 'quantization_config.quant_method' is '%s', which is not "
                           "supported; MLX's affine quantisation is",
                           config->file, method);
    }
    struct quant_params params;
    TRY(read_params(&node, 4, 64, &params, err));
    q->present = true;
    q->bits = params.bits;
    q->group = params.group;
    q->section = node.object;
    return SLUICE_OK;
}

/* Converters write names with and without the wrapper's prefix. */
static const json_t *find_name(const struct quant *q, const char *base)
{
    static const char wrapper[] = "language_model.";
    const json_t *entry = json_object_get(q->section, base);
    if (!entry && strncmp(base, wrapper, sizeof wrapper - 1) == 0)
        entry = json_object_get(q->section, base + sizeof wrapper - 1);
    return entry;
}

/* The part of the expert's matrix in the names of matrices that hold all experts. */
static const char *const stacked[][2] = {
    {".gate_proj", ".switch_mlp.gate_proj"}, {".up_proj", ".switch_mlp.up_proj"},
    {".down_proj", ".switch_mlp.down_proj"}, {".gate_proj", ".experts.gate_up_proj"},
    {".up_proj", ".experts.gate_up_proj"},   {".down_proj", ".experts.down_proj"},
};

/*
 * An expert that is packed by itself ("layers.3.mlp.experts.7.gate_proj") may come from a matrix of
 * all experts, which the section then names ("layers.3.mlp.switch_mlp.gate_proj").
 */
static const json_t *find_entry(const struct quant *q, const char *base)
{
    static const char experts[] = ".experts.";
    const json_t *entry = find_name(q, base);
    const char *at = strstr(base, experts);
    const char *rest = at ? strchr(at + sizeof experts - 1, '.') : NULL;
    char name[512];
    for (size_t i = 0; i < sizeof stacked / sizeof stacked[0] && !entry && rest; i++) {
        if (strcmp(rest, stacked[i][0]) != 0) continue;
        int n = snprintf(name, sizeof name, "%.*s%s", (int)(at - base), base, stacked[i][1]);
        if (n > 0 && (size_t)n < sizeof name) entry = find_name(q, name);
    }
    return entry;
}

enum sluice_status quant_lookup(const struct quant *q, const char *base, struct quant_params *out,
                                struct sluice_error *err)
{
    if (!q->present)
        return err_set(err, SLUICE_E_MISMATCH,
                       "tensor '%s.weight' is packed, but %s has no field 'quantization'", base,
                       q->file);
    *out = (struct quant_params){q->bits, q->group};
    const json_t *entry = find_entry(q, base);
    if (!entry || json_is_true(entry)) return SLUICE_OK;
    if (json_is_false(entry))
        return err_set(err, SLUICE_E_MISMATCH,
                       "tensor '%s.weight' is packed, but %s says it is not quantised", base,
                       q->file);
    if (!json_is_object(entry))
        return err_set(err, SLUICE_E_FORMAT,
                       "%s: field 'quantization.%s' must be an object or a boolean", q->file, base);
    struct json_node node = {.object = entry, .file = q->file, .path = base};
    return read_params(&node, q->bits, q->group, out, err);
}

bool quant_wtype(uint32_t bits, enum wtype *type)
{
    switch (bits) {
    case 2: *type = WTYPE_Q2; return true;
    case 3: *type = WTYPE_Q3; return true;
    case 4: *type = WTYPE_Q4; return true;
    case 5: *type = WTYPE_Q5; return true;
    case 6: *type = WTYPE_Q6; return true;
    case 8: *type = WTYPE_Q8; return true;
    default: return false;
    }
}
