/* The frame of every decoder: inputs, embedding, layers, final norm and head. */
#ifndef SLUICE_MODEL_DECODER_H
#define SLUICE_MODEL_DECODER_H

#include "model/block.h"

/* Pushes layer l of the family's config, from residual stream to residual stream. */
typedef buf_hidden decoder_layer(struct graph *g, const void *config, uint32_t l, buf_stream x,
                                 buf_rope_table table);

struct decoder {
    const struct config_frame *frame;
    const struct moe *moe;
    const struct rope *rope; /* NULL when no layer rotates */
    decoder_layer *layer;
};

/* Fills the shape fields of m and pushes its whole graph. */
enum sluice_status decoder_build(struct model *m, const struct decoder *d, const void *config,
                                 const struct model_options *options, struct sluice_error *err);

#endif
