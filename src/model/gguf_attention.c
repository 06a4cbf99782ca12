/* What the metadata of GGUF files says of attention: heads, rotations, scaled positions. */
#include <inttypes.h>
#include <math.h>

#include "model/gguf_arch.h"
#include "model/rope.h"

/* Leading values of a head that rotate, as the part of head_dim that config.json has. */
static enum sluice_status set_rotary(const struct gguf_model *m, uint32_t head_dim)
{
    uint32_t dims;
    TRY(gguf_key_u32_or(m, "rope.dimension_count", head_dim, &dims));
    if (dims == 0 || dims > head_dim)
        return err_set(m->err, SLUICE_E_FORMAT,
                       "%s: key '%s.rope.dimension_count' is %" PRIu32 ", but a head has %" PRIu32
                       " values",
                       m->file, m->arch->name, dims, head_dim);
    double part = (double)dims / head_dim;
    if ((uint32_t)(head_dim * part) < dims) part = nextafter(part, 1);
    return gguf_set_f64(m, "partial_rotary_factor", part);
}

static enum sluice_status set_head_dim(const struct gguf_model *m)
{
    uint32_t hidden, heads, keys, values;
    TRY(gguf_key_u32_or(m, "embedding_length", UINT32_MAX, &hidden));
    TRY(gguf_key_u32_or(m, "attention.head_count", UINT32_MAX, &heads));
    TRY(gguf_key_u32_or(m, "attention.key_length", heads ? hidden / heads : 0, &keys));
    TRY(gguf_key_u32_or(m, "attention.value_length", keys, &values));
    if (keys != values)
        return err_set(m->err, SLUICE_E_UNSUPPORTED,
                       "%s: key '%s.attention.key_length' is %" PRIu32
                       " and '%s.attention.value_length' is %" PRIu32
                       "; only equal ones are supported",
                       m->file, m->arch->name, keys, m->arch->name, values);
    TRY(gguf_set_u32(m, "head_dim", keys));
    return set_rotary(m, keys);
}

/* Some layers have biases when the first one has. */
static enum sluice_status set_biases(const struct gguf_model *m)
{
    return gguf_set_bool(m, "attention_bias", gguf_has(m, "blk.0.attn_q.bias"));
}

enum sluice_status gguf_set_attention(const struct gguf_model *m)
{
    TRY(set_head_dim(m));
    TRY(set_biases(m));
    return gguf_set_scaling(m);
}

static enum sluice_status put_scale(const struct gguf_model *m, json_t *scaling, const char *key,
                                    const char *field)
{
    double x;
    TRY(gguf_key_f64_or(m, key, 0, &x));
    if (x == 0 || json_object_set_new(scaling, field, json_real(x)) == 0) return SLUICE_OK;
    return err_nomem(m->err, m->file, sizeof *scaling);
}

/* The key multiplies what follows from the factor; the field stands instead of that. */
static enum sluice_status put_attention_factor(const struct gguf_model *m, json_t *scaling)
{
    double by;
    TRY(gguf_key_f64_or(m, "rope.scaling.yarn_attn_factor", 1, &by));
    if (by == 1) return SLUICE_OK;
    double factor = json_number_value(json_object_get(scaling, "factor"));
    double usual = rope_yarn_magnitude(factor, 1);
    if (json_object_set_new(scaling, "attention_factor", json_real(by * usual)) == 0)
        return SLUICE_OK;
    return err_nomem(m->err, m->file, sizeof *scaling);
}

/* YaRN (arXiv:2309.00071). */
static enum sluice_status fill_yarn(const struct gguf_model *m, json_t *scaling)
{
    static const char *const keys[][2] = {
        {"rope.scaling.factor", "factor"},
        {"rope.scaling.original_context_length", "original_max_position_embeddings"},
        {"rope.scaling.yarn_beta_fast", "beta_fast"},
        {"rope.scaling.yarn_beta_slow", "beta_slow"},
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        TRY(put_scale(m, scaling, keys[i][0], keys[i][1]));
    TRY(put_attention_factor(m, scaling));
    if (json_object_set_new(scaling, "rope_type", json_string("yarn")) == 0) return SLUICE_OK;
    return err_nomem(m->err, m->file, sizeof *scaling);
}

enum sluice_status gguf_set_scaling(const struct gguf_model *m)
{
    struct gguf_full_key key = gguf_full_key(m, "rope.scaling.type");
    const struct gguf_value *value = gguf_find(m->header, key.text);
    struct span type = span_str("none");
    if (value && !gguf_string(value, &type))
        return err_set(m->err, SLUICE_E_FORMAT, "%s: key '%s' must be a string", m->file, key.text);
    if (span_equal(type, span_str("none"))) return SLUICE_OK;
    if (!span_equal(type, span_str("yarn")))
        return err_set(m->err, SLUICE_E_UNSUPPORTED,
                       "%s: key '%s' is '%.*s'; yarn and none are known", m->file, key.text,
                       (int)(type.len < 60 ? type.len : 60), (const char *)type.data);
    json_t *scaling = json_object();
    TRY(gguf_set(m, "rope_scaling", scaling));
    return fill_yarn(m, scaling);
}

enum sluice_status gguf_add_scaling(const struct gguf_model *m, const char *field, json_t *value)
{
    json_t *scaling = json_object_get(m->config, "rope_scaling");
    if (!scaling) {
        json_decref(value);
        return SLUICE_OK;
    }
    if (json_object_set_new(scaling, field, value) == 0) return SLUICE_OK;
    return err_nomem(m->err, m->file, sizeof *value);
}

enum sluice_status gguf_expect_sigmoid(const struct gguf_model *m, bool by_nature)
{
    enum { SIGMOID = 2 };
    uint32_t kind;
    TRY(gguf_key_u32_or(m, "expert_gating_func", by_nature ? SIGMOID : 0, &kind));
    if (kind == SIGMOID) return SLUICE_OK;
    return err_set(m->err, SLUICE_E_UNSUPPORTED,
                   "%s: key '%s.expert_gating_func' is %" PRIu32
                   " or absent; only 2, sigmoid, is supported for this architecture",
                   m->file, m->arch->name, kind);
}
