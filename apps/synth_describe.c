/* From a config to the tensors of a checkpoint, in the layouts that are published. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"
#include "synth.h"

/* The text models of the published configs; what they leave out has the family's default. */
static const struct {
    const char *name, *config;
} known[] = {
    {"qwen3.6-35b-a3b",
     "{\"model_type\":\"qwen3_5_moe\",\"tie_word_embeddings\":false,\"text_config\":{"
     "\"model_type\":\"qwen3_5_moe_text\",\"hidden_size\":2048,\"num_hidden_layers\":40,"
     "\"full_attention_interval\":4,\"num_attention_heads\":16,\"num_key_value_heads\":2,"
     "\"head_dim\":256,\"linear_num_value_heads\":32,\"linear_num_key_heads\":16,"
     "\"linear_key_head_dim\":128,\"linear_value_head_dim\":128,\"linear_conv_kernel_dim\":4,"
     "\"num_experts\":256,\"num_experts_per_tok\":8,\"moe_intermediate_size\":512,"
     "\"shared_expert_intermediate_size\":512,\"vocab_size\":248320,\"rms_norm_eps\":1e-6,"
     "\"max_position_embeddings\":262144,\"eos_token_id\":248046,\"hidden_act\":\"silu\","
     "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000000.0,"
     "\"partial_rotary_factor\":0.25}}}"},
    {"qwen3.5-397b-a17b",
     "{\"model_type\":\"qwen3_5_moe\",\"tie_word_embeddings\":false,\"text_config\":{"
     "\"model_type\":\"qwen3_5_moe_text\",\"hidden_size\":4096,\"num_hidden_layers\":60,"
     "\"full_attention_interval\":4,\"num_attention_heads\":32,\"num_key_value_heads\":2,"
     "\"head_dim\":256,\"linear_num_value_heads\":64,\"linear_num_key_heads\":16,"
     "\"linear_key_head_dim\":128,\"linear_value_head_dim\":128,\"linear_conv_kernel_dim\":4,"
     "\"num_experts\":512,\"num_experts_per_tok\":10,\"moe_intermediate_size\":1024,"
     "\"shared_expert_intermediate_size\":1024,\"vocab_size\":248320,\"rms_norm_eps\":1e-6,"
     "\"max_position_embeddings\":262144,\"eos_token_id\":248046,\"hidden_act\":\"silu\","
     "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000000.0,"
     "\"partial_rotary_factor\":0.25}}}"},
};

const char *synth_names(void)
{
    return "qwen3.6-35b-a3b, qwen3.5-397b-a17b";
}

enum { MAX_LAYERS = 4096 };

struct shape {
    uint32_t hidden, layers, vocab, heads, kv_heads, head_dim;
    uint32_t k_heads, v_heads, dk, dv, conv, experts, inter, shared, interval;
    bool tied;
};

/* What adding tensors needs to know. */
struct maker {
    struct synth_model *m;
    const struct synth_options *o;
    struct shape s;
    const json_t *layer_types;
    struct sluice_error *err;
};

static enum sluice_status add(struct maker *k, const char *name, const char *dtype, uint32_t rank,
                              const uint64_t *shape, enum synth_fill fill, float lo, float hi)
{
    struct synth_model *m = k->m;
    if (m->n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 1024;
        struct synth_tensor *grown = realloc(m->tensors, cap * sizeof *grown);
        if (!grown) return fail(k->err, SLUICE_E_NOMEM, "tensors: %s", "out of memory");
        m->tensors = grown;
        m->cap = cap;
    }
    struct synth_tensor *t = &m->tensors[m->n++];
    *t = (struct synth_tensor){.dtype = dtype,
                               .rank = rank,
                               .bytes = strcmp(dtype, "BF16") == 0 ? 2 : 4,
                               .fill = fill,
                               .lo = lo,
                               .hi = hi};
    snprintf(t->name, sizeof t->name, "%s", name);
    bool fits = true;
    for (uint32_t i = 0; i < rank; i++) {
        t->shape[i] = shape[i];
        fits = fits && !__builtin_mul_overflow(t->bytes, shape[i], &t->bytes);
    }
    fits = fits && !__builtin_add_overflow(m->bytes, t->bytes, &m->bytes) && m->bytes <= INT64_MAX;
    if (fits) return SLUICE_OK;
    return fail(k->err, SLUICE_E_FORMAT, "with tensor '%s' the model is larger than any file",
                name);
}

