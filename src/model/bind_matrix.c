/*
 * Matrices: float tensors and GGUF's blocks as they are; MLX's triple of packed weight, scales and
 * biases; codes and scales of MXFP4; 8-bit floats and the scales of their tiles.
 */
#include <stdio.h>

#include "model/bind.h"

/* A block type of files and the weight type of that name are one. */
static bool block_wtype(enum dtype dtype, enum wtype *type)
{
    switch ((int)dtype) {
#define D(name, text, bytes, gguf)
#define B(name, text, weights, bytes, gguf)                                                        \
    case DTYPE_##name:                                                                             \
        *type = WTYPE_##name;                                                                      \
        return true;
#include "format/dtype.def"
#undef B
#undef D
    default: return false;
    }
}

void bind_claim(struct binder *b, const struct tensor *tensor, enum tensor_kind kind)
{
    b->model->tensor_kind[tensor - b->cp->tensors] = kind;
}

static const struct tensor *find(struct binder *b, const char *base, const char *suffix)
{
    char name[512];
    size_t n = strlen(base), m = strlen(suffix);
    if (n + m == 0 || n >= sizeof name || m >= sizeof name - n) return NULL;
    memcpy(name, base, n);
    memcpy(name + n, suffix, m + 1);
    return checkpoint_find_near(b->cp, name, &b->near);
}

/* base.weight; base itself, as fused experts are bare parameters; the codes of MXFP4. */
static const struct tensor *find_weight(struct binder *b, const char *base)
{
    const struct tensor *t = find(b, base, ".weight");
    if (!t) t = find(b, base, "");
    return t ? t : find(b, base, "_blocks");
}

bool bind_has_matrix(struct binder *b, const char *base)
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

/* The tensor base + suffix of that type, which must be [n_stack][rows][cols]. */
static enum sluice_status bind_beside(struct binder *b, const char *base, const char *suffix,
                                      enum dtype dtype, uint32_t n_stack, uint32_t rows,
                                      uint64_t cols, enum tensor_kind kind, const uint8_t **out)
{
    const struct tensor *t = find(b, base, suffix);
    if (!t)
        return err_set(b->err, SLUICE_E_NOT_FOUND,
                       "tensor '%s%s' is missing: '%s.weight' is packed and needs it", base, suffix,
                       base);
    if (t->dtype != dtype)
        return err_set(b->err, SLUICE_E_UNSUPPORTED, "%s: tensor '%s' has type %s; it must be %s",
                       checkpoint_file_name(b->cp, t), t->name, dtype_name(t->dtype),
                       dtype_name(dtype));
    TRY(check_shape(b, t, n_stack, rows, cols));
    bind_claim(b, t, kind);
    *out = t->data;
    return SLUICE_OK;
}

/* MLX: words of codes, and scales; affine groups have biases too. */
static enum sluice_status bind_packed(struct binder *b, const char *base, const struct tensor *t,
                                      uint32_t n_stack, uint32_t rows, uint32_t cols,
                                      enum tensor_kind kind, struct wmat *out)
{
    struct quant_params p;
    TRY(quant_lookup(&b->quant, base, &p, b->err));
    TRY(check_packed_type(b, t, &p, n_stack, rows, cols));
    uint32_t groups = cols / p.group;
    out->type = WTYPE_MXFP4_SPLIT;
    if (p.mxfp4)
        return bind_beside(b, base, ".scales", DTYPE_U8, n_stack, rows, groups, kind, &out->scales);
    if (!quant_wtype(p.bits, &out->type))
        return err_set(b->err, SLUICE_E_INTERNAL, "%s: %u bits have no type", base, p.bits);
    out->group = p.group;
    const struct tensor *scales = find(b, base, ".scales");
    out->f16_scales = scales && scales->dtype == DTYPE_F16;
    enum dtype dtype = out->f16_scales ? DTYPE_F16 : DTYPE_BF16;
    TRY(bind_beside(b, base, ".scales", dtype, n_stack, rows, groups, kind, &out->scales));
    return bind_beside(b, base, ".biases", dtype, n_stack, rows, groups, kind, &out->biases);
}

