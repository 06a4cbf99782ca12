/*
 * Synthetic checkpoints: the true shapes of a model, random weights. For benchmarks of speed and
 * memory; the text such a model writes means nothing.
 */
#ifndef APPS_SYNTH_H
#define APPS_SYNTH_H

#include <jansson.h>

#include "progress.h"
#include "sluice/sluice.h"

/* MXFP4: experts in codes and scales as GPT-OSS is published, all else as BF16. */
enum synth_layout { SYNTH_MLX, SYNTH_BF16, SYNTH_MXFP4 };

/* How the elements of a tensor are made. */
enum synth_fill {
    SYNTH_BITS,    /* random bits: packed weights */
    SYNTH_CONST,   /* one bf16 value */
    SYNTH_UNIFORM, /* bf16, uniform in [lo, hi) */
    SYNTH_F32,     /* f32, uniform in [lo, hi) */
    SYNTH_BYTES,   /* bytes, uniform in [lo, hi) */
};

enum { SYNTH_NAME = 160 };

struct synth_tensor {
    char name[SYNTH_NAME];
    const char *dtype; /* as safetensors names it */
    uint32_t rank;
    uint64_t shape[4];
    uint64_t bytes;
    enum synth_fill fill;
    float lo, hi;
};

struct synth_model {
    json_t *config; /* owned */
    struct synth_tensor *tensors;
    size_t n, cap;
    uint64_t bytes;
};

struct synth_options {
    const char *like; /* a known name, or a config.json */
    uint32_t layers;  /* 0: all */
    uint32_t bits;    /* MLX: of most weights */
    uint32_t group;
    enum synth_layout layout;
    uint64_t seed;
};

/* Names that --like knows, separated by commas. */
const char *synth_names(void);

/* The tensors of the model. Errors: NOT_FOUND (no such name or file), FORMAT, UNSUPPORTED, NOMEM.
 */
SLUICE_NODISCARD enum sluice_status synth_describe(struct synth_model *m,
                                                   const struct synth_options *options,
                                                   struct sluice_error *err);
void synth_release(struct synth_model *m);

/*
 * Writes config.json, the shards and their index into the folder, which is made. Errors: IO (what
 * failed; not enough room, and how much is missing), CANCELLED; unfinished shards are removed.
 */
SLUICE_NODISCARD enum sluice_status synth_write(const struct synth_model *m, const char *folder,
                                                uint64_t seed, struct progress *progress,
                                                struct sluice_error *err);

/* Fills bytes of a tensor; state goes on from call to call. */
void synth_fill(const struct synth_tensor *t, uint64_t *state, void *out, size_t bytes);

#endif
