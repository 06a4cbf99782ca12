/*
 * What a config says of quantised weights: MLX's "quantization" section with default bits and
 * group and per-tensor overrides, or the method of Hugging Face's "quantization_config". The
 * shapes of the tensors decide; the config is checked against them.
 */
#ifndef SLUICE_MODEL_QUANT_H
#define SLUICE_MODEL_QUANT_H

#include "format/json.h"
#include "kernel/wtype.h"

struct quant_params {
    uint32_t bits, group;
    bool mxfp4; /* e2m1 codes and e8m0 scales; else affine */
};

struct quant {
    bool present; /* MLX's section */
    bool mxfp4;   /* Hugging Face's method "mxfp4" */
    bool fp8;     /* Hugging Face's method "fp8", tiles of 128 x 128 */
    struct quant_params defaults;
    const json_t *section; /* borrowed */
    bool names_experts;    /* has entries of experts; without them none need be looked for */
    const char *file;
};

enum sluice_status quant_read(struct quant *q, const struct json_node *config,
                              struct sluice_error *err);

/*
 * What the section says of the tensor called base (without ".weight"): its own entry, else that
 * of the matrix of all experts it may come from, else the default. Errors: FORMAT, UNSUPPORTED
 * (mode), MISMATCH (no section or method, or the entry says the tensor is not quantised).
 */
enum sluice_status quant_lookup(const struct quant *q, const char *base, struct quant_params *out,
                                struct sluice_error *err);

/* The packed type of that many bits; false when there is none. */
bool quant_wtype(uint32_t bits, enum wtype *type);

#endif
