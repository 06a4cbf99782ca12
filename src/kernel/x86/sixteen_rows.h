/*
 * Sixteen rows of a matrix in groups of 64 with one token, for AVX-512: a row fills vectors by
 * itself, sums are folded until a lane is a row, and the float part is a vector of rows. Bytes of a
 * row meet activations in the order that asks least of the weights.
 *
 * Vector bytes hold values of one row: of 4 bits and fewer a vector has 64 of 128 values, a group
 * of 32 in each 128 bits; of more bits 64 neighbours, a group in each 256. AVX-512 VBMI takes
 * fields of any width apart: bytes that hold eight of them go to 64 bits each, and a shift for each
 * byte does the rest.
 */
#ifndef SLUICE_KERNEL_SIXTEEN_ROWS_H
#define SLUICE_KERNEL_SIXTEEN_ROWS_H

#if defined(__AVX512F__)

#include "kernel/x86/matmul_work.h"
#include "kernel/x86/transpose.h"

enum {
    SIXTEEN = 16,
    STEP_COLS = 128,
    STEP_ACTS = STEP_COLS / ACT8_GROUP,
    LONG_COLS = 2 * STEP_COLS, /* of 2 bits, which then need no permutation */
    LONG_ACTS = 2 * STEP_ACTS,
    STEP_BYTES_PER_BIT = STEP_COLS / 8,
};

#if defined(__AVX512VBMI__)
#define HAS_FIELDS 1
#else
#define HAS_FIELDS 0
#endif

/* Whether there is a version for such a matrix. */
INLINE bool takes_sixteen(const struct wmat *w, uint32_t bits)
{
    if (w->group != 2 * ACT8_GROUP || w->f16_scales) return false;
    return HAS_FIELDS || bits == 4 || (bits == 8 && HAS_DPBUSD) ||
           (bits == 2 && HAS_DPBUSD && w->cols % LONG_COLS == 0);
}

/* Sixteen rows, and a token as they meet it. */
struct sixteen {
    struct rows all; /* of the whole matrix */
    const int8_t *x; /* ordered, 128 bytes a step */
    const float *act_scale;
    float *total;         /* [groups], the act sums of a group */
    uint8_t *scale_pairs; /* [pairs of groups][SIXTEEN][2], bf16 */
    uint8_t *bias_pairs;
    uint32_t acts, groups;
};

/* Activations */

/* Of each 64 bytes the even ones, then the odd ones; zeros for those behind the end. */
INLINE void order_sixteen_4(const int8_t *x, uint32_t cols, int8_t *out)
{
    for (uint32_t i = 0; i < cols; i += STEP_COLS, out += STEP_COLS) {
        for (uint32_t half = 0; half < 2; half++) {
            vi v = i + 64 * half < cols ? vi_load(x + i + 64 * half) : vi_set(0);
            _mm256_storeu_si256((void *)(out + 32 * half), _mm512_cvtepi16_epi8(v));
            _mm256_storeu_si256((void *)(out + 64 + 32 * half),
                                _mm512_cvtepi16_epi8(_mm512_srli_epi16(v, 8)));
        }
    }
}

/* Every fourth of 256 at a time; returns how many these are. */
INLINE uint32_t order_sixteen_quads(const int8_t *x, uint32_t cols, int8_t *out)
{
    uint32_t i = 0;
    for (; i + LONG_COLS <= cols; i += LONG_COLS)
        for (uint32_t quarter = 0; quarter < 4; quarter++) {
            __m128i t[4];
            part_quads(x + i + 64 * quarter, 64, t);
            for (uint32_t j = 0; j < 4; j++)
                _mm_storeu_si128((void *)(out + i + 64 * j + 16 * quarter), t[j]);
        }
    return i;
}

