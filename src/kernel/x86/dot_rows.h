/*
 * Products of eight rows of packed weights with one row of activations, for bandwidth: each weight
 * is read once, in order, and used where it lies. A row's bytes meet the activations of the same
 * places in one vector; the eight vectors of partial sums are then added up into one that has a row
 * in each lane. A vector of 256 bits takes one row, one of 512 bits a row and the fourth after it.
 */
#ifndef SLUICE_KERNEL_DOT_ROWS_H
#define SLUICE_KERNEL_DOT_ROWS_H

#include "kernel/kernel.h"
#include "kernel/x86/dot_quads.h"

enum { ROWS = 8 };

/* ROWS rows; those of the matrix, or a padded copy. */
struct rows {
    const uint8_t *data, *scales, *biases;
    size_t stride, meta_stride; /* bytes from row to row */
};

#if defined(__AVX512VNNI__)
#define DPBUSD _mm512_dpbusd_epi32
#define DPWSSD _mm512_dpwssd_epi32
#elif defined(__AVXVNNI__)
#define DPBUSD _mm256_dpbusd_avx_epi32
#define DPWSSD _mm256_dpwssd_avx_epi32
#endif

#if defined(__AVX512F__)
#define V(op) _mm512_##op
#define SHUFFLE(a, b, order)                                                                       \
    _mm512_castps_si512(_mm512_shuffle_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), (order)))
#else
#define V(op) _mm256_##op
#define SHUFFLE(a, b, order)                                                                       \
    _mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), (order)))
#endif

/* Rows of a vector, and vectors of ROWS. */
enum { VECTOR_ROWS = LANES / 8, ROW_VECTORS = ROWS / VECTOR_ROWS };

/* The same for each row of a vector. */
INLINE vi for_rows(__m256i v)
{
#if defined(__AVX512F__)
    return _mm512_broadcast_i64x4(v);
#else
    return v;
#endif
}

INLINE __m256i load_pair(const uint8_t *low, const uint8_t *high)
{
    __m128i l = _mm_loadu_si128((const void *)low);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(l), _mm_loadu_si128((const void *)high),
                                   1);
}

INLINE __m128i load_8(const uint8_t *p)
{
    return _mm_loadl_epi64((const void *)p);
}

INLINE __m128i load_4(const uint8_t *p)
{
    int32_t bits;
    memcpy(&bits, p, sizeof bits);
    return _mm_cvtsi32_si128(bits);
}

INLINE vi srl16(vi v, uint32_t bits)
{
#if defined(__AVX512F__) && defined(__clang__)
    return _mm512_srli_epi16(v, bits);
#else
    return V(srli_epi16)(v, (int)bits);
#endif
}

/* The lanes of a and of b folded once: a's sums in the even lanes, b's in the odd ones. */
#define FOLD_32(add, a, b) V(add)(V(unpacklo_epi32)(a, b), V(unpackhi_epi32)(a, b))
#define FOLD_64(add, a, b) V(add)(V(unpacklo_epi64)(a, b), V(unpackhi_epi64)(a, b))

/* Four rows to one vector: of each 256 bits lane i and lane i + 4 hold the half sums of row i. */
INLINE vi fold_four(const vi *v, bool is_short)
{
    if (!is_short) {
        vi a = FOLD_32(add_epi32, v[0], v[1]);
        return FOLD_64(add_epi32, a, FOLD_32(add_epi32, v[2], v[3]));
    }
    vi a = FOLD_32(add_epi16, v[0], v[1]), b = FOLD_32(add_epi16, v[2], v[3]);
    return V(madd_epi16)(FOLD_64(add_epi16, a, b), V(set1_epi16)(1));
}

/* Rows in the order of the lanes: the low lanes of 256 bits and the high ones, by themselves. */
INLINE void part_lanes(const vi *v, __m256i *low, __m256i *high)
{
#if defined(__AVX512F__)
    vi parted = _mm512_shuffle_i64x2(v[0], v[0], 0xd8);
    *low = _mm512_castsi512_si256(parted);
    *high = _mm512_extracti64x4_epi64(parted, 1);
#else
    *low = _mm256_permute2x128_si256(v[0], v[1], 0x20);
    *high = _mm256_permute2x128_si256(v[0], v[1], 0x31);
#endif
}

