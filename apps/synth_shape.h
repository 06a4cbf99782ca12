/* What a config says of the tensors of a model: its family, and the family's sizes. */
#ifndef APPS_SYNTH_SHAPE_H
#define APPS_SYNTH_SHAPE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "sluice/sluice.h"

enum synth_qk_norm { SYNTH_QK_NONE, SYNTH_QK_HEADS, SYNTH_QK_WHOLE };

/* The original layout of experts; MLX's stacks each matrix of them. */
enum synth_experts {
    SYNTH_BY_ROLE,   /* a tensor for each matrix of each expert: gate_proj, up_proj, down_proj */
    SYNTH_BY_NUMBER, /* likewise: w1, w3, w2 */
    SYNTH_FUSED,     /* gate_up_proj and down_proj of all experts */
    SYNTH_PAIRED,    /* likewise, with inputs for rows and with biases; the router has one, too */
};

/* How a family's tensors are called and laid out. */
struct synth_family {
    const char *type;           /* model_type of the text model */
    const char *original, *mlx; /* prefixes; NULL: model. */
    const char *mlx_head;       /* the head in MLX files; NULL: lm_head */
    const char *moe;            /* module of a layer that holds router and experts; NULL: mlp */
    const char *router;         /* within moe; NULL: gate */
    const char *correction;     /* of the router, within moe; NULL: none */
    enum synth_experts experts;
    const char *n_experts;      /* field */
    const char *inter;          /* field: width of an expert */
    const char *shared;         /* module of the shared expert within moe; NULL: none */
    const char *shared_inter;   /* field: its width, or how many inter it is */
    bool shared_counts;         /* it is the latter */
    uint32_t shared_default;    /* if so */
    bool shared_gate;           /* the shared expert has a gate */
    uint32_t dense_default;     /* of first_k_dense_replace */
    bool delta;                 /* some layers are DeltaNet */
    bool fused;                 /* its projections are in two matrices */
    bool latent;                /* attention has latents for keys and values */
    bool gated;                 /* attention has output gates */
    bool sinks;                 /* a score for each head that no position has */
    bool bias_default;          /* of attention_bias */
    bool out_bias;              /* attention_bias is of the output too */
    bool centred;               /* norms are stored minus one in the original layout */
    bool plain_router;          /* MLX does not quantise it */
    enum synth_qk_norm qk_norm; /* where use_qk_norm is not false */
    bool qk_norm_asked;         /* and only where it is true */
};

static inline const char *synth_moe_module(const struct synth_family *f)
{
    return f->moe ? f->moe : "mlp";
}

static inline const char *synth_router(const struct synth_family *f)
{
    return f->router ? f->router : "gate";
}

struct synth_shape {
    const struct synth_family *family;
    uint32_t hidden, layers, vocab, heads, kv_heads, head_dim;
    uint32_t q_rank, kv_rank, nope, rotated; /* latent attention, whose values have dv */
    uint32_t k_heads, v_heads, dk, dv, conv, interval;
    uint32_t experts, inter, shared, dense_inter, n_dense, sparse_step;
    bool bias, qk_norm, tied;
    const json_t *layer_types, *mlp_only; /* borrowed */
};

/* Names of the families, separated by commas. */
const char *synth_family_names(void);

/*
 * Reads the text model's part of a config; top is all of it. Errors: UNSUPPORTED (the model_type),
 * FORMAT (a field).
 */
SLUICE_NODISCARD enum sluice_status synth_shape_read(struct synth_shape *s, const json_t *top,
                                                     const json_t *text, struct sluice_error *err);

/* Whether a layer is DeltaNet, and whether it has a dense MLP. */
bool synth_is_linear(const struct synth_shape *s, uint32_t layer);
bool synth_is_dense(const struct synth_shape *s, uint32_t layer);

#endif
