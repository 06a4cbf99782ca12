#include "model/quant.h"

#include <stdio.h>

static enum sluice_status read_mode(const struct json_node *node, bool *mxfp4,
                                    struct sluice_error *err)
{
    const char *mode;
    TRY(json_get_string_or(node, "mode", "affine", &mode, err));
    *mxfp4 = strcmp(mode, "mxfp4") == 0;
    if (*mxfp4 || strcmp(mode, "affine") == 0) return SLUICE_OK;
    return err_set(err, SLUICE_E_UNSUPPORTED,
                   "%s: field '%s.mode' is '%s'; only 'affine' and 'mxfp4' quantisation are "
                   "supported",
                   node->file, node->path, mode);
}

static enum sluice_status check_affine(const struct json_node *node, const struct quant_params *p,
                                       struct sluice_error *err)
{
    enum wtype type;
    if (!quant_wtype(p->bits, &type))
        return err_set(err, SLUICE_E_UNSUPPORTED,
                       "%s: field '%s.bits' is %u; 2, 3, 4, 5, 6 and 8 are supported", node->file,
                       node->path, p->bits);
    if (p->group != 32 && p->group != 64 && p->group != 128)
        return err_set(err, SLUICE_E_UNSUPPORTED,
                       "%s: field '%s.group_size' is %u; 32, 64 and 128 are supported", node->file,
                       node->path, p->group);
    return SLUICE_OK;
}

static enum sluice_status read_params(const struct json_node *node,
                                      const struct quant_params *defaults, struct quant_params *out,
                                      struct sluice_error *err)
{
    TRY(read_mode(node, &out->mxfp4, err));
    TRY(json_get_u32_or(node, "bits", 1, 32, out->mxfp4 ? 4 : defaults->bits, &out->bits, err));
    TRY(json_get_u32_or(node, "group_size", 1, 1u << 20, out->mxfp4 ? 32 : defaults->group,
                        &out->group, err));
    if (!out->mxfp4) return check_affine(node, out, err);
    if (out->bits == 4 && out->group == 32) return SLUICE_OK;
    return err_set(err, SLUICE_E_UNSUPPORTED,
                   "%s: field '%s' has mode 'mxfp4' with %u bits in groups of %u; it is 4 bits in "
                   "groups of 32",
                   node->file, node->path, out->bits, out->group);
}

/* Tiles of 128 x 128 with a scale each. */
static enum sluice_status check_fp8(const struct json_node *node, struct sluice_error *err)
{
    const char *format;
    TRY(json_get_string_or(node, "fmt", "e4m3", &format, err));
    const json_t *tile = json_object_get(node->object, "weight_block_size");
    bool tiles = json_array_size(tile) == 2;
    for (size_t i = 0; i < 2 && tiles; i++) {
        const json_t *n = json_array_get(tile, i);
        tiles = json_is_integer(n) && json_integer_value(n) == WTILE;
    }
    bool known = strcmp(format, "e4m3") == 0 || strcmp(format, "float8_e4m3fn") == 0;
    if (tiles && known) return SLUICE_OK;
    return err_set(err, SLUICE_E_UNSUPPORTED,
                   "%s: FP8 weights of this kind are not supported; e4m3 with a "
                   "'weight_block_size' of [128, 128] is",
                   node->file);
}

static enum sluice_status read_method(struct quant *q, const struct json_node *node,
                                      const char *method, struct sluice_error *err)
{
    q->mxfp4 = strcmp(method, "mxfp4") == 0;
    q->fp8 = strcmp(method, "fp8") == 0;
    if (q->fp8) return check_fp8(node, err);
    if (q->mxfp4) return SLUICE_OK;
    return err_set(err, SLUICE_E_UNSUPPORTED,
                   "%s: field 'quantization_config.quant_method' is '%s', which is not "
                   "supported; 'mxfp4', 'fp8' and MLX's affine quantisation are",
                   q->file, method);
}

static const char experts[] = ".experts.";

/* Whether some entry has a name that find_entry() may look for behind an expert's. */
static bool has_experts(const json_t *section)
{
    json_t *object = (json_t *)(uintptr_t)section; /* iterating changes nothing */
    for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
        const char *key = json_object_iter_key(it);
        if (strstr(key, experts) || strstr(key, ".switch_mlp.")) return true;
    }
    return false;
}

enum sluice_status quant_read(struct quant *q, const struct json_node *config,
                              struct sluice_error *err)
{
    static const struct quant_params mlx_defaults = {.bits = 4, .group = 64};
    *q = (struct quant){.file = config->file};
    struct json_node node;
    TRY(json_get_object_or(config, "quantization", &node, err));
    if (!node.object) {
        TRY(json_get_object_or(config, "quantization_config", &node, err));
        const char *method;
        if (!node.object) return SLUICE_OK;
        TRY(json_get_string_or(&node, "quant_method", "affine", &method, err));
        if (strcmp(method, "affine") != 0) return read_method(q, &node, method, err);
    }
    TRY(read_params(&node, &mlx_defaults, &q->defaults, err));
    q->present = true;
    q->section = node.object;
    q->names_experts = has_experts(node.object);
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
    {".gate_proj", ".experts.gate_proj"},    {".up_proj", ".experts.up_proj"},
};

/*
 * An expert that is packed by itself ("layers.3.mlp.experts.7.gate_proj") may come from a matrix of
 * all experts, which the section then names ("layers.3.mlp.switch_mlp.gate_proj", and in GPT-OSS
 * "layers.3.mlp.experts.gate_proj").
 */
static const json_t *find_entry(const struct quant *q, const char *base)
{
    const char *at = strstr(base, experts);
    if (at && !q->names_experts) return NULL;
    const json_t *entry = find_name(q, base);
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
    *out = (struct quant_params){.bits = 4, .group = 32, .mxfp4 = true};
    if (q->mxfp4) return SLUICE_OK;
    if (!q->present)
        return err_set(err, SLUICE_E_MISMATCH,
                       "tensor '%s.weight' is packed, but %s has no field 'quantization'", base,
                       q->file);
    *out = q->defaults;
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
    return read_params(&node, &q->defaults, out, err);
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