/* Hugging Face: base_blocks [n_stack][rows][cols / 32][16] and base_scales, both U8. */
static enum sluice_status bind_mxfp4(struct binder *b, const char *base, const struct tensor *t,
                                     uint32_t n_stack, uint32_t rows, uint32_t cols,
                                     enum tensor_kind kind, struct wmat *out)
{
    struct tensor flat = *t;
    if (t->dtype != DTYPE_U8 || t->rank < 2 || t->shape[t->rank - 1] != 16 || cols % 32 != 0)
        return err_set(b->err, SLUICE_E_MISMATCH,
                       "%s: tensor '%s' is not MXFP4 codes of rows of %u: 16 bytes of type U8 for "
                       "each 32",
                       checkpoint_file_name(b->cp, t), t->name, cols);
    flat.rank--;
    TRY(check_shape(b, &flat, n_stack, rows, cols / 32));
    out->type = WTYPE_MXFP4_SPLIT;
    return bind_beside(b, base, "_scales", DTYPE_U8, n_stack, rows, cols / 32, kind, &out->scales);
}

/* e4m3 and base.weight_scale_inv, a factor for each tile of 128 x 128, F32 or BF16. */
static enum sluice_status bind_fp8(struct binder *b, const char *base, const struct tensor *t,
                                   uint32_t n_stack, uint32_t rows, uint32_t cols,
                                   enum tensor_kind kind, struct wmat *out)
{
    static const char suffix[] = ".weight_scale_inv";
    if (!b->quant.fp8)
        return err_set(
            b->err, SLUICE_E_MISMATCH,
            "%s: tensor '%s' has type %s, but %s has no field 'quantization_config' with "
            "the method 'fp8'",
            checkpoint_file_name(b->cp, t), t->name, dtype_name(t->dtype), b->quant.file);
    TRY(check_shape(b, t, n_stack, rows, cols));
    if (n_stack && rows % WTILE != 0)
        return err_set(b->err, SLUICE_E_UNSUPPORTED,
                       "%s: tensor '%s' stacks matrices of %u rows, no multiple of 128: FP8 of "
                       "that kind is not supported",
                       checkpoint_file_name(b->cp, t), t->name, rows);
    const struct tensor *scales = find(b, base, suffix);
    out->type = WTYPE_F8_E4M3;
    out->f32_scales = !scales || scales->dtype != DTYPE_BF16;
    return bind_beside(b, base, suffix, out->f32_scales ? DTYPE_F32 : DTYPE_BF16, n_stack,
                       (rows + WTILE - 1) / WTILE, ((uint64_t)cols + WTILE - 1) / WTILE, kind,
                       &out->scales);
}

static enum sluice_status bind_plain(struct binder *b, const struct tensor *t, uint32_t n_stack,
                                     uint32_t rows, uint32_t cols, struct wmat *out)
{
    switch ((int)t->dtype) {
    case DTYPE_F32: out->type = WTYPE_F32; break;
    case DTYPE_F16: out->type = WTYPE_F16; break;
    case DTYPE_BF16: out->type = WTYPE_BF16; break;
    default:
        if (block_wtype(t->dtype, &out->type)) break;
        return err_set(b->err, SLUICE_E_UNSUPPORTED,
                       "%s: tensor '%s' has type %s; F32, F16, BF16, F8_E4M3, MLX's packed U32, "
                       "MXFP4 and GGUF's blocks are supported",
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
    switch ((int)t->dtype) {
    case DTYPE_U32: return bind_packed(b, base, t, n_stack, rows, cols, kind, out);
    case DTYPE_U8: return bind_mxfp4(b, base, t, n_stack, rows, cols, kind, out);
    case DTYPE_F8_E4M3: return bind_fp8(b, base, t, n_stack, rows, cols, kind, out);
    default: return bind_plain(b, t, n_stack, rows, cols, out);
    }
}