/* Rows with a group in each 64 bits to groups with a row in each lane. */
INLINE void fold_groups(const vi v[ROW_VECTORS], __m256i idot[4])
{
    /* of 256 bits in the low lane groups 0 and 1 of a row, then of the next; then 2 and 3 */
    vi pairs[ROW_VECTORS / 2], even[ROW_VECTORS / 4], odd[ROW_VECTORS / 4];
    UNROLL
    for (uint32_t i = 0; i < ROW_VECTORS / 2; i++) {
        vi first = SHUFFLE(v[2 * i], v[2 * i + 1], 0x88);
        vi last = SHUFFLE(v[2 * i], v[2 * i + 1], 0xdd);
        pairs[i] = HAS_DPBUSD ? vi_add(first, last)
                              : V(madd_epi16)(V(add_epi16)(first, last), V(set1_epi16)(1));
    }
    UNROLL
    for (uint32_t i = 0; i < ROW_VECTORS / 4; i++) {
        even[i] = SHUFFLE(pairs[2 * i], pairs[2 * i + 1], 0x88);
        odd[i] = SHUFFLE(pairs[2 * i], pairs[2 * i + 1], 0xdd);
    }
    part_lanes(even, &idot[0], &idot[2]);
    part_lanes(odd, &idot[1], &idot[3]);
}

/* Word k of a lane: `width` bits from bit k * width of its bytes on moved to its top. */
INLINE vi gather_fields(vi v, uint32_t width, int high_base)
{
#define BYTE(k) ((int)(width * (k) / 8))
#define TWO(base, k) (char)((base) + BYTE(k)), (char)((base) + BYTE(k) + 1)
#define LANE(base)                                                                                 \
    TWO(base, 0), TWO(base, 1), TWO(base, 2), TWO(base, 3), TWO(base, 4), TWO(base, 5),            \
        TWO(base, 6), TWO(base, 7)
#define UP(k) (short)(1 << (16 - width - width * (k) % 8))
    const __m256i pick = _mm256_setr_epi8(LANE(0), LANE(high_base));
    const __m256i up = _mm256_setr_epi16(UP(0), UP(1), UP(2), UP(3), UP(4), UP(5), UP(6), UP(7),
                                         UP(0), UP(1), UP(2), UP(3), UP(4), UP(5), UP(6), UP(7));
#undef BYTE
#undef TWO
#undef LANE
#undef UP
    return V(mullo_epi16)(V(shuffle_epi8)(v, for_rows(pick)), for_rows(up));
}

/*
 * Fields of values v0, v1, ..., which need not be taken apart: with q(i) the field without its
 * lowest i values, v(i) = q(i) - 2^bits q(i + 1), so that the sum of v(i) x(i) is that of q(i)
 * times x(i) - 2^bits x(i - 1), and these are small enough for 16 bits. x: one vector for each i.
 * Of 3 bits two groups, one in each lane of 256 bits, of 5 or 6 bits one.
 */
INLINE vi dot_fields(vi packed, const vi *x, uint32_t bits)
{
    const uint32_t each = bits == 3 ? 4 : 2;
    const vi fields = gather_fields(packed, each * bits, bits == 5 ? 6 : 4);
    vi sum = V(madd_epi16)(srl16(fields, 16 - each * bits), x[0]);
    UNROLL
    for (uint32_t i = 1; i < each; i++) {
        vi q = srl16(fields, 16 - (each - i) * bits);
#if HAS_DPBUSD
        sum = DPWSSD(sum, q, x[i]);
#else
        sum = vi_add(sum, V(madd_epi16)(q, x[i]));
#endif
    }
    return sum;
}

/* The sums of four groups of 2 bits, one in each 64 bits; x: of every fourth value. */
INLINE vi dot_2(vi packed, const vi x[4])
{
    const vi mask = V(set1_epi8)(3);
    vi sum = vi_set(0);
    UNROLL
    for (uint32_t i = 0; i < 4; i++) {
        vi v = vi_and(srl16(packed, 2 * i), mask);
#if HAS_DPBUSD
        sum = DPBUSD(sum, v, x[i]);
#else
        sum = V(add_epi16)(sum, V(maddubs_epi16)(v, x[i]));
#endif
    }
    return sum;
}

