#include "bench_dram.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench_stats.h"
#include "clock.h"
#include "report.h"

enum { PASSES = 15, STREAMS = 8, VECTOR = 64, LEAST_BYTES = 512 << 20, MOST_THREADS = 1024 };

typedef uint64_t vector __attribute__((vector_size(VECTOR)));
typedef uint64_t sum_fn(const vector *data, size_t n);

/* The sum of n vectors, read as STREAMS streams: something the compiler cannot leave out. */
static inline __attribute__((always_inline)) uint64_t sum_streams(const vector *data, size_t n)
{
    vector sums[STREAMS] = {{0}};
    size_t length = n / STREAMS;
    /* Unrolled at any level of optimisation, or the sums would be stored and loaded each time. */
    for (size_t i = 0; i < length; i++)
#pragma GCC unroll 8
        for (size_t s = 0; s < STREAMS; s++) sums[s] += data[s * length + i];
    uint64_t total = 0;
    for (size_t s = 0; s < STREAMS; s++)
        for (size_t i = 0; i < VECTOR / sizeof(uint64_t); i++) total += sums[s][i];
    return total;
}

static uint64_t sum_base(const vector *data, size_t n)
{
    return sum_streams(data, n);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t sum_avx2(const vector *data, size_t n)
{
    return sum_streams(data, n);
}

__attribute__((target("avx512f"))) static uint64_t sum_avx512(const vector *data, size_t n)
{
    return sum_streams(data, n);
}

static sum_fn *widest_sum(void)
{
    if (__builtin_cpu_supports("avx512f")) return sum_avx512;
    return __builtin_cpu_supports("avx2") ? sum_avx2 : sum_base;
}
#else
static sum_fn *widest_sum(void)
{
    return sum_base;
}
#endif

enum sluice_status dram_open(struct dram_probe *probe, uint32_t n_threads, struct sluice_error *err)
{
    *probe = (struct dram_probe){.n_threads = n_threads < MOST_THREADS ? n_threads : MOST_THREADS};
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    probe->bytes = cache > LEAST_BYTES / 8 ? (size_t)cache * 8 : (size_t)LEAST_BYTES;
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

/* Threads wait for go, which says whether all of them could be started. */
struct start {
    pthread_mutex_t gate; /* held until then */
    bool go;
};

struct reader {
    pthread_t thread;
    struct start *start;
    pthread_barrier_t *barrier;
    sum_fn *sum;
    const vector *data;
    size_t n;
    uint64_t total;
};

static void *read_part(void *user)
{
    struct reader *r = user;
    pthread_mutex_lock(&r->start->gate);
    bool go = r->start->go;
    pthread_mutex_unlock(&r->start->gate);
    for (int pass = 0; go && pass <= PASSES; pass++) {
        pthread_barrier_wait(r->barrier);
        if (pass < PASSES) r->total += r->sum(r->data, r->n);
    }
    return NULL;
}

/* The caller is the first reader and takes the times. */
static void time_passes(struct reader *first, size_t bytes, double *rates)
{
    uint64_t began = 0;
    for (int pass = 0; pass <= PASSES; pass++) {
        pthread_barrier_wait(first->barrier);
        uint64_t now = clock_ns();
        if (pass) rates[pass - 1] = (double)bytes * 1e9 / (double)(now - began);
        began = now;
        if (pass < PASSES) first->total += first->sum(first->data, first->n);
    }
}

enum sluice_status dram_measure(const struct dram_probe *probe, double *rate,
                                struct sluice_error *err)
{
    uint32_t n = probe->n_threads;
    struct reader *readers = calloc(n, sizeof *readers);
    if (!readers) return fail_nomem(err, "threads that read");
    struct start start = {.gate = PTHREAD_MUTEX_INITIALIZER};
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, n);
    size_t share = probe->bytes / n / (VECTOR * STREAMS) * STREAMS; /* vectors */
    uint32_t started = 1;
    for (uint32_t i = 0; i < n; i++)
        readers[i] = (struct reader){.start = &start,
                                     .barrier = &barrier,
                                     .sum = widest_sum(),
                                     .data = (const vector *)(const void *)probe->data + i * share,
                                     .n = share};
    pthread_mutex_lock(&start.gate);
    while (started < n &&
           pthread_create(&readers[started].thread, NULL, read_part, &readers[started]) == 0)
        started++;
    start.go = started == n;
    pthread_mutex_unlock(&start.gate);
    double rates[PASSES];
    if (start.go) time_passes(readers, share * n * VECTOR, rates);
    for (uint32_t i = 1; i < started; i++) pthread_join(readers[i].thread, NULL);
    pthread_barrier_destroy(&barrier);
    free(readers);
    if (started < n) return fail(err, SLUICE_E_SYSTEM, "%u threads cannot be started", n);
    *rate = spread_of(rates, PASSES).median;
    return SLUICE_OK;
}
