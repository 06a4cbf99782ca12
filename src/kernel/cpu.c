/*
 * What the processor offers and the operating system saves at a context switch. A set of
 * instructions counts only when every extension that its kernels are compiled with is there.
 */
#include <string.h>

#include "base/bits.h"
#include "kernel/cpu_x86.h"
#include "kernel/kernel.h"
#include "kernel/levels.h"

static const struct {
    uint32_t bit;
    const char *text;
} features_known[] = {
#define F(name, bit, text) {CPU_##name, text},
#include "kernel/cpu.def"
#undef F
};

/* Features below this bit are x86's, the others ARM's. */
enum { ARM_FIRST_BIT = 8 };

/* Bits of the words of struct cpuid_words, as the vendors' manuals number them. */
enum {
    B0_INTEL = 0x756e6547, /* "Genu" */
    B0_AMD = 0x68747541,   /* "Auth" */
    C1_FMA = 1 << 12,
    C1_OSXSAVE = 1 << 27,
    C1_AVX = 1 << 28,
    C1_F16C = 1 << 29,
    B7_AVX2 = 1 << 5,
    B7_AVX512F = 1 << 16,
    B7_AVX512DQ = 1 << 17,
    B7_AVX512BW = 1 << 30,
    C7_AVX512_VBMI = 1 << 1,
    C7_AVX512_VNNI = 1 << 11,
    A71_AVX_VNNI = 1 << 4,
    A71_AVX512_BF16 = 1 << 5,
    /* XCR0: SSE and AVX state; mask registers and both halves of the 512-bit ones. */
    XCR0_YMM = 0x6,
    XCR0_ZMM = 0xe6,
};
#define B7_AVX512VL (1u << 31)

static bool has(uint32_t word, uint32_t bits)
{
    return (word & bits) == bits;
}

bool cpu_x86_has_xcr0(const struct cpuid_words *w)
{
    return has(w->c1, C1_OSXSAVE);
}

uint32_t cpu_x86_features(const struct cpuid_words *w, uint32_t xcr0)
{
    const uint32_t avx512 = B7_AVX512F | B7_AVX512DQ | B7_AVX512BW | B7_AVX512VL;
    if (!cpu_x86_has_xcr0(w) || !has(xcr0, XCR0_YMM)) return 0;
    if (!has(w->c1, C1_AVX | C1_FMA | C1_F16C) || !has(w->b7, B7_AVX2)) return 0;
    uint32_t features = CPU_AVX2;
    if (w->b0 == B0_INTEL) features |= CPU_STREAMS;
    if (has(w->a71, A71_AVX_VNNI)) features |= CPU_AVX_VNNI;
    if (!has(xcr0, XCR0_ZMM) || !has(w->b7, avx512)) return features;
    features |= CPU_AVX512;
    if (has(w->c7, C7_AVX512_VNNI)) features |= CPU_AVX512_VNNI;
    if (has(w->c7, C7_AVX512_VNNI | C7_AVX512_VBMI)) features |= CPU_AVX512_VBMI;
    if (!has(w->a71, A71_AVX512_BF16)) return features;
    features |= CPU_AVX512_BF16;
    if (w->b0 == B0_AMD) features |= CPU_BF16_PAIRS;
    return features;
}

#if defined(__x86_64__)
#include <cpuid.h>

struct registers {
    uint32_t a, b, c, d;
};

/* Zeros for a leaf that the processor does not have. */
static struct registers cpuid(uint32_t leaf, uint32_t part)
{
    struct registers r = {0, 0, 0, 0};
    if (!__get_cpuid_count(leaf, part, &r.a, &r.b, &r.c, &r.d)) r = (struct registers){0, 0, 0, 0};
    return r;
}

static uint32_t saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static uint32_t detect(void)
{
    struct registers extended = cpuid(7, 0);
    struct cpuid_words w = {
        .b0 = cpuid(0, 0).b, .c1 = cpuid(1, 0).c, .b7 = extended.b, .c7 = extended.c};
    /* register a of part 0 is the last part there is */
    if (extended.a >= 1) w.a71 = cpuid(7, 1).a;
    return cpu_x86_features(&w, cpu_x86_has_xcr0(&w) ? saved_state() : 0);
}

#elif defined(__aarch64__)

#include <sys/auxv.h>

/* Of AT_HWCAP and AT_HWCAP2; asm/hwcap.h of older systems lacks some. */
enum { CAP_ASIMD = 1 << 1, CAP_DOTPROD = 1 << 20, CAP2_I8MM = 1 << 13 };

static uint32_t detect(void)
{
    unsigned long cap = getauxval(AT_HWCAP), cap2 = getauxval(AT_HWCAP2);
    uint32_t features = 0;
    if (!(cap & CAP_ASIMD)) return 0;
    features |= CPU_NEON;
    if (!(cap & CAP_DOTPROD)) return features;
    features |= CPU_NEON_DOTPROD;
    if (cap2 & CAP2_I8MM) features |= CPU_NEON_I8MM;
    return features;
}

#else

static uint32_t detect(void)
{
    return 0;
}

#endif

uint32_t cpu_detect(void)
{
    return detect() & ~(uint32_t)LEVELS_LEFT_OUT;
}

static bool same_family(uint32_t a, uint32_t b)
{
    return (a >> ARM_FIRST_BIT != 0) == (b >> ARM_FIRST_BIT != 0);
}

bool cpu_mask(const char *text, uint32_t *features)
{
    if (!text || !*text) return true;
    uint32_t level = 0;
    if (strcmp(text, "scalar") != 0) {
        for (size_t i = 0; i < COUNT_OF(features_known); i++)
            if (strcmp(text, features_known[i].text) == 0) level = features_known[i].bit;
        if (!level) return false;
    }
    uint32_t kept = 0;
    for (size_t i = 0; i < COUNT_OF(features_known); i++) {
        uint32_t bit = features_known[i].bit;
        if (bit <= level && same_family(bit, level)) kept |= bit;
    }
    *features &= kept;
    return true;
}

void cpu_describe(uint32_t features, char *out, size_t cap)
{
    if (cap == 0) return;
    size_t used = 0;
    for (size_t i = 0; i <= COUNT_OF(features_known); i++) {
        const char *text = "scalar";
        if (i < COUNT_OF(features_known)) text = features_known[i].text;
        bool present =
            i < COUNT_OF(features_known) ? (features & features_known[i].bit) != 0 : used == 0;
        if (!present) continue;
        if (used && used + 1 < cap) out[used++] = ' ';
        for (; *text && used + 1 < cap; text++) out[used++] = *text;
    }
    out[used] = '\0';
}