/* The sums of 64 values of 4 bits: of 256 bits those of the first 32 in the low half. */
INLINE vi dot_4(vi packed, vi even, vi odd)
{
    const vi mask = V(set1_epi8)(15);
    vi low = vi_and(packed, mask), high = vi_and(srl16(packed, 4), mask);
#if HAS_DPBUSD
    return DPBUSD(DPBUSD(vi_set(0), low, even), high, odd);
#else
    return V(add_epi16)(V(maddubs_epi16)(low, even), V(maddubs_epi16)(high, odd));
#endif
}

/* Activation groups that a step takes at once where there are as many. */
INLINE uint32_t groups_per_step(uint32_t bits)
{
    return bits == 2 ? 4 : 2;
}

/* Bytes of ordered activations per group of 32. */
INLINE uint32_t ordered_bytes(uint32_t bits)
{
    bool words = bits == 3 || bits == 5 || bits == 6 || (bits == 8 && !HAS_DPBUSD);
    return words ? 64 : 32;
}

/* Row i of eight; addresses are a base and one, two, three or four strides. */
INLINE const uint8_t *row_of(const uint8_t *p, size_t stride, uint32_t i)
{
    return (i < 4 ? p : p + 4 * stride) + i % 4 * stride;
}

/* The bytes of a step in one row, and the activations that meet them. */
struct step {
    const uint8_t *p;
    size_t stride;
    const int8_t *x;
    uint32_t count; /* groups of 32 */
};

/* Vector i of the activations; of a step that is a part of a whole one, `part` bytes each. */
INLINE vi acts_of(const struct step *s, uint32_t i, uint32_t part)
{
    if (part == 32) return for_rows(_mm256_loadu_si256((const void *)(s->x + i * 32)));
    __m128i few = part == 16 ? _mm_loadu_si128((const void *)(s->x + i * 16))
                             : load_8((const uint8_t *)s->x + i * 8);
    return for_rows(_mm256_zextsi128_si256(few));
}

/* The bytes of a step in a row, whole or a last group, those of 3, 5 and 6 bits shared by lanes. */
INLINE __m256i load_step(const uint8_t *p, bool whole, uint32_t bits)
{
    if (bits == 5) return load_pair(p, p + 4);
    if (bits == 6 || (bits == 3 && whole)) return load_pair(p, p + 8);
    if (whole) return _mm256_loadu_si256((const void *)p);
    __m128i few;
    switch (bits) {
    case 2: few = load_8(p); break;
    case 3: few = _mm_unpacklo_epi64(load_8(p), load_4(p + 8)); break;
    default: few = _mm_loadu_si128((const void *)p);
    }
    return _mm256_zextsi128_si256(few);
}

INLINE vi load_steps(const struct step *s, uint32_t row, bool whole, uint32_t bits)
{
    __m256i v = load_step(row_of(s->p, s->stride, row), whole, bits);
#if defined(__AVX512F__)
    __m256i fourth = load_step(row_of(s->p, s->stride, row + 4), whole, bits);
    return _mm512_inserti64x4(_mm512_castsi256_si512(v), fourth, 1);
#else
    return v;
#endif
}

#if !HAS_DPBUSD
/* 16 codes of 8 bits of each row, from byte `at` on, in 16 bits. */
INLINE vi load_words(const struct step *s, uint32_t row, uint32_t at)
{
    const uint8_t *p = row_of(s->p, s->stride, row) + at;
#if defined(__AVX512F__)
    return _mm512_cvtepu8_epi16(load_pair(p, row_of(s->p, s->stride, row + 4) + at));
#else
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)p));
#endif
}
#endif

INLINE vi sums_of_8(const struct step *s, uint32_t row)
{
#if HAS_DPBUSD
    return DPBUSD(vi_set(0), load_steps(s, row, true, 8), acts_of(s, 0, 32));
#else
    /* 16-bit activations in two halves */
    vi low = V(madd_epi16)(load_words(s, row, 0), acts_of(s, 0, 32));
    return vi_add(low, V(madd_epi16)(load_words(s, row, 16), acts_of(s, 1, 32)));
#endif
}

