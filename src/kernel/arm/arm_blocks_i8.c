/*
 * Integer products of GGUF's blocks and MXFP4, four rows at a time, a row in each lane of the
 * results: the rows are unpacked to scratch, then serve one token after another, or tiles of them.
 * The float part is one vector operation per step of what kernel.h defines.
 */
#include "base/bits.h"
#include "kernel/arm/block_rows.h"
#include "kernel/arm/dot_halves.h"

/* scratch: each array for four rows, then [groups][GROUP_BYTES] of weights. */
struct work {
    const struct wmat *w;
    const struct act8 *x;
    uint32_t groups;
    float *scales, *biases; /* [groups][ROWS] */
    int32_t *subs, *mins;   /* [groups][2][ROWS] */
    uint8_t *unpacked;
};

INLINE struct work plan_work(const struct wmat *w, const struct act8 *x, void *scratch)
{
    struct work k = {.w = w, .x = x, .groups = w->cols / ACT8_GROUP};
    size_t lanes = (size_t)k.groups * ROWS;
    k.scales = scratch_aligned(scratch);
    k.biases = k.scales + lanes;
    k.subs = (int32_t *)(k.biases + lanes);
    k.mins = k.subs + 2 * lanes;
    k.unpacked = (uint8_t *)(k.mins + 2 * lanes);
    return k;
}

/* What is beside the integers of group g of a block, to a lane of group a. */
INLINE void put_scales(enum wtype type, const struct work *k, const struct block *b, uint32_t g,
                       uint32_t a, uint32_t lane)
{
    size_t at = (size_t)a * ROWS + lane;
    k->scales[at] = b->scale[g];
    if (block_has_bias(type) || block_has_min(type)) k->biases[at] = b->bias[g];
    for (uint32_t i = 0; i < 2; i++) {
        size_t half = (size_t)(2 * a + i) * ROWS + lane;
        if (block_has_sub(type)) k->subs[half] = b->sub[2 * g + i];
        if (block_has_min(type)) k->mins[half] = b->min[2 * g + i];
    }
}

/* count <= ROWS rows from `row` on; the lanes behind them repeat the last one. */
INLINE void unpack_rows(enum wtype type, const struct work *k, size_t row, uint32_t count)
{
    const uint32_t per_block = wtype_block_values(type) / ACT8_GROUP;
    struct block blocks[ROWS];
    for (uint32_t n = 0; n < k->groups / per_block; n++) {
        for (uint32_t i = 0; i < ROWS; i++) {
            size_t r = row + min_u32(i, count - 1);
            load_block(type, k->w->data + r * row_bytes(k->w), split_scales(k->w, r), n,
                       &blocks[i]);
        }
        for (uint32_t g = 0; g < per_block; g++) {
            uint8x16_t q[ROWS][2];
            uint32_t a = n * per_block + g;
            for (uint32_t i = 0; i < ROWS; i++) {
                for (uint32_t j = 0; j < 2; j++) q[i][j] = vreinterpretq_u8_s8(blocks[i].q[g][j]);
                put_scales(type, k, &blocks[i], g, a, i);
            }
            put_group(q, k->unpacked + (size_t)a * GROUP_BYTES);
        }
    }
}

/* first * halves[0] + second * halves[1] of each lane. */
INLINE vi scale_halves(const int32_t *halves, vi first, vi second)
{
    return vi_add(vi_mul(vi_load(halves), first), vi_mul(vi_load(halves + ROWS), second));
}

/* One group's term of one token. */
INLINE vf term(enum wtype type, const struct work *k, uint32_t a, size_t token, struct half_dots d)
{
    size_t lanes = (size_t)a * ROWS, at = token * k->groups + a;
    vf act_scale = vf_set(k->x->scale[at]);
    vi dot = block_has_sub(type) ? scale_halves(k->subs + 2 * lanes, d.first, d.second)
                                 : vi_add(d.first, d.second);
    vf v = vf_from_int(dot), scale = vf_load(k->scales + lanes);
    if (block_has_min(type)) {
        struct activations x =
            load_activations(k->x->q + token * k->w->cols + (size_t)a * ACT8_GROUP);
        vi minima = scale_halves(k->mins + 2 * lanes, vi_set(vaddlvq_s8(x.half[0])),
                                 vi_set(vaddlvq_s8(x.half[1])));
        v = vf_sub(vf_mul(v, scale), vf_mul(vf_from_int(minima), vf_load(k->biases + lanes)));
        return vf_mul(v, act_scale);
    }
    v = vf_mul(v, vf_mul(scale, act_scale));
    if (block_has_bias(type))
        v = vf_add(v, vf_mul(vf_load(k->biases + lanes), vf_set(k->x->sum[at])));
    return v;
}

