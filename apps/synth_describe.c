/* From a config to the tensors of a checkpoint, in the layouts that are published. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"
#include "synth.h"
#include "synth_shape.h"

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

/* What adding tensors needs to know. */
struct maker {
    struct synth_model *m;
    const struct synth_options *o;
    struct synth_shape s;
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
        snprintf(name, sizeof name, n_stack ? "%s" : "%s.weight", base);
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

/* A norm that changes nothing: one, but zero in the original layout of a centred family. */
static enum sluice_status add_norm(struct maker *k, const char *name, uint64_t n)
{
    float one = k->s.family->centred && k->o->layout != SYNTH_MLX ? 0.0f : 1.0f;
    return add_vector(k, name, n, one, one);
}

static const char *prefix_of(const struct maker *k)
{
    return k->o->layout == SYNTH_MLX ? k->s.family->mlx : k->s.family->original;
}

static const char *in_layer(char out[SYNTH_NAME], const struct maker *k, uint32_t layer,
                            const char *rest)
{
    snprintf(out, SYNTH_NAME, "%slayers.%u.%s", prefix_of(k), layer, rest);
    return out;
}

/* A name in the module that holds router and experts, and perhaps in a module of that. */
static const char *in_moe(char out[SYNTH_NAME], const struct maker *k, uint32_t layer,
                          const char *module, const char *rest)
{
    snprintf(out, SYNTH_NAME, "%slayers.%u.%s.%s%s%s", prefix_of(k), layer, k->s.family->moe,
             module, module[0] ? "." : "", rest);
    return out;
}

/* What writes to the residual stream is small, so that many layers do not let it grow. */
static float writer_gain(const struct maker *k)
{
    return 0.5f / sqrtf((float)k->s.layers);
}

static enum sluice_status add_biases(struct maker *k, uint32_t l, uint64_t q, uint64_t kv)
{
    char name[SYNTH_NAME];
    if (!k->s.bias) return SLUICE_OK;
    TRY(add_vector(k, in_layer(name, k, l, "self_attn.q_proj.bias"), q, -0.1f, 0.1f));
    TRY(add_vector(k, in_layer(name, k, l, "self_attn.k_proj.bias"), kv, -0.1f, 0.1f));
    TRY(add_vector(k, in_layer(name, k, l, "self_attn.v_proj.bias"), kv, -0.1f, 0.1f));
    if (!k->s.family->out_bias) return SLUICE_OK;
    return add_vector(k, in_layer(name, k, l, "self_attn.o_proj.bias"), k->s.hidden, -0.1f, 0.1f);
}

static enum sluice_status add_attention(struct maker *k, uint32_t l)
{
    const struct synth_shape *s = &k->s;
    char name[SYNTH_NAME];
    uint64_t q = (uint64_t)s->heads * s->head_dim, kv = (uint64_t)s->kv_heads * s->head_dim;
    uint64_t q_rows = s->family->gated ? 2 * q : q;
    uint32_t bits = k->o->bits;
    bool whole = s->family->qk_norm == SYNTH_QK_WHOLE;
    TRY(add_matrix(k, in_layer(name, k, l, "self_attn.q_proj"), 0, q_rows, s->hidden, bits, 1));
    TRY(add_matrix(k, in_layer(name, k, l, "self_attn.k_proj"), 0, kv, s->hidden, bits, 1));
    TRY(add_matrix(k, in_layer(name, k, l, "self_attn.v_proj"), 0, kv, s->hidden, bits, 1));
    TRY(add_matrix(k, in_layer(name, k, l, "self_attn.o_proj"), 0, s->hidden, q, bits,
                   writer_gain(k)));
    TRY(add_biases(k, l, q_rows, kv));
    if (s->family->qk_norm == SYNTH_QK_NONE || !s->qk_norm) return SLUICE_OK;
    TRY(add_norm(k, in_layer(name, k, l, "self_attn.q_norm.weight"), whole ? q : s->head_dim));
    return add_norm(k, in_layer(name, k, l, "self_attn.k_norm.weight"), whole ? kv : s->head_dim);
}

/* What goes into DeltaNet, in two matrices or in four. */
static enum sluice_status add_delta_inputs(struct maker *k, uint32_t l, uint64_t channels,
                                           uint64_t values)
{
    const struct synth_shape *s = &k->s;
    char name[SYNTH_NAME];
    uint64_t heads = s->v_heads, h = s->hidden;
    uint32_t bits = k->o->bits;
    if (s->family->fused) {
        TRY(add_matrix(k, in_layer(name, k, l, "linear_attn.in_proj_qkvz"), 0, channels + values, h,
                       bits, 1));
        return add_matrix(k, in_layer(name, k, l, "linear_attn.in_proj_ba"), 0, 2 * heads, h, bits,
                          1);
    }
    TRY(add_matrix(k, in_layer(name, k, l, "linear_attn.in_proj_qkv"), 0, channels, h, bits, 1));
    TRY(add_matrix(k, in_layer(name, k, l, "linear_attn.in_proj_z"), 0, values, h, bits, 1));
    TRY(add_matrix(k, in_layer(name, k, l, "linear_attn.in_proj_a"), 0, heads, h, bits, 1));
    return add_matrix(k, in_layer(name, k, l, "linear_attn.in_proj_b"), 0, heads, h, bits, 1);
}

static enum sluice_status add_delta_net(struct maker *k, uint32_t l)
{
    const struct synth_shape *s = &k->s;
    char name[SYNTH_NAME];
    uint64_t values = (uint64_t)s->v_heads * s->dv;
    uint64_t channels = 2ull * s->k_heads * s->dk + values, heads = s->v_heads;
    uint64_t mlx[3] = {channels, s->conv, 1}, original[3] = {channels, 1, s->conv};
    TRY(add_delta_inputs(k, l, channels, values));
    TRY(add_matrix(k, in_layer(name, k, l, "linear_attn.out_proj"), 0, s->hidden, values,
                   k->o->bits, writer_gain(k)));
    TRY(add(k, in_layer(name, k, l, "linear_attn.conv1d.weight"), "BF16", 3,
            k->o->layout == SYNTH_MLX ? mlx : original, SYNTH_UNIFORM, -0.5f, 0.5f));
    TRY(add(k, in_layer(name, k, l, "linear_attn.A_log"), "F32", 1, &heads, SYNTH_F32, 0.0f, 2.7f));
    TRY(add_vector(k, in_layer(name, k, l, "linear_attn.dt_bias"), heads, -4.0f, 0.0f));
    return add_vector(k, in_layer(name, k, l, "linear_attn.norm.weight"), s->dv, 1.0f, 1.0f);
}

/* One tensor per matrix of an expert. */
static enum sluice_status add_single_experts(struct maker *k, uint32_t l)
{
    const struct synth_shape *s = &k->s;
    const char *const *names = s->family->single;
    char name[SYNTH_NAME], module[64];
    for (uint32_t e = 0; e < s->experts; e++) {
        snprintf(module, sizeof module, "experts.%u", e);
        TRY(add_matrix(k, in_moe(name, k, l, module, names[0]), 0, s->inter, s->hidden, 0, 1));
        TRY(add_matrix(k, in_moe(name, k, l, module, names[1]), 0, s->inter, s->hidden, 0, 1));
        TRY(add_matrix(k, in_moe(name, k, l, module, names[2]), 0, s->hidden, s->inter, 0,
                       writer_gain(k)));
    }
    return SLUICE_OK;
}

static enum sluice_status add_experts(struct maker *k, uint32_t l)
{
    const struct synth_shape *s = &k->s;
    char name[SYNTH_NAME];
    uint64_t n = s->experts, inter = s->inter, h = s->hidden;
    uint32_t bits = k->o->bits;
    float down = writer_gain(k);
    if (k->o->layout == SYNTH_BF16 && s->family->single) return add_single_experts(k, l);
    if (k->o->layout == SYNTH_BF16) {
        TRY(add_matrix(k, in_moe(name, k, l, "experts", "gate_up_proj"), n, 2 * inter, h, 0, 1));
        return add_matrix(k, in_moe(name, k, l, "experts", "down_proj"), n, h, inter, 0, down);
    }
    TRY(add_matrix(k, in_moe(name, k, l, "switch_mlp", "gate_proj"), n, inter, h, bits, 1));
    TRY(add_matrix(k, in_moe(name, k, l, "switch_mlp", "up_proj"), n, inter, h, bits, 1));
    return add_matrix(k, in_moe(name, k, l, "switch_mlp", "down_proj"), n, h, inter, bits, down);
}

/* Gate, up and down under a module of the layer. */
static enum sluice_status add_mlp(struct maker *k, uint32_t l, const char *module, uint64_t inter)
{
    char name[SYNTH_NAME], base[64];
    uint64_t h = k->s.hidden;
    uint32_t bits = k->o->bits;
    snprintf(base, sizeof base, "%s.gate_proj", module);
    TRY(add_matrix(k, in_layer(name, k, l, base), 0, inter, h, bits, 1));
    snprintf(base, sizeof base, "%s.up_proj", module);
    TRY(add_matrix(k, in_layer(name, k, l, base), 0, inter, h, bits, 1));
    snprintf(base, sizeof base, "%s.down_proj", module);
    return add_matrix(k, in_layer(name, k, l, base), 0, h, inter, bits, writer_gain(k));
}

/* The router, which some families leave unpacked. */
static enum sluice_status add_router(struct maker *k, uint32_t l)
{
    const struct synth_shape *s = &k->s;
    char name[SYNTH_NAME];
    uint64_t shape[2] = {s->experts, s->hidden};
    float range = sqrtf(3.0f / (float)s->hidden);
    if (s->family->plain_router)
        TRY(add(k, in_moe(name, k, l, "", "gate.weight"), "BF16", 2, shape, SYNTH_UNIFORM, -range,
                range));
    else
        TRY(add_matrix(k, in_moe(name, k, l, "", "gate"), 0, s->experts, s->hidden, 8, 1));
    if (!s->family->correction) return SLUICE_OK;
    return add(k, in_moe(name, k, l, "", s->family->correction), "F32", 1, shape, SYNTH_F32, -0.1f,
               0.1f);
}

static enum sluice_status add_moe(struct maker *k, uint32_t l)
{
    const struct synth_shape *s = &k->s;
    char name[SYNTH_NAME], module[64];
    TRY(add_router(k, l));
    if (s->family->shared_gate)
        TRY(add_matrix(k, in_moe(name, k, l, "", "shared_expert_gate"), 0, 1, s->hidden, 8, 1));
    if (s->shared) {
        snprintf(module, sizeof module, "%s.%s", s->family->moe, s->family->shared);
        TRY(add_mlp(k, l, module, s->shared));
    }
    return add_experts(k, l);
}

static enum sluice_status add_layer(struct maker *k, uint32_t l)
{
    char name[SYNTH_NAME];
    TRY(add_norm(k, in_layer(name, k, l, "input_layernorm.weight"), k->s.hidden));
    TRY(synth_is_linear(&k->s, l) ? add_delta_net(k, l) : add_attention(k, l));
    TRY(add_norm(k, in_layer(name, k, l, "post_attention_layernorm.weight"), k->s.hidden));
    return synth_is_dense(&k->s, l) ? add_mlp(k, l, "mlp", k->s.dense_inter) : add_moe(k, l);
}

static enum sluice_status add_all(struct maker *k)
{
    const struct synth_shape *s = &k->s;
    char name[SYNTH_NAME];
    snprintf(name, sizeof name, "%sembed_tokens", prefix_of(k));
    TRY(add_matrix(k, name, 0, s->vocab, s->hidden, k->o->bits, sqrtf((float)s->hidden)));
    for (uint32_t l = 0; l < s->layers; l++) TRY(add_layer(k, l));
    snprintf(name, sizeof name, "%snorm.weight", prefix_of(k));
    TRY(add_norm(k, name, s->hidden));
    if (s->tied) return SLUICE_OK;
    const char *mlx_head = k->o->layout == SYNTH_MLX ? s->family->mlx_head : NULL;
    return add_matrix(k, mlx_head ? mlx_head : "lm_head", 0, s->vocab, s->hidden, k->o->bits, 1);
}

/* The config */

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

static json_t *eight_bits(const struct maker *k)
{
    return json_pack("{s:i, s:i}", "group_size", (int)k->o->group, "bits", 8);
}

/* The router and the shared gate keep 8 bits, as published conversions do. */
static enum sluice_status add_quantization(const struct maker *k)
{
    if (k->o->layout != SYNTH_MLX) return SLUICE_OK;
    json_t *q = json_pack("{s:i, s:i, s:s}", "group_size", (int)k->o->group, "bits",
                          (int)k->o->bits, "mode", "affine");
    char name[SYNTH_NAME];
    for (uint32_t l = 0; q && l < k->s.layers && k->o->bits != 8; l++) {
        if (synth_is_dense(&k->s, l)) continue;
        if (!k->s.family->plain_router)
            json_object_set_new(q, in_moe(name, k, l, "", "gate"), eight_bits(k));
        if (k->s.family->shared_gate)
            json_object_set_new(q, in_moe(name, k, l, "", "shared_expert_gate"), eight_bits(k));
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
    TRY(cut_layers(k, text));
    TRY(synth_shape_read(&k->s, k->m->config, text, k->err));
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
