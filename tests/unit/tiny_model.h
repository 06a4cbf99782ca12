/*
 * A tiny checkpoint made in memory, to be changed in one place and written to a folder: two layers,
 * DeltaNet and attention, three experts. Values follow from a tensor's name (of an expert: from its
 * layer, number and projection), so that layouts can be compared.
 */
#ifndef TESTS_TINY_MODEL_H
#define TESTS_TINY_MODEL_H

#include <stdint.h>

#include "base/fp16.h"
#include "base/rng.h"
#include "tempdir.h"

enum { TINY_HIDDEN = 32, TINY_VOCAB = 40, TINY_EXPERTS = 3, TINY_INTER = 64, TINY_CHANNELS = 64 };
enum { TINY_MAX = 128 };

struct tiny_tensor {
    char name[144];
    char dtype[8];
    uint32_t rank;
    uint64_t shape[3];
    uint8_t *data;
    size_t bytes;
};

struct tiny {
    struct tiny_tensor tensors[TINY_MAX];
    size_t n;
    char config[2048];
    char generation[512]; /* generation_config.json; "": none */
    bool mlx;             /* what the file's metadata says */
};

enum tiny_layout { TINY_SEPARATE, TINY_FUSED, TINY_STACKED };

static inline struct tiny_tensor *tiny_find(struct tiny *t, const char *name)
{
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->tensors[i].name, name) == 0) return &t->tensors[i];
    fprintf(stderr, "no tensor %s\n", name);
    abort();
}

static inline size_t tiny_elements(const struct tiny_tensor *t)
{
    size_t n = 1;
    for (uint32_t i = 0; i < t->rank; i++) n *= t->shape[i];
    return n;
}

static inline struct tiny_tensor *tiny_add(struct tiny *t, const char *name, uint64_t a, uint64_t b,
                                           uint64_t c)
{
    struct tiny_tensor *out = &t->tensors[t->n++];
    *out = (struct tiny_tensor){.dtype = "BF16", .rank = c ? 3 : b ? 2 : 1, .shape = {a, b, c}};
    snprintf(out->name, sizeof out->name, "%s", name);
    out->bytes = tiny_elements(out) * 2;
    out->data = calloc(out->bytes + 1, 1);
    if (!out->data || t->n == TINY_MAX) abort();
    return out;
}

static inline void tiny_values(uint8_t *out, size_t n, uint64_t seed)
{
    struct rng rng = {seed};
    for (size_t i = 0; i < n; i++) {
        uint16_t half = f32_to_bf16(rng_float(&rng, -1, 1));
        memcpy(out + 2 * i, &half, sizeof half);
    }
}

static inline uint64_t tiny_seed(const char *name)
{
    uint64_t seed = 7;
    for (; *name; name++) seed = seed * 31 + (unsigned char)*name;
    return seed;
}

static inline struct tiny_tensor *tiny_put(struct tiny *t, const char *name, uint64_t a, uint64_t b,
                                           uint64_t c)
{
    struct tiny_tensor *out = tiny_add(t, name, a, b, c);
    tiny_values(out->data, tiny_elements(out), tiny_seed(name));
    return out;
}

static inline const char *tiny_name(const char *format, uint32_t layer)
{
    static char names[4][144];
    static unsigned next;
    char *out = names[next++ % 4];
    const char *hash = strchr(format, '#');
    snprintf(out, sizeof names[0], "%.*s%u%s", (int)(hash - format), format, layer, hash + 1);
    return out;
}

/* The values of one expert's projection: 0 gate, 1 up, 2 down. */
static inline void tiny_expert(uint8_t *out, uint32_t layer, uint32_t expert, uint32_t projection)
{
    tiny_values(out, TINY_INTER * TINY_HIDDEN, 1000 + layer * 100 + expert * 10 + projection);
}

static inline void tiny_separate(struct tiny *t, uint32_t layer)
{
    static const char *const names[] = {"gate", "up", "down"};
    char name[144];
    for (uint32_t e = 0; e < TINY_EXPERTS; e++)
        for (uint32_t p = 0; p < 3; p++) {
            snprintf(name, sizeof name, "model.layers.%u.mlp.experts.%u.%s_proj.weight", layer, e,
                     names[p]);
            tiny_expert(tiny_add(t, name, p == 2 ? TINY_HIDDEN : TINY_INTER,
                                 p == 2 ? TINY_INTER : TINY_HIDDEN, 0)
                            ->data,
                        layer, e, p);
        }
}

static inline void tiny_fused(struct tiny *t, uint32_t layer)
{
    size_t one = TINY_INTER * TINY_HIDDEN * 2;
    struct tiny_tensor *in =
        tiny_add(t, tiny_name("model.layers.#.mlp.experts.gate_up_proj", layer), TINY_EXPERTS,
                 2 * TINY_INTER, TINY_HIDDEN);
    struct tiny_tensor *out = tiny_add(t, tiny_name("model.layers.#.mlp.experts.down_proj", layer),
                                       TINY_EXPERTS, TINY_HIDDEN, TINY_INTER);
    for (uint32_t e = 0; e < TINY_EXPERTS; e++) {
        tiny_expert(in->data + 2 * e * one, layer, e, 0);
        tiny_expert(in->data + (2 * e + 1) * one, layer, e, 1);
        tiny_expert(out->data + e * one, layer, e, 2);
    }
}

