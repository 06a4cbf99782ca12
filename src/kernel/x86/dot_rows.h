/*
 * Products of eight rows of packed weights with one row of activations, for bandwidth: each weight
 * is read once, in order, and used where it lies. A row's bytes meet the activations of the same
 * places in one vector; the eight vectors of partial sums are then added up into one that has a row
 * in each lane. 256 bits at every instruction set.
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
#define DPBUSD _mm256_dpbusd_epi32
#elif defined(__AVXVNNI__)
#define DPBUSD _mm256_dpbusd_avx_epi32
#endif

#define SET16 _mm256_set1_epi16

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

/* The lanes of a and of b folded once: a's sums in the even lanes, b's in the odd ones. */
#define FOLD_32(add, a, b) add(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b))
#define FOLD_64(add, a, b) add(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b))

/*
 * Four rows to one vector: lane i and lane i + 4 hold the half sums of row i. Of 16-bit sums, wide:
 * their four-fold sums need more than that.
 */
INLINE __m256i fold_four(const __m256i *v, bool is_short, bool wide)
{
    const __m256i one = SET16(1);
    if (!is_short) {
        __m256i a = FOLD_32(_mm256_add_epi32, v[0], v[1]);
        return FOLD_64(_mm256_add_epi32, a, FOLD_32(_mm256_add_epi32, v[2], v[3]));
    }
    __m256i a = FOLD_32(_mm256_add_epi16, v[0], v[1]), b = FOLD_32(_mm256_add_epi16, v[2], v[3]);
    if (!wide) return _mm256_madd_epi16(FOLD_64(_mm256_add_epi16, a, b), one);
    a = _mm256_madd_epi16(a, one);
    b = _mm256_madd_epi16(b, one);
    return FOLD_64(_mm256_add_epi32, a, b);
}

/* Word k of a lane: the 2 * bits bits of values 2k and 2k + 1 moved to its top. */
INLINE __m256i gather_pairs(__m256i v, uint32_t bits, int high_base)
{
#define BYTE(k) ((int)(2 * bits * (k) / 8))
#define TWO(base, k) (char)((base) + BYTE(k)), (char)((base) + BYTE(k) + 1)
#define LANE(base)                                                                                 \
    TWO(base, 0), TWO(base, 1), TWO(base, 2), TWO(base, 3), TWO(base, 4), TWO(base, 5),            \
        TWO(base, 6), TWO(base, 7)
#define UP(k) (short)(1 << (16 - 2 * bits - 2 * bits * (k) % 8))
    const __m256i pick = _mm256_setr_epi8(LANE(0), LANE(high_base));
    const __m256i up = _mm256_setr_epi16(UP(0), UP(1), UP(2), UP(3), UP(4), UP(5), UP(6), UP(7),
                                         UP(0), UP(1), UP(2), UP(3), UP(4), UP(5), UP(6), UP(7));
#undef BYTE
#undef TWO
#undef LANE
#undef UP
    return _mm256_mullo_epi16(_mm256_shuffle_epi8(v, pick), up);
}

/* 32 values of 2, 3, 5 or 6 bits as bytes; reads their 4 * bits bytes only. */
INLINE __m256i unpack_row(const uint8_t *p, uint32_t bits)
{
    const int mask = (1 << bits) - 1;
    __m256i v;
    switch (bits) {
    case 2: v = gather_pairs(_mm256_broadcastq_epi64(load_8(p)), bits, 4); break;
    case 3: {
        __m256i low = _mm256_castsi128_si256(load_8(p));
        v = gather_pairs(_mm256_inserti128_si256(low, load_8(p + 4), 1), bits, 2);
        break;
    }
    case 5: v = gather_pairs(load_pair(p, p + 4), bits, 6); break;
    default: v = gather_pairs(load_pair(p, p + 8), bits, 4);
    }
    __m256i even = _mm256_and_si256(_mm256_srli_epi16(v, 16 - 2 * (int)bits), SET16((short)mask));
    __m256i odd = _mm256_and_si256(_mm256_srli_epi16(v, 8 - (int)bits), SET16((short)(mask << 8)));
    return _mm256_or_si256(even, odd);
}

/* Sums of one row's 32 values with their activations: 8 of 32 bits, or 16 of 16 bits. */
INLINE __m256i dot_row(const uint8_t *p, const int8_t *x, uint32_t bits)
{
    __m256i v = _mm256_loadu_si256((const void *)x);
#if HAS_DPBUSD
    __m256i w = bits == 8 ? _mm256_loadu_si256((const void *)p) : unpack_row(p, bits);
    return DPBUSD(_mm256_setzero_si256(), w, v);
#else
    if (bits != 8) return _mm256_maddubs_epi16(unpack_row(p, bits), v);
    /* 16-bit activations in two halves */
    __m256i low = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)p));
    __m256i high = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(p + 16)));
    low = _mm256_madd_epi16(low, v);
    high = _mm256_madd_epi16(high, _mm256_loadu_si256((const void *)(x + 32)));
    return _mm256_add_epi32(low, high);
