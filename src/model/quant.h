/*
 * The "quantization" section of an MLX config: default bits and group, and per-tensor overrides.
 * The shapes of the tensors decide; the section is checked against them.
 */
#ifndef SLUICE_MODEL_QUANT_H
#define SLUICE_MODEL_QUANT_H

#include "format/json.h"
#include "kernel/wtype.h"

struct quant {
    bool present;
    uint32_t bits, group;
    const json_t *section; /* borrowed */
    const char *file;
};

enum sluice_status quant_read(struct quant *q, const struct json_node *config,
                              struct sluice_error *err);

struct quant_params {
    uint32_t bits, group;
};
/*
 * What the section says of the tensor called base (without ".weight"): its own entry, else that
 * of the matrix of all experts it may come from, else the default. Errors: FORMAT, UNSUPPORTED
 * (mode), MISMATCH (no section, or the entry says the tensor is not quantised).
 */
enum sluice_status quant_lookup(const struct quant *q, const char *base, struct quant_params *out,
                                struct sluice_error *err);

/* The packed type of that many bits; false when there is none. */
bool quant_wtype(uint32_t bits, enum wtype *type);

#endif
