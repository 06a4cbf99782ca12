/* Narrowing and naming of instruction sets; wtype tables. */
#include "check.h"
#include "kernel/cpu_x86.h"
#include "kernel/kernel.h"

static const uint32_t all = CPU_AVX2 | CPU_AVX_VNNI | CPU_AVX512 | CPU_AVX512_VNNI |
                            CPU_AVX512_VBMI | CPU_AVX512_BF16 | CPU_BF16_PAIRS | CPU_STREAMS;
static const uint32_t all_arm = CPU_NEON | CPU_NEON_DOTPROD | CPU_NEON_I8MM;

static void test_mask_keeps_a_level_and_those_below(void)
{
    uint32_t f = all;
    CHECK(cpu_mask("bf16pairs", &f) && f == all);
    CHECK(cpu_mask("avx512bf16", &f) && f == (all & ~(uint32_t)CPU_BF16_PAIRS));
    CHECK(cpu_mask("avx512vbmi", &f) && f == (all & ~(uint32_t)(CPU_BF16_PAIRS | CPU_AVX512_BF16)));
    CHECK(cpu_mask("avx512", &f) && f == (CPU_STREAMS | CPU_AVX2 | CPU_AVX_VNNI | CPU_AVX512));
    CHECK(cpu_mask("avxvnni", &f) && f == (CPU_STREAMS | CPU_AVX2 | CPU_AVX_VNNI));
    CHECK(cpu_mask("avx512vnni", &f) && f == (CPU_STREAMS | CPU_AVX2 | CPU_AVX_VNNI),
          "adds nothing");
    CHECK(cpu_mask("avx2", &f) && f == (CPU_STREAMS | CPU_AVX2));
    CHECK(cpu_mask("scalar", &f) && f == 0);
    f = all_arm;
    CHECK(cpu_mask("i8mm", &f) && f == all_arm);
    CHECK(cpu_mask("dotprod", &f) && f == (CPU_NEON | CPU_NEON_DOTPROD));
    CHECK(cpu_mask("neon", &f) && f == CPU_NEON);
}

static void test_mask_of_another_family_leaves_scalar(void)
{
    uint32_t f = all;
    CHECK(cpu_mask("neon", &f) && f == 0);
    f = CPU_NEON;
    CHECK(cpu_mask("avx512", &f) && f == 0);
    f = CPU_NEON;
    CHECK(cpu_mask("neon", &f) && f == CPU_NEON);
}

static void test_empty_mask_changes_nothing(void)
{
    uint32_t f = all;
    CHECK(cpu_mask(NULL, &f) && f == all);
    CHECK(cpu_mask("", &f) && f == all);
}

static void test_unknown_mask_is_refused(void)
{
    uint32_t f = all;
    CHECK(!cpu_mask("avx", &f) && f == all);
    CHECK(!cpu_mask("AVX2", &f) && f == all);
}

static void test_describe(void)
{
    char text[128];
    cpu_describe(0, text, sizeof text);
    CHECK(strcmp(text, "scalar") == 0, "%s", text);
    cpu_describe(all, text, sizeof text);
    CHECK(strcmp(text, "streams avx2 avxvnni avx512 avx512vnni avx512vbmi avx512bf16 bf16pairs") ==
              0,
          "%s", text);
    cpu_describe(CPU_NEON, text, sizeof text);
    CHECK(strcmp(text, "neon") == 0, "%s", text);
    cpu_describe(all_arm, text, sizeof text);
    CHECK(strcmp(text, "neon dotprod i8mm") == 0, "%s", text);
}

static void test_describe_cuts_at_cap(void)
{
    char text[8] = "zzzzzzz";
    cpu_describe(all, text, 0);
    CHECK(text[0] == 'z');
    cpu_describe(all, text, 1);
    CHECK(text[0] == '\0' && text[1] == 'z');
    cpu_describe(all, text, 7);
    CHECK(strcmp(text, "stream") == 0 && text[7] == '\0', "%s", text);
}

