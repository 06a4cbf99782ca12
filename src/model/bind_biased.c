/*
 * Routed experts with biases, as GPT-OSS has them: gate and up in one matrix, one value of each in
 * turns, published with inputs for rows in bf16 and with outputs for rows in MXFP4, or split and
 * the usual way round by MLX and GGUF. Biases are small and kept as f32, whether experts are
 * streamed or not.
 */
#include <stdio.h>

#include "model/bind.h"

/* What is behind the module's name; NULL: gate and up are one. */
struct biased_names {
    const char *gate_up, *gate, *up, *down;
    const char *gate_up_bias, *gate_bias, *up_bias, *down_bias;
};

static const struct biased_names hf_names = {.gate_up = ".experts.gate_up_proj",
                                             .down = ".experts.down_proj",
                                             .gate_up_bias = ".experts.gate_up_proj_bias",
                                             .down_bias = ".experts.down_proj_bias"};
static const struct biased_names mlx_names = {.gate = ".experts.gate_proj",
                                              .up = ".experts.up_proj",
                                              .down = ".experts.down_proj",
                                              .gate_bias = ".experts.gate_proj.bias",
                                              .up_bias = ".experts.up_proj.bias",
                                              .down_bias = ".experts.down_proj.bias"};
static const struct biased_names gguf_names = {.gate = "_gate_exps",
                                               .up = "_up_exps",
                                               .down = "_down_exps",
                                               .gate_bias = "_gate_exps.bias",
                                               .up_bias = "_up_exps.bias",
                                               .down_bias = "_down_exps.bias"};

struct biased_name {
    char text[512];
};

static struct biased_name name_of(const char *module, const char *rest)
{
    struct biased_name name;
    int n = snprintf(name.text, sizeof name.text, "%s%s", module, rest);
    if (n < 0 || (size_t)n >= sizeof name.text) name.text[0] = '\0';
    return name;
}

static enum sluice_status bind_stack(struct binder *b, const char *module, const char *rest,
                                     uint32_t n, uint32_t rows, uint32_t cols, struct wmat *out)
{
    return bind_matrix(b, name_of(module, rest).text, n, rows, cols, TENSOR_EXPERT, out);
}

/* Gate and up in one matrix, as inputs by outputs or, in MXFP4, as outputs by inputs. */
struct pair_shape {
    uint32_t in_rows, in_cols, out_rows, out_cols; /* of gate and up; of down */
};

static struct pair_shape pair_shape(const struct weight_decl *d, bool transposed)
{
    uint32_t both = 2 * d->n_inter;
    return transposed ? (struct pair_shape){d->cols, both, d->n_inter, d->cols}
                      : (struct pair_shape){both, d->cols, d->cols, d->n_inter};
}

static enum sluice_status bind_paired(struct binder *b, const char *module,
                                      const struct weight_decl *d, const struct pair_shape *s,
                                      struct expert_view *views)
{
    struct wmat gate_up, down;
    TRY(bind_stack(b, module, hf_names.gate_up, d->n_experts, s->in_rows, s->in_cols, &gate_up));
    TRY(bind_stack(b, module, hf_names.down, d->n_experts, s->out_rows, s->out_cols, &down));
    for (uint32_t e = 0; e < d->n_experts; e++) {
        views[e].gate = wmat_rows(&gate_up, (uint64_t)e * s->in_rows, s->in_rows);
        views[e].down = wmat_rows(&down, (uint64_t)e * s->out_rows, s->out_rows);
    }
    return SLUICE_OK;
}

static enum sluice_status bind_parts(struct binder *b, const char *module,
                                     const struct biased_names *names, const struct weight_decl *d,
                                     struct expert_view *views)
{
    struct wmat gate, up, down;
    TRY(bind_stack(b, module, names->gate, d->n_experts, d->n_inter, d->cols, &gate));
    TRY(bind_stack(b, module, names->up, d->n_experts, d->n_inter, d->cols, &up));
    TRY(bind_stack(b, module, names->down, d->n_experts, d->cols, d->n_inter, &down));
    for (uint32_t e = 0; e < d->n_experts; e++) {
        views[e].gate = wmat_rows(&gate, (uint64_t)e * d->n_inter, d->n_inter);
        views[e].up = wmat_rows(&up, (uint64_t)e * d->n_inter, d->n_inter);
        views[e].down = wmat_rows(&down, (uint64_t)e * d->cols, d->cols);
    }
    return SLUICE_OK;
}

