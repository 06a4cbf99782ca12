/* Dense weights are read into memory of our own while the rest of the engine is opened. */
#include <stdlib.h>

#include "base/bits.h"
#include "engine/internal.h"

enum { LARGE_BYTES = 32 << 20 };

struct dense_load {
    struct resident_load *load;
    struct wmat **matrices; /* distinct ones, of the model */
    struct wmat *mapped;    /* as they were before */
    uint32_t n, n_checked;
    bool *checked; /* tensors */
};

/* A tied head is the embedding, keys and values of MLA may be one. */
static void add_matrices(struct sluice_engine *e, bool large, struct wmat **out, uint32_t *n)
{
    const struct graph *g = &e->model.graph;
    for (size_t w = 0; w < g->weights.n; w++) {
        enum weight_kind kind = weight_role_kind(g->weights.items[w].role);
        struct wmat *m = &e->model.weights[w].matrix;
        if (e->model.weights[w].same) continue;
        if (kind != WEIGHT_KIND_MATRIX && kind != WEIGHT_KIND_HEADS) continue;
        if ((wmat_bytes(m) >= LARGE_BYTES) == large) out[(*n)++] = m;
    }
}

/* Large ones come first: when the last one is there, its checksum is all that is left to do. */
static enum sluice_status list_matrices(struct sluice_engine *e, struct wmat ***out, uint32_t *n,
                                        struct sluice_error *err)
{
    size_t most = e->model.graph.weights.n;
    *n = 0;
    *out = calloc(most + 1, sizeof **out);
    if (!*out) return err_nomem(err, "dense weights", most * sizeof **out);
    add_matrices(e, true, *out, n);
    add_matrices(e, false, *out, n);
    return SLUICE_OK;
}

enum sluice_status dense_bytes(struct sluice_engine *e, uint64_t *bytes, struct sluice_error *err)
{
    struct wmat **matrices;
    uint32_t n;
    TRY(list_matrices(e, &matrices, &n, err));
    *bytes = resident_bytes(matrices, n, MEMORY_ALIGN);
    free(matrices);
    return SLUICE_OK;
}

static enum sluice_status begin(struct sluice_engine *e, struct dense_load *d,
                                struct sluice_error *err)
{
    TRY(list_matrices(e, &d->matrices, &d->n, err));
    d->mapped = calloc((size_t)d->n + 1, sizeof *d->mapped);
    d->checked = calloc(e->checkpoint.n_tensors + 1, sizeof *d->checked);
    if (!d->mapped || !d->checked) return err_nomem(err, "dense weights", d->n * sizeof *d->mapped);
    for (uint32_t i = 0; i < d->n; i++) d->mapped[i] = *d->matrices[i];
    uint64_t bytes = resident_bytes(d->matrices, d->n, MEMORY_ALIGN);
    struct resident_options o = {.reader = memory_reader_options(e),
                                 .n_populaters = memory_populaters(e, bytes)};
    return resident_begin(&e->resident, &d->load, e->checkpoint.files,
                          (uint32_t)e->checkpoint.n_files, d->matrices, d->n, &o, err);
}

enum sluice_status dense_begin(struct sluice_engine *e, struct sluice_error *err)
{
    e->dense_load = calloc(1, sizeof *e->dense_load);
    if (!e->dense_load) return err_nomem(err, "dense weights", sizeof *e->dense_load);
    enum sluice_status status = begin(e, e->dense_load, err);
    if (status != SLUICE_OK) dense_abandon(e);
    return status;
}

void dense_abandon(struct sluice_engine *e)
{
    struct dense_load *d = e->dense_load;
    if (!d) return;
    e->dense_load = NULL;
    resident_abandon(&d->load);
    free(d->matrices);
    free(d->mapped);
    free(d->checked);
    free(d);
}

/* Of the first n matrices those that have not been checked. */
static enum sluice_status check_up_to(struct sluice_engine *e, uint32_t n, struct sluice_error *err)
{
    struct dense_load *d = e->dense_load;
    for (; d->n_checked < n; d->n_checked++)
        TRY(verify_matrix(e, &d->mapped[d->n_checked], d->matrices[d->n_checked], d->checked, err));
    return SLUICE_OK;
}

/* Checks what has come and tells how far it is, until there is no more to read. */
static enum sluice_status follow(struct sluice_engine *e,
                                 void (*has_memory)(struct sluice_engine *e),
                                 struct sluice_error *err)
{
    struct resident_progress p;
    while (resident_next(e->dense_load->load, &p)) {
        if (p.has_memory && has_memory) {
            has_memory(e);
            has_memory = NULL;
        }
        if (!memory_goes_on(e, p.done, p.total))
            return err_set(err, SLUICE_E_CANCELLED,
                           "cancelled after %.1f of %.1f MiB of dense weights",
                           (double)p.done / 0x1p20, (double)p.total / 0x1p20);
        TRY(check_up_to(e, p.n_read, err));
    }
    if (has_memory) has_memory(e);
    return SLUICE_OK;
}

static enum sluice_status wait_for_all(struct sluice_engine *e, struct sluice_error *err)
{
    const uint8_t *failed;
    struct dense_load *d = e->dense_load;
    enum sluice_status status = resident_end(&e->resident, &d->load, &failed, err);
    const struct tensor *lost = failed ? checkpoint_tensor_at(&e->checkpoint, failed) : NULL;
    if (lost) return err_wrap(err, status, "tensor '%s'", lost->name);
    if (status == SLUICE_OK) status = check_up_to(e, d->n, err);
    return status == SLUICE_OK ? verify_mapped(e, d->checked, err) : status;
}

enum sluice_status dense_end(struct sluice_engine *e, void (*has_memory)(struct sluice_engine *e),
                             struct sluice_error *err)
{
    enum sluice_status status = follow(e, has_memory, err);
    if (status == SLUICE_OK) status = wait_for_all(e, err);
    dense_abandon(e);
    /* Weights that are another one have copies of its pointers. */
    for (size_t w = 0; w < e->model.graph.weights.n; w++)
        if (e->model.weights[w].same) e->model.weights[w].matrix = e->model.weights[w].same->matrix;
    return status;
}
