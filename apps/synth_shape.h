/* What a config says of the tensors of a model: its family, and the family's sizes. */
#ifndef APPS_SYNTH_SHAPE_H
#define APPS_SYNTH_SHAPE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "sluice/sluice.h"

enum synth_qk_norm { SYNTH_QK_NONE, SYNTH_QK_HEADS, SYNTH_QK_WHOLE };

/* How a family's tensors are called and laid out. */
struct synth_family {
    const char *type;           /* model_type of the text model */
    const char *original, *mlx; /* prefixes */
    const char *mlx_head;       /* the head in MLX files; NULL: lm_head */
    const char *moe;            /* module of a layer that holds router and experts */
    const char *const *single;  /* gate, up, down of an expert of its own; NULL: fused in 3-D */
    const char *shared;         /* module of the shared expert within moe; NULL: none */
    const char *correction;     /* of the router, within moe; NULL: none */
    const char *n_experts;      /* field */
    const char *inter;          /* field: width of an expert */
    const char *shared_inter;   /* field: width of the shared expert, or how many inter it is */
    bool shared_counts;         /* it is the latter */
    bool shared_gate;           /* the shared expert has a gate */
    bool delta;                 /* some layers are DeltaNet */
    bool fused;                 /* its projections are in two matrices */
    bool gated;                 /* attention has output gates */
    bool out_bias;              /* attention_bias is of the output too */
    bool centred;               /* norms are stored minus one in the original layout */
    bool plain_router;          /* MLX does not quantise it */
    enum synth_qk_norm qk_norm; /* where use_qk_norm is not false */
};

struct synth_shape {
    const struct synth_family *family;
    uint32_t hidden, layers, vocab, heads, kv_heads, head_dim;
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
