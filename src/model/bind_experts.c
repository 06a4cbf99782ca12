/*
 * Routed experts in the layouts that are published: one tensor per expert, fused 3-D tensors with
 * gate and up together, MLX's stacked switch_mlp, or the stacked tensors of GGUF.
 */
#include <stdio.h>

#include "model/bind.h"

struct expert_shape {
    uint32_t n, inter, hidden;
};

static const char *join(char *out, size_t cap, const char *module, const char *rest)
{
    int n = snprintf(out, cap, "%s%s", module, rest);
    return n > 0 && (size_t)n < cap ? out : "";
}

/* What the matrices of a single expert are called. */
struct expert_names {
    const char *gate, *up, *down;
};

static const struct expert_names single_names[] = {
    {"gate_proj", "up_proj", "down_proj"},
    {"w1", "w3", "w2"},
};

static const char *single(char *out, size_t cap, const char *module, uint32_t e, const char *name)
{
    int n = snprintf(out, cap, "%s.experts.%u.%s", module, e, name);
    return n > 0 && (size_t)n < cap ? out : "";
}

/* The names by which the first expert is found; NULL: there is none. */
static const struct expert_names *find_single(struct binder *b, const char *module)
{
    char base[512];
    for (size_t i = 0; i < sizeof single_names / sizeof single_names[0]; i++)
        if (bind_has_matrix(b, single(base, sizeof base, module, 0, single_names[i].gate)))
            return &single_names[i];
    return NULL;
}

static enum sluice_status bind_separate(struct binder *b, const char *module,
                                        const struct expert_shape *s, struct expert_view *views)
{
    char base[512];
    size_t cap = sizeof base;
    const struct expert_names *names = find_single(b, module);
    if (!names) names = &single_names[0]; /* the first is named as missing */
    for (uint32_t e = 0; e < s->n; e++) {
        TRY(bind_matrix(b, single(base, cap, module, e, names->gate), 0, s->inter, s->hidden,
                        TENSOR_EXPERT, &views[e].gate));
        TRY(bind_matrix(b, single(base, cap, module, e, names->up), 0, s->inter, s->hidden,
                        TENSOR_EXPERT, &views[e].up));
        TRY(bind_matrix(b, single(base, cap, module, e, names->down), 0, s->hidden, s->inter,
                        TENSOR_EXPERT, &views[e].down));
    }
    return SLUICE_OK;
}

/* What stacked experts are called behind their module: gate, up, down, gate and up together. */
struct stack_names {
    const char *gate, *up, *down, *gate_up;
};

static const struct stack_names mlx_names = {".switch_mlp.gate_proj", ".switch_mlp.up_proj",
                                             ".switch_mlp.down_proj", NULL};
static const struct stack_names fused_names = {NULL, NULL, ".experts.down_proj",
                                               ".experts.gate_up_proj"};
static const struct stack_names gguf_names = {"_gate_exps", "_up_exps", "_down_exps",
                                              "_gate_up_exps"};

/* gate_up [n][2 inter][hidden]: the gate's rows, then the up's; down [n][hidden][inter] */
static enum sluice_status bind_fused(struct binder *b, const char *module,
                                     const struct stack_names *names, const struct expert_shape *s,
                                     struct expert_view *views)
{
    char base[512];
    struct wmat gate_up, down;
    TRY(bind_matrix(b, join(base, sizeof base, module, names->gate_up), s->n, 2 * s->inter,
                    s->hidden, TENSOR_EXPERT, &gate_up));
    TRY(bind_matrix(b, join(base, sizeof base, module, names->down), s->n, s->hidden, s->inter,
                    TENSOR_EXPERT, &down));
    for (uint32_t e = 0; e < s->n; e++) {
        uint64_t row = (uint64_t)e * 2 * s->inter;
        views[e].gate = wmat_rows(&gate_up, row, s->inter);
        views[e].up = wmat_rows(&gate_up, row + s->inter, s->inter);
        views[e].down = wmat_rows(&down, (uint64_t)e * s->hidden, s->hidden);
    }
    return SLUICE_OK;
}

static enum sluice_status bind_stacked(struct binder *b, const char *module,
                                       const struct stack_names *names,
                                       const struct expert_shape *s, struct expert_view *views)
{
    char base[512];
    struct wmat gate, up, down;
    TRY(bind_matrix(b, join(base, sizeof base, module, names->gate), s->n, s->inter, s->hidden,
                    TENSOR_EXPERT, &gate));
    TRY(bind_matrix(b, join(base, sizeof base, module, names->up), s->n, s->inter, s->hidden,
                    TENSOR_EXPERT, &up));
    TRY(bind_matrix(b, join(base, sizeof base, module, names->down), s->n, s->hidden, s->inter,
                    TENSOR_EXPERT, &down));
    for (uint32_t e = 0; e < s->n; e++) {
        views[e].gate = wmat_rows(&gate, (uint64_t)e * s->inter, s->inter);
        views[e].up = wmat_rows(&up, (uint64_t)e * s->inter, s->inter);
        views[e].down = wmat_rows(&down, (uint64_t)e * s->hidden, s->hidden);
    }
    return SLUICE_OK;
}

static uint64_t expert_bytes(const struct expert_view *v)
{
    return wmat_bytes(&v->gate) + wmat_bytes(&v->up) + wmat_bytes(&v->down);
}

static enum sluice_status bind_any(struct binder *b, const char *module,
                                   const struct expert_shape *shape, struct expert_view *views)
{
    char base[512];
    const struct stack_names *fused = b->gguf ? &gguf_names : &fused_names;
    if (bind_has_matrix(b, join(base, sizeof base, module, fused->gate_up)))
        return bind_fused(b, module, fused, shape, views);
    if (b->gguf) return bind_stacked(b, module, &gguf_names, shape, views);
    if (bind_has_matrix(b, join(base, sizeof base, module, mlx_names.gate)))
        return bind_stacked(b, module, &mlx_names, shape, views);
    return bind_separate(b, module, shape, views);
}

bool bind_has_experts(struct binder *b, const char *module)
{
    char base[512];
    return bind_has_matrix(b, join(base, sizeof base, module, fused_names.gate_up)) ||
           bind_has_matrix(b, join(base, sizeof base, module, mlx_names.gate)) ||
           find_single(b, module) != NULL;
}

enum sluice_status bind_experts(struct binder *b, const char *module,
                                const struct weight_decl *decl, struct weight_data *out)
{
    struct model *m = b->model;
    struct expert_shape shape = {decl->n_experts, decl->n_inter, decl->cols};
    struct expert_bank *bank = arena_alloc(&m->arena, 1, sizeof *bank);
    struct expert_view *views = arena_alloc(&m->arena, shape.n, sizeof *views);
    if (!bank || !views) return err_nomem(b->err, "experts", shape.n * sizeof *views);
    *bank = (struct expert_bank){
        .index = m->n_banks, .layer = decl->layer, .n_experts = shape.n, .experts = views};
    if (decl->biased)
        TRY(bind_biased_experts(b, module, decl, bank));
    else
        TRY(bind_any(b, module, &shape, views));
    for (uint32_t e = 0; e < shape.n; e++) {
        uint64_t bytes = expert_bytes(&views[e]);
        m->expert_bytes += bytes;
        if (bytes > m->bytes_per_expert) m->bytes_per_expert = bytes;
    }
    m->n_parameters += 3ull * shape.n * shape.inter * shape.hidden;
    m->banks[m->n_banks++] = bank;
    out->bank = bank;
    return SLUICE_OK;
}
