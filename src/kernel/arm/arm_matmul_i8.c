/*
 * Integer products of four rows at a time, a row in each lane of the results. One token: each row
 * is unpacked where it lies and multiplied on the way. More: four rows are unpacked to scratch once
 * and serve tiles of tokens. The float part (kernel.h gives its order) is one vector operation per
 * step, so a (row, token) pair sees the same operations whatever its neighbours are.
 */
#include "base/bits.h"
#include "base/fp16.h"
#include "kernel/arm/dot_groups.h"
#include "kernel/simd/sets.h"

/* scratch: [groups][ROWS] scales, as many biases, then [act_groups][GROUP_BYTES] of weights. */
struct work {
    const struct act8 *x;
    uint32_t cols, act_groups, groups;
    uint32_t group_shift; /* a weight group is 2^group_shift activation groups */
    float *scales, *biases;
    uint8_t *unpacked;
    const uint8_t *rows[ROWS]; /* where there are fewer, the last again */
};

INLINE struct work plan_work(const struct wmat *w, const struct act8 *x, void *scratch)
{
    struct work k = {.x = x, .cols = w->cols, .scales = scratch_aligned(scratch)};
    k.act_groups = w->cols / ACT8_GROUP;
    k.groups = w->cols / w->group;
    k.group_shift = (uint32_t)__builtin_ctz(w->group / ACT8_GROUP);
    k.biases = k.scales + (size_t)k.groups * ROWS;
    k.unpacked = (uint8_t *)(k.biases + (size_t)k.groups * ROWS);
    return k;
}

/* bf16 or f16 [row][groups] to lane `lane` of f32 [groups][ROWS]. */
INLINE void turn_halves(const uint8_t *p, bool f16, uint32_t groups, uint32_t lane, float *out)
{
    for (uint32_t g = 0; g < groups; g++) {
        uint16_t half = (uint16_t)(p[2 * g] | p[2 * g + 1] << 8);
        out[(size_t)g * ROWS + lane] = f16 ? f16_to_f32(half) : bf16_to_f32(half);
    }
}

INLINE void take_rows(struct work *k, const struct wmat *w, uint32_t row, uint32_t count)
{
    size_t meta = k->groups * 2ul;
    for (uint32_t i = 0; i < ROWS; i++) {
        size_t r = row + min_u32(i, count - 1);
        k->rows[i] = w->data + r * row_bytes(w);
        turn_halves(w->scales + r * meta, w->f16_scales, k->groups, i, k->scales);
        turn_halves(w->biases + r * meta, w->f16_scales, k->groups, i, k->biases);
    }
}

/* A result in the making: of whole weight groups, and of the one at hand before it is scaled. */
struct sums {
    vf acc, part;
    float total; /* of the activations */
};

INLINE void add_group(const struct work *k, struct sums *s, vi idot, size_t token, uint32_t a)
{
    size_t at = token * k->act_groups + a;
    uint32_t in_group = a & ((1u << k->group_shift) - 1);
    vf whole = vf_from_int(idot), act_scale = vf_set(k->x->scale[at]);
    s->part = in_group ? vf_fma(whole, act_scale, s->part) : vf_mul(whole, act_scale);
    s->total = in_group ? s->total + k->x->sum[at] : k->x->sum[at];
    if (in_group + 1 < 1u << k->group_shift) return;
    size_t g = (size_t)(a >> k->group_shift) * ROWS;
    s->acc = vf_fma(s->part, vf_load(k->scales + g), s->acc);
    s->acc = vf_fma(vf_load(k->biases + g), vf_set(s->total), s->acc);
}

INLINE vf one_token(const struct work *k, size_t token, uint32_t bits)
{
    struct sums s = {vf_set(0), vf_set(0), 0};
    for (uint32_t a = 0; a < k->act_groups; a++) {
        struct activations x = load_activations(k->x->q + token * k->cols + a * ACT8_GROUP);
        vi d[ROWS];
        for (uint32_t r = 0; r < ROWS; r++) {
            uint8x16_t w[2];
            unpack_32(k->rows[r] + (size_t)a * bits * 4, bits, w);
            make_signed(w, bits);
            d[r] = dot_row(w, x);
        }
        add_group(k, &s, vi_add(fold_rows(d), correction(x, bits)), token, a);
    }
    return s.acc;
}

