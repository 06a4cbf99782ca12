#include "backend/layout.h"

static bool is_recurrent(const struct state_decl *s)
{
    return s->kind == STATE_conv || s->kind == STATE_delta;
}

enum sluice_status layout_from_graph(struct state_layout *layout, const struct graph *g,
                                     enum kv_type kv_type, struct sluice_error *err)
{
    *layout = (struct state_layout){.kv_type = kv_type};
    for (size_t i = 0; i < g->states.n; i++) {
        const struct state_decl *s = &g->states.items[i];
        uint32_t index;
        size_t n = s->dims[0];
        bool ok;
        if (is_recurrent(s)) {
            n *= s->dims[1];
            ok = layout_add_recurrent(layout, s->kind == STATE_delta ? n * s->dims[2] : n, &index);
        } else if (s->kind == STATE_latent) {
            ok = layout_add_latent(layout, s->dims[0], s->dims[1], &index);
        } else {
            ok = layout_add_kv(layout, s->dims[0], s->dims[1], &index);
        }
        if (!ok) {
            layout_release(layout);
            return err_nomem(err, "state layout", g->states.n);
        }
    }
    return SLUICE_OK;
}

uint32_t layout_index(const struct graph *g, uint32_t s)
{
    const struct state_decl *state = &g->states.items[s];
    uint32_t index = 0;
    for (uint32_t i = 0; i < s; i++)
        index += is_recurrent(&g->states.items[i]) == is_recurrent(state);
    return index;
}
