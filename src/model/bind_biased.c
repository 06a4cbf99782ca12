/*
 * Routed experts with biases, as GPT-OSS has them: published with inputs for rows and with columns
 * of gate and up in turns, or split and the usual way round by MLX and GGUF. Biases are small and
 * kept as f32, whether experts are streamed or not.
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

static enum sluice_status bind_paired(struct binder *b, const char *module,
                                      const struct weight_decl *d, struct expert_view *views)
{
    struct wmat gate_up, down;
    TRY(bind_stack(b, module, hf_names.gate_up, d->n_experts, d->cols, 2 * d->n_inter, &gate_up));
    TRY(bind_stack(b, module, hf_names.down, d->n_experts, d->n_inter, d->cols, &down));
    for (uint32_t e = 0; e < d->n_experts; e++) {
        views[e].gate = wmat_rows(&gate_up, (uint64_t)e * d->cols, d->cols);
        views[e].down = wmat_rows(&down, (uint64_t)e * d->n_inter, d->n_inter);
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
static enum sluice_status bind_singles(struct binder *b, const char *module, bool paired,
                                       const struct weight_decl *d, struct expert_view *views)
{
    uint32_t inter = d->n_inter, hidden = d->cols;
    for (uint32_t e = 0; e < d->n_experts; e++) {
        struct expert_view *v = &views[e];
        if (paired) {
            TRY(bind_single(b, module, e, "gate_up_proj", hidden, 2 * inter, &v->gate));
            TRY(bind_single(b, module, e, "down_proj", inter, hidden, &v->down));
            continue;
        }
        TRY(bind_single(b, module, e, "gate_proj", inter, hidden, &v->gate));
        TRY(bind_single(b, module, e, "up_proj", inter, hidden, &v->up));
        TRY(bind_single(b, module, e, "down_proj", hidden, inter, &v->down));
    }
    return SLUICE_OK;
}

static bool has_single(const struct binder *b, const char *module, const char *matrix)
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
            TRY(bind_singles(b, module, false, decl, bank->experts));
        else
            TRY(bind_parts(b, module, split, decl, bank->experts));
        return bind_biases(b, module, split, decl, bank);
    }
    bank->paired = bank->transposed = true;
    if (has_single(b, module, "gate_up_proj"))
        TRY(bind_singles(b, module, true, decl, bank->experts));
    else
        TRY(bind_paired(b, module, decl, bank->experts));
    return bind_biases(b, module, &hf_names, decl, bank);
}