/*
 * A matrix, or a stack of n_stack of them, whose entries have standard deviation gain / sqrt(cols):
 * activations then keep their size from layer to layer.
 */
static enum sluice_status add_matrix(struct maker *k, const char *base, uint64_t n_stack,
                                     uint64_t rows, uint64_t cols, uint32_t bits, float gain)
{
    char name[SYNTH_NAME];
    uint64_t shape[3] = {n_stack, rows, cols};
    uint32_t rank = n_stack ? 3 : 2;
    uint64_t *dims = n_stack ? shape : shape + 1;
    float deviation = gain / sqrtf((float)cols);
    if (k->o->layout == SYNTH_BF16) {
        bool fused = strstr(base, ".experts.") != NULL;
        snprintf(name, sizeof name, fused ? "%s" : "%s.weight", base);
        float range = deviation * sqrtf(3.0f);
        return add(k, name, "BF16", rank, dims, SYNTH_UNIFORM, -range, range);
    }
    if (cols % k->o->group)
        return fail(k->err, SLUICE_E_ARGUMENT,
                    "'%s' has rows of %llu weights, which groups of %u do not divide; give a "
                    "smaller --group",
                    base, (unsigned long long)cols, k->o->group);
    float levels = (float)((1u << bits) - 1);
    float scale = deviation * sqrtf(12.0f / (levels * (levels + 2.0f)));
    shape[2] = cols * bits / 32;
    snprintf(name, sizeof name, "%s.weight", base);
    TRY(add(k, name, "U32", rank, dims, SYNTH_BITS, 0, 0));
    shape[2] = cols / k->o->group;
    snprintf(name, sizeof name, "%s.scales", base);
    TRY(add(k, name, "BF16", rank, dims, SYNTH_CONST, scale, scale));
    snprintf(name, sizeof name, "%s.biases", base);
    return add(k, name, "BF16", rank, dims, SYNTH_CONST, -scale * levels / 2, 0);
}

static enum sluice_status add_vector(struct maker *k, const char *name, uint64_t n, float lo,
                                     float hi)
{
    return add(k, name, "BF16", 1, &n, lo == hi ? SYNTH_CONST : SYNTH_UNIFORM, lo, hi);
}

/* A norm that changes nothing: one as MLX stores it, zero in the original layout. */
static enum sluice_status add_norm(struct maker *k, const char *name, uint64_t n)
{
    float one = k->o->layout == SYNTH_MLX ? 1.0f : 0.0f;
    return add_vector(k, name, n, one, one);
}

static const char *in_layer(char out[SYNTH_NAME], const struct maker *k, uint32_t layer,
                            const char *rest)
{
    const char *prefix =
        k->o->layout == SYNTH_MLX ? "language_model.model." : "model.language_model.";
    snprintf(out, SYNTH_NAME, "%slayers.%u.%s", prefix, layer, rest);
    return out;
}

/* What writes to the residual stream is small, so that many layers do not let it grow. */
static float writer_gain(const struct maker *k)
{
    return 0.5f / sqrtf((float)k->s.layers);
}

