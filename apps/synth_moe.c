/* Router, experts and dense MLP of a synthetic layer. */
#include <math.h>
#include <stdio.h>

#include "report.h"
#include "synth_make.h"

/* A matrix of the module that holds router and experts, or n of them in one tensor. */
static enum sluice_status add_in_moe(struct synth_maker *k, uint32_t l, const char *module,
                                     const char *rest, uint64_t n, uint64_t rows, uint64_t cols,
                                     float gain)
{
    char name[SYNTH_NAME];
    return synth_add_matrix(k, synth_in_moe(name, k, l, module, rest), n, rows, cols, k->o->bits,
                            gain);
}

/* Gate, up and down of n experts in a tensor each, or (n 0) of one expert. */
static enum sluice_status add_three(struct synth_maker *k, uint32_t l, const char *module,
                                    uint64_t n)
{
    static const char *const by_role[] = {"gate_proj", "up_proj", "down_proj"};
    static const char *const by_number[] = {"w1", "w3", "w2"};
    const struct synth_shape *s = &k->s;
    bool numbered = n == 0 && s->family->experts == SYNTH_BY_NUMBER;
    const char *const *names = numbered ? by_number : by_role;
    TRY(add_in_moe(k, l, module, names[0], n, s->inter, s->hidden, 1));
    TRY(add_in_moe(k, l, module, names[1], n, s->inter, s->hidden, 1));
    return add_in_moe(k, l, module, names[2], n, s->hidden, s->inter, synth_writer_gain(k));
}

static enum sluice_status add_bias(struct synth_maker *k, uint32_t l, const char *rest, uint64_t n)
{
    char name[SYNTH_NAME];
    uint64_t shape[2] = {k->s.experts, n};
    return synth_add(k, synth_in_moe(name, k, l, "experts", rest), "BF16", 2, shape, SYNTH_UNIFORM,
                     -0.1f, 0.1f);
}

/* Outputs for rows, a row of the gate and one of the up in turns, and biases. */
static enum sluice_status add_mxfp4_experts(struct synth_maker *k, uint32_t l)
{
    const struct synth_shape *s = &k->s;
    uint64_t n = s->experts, both = 2ull * s->inter, h = s->hidden;
    char base[SYNTH_NAME];
    TRY(synth_add_mxfp4(k, synth_in_moe(base, k, l, "experts", "gate_up_proj"), n, both, h, 1));
    TRY(add_bias(k, l, "gate_up_proj_bias", both));
    TRY(synth_add_mxfp4(k, synth_in_moe(base, k, l, "experts", "down_proj"), n, h, s->inter,
                        synth_writer_gain(k)));
    return add_bias(k, l, "down_proj_bias", h);
}

/* With biases, inputs for rows and columns of gate and up in turns; else gate's rows, then up's. */
static enum sluice_status add_fused_experts(struct synth_maker *k, uint32_t l)
{
    const struct synth_shape *s = &k->s;
    uint64_t n = s->experts, both = 2ull * s->inter, h = s->hidden;
    float down = synth_writer_gain(k), turned = sqrtf((float)both / (float)h);
    if (s->family->experts != SYNTH_PAIRED) {
        TRY(add_in_moe(k, l, "experts", "gate_up_proj", n, both, h, 1));
        return add_in_moe(k, l, "experts", "down_proj", n, h, s->inter, down);
    }
    TRY(add_in_moe(k, l, "experts", "gate_up_proj", n, h, both, turned));
    TRY(add_bias(k, l, "gate_up_proj_bias", both));
    TRY(add_in_moe(k, l, "experts", "down_proj", n, s->inter, h,
                   down * sqrtf((float)h / (float)s->inter)));
    return add_bias(k, l, "down_proj_bias", h);
}

static enum sluice_status add_mlx_experts(struct synth_maker *k, uint32_t l)
{
    const struct synth_shape *s = &k->s;
    if (s->family->experts != SYNTH_PAIRED) return add_three(k, l, "switch_mlp", s->experts);
    TRY(add_three(k, l, "experts", s->experts));
    TRY(add_bias(k, l, "gate_proj.bias", s->inter));
    TRY(add_bias(k, l, "up_proj.bias", s->inter));
    return add_bias(k, l, "down_proj.bias", s->hidden);
}

static enum sluice_status add_experts(struct synth_maker *k, uint32_t l)
{
    const struct synth_shape *s = &k->s;
    char module[64];
    if (k->o->layout == SYNTH_MLX) return add_mlx_experts(k, l);
    if (k->o->layout == SYNTH_MXFP4) return add_mxfp4_experts(k, l);
    if (s->family->experts == SYNTH_FUSED || s->family->experts == SYNTH_PAIRED)
        return add_fused_experts(k, l);
    for (uint32_t e = 0; e < s->experts; e++) {
        snprintf(module, sizeof module, "experts.%u", e);
        TRY(add_three(k, l, module, 0));
    }
    return SLUICE_OK;
}

enum sluice_status synth_add_mlp(struct synth_maker *k, uint32_t l, const char *module,
                                 uint64_t inter)
{
    static const char *const names[] = {"gate_proj", "up_proj", "down_proj"};
    char name[SYNTH_NAME], base[64];
    uint64_t h = k->s.hidden;
    for (int i = 0; i < 3; i++) {
        bool down = i == 2;
        snprintf(base, sizeof base, "%s.%s", module, names[i]);
        TRY(synth_add_matrix(k, synth_in_layer(name, k, l, base), 0, down ? h : inter,
                             down ? inter : h, k->o->bits, down ? synth_writer_gain(k) : 1));
    }
    return SLUICE_OK;
}

/* The router, which some families leave unpacked. */
static enum sluice_status add_router(struct synth_maker *k, uint32_t l)
{
    const struct synth_family *f = k->s.family;
    char name[SYNTH_NAME], rest[64];
    uint64_t shape[2] = {k->s.experts, k->s.hidden};
    float range = sqrtf(3.0f / (float)k->s.hidden);
    snprintf(rest, sizeof rest, "%s.weight", synth_router(f));
    if (f->plain_router)
        TRY(synth_add(k, synth_in_moe(name, k, l, "", rest), "BF16", 2, shape, SYNTH_UNIFORM,
                      -range, range));
    else
        TRY(synth_add_matrix(k, synth_in_moe(name, k, l, "", synth_router(f)), 0, shape[0],
                             shape[1], 8, 1));
    snprintf(rest, sizeof rest, "%s.bias", synth_router(f));
    if (f->experts == SYNTH_PAIRED)
        TRY(synth_add_vector(k, synth_in_moe(name, k, l, "", rest), shape[0], -0.1f, 0.1f));
    if (!f->correction) return SLUICE_OK;
    return synth_add(k, synth_in_moe(name, k, l, "", f->correction), "F32", 1, shape, SYNTH_F32,
                     -0.1f, 0.1f);
}

enum sluice_status synth_add_moe(struct synth_maker *k, uint32_t l)
{
    const struct synth_shape *s = &k->s;
    char name[SYNTH_NAME], module[64];
    TRY(add_router(k, l));
    if (s->family->shared_gate)
        TRY(synth_add_matrix(k, synth_in_moe(name, k, l, "", "shared_expert_gate"), 0, 1, s->hidden,
                             8, 1));
    if (s->shared) {
        snprintf(module, sizeof module, "%s.%s", synth_moe_module(s->family), s->family->shared);
        TRY(synth_add_mlp(k, l, module, s->shared));
    }
    return add_experts(k, l);
}
