/* The tensors of a synthetic checkpoint while they are being listed. */
#ifndef APPS_SYNTH_MAKE_H
#define APPS_SYNTH_MAKE_H

#include "synth.h"
#include "synth_shape.h"

/* What adding tensors needs to know. */
struct synth_maker {
    struct synth_model *m;
    const struct synth_options *o;
    struct synth_shape s;
    struct sluice_error *err;
};

/* Names (synth_make.c); out is returned. */
const char *synth_prefix(const struct synth_maker *k);
const char *synth_in_layer(char out[SYNTH_NAME], const struct synth_maker *k, uint32_t layer,
                           const char *rest);
/* In the module that holds router and experts, and perhaps in a module of that. */
const char *synth_in_moe(char out[SYNTH_NAME], const struct synth_maker *k, uint32_t layer,
                         const char *module, const char *rest);

/* Tensors (synth_make.c). Errors: FORMAT (larger than any file), NOMEM. */
enum sluice_status synth_add(struct synth_maker *k, const char *name, const char *dtype,
                             uint32_t rank, const uint64_t *shape, enum synth_fill fill, float lo,
                             float hi);
/*
 * A matrix, or a stack of n_stack of them, whose entries have standard deviation gain / sqrt(cols):
 * activations then keep their size from layer to layer. Packed in the MLX layout.
 */
enum sluice_status synth_add_matrix(struct synth_maker *k, const char *base, uint64_t n_stack,
                                    uint64_t rows, uint64_t cols, uint32_t bits, float gain);
/* A stack of matrices as Hugging Face publishes MXFP4, with entries of about that deviation. */
enum sluice_status synth_add_mxfp4(struct synth_maker *k, const char *base, uint64_t n_stack,
                                   uint64_t rows, uint64_t cols, float gain);
enum sluice_status synth_add_vector(struct synth_maker *k, const char *name, uint64_t n, float lo,
                                    float hi);
/* A norm that changes nothing: one, but zero in the original layout of a centred family. */
enum sluice_status synth_add_norm(struct synth_maker *k, const char *name, uint64_t n);
/* Of what writes to the residual stream: small, so that many layers do not let it grow. */
float synth_writer_gain(const struct synth_maker *k);

/* Parts of layer l (synth_attention.c, synth_moe.c) */
enum sluice_status synth_add_attention(struct synth_maker *k, uint32_t l);
enum sluice_status synth_add_latent_attention(struct synth_maker *k, uint32_t l);
enum sluice_status synth_add_delta_net(struct synth_maker *k, uint32_t l);
/* Gate, up and down under a module of the layer. */
enum sluice_status synth_add_mlp(struct synth_maker *k, uint32_t l, const char *module,
                                 uint64_t inter);
enum sluice_status synth_add_moe(struct synth_maker *k, uint32_t l);

#endif
