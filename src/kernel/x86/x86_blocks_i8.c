/*
 * Integer products of GGUF's blocks and MXFP4. One or few tokens: row after row, as memory gives
 * them, the terms of eight groups at once; then the terms of LANES rows are turned and added in
 * order. More tokens: LANES rows are unpacked to quads once (dot_quads.h has the idea) and serve
 * tiles of tokens. A term is the same operations either way, and so is the sum.
 */
#include "kernel/x86/block_dot.h"
#include "kernel/x86/transpose.h"

enum {
    FEW_TOKENS = 3,
    CHUNK = 48,   /* of tokens, for which scratch holds sums of sixteen */
    AHEAD = 4096, /* bytes that prefetches of rows run ahead */
    QUADS = 8,
    GROUP_BYTES = QUADS * 4 * LANES,
    TILE = LANES == 16 ? 8 : 4,
};

struct work {
    const struct wmat *w;
    const struct act8 *x;
    uint32_t groups, supers, tail_groups; /* supers: whole ones */
    size_t stride;                        /* bytes of a row */
    int16_t offset;                       /* of unpacked bytes */
    struct token *tokens;                 /* few tokens: [n][supers + 1] */
    float *terms;                         /* few tokens: [n][LANES][(supers + 1) * 8] */
    int32_t *sums;                        /* [n][(supers + 1) * 8]: sums_of_super */
    uint8_t *quads;                       /* [groups][GROUP_BYTES] */
    float *scales, *biases;               /* [supers + 1][8][LANES] */
    int32_t *subs, *mins;                 /* the same: two 16-bit integers */
};

INLINE uint32_t padded_groups(const struct work *k)
{
    return (k->supers + 1) * SUPER_GROUPS;
}

INLINE struct work plan_work(const struct wmat *w, const struct act8 *x, void *scratch, uint32_t n)
{
    struct work k = {.w = w, .x = x, .groups = w->cols / ACT8_GROUP};
    uint8_t *at = scratch_aligned(scratch);
    k.supers = k.groups / SUPER_GROUPS;
    k.tail_groups = k.groups % SUPER_GROUPS;
    k.stride = row_bytes(w);
    size_t lanes = (size_t)padded_groups(&k) * LANES;
    k.tokens = (struct token *)at;
    k.terms = (float *)(k.tokens + (size_t)n * (k.supers + 1));
    k.sums = (int32_t *)at;
    at += (size_t)n * padded_groups(&k) * sizeof *k.sums;
    k.scales = (float *)at;
    k.biases = k.scales + lanes;
    k.subs = (int32_t *)(k.biases + lanes);
    k.mins = k.subs + lanes;
    k.quads = (uint8_t *)(k.mins + lanes);
    return k;
}

INLINE const uint8_t *row_scales(const struct work *k, size_t row)
{
    return k->w->type == WTYPE_MXFP4_SPLIT ? k->w->scales + row * k->groups : NULL;
}

/* The last groups of a token that are no super-group, with zeros behind them. */
struct tail {
    int8_t q[SUPER];
    float scale[SUPER_GROUPS], sum[SUPER_GROUPS];
};

INLINE struct tail make_tail(const struct work *k, size_t token)
{
    struct tail tail = {{0}, {0}, {0}};
    size_t first = (size_t)k->supers * SUPER_GROUPS, at = token * k->groups + first;
    memcpy(tail.q, k->x->q + token * k->w->cols + first * ACT8_GROUP,
           (size_t)k->tail_groups * ACT8_GROUP);
    memcpy(tail.scale, k->x->scale + at, k->tail_groups * sizeof *tail.scale);
    memcpy(tail.sum, k->x->sum + at, k->tail_groups * sizeof *tail.sum);
    return tail;
}

/* Few tokens */

INLINE void make_tokens(const struct work *k, size_t token, struct token *out)
{
    const int8_t *q = k->x->q + token * k->w->cols;
    size_t at = token * k->groups;
    for (uint32_t s = 0; s < k->supers; s++, q += SUPER, at += SUPER_GROUPS)
        make_token(q, k->x->scale + at, k->x->sum + at, &out[s]);
    if (k->tail_groups) {
        struct tail tail = make_tail(k, token);
        make_token(tail.q, tail.scale, tail.sum, &out[k->supers]);
    }
}

INLINE float *terms_at(const struct work *k, uint32_t t, uint32_t lane, uint32_t s)
{
    return k->terms + ((size_t)t * LANES + lane) * padded_groups(k) + (size_t)s * SUPER_GROUPS;
}

