/* The frame of every decoder: inputs, embedding, layers, final norm and head. */
#ifndef SLUICE_MODEL_DECODER_H
#define SLUICE_MODEL_DECODER_H

#include "model/config.h"
#include "model/rope.h"

struct decoder {
    struct config_frame frame;
    uint32_t experts, picks;
    const struct rope *rope; /* NULL when no layer rotates */
    /* Pushes layer l of the family's config, from residual stream to residual stream. */
    buf_hidden (*layer)(struct graph *g, const void *config, uint32_t l, buf_stream x,
                        buf_rope_table table);
};

/* Fills the shape fields of m and pushes its whole graph. */
enum sluice_status decoder_build(struct model *m, const struct decoder *d, const void *config,
                                 const struct model_options *options, struct sluice_error *err);

#endif
