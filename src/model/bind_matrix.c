/* Matrices: float tensors as they are, or MLX's triple of packed weight, scales and biases. */
#include <stdio.h>

#include "model/bind.h"

void bind_claim(struct binder *b, const struct tensor *tensor, enum tensor_kind kind)
{
    b->model->tensor_kind[tensor - b->cp->tensors] = kind;
}

static const struct tensor *find(const struct binder *b, const char *base, const char *suffix)
{
    char name[512];
    int n = snprintf(name, sizeof name, "%s%s", base, suffix);
    return n > 0 && (size_t)n < sizeof name ? checkpoint_find(b->cp, name) : NULL;
}

/* base.weight, or base itself: fused experts are bare parameters. */
static const struct tensor *find_weight(const struct binder *b, const char *base)
{
    const struct tensor *t = find(b, base, ".weight");
    return t ? t : find(b, base, "");
}

bool bind_has_matrix(const struct binder *b, const char *base)
{
    return find_weight(b, base) != NULL;
}

static const char *shape_text(char *out, size_t cap, const uint64_t *shape, uint32_t rank)
{
    size_t len = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < rank && len < cap; i++) {
        int n =
            snprintf(out + len, cap - len, i ? " x %llu" : "%llu", (unsigned long long)shape[i]);
        if (n > 0) len += (size_t)n;
    }
    return out;
}

/*
 * The tensor must be [n_stack][rows][cols], without the first dimension when n_stack is 0. In GGUF
 * files a matrix of one row may be a vector.
 */
static enum sluice_status check_shape(const struct binder *b, const struct tensor *t,
                                      uint32_t n_stack, uint32_t rows, uint64_t cols)
{
    uint64_t want[3] = {n_stack, rows, cols};
    const uint64_t *shape = n_stack ? want : want + 1;
    uint32_t rank = n_stack ? 3 : 2;
    bool same = t->rank == rank;
    for (uint32_t i = 0; i < rank && same; i++) same = t->shape[i] == shape[i];
    if (b->gguf && rank == 2 && rows == 1 && t->rank == 1) same = t->shape[0] == cols;
    if (same) return SLUICE_OK;
    char have_text[128], want_text[96];
    return err_set(b->err, SLUICE_E_MISMATCH, "%s: tensor '%s' is %s where the config asks for %s",
                   checkpoint_file_name(b->cp, t), t->name,
                   shape_text(have_text, sizeof have_text, t->shape, t->rank),
                   shape_text(want_text, sizeof want_text, shape, rank));
}

static enum sluice_status check_packed_type(const struct binder *b, const struct tensor *t,
                                            const struct quant_params *p, uint32_t n_stack,
                                            uint32_t rows, uint32_t cols)
{
    uint64_t words = (uint64_t)cols * p->bits / 32;
    uint64_t last = t->rank ? t->shape[t->rank - 1] : 0;
    if (cols % p->group != 0 || last != words)
        return err_set(b->err, SLUICE_E_MISMATCH,
                       "%s: tensor '%s' has rows of %llu words, which does not fit %u columns of "
                       "%u bits in groups of %u as %s says",
                       checkpoint_file_name(b->cp, t), t->name, (unsigned long long)last, cols,
                       p->bits, p->group, b->quant.file);
    return check_shape(b, t, n_stack, rows, words);
}

/* scales or biases: bf16 [rows][cols / group]. */
static enum sluice_status bind_group_values(struct binder *b, const char *base, const char *suffix,
                                            const struct quant_params *p, uint32_t n_stack,
                                            uint32_t rows, uint32_t cols, enum tensor_kind kind,
                                            const uint8_t **out)
{
    const struct tensor *t = find(b, base, suffix);
    if (!t)
        return err_set(b->err, SLUICE_E_NOT_FOUND,
                       "tensor '%s%s' is missing: '%s.weight' is packed and needs it", base, suffix,
                       base);
    if (t->dtype != DTYPE_BF16)
        return err_set(b->err, SLUICE_E_UNSUPPORTED,
                       "%s: tensor '%s' has type %s; scales and biases must be BF16",
                       checkpoint_file_name(b->cp, t), t->name, dtype_name(t->dtype));
    TRY(check_shape(b, t, n_stack, rows, cols / p->group));
    bind_claim(b, t, kind);
    *out = t->data;
    return SLUICE_OK;
}

static enum sluice_status bind_packed(struct binder *b, const char *base, const struct tensor *t,
                                      uint32_t n_stack, uint32_t rows, uint32_t cols,
                                      enum tensor_kind kind, struct wmat *out)
{
    struct quant_params p;
    TRY(quant_lookup(&b->quant, base, &p, b->err));
    TRY(check_packed_type(b, t, &p, n_stack, rows, cols));
    if (!quant_wtype(p.bits, &out->type))
        return err_set(b->err, SLUICE_E_INTERNAL, "%s: %u bits have no type", base, p.bits);
    out->group = p.group;
    TRY(bind_group_values(b, base, ".scales", &p, n_stack, rows, cols, kind, &out->scales));
    return bind_group_values(b, base, ".biases", &p, n_stack, rows, cols, kind, &out->biases);
}

static enum sluice_status bind_float(struct binder *b, const struct tensor *t, uint32_t n_stack,
                                     uint32_t rows, uint32_t cols, struct wmat *out)
{
    switch ((int)t->dtype) {
    case DTYPE_F32: out->type = WTYPE_F32; break;
    case DTYPE_F16: out->type = WTYPE_F16; break;
    case DTYPE_BF16: out->type = WTYPE_BF16; break;
    default:
        return err_set(b->err, SLUICE_E_UNSUPPORTED,
                       "%s: tensor '%s' has type %s; F32, F16, BF16 and MLX's packed U32 are "
                       "supported",
                       checkpoint_file_name(b->cp, t), t->name, dtype_name(t->dtype));
    }
    return check_shape(b, t, n_stack, rows, cols);
}

enum sluice_status bind_matrix(struct binder *b, const char *base, uint32_t n_stack, uint32_t rows,
                               uint32_t cols, enum tensor_kind kind, struct wmat *out)
{
    const struct tensor *t = find_weight(b, base);
    if (!t)
        return err_set(b->err, SLUICE_E_NOT_FOUND, "tensor '%s.weight' is missing in '%s'", base,
                       b->cp->path);
    uint64_t all_rows = (uint64_t)rows * (n_stack ? n_stack : 1);
    if (all_rows > UINT32_MAX)
        return err_set(b->err, SLUICE_E_UNSUPPORTED, "tensor '%s' has too many rows", t->name);
    *out = (struct wmat){.rows = (uint32_t)all_rows, .cols = cols, .data = t->data};
    bind_claim(b, t, kind);
    if (t->dtype == DTYPE_U32) return bind_packed(b, base, t, n_stack, rows, cols, kind, out);
    return bind_float(b, t, n_stack, rows, cols, out);
}

static uint64_t row_bytes(const struct wmat *w)
{
    return (uint64_t)w->cols * wtype_bits(w->type) / 8;
}

uint64_t wmat_bytes(const struct wmat *w)
{
    uint64_t scales = wtype_is_packed(w->type) ? (uint64_t)(w->cols / w->group) * 4 : 0;
    return w->rows * (row_bytes(w) + scales);
}