INLINE void row_terms(enum wtype type, const struct work *k, size_t row, uint32_t lane, uint32_t n)
{
    const uint8_t *p = k->w->data + row * k->stride;
    const uint8_t *scales = row_scales(k, row);
    struct super super;
    const bool tail = may_end_within(type) && k->tail_groups;
    for (uint32_t s = 0; s < k->supers + tail; s++) {
        for (size_t i = 0; i < super_bytes(type); i += 64)
            _mm_prefetch((const char *)p + AHEAD + i, _MM_HINT_T0);
        if (!may_end_within(type) || s < k->supers) {
            load_super(type, p, scales, &super);
        } else {
            load_part(type, p, scales, k->tail_groups, &super);
        }
        for (uint32_t t = 0; t < n; t++) {
            const struct token *token = &k->tokens[(size_t)t * (k->supers + 1) + s];
            _mm256_storeu_ps(terms_at(k, t, lane, s), super_terms(type, &super, token));
        }
        p += super_bytes(type);
        if (type == WTYPE_MXFP4_SPLIT) scales += SUPER_GROUPS;
    }
}

/* The terms of LANES rows, added in order. */
INLINE vf sum_terms(const struct work *k, uint32_t t)
{
    const uint8_t *terms = (const uint8_t *)terms_at(k, t, 0, 0);
    size_t stride = padded_groups(k) * sizeof *k->terms;
    vf acc = vf_set(0);
    vi turned[4];
    uint32_t a = 0;
    for (; a + 4 <= k->groups; a += 4) {
        transpose_quad(terms + a * 4ul, stride, turned);
        for (uint32_t i = 0; i < 4; i++) acc = vf_add(acc, vf_bits(turned[i]));
    }
    for (; a < k->groups; a++) acc = vf_add(acc, vf_bits(gather_dword(terms + a * 4ul, stride)));
    return acc;
}

INLINE void few_tokens(enum wtype type, const struct work *k, uint32_t row0, uint32_t row1,
                       uint32_t t0, uint32_t n, float *y, size_t ldy)
{
    for (uint32_t t = 0; t < n; t++)
        make_tokens(k, (size_t)t0 + t, k->tokens + (size_t)t * (k->supers + 1));
    for (uint32_t r = row0; r < row1; r += LANES) {
        uint32_t rows = min_u32(LANES, row1 - r);
        for (uint32_t i = 0; i < rows; i++) row_terms(type, k, r + i, i, n);
        for (uint32_t t = 0; t < n; t++) vf_store_upto(y + t * ldy + r, rows, sum_terms(k, t));
    }
}

/* Many tokens */

/*
 * In tiles the integer scales and minima that a group has one of are in its float ones: products of
 * three such numbers are rounded once in any order.
 */
INLINE bool tile_has_sub(enum wtype type)
{
    return block_has_sub(type) && !block_same_subs(type);
}

INLINE bool tile_has_min(enum wtype type)
{
    return block_has_min(type) && !block_same_subs(type);
}

/* The sums of sixteen, or those of a group as one float. */
INLINE __m256i sums_of_super(enum wtype type, const int8_t *x)
{
    __m256i sums = half_sums(x);
    if (!block_same_subs(type)) return sums;
    sums = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
    return _mm256_castps_si256(_mm256_cvtepi32_ps(sums));
}

INLINE void sum_token(enum wtype type, const struct work *k, size_t token, int32_t *out)
{
    const int8_t *q = k->x->q + token * k->w->cols;
    for (uint32_t s = 0; s < k->supers; s++, out += SUPER_GROUPS)
        _mm256_storeu_si256((void *)out, sums_of_super(type, q + (size_t)s * SUPER));
    if (k->tail_groups) {
        struct tail tail = make_tail(k, token);
        _mm256_storeu_si256((void *)out, sums_of_super(type, tail.q));
    }
}

/* VNNI takes unsigned bytes and does not overflow: signed ones get an offset. */
INLINE bool tile_signed(enum wtype type)
{
#if defined(DPBUSD)
    (void)type;
    return false;
#else
    return block_signed(type);
#endif
}

INLINE int32_t tile_offset(enum wtype type)
{
    return block_signed(type) && !tile_signed(type) ? 128 : block_offset(type);
}

/* A super-group of LANES rows, row by row. */
struct panel {
    uint8_t q[LANES][SUPER];
    float scale[LANES][SUPER_GROUPS], bias[LANES][SUPER_GROUPS];
    int16_t sub[LANES][2 * SUPER_GROUPS], min[LANES][2 * SUPER_GROUPS];
};

