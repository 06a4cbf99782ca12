#include "bench_peak.h"

#include <stdlib.h>

#include "bench_passes.h"
#include "bench_stats.h"
#include "report.h"

/*
 * A loop of products on values in registers. The compiler is told that they change, so that it
 * computes every product, and that the sums are used.
 */
typedef void loop_fn(uint64_t rounds);
struct loop {
    const char *how;
    loop_fn *run;
    uint32_t products; /* of a round */
};

/*
 * Before every loop over an array, also those that fill it: else the array stays in memory, whose
 * loads and stores are what is measured then (tools/check_loops.py looks for that).
 */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

#define CHANGE(x) __asm__ volatile("" : "+v"(x))
#define CHANGE_YMM(x) __asm__ volatile("" : "+x"(x))

/*
 * 4-bit codes: eight products of a place fit 16 bits, so 256 of them are eight multiplications,
 * seven additions, and one step to 32 bits.
 */
__attribute__((target("avx2"))) static inline __m256i eight_avx2(__m256i w[4], __m256i x[2])
{
    UNROLL
    for (int i = 0; i < 4; i++) CHANGE_YMM(w[i]);
    UNROLL
    for (int i = 0; i < 2; i++) CHANGE_YMM(x[i]);
    __m256i sum = _mm256_maddubs_epi16(w[0], x[0]);
    CHANGE_YMM(sum);
    UNROLL
    for (int i = 1; i < 8; i++) {
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w[i % 4], x[i / 4]));
        CHANGE_YMM(sum);
    }
    return sum;
}

__attribute__((target("avx2"))) static void loop_avx2(uint64_t rounds)
{
    __m256i w[4], x[2], sums[4], ones = _mm256_set1_epi16(1);
    UNROLL
    for (int i = 0; i < 4; i++) w[i] = _mm256_set1_epi8((char)(i + 3));
    UNROLL
    for (int i = 0; i < 2; i++) x[i] = _mm256_set1_epi8((char)(i - 1));
    UNROLL
    for (int i = 0; i < 4; i++) sums[i] = _mm256_setzero_si256();
    for (uint64_t r = 0; r < rounds; r++) UNROLL
    for (int i = 0; i < 4; i++)
        sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(eight_avx2(w, x), ones));
    UNROLL
    for (int i = 0; i < 4; i++) CHANGE_YMM(sums[i]);
}

__attribute__((target("avx512bw"))) static inline __m512i eight_avx512(__m512i w[4], __m512i x[2])
{
    UNROLL
    for (int i = 0; i < 4; i++) CHANGE(w[i]);
    UNROLL
    for (int i = 0; i < 2; i++) CHANGE(x[i]);
    __m512i sum = _mm512_maddubs_epi16(w[0], x[0]);
    CHANGE(sum);
    UNROLL
    for (int i = 1; i < 8; i++) {
        sum = _mm512_add_epi16(sum, _mm512_maddubs_epi16(w[i % 4], x[i / 4]));
        CHANGE(sum);
    }
    return sum;
}

__attribute__((target("avx512bw"))) static void loop_avx512(uint64_t rounds)
{
    __m512i w[4], x[2], sums[4], ones = _mm512_set1_epi16(1);
    UNROLL
    for (int i = 0; i < 4; i++) w[i] = _mm512_set1_epi8((char)(i + 3));
    UNROLL
    for (int i = 0; i < 2; i++) x[i] = _mm512_set1_epi8((char)(i - 1));
    UNROLL
    for (int i = 0; i < 4; i++) sums[i] = _mm512_setzero_si512();
    for (uint64_t r = 0; r < rounds; r++) UNROLL
    for (int i = 0; i < 4; i++)
        sums[i] = _mm512_add_epi32(sums[i], _mm512_madd_epi16(eight_avx512(w, x), ones));
    UNROLL
    for (int i = 0; i < 4; i++) CHANGE(sums[i]);
}

enum { CHAINS = 12 };

__attribute__((target("avx512f,avx512vnni"))) static void loop_vnni(uint64_t rounds)
{
    __m512i w = _mm512_set1_epi8(3), x = _mm512_set1_epi8(-1), sums[CHAINS];
    UNROLL
    for (int i = 0; i < CHAINS; i++) sums[i] = _mm512_setzero_si512();
    for (uint64_t r = 0; r < rounds; r++) UNROLL
    for (int i = 0; i < CHAINS; i++) {
        sums[i] = _mm512_dpbusd_epi32(sums[i], w, x);
        CHANGE(sums[i]);
    }
}

__attribute__((target("avx2,avxvnni"))) static void loop_avxvnni(uint64_t rounds)
{
    __m256i w = _mm256_set1_epi8(3), x = _mm256_set1_epi8(-1), sums[CHAINS];
    UNROLL
    for (int i = 0; i < CHAINS; i++) sums[i] = _mm256_setzero_si256();
    for (uint64_t r = 0; r < rounds; r++) UNROLL
    for (int i = 0; i < CHAINS; i++) {
        sums[i] = _mm256_dpbusd_avx_epi32(sums[i], w, x);
        CHANGE_YMM(sums[i]);
    }
}

