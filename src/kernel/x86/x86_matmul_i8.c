/*
 * Integer products with the rows in the lanes, where the float part of a group (kernel.h gives its
 * order) is one vector operation each: so a (row, token) pair sees the same operations whatever its
 * neighbours are, and on every machine.
 *
 * One token: weights are used where they lie (dot_rows.h). More: a panel of rows and columns is
 * unpacked to the first-level cache and serves all tokens of a block in tiles (dot_quads.h); the
 * results of a panel wait in y for the next one.
 */
#include "base/bits.h"
#include "kernel/simd/sets.h"
#include "kernel/x86/dot_rows.h"
#include "kernel/x86/transpose.h"

enum {
    PANEL_COLS = LANES == 16 ? 512 : 1024, /* unpacked, less than the first-level cache */
    PANEL_ACTS = PANEL_COLS / ACT8_GROUP,
    TOKEN_BLOCK = 64,
    PREFETCH_BYTES = 4096, /* at least so far ahead */
    MAX_DWORDS = 20,       /* of groups_at_once groups */
};

/* scratch: [groups][ROWS or vectors of LANES] scales, as many biases, unpacked rows, activations */
struct work {
    const struct wmat *w;
    const struct act8 *x;
    uint32_t per_group;     /* activation groups of a weight group */
    float *scales, *biases; /* one token: of 8 rows; else of a panel */
    uint8_t *quads;         /* of a panel: [PANEL_ACTS][planes][QUADS][vectors][4 * LANES] */
    uint8_t *padded;        /* 8 rows and what belongs to them */
    int8_t *ordered;        /* activations in the order that the weights want */
};

INLINE struct work plan_work(const struct wmat *w, const struct act8 *x, void *scratch)
{
    enum { PANEL_BYTES = PANEL_ACTS * 2 * QUADS * TILE_VECTORS * 4 * LANES };
    struct work k = {.w = w, .x = x, .scales = scratch_aligned(scratch)};
    size_t metas = max_u32(w->cols / w->group * ROWS, PANEL_ACTS * TILE_VECTORS * LANES);
    k.per_group = w->group / ACT8_GROUP;
    k.biases = k.scales + metas;
    k.quads = (uint8_t *)(k.biases + metas);
    k.ordered = (int8_t *)k.quads + PANEL_BYTES;
    k.padded = (uint8_t *)k.ordered + 2 * (size_t)w->cols;
    return k;
}

/* The rows of a matrix from its first one on; no row has a part of a byte. */
INLINE struct rows all_rows(const struct wmat *w, uint32_t bits)
{
    return (struct rows){.data = w->data,
                         .scales = w->scales,
                         .biases = w->biases,
                         .stride = (size_t)w->cols / 8 * bits,
                         .meta_stride = w->cols / w->group * 2ul};
}

INLINE struct rows rows_from(const struct rows *all, size_t row)
{
    return (struct rows){.data = all->data + row * all->stride,
                         .scales = all->scales + row * all->meta_stride,
                         .biases = all->biases + row * all->meta_stride,
                         .stride = all->stride,
                         .meta_stride = all->meta_stride};
}

/* One token */

/* A matrix and a row of activations, as all its rows meet them. */
struct one_token {
    struct rows rows; /* of the whole matrix */
    const int8_t *x;  /* ordered */
    const float *act_scale, *act_sum;
    float *scales, *biases; /* room for [groups][ROWS] */
    uint32_t acts, groups;
    bool f16_scales;
};

INLINE struct one_token begin_token(const struct work *k, size_t token, uint32_t bits)
{
    const struct wmat *w = k->w;
    const uint32_t acts = w->cols / ACT8_GROUP;
    order_row(k->x->q + token * w->cols, w->cols, bits, k->ordered);
    return (struct one_token){.rows = all_rows(w, bits),
                              .x = k->ordered,
                              .act_scale = k->x->scale + token * acts,
                              .act_sum = k->x->sum + token * acts,
                              .scales = k->scales,
                              .biases = k->biases,
                              .acts = acts,
                              .groups = w->cols / w->group,
                              .f16_scales = w->f16_scales};
}

INLINE uint8_t *pad(uint8_t *out, const uint8_t *rows, size_t stride, uint32_t count)
{
    memcpy(out, rows, count * stride);
    memset(out + count * stride, 0, (ROWS - count) * stride);
    return out + ROWS * stride;
}

/* Fewer rows than eight, and zero rows for the others. */
INLINE struct rows padded_rows(const struct rows *few, uint32_t count, uint8_t *out)
{
    struct rows padded = *few;
    uint8_t *scales = pad(out, few->data, few->stride, count);
    uint8_t *biases = pad(scales, few->scales, few->meta_stride, count);
    pad(biases, few->biases, few->meta_stride, count);
    padded.data = out;
    padded.scales = scales;
    padded.biases = biases;
    return padded;
}

/* bytes from p on, to the second-level cache. */
INLINE void prefetch(const uint8_t *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)p + i, _MM_HINT_T1);
}

INLINE void prefetch_meta(const struct rows *rows)
{
    size_t bytes = ROWS * rows->meta_stride;
    prefetch(rows->scales + bytes, bytes);
    prefetch(rows->biases + bytes, bytes);
}

INLINE void add_groups(struct sums *s, const struct one_token *one, const __m256i *idot, uint32_t a,
                       uint32_t count, uint32_t per_group, const float **scale, const float **bias)
{
    for (uint32_t j = 0; j < count; j++) {
        bool last = (a + j) % per_group == per_group - 1;
        add_group(s, idot[j], one->act_scale[a + j], one->act_sum[a + j], (a + j) % per_group == 0,
                  last, *scale, *bias);
        if (last) *scale += ROWS, *bias += ROWS;
    }
}