INLINE void unpack_rows(const struct work *k, uint32_t bits)
{
    for (uint32_t a = 0; a < k->act_groups; a++) {
        uint8x16_t w[ROWS][2];
        for (uint32_t r = 0; r < ROWS; r++) {
            unpack_32(k->rows[r] + (size_t)a * bits * 4, bits, w[r]);
            make_signed(w[r], bits);
        }
        put_group(w, k->unpacked + (size_t)a * GROUP_BYTES);
    }
}

/* tokens and bits are constants at every call. */
INLINE void tile(const struct work *k, size_t token, uint32_t tokens, uint32_t bits, uint32_t count,
                 float *y, size_t ldy)
{
    struct sums s[TILE_TOKENS];
    const int8_t *x = k->x->q + token * k->cols;
    for (uint32_t t = 0; t < tokens; t++) s[t] = (struct sums){vf_set(0), vf_set(0), 0};
    for (uint32_t a = 0; a < k->act_groups; a++) {
        vi idot[TILE_TOKENS];
        dot_group(k->unpacked + (size_t)a * GROUP_BYTES, x + (size_t)a * ACT8_GROUP, k->cols,
                  tokens, bits, idot);
        for (uint32_t t = 0; t < tokens; t++) add_group(k, &s[t], idot[t], token + t, a);
    }
    for (uint32_t t = 0; t < tokens; t++) vf_store_upto(y + t * ldy, count, s[t].acc);
}

INLINE void matmul_i8(const struct wmat *w, uint32_t row0, uint32_t row1, const struct act8 *x,
                      uint32_t t0, uint32_t n, float *y, size_t ldy, void *scratch, uint32_t bits)
{
    struct work k = plan_work(w, x, scratch);
    for (uint32_t r = row0; r < row1; r += ROWS) {
        uint32_t count = min_u32(ROWS, row1 - r), t = 0;
        take_rows(&k, w, r, count);
        if (n == 1) {
            vf_store_upto(y + r, count, one_token(&k, t0, bits));
            continue;
        }
        unpack_rows(&k, bits);
        for (; t + TILE_TOKENS <= n; t += TILE_TOKENS)
            tile(&k, (size_t)t0 + t, TILE_TOKENS, bits, count, y + t * ldy + r, ldy);
        for (; t < n; t++) tile(&k, (size_t)t0 + t, 1, bits, count, y + t * ldy + r, ldy);
    }
}

#define MATMUL_I8(bits)                                                                            \
    static void matmul_i8_q##bits(const struct wmat *w, uint32_t row0, uint32_t row1,              \
                                  const struct act8 *x, uint32_t t0, uint32_t n, float *y,         \
                                  size_t ldy, void *scratch)                                       \
    {                                                                                              \
        matmul_i8(w, row0, row1, x, t0, n, y, ldy, scratch, bits);                                 \
    }

MATMUL_I8(2)
MATMUL_I8(3)
MATMUL_I8(4)
MATMUL_I8(5)
MATMUL_I8(6)
MATMUL_I8(8)

void SET(init_matmul_i8)(struct kernels *k, uint32_t features)
{
    (void)features;
    k->matmul_i8[WTYPE_Q2] = matmul_i8_q2;
    k->matmul_i8[WTYPE_Q3] = matmul_i8_q3;
    k->matmul_i8[WTYPE_Q4] = matmul_i8_q4;
    k->matmul_i8[WTYPE_Q5] = matmul_i8_q5;
    k->matmul_i8[WTYPE_Q6] = matmul_i8_q6;
    k->matmul_i8[WTYPE_Q8] = matmul_i8_q8;
}
