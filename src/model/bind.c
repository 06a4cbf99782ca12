#include "model/bind.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fp16.h"

/* Where published checkpoints keep the text model, and its head. */
static const struct {
    const char *prefix, *head_prefix;
} layouts[] = {
    {"model.language_model.", ""},
    {"language_model.model.", "language_model."},
    {"model.", ""},
    {"language_model.", ""},
    {"", ""},
};

static enum sluice_status find_layout(struct binder *b)
{
    char name[128];
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        snprintf(name, sizeof name, "%sembed_tokens.weight", layouts[i].prefix);
        if (!checkpoint_find(b->cp, name)) continue;
        b->prefix = layouts[i].prefix;
        b->head_prefix = layouts[i].head_prefix;
        return SLUICE_OK;
    }
    return err_set(b->err, SLUICE_E_NOT_FOUND,
                   "tensor 'model.embed_tokens.weight' is missing in '%s', also under the prefixes "
                   "'model.language_model.' and 'language_model.model.'",
                   b->cp->path);
}

/* prefix + pattern, with '#' replaced by the layer; "" when there is none, or it is too long. */
static void fill_pattern(const struct binder *b, const struct weight_decl *decl,
                         const char *pattern, char *out, size_t cap)
{
    const char *prefix = decl->role == WEIGHT_lm_head ? b->head_prefix : b->prefix;
    out[0] = '\0';
    if (!pattern) return;
    const char *hash = strchr(pattern, '#');
    int n = hash ? snprintf(out, cap, "%s%.*s%u%s", prefix, (int)(hash - pattern), pattern,
                            decl->layer, hash + 1)
                 : snprintf(out, cap, "%s%s", prefix, pattern);
    if (n < 0 || (size_t)n >= cap) out[0] = '\0';
}

static bool is_stored(struct binder *b, const struct weight_decl *decl, const char *name)
{
    switch (weight_role_kind(decl->role)) {
    case WEIGHT_KIND_MATRIX: return bind_has_matrix(b, name);
    case WEIGHT_KIND_BANK: return bind_has_experts(b, name);
    default: return checkpoint_find(b->cp, name) != NULL;
    }
}

/*
 * The first of the family's own names that is stored; without one the common name, which newer
 * converters write; if that is not stored either, the first, to be named as missing.
 */
static void source_name(struct binder *b, const struct weight_decl *decl, char *out, size_t cap)
{
    const char *common = arch_source(decl->role)->name, *own;
    if (b->gguf) {
        fill_pattern(b, decl, gguf_weight_name(b->gguf, decl->role), out, cap);
        return;
    }
    for (uint32_t i = 0; (own = arch_rename(b->arch, decl->role, i)) != NULL; i++) {
        fill_pattern(b, decl, own, out, cap);
        if (is_stored(b, decl, out)) return;
    }
    fill_pattern(b, decl, common, out, cap);
    own = arch_rename(b->arch, decl->role, 0);
    if (own && !is_stored(b, decl, out)) fill_pattern(b, decl, own, out, cap);
}

/*
 * MLX stores convolutions [channels][width][1] and norms as they are applied; the original layout
 * stores [channels][1][width] and norms minus one. Without a convolution the file's metadata tells.
 */
static bool stored_centred(struct binder *b)
{
    if (!b->arch->centred) return false;
    const struct graph *g = &b->model->graph;
    char name[512];
    for (size_t i = 0; i < g->weights.n; i++) {
        const struct weight_decl *decl = &g->weights.items[i];
        if (decl->role != WEIGHT_conv || decl->rows == 1) continue;
        source_name(b, decl, name, sizeof name);
        const struct tensor *t = checkpoint_find(b->cp, name);
        if (t && t->rank == 3) return t->shape[1] == 1;
    }
    return !b->cp->any_mlx && !b->quant.present;
}

static bool read_float(const struct tensor *t, uint64_t i, float *out)
{
    switch ((int)t->dtype) {
    case DTYPE_F32: *out = f32_from_bits(load_u32le(t->data + 4 * i)); return true;
    case DTYPE_F16: *out = f16_to_f32(load_u16le(t->data + 2 * i)); return true;
    case DTYPE_BF16: *out = bf16_to_f32(load_u16le(t->data + 2 * i)); return true;
    default: return false;
    }
}

static float transformed(const struct binder *b, enum vector_transform transform, float v)
{
    if (b->gguf) return v; /* GGUF files have them ready for use */
    switch (transform) {
    case VECTOR_NORM: return b->centred ? v + 1.0f : v;
    case VECTOR_NEG_EXP: return -expf(v);
    case VECTOR_AS_IS: break;
    }
    return v;
}