INLINE vi sums_of(const struct step *s, uint32_t row, uint32_t bits)
{
    if (bits == 8) return sums_of_8(s, row);
    const bool whole = s->count == groups_per_step(bits) || bits == 5 || bits == 6;
    const uint32_t part = whole ? 32 : bits == 2 ? 8 : 16, n_acts = bits <= 3 ? 4 : 2;
    const vi packed = load_steps(s, row, whole, bits);
    vi x[4];
    UNROLL
    for (uint32_t i = 0; i < n_acts; i++) x[i] = acts_of(s, i, part);
    switch (bits) {
    case 2: return dot_2(packed, x);
    case 4: return dot_4(packed, x[0], x[1]);
    default: return dot_fields(packed, x, bits);
    }
}

INLINE vi four_rows(const struct step *s, uint32_t row, uint32_t bits)
{
    vi v[4];
    UNROLL
    for (uint32_t i = 0; i < 4; i++) {
        v[i] = sums_of(s, row + i, bits);
        if (bits == 3 || bits == 5) PIN(v[i]);
    }
    return fold_four(v, !HAS_DPBUSD && bits == 4);
}

INLINE void eight_rows_2(const struct step *s, __m256i idot[4])
{
    vi v[ROW_VECTORS];
    UNROLL
    for (uint32_t i = 0; i < ROW_VECTORS; i++) {
        v[i] = sums_of(s, i, 2);
        PIN(v[i]);
    }
    fold_groups(v, idot);
}

/*
 * The exact products of activation groups a .. a + count - 1 of all rows, count being one or
 * groups_per_step(); x: ordered. bits and count are constants at every call. Of 2 bits all four
 * results are written.
 */
INLINE void dot_groups(const struct rows *rows, const int8_t *x, uint32_t a, uint32_t count,
                       uint32_t bits, __m256i idot[4])
{
    struct step s = {.p = rows->data + (size_t)a * bits * 4,
                     .stride = rows->stride,
                     .x = x + (size_t)a * ordered_bytes(bits),
                     .count = count};
    if (bits == 2) {
        eight_rows_2(&s, idot);
        return;
    }
    for (uint32_t j = 0; j < count; j++) {
        vi rows_of[ROW_VECTORS / 4];
        __m256i low, high;
        UNROLL
        for (uint32_t i = 0; i < ROW_VECTORS / 4; i++) rows_of[i] = four_rows(&s, 4 * i, bits);
        part_lanes(rows_of, &low, &high);
        if (bits == 3 || bits == 4) {
            idot[0] = low;
            idot[1] = high;
            return;
        }
        idot[j] = _mm256_add_epi32(low, high);
        s.p += bits * 4;
        s.x += ordered_bytes(bits);
    }
}

/* Byte k of t[j]: value 4 k + j of n values, 32 or 64. */
INLINE void part_quads(const int8_t *x, uint32_t n, __m128i t[4])
{
    const __m128i quads = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m128i v[4];
    for (uint32_t i = 0; i < 4; i++)
        v[i] = 16 * i < n ? _mm_shuffle_epi8(_mm_loadu_si128((const void *)(x + 16 * i)), quads)
                          : _mm_setzero_si128();
    __m128i a = _mm_unpacklo_epi32(v[0], v[1]), b = _mm_unpacklo_epi32(v[2], v[3]);
    __m128i c = _mm_unpackhi_epi32(v[0], v[1]), d = _mm_unpackhi_epi32(v[2], v[3]);
    t[0] = _mm_unpacklo_epi64(a, b);
    t[1] = _mm_unpackhi_epi64(a, b);
    t[2] = _mm_unpacklo_epi64(c, d);
    t[3] = _mm_unpackhi_epi64(c, d);
}

/* Every fourth value of 128 at a time, of 32 at the end. */
INLINE void order_row_2(const int8_t *x, uint32_t cols, int8_t *out)
{
    __m128i t[4];
    uint32_t i = 0;
    for (; i + 128 <= cols; i += 128)
        for (uint32_t half = 0; half < 2; half++) {
            part_quads(x + i + half * 64, 64, t);
            for (uint32_t j = 0; j < 4; j++)
                _mm_storeu_si128((void *)(out + i + j * 32 + half * 16), t[j]);
        }
    for (; i < cols; i += 32) {
        part_quads(x + i, 32, t);
        for (uint32_t j = 0; j < 4; j++) _mm_storel_epi64((void *)(out + i + j * 8), t[j]);
    }
}