static enum sluice_status add_attention(struct maker *k, uint32_t l)
{
    const struct shape *s = &k->s;
    char name[SYNTH_NAME];
    uint64_t q = (uint64_t)s->heads * s->head_dim, kv = (uint64_t)s->kv_heads * s->head_dim;
    uint32_t bits = k->o->bits;
    TRY(add_matrix(k, in_layer(name, k, l, "self_attn.q_proj"), 0, 2 * q, s->hidden, bits, 1));
    TRY(add_matrix(k, in_layer(name, k, l, "self_attn.k_proj"), 0, kv, s->hidden, bits, 1));
    TRY(add_matrix(k, in_layer(name, k, l, "self_attn.v_proj"), 0, kv, s->hidden, bits, 1));
    TRY(add_matrix(k, in_layer(name, k, l, "self_attn.o_proj"), 0, s->hidden, q, bits,
                   writer_gain(k)));
    TRY(add_norm(k, in_layer(name, k, l, "self_attn.q_norm.weight"), s->head_dim));
    return add_norm(k, in_layer(name, k, l, "self_attn.k_norm.weight"), s->head_dim);
}

static enum sluice_status add_delta_net(struct maker *k, uint32_t l)
{
    const struct shape *s = &k->s;
    char name[SYNTH_NAME];
    uint64_t values = (uint64_t)s->v_heads * s->dv;
    uint64_t channels = 2ull * s->k_heads * s->dk + values, heads = s->v_heads;
    uint64_t mlx[3] = {channels, s->conv, 1}, original[3] = {channels, 1, s->conv};
    uint32_t bits = k->o->bits;
    TRY(add_matrix(k, in_layer(name, k, l, "linear_attn.in_proj_qkv"), 0, channels, s->hidden, bits,
                   1));
    TRY(add_matrix(k, in_layer(name, k, l, "linear_attn.in_proj_z"), 0, values, s->hidden, bits,
                   1));
    TRY(add_matrix(k, in_layer(name, k, l, "linear_attn.in_proj_a"), 0, heads, s->hidden, bits, 1));
    TRY(add_matrix(k, in_layer(name, k, l, "linear_attn.in_proj_b"), 0, heads, s->hidden, bits, 1));
    TRY(add_matrix(k, in_layer(name, k, l, "linear_attn.out_proj"), 0, s->hidden, values, bits,
                   writer_gain(k)));
    TRY(add(k, in_layer(name, k, l, "linear_attn.conv1d.weight"), "BF16", 3,
            k->o->layout == SYNTH_MLX ? mlx : original, SYNTH_UNIFORM, -0.5f, 0.5f));
    TRY(add(k, in_layer(name, k, l, "linear_attn.A_log"), "F32", 1, &heads, SYNTH_F32, 0.0f, 2.7f));
    TRY(add_vector(k, in_layer(name, k, l, "linear_attn.dt_bias"), heads, -4.0f, 0.0f));
    return add_vector(k, in_layer(name, k, l, "linear_attn.norm.weight"), s->dv, 1.0f, 1.0f);
}

static enum sluice_status add_experts(struct maker *k, uint32_t l)
{
    const struct shape *s = &k->s;
    char name[SYNTH_NAME];
    float down = writer_gain(k);
    if (k->o->layout == SYNTH_BF16) {
        TRY(add_matrix(k, in_layer(name, k, l, "mlp.experts.gate_up_proj"), s->experts,
                       2 * (uint64_t)s->inter, s->hidden, 0, 1));
        return add_matrix(k, in_layer(name, k, l, "mlp.experts.down_proj"), s->experts, s->hidden,
                          s->inter, 0, down);
    }
    uint32_t bits = k->o->bits;
    TRY(add_matrix(k, in_layer(name, k, l, "mlp.switch_mlp.gate_proj"), s->experts, s->inter,
                   s->hidden, bits, 1));
    TRY(add_matrix(k, in_layer(name, k, l, "mlp.switch_mlp.up_proj"), s->experts, s->inter,
                   s->hidden, bits, 1));
    return add_matrix(k, in_layer(name, k, l, "mlp.switch_mlp.down_proj"), s->experts, s->hidden,
                      s->inter, bits, down);
}

