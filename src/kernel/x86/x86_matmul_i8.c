/*
 * Integer products with the rows in the lanes: LANES rows are turned so that a vector holds the
 * same four values of each, an activation quad is broadcast to all, and the float part of a group
 * (kernel.h gives its order) is one vector operation each. So a (row, token) pair sees the same
 * operations whatever its neighbours are, and on every machine.
 *
 * One token: weights are unpacked and used on the fly. More: the rows are unpacked to scratch once
 * and serve tiles of tokens; few tokens have their activations put in field order to save work.
 */
#include "base/bits.h"
#include "kernel/x86/dot_quads.h"
#include "kernel/x86/transpose.h"
#include "kernel/x86/x86.h"

enum { GROUP_BYTES = QUADS * 4 * LANES, FEW_TOKENS = 8, TILE = LANES == 16 ? 8 : 4 };

/* Up to LANES rows; where there are fewer, the others are zero rows in scratch. */
struct rows {
    const uint8_t *data, *scales, *biases;
    size_t stride, meta_stride; /* bytes from row to row */
    uint32_t count;
};

/* scratch: [groups][LANES] scales, as many biases, then what the path needs. */
struct work {
    const struct wmat *w;
    const struct act8 *x;
    uint32_t act_groups, groups;
    uint32_t group_shift; /* a weight group is 2^group_shift activation groups */
    float *scales, *biases;
    uint8_t *quads;  /* [act_groups][GROUP_BYTES] */
    int8_t *ordered; /* [FEW_TOKENS][cols], activations in field order */
};

INLINE struct work plan_work(const struct wmat *w, const struct act8 *x, void *scratch)
{
    struct work k = {.w = w, .x = x, .scales = scratch_aligned(scratch)};
    k.act_groups = w->cols / ACT8_GROUP;
    k.groups = w->cols / w->group;
    k.group_shift = (uint32_t)__builtin_ctz(w->group / ACT8_GROUP);
    k.biases = k.scales + (size_t)k.groups * LANES;
    k.quads = (uint8_t *)(k.biases + (size_t)k.groups * LANES);
    k.ordered = (int8_t *)k.quads + (size_t)k.act_groups * GROUP_BYTES;
    return k;
}

INLINE struct rows rows_at(const struct wmat *w, uint32_t row, uint32_t count)
{
    size_t meta = w->cols / w->group * 2ul;
    return (struct rows){.data = w->data + row * row_bytes(w),
                         .scales = w->scales + row * meta,
                         .biases = w->biases + row * meta,
                         .stride = row_bytes(w),
                         .meta_stride = meta,
                         .count = count};
}

INLINE float *bf16_lanes(const uint8_t *p, const struct rows *rows, float *out)
{
    for (uint32_t r = 0; r < LANES; r++) {
        uint32_t bits = 0;
        if (r < rows->count) memcpy((uint8_t *)&bits + 2, p + r * rows->meta_stride, 2);
        memcpy(out + r, &bits, sizeof bits);
    }
    return out + LANES;
}

/* bf16 [rows][groups] to f32 [groups][LANES]. */
INLINE void turn_bf16(const uint8_t *p, const struct rows *rows, uint32_t groups, float *out)
{
    const vi high_half = vi_set((int32_t)0xffff0000u);
    uint32_t g = 0;
    for (; g + 8 <= groups && rows->count == LANES; g += 8, p += 16) {
        vi pairs[4];
        transpose_quad(p, rows->meta_stride, pairs);
        for (uint32_t i = 0; i < 4; i++, out += 2 * LANES) {
            vf_store(out, vf_bits(vi_sll(pairs[i], 16)));
            vf_store(out + LANES, vf_bits(vi_and(pairs[i], high_half)));
        }
    }
    for (; g < groups; g++, p += 2) out = bf16_lanes(p, rows, out);
}

/* acc + (idot * (scale * act_scale) + bias * act_sum) */
INLINE vf add_group(vf acc, vi idot, vf scale, vf bias, float act_scale, float act_sum)
{
    vf product = vf_mul(vf_from_int(idot), vf_mul(scale, vf_set(act_scale)));
    return vf_add(acc, vf_add(product, vf_mul(bias, vf_set(act_sum))));
}

/* Activation groups that make whole quads of dwords. */
INLINE uint32_t groups_at_once(uint32_t bits)
{
    return bits % 4 == 0 ? 1 : bits % 2 == 0 ? 2 : 4;
}

enum { MAX_DWORDS = 20 }; /* of groups_at_once groups */

