#include "model/decoder.h"

static void push_tail(struct model *m, const struct config_frame *f)
{
    struct graph *g = &m->graph;
    graph_set_layer(g, UINT32_MAX);
    graph_keep(g, m->last_hidden);
    m->tail_node = (uint32_t)g->nodes.n;
    buf_tail_hidden rows =
        PUSH(g, select_rows, .x = as_stream(m->last_hidden), .rows = m->output_rows);
    m->tail_normed = push_tail_norm(g, rows, WEIGHT(g, tail_norm, 1, f->hidden), f->eps);
    m->logits = push_lm_head(g, m->tail_normed, WEIGHT(g, lm_head, f->vocab, f->hidden));
    graph_keep(g, m->tail_normed);
    graph_keep(g, m->logits);
}

enum sluice_status decoder_build(struct model *m, const struct decoder *d, const void *config,
                                 const struct model_options *options, struct sluice_error *err)
{
    struct graph *g = &m->graph;
    const struct config_frame *f = d->frame;
    m->vocab_size = f->vocab;
    m->hidden_size = f->hidden;
    m->n_layers = f->layers;
    m->n_experts = d->moe->experts;
    m->n_picks = d->moe->picks;
    m->hidden = arena_alloc(&m->arena, f->layers, sizeof *m->hidden);
    if (!m->hidden) return err_nomem(err, "layer list", f->layers);

    m->token_ids = graph_token_ids(g);
    m->output_rows = graph_output_rows(g);
    buf_rope_table table = {0};
    if (d->rope) {
        m->rope_freqs = graph_rope_freqs(g, d->rope->rotary_dim);
        table = PUSH(g, rope_angles, .freqs = m->rope_freqs, .scale = d->rope->scale);
        TRY(rope_frequencies(d->rope, &m->arena, &m->rope_values, err));
    }
    buf_stream x = as_stream(
        PUSH(g, embed, .ids = m->token_ids, .table = WEIGHT(g, embed, f->vocab, f->hidden)));
    for (uint32_t l = 0; l < f->layers; l++) {
        if (options->keep_hidden) {
            graph_keep(g, x);
            m->hidden[l] = x;
        }
        graph_set_layer(g, l);
        m->last_hidden = d->layer(g, config, l, x, table);
        x = as_stream(m->last_hidden);
    }
    push_tail(m, f);
    return graph_finish(g, err);
}
