/*
 * Integer products with the rows in the lanes, where the float part of a group (kernel.h gives its
 * order) is one vector operation each: so a (row, token) pair sees the same operations whatever its
 * neighbours are, and on every machine.
 *
 * One token: weights are used where they lie (eight_rows.h, sixteen_rows.h). More: a panel of rows
 * and columns is unpacked to the first-level cache and serves all tokens of a block in tiles
 * (dot_quads.h); the results of a panel wait in y for the next one.
 */
#include "kernel/x86/eight_rows.h"
#include "kernel/x86/sixteen_rows.h"
#include "kernel/x86/transpose.h"

/* What the next panel unpacks, not yet asked for: rows of some bytes. */
struct ahead {
    const uint8_t *data;
    size_t stride, bytes;
    uint32_t rows;
};

/* Rows [row, row + vectors * LANES) and activation groups [act, act + acts). */
struct panel {
    uint32_t row, vectors, act, acts;
    struct ahead ahead;
};

/* bf16 of LANES rows to f32 [groups], `step` floats apart. */
INLINE void turn_bf16(const uint8_t *p, size_t stride, uint32_t groups, size_t step, float *out)
{
    const vi high_half = vi_set((int32_t)0xffff0000u);
    uint32_t g = 0;
    for (; g + 8 <= groups; g += 8, p += 16) {
        vi pairs[4];
        transpose_quad(p, stride, pairs);
        for (uint32_t i = 0; i < 4; i++, out += 2 * step) {
            vf_store(out, vf_bits(vi_sll(pairs[i], 16)));
            vf_store(out + step, vf_bits(vi_and(pairs[i], high_half)));
        }
    }
    for (; g < groups; g++, p += 2, out += step)
        for (uint32_t r = 0; r < LANES; r++) {
            uint32_t bits = 0;
            memcpy((uint8_t *)&bits + 2, p + r * stride, 2);
            memcpy(out + r, &bits, sizeof bits);
        }
}

/* Activation groups that make whole quads of dwords. */
INLINE uint32_t groups_at_once(uint32_t bits)
{
    return bits % 4 == 0 ? 1 : bits % 2 == 0 ? 2 : 4;
}

INLINE void store_quads(const vi *q, uint32_t vectors, uint32_t bits, uint8_t *out)
{
    const vi nibbles = vi_set(0x0f0f0f0f);
    const bool split = planes_of(bits) == 2;
    for (uint32_t j = 0; j < QUADS; j++, out += vectors * 4 * LANES) {
        vi_store(out, split ? vi_and(q[j], nibbles) : q[j]);
        if (split) vi_store(out + QUADS * vectors * 4 * LANES, vi_and(vi_srl(q[j], 4), nibbles));
    }
}

/* count groups of LANES rows; count and bits are constants. */
INLINE void unpack_groups(const uint8_t *p, size_t stride, uint32_t count, uint32_t vectors,
                          uint32_t bits, uint8_t *out)
{
    const uint32_t group_bytes = planes_of(bits) * QUADS * vectors * 4 * LANES;
    vi turned[MAX_DWORDS], q[QUADS];
    transpose_dwords(p, stride, count * bits, turned);
    for (uint32_t i = 0; i < count; i++) {
        unpack_quads(turned + i * bits, bits, q);
        store_quads(q, vectors, bits, out + i * group_bytes);
    }
}

INLINE void unpack_panel(const struct work *k, const struct panel *p, uint32_t bits)
{
    const uint32_t vectors = p->vectors;
    const uint32_t group_bytes = planes_of(bits) * QUADS * vectors * 4 * LANES;
    const uint32_t step = groups_at_once(bits), groups = p->acts / k->per_group;
    const uint32_t first_group = p->act / k->per_group;
    const struct rows all = all_rows(k->w, bits);
    for (uint32_t v = 0; v < vectors; v++) {
        struct rows rows = rows_from(&all, p->row + v * LANES);
        const uint8_t *data = rows.data + (size_t)p->act * bits * 4;
        uint8_t *out = k->quads + v * 4 * LANES;
        uint32_t a = 0;
        for (; a + step <= p->acts; a += step)
            unpack_groups(data + (size_t)a * bits * 4, rows.stride, step, vectors, bits,
                          out + (size_t)a * group_bytes);
        for (; a < p->acts; a++)
            unpack_groups(data + (size_t)a * bits * 4, rows.stride, 1, vectors, bits,
                          out + (size_t)a * group_bytes);
        turn_bf16(rows.scales + first_group * 2, rows.meta_stride, groups, vectors * LANES,
                  k->scales + v * LANES);
        turn_bf16(rows.biases + first_group * 2, rows.meta_stride, groups, vectors * LANES,
                  k->biases + v * LANES);
    }
    if (!k->w->f16_scales) return;
    halves_to_floats(k->scales, (size_t)groups * vectors * LANES);
    halves_to_floats(k->biases, (size_t)groups * vectors * LANES);
}