static inline void tiny_stacked(struct tiny *t, uint32_t layer)
{
    static const char *const names[] = {"model.layers.#.mlp.switch_mlp.gate_proj.weight",
                                        "model.layers.#.mlp.switch_mlp.up_proj.weight",
                                        "model.layers.#.mlp.switch_mlp.down_proj.weight"};
    for (uint32_t p = 0; p < 3; p++) {
        struct tiny_tensor *out =
            tiny_add(t, tiny_name(names[p], layer), TINY_EXPERTS, p == 2 ? TINY_HIDDEN : TINY_INTER,
                     p == 2 ? TINY_INTER : TINY_HIDDEN);
        for (uint32_t e = 0; e < TINY_EXPERTS; e++)
            tiny_expert(out->data + e * TINY_INTER * TINY_HIDDEN * 2, layer, e, p);
    }
}

static inline void tiny_layer(struct tiny *t, uint32_t layer, enum tiny_layout layout)
{
#define PUT(name, ...) tiny_put(t, tiny_name("model.layers.#." name, layer), __VA_ARGS__)
    enum { H = TINY_HIDDEN };
    PUT("input_layernorm.weight", H, 0, 0);
    PUT("post_attention_layernorm.weight", H, 0, 0);
    if (layer == 0) {
        PUT("linear_attn.in_proj_qkv.weight", TINY_CHANNELS, H, 0);
        PUT("linear_attn.in_proj_z.weight", 32, H, 0);
        PUT("linear_attn.in_proj_a.weight", 2, H, 0);
        PUT("linear_attn.in_proj_b.weight", 2, H, 0);
        PUT("linear_attn.conv1d.weight", TINY_CHANNELS, 1, 4);
        PUT("linear_attn.A_log", 2, 0, 0);
        PUT("linear_attn.dt_bias", 2, 0, 0);
        PUT("linear_attn.norm.weight", 16, 0, 0);
        PUT("linear_attn.out_proj.weight", H, 32, 0);
    } else {
        PUT("self_attn.q_proj.weight", 64, H, 0);
        PUT("self_attn.k_proj.weight", 16, H, 0);
        PUT("self_attn.v_proj.weight", 16, H, 0);
        PUT("self_attn.o_proj.weight", H, 32, 0);
        PUT("self_attn.q_norm.weight", 16, 0, 0);
        PUT("self_attn.k_norm.weight", 16, 0, 0);
    }
    PUT("mlp.gate.weight", TINY_EXPERTS, H, 0);
    PUT("mlp.shared_expert_gate.weight", 1, H, 0);
    PUT("mlp.shared_expert.gate_proj.weight", 32, H, 0);
    PUT("mlp.shared_expert.up_proj.weight", 32, H, 0);
    PUT("mlp.shared_expert.down_proj.weight", H, 32, 0);
#undef PUT
    if (layout == TINY_SEPARATE) tiny_separate(t, layer);
    if (layout == TINY_FUSED) tiny_fused(t, layer);
    if (layout == TINY_STACKED) tiny_stacked(t, layer);
}

static const char tiny_config[] =
    "{\"model_type\": \"qwen3_5_moe_text\", \"hidden_size\": 32, \"num_hidden_layers\": 2,"
    " \"vocab_size\": 40, \"layer_types\": [\"linear_attention\", \"full_attention\"],"
    " \"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"head_dim\": 16,"
    " \"partial_rotary_factor\": 0.5, \"linear_num_key_heads\": 1,"
    " \"linear_num_value_heads\": 2, \"linear_key_head_dim\": 16,"
    " \"linear_value_head_dim\": 16, \"num_experts\": 3, \"num_experts_per_tok\": 2,"
    " \"moe_intermediate_size\": 64, \"shared_expert_intermediate_size\": 32}";

static inline void tiny_init(struct tiny *t, enum tiny_layout layout)
{
    *t = (struct tiny){.n = 0};
    snprintf(t->config, sizeof t->config, "%s", tiny_config);
    tiny_put(t, "model.embed_tokens.weight", TINY_VOCAB, TINY_HIDDEN, 0);
    for (uint32_t l = 0; l < 2; l++) tiny_layer(t, l, layout);
    tiny_put(t, "model.norm.weight", TINY_HIDDEN, 0, 0);
    tiny_put(t, "lm_head.weight", TINY_VOCAB, TINY_HIDDEN, 0);
}

static inline void tiny_release(struct tiny *t)
{
    for (size_t i = 0; i < t->n; i++) free(t->tensors[i].data);
    t->n = 0;
}

