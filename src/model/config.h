/*
 * Reading a model's config.json: what families share. Every field that changes the arithmetic is
 * implemented or refused by name; sizes are bounded so that their products stay far from overflow.
 */
#ifndef SLUICE_MODEL_CONFIG_H
#define SLUICE_MODEL_CONFIG_H

#include "base/arena.h"
#include "format/json.h"
#include "model/model.h"

enum {
    CONFIG_MAX_DIM = 1 << 20,
    CONFIG_MAX_WIDTH = 1 << 24, /* heads times head size; the vocabulary */
    CONFIG_MAX_LAYERS = 4096,
    CONFIG_MAX_EXPERTS = 1 << 16,
};

/* UNSUPPORTED: the field has that value. */
enum sluice_status config_unsupported(const struct json_node *node, const char *key,
                                      const char *value, struct sluice_error *err);
/* UNSUPPORTED unless heads * dim is at most CONFIG_MAX_WIDTH; what is a plural. */
enum sluice_status config_check_width(const struct json_node *node, const char *what,
                                      uint32_t heads, uint32_t dim, struct sluice_error *err);
/* One string or flag that must have one value when it is there. */
enum sluice_status config_expect_string(const struct json_node *node, const char *key,
                                        const char *only, struct sluice_error *err);
/* A number that must be 0 when it is there. */
enum sluice_status config_expect_zero(const struct json_node *node, const char *key,
                                      struct sluice_error *err);
enum sluice_status config_expect_bool(const struct json_node *node, const char *key, bool only,
                                      struct sluice_error *err);

/* Sizes every family has. */
struct config_frame {
    uint32_t hidden, layers, vocab;
    float eps;
};
/* hidden_size, num_hidden_layers, vocab_size and rms_norm_eps, which may be left out. */
enum sluice_status config_read_frame(const struct json_node *node, double default_eps,
                                     struct config_frame *frame, struct sluice_error *err);

struct config_heads {
    uint32_t heads, kv_heads, head_dim;
};
/* num_attention_heads, num_key_value_heads (or as many) and head_dim (or hidden / heads). */
enum sluice_status config_read_heads(const struct json_node *node, uint32_t hidden,
                                     struct config_heads *heads, struct sluice_error *err);

/* num_experts, or num_local_experts, its other name. */
enum sluice_status config_read_experts(const struct json_node *node, uint32_t *experts,
                                       struct sluice_error *err);

/*
 * Which layers have a dense MLP instead of experts: those that mlp_only_layers lists, and all but
 * each decoder_sparse_step-th. *dense is [layers] in arena.
 */
enum sluice_status config_read_dense_layers(const struct json_node *node, uint32_t layers,
                                            struct arena *arena, bool **dense,
                                            struct sluice_error *err);
/* Whether a flag of [layers] has that value anywhere. */
bool config_any_layer(const bool *flags, uint32_t layers, bool value);
/* first_k_dense_replace: the first layers have a dense MLP. Not all of them. */
enum sluice_status config_read_first_dense(const struct json_node *node, uint32_t layers,
                                           uint32_t fallback, uint32_t *n_dense,
                                           struct sluice_error *err);

/*
 * Which layers are gated DeltaNet instead of attention: layer_types, or each but the
 * full_attention_interval-th. *linear is [layers] in arena.
 */
enum sluice_status config_read_linear_layers(const struct json_node *node, uint32_t layers,
                                             struct arena *arena, bool **linear,
                                             struct sluice_error *err);

/*
 * num_experts_per_tok, or what the caller asked for instead. n_experts is at most
 * CONFIG_MAX_EXPERTS. Errors: ARGUMENT when more experts were asked for than there are.
 */
enum sluice_status config_read_picks(const struct json_node *node, uint32_t n_experts,
                                     const struct model_options *options, uint32_t *picks,
                                     struct sluice_error *err);

#endif
