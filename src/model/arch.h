/*
 * A model family: the config it understands, the graph it writes, the names its weights have in
 * Hugging Face checkpoints. arch.def lists the families.
 */
#ifndef SLUICE_MODEL_ARCH_H
#define SLUICE_MODEL_ARCH_H

#include "model/model.h"

/* What to do with the values of a VECTOR or CONV weight on its way to f32. */
enum vector_transform {
    VECTOR_AS_IS,
    VECTOR_NORM,    /* a family that is centred stores w - 1 in the original layout */
    VECTOR_NEG_EXP, /* -exp(w) */
};

/*
 * Where a weight role is found: the name after the checkpoint's prefix, '#' standing for the layer.
 * MATRIX: without ".weight". BANK: the module that holds "experts" or "switch_mlp".
 */
struct weight_source {
    const char *name;
    enum vector_transform transform;
};

/* A role whose name is not the common one, or not only. */
struct weight_rename {
    enum weight_role role;
    const char *name;
};

struct arch {
    const char *model_type;              /* of the text model's config */
    const struct weight_rename *renames; /* ends with name NULL; NULL: none */
    bool centred;                        /* norms; see VECTOR_NORM */
    /*
     * Reads config, fills the shape fields of model and pushes its graph. options->n_picks is
     * already checked against nothing: the family does that.
     */
    enum sluice_status (*build)(struct model *model, const struct json_node *config,
                                const struct model_options *options, struct sluice_error *err);
};

#define A(name, type) extern const struct arch arch_##name;
#include "model/arch.def"
#undef A

/* The common name and transform of a role (hf_names.c). */
const struct weight_source *arch_source(enum weight_role role);
/* The family's nth own name of a role, or NULL. */
const char *arch_rename(const struct arch *arch, enum weight_role role, uint32_t nth);

/* The family of that model_type, or NULL. */
const struct arch *arch_find(const char *model_type);
/* "qwen3_5_moe, ..." for messages. */
const char *arch_list(void);

#endif