/*
 * Results of eight rows; bits is a constant at every call, and per_group where it is two. Rows lie
 * one after the other, so before a step uses some bytes of each, as many are fetched from further
 * on.
 */
INLINE __m256 rows_dot(const struct one_token *one, const struct rows *rows, uint32_t per_group,
                       uint32_t bits)
{
    const float *scale = one->scales, *bias = one->biases;
    struct sums s = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    const uint8_t *ahead = rows->data + max_size(ROWS * rows->stride, PREFETCH_BYTES);
    uint32_t a = 0;
    turn_bf16_rows(rows->scales, rows->meta_stride, one->groups, one->scales);
    turn_bf16_rows(rows->biases, rows->meta_stride, one->groups, one->biases);
    if (one->f16_scales) {
        halves_to_floats(one->scales, (size_t)one->groups * ROWS);
        halves_to_floats(one->biases, (size_t)one->groups * ROWS);
    }
    /* The float part of a step waits until the products of the next are on their way. */
    const uint32_t step = groups_per_step(bits);
    __m256i idot[4], next[4];
    if (one->acts >= step) dot_groups(rows, one->x, 0, step, bits, next);
    for (; a + step <= one->acts; a += step) {
        prefetch(ahead + (size_t)a * ROWS * bits * 4, (size_t)step * ROWS * bits * 4);
        UNROLL
        for (uint32_t j = 0; j < step; j++) idot[j] = next[j]; /* in registers, as no memcpy() is */
        if (a + 2 * step <= one->acts) dot_groups(rows, one->x, a + step, step, bits, next);
        add_groups(&s, one, idot, a, step, per_group, &scale, &bias);
    }
    for (; a < one->acts; a++) {
        dot_groups(rows, one->x, a, 1, bits, idot);
        add_groups(&s, one, idot, a, 1, per_group, &scale, &bias);
    }
    return s.acc;
}

/* Rows [row0, row1), at least eight: the last ones again rather than fewer, the same bits twice. */
INLINE void whole_rows(const struct one_token *one, uint32_t row0, uint32_t row1,
                       uint32_t per_group, uint32_t bits, float *y)
{
    for (uint32_t r = row0; r < row1; r += ROWS) {
        r = min_u32(r, row1 - ROWS);
        struct rows rows = rows_from(&one->rows, r);
        prefetch_meta(&rows);
        _mm256_storeu_ps(y + r, rows_dot(one, &rows, per_group, bits));
    }
}

INLINE void few_rows(const struct one_token *one, uint32_t row0, uint32_t row1, uint8_t *padded,
                     uint32_t per_group, uint32_t bits, float *y)
{
    struct rows few = rows_from(&one->rows, row0);
    few = padded_rows(&few, row1 - row0, padded);
    float results[ROWS];
    _mm256_storeu_ps(results, rows_dot(one, &few, per_group, bits));
    memcpy(y + row0, results, (row1 - row0) * sizeof *y);
}

INLINE void one_token(const struct work *k, uint32_t row0, uint32_t row1, size_t token,
                      uint32_t bits, float *y)
{
    struct one_token one = begin_token(k, token, bits);
    if (row1 - row0 < ROWS)
        few_rows(&one, row0, row1, k->padded, k->per_group, bits, y);
    else if (k->per_group == 2) /* the usual size is worth a version of its own */
        whole_rows(&one, row0, row1, 2, bits, y);
    else
        whole_rows(&one, row0, row1, k->per_group, bits, y);
}

/* Many tokens */

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

/* part += idot * act scale, for activation group a of n tokens. */
INLINE void add_part(const uint8_t *quads, const struct tokens *x, uint32_t a, uint32_t n,
                     uint32_t vectors, uint32_t bits, vf part[TILE_VECTORS][TILE_TOKENS])
{
    vi idot[TILE_VECTORS][TILE_TOKENS];
    dot_tile(quads, vectors, x->q + a * ACT8_GROUP, x->ldq, n, bits, idot);
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
    UNROLL
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t r = 0; r < vectors; r++)
            acc[r][t] = p->act ? vf_load(y + t * ldy + r * LANES) : vf_set(0);
    for (uint32_t a = 0; a < p->acts; a += per_group, quads += per_group * group_bytes) {
        UNROLL
        for (uint32_t t = 0; t < n; t++)
            for (uint32_t r = 0; r < vectors; r++) part[r][t] = vf_set(0);
        add_part(quads, x, a, n, vectors, bits, part);
        if (pairs) {
            add_part(quads + group_bytes, x, a + 1, n, vectors, bits, part);
        } else {
            for (uint32_t j = 1; j < per_group; j++)
                add_part(quads + j * group_bytes, x, a + j, n, vectors, bits, part);
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

void SET(init_matmul_i8)(struct kernels *k)
{
    SET(init_blocks_i8)(k);
    k->matmul_i8[WTYPE_Q2] = matmul_i8_q2;
    k->matmul_i8[WTYPE_Q3] = matmul_i8_q3;
    k->matmul_i8[WTYPE_Q4] = matmul_i8_q4;
    k->matmul_i8[WTYPE_Q5] = matmul_i8_q5;
    k->matmul_i8[WTYPE_Q6] = matmul_i8_q6;
    k->matmul_i8[WTYPE_Q8] = matmul_i8_q8;
}