/* Activations of some tokens from the panel's first group on. */
struct tokens {
    const int8_t *q;
    const float *scale, *sum;
    size_t ldq, ldscale;
};

/* The sum of the act sums of a weight group, in order, in all lanes. */
INLINE vf group_sum(const float *sum, uint32_t per_group)
{
    vf total = vf_set(sum[0]);
    for (uint32_t j = 1; j < per_group; j++) total = vf_add(total, vf_set(sum[j]));
    return total;
}

/* part += idot * act scale, for activation group a of n tokens; q: theirs. */
INLINE void add_part(const uint8_t *quads, const struct tokens *x, const int8_t *const *q,
                     uint32_t a, uint32_t n, uint32_t vectors, uint32_t bits,
                     vf part[TILE_VECTORS][TILE_TOKENS])
{
    vi idot[TILE_VECTORS][TILE_TOKENS];
    dot_tile(quads, vectors, q, (size_t)a * ACT8_GROUP, n, bits, idot);
    UNROLL
    for (uint32_t t = 0; t < n; t++) {
        vf by = vf_set(x->scale[t * x->ldscale + a]);
        UNROLL
        for (uint32_t r = 0; r < vectors; r++)
            part[r][t] = vf_fma(vf_from_int(idot[r][t]), by, part[r][t]);
    }
}

/*
 * The panel with n tokens, added to y unless it is the first. n, vectors and bits are constants at
 * every call, and pairs, which says that a weight group is two activation groups.
 */
INLINE void tile(const struct work *k, const struct panel *p, const struct tokens *x, uint32_t n,
                 uint32_t vectors, bool pairs, uint32_t bits, float *y, size_t ldy)
{
    const uint32_t group_bytes = planes_of(bits) * QUADS * vectors * 4 * LANES;
    const uint32_t per_group = pairs ? 2 : k->per_group;
    const uint8_t *quads = k->quads;
    const float *scales = k->scales, *biases = k->biases;
    vf acc[TILE_VECTORS][TILE_TOKENS], part[TILE_VECTORS][TILE_TOKENS];
    const int8_t *q[TILE_TOKENS];
    UNROLL
    for (uint32_t t = 0; t < n; t++) {
        q[t] = x->q + t * x->ldq;
        PIN_ADDRESS(q[t]);
    }
    UNROLL
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t r = 0; r < vectors; r++)
            acc[r][t] = p->act ? vf_load(y + t * ldy + r * LANES) : vf_set(0);
    for (uint32_t a = 0; a < p->acts; a += per_group, quads += per_group * group_bytes) {
        UNROLL
        for (uint32_t t = 0; t < n; t++)
            for (uint32_t r = 0; r < vectors; r++) part[r][t] = vf_set(0);
        add_part(quads, x, q, a, n, vectors, bits, part);
        if (pairs) {
            add_part(quads + group_bytes, x, q, a + 1, n, vectors, bits, part);
        } else {
            for (uint32_t j = 1; j < per_group; j++)
                add_part(quads + j * group_bytes, x, q, a + j, n, vectors, bits, part);
        }
        UNROLL
        for (uint32_t t = 0; t < n; t++) {
            vf total = group_sum(x->sum + t * x->ldscale + a, per_group);
            UNROLL
            for (uint32_t r = 0; r < vectors; r++) {
                acc[r][t] = vf_fma(part[r][t], vf_load(scales + r * LANES), acc[r][t]);
                acc[r][t] = vf_fma(vf_load(biases + r * LANES), total, acc[r][t]);
            }
        }
        scales += vectors * LANES;
        biases += vectors * LANES;
    }
    UNROLL
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t r = 0; r < vectors; r++) vf_store(y + t * ldy + r * LANES, acc[r][t]);
}

INLINE void prefetch_ahead(struct ahead *next, uint32_t rows)
{
    for (rows = min_u32(rows, next->rows); rows > 0; rows--, next->rows--) {
        prefetch(next->data, next->bytes);
        next->data += next->stride;
    }
}

