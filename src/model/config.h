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

/*
 * num_experts_per_tok, or what the caller asked for instead. n_experts is at most
 * CONFIG_MAX_EXPERTS. Errors: ARGUMENT when more experts were asked for than there are.
 */
enum sluice_status config_read_picks(const struct json_node *node, uint32_t n_experts,
                                     const struct model_options *options, uint32_t *picks,
                                     struct sluice_error *err);

#endif
