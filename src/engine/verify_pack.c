/* A packed store's checksums: dense tensors at open, experts when they are first read. */
#include "engine/internal.h"

enum sluice_status verify_open(struct sluice_engine *e, struct sluice_error *err)
{
    if (!e->options.verify) return SLUICE_OK;
    return pack_check_open(&e->pack, &e->checkpoint, &e->packed, err);
}

static enum sluice_status check_array(const struct sluice_engine *e, const uint8_t *mapped,
                                      const uint8_t *loaded, bool *checked,
                                      struct sluice_error *err)
{
    const struct tensor *t = mapped ? checkpoint_tensor_at(&e->checkpoint, mapped) : NULL;
    if (!t) return SLUICE_OK;
    checked[t - e->checkpoint.tensors] = true;
    return pack_check_tensor(&e->pack, t, loaded, err);
}

enum sluice_status verify_matrix(const struct sluice_engine *e, const struct wmat *mapped,
                                 const struct wmat *loaded, bool *checked, struct sluice_error *err)
{
    if (!e->packed) return SLUICE_OK;
    TRY(check_array(e, mapped->data, loaded->data, checked, err));
    TRY(check_array(e, mapped->scales, loaded->scales, checked, err));
    return check_array(e, mapped->biases, loaded->biases, checked, err);
}

enum sluice_status verify_mapped(const struct sluice_engine *e, const bool *checked,
                                 struct sluice_error *err)
{
    const struct checkpoint *cp = &e->checkpoint;
    for (size_t t = 0; e->packed && t < cp->n_tensors; t++)
        if (e->model.tensor_kind[t] == TENSOR_DENSE && !(checked && checked[t]))
            TRY(pack_check_tensor(&e->pack, &cp->tensors[t], cp->tensors[t].data, err));
    return SLUICE_OK;
}

enum sluice_status verify_expert(const void *user, const struct expert_bank *bank, uint32_t expert,
                                 const struct expert_view *view, struct sluice_error *err)
{
    const struct sluice_engine *e = user;
    return pack_check_expert(&e->pack, bank, expert, view, err);
}