/* While tiles are computed, each fetches its part of the next panel. */
INLINE void tiles_of(const struct work *k, const struct panel *p, struct tokens x, uint32_t n,
                     uint32_t vectors, uint32_t bits, float *y, size_t ldy)
{
    struct ahead next = p->ahead;
    const uint32_t each = div_up_u32(next.rows, div_up_u32(n, TILE_TOKENS));
#define TILES(count, pairs)                                                                        \
    for (; n >= (count); n -= (count), y += (count)*ldy) {                                         \
        prefetch_ahead(&next, each);                                                               \
        tile(k, p, &x, (count), vectors, (pairs), bits, y, ldy);                                   \
        x.q += (count)*x.ldq;                                                                      \
        x.scale += (count)*x.ldscale;                                                              \
        x.sum += (count)*x.ldscale;                                                                \
    }
    /* The tiles that do most of the work are worth a version of their own. */
    if (vectors == TILE_VECTORS && k->per_group == 2) {
        TILES(TILE_TOKENS, true)
        if (TILE_TOKENS > 3) TILES(3, true)
        if (TILE_TOKENS > 2) TILES(2, true)
        TILES(1, true)
        return;
    }
    TILES(TILE_TOKENS, false)
    TILES(1, false)
#undef TILES
}

/* Unpacked, weights of some widths are multiplied alike, so they share one version. */
#define TILES_OF(bits)                                                                             \
    __attribute__((noinline, unused)) static void tiles_##bits(                                    \
        const struct work *k, const struct panel *p, struct tokens x, uint32_t n, float *y,        \
        size_t ldy)                                                                                \
    {                                                                                              \
        if (p->vectors == 1)                                                                       \
            tiles_of(k, p, x, n, 1, bits, y, ldy);                                                 \
        else                                                                                       \
            tiles_of(k, p, x, n, TILE_VECTORS, bits, y, ldy);                                      \
    }
TILES_OF(4)
TILES_OF(5)
TILES_OF(6)
TILES_OF(8)
#undef TILES_OF

INLINE void tiles(const struct work *k, const struct panel *p, struct tokens x, uint32_t n,
                  uint32_t bits, float *y, size_t ldy)
{
    if (HAS_DPBUSD || bits <= 4)
        tiles_4(k, p, x, n, y, ldy);
    else if (bits == 5)
        tiles_5(k, p, x, n, y, ldy);
    else if (bits == 6)
        tiles_6(k, p, x, n, y, ldy);
    else
        tiles_8(k, p, x, n, y, ldy);
}

/* The panel after [act, act + acts) of some rows: further columns, or rows up to row1. */
INLINE struct ahead panel_after(const struct work *k, const struct panel *p, uint32_t row1,
                                uint32_t bits)
{
    const uint32_t acts = k->w->cols / ACT8_GROUP, rows = p->vectors * LANES;
    const bool same_rows = p->act + p->acts < acts;
    const uint32_t row = same_rows ? p->row : p->row + rows;
    const uint32_t act = same_rows ? p->act + p->acts : 0;
    const struct rows all = all_rows(k->w, bits), rows_there = rows_from(&all, row);
    return (struct ahead){.data = rows_there.data + (size_t)act * bits * 4,
                          .stride = all.stride,
                          .bytes = (size_t)min_u32(PANEL_ACTS, acts - act) * bits * 4,
                          .rows = min_u32(rows, row1 - row)};
}

/* All columns of `vectors` vectors of rows, panel after panel; y: of the first row and token. */
INLINE void panels(const struct work *k, uint32_t row, uint32_t row1, struct tokens x, uint32_t n,
                   uint32_t vectors, uint32_t bits, float *y, size_t ldy)
{
    const uint32_t acts = k->w->cols / ACT8_GROUP;
    for (uint32_t a = 0; a < acts; a += PANEL_ACTS) {
        struct panel p = {row, vectors, a, min_u32(PANEL_ACTS, acts - a), {0}};
        p.ahead = panel_after(k, &p, row1, bits);
        struct tokens at = x;
        at.q += (size_t)a * ACT8_GROUP;
        at.scale += a;
        at.sum += a;
        unpack_panel(k, &p, bits);
        tiles(k, &p, at, n, bits, y, ldy);
    }
}

INLINE struct tokens tokens_at(const struct work *k, size_t token, uint32_t n, uint32_t bits)
{
    const size_t cols = k->w->cols, acts = cols / ACT8_GROUP;
    struct tokens x = {.q = k->x->q + token * cols,
                       .scale = k->x->scale + token * acts,
                       .sum = k->x->sum + token * acts,
                       .ldq = cols,
                       .ldscale = acts};
    if (!has_field_order(bits)) return x;
    for (size_t i = 0; i < n * cols; i += ACT8_GROUP)
        order_activations(x.q + i, bits, k->ordered + i);
    x.q = k->ordered;
    return x;
}