static inline void tiny_remove(struct tiny *t, const char *name)
{
    struct tiny_tensor *gone = tiny_find(t, name);
    free(gone->data);
    *gone = t->tensors[--t->n];
}

static inline void tiny_rename(struct tiny *t, const char *name, const char *now)
{
    struct tiny_tensor *tensor = tiny_find(t, name);
    snprintf(tensor->name, sizeof tensor->name, "%s", now);
}

/* Another type or shape over as many zeros as that takes; item: bytes of an element. */
static inline void tiny_reshape(struct tiny *t, const char *name, const char *dtype, size_t item,
                                uint64_t a, uint64_t b, uint64_t c)
{
    struct tiny_tensor *tensor = tiny_find(t, name);
    snprintf(tensor->dtype, sizeof tensor->dtype, "%s", dtype);
    tensor->rank = c ? 3 : b ? 2 : 1;
    memcpy(tensor->shape, (uint64_t[]){a, b, c}, sizeof tensor->shape);
    tensor->bytes = tiny_elements(tensor) * item;
    free(tensor->data);
    tensor->data = calloc(tensor->bytes + 1, 1);
    if (!tensor->data) abort();
}

/* base.weight (or base, when that is the name) packed: its words, and base.scales and base.biases.
 */
static inline void tiny_pack(struct tiny *t, const char *base, uint32_t bits, uint32_t group)
{
    char name[144];
    snprintf(name, sizeof name, "%s.weight", base);
    struct tiny_tensor *tensor = NULL;
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->tensors[i].name, name) == 0 || strcmp(t->tensors[i].name, base) == 0)
            tensor = &t->tensors[i];
    if (!tensor) abort();
    uint64_t shape[3] = {tensor->shape[0], tensor->shape[1], tensor->shape[2]};
    uint32_t last = tensor->rank - 1;
    uint64_t cols = shape[last];
    snprintf(name, sizeof name, "%s", tensor->name);
    shape[last] = cols * bits / 32;
    tiny_reshape(t, name, "U32", 4, shape[0], shape[1], shape[2]);
    struct rng rng = {tiny_seed(base)};
    for (size_t i = 0; i < tensor->bytes; i++) tensor->data[i] = (uint8_t)rng_u64(&rng);
    shape[last] = cols / group;
    snprintf(name, sizeof name, "%s.scales", base);
    tiny_put(t, name, shape[0], shape[1], shape[2]);
    snprintf(name, sizeof name, "%s.biases", base);
    tiny_put(t, name, shape[0], shape[1], shape[2]);
}

/* Puts now where was stands in the config; was must be there. */
static inline void tiny_edit(struct tiny *t, const char *was, const char *now)
{
    char text[sizeof t->config];
    const char *at = strstr(t->config, was);
    if (!at) {
        fprintf(stderr, "no %s in the config\n", was);
        abort();
    }
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - t->config), t->config, now,
             at + strlen(was));
    memcpy(t->config, text, sizeof text);
}

/* Adds a field at the end of the config. */
static inline void tiny_field(struct tiny *t, const char *field)
{
    size_t len = strlen(t->config);
    snprintf(t->config + len - 1, sizeof t->config - len + 1, ", %s}", field);
}

/* Writes config.json, model.safetensors and, when there is one, generation_config.json. */
static inline bool tiny_write(const struct tiny *t, const struct tempdir *dir)
{
    static char header[32768];
    size_t len = 0, at = 0;
#define ADD(...) len += (size_t)snprintf(header + len, sizeof header - len, __VA_ARGS__)
    ADD("{\"__metadata__\": {\"format\": \"%s\"}", t->mlx ? "mlx" : "pt");
    for (size_t i = 0; i < t->n; i++) {
        const struct tiny_tensor *x = &t->tensors[i];
        ADD(", \"%s\": {\"dtype\": \"%s\", \"shape\": [", x->name, x->dtype);
        for (uint32_t d = 0; d < x->rank; d++) ADD(d ? ", %u" : "%u", (unsigned)x->shape[d]);
        ADD("], \"data_offsets\": [%zu, %zu]}", at, at + x->bytes);
        at += x->bytes;
    }
    ADD("}");
#undef ADD
    uint8_t *file = calloc(8 + len + at, 1);
    if (!file || len >= sizeof header) abort();
    for (int i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)len >> 8 * i);
    memcpy(file + 8, header, len);
    size_t end = 8 + len;
    for (size_t i = 0; i < t->n; end += t->tensors[i++].bytes)
        memcpy(file + end, t->tensors[i].data, t->tensors[i].bytes);
    bool ok = tempdir_write(dir, "model.safetensors", file, end) &&
              tempdir_write_text(dir, "config.json", t->config);
    if (t->generation[0])
        ok = ok && tempdir_write_text(dir, "generation_config.json", t->generation);
    free(file);
    return ok;
}

#endif
