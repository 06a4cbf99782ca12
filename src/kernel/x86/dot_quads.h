/*
 * Exact products of quads: u8 weights of LANES rows with four s8 activations that all rows share.
 * Without VNNI a pair of products is added in 16 bits, and as many pairs are summed there as cannot
 * overflow; 8-bit weights are two planes of 4 bits, of which the high one counts sixteen times.
 */
#ifndef SLUICE_KERNEL_DOT_QUADS_H
#define SLUICE_KERNEL_DOT_QUADS_H

#include "kernel/x86/unpack_quads.h"

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#define HAS_DPBUSD 1
#else
#define HAS_DPBUSD 0
#endif

/*
 * A tile is vectors of rows by tokens: with AVX2 as many as have their sums of one group in
 * registers, while those in floats wait in memory.
 */
enum { TILE_VECTORS = 2, TILE_TOKENS = LANES == 16 || !HAS_DPBUSD ? 4 : 2 };

/* Planes of 8 quads that a group of such weights is unpacked to. */
INLINE uint32_t planes_of(uint32_t bits)
{
    return bits == 8 && !HAS_DPBUSD ? 2 : 1;
}

INLINE vi broadcast_quad(const int8_t *x)
{
    int32_t quad;
    memcpy(&quad, x, sizeof quad);
    return vi_set(quad);
}

#if HAS_DPBUSD

#if defined(__AVX512VNNI__)
#define DPBUSD _mm512_dpbusd_epi32
#else
#define DPBUSD _mm256_dpbusd_avx_epi32
#endif

/* The quads of a group with rows of activations from `at` on; all but addresses constants. */
INLINE void dot_tile(const uint8_t *quads, uint32_t vectors, const int8_t *const *x, size_t at,
                     uint32_t tokens, uint32_t bits, vi idot[TILE_VECTORS][TILE_TOKENS])
{
    (void)bits;
    UNROLL
    for (uint32_t r = 0; r < vectors; r++) UNROLL
    for (uint32_t t = 0; t < tokens; t++) idot[r][t] = vi_set(0);
    UNROLL
    for (uint32_t j = 0; j < QUADS; j++) {
        vi w[TILE_VECTORS];
        UNROLL
        for (uint32_t r = 0; r < vectors; r++) {
            w[r] = vi_load(quads + (j * vectors + r) * 4 * LANES);
            PIN(w[r]);
        }
        UNROLL
        for (uint32_t t = 0; t < tokens; t++) {
            vi v = broadcast_quad(x[t] + at + j * 4);
            UNROLL
            for (uint32_t r = 0; r < vectors; r++) {
                idot[r][t] = DPBUSD(idot[r][t], w[r], v);
                PIN(idot[r][t]);
            }
        }
    }
}

#undef DPBUSD

#else

#if defined(__AVX512F__)
#define MADDUBS _mm512_maddubs_epi16
#define MADD _mm512_madd_epi16
#define ADD16 _mm512_add_epi16
#define SET16 _mm512_set1_epi16
#else
#define MADDUBS _mm256_maddubs_epi16
#define MADD _mm256_madd_epi16
#define ADD16 _mm256_add_epi16
#define SET16 _mm256_set1_epi16
#endif

/* How many products of a pair, each at most 127 * (2^bits - 1), 16 bits hold. */
INLINE uint32_t quads_per_flush(uint32_t bits)
{
    switch (bits) {
    case 5: return 4;
    case 6: return 2;
    default: return QUADS;
    }
}

/* One plane, counted `times`; more: added to what idot holds. */
INLINE void dot_plane(const uint8_t *quads, uint32_t vectors, const int8_t *const *x, size_t at,
                      uint32_t tokens, uint32_t bits, int16_t times, bool more,
                      vi idot[TILE_VECTORS][TILE_TOKENS])
{
    const uint32_t period = quads_per_flush(bits);
    vi pairs[TILE_VECTORS][TILE_TOKENS];
    UNROLL
    for (uint32_t r = 0; r < vectors; r++) UNROLL
    for (uint32_t t = 0; t < tokens; t++) {
        pairs[r][t] = vi_set(0);
        if (!more) idot[r][t] = vi_set(0);
    }
    UNROLL
    for (uint32_t j = 0; j < QUADS; j++) {
        vi w[TILE_VECTORS];
        UNROLL
        for (uint32_t r = 0; r < vectors; r++) {
            w[r] = vi_load(quads + (j * vectors + r) * 4 * LANES);
            PIN(w[r]);
        }
        UNROLL
        for (uint32_t t = 0; t < tokens; t++) {
            vi v = broadcast_quad(x[t] + at + j * 4);
            UNROLL
            for (uint32_t r = 0; r < vectors; r++) {
                vi pair = MADDUBS(w[r], v);
                pairs[r][t] = j % period == 0 ? pair : ADD16(pairs[r][t], pair);
                PIN(pairs[r][t]);
            }
        }
        if ((j + 1) % period != 0) continue;
        UNROLL
        for (uint32_t t = 0; t < tokens; t++) UNROLL
        for (uint32_t r = 0; r < vectors; r++) {
            vi sum = MADD(pairs[r][t], SET16(times));
            idot[r][t] = vi_add(idot[r][t], sum);
        }
    }
}

/* The quads of a group with rows of activations from `at` on; all but addresses constants. */
INLINE void dot_tile(const uint8_t *quads, uint32_t vectors, const int8_t *const *x, size_t at,
                     uint32_t tokens, uint32_t bits, vi idot[TILE_VECTORS][TILE_TOKENS])
{
    dot_plane(quads, vectors, x, at, tokens, bits, 1, false, idot);
    if (planes_of(bits) == 2)
        dot_plane(quads + QUADS * vectors * 4 * LANES, vectors, x, at, tokens, bits, 16, true,
                  idot);
}

#undef MADDUBS
#undef MADD
#undef ADD16
#undef SET16

#endif

#endif