/* As dot_fields() wants them, of 64 values at a time, of 32 at the end. */
INLINE void order_row_3(const int8_t *x, uint32_t cols, int8_t *out)
{
    for (uint32_t i = 0, n; i < cols; i += n) {
        __m128i t[4];
        __m256i before = _mm256_setzero_si256();
        n = i + 64 <= cols ? 64 : 32;
        part_quads(x + i, n, t);
        for (uint32_t j = 0; j < 4; j++) {
            __m256i v = _mm256_cvtepi8_epi16(t[j]);
            __m256i d = _mm256_sub_epi16(v, _mm256_slli_epi16(before, 3));
            int8_t *to = out + 2 * i + j * (n / 2);
            if (n == 64)
                _mm256_storeu_si256((void *)to, d);
            else
                _mm_storeu_si128((void *)to, _mm256_castsi256_si128(d));
            before = v;
        }
    }
}

/* As dot_fields() wants them, of 5 or 6 bits. */
INLINE void order_row_pairs(const int8_t *x, uint32_t cols, uint32_t bits, int8_t *out)
{
    for (uint32_t i = 0; i < cols; i += 32) {
        __m256i v = _mm256_loadu_si256((const void *)(x + i));
        __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
        __m256i odd = _mm256_srai_epi16(v, 8);
        odd = _mm256_sub_epi16(odd, _mm256_slli_epi16(even, (int)bits));
        _mm256_storeu_si256((void *)(out + 2 * i), even);
        _mm256_storeu_si256((void *)(out + 2 * i + 32), odd);
    }
}

/* 16 even values, then 16 odd ones; of 64, the even values of all, then the odd. */
INLINE void order_row_4(const int8_t *x, uint32_t cols, int8_t *out)
{
    const __m256i split = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
    for (uint32_t i = 0; i < cols; i += 32) {
        __m256i v = _mm256_loadu_si256((const void *)(x + i));
        v = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(v, split), 0xd8);
        bool last = i + 32 == cols && i % 64 == 0;
        int8_t *even = out + i / 64 * 64 + i % 64 / 2;
        _mm_storeu_si128((void *)even, _mm256_castsi256_si128(v));
        _mm_storeu_si128((void *)(even + (last ? 16 : 32)), _mm256_extracti128_si256(v, 1));
    }
}

INLINE void order_row_8(const int8_t *x, uint32_t cols, int8_t *out)
{
#if HAS_DPBUSD
    memcpy(out, x, cols);
#else
    for (uint32_t i = 0; i < cols; i += 16)
        _mm256_storeu_si256((void *)(out + 2 * i),
                            _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)(x + i))));
#endif
}

/* Activations of a row as dot_groups() wants them. */
INLINE void order_row(const int8_t *x, uint32_t cols, uint32_t bits, int8_t *out)
{
    switch (bits) {
    case 2: order_row_2(x, cols, out); break;
    case 3: order_row_3(x, cols, out); break;
    case 4: order_row_4(x, cols, out); break;
    case 8: order_row_8(x, cols, out); break;
    default: order_row_pairs(x, cols, bits, out);
    }
}

#undef FOLD_32
#undef FOLD_64
#undef V
#undef DPBUSD
#undef DPWSSD

/* bf16 [8 rows][8 groups] to f32 [8 groups][8 rows]. */
INLINE void turn_bf16_8x8(const uint8_t *p, size_t stride, float *out)
{
    const __m256i high_half = _mm256_set1_epi32((int32_t)0xffff0000u);
    __m256i a = load_pair(p, row_of(p, stride, 4));
    __m256i b = load_pair(row_of(p, stride, 1), row_of(p, stride, 5));
    __m256i c = load_pair(row_of(p, stride, 2), row_of(p, stride, 6));
    __m256i d = load_pair(row_of(p, stride, 3), row_of(p, stride, 7));
    __m256i ab_low = _mm256_unpacklo_epi32(a, b), ab_high = _mm256_unpackhi_epi32(a, b);
    __m256i cd_low = _mm256_unpacklo_epi32(c, d), cd_high = _mm256_unpackhi_epi32(c, d);
    __m256i pairs[4] = {
        _mm256_unpacklo_epi64(ab_low, cd_low), _mm256_unpackhi_epi64(ab_low, cd_low),
        _mm256_unpacklo_epi64(ab_high, cd_high), _mm256_unpackhi_epi64(ab_high, cd_high)};
    for (uint32_t i = 0; i < 4; i++, out += 16) {
        _mm256_storeu_si256((void *)out, _mm256_slli_epi32(pairs[i], 16));
        _mm256_storeu_si256((void *)(out + 8), _mm256_and_si256(pairs[i], high_half));
    }
}