static enum sluice_status add_moe(struct maker *k, uint32_t l)
{
    const struct shape *s = &k->s;
    char name[SYNTH_NAME];
    uint32_t bits = k->o->bits;
    TRY(add_matrix(k, in_layer(name, k, l, "mlp.gate"), 0, s->experts, s->hidden, 8, 1));
    TRY(add_matrix(k, in_layer(name, k, l, "mlp.shared_expert_gate"), 0, 1, s->hidden, 8, 1));
    TRY(add_matrix(k, in_layer(name, k, l, "mlp.shared_expert.gate_proj"), 0, s->shared, s->hidden,
                   bits, 1));
    TRY(add_matrix(k, in_layer(name, k, l, "mlp.shared_expert.up_proj"), 0, s->shared, s->hidden,
                   bits, 1));
    TRY(add_matrix(k, in_layer(name, k, l, "mlp.shared_expert.down_proj"), 0, s->hidden, s->shared,
                   bits, writer_gain(k)));
    return add_experts(k, l);
}

static bool is_linear(const struct maker *k, uint32_t l)
{
    const char *type = json_string_value(json_array_get(k->layer_types, l));
    return type ? strcmp(type, "linear_attention") == 0 : (l + 1) % k->s.interval != 0;
}

static enum sluice_status add_all(struct maker *k)
{
    const struct shape *s = &k->s;
    bool mlx = k->o->layout == SYNTH_MLX;
    char name[SYNTH_NAME];
    TRY(add_matrix(k,
                   mlx ? "language_model.model.embed_tokens" : "model.language_model.embed_tokens",
                   0, s->vocab, s->hidden, k->o->bits, sqrtf((float)s->hidden)));
    for (uint32_t l = 0; l < s->layers; l++) {
        TRY(add_norm(k, in_layer(name, k, l, "input_layernorm.weight"), s->hidden));
        TRY(is_linear(k, l) ? add_delta_net(k, l) : add_attention(k, l));
        TRY(add_norm(k, in_layer(name, k, l, "post_attention_layernorm.weight"), s->hidden));
        TRY(add_moe(k, l));
    }
    TRY(add_norm(k, mlx ? "language_model.model.norm.weight" : "model.language_model.norm.weight",
                 s->hidden));
    if (s->tied) return SLUICE_OK;
    return add_matrix(k, mlx ? "language_model.lm_head" : "lm_head", 0, s->vocab, s->hidden,
                      k->o->bits, 1);
}

/* The config */

static enum sluice_status need(const struct maker *k, const json_t *text, const char *key,
                               uint32_t *out)
{
    const json_t *value = json_object_get(text, key);
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < 1 || n > 1 << 24)
        return fail(k->err, SLUICE_E_FORMAT, "the config needs a positive integer field %s", key);
    *out = (uint32_t)n;
    return SLUICE_OK;
}

static enum sluice_status read_shape(struct maker *k, const json_t *text)
{
    struct shape *s = &k->s;
    const struct {
        const char *key;
        uint32_t *to;
    } fields[] = {
        {"hidden_size", &s->hidden},
        {"num_hidden_layers", &s->layers},
        {"vocab_size", &s->vocab},
        {"num_attention_heads", &s->heads},
        {"num_key_value_heads", &s->kv_heads},
        {"head_dim", &s->head_dim},
        {"linear_num_key_heads", &s->k_heads},
        {"linear_num_value_heads", &s->v_heads},
        {"linear_key_head_dim", &s->dk},
        {"linear_value_head_dim", &s->dv},
        {"linear_conv_kernel_dim", &s->conv},
        {"num_experts", &s->experts},
        {"moe_intermediate_size", &s->inter},
        {"shared_expert_intermediate_size", &s->shared},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        TRY(need(k, text, fields[i].key, fields[i].to));
    s->interval = 4;
    if (json_object_get(text, "full_attention_interval"))
        TRY(need(k, text, "full_attention_interval", &s->interval));
    k->layer_types = json_object_get(text, "layer_types");
    if (s->layers > MAX_LAYERS)
        return fail(k->err, SLUICE_E_FORMAT, "the config has %u layers, more than %d", s->layers,
                    MAX_LAYERS);
    if (json_is_array(k->layer_types) && json_array_size(k->layer_types) != s->layers)
        return fail(k->err, SLUICE_E_FORMAT, "the config has %u layers and %zu layer_types",
                    s->layers, json_array_size(k->layer_types));
    const json_t *tied = json_object_get(k->m->config, "tie_word_embeddings");
    if (!tied) tied = json_object_get(text, "tie_word_embeddings");
    s->tied = json_is_true(tied);
    return SLUICE_OK;
}

static enum sluice_status load_config(struct maker *k)
{
    const char *like = k->o->like;
    json_error_t e;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].name, like) == 0) k->m->config = json_loads(known[i].config, 0, &e);
    if (k->m->config) return SLUICE_OK;
    k->m->config = json_load_file(like, JSON_REJECT_DUPLICATES, &e);
    if (json_is_object(k->m->config)) return SLUICE_OK;
    return fail(k->err, SLUICE_E_NOT_FOUND,
                "'%s' is neither a known shape (%s) nor a readable config.json: %s", like,
                synth_names(), k->m->config ? "it is no object" : e.text);
}