static void loop_sse2(uint64_t rounds)
{
    __m128i w = _mm_set1_epi16(3), sums[CHAINS];
    UNROLL
    for (int i = 0; i < CHAINS; i++) sums[i] = _mm_setzero_si128();
    for (uint64_t r = 0; r < rounds; r++) UNROLL
    for (int i = 0; i < CHAINS; i++) {
        CHANGE_YMM(w);
        sums[i] = _mm_add_epi32(sums[i], _mm_madd_epi16(w, w));
        CHANGE_YMM(sums[i]);
    }
}

/* Not every compiler knows this feature by name. */
static bool has_avxvnni(void)
{
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx2") && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1;
}

static struct loop best_loop(void)
{
    if (__builtin_cpu_supports("avx512vnni"))
        return (struct loop){"AVX-512 VNNI", loop_vnni, CHAINS * 64};
    if (__builtin_cpu_supports("avx512bw"))
        return (struct loop){"AVX-512, 4-bit codes", loop_avx512, 4 * 512};
    if (has_avxvnni()) return (struct loop){"AVX-VNNI", loop_avxvnni, CHAINS * 32};
    if (__builtin_cpu_supports("avx2"))
        return (struct loop){"AVX2, 4-bit codes", loop_avx2, 4 * 256};
    return (struct loop){"SSE2", loop_sse2, CHAINS * 8};
}
#elif defined(__aarch64__)
#include <arm_neon.h>
#include <sys/auxv.h>

#define CHANGE(x) __asm__ volatile("" : "+w"(x))
enum { CHAINS = 16, HAS_DOTPROD = 1 << 20, HAS_I8MM = 1 << 13 };

__attribute__((target("arch=armv8.2-a+i8mm"))) static void loop_i8mm(uint64_t rounds)
{
    int8x16_t w = vdupq_n_s8(3), x = vdupq_n_s8(-1);
    int32x4_t sums[CHAINS];
    UNROLL
    for (int i = 0; i < CHAINS; i++) sums[i] = vdupq_n_s32(0);
    for (uint64_t r = 0; r < rounds; r++) UNROLL
    for (int i = 0; i < CHAINS; i++) {
        sums[i] = vmmlaq_s32(sums[i], w, x);
        CHANGE(sums[i]);
    }
}

__attribute__((target("arch=armv8.2-a+dotprod"))) static void loop_dotprod(uint64_t rounds)
{
    int8x16_t w = vdupq_n_s8(3), x = vdupq_n_s8(-1);
    int32x4_t sums[CHAINS];
    UNROLL
    for (int i = 0; i < CHAINS; i++) sums[i] = vdupq_n_s32(0);
    for (uint64_t r = 0; r < rounds; r++) UNROLL
    for (int i = 0; i < CHAINS; i++) {
        sums[i] = vdotq_s32(sums[i], w, x);
        CHANGE(sums[i]);
    }
}

static void loop_neon(uint64_t rounds)
{
    int8x8_t w = vdup_n_s8(3), x = vdup_n_s8(-1);
    int32x4_t sums[CHAINS];
    UNROLL
    for (int i = 0; i < CHAINS; i++) sums[i] = vdupq_n_s32(0);
    for (uint64_t r = 0; r < rounds; r++) UNROLL
    for (int i = 0; i < CHAINS; i++) {
        CHANGE(w);
        sums[i] = vpadalq_s16(sums[i], vmlal_s8(vmull_s8(w, x), w, x));
        CHANGE(sums[i]);
    }
}

static struct loop best_loop(void)
{
    if (getauxval(AT_HWCAP2) & HAS_I8MM) return (struct loop){"i8mm", loop_i8mm, CHAINS * 32};
    if (getauxval(AT_HWCAP) & HAS_DOTPROD)
        return (struct loop){"dotprod", loop_dotprod, CHAINS * 16};
    return (struct loop){"NEON", loop_neon, CHAINS * 16};
}
#else
static void loop_plain(uint64_t rounds)
{
    uint32_t w = 3, sums[4] = {0};
    for (uint64_t r = 0; r < rounds; r++) UNROLL
    for (int i = 0; i < 4; i++) {
        sums[i] += w * w;
        __asm__ volatile("" : "+r"(sums[i]), "+r"(w));
    }
}

static struct loop best_loop(void)
{
    return (struct loop){"plain products", loop_plain, 4};
}
#endif

struct peak {
    struct loop loop;
    uint64_t rounds;
};

static void pass(void *user, uint32_t thread)
{
    (void)thread;
    const struct peak *p = user;
    p->loop.run(p->rounds);
}

enum sluice_status peak_measure(uint32_t n_threads, double *rate, const char **how,
                                struct sluice_error *err)
{
    struct peak p = {.loop = best_loop()};
    p.rounds = ((uint64_t)1 << 30) / p.loop.products;
    uint32_t n = n_threads < PASSES_MOST_THREADS ? n_threads : PASSES_MOST_THREADS;
    double values[PASSES];
    TRY(passes_time(n, pass, &p, values, err));
    for (int i = 0; i < PASSES; i++)
        values[i] = (double)n * (double)p.rounds * p.loop.products * 1e9 / values[i];
    *rate = spread_of(values, PASSES).high;
    *how = p.loop.how;
    return SLUICE_OK;
}
