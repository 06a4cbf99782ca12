/*
 * Keys and values of multi-head latent attention from latents: one matrix that has each head's
 * keys, then its values, as the original layout publishes it, or two, with the keys the other way
 * round, as MLX and GGUF split them.
 */
#include <stdio.h>

#include "model/bind.h"

/* Behind their module. */
struct head_names {
    const char *both, *keys, *values;
};

static const struct head_names hf_names = {".kv_b_proj", ".embed_q", ".unembed_out"};
static const struct head_names gguf_names = {".attn_kv_b", ".attn_k_b", ".attn_v_b"};

/* The layer's other weight of this kind, and what it is bound to. */
static const struct weight_decl *other_of(const struct binder *b, const struct weight_decl *decl,
                                          const struct weight_data **data)
{
    const struct graph *g = &b->model->graph;
    for (size_t i = 0; i < g->weights.n; i++) {
        const struct weight_decl *d = &g->weights.items[i];
        if (d == decl || d->layer != decl->layer) continue;
        if (weight_role_kind(d->role) != WEIGHT_KIND_HEADS) continue;
        *data = &b->model->weights[i];
        return d;
    }
    return NULL;
}

static enum sluice_status bind_both(struct binder *b, const char *base,
                                    const struct weight_decl *decl, struct weight_data *out)
{
    const struct weight_data *other = NULL;
    const struct weight_decl *d = other_of(b, decl, &other);
    if (!d) return err_set(b->err, SLUICE_E_INTERNAL, "%s: keys and values belong together", base);
    bool keys = decl->role == WEIGHT_k_b_proj;
    uint32_t stride = decl->rows + d->rows;
    out->heads = (struct head_rows){.first = keys ? 0 : d->rows, .stride = stride};
    if (other->matrix.data) {
        out->same = other;
        out->matrix = other->matrix;
        return SLUICE_OK;
    }
    TRY(bind_matrix(b, base, 0, decl->n_heads * stride, decl->cols, TENSOR_DENSE, &out->matrix));
    b->model->dense_bytes += wmat_bytes(&out->matrix);
    b->model->n_parameters += (uint64_t)out->matrix.rows * decl->cols;
    return SLUICE_OK;
}

static enum sluice_status bind_one(struct binder *b, const char *base,
                                   const struct weight_decl *decl, struct weight_data *out)
{
    bool keys = decl->role == WEIGHT_k_b_proj;
    uint32_t rows = keys ? decl->cols : decl->rows, cols = keys ? decl->rows : decl->cols;
    out->heads = (struct head_rows){.stride = rows, .transposed = keys};
    TRY(bind_matrix(b, base, decl->n_heads, rows, cols, TENSOR_DENSE, &out->matrix));
    b->model->dense_bytes += wmat_bytes(&out->matrix);
    b->model->n_parameters += (uint64_t)out->matrix.rows * cols;
    return SLUICE_OK;
}

static bool has_part(struct binder *b, const char *module, const char *part)
{
    char name[512];
    snprintf(name, sizeof name, "%s%s", module, part);
    return bind_has_matrix(b, name);
}

enum sluice_status bind_heads(struct binder *b, const char *module, const struct weight_decl *decl,
                              struct weight_data *out)
{
    const struct head_names *names = b->gguf ? &gguf_names : &hf_names;
    bool split = has_part(b, module, names->keys) || has_part(b, module, names->values);
    const char *own = decl->role == WEIGHT_k_b_proj ? names->keys : names->values;
    char base[512];
    snprintf(base, sizeof base, "%s%s", module, split ? own : names->both);
    return split ? bind_one(b, base, decl, out) : bind_both(b, base, decl, out);
}