INLINE __m256 even_words(__m256i v)
{
    return _mm256_cvtepi32_ps(_mm256_and_si256(v, _mm256_set1_epi32(0xffff)));
}

INLINE void fill_panel(enum wtype type, const struct super *s, uint32_t lane, struct panel *panel)
{
    for (uint32_t i = 0; i < SUPER_GROUPS; i++) {
        uint8_t *half = panel->q[lane] + (size_t)i * 16;
        __m256i q = s->q[i];
        if (block_signed(type) && !tile_signed(type))
            q = _mm256_xor_si256(q, _mm256_set1_epi8(-128));
        _mm_storeu_si128((void *)half, _mm256_castsi256_si128(q));
        _mm_storeu_si128((void *)(half + SUPER / 2), _mm256_extracti128_si256(q, 1));
    }
    __m256 scale = s->scale, bias = s->bias;
    if (block_same_subs(type)) {
        scale = _mm256_mul_ps(scale, even_words(s->sub));
        bias = _mm256_mul_ps(bias, even_words(s->min));
    }
    _mm256_storeu_ps(panel->scale[lane], scale);
    if (block_has_bias(type) || block_has_min(type)) _mm256_storeu_ps(panel->bias[lane], bias);
    if (tile_has_sub(type)) _mm256_storeu_si256((void *)panel->sub[lane], s->sub);
    if (tile_has_min(type)) _mm256_storeu_si256((void *)panel->min[lane], s->min);
}

/* [LANES][8] dwords to [8][LANES]. */
INLINE void turn_eight(const void *rows, void *out)
{
    for (uint32_t i = 0; i < SUPER_GROUPS; i += 4) {
        vi v[4];
        transpose_quad((const uint8_t *)rows + i * 4ul, SUPER_GROUPS * 4, v);
        for (uint32_t j = 0; j < 4; j++) vi_store((int32_t *)out + (i + j) * (size_t)LANES, v[j]);
    }
}

INLINE void turn_panel(enum wtype type, const struct work *k, const struct panel *panel, uint32_t s,
                       uint32_t groups)
{
    size_t at = (size_t)s * SUPER_GROUPS * LANES;
    uint8_t *quads = k->quads + (size_t)s * SUPER_GROUPS * GROUP_BYTES;
    for (uint32_t i = 0; i < groups * 2; i++) {
        vi v[4];
        transpose_quad(panel->q[0] + (size_t)i * 16, SUPER, v);
        for (uint32_t j = 0; j < 4; j++, quads += 4 * LANES) vi_store(quads, v[j]);
    }
    turn_eight(panel->scale, k->scales + at);
    if (block_has_bias(type) || block_has_min(type)) turn_eight(panel->bias, k->biases + at);
    if (tile_has_sub(type)) turn_eight(panel->sub, k->subs + at);
    if (tile_has_min(type)) turn_eight(panel->min, k->mins + at);
}

/* rows <= LANES rows from `row` on; the lanes behind them repeat the last one. */
INLINE void unpack_rows(enum wtype type, const struct work *k, size_t row, uint32_t rows)
{
    struct panel panel;
    struct super super;
    for (uint32_t s = 0; s < k->supers + (k->tail_groups ? 1 : 0); s++) {
        for (uint32_t i = 0; i < LANES; i++) {
            size_t r = row + min_u32(i, rows - 1);
            const uint8_t *p = k->w->data + r * k->stride + s * super_bytes(type);
            const uint8_t *scales = row_scales(k, r);
            if (type == WTYPE_MXFP4_SPLIT) scales += (size_t)s * SUPER_GROUPS;
            if (!may_end_within(type) || s < k->supers) {
                load_super(type, p, scales, &super);
            } else {
                load_part(type, p, scales, k->tail_groups, &super);
            }
            fill_panel(type, &super, i, &panel);
        }
        turn_panel(type, k, &panel, s, s < k->supers ? SUPER_GROUPS : k->tail_groups);
    }
}

#if defined(__AVX512F__)
#define MADDUBS _mm512_maddubs_epi16
#define MADD _mm512_madd_epi16
#define ADD16 _mm512_add_epi16
#define ABS8 _mm512_abs_epi8
#define SHUFFLE8(v, pick) _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(pick))
#define SET16 _mm512_set1_epi16
/* x with the signs of w; no w of 0 has a product to lose. */
INLINE vi signs_of(vi x, vi w)
{
    return _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
}
#else
#define MADDUBS _mm256_maddubs_epi16
#define MADD _mm256_madd_epi16
#define ADD16 _mm256_add_epi16
#define ABS8 _mm256_abs_epi8
#define SHUFFLE8(v, pick) _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(pick))
#define SET16 _mm256_set1_epi16
INLINE vi signs_of(vi x, vi w)
{
    return _mm256_sign_epi8(x, w);
}
#endif