/* Fewer layers: the pattern is cut with them. */
static enum sluice_status cut_layers(struct maker *k, json_t *text)
{
    if (k->o->layers == 0) return SLUICE_OK;
    json_object_set_new(text, "num_hidden_layers", json_integer(k->o->layers));
    json_t *types = json_object_get(text, "layer_types");
    if (types && json_array_size(types) < k->o->layers)
        return fail(k->err, SLUICE_E_ARGUMENT,
                    "more layers were asked for than layer_types lists%s", "");
    while (types && json_array_size(types) > k->o->layers)
        json_array_remove(types, json_array_size(types) - 1);
    return SLUICE_OK;
}

/* The router and the shared gate keep 8 bits, as published conversions do. */
static enum sluice_status add_quantization(const struct maker *k)
{
    if (k->o->layout != SYNTH_MLX) return SLUICE_OK;
    json_t *q = json_pack("{s:i, s:i, s:s}", "group_size", (int)k->o->group, "bits",
                          (int)k->o->bits, "mode", "affine");
    char name[SYNTH_NAME];
    for (uint32_t l = 0; q && l < k->s.layers && k->o->bits != 8; l++) {
        json_object_set_new(q, in_layer(name, k, l, "mlp.gate"),
                            json_pack("{s:i, s:i}", "group_size", (int)k->o->group, "bits", 8));
        json_object_set_new(q, in_layer(name, k, l, "mlp.shared_expert_gate"),
                            json_pack("{s:i, s:i}", "group_size", (int)k->o->group, "bits", 8));
    }
    if (!q || json_object_set_new(k->m->config, "quantization", q) != 0)
        return fail(k->err, SLUICE_E_NOMEM, "config: %s", "out of memory");
    return SLUICE_OK;
}

static enum sluice_status describe(struct maker *k)
{
    TRY(load_config(k));
    json_t *text = json_object_get(k->m->config, "text_config");
    if (!text) text = k->m->config;
    const char *type = json_string_value(json_object_get(text, "model_type"));
    if (!type || strncmp(type, "qwen3_5_moe", 11) != 0)
        return fail(k->err, SLUICE_E_UNSUPPORTED,
                    "synthetic checkpoints are of model_type qwen3_5_moe, not %s",
                    type ? type : "(none)");
    TRY(cut_layers(k, text));
    TRY(read_shape(k, text));
    json_object_del(k->m->config, "quantization");
    json_object_del(k->m->config, "quantization_config");
    TRY(add_quantization(k));
    return add_all(k);
}

enum sluice_status synth_describe(struct synth_model *m, const struct synth_options *options,
                                  struct sluice_error *err)
{
    *m = (struct synth_model){0};
    struct maker k = {.m = m, .o = options, .err = err};
    enum sluice_status status = describe(&k);
    if (status != SLUICE_OK) synth_release(m);
    return status;
}

void synth_release(struct synth_model *m)
{
    json_decref(m->config);
    free(m->tensors);
    *m = (struct synth_model){0};
}