/* The first sixteen of each 32, then the others. */
INLINE void order_sixteen_halves(const int8_t *x, uint32_t cols, int8_t *out)
{
    for (uint32_t i = 0; i < cols; i += STEP_COLS, out += STEP_COLS) {
        vi a = vi_load(x + i), b = i + 64 < cols ? vi_load(x + i + 64) : vi_set(0);
        vi_store(out, _mm512_shuffle_i32x4(a, b, 0x88));
        vi_store(out + 64, _mm512_shuffle_i32x4(a, b, 0xdd));
    }
}

INLINE const int8_t *order_sixteen(const int8_t *x, uint32_t cols, uint32_t bits, int8_t *room)
{
    if (bits > 4) return x;
    uint32_t done = bits == 2 ? order_sixteen_quads(x, cols, room) : 0;
    if (bits == 4)
        order_sixteen_4(x, cols, room);
    else
        order_sixteen_halves(x + done, cols - done, room + done);
    return room;
}

/* Scales and biases */

/* bf16 of sixteen rows, `stride` bytes apart: of two groups a dword for each row. */
INLINE void turn_pairs(const uint8_t *p, size_t stride, uint32_t groups, uint8_t *out)
{
    uint32_t g = 0;
    if (groups == 2 && stride == 4) {
        vi_store((void *)out, vi_load(p));
        return;
    }
    if (groups == 4 && stride == 8) {
        const vi even = vi_sll(vi_iota(), 1), odd = vi_or(even, vi_set(1));
        vi low = vi_load(p), high = vi_load(p + 64);
        vi_store(out, _mm512_permutex2var_epi32(low, even, high));
        vi_store(out + 64, _mm512_permutex2var_epi32(low, odd, high));
        return;
    }
    for (; g + 8 <= groups; g += 8, p += 16, out += 4 * 64) {
        vi pairs[4];
        transpose_quad(p, stride, pairs);
        for (uint32_t i = 0; i < 4; i++) vi_store(out + 64 * i, pairs[i]);
    }
    for (; g + 2 <= groups; g += 2, p += 4, out += 64) vi_store(out, gather_dword(p, stride));
    if (g == groups) return;
    for (uint32_t r = 0; r < SIXTEEN; r++) memcpy(out + 4 * r, p + r * stride, 2);
}

/* Products */

/* count bytes, a constant at every call; zeros behind them. */
INLINE vi load_first(const uint8_t *p, uint32_t count)
{
    if (count == 64) return vi_load(p);
    if (count == 32) return _mm512_zextsi256_si512(_mm256_loadu_si256((const void *)p));
    return _mm512_maskz_loadu_epi8(((__mmask64)1 << count) - 1, p);
}

#if HAS_FIELDS
/* Eight fields are `bits` bytes; eight bytes from each place that these begin at. */
#define EIGHT(at) (at), (at) + 1, (at) + 2, (at) + 3, (at) + 4, (at) + 5, (at) + 6, (at) + 7
#define GROUP_HALVES(bits, half)                                                                   \
    EIGHT((0 + (half)) * 2 * (bits)), EIGHT((0 + (half)) * 2 * (bits) + (bits)),                   \
        EIGHT((2 + (half)) * 2 * (bits)), EIGHT((2 + (half)) * 2 * (bits) + (bits)),               \
        EIGHT((4 + (half)) * 2 * (bits)), EIGHT((4 + (half)) * 2 * (bits) + (bits)),               \
        EIGHT((6 + (half)) * 2 * (bits)), EIGHT((6 + (half)) * 2 * (bits) + (bits))
#define NEIGHBOURS(bits)                                                                           \
    EIGHT(0), EIGHT(bits), EIGHT(2 * (bits)), EIGHT(3 * (bits)), EIGHT(4 * (bits)),                \
        EIGHT(5 * (bits)), EIGHT(6 * (bits)), EIGHT(7 * (bits))

static const uint8_t field_bytes[][64] = {{GROUP_HALVES(2, 0)}, {GROUP_HALVES(2, 1)},
                                          {GROUP_HALVES(3, 0)}, {GROUP_HALVES(3, 1)},
                                          {NEIGHBOURS(5)},      {NEIGHBOURS(6)}};