INLINE vi broadcast_quad(const int8_t *x)
{
    int32_t quad;
    memcpy(&quad, x, sizeof quad);
    return vi_set(quad);
}

/* The first or second 16-bit integer of each dword in both. */
INLINE vi repeat_half(vi v, uint32_t half)
{
    const int32_t step = 0x04040404;
    int32_t at = (int32_t)(0x01000100 + half * 0x02020202);
    return SHUFFLE8(v, _mm_setr_epi32(at, at + step, at + 2 * step, at + 3 * step));
}

struct tile_dot {
    vi sum, pairs;
};

/* How many quads of pairs of products 16 bits hold. */
INLINE uint32_t quads_per_flush(enum wtype type)
{
    if (tile_signed(type)) return 1;
    if (tile_has_sub(type)) return block_most(type) > 31 ? 2 : 4;
    return block_most(type) > 15 ? 4 : 8;
}

/* Quad i of a group; by: what pairs are multiplied with. */
INLINE void tile_add(enum wtype type, struct tile_dot *d, vi w, vi magnitude, vi x, uint32_t i,
                     vi by)
{
#if defined(DPBUSD)
    if (!tile_has_sub(type)) {
        d->sum = DPBUSD(d->sum, w, x);
        return;
    }
#endif
    const uint32_t period = quads_per_flush(type);
    vi pairs = tile_signed(type) ? MADDUBS(magnitude, signs_of(x, w)) : MADDUBS(w, x);
    d->pairs = i % period == 0 ? pairs : ADD16(d->pairs, pairs);
    if ((i + 1) % period != 0) return;
    d->sum = vi_add(d->sum, MADD(d->pairs, by));
}

/* The exact integers of a group for each of the tokens. */
INLINE void tile_group(enum wtype type, const struct work *k, uint32_t a, const int8_t *x,
                       uint32_t tokens, struct tile_dot *d)
{
    const uint8_t *quads = k->quads + (size_t)a * GROUP_BYTES;
    vi by[2] = {SET16(1), SET16(1)};
    if (tile_has_sub(type)) {
        vi sub = vi_load(k->subs + (size_t)a * LANES);
        by[0] = repeat_half(sub, 0);
        by[1] = repeat_half(sub, 1);
    }
    UNROLL
    for (uint32_t j = 0; j < QUADS; j++) {
        vi w = vi_load(quads + (size_t)j * 4 * LANES);
        vi magnitude = tile_signed(type) ? ABS8(w) : w;
        for (uint32_t t = 0; t < tokens; t++)
            tile_add(type, &d[t], w, magnitude,
                     broadcast_quad(x + (size_t)t * k->w->cols + j * 4ul), j, by[j / 4]);
    }
}

/* One group's term of one token. */
INLINE vf tile_term(enum wtype type, const struct work *k, uint32_t a, vi dot, vi sums,
                    float act_scale, float act_sum)
{
    size_t at = (size_t)a * LANES;
    const int32_t offset = tile_offset(type);
    if (offset && tile_has_sub(type)) {
        vi part = MADD(vi_load(k->subs + at), sums);
        dot = vi_sub(dot, vi_sll(part, (uint32_t)__builtin_ctz((uint32_t)offset)));
    } else if (offset) {
        dot = vi_sub(dot, MADD(SET16(k->offset), sums));
    }
    vf term = vf_from_int(dot);
    if (block_has_min(type)) {
        vf minima =
            tile_has_min(type) ? vf_from_int(MADD(vi_load(k->mins + at), sums)) : vf_bits(sums);
        term = vf_mul(term, vf_load(k->scales + at));
        term = vf_sub(term, vf_mul(minima, vf_load(k->biases + at)));
        return vf_mul(term, vf_set(act_scale));
    }
    term = vf_mul(term, vf_mul(vf_load(k->scales + at), vf_set(act_scale)));
    if (block_has_bias(type)) term = vf_add(term, vf_mul(vf_load(k->biases + at), vf_set(act_sum)));
    return term;
}

