#include "bench_dram.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench_passes.h"
#include "bench_stats.h"
#include "report.h"

enum {
    STREAMS = 8,
    VECTOR = 64,
    AHEAD = 8, /* vectors */
    CACHES = 3,
    LEAST_BYTES = 256 << 20,
    LEAST_PASS = 64 << 20
};

typedef uint64_t vector __attribute__((vector_size(VECTOR)));
/* Reads n vectors, and may write them. */
typedef uint64_t pass_over_fn(vector *data, size_t n);

/*
 * The sum of n vectors, read as STREAMS streams: something the compiler cannot leave out. Some
 * processors read more when they are asked ahead, others less.
 */
static inline __attribute__((always_inline)) uint64_t sum_streams(const vector *data, size_t n,
                                                                  bool asks_ahead)
{
    vector sums[STREAMS] = {{0}};
    size_t length = n / STREAMS;
    /* Unrolled at any level of optimisation, or the sums would be stored and loaded each time. */
    for (size_t i = 0; i < length; i++)
#pragma GCC unroll 8
        for (size_t s = 0; s < STREAMS; s++) {
            const vector *at = data + s * length + i;
            if (asks_ahead) __builtin_prefetch(at + AHEAD);
            sums[s] += *at;
        }
    uint64_t total = 0;
    for (size_t s = 0; s < STREAMS; s++)
        for (size_t i = 0; i < VECTOR / sizeof(uint64_t); i++) total += sums[s][i];
    return total;
}

/* The second half becomes the first and something, so that nothing but this loop will do. */
static inline __attribute__((always_inline)) uint64_t copy_half(vector *data, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) data[n / 2 + i] = data[i] + 1;
    return 0;
}

enum pass { READ, READ_AHEAD, COPY, N_PASSES };

#define PASSES_OF(set, target)                                                                     \
    target static uint64_t read_##set(vector *data, size_t n)                                      \
    {                                                                                              \
        return sum_streams(data, n, false);                                                        \
    }                                                                                              \
    target static uint64_t read_ahead_##set(vector *data, size_t n)                                \
    {                                                                                              \
        return sum_streams(data, n, true);                                                         \
    }                                                                                              \
    target static uint64_t copy_##set(vector *data, size_t n)                                      \
    {                                                                                              \
        return copy_half(data, n);                                                                 \
    }                                                                                              \
    static pass_over_fn *const passes_##set[N_PASSES] = {read_##set, read_ahead_##set, copy_##set};

PASSES_OF(base, )
#if defined(__x86_64__)
PASSES_OF(avx2, __attribute__((target("avx2"))))
PASSES_OF(avx512, __attribute__((target("avx512f"))))

static pass_over_fn *widest(enum pass pass)
{
    if (__builtin_cpu_supports("avx512f")) return passes_avx512[pass];
    if (__builtin_cpu_supports("avx2")) return passes_avx2[pass];
    return passes_base[pass];
}
#else
static pass_over_fn *widest(enum pass pass)
{
    return passes_base[pass];
}
#endif

enum sluice_status dram_open(struct dram_probe *probe, uint32_t n_threads, uint64_t bytes,
                             struct sluice_error *err)
{
    *probe = (struct dram_probe){
        .n_threads = n_threads < PASSES_MOST_THREADS ? n_threads : PASSES_MOST_THREADS};
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    /* Of three times its size a cache keeps nothing until its turn comes again. */
    probe->bytes = cache > LEAST_BYTES / CACHES ? (size_t)cache * CACHES : (size_t)LEAST_BYTES;
    const size_t least = (size_t)probe->n_threads * STREAMS * VECTOR;
    probe->cached = bytes < probe->bytes;
    if (probe->cached) probe->bytes = bytes > least ? (size_t)bytes : least;
    void *data =
        mmap(NULL, probe->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return fail_nomem(err, "the memory to measure reading with");
    probe->data = data;
    (void)madvise(data, probe->bytes, MADV_HUGEPAGE);
    memset(data, 1, probe->bytes);
    return SLUICE_OK;
}

void dram_close(struct dram_probe *probe)
{
    if (probe->data) munmap(probe->data, probe->bytes);
    *probe = (struct dram_probe){0};
}

struct reading {
    pass_over_fn *pass;
    vector *data;
    size_t share;   /* vectors of a thread */
    size_t repeats; /* in a pass, for passes that are long enough to be timed */
    _Atomic uint64_t total;
};

static void read_share(void *user, uint32_t thread)
{
    struct reading *r = user;
    for (size_t i = 0; i < r->repeats; i++)
        r->total += r->pass(r->data + thread * r->share, r->share);
}

static enum sluice_status measure(const struct dram_probe *probe, enum pass pass, double *rate,
                                  struct sluice_error *err)
{
    uint32_t n = probe->n_threads;
    struct reading r = {.pass = widest(pass),
                        .data = (vector *)(void *)probe->data,
                        .share = probe->bytes / n / (VECTOR * STREAMS) * STREAMS,
                        .repeats = 1 + LEAST_PASS / probe->bytes};
    double values[PASSES];
    TRY(passes_time(n, read_share, &r, values, err));
    for (int i = 0; i < PASSES; i++)
        values[i] = (double)(r.repeats * r.share * n * VECTOR) * 1e9 / values[i];
    *rate = spread_of(values, PASSES).high;
    return SLUICE_OK;
}

enum sluice_status dram_measure(const struct dram_probe *probe, double *rate,
                                struct sluice_error *err)
{
    double ahead;
    TRY(measure(probe, READ, rate, err));
    TRY(measure(probe, READ_AHEAD, &ahead, err));
    if (ahead > *rate) *rate = ahead;
    return SLUICE_OK;
}

enum sluice_status dram_measure_copy(const struct dram_probe *probe, double *rate,
                                     struct sluice_error *err)
{
    return measure(probe, COPY, rate, err);
}