static enum sluice_status find_small(struct binder *b, const char *name, uint64_t n,
                                     const struct tensor **out)
{
    const struct tensor *t = checkpoint_find(b->cp, name);
    if (!t)
        return err_set(b->err, SLUICE_E_NOT_FOUND, "tensor '%s' is missing in '%s'", name,
                       b->cp->path);
    uint64_t have = 1;
    for (uint32_t i = 0; i < t->rank; i++) have *= t->shape[i];
    if (have != n || t->rank == 0)
        return err_set(b->err, SLUICE_E_MISMATCH,
                       "%s: tensor '%s' has %llu values where the config asks for %llu",
                       checkpoint_file_name(b->cp, t), name, (unsigned long long)have,
                       (unsigned long long)n);
    float probe;
    checkpoint_want(t);
    if (!read_float(t, 0, &probe))
        return err_set(b->err, SLUICE_E_UNSUPPORTED,
                       "%s: tensor '%s' has type %s; F32, F16 and BF16 are supported",
                       checkpoint_file_name(b->cp, t), name, dtype_name(t->dtype));
    bind_claim(b, t, TENSOR_DENSE);
    *out = t;
    return SLUICE_OK;
}

enum sluice_status bind_new_values(struct binder *b, size_t n, float **out)
{
    *out = arena_alloc(&b->model->arena, n, sizeof **out);
    if (!*out) return err_nomem(b->err, "weights", n * sizeof **out);
    b->model->converted_bytes += n * sizeof **out;
    b->model->n_parameters += n;
    return SLUICE_OK;
}

enum sluice_status bind_rows(struct binder *b, const char *name, uint64_t n_rows, uint64_t n,
                             uint64_t stride, float *out)
{
    const struct tensor *t;
    TRY(find_small(b, name, n_rows * n, &t));
    for (uint64_t r = 0; r < n_rows; r++)
        for (uint64_t i = 0; i < n; i++) (void)read_float(t, r * n + i, &out[r * stride + i]);
    return SLUICE_OK;
}

static enum sluice_status bind_vector(struct binder *b, const char *name,
                                      const struct weight_decl *decl, struct weight_data *out)
{
    const struct tensor *t;
    float *values;
    TRY(find_small(b, name, decl->cols, &t));
    if (t->rank != 1)
        return err_set(b->err, SLUICE_E_MISMATCH,
                       "%s: tensor '%s' has rank %u where one of %u is "
                       "needed",
                       checkpoint_file_name(b->cp, t), name, t->rank, 1u);
    TRY(bind_new_values(b, decl->cols, &values));
    enum vector_transform transform = arch_source(decl->role)->transform;
    for (uint32_t i = 0; i < decl->cols; i++) {
        (void)read_float(t, i, &values[i]);
        values[i] = transformed(b, transform, values[i]);
    }
    out->values = values;
    return SLUICE_OK;
}

/* Stored [channels][1][width] or [channels][width][1]: either way a row a channel. */
static enum sluice_status bind_conv(struct binder *b, const char *name,
                                    const struct weight_decl *decl, struct weight_data *out)
{
    const struct tensor *t;
    float *values;
    uint32_t width = decl->rows, channels = decl->cols;
    TRY(find_small(b, name, (uint64_t)width * channels, &t));
    if (t->shape[0] != channels)
        return err_set(b->err, SLUICE_E_MISMATCH,
                       "%s: tensor '%s' has %llu channels where the config asks for %u",
                       checkpoint_file_name(b->cp, t), name, (unsigned long long)t->shape[0],
                       channels);
    TRY(bind_new_values(b, (size_t)width * channels, &values));
    for (uint32_t c = 0; c < channels; c++)
        for (uint32_t j = 0; j < width; j++)
            (void)read_float(t, (uint64_t)c * width + j, &values[(size_t)j * channels + c]);
    out->values = values;
    return SLUICE_OK;
}

static enum sluice_status bind_dense(struct binder *b, const char *base,
                                     const struct weight_decl *decl, struct weight_data *out)
{
    TRY(bind_matrix(b, base, 0, decl->rows, decl->cols, TENSOR_DENSE, &out->matrix));
    b->model->dense_bytes += wmat_bytes(&out->matrix);
    b->model->n_parameters += (uint64_t)decl->rows * decl->cols;
    return SLUICE_OK;
}

static enum sluice_status bind_tied_head(struct binder *b, struct weight_data *out)
{
    const struct graph *g = &b->model->graph;
    for (size_t i = 0; i < g->weights.n; i++)
        if (g->weights.items[i].role == WEIGHT_embed) out->same = &b->model->weights[i];
    if (out->same) out->matrix = out->same->matrix;
    if (out->matrix.data) return SLUICE_OK;
    return err_set(b->err, SLUICE_E_INTERNAL, "tied head: the embedding is not bound yet");
}