/* bf16 [8 rows][count] to f32 [count][8 rows]; count is 2 or 4, a constant at every call. */
INLINE void turn_bf16_few(const uint8_t *p, size_t stride, uint32_t count, float *out)
{
    const __m256i zero = _mm256_setzero_si256();
    __m128i pairs[ROWS / 2]; /* of rows: their first values, their second ones */
    UNROLL
    for (uint32_t r = 0; r < ROWS; r += 2) {
        const uint8_t *a = row_of(p, stride, r), *b = row_of(p, stride, r + 1);
        pairs[r / 2] = count == 4 ? _mm_unpacklo_epi16(load_8(a), load_8(b))
                                  : _mm_unpacklo_epi16(load_4(a), load_4(b));
    }
    __m256i even = _mm256_set_m128i(pairs[2], pairs[0]), odd = _mm256_set_m128i(pairs[3], pairs[1]);
    __m256i first = _mm256_unpacklo_epi32(even, odd), last = _mm256_unpackhi_epi32(even, odd);
    _mm256_storeu_si256((void *)out, _mm256_unpacklo_epi16(zero, first));
    _mm256_storeu_si256((void *)(out + ROWS), _mm256_unpackhi_epi16(zero, first));
    if (count == 2) return;
    _mm256_storeu_si256((void *)(out + 2 * ROWS), _mm256_unpacklo_epi16(zero, last));
    _mm256_storeu_si256((void *)(out + 3 * ROWS), _mm256_unpackhi_epi16(zero, last));
}

INLINE void turn_bf16_rows(const uint8_t *p, size_t stride, uint32_t groups, float *out)
{
    uint32_t g = 0;
    for (; g + 8 <= groups; g += 8) turn_bf16_8x8(p + g * 2, stride, out + (size_t)g * ROWS);
    for (; g + 4 <= groups; g += 4) turn_bf16_few(p + g * 2, stride, 4, out + (size_t)g * ROWS);
    for (; g + 2 <= groups; g += 2) turn_bf16_few(p + g * 2, stride, 2, out + (size_t)g * ROWS);
    for (; g < groups; g++)
        for (uint32_t r = 0; r < ROWS; r++) {
            uint32_t bits = 0;
            memcpy((uint8_t *)&bits + 2, p + r * stride + g * 2, 2);
            memcpy(out + (size_t)g * ROWS + r, &bits, sizeof bits);
        }
}

/* n floats, a multiple of eight, of which the upper halves are f16, to what these mean. */
INLINE void halves_to_floats(float *p, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        __m256i words = _mm256_srli_epi32(_mm256_loadu_si256((const void *)(p + i)), 16);
        __m128i halves =
            _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm256_storeu_ps(p + i, _mm256_cvtph_ps(halves));
    }
}

/* The sums of a row of results in the making; kernel.h gives the order of operations. */
struct sums {
    __m256 acc, part, total;
};

INLINE void add_group(struct sums *s, __m256i idot, float act_scale, float act_sum, bool first,
                      bool last, const float *scale, const float *bias)
{
    __m256 f = _mm256_cvtepi32_ps(idot), by = _mm256_set1_ps(act_scale);
    __m256 sum = _mm256_set1_ps(act_sum);
    s->part = first ? _mm256_mul_ps(f, by) : _mm256_fmadd_ps(f, by, s->part);
    s->total = first ? sum : _mm256_add_ps(s->total, sum);
    if (!last) return;
    s->acc = _mm256_fmadd_ps(s->part, _mm256_loadu_ps(scale), s->acc);
    s->acc = _mm256_fmadd_ps(_mm256_loadu_ps(bias), s->total, s->acc);
}

#endif
