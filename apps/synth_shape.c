#include "synth_shape.h"

#include <string.h>

#include "report.h"

enum { MAX_LAYERS = 4096, MAX_SIZE = 1 << 24 };

/* What a Qwen shared expert is. */
#define GATED_EXPERT                                                                               \
    .shared = "shared_expert", .shared_inter = "shared_expert_intermediate_size",                  \
    .shared_gate = true
/* DeltaNet in some layers, gates in the others. */
#define HYBRID .delta = true, .gated = true, .centred = true, .qk_norm = SYNTH_QK_HEADS
#define EXPERTS(number, width) .n_experts = (number), .inter = (width)
/* A sigmoid router, experts and dense layers as DeepSeek-V3 has them. */
#define SIGMOID                                                                                    \
    EXPERTS("n_routed_experts", "moe_intermediate_size"),                                          \
        .shared = "shared_experts", .shared_inter = "n_shared_experts", .shared_counts = true,     \
        .plain_router = true, .correction = "gate.e_score_correction_bias"

static const struct synth_family families[] = {
    {.type = "qwen3_5_moe_text",
     .original = "model.language_model.",
     .mlx = "language_model.model.",
     .mlx_head = "language_model.lm_head",
     .experts = SYNTH_FUSED,
     EXPERTS("num_experts", "moe_intermediate_size"),
     GATED_EXPERT,
     HYBRID},
    {.type = "qwen3_next",
     EXPERTS("num_experts", "moe_intermediate_size"),
     GATED_EXPERT,
     HYBRID,
     .fused = true,
     .out_bias = true},
    {.type = "qwen3_moe",
     EXPERTS("num_experts", "moe_intermediate_size"),
     .out_bias = true,
     .qk_norm = SYNTH_QK_HEADS},
    {.type = "deepseek_v3", SIGMOID, .latent = true, .dense_default = 3},
    {.type = "kimi_k2", SIGMOID, .latent = true, .dense_default = 3},
    {.type = "glm4_moe",
     SIGMOID,
     .shared_default = 1,
     .dense_default = 1,
     .qk_norm = SYNTH_QK_HEADS,
     .qk_norm_asked = true},
    {.type = "gpt_oss",
     .router = "router",
     .experts = SYNTH_PAIRED,
     EXPERTS("num_local_experts", "intermediate_size"),
     .sinks = true,
     .bias_default = true,
     .out_bias = true},
    {.type = "mixtral",
     .moe = "block_sparse_moe",
     .experts = SYNTH_BY_NUMBER,
     EXPERTS("num_local_experts", "intermediate_size")},
    {.type = "olmoe",
     EXPERTS("num_experts", "intermediate_size"),
     .out_bias = true,
     .qk_norm = SYNTH_QK_WHOLE},
    {.type = "minimax_m2",
     .moe = "block_sparse_moe",
     .correction = "e_score_correction_bias",
     .experts = SYNTH_BY_NUMBER,
     EXPERTS("num_local_experts", "intermediate_size"),
     .qk_norm = SYNTH_QK_WHOLE},
};

const char *synth_family_names(void)
{
    return "qwen3_5_moe, qwen3_next, qwen3_moe, deepseek_v3, kimi_k2, glm4_moe, gpt_oss, mixtral, "
           "olmoe, minimax_m2";
}

/* A wrapper's type is that of its text model without "_text". */
static const struct synth_family *find_family(const char *type)
{
    for (size_t i = 0; type && i < sizeof families / sizeof families[0]; i++) {
        const char *known = families[i].type, *end = strstr(known, "_text");
        bool wrapper = end && strlen(type) == (size_t)(end - known) &&
                       strncmp(type, known, (size_t)(end - known)) == 0;
        if (wrapper || strcmp(known, type) == 0) return &families[i];
    }
    return NULL;
}

struct reader {
    const json_t *text;
    struct sluice_error *err;
};

/* A positive number. */
static enum sluice_status need(const struct reader *r, const char *key, uint32_t *out)
{
    const json_t *value = json_object_get(r->text, key);
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < 1 || n > MAX_SIZE)
        return fail(r->err, SLUICE_E_FORMAT, "the config needs a positive integer field %s", key);
    *out = (uint32_t)n;
    return SLUICE_OK;
}

/* A number from 0, which may be left out. */
static enum sluice_status may_have(const struct reader *r, const char *key, uint32_t fallback,
                                   uint32_t *out)
{
    const json_t *value = json_object_get(r->text, key);
    json_int_t n = json_integer_value(value);
    *out = fallback;
    if (!value || json_is_null(value)) return SLUICE_OK;
    if (!json_is_integer(value) || n < 0 || n > MAX_SIZE)
        return fail(r->err, SLUICE_E_FORMAT, "the config's field %s must be a whole number", key);
    *out = (uint32_t)n;
    return SLUICE_OK;
}

static enum sluice_status read_latents(const struct reader *r, struct synth_shape *s)
{
    TRY(need(r, "num_attention_heads", &s->heads));
    TRY(may_have(r, "q_lora_rank", 0, &s->q_rank));
    TRY(need(r, "kv_lora_rank", &s->kv_rank));
    TRY(need(r, "qk_nope_head_dim", &s->nope));
    TRY(need(r, "qk_rope_head_dim", &s->rotated));
    return need(r, "v_head_dim", &s->dv);
}