/* Tokens t0 + t and following, the unpacked rows from `row` on; tokens is a constant. */
INLINE void tile(enum wtype type, const struct work *k, uint32_t t0, uint32_t t, uint32_t tokens,
                 uint32_t row, uint32_t rows, float *y, size_t ldy)
{
    const size_t token = (size_t)t0 + t, stride = padded_groups(k);
    const int32_t *sums = k->sums + t * stride;
    const int8_t *x = k->x->q + token * k->w->cols;
    const float *scale = k->x->scale + token * k->groups, *sum = k->x->sum + token * k->groups;
    vf acc[TILE];
    for (uint32_t i = 0; i < tokens; i++) acc[i] = vf_set(0);
    for (uint32_t a = 0; a < k->groups; a++) {
        struct tile_dot d[TILE];
        for (uint32_t i = 0; i < tokens; i++) d[i] = (struct tile_dot){vi_set(0), vi_set(0)};
        tile_group(type, k, a, x + (size_t)a * ACT8_GROUP, tokens, d);
        for (uint32_t i = 0; i < tokens; i++) {
            size_t at = (size_t)i * k->groups + a;
            vi whole = vi_set(sums[i * stride + a]);
            acc[i] = vf_add(acc[i], tile_term(type, k, a, d[i].sum, whole, scale[at], sum[at]));
        }
    }
    y += t * ldy + row;
    for (uint32_t i = 0; i < tokens; i++) vf_store_upto(y + i * ldy, rows, acc[i]);
}

/* All n tokens with the unpacked rows. */
INLINE void tiles(enum wtype type, const struct work *k, uint32_t row, uint32_t rows, uint32_t t0,
                  uint32_t n, float *y, size_t ldy)
{
    uint32_t t = 0;
    for (; t + TILE <= n; t += TILE) tile(type, k, t0, t, TILE, row, rows, y, ldy);
    if (TILE > 4 && t + 4 <= n) {
        tile(type, k, t0, t, 4, row, rows, y, ldy);
        t += 4;
    }
    if (t + 2 <= n) {
        tile(type, k, t0, t, 2, row, rows, y, ldy);
        t += 2;
    }
    if (t < n) tile(type, k, t0, t, 1, row, rows, y, ldy);
}

/* Unpacked, some types are the same: one of each kind is compiled. */
#define TILE_FORMS(X)                                                                              \
    X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K)

#define TILES(type)                                                                                \
    static __attribute__((noinline)) void tiles_##type(const struct work *k, uint32_t row,         \
                                                       uint32_t rows, uint32_t t0, uint32_t n,     \
                                                       float *y, size_t ldy)                       \
    {                                                                                              \
        tiles(WTYPE_##type, k, row, rows, t0, n, y, ldy);                                          \
    }

TILE_FORMS(TILES)

INLINE enum wtype tile_form(enum wtype type)
{
    if (block_signed(type)) return WTYPE_Q8_0;
    if (block_has_sub(type)) return type;
    if (block_most(type) > 15) return block_has_bias(type) ? WTYPE_Q5_1 : WTYPE_Q5_0;
    return block_has_bias(type) ? WTYPE_Q4_1 : WTYPE_Q4_0;
}

INLINE void many_tokens(enum wtype type, struct work *k, uint32_t row0, uint32_t row1, uint32_t t0,
                        uint32_t n, float *y, size_t ldy)
{
    k->offset = (int16_t)tile_offset(type);
    for (uint32_t t = 0; t < n; t++)
        sum_token(type, k, (size_t)t0 + t, k->sums + (size_t)t * padded_groups(k));
    for (uint32_t r = row0; r < row1; r += LANES) {
        uint32_t rows = min_u32(LANES, row1 - r);
        unpack_rows(type, k, r, rows);
        switch ((int)tile_form(type)) {
#define CASE(form)                                                                                 \
    case WTYPE_##form: tiles_##form(k, r, rows, t0, n, y, ldy); break;
            TILE_FORMS(CASE)
#undef CASE
        }
    }
}

INLINE void matmul_i8(enum wtype type, const struct wmat *w, uint32_t row0, uint32_t row1,
                      const struct act8 *x, uint32_t t0, uint32_t n, float *y, size_t ldy,
                      void *scratch)
{
    while (n > FEW_TOKENS) {
        uint32_t chunk = min_u32(n, CHUNK);
        struct work k = plan_work(w, x, scratch, chunk);
        many_tokens(type, &k, row0, row1, t0, chunk, y, ldy);
        t0 += chunk;
        n -= chunk;
        y += chunk * ldy;
    }
    if (n == 0) return;
    struct work k = plan_work(w, x, scratch, n);
    if (n == 1) {
        few_tokens(type, &k, row0, row1, t0, 1, y, ldy);
    } else {
        few_tokens(type, &k, row0, row1, t0, n, y, ldy);
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