#undef EIGHT
#undef GROUP_HALVES
#undef NEIGHBOURS

/* 64 fields as bytes; of 2 and 3 bits one half or the other of each group. */
INLINE vi bytes_of_fields(vi v, uint32_t bits, uint32_t half)
{
    const uint32_t i = bits == 2 ? half : bits == 3 ? 2 + half : bits - 1;
    const uint64_t b = bits, shifts = 0x0706050403020100u * b;
    v = _mm512_permutexvar_epi8(vi_load(field_bytes[i]), v);
    v = _mm512_multishift_epi64_epi8(_mm512_set1_epi64((int64_t)shifts), v);
    return vi_and(v, vi_set((int32_t)(((1u << bits) - 1) * 0x01010101u)));
}
#endif

/* The products of 64 values of more than 4 bits, or of up to 128 of 4 bits and fewer. */
INLINE vi row_sums(const uint8_t *p, const vi x[2], uint32_t cols, uint32_t bits)
{
    vi v = load_first(p, cols / 8 * bits);
    if (bits == 4) return dot_4(v, x[0], x[1]);
#if HAS_DPBUSD
    if (bits == 8) return _mm512_dpbusd_epi32(vi_set(0), v, x[0]);
#endif
#if HAS_FIELDS
    vi sum = _mm512_dpbusd_epi32(vi_set(0), bytes_of_fields(v, bits, 0), x[0]);
    if (bits > 4) return sum;
    return _mm512_dpbusd_epi32(sum, bytes_of_fields(v, bits, 1), x[1]);
#else
    return v;
#endif
}

/* Vector i: in each 128 bits rows 4 i to 4 i + 3. */
INLINE void fours_of_rows(const uint8_t *p, size_t stride, const vi x[2], uint32_t cols,
                          uint32_t bits, vi fours[4])
{
    UNROLL
    for (uint32_t i = 0; i < 4; i++, p += 4 * stride) {
        vi v[4];
        UNROLL
        for (uint32_t r = 0; r < 4; r++) {
            v[r] = row_sums(p + r * stride, x, cols, bits);
            PIN(v[r]);
        }
        fours[i] = fold_four(v, !HAS_DPBUSD);
        PIN(fours[i]);
    }
}

#define LOW_LANES(a, b) _mm512_shuffle_i32x4(a, b, 0x44)
#define HIGH_LANES(a, b) _mm512_shuffle_i32x4(a, b, 0xee)
#define EVEN_LANES(a, b) _mm512_shuffle_i32x4(a, b, 0x88)
#define ODD_LANES(a, b) _mm512_shuffle_i32x4(a, b, 0xdd)

/* A group of 32 in each 128 bits to a vector of rows for each group. */
INLINE void part_quarters(const vi f[4], vi idot[STEP_ACTS])
{
    vi a = LOW_LANES(f[0], f[1]), b = LOW_LANES(f[2], f[3]);
    vi c = HIGH_LANES(f[0], f[1]), d = HIGH_LANES(f[2], f[3]);
    idot[0] = EVEN_LANES(a, b);
    idot[1] = ODD_LANES(a, b);
    idot[2] = EVEN_LANES(c, d);
    idot[3] = ODD_LANES(c, d);
}

/* The same of a group in each 256 bits. */
INLINE void part_halves(const vi f[4], vi idot[2])
{
    vi a = vi_add(EVEN_LANES(f[0], f[1]), ODD_LANES(f[0], f[1]));
    vi b = vi_add(EVEN_LANES(f[2], f[3]), ODD_LANES(f[2], f[3]));
    idot[0] = EVEN_LANES(a, b);
    idot[1] = ODD_LANES(a, b);
}

#undef LOW_LANES
#undef HIGH_LANES
#undef EVEN_LANES
#undef ODD_LANES