/* tokens is a constant at every call. */
INLINE void tile(enum wtype type, const struct work *k, size_t token, uint32_t tokens,
                 uint32_t count, float *y, size_t ldy)
{
    vf acc[TILE_TOKENS];
    const int8_t *x = k->x->q + token * k->w->cols;
    for (uint32_t t = 0; t < tokens; t++) acc[t] = vf_set(0);
    for (uint32_t a = 0; a < k->groups; a++) {
        struct half_dots d[TILE_TOKENS];
        dot_halves(k->unpacked + (size_t)a * GROUP_BYTES, x + (size_t)a * ACT8_GROUP, k->w->cols,
                   tokens, d);
        for (uint32_t t = 0; t < tokens; t++)
            acc[t] = vf_add(acc[t], term(type, k, a, token + t, d[t]));
    }
    for (uint32_t t = 0; t < tokens; t++) vf_store_upto(y + t * ldy, count, acc[t]);
}

/* Unpacked, most types are the same: one of each kind is compiled. */
#define TILE_FORMS(X) X(Q8_0) X(Q4_1) X(Q6_K) X(Q2_K)

#define TILES(type)                                                                                \
    static __attribute__((noinline)) void tiles_##type(                                            \
        const struct work *k, uint32_t count, uint32_t t0, uint32_t n, float *y, size_t ldy)       \
    {                                                                                              \
        uint32_t t = 0;                                                                            \
        for (; t + TILE_TOKENS <= n; t += TILE_TOKENS)                                             \
            tile(WTYPE_##type, k, (size_t)t0 + t, TILE_TOKENS, count, y + t * ldy, ldy);           \
        for (; t < n; t++) tile(WTYPE_##type, k, (size_t)t0 + t, 1, count, y + t * ldy, ldy);      \
    }

TILE_FORMS(TILES)

INLINE enum wtype tile_form(enum wtype type)
{
    if (block_has_bias(type)) return WTYPE_Q4_1;
    if (!block_has_sub(type)) return WTYPE_Q8_0;
    return block_has_min(type) ? WTYPE_Q2_K : WTYPE_Q6_K;
}

INLINE void matmul_i8(enum wtype type, const struct wmat *w, uint32_t row0, uint32_t row1,
                      const struct act8 *x, uint32_t t0, uint32_t n, float *y, size_t ldy,
                      void *scratch)
{
    struct work k = plan_work(w, x, scratch);
    for (uint32_t r = row0; r < row1; r += ROWS) {
        uint32_t count = min_u32(ROWS, row1 - r);
        unpack_rows(type, &k, r, count);
        switch ((int)tile_form(type)) {
#define CASE(form)                                                                                 \
    case WTYPE_##form: tiles_##form(&k, count, t0, n, y + r, ldy); break;
            TILE_FORMS(CASE)
#undef CASE
        }
    }
}

#define MATMUL_I8(type)                                                                            \
    static void matmul_i8_##type(const struct wmat *w, uint32_t row0, uint32_t row1,               \
                                 const struct act8 *x, uint32_t t0, uint32_t n, float *y,          \
                                 size_t ldy, void *scratch)                                        \
    {                                                                                              \
        matmul_i8(WTYPE_##type, w, row0, row1, x, t0, n, y, ldy, scratch);                         \
    }

BLOCK_TYPES(MATMUL_I8)

#define FILL(type) k->matmul_i8[WTYPE_##type] = matmul_i8_##type;

void SET(init_blocks_i8)(struct kernels *k)
{
    BLOCK_TYPES(FILL)
}