static enum sluice_status bind_one(struct binder *b, const struct weight_decl *decl,
                                   struct weight_data *out)
{
    char name[512];
    if (decl->role == WEIGHT_lm_head && b->tied) return bind_tied_head(b, out);
    source_name(b, decl, name, sizeof name);
    switch (weight_role_kind(decl->role)) {
    case WEIGHT_KIND_MATRIX: return bind_dense(b, name, decl, out);
    case WEIGHT_KIND_VECTOR: return bind_vector(b, name, decl, out);
    case WEIGHT_KIND_CONV: return bind_conv(b, name, decl, out);
    case WEIGHT_KIND_HEADS: return bind_heads(b, name, decl, out);
    case WEIGHT_KIND_BANK: return bind_experts(b, name, decl, out);
    }
    return err_set(b->err, SLUICE_E_INTERNAL, "weight of an unknown kind");
}

/* A tensor of a layer behind those of the model: such layers draft further tokens. */
static bool is_of_draft_layer(const struct binder *b, const char *name)
{
    const char *layers = b->gguf ? "blk." : "layers.";
    size_t at = strlen(b->prefix), n = strlen(layers);
    if (strncmp(name, b->prefix, at) != 0 || strncmp(name + at, layers, n) != 0) return false;
    const char *digits = name + at + n;
    char *end;
    unsigned long layer = strtoul(digits, &end, 10);
    if (end == digits || *end != '.' || layer < b->model->n_layers) return false;
    return layer - b->model->n_layers < b->model->n_draft_layers;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

/*
 * Parts of published checkpoints that text does not need: vision towers, draft layers, and the
 * frequencies that follow from the config.
 */
static bool is_skippable(const struct binder *b, const char *name)
{
    if (is_of_draft_layer(b, name)) return true;
    if (b->gguf) return false;
    if (ends_with(name, ".rotary_emb.inv_freq")) return true;
    static const char *const parts[] = {"visual.", "vision_tower.", "vision_model.", "mtp."};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const char *at = strstr(name, parts[i]);
        if (at && (at == name || at[-1] == '.')) return true;
    }
    return b->tied && strstr(name, "lm_head.") != NULL;
}

/* What fills the last page of an expert in a packed store: zeros that are no weights. */
static bool is_padding(const char *name)
{
    static const char prefix[] = "__pad__.";
    return strncmp(name, prefix, sizeof prefix - 1) == 0;
}

static enum sluice_status account(struct binder *b, const struct log *log)
{
    struct model *m = b->model;
    size_t n_skipped = 0;
    for (size_t i = 0; i < b->cp->n_tensors; i++) {
        const struct tensor *t = &b->cp->tensors[i];
        if (m->tensor_kind[i] != TENSOR_UNCLAIMED) continue;
        if (is_padding(t->name)) {
            m->tensor_kind[i] = TENSOR_PADDING;
            m->padding_bytes += t->bytes;
            continue;
        }
        if (!is_skippable(b, t->name))
            return err_set(b->err, SLUICE_E_UNSUPPORTED,
                           "%s: tensor '%s' belongs to no part of %s that is known",
                           checkpoint_file_name(b->cp, t), t->name, m->architecture);
        m->tensor_kind[i] = TENSOR_SKIPPED;
        m->skipped_bytes += t->bytes;
        n_skipped++;
    }
    if (n_skipped)
        log_write(log, SLUICE_LOG_INFO,
                  "%zu tensors (%.1f MiB) of vision or draft layers are skipped: text does not "
                  "need them",
                  n_skipped, (double)m->skipped_bytes / 1048576.0);
    return SLUICE_OK;
}

/*
 * Vectors and convolutions lie here and there between matrices, which are not read now. All of them
 * are asked for before the first one is waited for.
 */
static void want_vectors(struct binder *b)
{
    const struct graph *g = &b->model->graph;
    char name[512];
    for (size_t i = 0; i < g->weights.n; i++) {
        const struct weight_decl *decl = &g->weights.items[i];
        enum weight_kind kind = weight_role_kind(decl->role);
        if (kind != WEIGHT_KIND_VECTOR && kind != WEIGHT_KIND_CONV) continue;
        source_name(b, decl, name, sizeof name);
        const struct tensor *t = checkpoint_find(b->cp, name);
        if (t) checkpoint_want(t);
    }
}

enum sluice_status bind_weights(struct binder *b)
{
    const struct graph *g = &b->model->graph;
    if (b->gguf) {
        b->prefix = b->head_prefix = "";
    } else {
        TRY(find_layout(b));
        b->centred = stored_centred(b);
    }
    want_vectors(b);
    for (size_t i = 0; i < g->weights.n; i++)
        TRY(bind_one(b, &g->weights.items[i], &b->model->weights[i]));
    return account(b, b->log);
}