/* count groups from group a on, turned; one activation row. */
INLINE vf dot_groups(const struct work *k, const struct rows *rows, const int8_t *x, size_t token,
                     uint32_t a, uint32_t count, uint32_t bits, vf acc)
{
    vi turned[MAX_DWORDS];
    transpose_dwords(rows->data + (size_t)a * bits * 4, rows->stride, count * bits, turned);
    for (uint32_t i = 0; i < count; i++, a++) {
        struct dot d = dot_zero();
        vi q[QUADS];
        unpack_quads(turned + i * bits, bits, true, q);
        for (uint32_t j = 0; j < QUADS; j++) dot_add(&d, q[j], x + (size_t)a * ACT8_GROUP, j, bits);
        vf scale = vf_load(k->scales + (size_t)(a >> k->group_shift) * LANES);
        vf bias = vf_load(k->biases + (size_t)(a >> k->group_shift) * LANES);
        size_t at = token * k->act_groups + a;
        acc = add_group(acc, d.sum, scale, bias, k->x->scale[at], k->x->sum[at]);
    }
    return acc;
}

/*
 * What follows the rows, bytes of it from off on, to the second-level cache. As many short streams
 * as there are lanes are beyond the prefetcher of the hardware.
 */
INLINE void prefetch_after(const uint8_t *first, size_t stride, size_t off, size_t bytes)
{
    const char *next = (const char *)first + LANES * stride + off;
    for (size_t i = 0; i < bytes; i += 64) _mm_prefetch(next + i, _MM_HINT_T1);
}

/* Before groups [a, a + count) are used, the same share of the next rows is fetched. */
INLINE void prefetch_rows(const struct rows *rows, uint32_t a, uint32_t count, uint32_t bits)
{
    size_t share = (size_t)LANES * bits * 4;
    prefetch_after(rows->data, rows->stride, a * share, count * share);
}

INLINE void prefetch_meta(const struct rows *rows)
{
    prefetch_after(rows->scales, rows->meta_stride, 0, LANES * rows->meta_stride);
    prefetch_after(rows->biases, rows->meta_stride, 0, LANES * rows->meta_stride);
}

/* One token, from packed rows to results; bits is a constant at every call. */
INLINE vf rows_dot(const struct work *k, const struct rows *rows, const int8_t *x, size_t token,
                   uint32_t bits)
{
    vf acc = vf_set(0);
    const uint32_t step = groups_at_once(bits);
    uint32_t a = 0;
    for (; a + step <= k->act_groups; a += step) {
        prefetch_rows(rows, a, step, bits);
        acc = dot_groups(k, rows, x, token, a, step, bits, acc);
    }
    for (; a < k->act_groups; a++) acc = dot_groups(k, rows, x, token, a, 1, bits, acc);
    return acc;
}

INLINE void unpack_groups(const struct work *k, const struct rows *rows, uint32_t a, uint32_t count,
                          bool field_order, uint32_t bits)
{
    vi turned[MAX_DWORDS], q[QUADS];
    uint8_t *out = k->quads + (size_t)a * GROUP_BYTES;
    transpose_dwords(rows->data + (size_t)a * bits * 4, rows->stride, count * bits, turned);
    for (uint32_t i = 0; i < count; i++, out += GROUP_BYTES) {
        unpack_quads(turned + i * bits, bits, field_order, q);
        for (uint32_t j = 0; j < QUADS; j++) vi_store(out + j * 4 * LANES, q[j]);
    }
}

INLINE void unpack_rows(const struct work *k, const struct rows *rows, bool field_order,
                        uint32_t bits)
{
    const uint32_t step = groups_at_once(bits);
    uint32_t a = 0;
    for (; a + step <= k->act_groups; a += step) {
        prefetch_rows(rows, a, step, bits);
        unpack_groups(k, rows, a, step, field_order, bits);
    }
    for (; a < k->act_groups; a++) unpack_groups(k, rows, a, 1, field_order, bits);
}

/* The unpacked rows with `tokens` rows of x; tokens and bits are constants at every call. */
INLINE void tile(const struct work *k, const int8_t *x, size_t token, uint32_t tokens,
                 uint32_t bits, float *y, size_t ldy)
{
    const float *act_scale = k->x->scale + token * k->act_groups;
    const float *act_sum = k->x->sum + token * k->act_groups;
    vf acc[TILE];
    for (uint32_t t = 0; t < tokens; t++) acc[t] = vf_set(0);
    for (uint32_t a = 0; a < k->act_groups; a++) {
        struct dot d[TILE];
        const uint8_t *quads = k->quads + (size_t)a * GROUP_BYTES;
        const int8_t *xa = x + (size_t)a * ACT8_GROUP;
        for (uint32_t t = 0; t < tokens; t++) d[t] = dot_zero();
        for (uint32_t j = 0; j < QUADS; j++) {
            vi q = vi_load(quads + j * 4 * LANES);
            for (uint32_t t = 0; t < tokens; t++)
                dot_add(&d[t], q, xa + (size_t)t * k->w->cols, j, bits);
        }
        vf scale = vf_load(k->scales + (size_t)(a >> k->group_shift) * LANES);
        vf bias = vf_load(k->biases + (size_t)(a >> k->group_shift) * LANES);
        for (uint32_t t = 0; t < tokens; t++) {
            size_t at = (size_t)t * k->act_groups + a;
            acc[t] = add_group(acc[t], d[t].sum, scale, bias, act_scale[at], act_sum[at]);
        }
    }
    for (uint32_t t = 0; t < tokens; t++) vf_store(y + t * ldy, acc[t]);
}

