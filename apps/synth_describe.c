/* From a config to the tensors of a checkpoint, in the layouts that are published. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"
#include "synth_make.h"

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

/* What tells tokens of each other. */
static enum sluice_status add_mixer(struct synth_maker *k, uint32_t l)
{
    if (synth_is_linear(&k->s, l)) return synth_add_delta_net(k, l);
    return k->s.family->latent ? synth_add_latent_attention(k, l) : synth_add_attention(k, l);
}

static enum sluice_status add_layer(struct synth_maker *k, uint32_t l)
{
    char name[SYNTH_NAME];
    TRY(synth_add_norm(k, synth_in_layer(name, k, l, "input_layernorm.weight"), k->s.hidden));
    TRY(add_mixer(k, l));
    TRY(synth_add_norm(k, synth_in_layer(name, k, l, "post_attention_layernorm.weight"),
                       k->s.hidden));
    return synth_is_dense(&k->s, l) ? synth_add_mlp(k, l, "mlp", k->s.dense_inter)
                                    : synth_add_moe(k, l);
}

static enum sluice_status add_all(struct synth_maker *k)
{
    const struct synth_shape *s = &k->s;
    char name[SYNTH_NAME];
    snprintf(name, sizeof name, "%sembed_tokens", synth_prefix(k));
    TRY(synth_add_matrix(k, name, 0, s->vocab, s->hidden, k->o->bits, sqrtf((float)s->hidden)));
    for (uint32_t l = 0; l < s->layers; l++) TRY(add_layer(k, l));
    snprintf(name, sizeof name, "%snorm.weight", synth_prefix(k));
    TRY(synth_add_norm(k, name, s->hidden));
    if (s->tied) return SLUICE_OK;
    const char *mlx_head = k->o->layout == SYNTH_MLX ? s->family->mlx_head : NULL;
    return synth_add_matrix(k, mlx_head ? mlx_head : "lm_head", 0, s->vocab, s->hidden, k->o->bits,
                            1);
}

/* The config */

static enum sluice_status load_config(struct synth_maker *k)
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
static enum sluice_status cut_layers(struct synth_maker *k, json_t *text)
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

static json_t *eight_bits(const struct synth_maker *k)
{
    return json_pack("{s:i, s:i}", "group_size", (int)k->o->group, "bits", 8);
}

/* The router and the shared gate keep 8 bits, as published conversions do. */
static enum sluice_status add_mlx_quantization(const struct synth_maker *k)
{
    json_t *q = json_pack("{s:i, s:i, s:s}", "group_size", (int)k->o->group, "bits",
                          (int)k->o->bits, "mode", "affine");
    char name[SYNTH_NAME];
    for (uint32_t l = 0; q && l < k->s.layers && k->o->bits != 8; l++) {
        if (synth_is_dense(&k->s, l)) continue;
        if (!k->s.family->plain_router)
            json_object_set_new(q, synth_in_moe(name, k, l, "", synth_router(k->s.family)),
                                eight_bits(k));
        if (k->s.family->shared_gate)
            json_object_set_new(q, synth_in_moe(name, k, l, "", "shared_expert_gate"),
                                eight_bits(k));
    }
    if (!q || json_object_set_new(k->m->config, "quantization", q) != 0)
        return fail(k->err, SLUICE_E_NOMEM, "config: %s", "out of memory");
    return SLUICE_OK;
}

static enum sluice_status add_quantization(const struct synth_maker *k)
{
    if (k->o->layout == SYNTH_MLX) return add_mlx_quantization(k);
    if (k->o->layout == SYNTH_BF16) return SLUICE_OK;
    if (k->s.family->experts != SYNTH_PAIRED)
        return fail(k->err, SLUICE_E_UNSUPPORTED, "%s is not published in MXFP4; gpt_oss is",
                    k->s.family->type);
    json_t *q = json_pack("{s:s}", "quant_method", "mxfp4");
    if (q && json_object_set_new(k->m->config, "quantization_config", q) == 0) return SLUICE_OK;
    return fail(k->err, SLUICE_E_NOMEM, "config: %s", "out of memory");
}

static enum sluice_status describe(struct synth_maker *k)
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
    struct synth_maker k = {.m = m, .o = options, .err = err};
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
