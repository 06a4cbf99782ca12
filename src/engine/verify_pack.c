/* A packed store's checksums: dense tensors at open, experts when they are first read. */
#include <stdlib.h>

#include "engine/internal.h"

enum sluice_status verify_open(struct sluice_engine *e, struct sluice_error *err)
{
    if (!e->options.verify) return SLUICE_OK;
    return pack_check_open(&e->pack, &e->checkpoint, &e->packed, err);
}

static enum sluice_status check_array(const struct sluice_engine *e, const uint8_t *mapped,
                                      const uint8_t *loaded, bool *done, struct sluice_error *err)
{
    const struct tensor *t = mapped ? checkpoint_tensor_at(&e->checkpoint, mapped) : NULL;
    if (!t) return SLUICE_OK;
    done[t - e->checkpoint.tensors] = true;
    return pack_check_tensor(&e->pack, t, loaded, err);
}

static enum sluice_status check_dense(const struct sluice_engine *e, const struct wmat *mapped,
                                      struct wmat *const *loaded, uint32_t n, bool *done,
                                      struct sluice_error *err)
{
    const struct checkpoint *cp = &e->checkpoint;
    for (uint32_t i = 0; i < n; i++) {
        TRY(check_array(e, mapped[i].data, loaded[i]->data, done, err));
        TRY(check_array(e, mapped[i].scales, loaded[i]->scales, done, err));
        TRY(check_array(e, mapped[i].biases, loaded[i]->biases, done, err));
    }
    for (size_t t = 0; t < cp->n_tensors; t++)
        if (e->model.tensor_kind[t] == TENSOR_DENSE && !done[t])
            TRY(pack_check_tensor(&e->pack, &cp->tensors[t], cp->tensors[t].data, err));
    return SLUICE_OK;
}

enum sluice_status verify_dense(const struct sluice_engine *e, const struct wmat *mapped,
                                struct wmat *const *loaded, uint32_t n, struct sluice_error *err)
{
    if (!e->packed) return SLUICE_OK;
    bool *done = calloc(e->checkpoint.n_tensors, sizeof *done);
    if (!done) return err_nomem(err, "checksums", e->checkpoint.n_tensors);
    enum sluice_status status = check_dense(e, mapped, loaded, n, done, err);
    free(done);
    return status;
}

enum sluice_status verify_expert(const void *user, const struct expert_bank *bank, uint32_t expert,
                                 const struct expert_view *view, struct sluice_error *err)
{
    const struct sluice_engine *e = user;
    return pack_check_expert(&e->pack, bank, expert, view, err);
}