/* x is the activations of the tokens from `token` on, in the order of the quads. */
INLINE void tiles(const struct work *k, const int8_t *x, size_t token, uint32_t n, uint32_t bits,
                  float *y, size_t ldy)
{
    uint32_t t = 0;
    for (; t + TILE <= n; t += TILE)
        tile(k, x + (size_t)t * k->w->cols, token + t, TILE, bits, y + t * ldy, ldy);
    for (; t + 2 <= n; t += 2)
        tile(k, x + (size_t)t * k->w->cols, token + t, 2, bits, y + t * ldy, ldy);
    if (t < n) tile(k, x + (size_t)t * k->w->cols, token + t, 1, bits, y + t * ldy, ldy);
}

INLINE const int8_t *ordered_activations(const struct work *k, uint32_t t0, uint32_t n,
                                         uint32_t bits)
{
    const int8_t *x = k->x->q + (size_t)t0 * k->w->cols;
    if (!has_field_order(bits)) return x;
    for (size_t i = 0; i < (size_t)n * k->w->cols; i += ACT8_GROUP)
        order_activations(x + i, bits, k->ordered + i);
    return k->ordered;
}

/* Fewer rows than lanes: a padded copy of them, one token at a time. */
INLINE void narrow_product(const struct work *k, const struct rows *rows, uint32_t t0, uint32_t n,
                           uint32_t bits, float *y, size_t ldy)
{
    struct rows padded = *rows;
    memcpy(k->quads, rows->data, rows->count * rows->stride);
    memset(k->quads + rows->count * rows->stride, 0, (LANES - rows->count) * rows->stride);
    padded.data = k->quads;
    turn_bf16(rows->scales, rows, k->groups, k->scales);
    turn_bf16(rows->biases, rows, k->groups, k->biases);
    for (uint32_t t = t0; t < t0 + n; t++, y += ldy) {
        const int8_t *x = ordered_activations(k, t, 1, bits);
        vf_store_tail(y, rows->count, rows_dot(k, &padded, x, t, bits));
    }
}

INLINE void matmul_i8(const struct wmat *w, uint32_t row0, uint32_t row1, const struct act8 *x,
                      uint32_t t0, uint32_t n, float *y, size_t ldy, void *scratch, uint32_t bits)
{
    struct work k = plan_work(w, x, scratch);
    if (row1 - row0 < LANES) {
        struct rows rows = rows_at(w, row0, row1 - row0);
        if (row0 < row1) narrow_product(&k, &rows, t0, n, bits, y + row0, ldy);
        return;
    }
    bool few = n <= FEW_TOKENS;
    const int8_t *q = few ? ordered_activations(&k, t0, n, bits) : x->q + (size_t)t0 * w->cols;
    for (uint32_t r = row0; r < row1; r += LANES) {
        /* The last rows again rather than fewer: the same bits twice. */
        r = min_u32(r, row1 - LANES);
        struct rows rows = rows_at(w, r, LANES);
        prefetch_meta(&rows);
        turn_bf16(rows.scales, &rows, k.groups, k.scales);
        turn_bf16(rows.biases, &rows, k.groups, k.biases);
        if (n == 1) {
            vf_store(y + r, rows_dot(&k, &rows, q, t0, bits));
        } else {
            unpack_rows(&k, &rows, few, bits);
            tiles(&k, q, t0, n, bits, y + r, ldy);
        }
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

void SET(x86_init_matmul_i8)(struct kernels *k)
{
    k->matmul_i8[WTYPE_Q2] = matmul_i8_q2;
    k->matmul_i8[WTYPE_Q3] = matmul_i8_q3;
    k->matmul_i8[WTYPE_Q4] = matmul_i8_q4;
    k->matmul_i8[WTYPE_Q5] = matmul_i8_q5;
    k->matmul_i8[WTYPE_Q6] = matmul_i8_q6;
    k->matmul_i8[WTYPE_Q8] = matmul_i8_q8;
}
