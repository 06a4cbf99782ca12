/* Attention, latent attention and DeltaNet of a synthetic layer. */
#include "report.h"
#include "synth_make.h"

/* A matrix of most weights' bits. */
static enum sluice_status add_in_layer(struct synth_maker *k, uint32_t l, const char *module,
                                       uint64_t rows, uint64_t cols, float gain)
{
    char name[SYNTH_NAME];
    return synth_add_matrix(k, synth_in_layer(name, k, l, module), 0, rows, cols, k->o->bits, gain);
}

static enum sluice_status add_norm_in_layer(struct synth_maker *k, uint32_t l, const char *tensor,
                                            uint64_t n)
{
    char name[SYNTH_NAME];
    return synth_add_norm(k, synth_in_layer(name, k, l, tensor), n);
}

static enum sluice_status add_small(struct synth_maker *k, uint32_t l, const char *tensor,
                                    uint64_t n)
{
    char name[SYNTH_NAME];
    return synth_add_vector(k, synth_in_layer(name, k, l, tensor), n, -0.1f, 0.1f);
}

static enum sluice_status add_biases(struct synth_maker *k, uint32_t l, uint64_t q, uint64_t kv)
{
    if (!k->s.bias) return SLUICE_OK;
    TRY(add_small(k, l, "self_attn.q_proj.bias", q));
    TRY(add_small(k, l, "self_attn.k_proj.bias", kv));
    TRY(add_small(k, l, "self_attn.v_proj.bias", kv));
    if (!k->s.family->out_bias) return SLUICE_OK;
    return add_small(k, l, "self_attn.o_proj.bias", k->s.hidden);
}

enum sluice_status synth_add_attention(struct synth_maker *k, uint32_t l)
{
    const struct synth_shape *s = &k->s;
    uint64_t q = (uint64_t)s->heads * s->head_dim, kv = (uint64_t)s->kv_heads * s->head_dim;
    uint64_t q_rows = s->family->gated ? 2 * q : q;
    bool whole = s->family->qk_norm == SYNTH_QK_WHOLE;
    TRY(add_in_layer(k, l, "self_attn.q_proj", q_rows, s->hidden, 1));
    TRY(add_in_layer(k, l, "self_attn.k_proj", kv, s->hidden, 1));
    TRY(add_in_layer(k, l, "self_attn.v_proj", kv, s->hidden, 1));
    TRY(add_in_layer(k, l, "self_attn.o_proj", s->hidden, q, synth_writer_gain(k)));
    TRY(add_biases(k, l, q_rows, kv));
    if (s->family->sinks) TRY(add_small(k, l, "self_attn.sinks", s->heads));
    if (s->family->qk_norm == SYNTH_QK_NONE || !s->qk_norm) return SLUICE_OK;
    TRY(add_norm_in_layer(k, l, "self_attn.q_norm.weight", whole ? q : s->head_dim));
    return add_norm_in_layer(k, l, "self_attn.k_norm.weight", whole ? kv : s->head_dim);
}

/* Keys and values of heads from latents: one matrix, which MLX splits and turns the keys of. */
static enum sluice_status add_from_latents(struct synth_maker *k, uint32_t l)
{
    const struct synth_shape *s = &k->s;
    char name[SYNTH_NAME];
    uint64_t heads = s->heads, rank = s->kv_rank;
    uint32_t bits = k->o->bits;
    if (k->o->layout != SYNTH_MLX)
        return add_in_layer(k, l, "self_attn.kv_b_proj", heads * ((uint64_t)s->nope + s->dv), rank,
                            1);
    TRY(synth_add_matrix(k, synth_in_layer(name, k, l, "self_attn.embed_q"), heads, rank, s->nope,
                         bits, 1));
    return synth_add_matrix(k, synth_in_layer(name, k, l, "self_attn.unembed_out"), heads, s->dv,
                            rank, bits, 1);
}

enum sluice_status synth_add_latent_attention(struct synth_maker *k, uint32_t l)
{
    const struct synth_shape *s = &k->s;
    uint64_t heads = s->heads, q = heads * ((uint64_t)s->nope + s->rotated);
    if (s->q_rank) {
        TRY(add_in_layer(k, l, "self_attn.q_a_proj", s->q_rank, s->hidden, 1));
        TRY(add_norm_in_layer(k, l, "self_attn.q_a_layernorm.weight", s->q_rank));
        TRY(add_in_layer(k, l, "self_attn.q_b_proj", q, s->q_rank, 1));
    } else {
        TRY(add_in_layer(k, l, "self_attn.q_proj", q, s->hidden, 1));
    }
    TRY(add_in_layer(k, l, "self_attn.kv_a_proj_with_mqa", (uint64_t)s->kv_rank + s->rotated,
                     s->hidden, 1));
    TRY(add_norm_in_layer(k, l, "self_attn.kv_a_layernorm.weight", s->kv_rank));
    TRY(add_from_latents(k, l));
    return add_in_layer(k, l, "self_attn.o_proj", s->hidden, heads * s->dv, synth_writer_gain(k));
}

/* What goes into DeltaNet, in two matrices or in four. */
static enum sluice_status add_delta_inputs(struct synth_maker *k, uint32_t l, uint64_t channels,
                                           uint64_t values)
{
    const struct synth_shape *s = &k->s;
    uint64_t heads = s->v_heads, h = s->hidden;
    if (s->family->fused) {
        TRY(add_in_layer(k, l, "linear_attn.in_proj_qkvz", channels + values, h, 1));
        return add_in_layer(k, l, "linear_attn.in_proj_ba", 2 * heads, h, 1);
    }
    TRY(add_in_layer(k, l, "linear_attn.in_proj_qkv", channels, h, 1));
    TRY(add_in_layer(k, l, "linear_attn.in_proj_z", values, h, 1));
    TRY(add_in_layer(k, l, "linear_attn.in_proj_a", heads, h, 1));
    return add_in_layer(k, l, "linear_attn.in_proj_b", heads, h, 1);
}

enum sluice_status synth_add_delta_net(struct synth_maker *k, uint32_t l)
{
    const struct synth_shape *s = &k->s;
    char name[SYNTH_NAME];
    uint64_t values = (uint64_t)s->v_heads * s->dv;
    uint64_t channels = 2ull * s->k_heads * s->dk + values, heads = s->v_heads;
    uint64_t mlx[3] = {channels, s->conv, 1}, original[3] = {channels, 1, s->conv};
    TRY(add_delta_inputs(k, l, channels, values));
    TRY(add_in_layer(k, l, "linear_attn.out_proj", s->hidden, values, synth_writer_gain(k)));
    TRY(synth_add(k, synth_in_layer(name, k, l, "linear_attn.conv1d.weight"), "BF16", 3,
                  k->o->layout == SYNTH_MLX ? mlx : original, SYNTH_UNIFORM, -0.5f, 0.5f));
    TRY(synth_add(k, synth_in_layer(name, k, l, "linear_attn.A_log"), "F32", 1, &heads, SYNTH_F32,
                  0.0f, 2.7f));
    TRY(synth_add_vector(k, synth_in_layer(name, k, l, "linear_attn.dt_bias"), heads, -4.0f, 0.0f));
    return synth_add_vector(k, synth_in_layer(name, k, l, "linear_attn.norm.weight"), s->dv, 1.0f,
                            1.0f);
}