static void test_detected_features_describe_themselves(void)
{
    char text[128];
    uint32_t f = cpu_detect();
    cpu_describe(f, text, sizeof text);
    CHECK((f == 0) == (strcmp(text, "scalar") == 0), "%s", text);
    CHECK(!(f & CPU_AVX512_VNNI) || (f & CPU_AVX512), "vnni without avx512");
    CHECK(!(f & CPU_AVX512_VBMI) || (f & CPU_AVX512_VNNI), "vbmi without vnni");
    CHECK(!(f & CPU_AVX512_BF16) || (f & CPU_AVX512), "bf16 without avx512");
    CHECK(!(f & CPU_BF16_PAIRS) || (f & CPU_AVX512_BF16), "pairs of bf16 without bf16");
    CHECK(!(f & CPU_STREAMS) || (f & CPU_AVX2), "streams without avx2");
    CHECK(!(f & CPU_AVX512) || (f & CPU_AVX2), "avx512 without avx2");
    CHECK(!(f & CPU_AVX_VNNI) || (f & CPU_AVX2), "avxvnni without avx2");
    CHECK(!(f & (CPU_NEON_DOTPROD | CPU_NEON_I8MM)) || (f & CPU_NEON), "dotprod without neon");
}

/* What CPUID and XCR0 say on these processors, and what of it the kernels may use. */
static void test_features_of_x86_processors(void)
{
    enum { AVX2 = CPU_AVX2, VNNI = CPU_AVX512_VNNI, VBMI = VNNI | CPU_AVX512_VBMI };
    enum { BF16 = CPU_AVX512_BF16, PAIRS = BF16 | CPU_BF16_PAIRS };
    enum { STREAMS = CPU_STREAMS, INTEL = 0x756e6547, AMD = 0x68747541 };
    static const struct {
        const char *name;
        struct cpuid_words words;
        uint32_t xcr0, features;
    } rows[] = {
        {"Nehalem", {INTEL, 0x0098e3bd, 0, 0, 0}, 0, 0},
        {"Sandy Bridge", {INTEL, 0x1fbae3ff, 0, 0, 0}, 0x7, 0},
        {"Haswell", {INTEL, 0x7ffafbff, 0x000027ab, 0, 0}, 0x7, STREAMS | AVX2},
        {"Haswell, no AVX state saved", {INTEL, 0x7ffafbff, 0x000027ab, 0, 0}, 0x3, 0},
        {"Haswell, FMA hidden", {INTEL, 0x7ffaebff, 0x000027ab, 0, 0}, 0x7, 0},
        {"Haswell, F16C hidden", {INTEL, 0x5ffafbff, 0x000027ab, 0, 0}, 0x7, 0},
        {"Skylake-X",
         {INTEL, 0x7ffefbff, 0xd39ffffb, 0x00000000, 0},
         0xff,
         STREAMS | AVX2 | CPU_AVX512},
        {"Skylake-X, no ZMM state",
         {INTEL, 0x7ffefbff, 0xd39ffffb, 0x00000000, 0},
         0x1f,
         STREAMS | AVX2},
        {"Skylake-X, half of the ZMM state",
         {INTEL, 0x7ffefbff, 0xd39ffffb, 0, 0},
         0x67,
         STREAMS | AVX2},
        {"Skylake-X, VL hidden",
         {INTEL, 0x7ffefbff, 0x539ffffb, 0x00000000, 0},
         0xff,
         STREAMS | AVX2},
        {"Knights Landing", {INTEL, 0x7ff8f3bf, 0x1c0d23ab, 0x00000001, 0}, 0xe7, STREAMS | AVX2},
        {"Cascade Lake",
         {INTEL, 0x7ffefbff, 0xd39ffffb, 0x00000808, 0},
         0xff,
         STREAMS | AVX2 | CPU_AVX512 | VNNI},
        {"Cooper Lake",
         {INTEL, 0x7ffefbff, 0xd39ffffb, 0x00000808, 0x20},
         0xff,
         STREAMS | AVX2 | CPU_AVX512 | VNNI | BF16},
        {"Ice Lake",
         {INTEL, 0x7ffafbbf, 0xf2bf67eb, 0x00405f4e, 0},
         0xe7,
         STREAMS | AVX2 | CPU_AVX512 | VBMI},
        {"Alder Lake",
         {INTEL, 0x7ffafbff, 0x239c27eb, 0x98c027bc, 0x00400810},
         0x207,
         STREAMS | AVX2 | CPU_AVX_VNNI},
        {"Sapphire Rapids",
         {INTEL, 0x7ffefbff, 0xf3bfbfef, 0xfb417ffe, 0x00001c30},
         0x602e7,
         STREAMS | AVX2 | CPU_AVX_VNNI | CPU_AVX512 | VBMI | BF16},
        {"Zen 3", {AMD, 0x7ef8320b, 0x219c97a9, 0x0040068c, 0}, 0x207, AVX2},
        {"Zen 4",
         {AMD, 0x7ef8320b, 0xf1bf97a9, 0x00405fce, 0x20},
         0x2e7,
         AVX2 | CPU_AVX512 | VBMI | PAIRS},
        {"Zen 4, no ZMM state", {AMD, 0x7ef8320b, 0xf1bf97a9, 0x00405fce, 0x20}, 0x207, AVX2},
        {"Zen 5",
         {AMD, 0x7ef8320b, 0xf1bf97a9, 0x08405fce, 0x30},
         0x2e7,
         AVX2 | CPU_AVX_VNNI | CPU_AVX512 | VBMI | PAIRS},
        {"Zen 5, OSXSAVE hidden", {AMD, 0x76f8320b, 0xf1bf97a9, 0x08405fce, 0x30}, 0, 0},
        /* Whatever XCR0 is said to be: it cannot have been read. */
        {"Zen 5, OSXSAVE hidden", {AMD, 0x76f8320b, 0xf1bf97a9, 0x08405fce, 0x30}, 0x2e7, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint32_t got = cpu_x86_features(&rows[i].words, rows[i].xcr0);
        CHECK(got == rows[i].features, "%s: %x, not %x", rows[i].name, got, rows[i].features);
        bool hidden = i == 0 || strstr(rows[i].name, "OSXSAVE") != NULL;
        CHECK(cpu_x86_has_xcr0(&rows[i].words) == !hidden, "%s", rows[i].name);
    }
}

static void test_wtypes(void)
{
    CHECK(strcmp(wtype_name(WTYPE_Q4), "q4") == 0 && wtype_bits(WTYPE_Q4) == 4);
    CHECK(strcmp(wtype_name(WTYPE_BF16), "bf16") == 0 && wtype_bits(WTYPE_BF16) == 16);
    CHECK(wtype_row_bytes(WTYPE_Q3, 96) == 36 && wtype_row_bytes(WTYPE_Q6_K, 512) == 420);
    for (int t = 0; t < WTYPE_COUNT; t++) {
        enum wkind kind = wtype_kind((enum wtype)t);
        bool floats = kind == WKIND_FLOAT || kind == WKIND_TILED;
        CHECK(wtype_is_packed((enum wtype)t) != floats, "%d", t);
        CHECK(floats == (wtype_block_values((enum wtype)t) == 1), "%d", t);
    }
}

static void test_every_slot_is_filled(void)
{
    struct kernels k;
    kernels_init(&k, cpu_detect());
    for (int t = 0; t < WTYPE_COUNT; t++) {
        CHECK(k.matmul_f32[t] && k.dequant_row[t], "%d", t);
        CHECK(!!k.matmul_i8[t] == wtype_is_packed((enum wtype)t), "%d", t);
        CHECK(!!k.matmul_bf16[t] == (t == WTYPE_BF16), "%d", t);
    }
#define K(ret, name, params) CHECK(k.name != NULL);
#define KW(ret, name, params)
#include "kernel/kernel.def"
#undef K
#undef KW
}

#define CASES(C)                                                                                   \
    C(mask_keeps_a_level_and_those_below)                                                          \
    C(mask_of_another_family_leaves_scalar)                                                        \
    C(empty_mask_changes_nothing)                                                                  \
    C(unknown_mask_is_refused)                                                                     \
    C(describe)                                                                                    \
    C(describe_cuts_at_cap)                                                                        \
    C(detected_features_describe_themselves)                                                       \
    C(features_of_x86_processors)                                                                  \
    C(wtypes)                                                                                      \
    C(every_slot_is_filled)
CHECK_MAIN(CASES)