/* 256 columns of 2 bits. A row's sums have a group in each 64 bits. */
INLINE void dot_long_step(const uint8_t *p, size_t stride, const int8_t *x, vi idot[LONG_ACTS])
{
    const vi by[4] = {vi_load(x), vi_load(x + 64), vi_load(x + 128), vi_load(x + 192)};
    vi even[4], odd[4], of_even[4], of_odd[4];
    UNROLL
    for (uint32_t i = 0; i < 4; i++, p += 4 * stride) {
        vi v[4], pairs[2];
        UNROLL
        for (uint32_t r = 0; r < 4; r++) {
            v[r] = dot_2(vi_load(p + r * stride), by);
            PIN(v[r]);
        }
        UNROLL
        for (uint32_t r = 0; r < 2; r++)
            pairs[r] = vi_add(SHUFFLE(v[2 * r], v[2 * r + 1], 0x88),
                              SHUFFLE(v[2 * r], v[2 * r + 1], 0xdd));
        even[i] = SHUFFLE(pairs[0], pairs[1], 0x88);
        odd[i] = SHUFFLE(pairs[0], pairs[1], 0xdd);
        PIN(even[i]);
        PIN(odd[i]);
    }
    part_quarters(even, of_even);
    part_quarters(odd, of_odd);
    UNROLL
    for (uint32_t i = 0; i < LONG_ACTS; i++) idot[i] = i % 2 ? of_odd[i / 2] : of_even[i / 2];
}

/* The exact products of cols columns, 128 or 64, one vector of rows for each activation group. */
INLINE void dot_step(const uint8_t *p, size_t stride, const int8_t *x, uint32_t cols, uint32_t bits,
                     vi idot[STEP_ACTS])
{
    vi fours[4];
    if (bits <= 4) {
        const vi both[2] = {vi_load(x), vi_load(x + 64)};
        fours_of_rows(p, stride, both, cols, bits, fours);
        part_quarters(fours, idot);
        return;
    }
    for (uint32_t i = 0; i < cols / 64; i++) {
        const vi part[2] = {vi_load(x + 64 * i), vi_set(0)};
        fours_of_rows(p + i * 8 * bits, stride, part, 64, bits, fours);
        part_halves(fours, idot + 2 * i);
    }
}

/* One weight group, in the order of kernel.h. */
INLINE vf add_group_16(vf acc, const vi idot[2], const float act_scale[2], vi scale, vi bias,
                       float total)
{
    vf part = vf_mul(vf_from_int(idot[0]), vf_set(act_scale[0]));
    part = vf_fma(vf_from_int(idot[1]), vf_set(act_scale[1]), part);
    acc = vf_fma(part, vf_bits(scale), acc);
    return vf_fma(vf_bits(bias), vf_set(total), acc);
}

INLINE vf add_step(vf acc, const struct sixteen *s, const vi idot[STEP_ACTS], uint32_t a,
                   uint32_t cols)
{
    const vi high = vi_set((int32_t)0xffff0000u);
    const uint32_t g = a / 2;
    vi scales = vi_load(s->scale_pairs + g * 32ul), biases = vi_load(s->bias_pairs + g * 32ul);
    acc = add_group_16(acc, idot, s->act_scale + a, vi_sll(scales, 16), vi_sll(biases, 16),
                       s->total[g]);
    if (cols == 64) return acc;
    return add_group_16(acc, idot + 2, s->act_scale + a + 2, vi_and(scales, high),
                        vi_and(biases, high), s->total[g + 1]);
}

/* Before a step at byte `at` of each row. */
INLINE void fetch_step(const struct rows *rows, size_t at, uint32_t bytes, bool streams)
{
    if (streams)
        prefetch_streams(rows, SIXTEEN, at, bytes);
    else
        prefetch(rows->data + max_size(SIXTEEN * rows->stride, PREFETCH_BYTES) + SIXTEEN * at,
                 SIXTEEN * bytes);
}

/*
 * Results of sixteen rows. Before a step uses some bytes of each, as many are fetched: of rows that
 * follow each other from further on, of streams from further on in each.
 */