#endif
}

/* The sums of 64 values of 4 bits: those of the first 32 in the low half. */
INLINE __m256i dot_row_4(__m256i packed, __m256i even, __m256i odd)
{
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i low = _mm256_and_si256(packed, mask);
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(packed, 4), mask);
#if HAS_DPBUSD
    return DPBUSD(DPBUSD(_mm256_setzero_si256(), low, even), high, odd);
#else
    return _mm256_add_epi16(_mm256_maddubs_epi16(low, even), _mm256_maddubs_epi16(high, odd));
#endif
}

/* Whether sums of 32 values are of 16 bits. */
INLINE bool sums_are_short(uint32_t bits)
{
    return !HAS_DPBUSD && bits != 8;
}

/* Bytes of ordered activations per group of 32. */
INLINE uint32_t ordered_bytes(uint32_t bits)
{
    return bits == 8 && !HAS_DPBUSD ? 64 : 32;
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
    uint32_t count; /* groups of 32, 4 bits only: 1 or 2 */
};

INLINE __m256i sums_of(const struct step *s, uint32_t row, uint32_t bits)
{
    const uint8_t *p = row_of(s->p, s->stride, row);
    if (bits != 4) return dot_row(p, s->x, bits);
    if (s->count == 2)
        return dot_row_4(_mm256_loadu_si256((const void *)p),
                         _mm256_loadu_si256((const void *)s->x),
                         _mm256_loadu_si256((const void *)(s->x + 32)));
    /* the last 32 of a row: their even values, then the odd ones */
    return dot_row_4(_mm256_zextsi128_si256(_mm_loadu_si128((const void *)p)),
                     _mm256_zextsi128_si256(_mm_loadu_si128((const void *)s->x)),
                     _mm256_zextsi128_si256(_mm_loadu_si128((const void *)(s->x + 16))));
}

INLINE __m256i four_rows(const struct step *s, uint32_t row, uint32_t bits)
{
    __m256i v[4];
    UNROLL
    for (uint32_t i = 0; i < 4; i++) v[i] = sums_of(s, row + i, bits);
    return fold_four(v, sums_are_short(bits), bits == 6);
}

/*
 * The exact products of activation groups a and, where count is 2, a + 1 of all rows; x: ordered.
 * bits and count are constants at every call.
 */
INLINE void dot_groups(const struct rows *rows, const int8_t *x, uint32_t a, uint32_t count,
                       uint32_t bits, __m256i idot[2])
{
    struct step s = {.p = rows->data + (size_t)a * bits * 4,
                     .stride = rows->stride,
                     .x = x + (size_t)a * ordered_bytes(bits),
                     .count = count};
    for (uint32_t j = 0; j < count; j++) {
        __m256i first = four_rows(&s, 0, bits), last = four_rows(&s, 4, bits);
        __m256i low = _mm256_permute2x128_si256(first, last, 0x20);
        __m256i high = _mm256_permute2x128_si256(first, last, 0x31);
        if (bits == 4) {
            idot[0] = low;
            idot[1] = high;
            return;
        }
        idot[j] = _mm256_add_epi32(low, high);
        s.p += bits * 4;
        s.x += ordered_bytes(bits);
    }
}

/* Activations of a row as dot_groups() wants them. */
INLINE void order_row(const int8_t *x, uint32_t cols, uint32_t bits, int8_t *out)
{
    const __m256i split = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
    for (uint32_t i = 0; i < cols; i += 32, x += 32) {
        __m256i v = _mm256_loadu_si256((const void *)x);
        if (bits == 8 && !HAS_DPBUSD) {
            __m128i low = _mm256_castsi256_si128(v), high = _mm256_extracti128_si256(v, 1);
            _mm256_storeu_si256((void *)(out + 2 * i), _mm256_cvtepi8_epi16(low));
            _mm256_storeu_si256((void *)(out + 2 * i + 32), _mm256_cvtepi8_epi16(high));
        } else if (bits == 4) {
            /* 16 even values, then 16 odd ones; of 64, the even values of all, then the odd */
            v = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(v, split), 0xd8);
            bool last = i + 32 == cols && i % 64 == 0;
            int8_t *even = out + i / 64 * 64 + i % 64 / 2;
            _mm_storeu_si128((void *)even, _mm256_castsi256_si128(v));
            _mm_storeu_si128((void *)(even + (last ? 16 : 32)), _mm256_extracti128_si256(v, 1));
        } else {
            _mm256_storeu_si256((void *)(out + i), v);
        }
    }
}

#undef FOLD_32
#undef FOLD_64
#undef SET16
#undef DPBUSD

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