/* A flag, or what it is when it is left out. */
static bool flag(const struct reader *r, const char *key, bool fallback)
{
    const json_t *value = json_object_get(r->text, key);
    return json_is_boolean(value) ? json_is_true(value) : fallback;
}

static enum sluice_status read_attention(const struct reader *r, struct synth_shape *s)
{
    TRY(need(r, "num_attention_heads", &s->heads));
    TRY(may_have(r, "num_key_value_heads", s->heads, &s->kv_heads));
    TRY(may_have(r, "head_dim", s->hidden / s->heads, &s->head_dim));
    s->bias = flag(r, "attention_bias", s->family->bias_default);
    s->qk_norm = flag(r, "use_qk_norm", !s->family->qk_norm_asked);
    if (s->kv_heads && s->head_dim) return SLUICE_OK;
    return fail(r->err, SLUICE_E_FORMAT, "the config has heads without any values%s", "");
}

static enum sluice_status read_delta_net(const struct reader *r, struct synth_shape *s)
{
    TRY(need(r, "linear_num_key_heads", &s->k_heads));
    TRY(need(r, "linear_num_value_heads", &s->v_heads));
    TRY(need(r, "linear_key_head_dim", &s->dk));
    TRY(need(r, "linear_value_head_dim", &s->dv));
    TRY(need(r, "linear_conv_kernel_dim", &s->conv));
    TRY(may_have(r, "full_attention_interval", 4, &s->interval));
    if (s->interval == 0)
        return fail(r->err, SLUICE_E_FORMAT, "the config's field %s is 0",
                    "full_attention_interval");
    s->layer_types = json_object_get(r->text, "layer_types");
    if (json_is_array(s->layer_types) && json_array_size(s->layer_types) != s->layers)
        return fail(r->err, SLUICE_E_FORMAT, "the config has %u layers and %zu layer_types",
                    s->layers, json_array_size(s->layer_types));
    return SLUICE_OK;
}

/* Experts, and the layers that have a dense MLP instead. */
static enum sluice_status read_moe(const struct reader *r, struct synth_shape *s)
{
    const struct synth_family *f = s->family;
    const char *n_experts = f->n_experts;
    if (!json_object_get(r->text, n_experts)) n_experts = "num_local_experts";
    TRY(need(r, n_experts, &s->experts));
    TRY(need(r, f->inter, &s->inter));
    if (f->shared_counts) {
        TRY(may_have(r, f->shared_inter, f->shared_default, &s->shared));
        if ((uint64_t)s->shared * s->inter > MAX_SIZE)
            return fail(r->err, SLUICE_E_FORMAT, "the config's %u shared experts are too wide",
                        s->shared);
        s->shared *= s->inter;
    } else if (f->shared) {
        TRY(need(r, f->shared_inter, &s->shared));
    }
    TRY(may_have(r, "decoder_sparse_step", 1, &s->sparse_step));
    if (s->sparse_step == 0)
        return fail(r->err, SLUICE_E_FORMAT, "the config's field %s is 0", "decoder_sparse_step");
    if (f->dense_default) TRY(may_have(r, "first_k_dense_replace", f->dense_default, &s->n_dense));
    s->mlp_only = json_object_get(r->text, "mlp_only_layers");
    for (uint32_t l = 0; l < s->layers; l++)
        if (synth_is_dense(s, l)) return need(r, "intermediate_size", &s->dense_inter);
    return SLUICE_OK;
}

enum sluice_status synth_shape_read(struct synth_shape *s, const json_t *top, const json_t *text,
                                    struct sluice_error *err)
{
    const struct reader r = {text, err};
    const char *type = json_string_value(json_object_get(text, "model_type"));
    *s = (struct synth_shape){.family = find_family(type)};
    if (!s->family)
        return fail(err, SLUICE_E_UNSUPPORTED,
                    "synthetic checkpoints are of model_type %s; the config has %s",
                    synth_family_names(), type ? type : "none");
    TRY(need(&r, "hidden_size", &s->hidden));
    TRY(need(&r, "num_hidden_layers", &s->layers));
    TRY(need(&r, "vocab_size", &s->vocab));
    if (s->layers > MAX_LAYERS)
        return fail(err, SLUICE_E_FORMAT, "the config has %u layers, more than %d", s->layers,
                    MAX_LAYERS);
    TRY(s->family->latent ? read_latents(&r, s) : read_attention(&r, s));
    if (s->family->delta) TRY(read_delta_net(&r, s));
    const json_t *tied = json_object_get(top, "tie_word_embeddings");
    if (!tied) tied = json_object_get(text, "tie_word_embeddings");
    s->tied = json_is_true(tied);
    return read_moe(&r, s);
}

bool synth_is_linear(const struct synth_shape *s, uint32_t layer)
{
    if (!s->family->delta) return false;
    const char *type = json_string_value(json_array_get(s->layer_types, layer));
    return type ? strcmp(type, "linear_attention") == 0 : (layer + 1) % s->interval != 0;
}

bool synth_is_dense(const struct synth_shape *s, uint32_t layer)
{
    for (size_t i = 0; i < json_array_size(s->mlp_only); i++)
        if (json_integer_value(json_array_get(s->mlp_only, i)) == layer) return true;
    return layer < s->n_dense || (layer + 1) % s->sparse_step != 0;
}
