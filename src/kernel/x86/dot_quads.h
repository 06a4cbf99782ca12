/*
 * Exact products of quads: u8 weights of LANES rows with four s8 activations that all rows share.
 * Without VNNI the sums of pairs are kept in 16 bits for as many quads as cannot overflow them;
 * 8-bit weights go through 16-bit products.
 */
#ifndef SLUICE_KERNEL_DOT_QUADS_H
#define SLUICE_KERNEL_DOT_QUADS_H

#include "kernel/x86/unpack_quads.h"

INLINE vi broadcast_quad(const int8_t *x)
{
    int32_t quad;
    memcpy(&quad, x, sizeof quad);
    return vi_set(quad);
}

struct dot {
    vi sum;
    vi pairs; /* 16 bits each */
};

#if defined(__AVX512F__)
#define MADDUBS _mm512_maddubs_epi16
#define MADD _mm512_madd_epi16
#define ADD16 _mm512_add_epi16
#define SET16 _mm512_set1_epi16
#define SRL16 _mm512_srli_epi16
#define SLL16 _mm512_slli_epi16
#define SRA16 _mm512_srai_epi16
#else
#define MADDUBS _mm256_maddubs_epi16
#define MADD _mm256_madd_epi16
#define ADD16 _mm256_add_epi16
#define SET16 _mm256_set1_epi16
#define SRL16 _mm256_srli_epi16
#define SLL16 _mm256_slli_epi16
#define SRA16 _mm256_srai_epi16
#endif

/* How many products of a pair, each at most 127 * (2^bits - 1), 16 bits hold. */
INLINE uint32_t quads_per_flush(uint32_t bits)
{
    switch (bits) {
    case 5: return 4;
    case 6: return 2;
    default: return 8;
    }
}

INLINE struct dot dot_zero(void)
{
    return (struct dot){vi_set(0), vi_set(0)};
}

/* Quad i of 8; bits is a constant at every call. */
INLINE void dot_add(struct dot *d, vi w, const int8_t *x, uint32_t i, uint32_t bits)
{
    vi v = broadcast_quad(x + i * 4);
#if defined(__AVX512VNNI__)
    (void)bits;
    d->sum = _mm512_dpbusd_epi32(d->sum, w, v);
#else
    if (bits == 8) {
        vi even = MADD(vi_and(w, SET16(0xff)), SRA16(SLL16(v, 8), 8));
        vi odd = MADD(SRL16(w, 8), SRA16(v, 8));
        d->sum = vi_add(d->sum, vi_add(even, odd));
        return;
    }
    uint32_t period = quads_per_flush(bits);
    vi pairs = MADDUBS(w, v);
    d->pairs = i % period == 0 ? pairs : ADD16(d->pairs, pairs);
    if ((i + 1) % period == 0) d->sum = vi_add(d->sum, MADD(d->pairs, SET16(1)));
#endif
}

#undef MADDUBS
#undef MADD
#undef ADD16
#undef SET16
#undef SRL16
#undef SLL16
#undef SRA16

#endif
