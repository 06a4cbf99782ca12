#include "kernel/kernel.h"
#include "kernel/levels.h"

static const char *const type_names[WTYPE_COUNT] = {
#define T(name, bits, text) [WTYPE_##name] = text,
#include "kernel/wtype.def"
#undef T
};

static const uint8_t type_bits[WTYPE_COUNT] = {
#define T(name, bits, text) [WTYPE_##name] = bits,
#include "kernel/wtype.def"
#undef T
};

const char *wtype_name(enum wtype type)
{
    return type_names[type];
}

uint32_t wtype_bits(enum wtype type)
{
    return type_bits[type];
}

struct wmat wmat_rows(const struct wmat *all, uint64_t row0, uint32_t rows)
{
    struct wmat w = *all;
    w.rows = rows;
    w.data += row0 * ((uint64_t)w.cols * wtype_bits(w.type) / 8);
    if (wtype_is_packed(w.type)) {
        w.scales += row0 * (w.cols / w.group) * 2;
        w.biases += row0 * (w.cols / w.group) * 2;
    }
    return w;
}

void kernels_init(struct kernels *k, uint32_t features)
{
    kernels_init_ref(k);
#if defined(__x86_64__)
    if (features & CPU_AVX2) kernels_init_avx2(k);
    if ((features & CPU_AVX2) && (features & CPU_AVX_VNNI)) kernels_init_avxvnni(k);
    if (features & CPU_AVX512) kernels_init_avx512(k);
    if ((features & CPU_AVX512) && (features & CPU_AVX512_VNNI)) kernels_init_vnni(k);
#elif defined(__aarch64__)
    if (features & CPU_NEON) kernels_init_neon(k);
    if ((features & CPU_NEON) && (features & CPU_NEON_DOTPROD)) kernels_init_dotprod(k);
    if ((features & CPU_NEON) && (features & CPU_NEON_I8MM)) kernels_init_i8mm(k);
#else
    (void)features;
#endif
}
