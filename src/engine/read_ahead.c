/* How experts are guessed: what was asked for, or what measures as a gain. */
#include "engine/internal.h"

_Static_assert((int)SLUICE_PREFETCH_LAST == (int)PREFETCH_LAST &&
                   (int)SLUICE_PREFETCH_ROUTER == (int)PREFETCH_ROUTER,
               "ways of prefetch are numbered alike");

bool prefetch_can(const struct sluice_engine *e, enum prefetch_kind kind)
{
    enum sluice_prefetch asked = e->options.prefetch;
    return e->options.io != SLUICE_IO_MMAP &&
           (asked == SLUICE_PREFETCH_AUTO || (int)asked == (int)kind);
}

static bool graph_guesses(const struct graph *g)
{
    for (size_t n = 0; n < g->nodes.n; n++)
        if (g->nodes.items[n].op == OP_KIND_guess_experts ||
            g->nodes.items[n].op == OP_KIND_guess_by_sigmoid)
            return true;
    return false;
}

enum sluice_status prefetch_open(struct sluice_engine *e, struct sluice_error *err)
{
    enum sluice_prefetch asked = e->options.prefetch;
    bool given = asked == SLUICE_PREFETCH_LAST || asked == SLUICE_PREFETCH_ROUTER;
    bool router = graph_guesses(&e->model.graph);
    if (given && (e->options.io == SLUICE_IO_MMAP || e->model.n_banks == 0))
        return err_set(err, SLUICE_E_ARGUMENT,
                       "mapped experts cannot be read ahead: the page cache decides");
    if (asked == SLUICE_PREFETCH_ROUTER && !router)
        return err_set(err, SLUICE_E_UNSUPPORTED,
                       "%s: routers of this kind of model cannot be asked before their time; "
                       "prefetch by the last token works",
                       e->path);
    prefetch_trial_init(&e->prefetch, router);
    return SLUICE_OK;
}

void prefetch_begin(struct sluice_engine *e, const struct batch *batch)
{
    enum prefetch_kind kind = PREFETCH_OFF;
    if (e->store && !batch_is_prompt(batch))
        kind = e->options.prefetch == SLUICE_PREFETCH_AUTO
                   ? prefetch_trial_kind(&e->prefetch)
                   : (enum prefetch_kind)e->options.prefetch;
    cpu_set_prefetch(e->backend, kind);
}

void prefetch_end(struct sluice_engine *e, const struct batch *batch, uint64_t ns)
{
    if (e->options.prefetch == SLUICE_PREFETCH_AUTO && e->store && !batch_is_prompt(batch))
        prefetch_trial_add(&e->prefetch, ns);
}