static struct biased_name single_name(const char *module, uint32_t e, const char *matrix)
{
    char rest[64];
    snprintf(rest, sizeof rest, ".experts.%u.%s", e, matrix);
    return name_of(module, rest);
}

static enum sluice_status bind_single(struct binder *b, const char *module, uint32_t e,
                                      const char *matrix, uint32_t rows, uint32_t cols,
                                      struct wmat *out)
{
    return bind_matrix(b, single_name(module, e, matrix).text, 0, rows, cols, TENSOR_EXPERT, out);
}

/* As a packed store has them. */
static enum sluice_status bind_single_parts(struct binder *b, const char *module,
                                            const struct weight_decl *d, struct expert_view *views)
{
    for (uint32_t e = 0; e < d->n_experts; e++) {
        TRY(bind_single(b, module, e, "gate_proj", d->n_inter, d->cols, &views[e].gate));
        TRY(bind_single(b, module, e, "up_proj", d->n_inter, d->cols, &views[e].up));
        TRY(bind_single(b, module, e, "down_proj", d->cols, d->n_inter, &views[e].down));
    }
    return SLUICE_OK;
}

static enum sluice_status bind_single_pairs(struct binder *b, const char *module,
                                            const struct weight_decl *d, const struct pair_shape *s,
                                            struct expert_view *views)
{
    for (uint32_t e = 0; e < d->n_experts; e++) {
        TRY(bind_single(b, module, e, "gate_up_proj", s->in_rows, s->in_cols, &views[e].gate));
        TRY(bind_single(b, module, e, "down_proj", s->out_rows, s->out_cols, &views[e].down));
    }
    return SLUICE_OK;
}

/* Whether the pairs, of one expert or of all, have scales: then they are not transposed. */
static bool has_scales(const struct binder *b, const char *module)
{
    struct biased_name all = name_of(module, ".experts.gate_up_proj_scales");
    struct biased_name first = single_name(module, 0, "gate_up_proj.scales");
    return checkpoint_find(b->cp, all.text) || checkpoint_find(b->cp, first.text);
}

static bool has_single(struct binder *b, const char *module, const char *matrix)
{
    return bind_has_matrix(b, single_name(module, 0, matrix).text);
}

static enum sluice_status bind_biases(struct binder *b, const char *module,
                                      const struct biased_names *names, const struct weight_decl *d,
                                      struct expert_bank *bank)
{
    float *gate_up, *down;
    uint32_t n = d->n_experts, both = 2 * d->n_inter;
    TRY(bind_new_values(b, (size_t)n * both, &gate_up));
    TRY(bind_new_values(b, (size_t)n * d->cols, &down));
    bank->gate_up_bias = gate_up;
    bank->down_bias = down;
    TRY(bind_rows(b, name_of(module, names->down_bias).text, n, d->cols, d->cols, down));
    if (names->gate_up_bias)
        return bind_rows(b, name_of(module, names->gate_up_bias).text, n, both, both, gate_up);
    TRY(bind_rows(b, name_of(module, names->gate_bias).text, n, d->n_inter, both, gate_up));
    return bind_rows(b, name_of(module, names->up_bias).text, n, d->n_inter, both,
                     gate_up + d->n_inter);
}

enum sluice_status bind_biased_experts(struct binder *b, const char *module,
                                       const struct weight_decl *decl, struct expert_bank *bank)
{
    const struct biased_names *split = b->gguf ? &gguf_names : &mlx_names;
    bool single = has_single(b, module, "gate_proj");
    if (single || b->gguf || bind_has_matrix(b, name_of(module, split->gate).text)) {
        if (single)
            TRY(bind_single_parts(b, module, decl, bank->experts));
        else
            TRY(bind_parts(b, module, split, decl, bank->experts));
        return bind_biases(b, module, split, decl, bank);
    }
    bank->paired = true;
    bank->transposed = !has_scales(b, module);
    struct pair_shape shape = pair_shape(decl, bank->transposed);
    if (has_single(b, module, "gate_up_proj"))
        TRY(bind_single_pairs(b, module, decl, &shape, bank->experts));
    else
        TRY(bind_paired(b, module, decl, &shape, bank->experts));
    return bind_biases(b, module, &hf_names, decl, bank);
}
