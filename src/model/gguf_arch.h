/*
 * Model families as GGUF files have them: an architecture's name, what its metadata keys mean as
 * fields of config.json, and the names of its tensors. The families themselves read the config and
 * never know which kind of file it came from.
 */
#ifndef SLUICE_MODEL_GGUF_ARCH_H
#define SLUICE_MODEL_GGUF_ARCH_H

#include "model/model.h"

/* A key that is a field under another name; a number, or a flag. */
struct gguf_field {
    const char *key;   /* after "ARCHITECTURE." */
    const char *field; /* of config.json */
    bool needed;
};

/* A role whose name is not the common one of gguf_names. */
struct gguf_rename {
    enum weight_role role;
    const char *name;
};

/* What the translation of one file works on. */
struct gguf_model {
    const struct gguf_arch *arch;
    const struct checkpoint *cp;
    const struct gguf_header *header;
    const char *file;
    json_t *config;              /* being filled */
    struct model_layout *layout; /* likewise */
    struct sluice_error *err;
};

struct gguf_arch {
    const char *name;                  /* general.architecture */
    const char *model_type;            /* of config.json: the family */
    const struct gguf_field *fields;   /* ends with key NULL */
    const struct gguf_rename *renames; /* ends with name NULL; NULL: none */
    /* Sets what is no mere renaming, and refuses what the family cannot do. May be NULL. */
    enum sluice_status (*finish)(const struct gguf_model *m);
};

/*
 * Translates the metadata of cp, a GGUF checkpoint, into the config.json the family reads and the
 * layout of the weights: *config is a new reference. Errors: UNSUPPORTED (the architecture, by
 * name), NOT_FOUND (a key or tensor), FORMAT (a key's type or value), NOMEM.
 */
enum sluice_status gguf_config(const struct checkpoint *cp, const struct gguf_arch **arch,
                               struct model_layout *layout, json_t **config,
                               struct sluice_error *err);

/*
 * Where the tensor of a role is: '#' stands for the layer. MATRIX: without ".weight". BANK: before
 * "_gate_exps" and so on. NULL: GGUF files have no such tensor.
 */
const char *gguf_weight_name(const struct gguf_arch *arch, enum weight_role role);

/* For the finish functions: key is the part after "ARCHITECTURE.". */

/* A whole number; fallback when the key is absent, UINT32_MAX: it must be there. */
enum sluice_status gguf_key_u32_or(const struct gguf_model *m, const char *key, uint32_t fallback,
                                   uint32_t *out);
enum sluice_status gguf_set_u32(const struct gguf_model *m, const char *field, uint32_t value);
enum sluice_status gguf_set_f64(const struct gguf_model *m, const char *field, double value);
enum sluice_status gguf_set_bool(const struct gguf_model *m, const char *field, bool value);
enum sluice_status gguf_set(const struct gguf_model *m, const char *field, json_t *value);
/* A number as config.json has it; fallback when the key is absent. */
enum sluice_status gguf_key_f64_or(const struct gguf_model *m, const char *key, double fallback,
                                   double *out);
/* The key with its architecture, for gguf_find. */
struct gguf_full_key {
    char text[160];
};
struct gguf_full_key gguf_full_key(const struct gguf_model *m, const char *key);
/* Whether the tensor of this name is there. */
bool gguf_has(const struct gguf_model *m, const char *tensor);

/*
 * Heads of plain attention (gguf_attention.c): keys and values of one size, the part of a head that
 * rotates, scaled positions (YaRN or none), biases where there are tensors of them.
 */
enum sluice_status gguf_set_attention(const struct gguf_model *m);
/* The fields of every such model. */
#define GGUF_ATTENTION_FIELDS                                                                      \
    {"context_length", "max_position_embeddings", false},                                          \
        {"embedding_length", "hidden_size", true},                                                 \
        {"attention.head_count", "num_attention_heads", true},                                     \
        {"attention.head_count_kv", "num_key_value_heads", false},                                 \
        {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true},                                \
        {"rope.freq_base", "rope_theta", false},                                                   \
    {                                                                                              \
        "expert_used_count", "num_experts_per_tok", true                                           \
    }
/* Scaled positions alone. */
enum sluice_status gguf_set_scaling(const struct gguf_model *m);
/* A field beside the factor, if positions are scaled; value, which may be NULL, is taken over. */
enum sluice_status gguf_add_scaling(const struct gguf_model *m, const char *field, json_t *value);
/* expert_gating_func must be 2, sigmoid, or absent where that is so by nature. */
enum sluice_status gguf_expect_sigmoid(const struct gguf_model *m, bool by_nature);

#endif
