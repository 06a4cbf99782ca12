/* Binding the weights a graph declares to the tensors of a checkpoint. */
#ifndef SLUICE_MODEL_BIND_H
#define SLUICE_MODEL_BIND_H

#include "model/arch.h"
#include "model/gguf_arch.h"
#include "model/quant.h"

struct binder {
    struct model *model;
    const struct checkpoint *cp;
    const struct arch *arch;
    const struct gguf_arch *gguf; /* NULL: names and values are Hugging Face's or MLX's */
    struct quant quant;
    const char *prefix;      /* of the text model's tensors, "model." or the like */
    const char *head_prefix; /* of lm_head */
    bool centred;            /* norms are stored minus one (original layout, not MLX) */
    bool tied;               /* the head is the embedding */
    size_t near;             /* the tensor found last */
    const struct log *log;
    struct sluice_error *err;
};

/*
 * Finds prefix and layout, binds every declared weight, and accounts for every tensor of the
 * checkpoint: dense, expert, or skipped because text does not need it. A tensor that belongs to the
 * text model but to no declared weight is an error.
 */
enum sluice_status bind_weights(struct binder *b);

/* Matrices (bind_matrix.c) */

/*
 * The matrix stored under base (base.weight, base itself for fused experts, or base_blocks for
 * MXFP4), which must have
 * n_stack x rows x cols (n_stack 0: no stack dimension). NULL name parts are errors naming them.
 */
enum sluice_status bind_matrix(struct binder *b, const char *base, uint32_t n_stack, uint32_t rows,
                               uint32_t cols, enum tensor_kind kind, struct wmat *out);
/* Whether one of them exists. */
bool bind_has_matrix(struct binder *b, const char *base);

/* Marks the tensor as used for kind. */
void bind_claim(struct binder *b, const struct tensor *tensor, enum tensor_kind kind);

/* A matrix for each head (bind_heads.c) */
enum sluice_status bind_heads(struct binder *b, const char *module, const struct weight_decl *decl,
                              struct weight_data *out);

/* Small tensors as f32 (bind.c) */
enum sluice_status bind_new_values(struct binder *b, size_t n, float **out);
/* A tensor of n_rows x n values, rows stride apart in out. */
enum sluice_status bind_rows(struct binder *b, const char *name, uint64_t n_rows, uint64_t n,
                             uint64_t stride, float *out);

/* Experts with biases (bind_biased.c): fills views, biases and layout of a bank. */
enum sluice_status bind_biased_experts(struct binder *b, const char *module,
                                       const struct weight_decl *decl, struct expert_bank *bank);

/* Experts (bind_experts.c) */

/* Whether the module holds experts in any layout. */
bool bind_has_experts(struct binder *b, const char *module);
enum sluice_status bind_experts(struct binder *b, const char *module,
                                const struct weight_decl *decl, struct weight_data *out);

#endif