/* At least LANES rows, n <= TOKEN_BLOCK tokens. */
INLINE void token_block(const struct work *k, uint32_t row0, uint32_t row1, size_t token,
                        uint32_t n, uint32_t bits, float *y, size_t ldy)
{
    struct tokens x = tokens_at(k, token, n, bits);
    const uint32_t wide = TILE_VECTORS * LANES;
    for (uint32_t r = row0, vectors; r < row1; r += vectors * LANES) {
        vectors = row1 - r >= wide ? TILE_VECTORS : 1;
        /* The last rows again rather than fewer: the same bits twice. */
        r = min_u32(r, row1 - vectors * LANES);
        panels(k, r, row1, x, n, vectors, bits, y + r, ldy);
    }
}

INLINE void one_token(const struct work *k, uint32_t row0, uint32_t row1, size_t token,
                      uint32_t bits, float *y)
{
#if defined(__AVX512F__)
    if (takes_sixteen(k->w, bits) && row1 - row0 >= SIXTEEN) {
        sixteen_rows(k, row0, row1, token, bits, y);
        return;
    }
#endif
    eight_rows(k, row0, row1, token, bits, y);
}

INLINE void matmul_i8(const struct wmat *w, uint32_t row0, uint32_t row1, const struct act8 *x,
                      uint32_t t0, uint32_t n, float *y, size_t ldy, void *scratch, uint32_t bits)
{
    struct work k = plan_work(w, x, scratch);
    if (row0 >= row1) return;
    if (n == 1 || row1 - row0 < LANES) {
        for (uint32_t t = 0; t < n; t++)
            one_token(&k, row0, row1, (size_t)t0 + t, bits, y + t * ldy);
        return;
    }
    for (uint32_t t = 0; t < n; t += TOKEN_BLOCK)
        token_block(&k, row0, row1, (size_t)t0 + t, min_u32(TOKEN_BLOCK, n - t), bits, y + t * ldy,
                    ldy);
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

/* Most rows as streams, where there are enough. Returns the first row left. */
INLINE uint32_t one_token_streams(const struct work *k, uint32_t row0, uint32_t row1, size_t token,
                                  uint32_t bits, float *y)
{
    if (row0 >= row1 || !are_long((size_t)k->w->cols / 8 * bits, row1 - row0)) return row0;
#if defined(__AVX512F__)
    if (takes_sixteen(k->w, bits) && row1 - row0 >= 2 * SIXTEEN)
        return sixteen_streams(k, row0, row1, token, bits, y);
#endif
    if (k->per_group != 2 || row1 - row0 < 2 * ROWS) return row0;
    return eight_streams(k, row0, row1, token, bits, y);
}

#define MATMUL_I8_STREAMS(bits)                                                                    \
    static void matmul_i8_q##bits##_streams(const struct wmat *w, uint32_t row0, uint32_t row1,    \
                                            const struct act8 *x, uint32_t t0, uint32_t n,         \
                                            float *y, size_t ldy, void *scratch)                   \
    {                                                                                              \
        struct work k = plan_work(w, x, scratch);                                                  \
        if (n == 1) row0 = one_token_streams(&k, row0, row1, t0, bits, y);                         \
        matmul_i8_q##bits(w, row0, row1, x, t0, n, y, ldy, scratch);                               \
    }

MATMUL_I8_STREAMS(2)
MATMUL_I8_STREAMS(3)
MATMUL_I8_STREAMS(4)
MATMUL_I8_STREAMS(5)
MATMUL_I8_STREAMS(6)
MATMUL_I8_STREAMS(8)
#define CHOOSE(bits) (streams ? matmul_i8_q##bits##_streams : matmul_i8_q##bits)

void SET(init_matmul_i8)(struct kernels *k, uint32_t features)
{
    const bool streams = (features & CPU_STREAMS) != 0;
    k->matmul_i8[WTYPE_Q2] = CHOOSE(2);
    k->matmul_i8[WTYPE_Q3] = CHOOSE(3);
    k->matmul_i8[WTYPE_Q4] = CHOOSE(4);
    k->matmul_i8[WTYPE_Q5] = CHOOSE(5);
    k->matmul_i8[WTYPE_Q6] = CHOOSE(6);
    k->matmul_i8[WTYPE_Q8] = CHOOSE(8);
}
