/* Rows of GGUF's blocks, MXFP4 and FP8 as floats. */
#include "kernel/x86/block_super.h"

/* Eight bytes as integers that are exact with the sub-scale. */
INLINE __m256i eight_of(enum wtype type, const uint8_t *q, int16_t sub)
{
    __m128i bytes = _mm_loadl_epi64((const void *)q);
    __m256i v = block_signed(type) ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes);
    v = _mm256_sub_epi32(v, _mm256_set1_epi32(block_offset(type)));
    return block_has_sub(type) ? _mm256_mullo_epi32(v, _mm256_set1_epi32(sub)) : v;
}

INLINE void dequant_super(enum wtype type, const struct super *s, uint32_t groups, float *y)
{
    uint8_t q[SUPER_GROUPS][32];
    float scale[SUPER_GROUPS], bias[SUPER_GROUPS];
    int16_t sub[2 * SUPER_GROUPS], min[2 * SUPER_GROUPS];
    for (uint32_t i = 0; i < SUPER_GROUPS; i++) _mm256_storeu_si256((void *)q[i], s->q[i]);
    _mm256_storeu_ps(scale, s->scale);
    if (block_has_bias(type) || block_has_min(type)) _mm256_storeu_ps(bias, s->bias);
    if (block_has_sub(type)) _mm256_storeu_si256((void *)sub, s->sub);
    if (block_has_min(type)) _mm256_storeu_si256((void *)min, s->min);
    for (uint32_t h = 0; h < 2 * groups; h++) {
        const uint8_t *half = q[h % SUPER_GROUPS] + h / SUPER_GROUPS * 16;
        for (uint32_t i = 0; i < 16; i += 8, y += 8) {
            __m256 v =
                _mm256_cvtepi32_ps(eight_of(type, half + i, block_has_sub(type) ? sub[h] : 1));
            v = _mm256_mul_ps(v, _mm256_set1_ps(scale[h / 2]));
            if (block_has_bias(type)) v = _mm256_add_ps(v, _mm256_set1_ps(bias[h / 2]));
            if (block_has_min(type))
                v = _mm256_sub_ps(v, _mm256_set1_ps((float)min[h] * bias[h / 2]));
            _mm256_storeu_ps(y, v);
        }
    }
}

INLINE void dequant_row(enum wtype type, const struct wmat *w, uint32_t row, float *y)
{
    const uint8_t *p = w->data + row * row_bytes(w);
    const uint8_t *scales = NULL;
    uint32_t groups = w->cols / ACT8_GROUP;
    struct super super;
    if (type == WTYPE_MXFP4_SPLIT) scales = w->scales + (size_t)row * groups;
    for (; groups >= SUPER_GROUPS; groups -= SUPER_GROUPS, y += SUPER) {
        load_super(type, p, scales, &super);
        dequant_super(type, &super, SUPER_GROUPS, y);
        p += super_bytes(type);
        if (type == WTYPE_MXFP4_SPLIT) scales += SUPER_GROUPS;
    }
    if (groups == 0 || wtype_block_values(type) == SUPER) return;
    load_part(type, p, scales, groups, &super);
    dequant_super(type, &super, groups, y);
}

/*
 * Eight values of e4m3. With exponent and fraction moved to where f16 has them they are 2^-8 of
 * what they are worth, denormals included.
 */
INLINE __m256 e4m3_values(__m128i bytes)
{
    __m128i v = _mm_cvtepu8_epi16(bytes);
    __m128i magnitude = _mm_and_si128(v, _mm_set1_epi16(0x7f));
    __m128i nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7f));
    __m128i sign = _mm_slli_epi16(_mm_andnot_si128(_mm_set1_epi16(0x7f), v), 8);
    __m128i half = _mm_or_si128(_mm_or_si128(_mm_slli_epi16(magnitude, 7), sign), nan);
    return _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256));
}

INLINE void dequant_tile(const uint8_t *p, uint32_t n, float scale, float *y)
{
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_mul_ps(e4m3_values(_mm_loadl_epi64((const void *)(p + i))),
                                              _mm256_set1_ps(scale)));
    if (i < n) {
        uint8_t bytes[16] = {0};
        float values[8];
        memcpy(bytes, p + i, n - i);
        _mm256_storeu_ps(values,
                         _mm256_mul_ps(e4m3_values(load_128(bytes)), _mm256_set1_ps(scale)));
        memcpy(y + i, values, (n - i) * sizeof *y);
    }
}

static void dequant_row_F8_E4M3(const struct wmat *w, uint32_t row, float *y)
{
    dequant_tiles(w, row, y, dequant_tile);
}

#define DEQUANT_ROW(type)                                                                          \
    static void dequant_row_##type(const struct wmat *w, uint32_t row, float *y)                   \
    {                                                                                              \
        dequant_row(WTYPE_##type, w, row, y);                                                      \
    }

BLOCK_TYPES(DEQUANT_ROW)

void SET(dequant_block_row)(const struct wmat *w, uint32_t row, float *y)
{
    switch ((int)w->type) {
#define CASE(type)                                                                                 \
    case WTYPE_##type: dequant_row_##type(w, row, y); break;
        BLOCK_TYPES(CASE)
        CASE(F8_E4M3)
#undef CASE
    }
}