INLINE vf dot_sixteen(const struct sixteen *s, const struct rows *rows, bool streams, uint32_t bits)
{
    const uint8_t *p = rows->data;
    const uint32_t bytes = STEP_BYTES_PER_BIT * bits;
    vf acc = vf_set(0);
    vi idot[LONG_ACTS];
    uint32_t a = 0;
    turn_pairs(rows->scales, rows->meta_stride, s->groups, s->scale_pairs);
    turn_pairs(rows->biases, rows->meta_stride, s->groups, s->bias_pairs);
    for (; bits == 2 && a + LONG_ACTS <= s->acts; a += LONG_ACTS) {
        fetch_step(rows, (size_t)a * bits * 4, 2 * bytes, streams);
        dot_long_step(p + (size_t)a * bits * 4, rows->stride, s->x + a * ACT8_GROUP, idot);
        acc = add_step(acc, s, idot, a, STEP_COLS);
        acc = add_step(acc, s, idot + STEP_ACTS, a + STEP_ACTS, STEP_COLS);
    }
    for (; a + STEP_ACTS <= s->acts; a += STEP_ACTS) {
        fetch_step(rows, (size_t)a * bits * 4, bytes, streams);
        dot_step(p + (size_t)a * bits * 4, rows->stride, s->x + a * ACT8_GROUP, STEP_COLS, bits,
                 idot);
        acc = add_step(acc, s, idot, a, STEP_COLS);
    }
    if (a == s->acts) return acc;
    dot_step(p + (size_t)a * bits * 4, rows->stride, s->x + a * ACT8_GROUP, 64, bits, idot);
    return add_step(acc, s, idot, a, 64);
}

INLINE struct sixteen begin_sixteen(const struct work *k, size_t token, uint32_t bits)
{
    const struct wmat *w = k->w;
    const uint32_t acts = w->cols / ACT8_GROUP;
    const float *sum = k->x->sum + token * acts;
    struct sixteen s = {.all = all_rows(w, bits),
                        .x = order_sixteen(k->x->q + token * w->cols, w->cols, bits, k->ordered),
                        .act_scale = k->x->scale + token * acts,
                        .total = (float *)k->padded,
                        .scale_pairs = (uint8_t *)k->scales,
                        .bias_pairs = (uint8_t *)k->biases,
                        .acts = acts,
                        .groups = acts / 2};
    for (uint32_t g = 0; g < s.groups; g++) s.total[g] = sum[2 * g] + sum[2 * g + 1];
    return s;
}

/* Most of at least 32 rows as sixteen streams. Returns the first row left. */
INLINE uint32_t sixteen_streams(const struct work *k, uint32_t row0, uint32_t row1, size_t token,
                                uint32_t bits, float *y)
{
    const struct sixteen s = begin_sixteen(k, token, bits);
    const uint32_t span = span_of(row1 - row0, SIXTEEN);
    const vi places = vi_mul(vi_iota(), vi_set((int32_t)span));
    struct rows rows = rows_apart(&s.all, row0, span);
    for (uint32_t i = 0; i < span; i++) {
        _mm512_i32scatter_ps(y + row0 + i, places, dot_sixteen(&s, &rows, true, bits), 4);
        next_of_streams(&rows, &s.all, SIXTEEN);
    }
    return row0 + span * SIXTEEN;
}

/* Rows [row0, row1), at least sixteen: the last ones again rather than fewer. */
INLINE void sixteen_rows(const struct work *k, uint32_t row0, uint32_t row1, size_t token,
                         uint32_t bits, float *y)
{
    const struct sixteen s = begin_sixteen(k, token, bits);
    for (uint32_t r = row0; r < row1; r += SIXTEEN) {
        r = min_u32(r, row1 - SIXTEEN);
        struct rows rows = rows_from(&s.all, r);
        prefetch_meta(&rows, SIXTEEN);
        vf_store(y + r, dot_sixteen(&s, &rows, false, bits));
    }
}

#endif

#endif
