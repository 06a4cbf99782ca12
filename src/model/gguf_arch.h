/*
 * Model families as GGUF files have them: an architecture's name, what its metadata keys mean as
 * fields of config.json, and the names of its tensors. The families themselves read the config and
 * never know which kind of file it came from.
 */
#ifndef SLUICE_MODEL_GGUF_ARCH_H
#define SLUICE_MODEL_GGUF_ARCH_H

#include "ir/graph.h"
#include "store/checkpoint.h"

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
    json_t *config; /* being filled */
    struct sluice_error *err;
};

struct gguf_arch {
    const char *name;                  /* general.architecture */
    const char *model_type;            /* of config.json: the family */
    const struct gguf_field *fields;   /* ends with key NULL */
    const struct gguf_rename *renames; /* ends with name NULL; NULL: none */
    bool tiled_v_heads;                /* v head h of DeltaNet uses k head h mod n_k_heads */
    /* Sets what is no mere renaming, and refuses what the family cannot do. May be NULL. */
    enum sluice_status (*finish)(const struct gguf_model *m);
};

/*
 * Translates the metadata of cp, a GGUF checkpoint, into the config.json the family reads: *config
 * is a new reference. Errors: UNSUPPORTED (the architecture, by name), NOT_FOUND (a key or tensor),
 * FORMAT (a key's type or value), NOMEM.
 */
enum sluice_status gguf_config(const struct checkpoint *cp, const struct gguf_arch **arch,
                               json_t **config, struct sluice_error *err);

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

#endif
