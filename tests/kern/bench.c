/*
 * kerncheck --bench: every version of every kernel, at the sizes of real models, if its check
 * accepts it. A sample is one pass over the operands, or many where one is short; the median of the
 * samples is printed with the quartiles. Weights that must come from memory lie in a buffer much
 * larger than any cache, and samples of them take turns with a read of that buffer: what memory
 * gives changes from second to second on a shared machine, so a kernel stands beside the turn next
 * to it.
 */
#include <fnmatch.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

#include "bench.h"

enum { SAMPLES = 15, CACHED_ROWS = 512, MAX_TOKENS = 512, MAX_THREADS = 64 };
enum { PREFETCH = 4096, CACHED_PASSES = 32 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *room(size_t bytes)
{
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes) != 0) {
        perror("posix_memalign");
        exit(2);
    }
    madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

static void *run_job(void *job)
{
    const struct job *j = job;
    for (uint32_t i = 0; i < max_u32(j->passes, 1); i++) j->run(j);
    return NULL;
}

/* Splits [0, rows) over the threads in whole sixteens. Seconds of a pass. */
static double sample(const struct job *whole, uint32_t threads)
{
    pthread_t ids[MAX_THREADS];
    struct job jobs[MAX_THREADS];
    uint32_t rows = whole->row1, share = (uint32_t)align_up(div_up_u32(rows, threads), 16);
    double start = now();
    for (uint32_t i = 0; i < threads; i++) {
        jobs[i] = *whole;
        jobs[i].row0 = min_u32(rows, i * share);
        jobs[i].row1 = min_u32(rows, (i + 1) * share);
        if (whole->scratch)
            jobs[i].scratch = (uint8_t *)whole->scratch + i * matmul_scratch_bytes(COLS);
        if (i > 0 && pthread_create(&ids[i], NULL, run_job, &jobs[i]) != 0) exit(2);
    }
    run_job(&jobs[0]);
    for (uint32_t i = 1; i < threads; i++) pthread_join(ids[i], NULL);
    return (now() - start) / max_u32(whole->passes, 1);
}

/*
 * A chain of additions, which take a cycle each on every processor that the kernels know. Of a
 * register: some processors add constants while they rename.
 */
static double cycles_per_second(void)
{
    enum { STEPS = 1 << 14, EACH = 16 };
    uint64_t x = 0, one = 1;
    __asm__ volatile("" : "+r"(one));
    double start = now();
    for (int i = 0; i < STEPS; i++) {
#pragma GCC unroll 16
        for (int j = 0; j < EACH; j++) {
            x += one;
            __asm__ volatile("" : "+r"(x));
        }
    }
    return STEPS * EACH / (now() - start);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct result measure(const struct job *job, uint32_t threads)
{
    double times[SAMPLES];
    sample(job, threads);
    double before = cycles_per_second();
    for (int i = 0; i < SAMPLES; i++) times[i] = sample(job, threads);
    double after = cycles_per_second();
    qsort(times, SAMPLES, sizeof times[0], compare_doubles);
    return (struct result){.median = times[SAMPLES / 2],
                           .low = times[SAMPLES / 4],
                           .high = times[SAMPLES * 3 / 4],
                           .best = times[0],
                           .hz = fmax(before, after)};
}

void print_result(const struct bench_options *o, const char *name, const char *from, uint32_t n,
                  struct result r, double bytes, double operations)
{
    double gb = bytes / r.median * 1e-9, gop = operations / r.median * 1e-9;
    double spread = (r.high - r.low) / r.median * 100;
    if (o->json) {
        printf(
            "{\"name\": \"%s\", \"from\": \"%s\", \"n\": %u, \"threads\": %u, \"seconds\": %.9g, "
            "\"low\": %.9g, \"high\": %.9g, \"best\": %.9g, \"cycles\": %.6g, \"gb_per_s\": %.4g, "
            "\"gop_per_s\": %.4g",
            name, from, n, o->threads, r.median, r.low, r.high, r.best, r.median * r.hz, gb, gop);
        if (r.read > 0)
            printf(", \"read_gb_per_s\": %.4g, \"of_read\": %.4g", r.read * 1e-9, r.share);
        printf("}\n");
    } else {
        printf("%-32s %-6s n %3u  %10.2f us  +-%5.1f%%  %11.0f cycles  %7.2f GB/s  %8.2f GOP/s  "
               "best %7.2f GB/s",
               name, from, n, r.median * 1e6, spread, r.median * r.hz, gb, gop,
               bytes / r.best * 1e-9);
        if (r.read > 0) printf("  %5.1f %% of a read at %.2f GB/s", r.share * 100, r.read * 1e-9);
        printf("\n");
    }
    fflush(stdout);
}

static bool wanted(const struct bench_options *o, const char *name)
{
    for (int i = 0; i < o->n_globs; i++)
        if (fnmatch(o->globs[i], name, 0) == 0) return true;
    return o->n_globs == 0;
}

bool may_measure(const struct world *world, const struct kernels *k, const char *slot,
                 enum wtype type, const char *name)
{
    if (!wanted(world->options, name)) return false;
    if (kernel_accepted(slot, type, k, world->seed)) return true;
    fprintf(stderr, "kerncheck: %s is wrong and not measured\n", name);
    ++*world->n_wrong;
    return false;
}

/* Ways of reading memory; which of them is the fastest depends on the processor. */
enum { IN_ORDER, STREAMS, STREAMS_AHEAD, WAYS };
typedef uint64_t vector __attribute__((vector_size(16)));

/* The sum of `lines` lines of a cache as so many streams, fetched so many bytes ahead of each. */
static inline __attribute__((always_inline)) vector sum_lines(const vector *data, size_t lines,
                                                              size_t streams, size_t ahead)
{
    enum { LINE = 4 };
    vector sums[LINE] = {{0}};
    const size_t each = lines / streams;
    for (size_t i = 0; i < each; i++)
        for (size_t s = 0; s < streams; s++) {
            const vector *line = data + (s * each + i) * LINE;
            const uint8_t *next = (const uint8_t *)line + ahead;
            if (ahead && streams > 1)
                __builtin_prefetch(next, 0, 3);
            else if (ahead)
                __builtin_prefetch(next, 0, 2);
            for (size_t j = 0; j < LINE; j++) sums[j] += line[j];
        }
    return sums[0] + sums[1] + sums[2] + sums[3];
}

/* One pass over more than the caches hold; n: the way. */
static void run_read(const struct job *job)
{
    enum { MANY = 8, AHEAD_OF_STREAM = 512, LINE = 64 };
    const vector *data = (const void *)((const uint8_t *)job->operands + (size_t)job->row0 * LINE);
    const size_t lines = job->row1 - job->row0;
    vector sum;
    switch (job->n) {
    case IN_ORDER: sum = sum_lines(data, lines, 1, PREFETCH); break;
    case STREAMS: sum = sum_lines(data, lines, MANY, 0); break;
    default: sum = sum_lines(data, lines, MANY, AHEAD_OF_STREAM);
    }
    volatile uint64_t sink = sum[0] ^ sum[1];
    (void)sink;
}

static struct job reading_of(const uint8_t *memory, uint32_t way)
{
    return (struct job){.run = run_read, .operands = memory, .row1 = DRAM_BYTES / 64, .n = way};
}

/* Of the fastest way. */
static struct result measure_read(const uint8_t *memory, uint32_t threads)
{
    struct result best = {0};
    for (uint32_t way = 0; way < WAYS; way++) {
        const struct job reading = reading_of(memory, way);
        struct result r = measure(&reading, threads);
        if (way == 0 || r.median < best.median) best = r;
    }
    return best;
}

/* Bytes a second of the fastest way. */
static double best_read(const uint8_t *memory, uint32_t threads)
{
    double best = 0;
    for (uint32_t way = 0; way < WAYS; way++) {
        const struct job reading = reading_of(memory, way);
        best = fmax(best, DRAM_BYTES / sample(&reading, threads));
    }
    return best;
}

/* Of a kernel that goes over `bytes` of memory, in turns with reads of it. */
static struct result measure_beside_read(const struct job *job, const uint8_t *memory, double bytes,
                                         uint32_t threads)
{
    double times[SAMPLES], reads[SAMPLES], shares[SAMPLES];
    sample(job, threads);
    for (int i = 0; i < SAMPLES; i++) {
        reads[i] = best_read(memory, threads);
        times[i] = sample(job, threads);
        shares[i] = bytes / times[i] / reads[i];
    }
    double hz = cycles_per_second();
    qsort(times, SAMPLES, sizeof times[0], compare_doubles);
    qsort(reads, SAMPLES, sizeof reads[0], compare_doubles);
    qsort(shares, SAMPLES, sizeof shares[0], compare_doubles);
    return (struct result){.median = times[SAMPLES / 2],
                           .low = times[SAMPLES / 4],
                           .high = times[SAMPLES * 3 / 4],
                           .best = times[0],
                           .hz = hz,
                           .read = reads[SAMPLES / 2],
                           .share = shares[SAMPLES / 2]};
}

struct products {
    struct wmat w;
    const float *x;
    struct act8 act;
    float *y;
    uint32_t ldy;
};

static void run_matmul_f32(const struct job *job)
{
    const struct products *p = job->operands;
    job->k->matmul_f32[p->w.type](&p->w, job->row0, job->row1, p->x, COLS, job->n, p->y, p->ldy,
                                  job->scratch);
}

static void run_matmul_i8(const struct job *job)
{
    const struct products *p = job->operands;
    job->k->matmul_i8[p->w.type](&p->w, job->row0, job->row1, &p->act, 0, job->n, p->y, p->ldy,
                                 job->scratch);
}

static void run_matmul_bf16(const struct job *job)
{
    const struct products *p = job->operands;
    job->k->matmul_bf16[p->w.type](&p->w, job->row0, job->row1, p->x, COLS, job->n, p->y, p->ldy,
                                   job->scratch);
}

static void fill_memory(uint8_t *memory, struct rng *rng)
{
    for (size_t i = 0; i < DRAM_BYTES; i += 8) {
        /* No bf16 and no f32 of these is denormal, infinite or NaN. */
        uint64_t bits = (rng_u64(rng) & 0xbfffbfffbfffbfff) | 0x2000200020002000;
        memcpy(memory + i, &bits, sizeof bits);
    }
}

static struct world make_world(const struct bench_options *o, uint64_t seed, int *n_wrong)
{
    struct world w = {.options = o, .seed = seed, .n_wrong = n_wrong};
    struct rng rng = {seed};
    struct kernels k;
    size_t n = (size_t)MAX_TOKENS * COLS, scales = (size_t)DRAM_BYTES / 8;
    w.memory = room(DRAM_BYTES);
    w.bf16 = room(scales);
    w.e8m0 = room(scales);
    memset(w.e8m0, 121, scales);
    w.x = room(n * sizeof(float));
    w.y = room(((size_t)DRAM_BYTES / 512 + (size_t)(MAX_TOKENS + COLS) * CACHED_ROWS) *
               sizeof(float));
    w.act = (struct act8){COLS, room(n), room(n / 8), room(n / 8)};
    w.scratch = room(MAX_THREADS * matmul_scratch_bytes(COLS));
    fill_memory(w.memory, &rng);
    for (size_t i = 0; i < scales / 2; i++) {
        uint16_t h = f32_to_bf16(rng_float(&rng, -0.01f, 0.01f));
        memcpy(w.bf16 + 2 * i, &h, sizeof h);
    }
    for (size_t i = 0; i < n; i++) w.x[i] = gaussian(&rng);
    kernels_init(&k, cpu_detect());
    k.quantize_act8(w.x, (uint32_t)n, w.act.q, w.act.scale, w.act.sum);
    return w;
}

static void free_world(struct world *w)
{
    void *rooms[] = {w->memory, w->bf16,      w->e8m0,    w->x,      w->y,
                     w->act.q,  w->act.scale, w->act.sum, w->scratch};
    for (size_t i = 0; i < COUNT_OF(rooms); i++) free(rooms[i]);
}

struct case_of_product {
    void (*run)(const struct job *job);
    enum wtype type;
    bool from_memory;
    uint32_t n;
};

/* MXFP4's scales are bytes in between: powers of two near 1, as no random byte is. */
static void set_block_scales(const struct world *world, enum wtype type)
{
    for (size_t i = 0; type == WTYPE_MXFP4 && i < DRAM_BYTES; i += wtype_block_bytes(type))
        world->memory[i] = (uint8_t)(118 + i % 8);
}

static struct wmat matrix_of(const struct world *world, enum wtype type, uint32_t rows)
{
    return (struct wmat){.type = type,
                         .rows = rows,
                         .cols = COLS,
                         .group = 64,
                         .data = world->memory,
                         .scales = type == WTYPE_MXFP4_SPLIT ? world->e8m0 : world->bf16,
                         .biases = world->bf16};
}

static void bench_product(const struct world *world, const struct kernels *k, const char *name,
                          struct case_of_product c)
{
    size_t row = wtype_row_bytes(c.type, COLS);
    uint32_t rows = c.from_memory ? (uint32_t)(DRAM_BYTES / row) / 16 * 16 : CACHED_ROWS;
    struct products p = {.x = world->x, .act = world->act, .y = world->y, .ldy = rows};
    p.w = matrix_of(world, c.type, rows);
    set_block_scales(world, c.type);
    struct job job = {.run = c.run,
                      .k = k,
                      .operands = &p,
                      .row1 = rows,
                      .n = c.n,
                      .scratch = world->scratch,
                      .passes = c.from_memory || c.n > 1 ? 1 : CACHED_PASSES};
    const double bytes = (double)wmat_bytes(&p.w);
    const uint32_t threads = world->options->threads;
    struct result r = c.from_memory ? measure_beside_read(&job, world->memory, bytes, threads)
                                    : measure(&job, threads);
    print_result(world->options, name, c.from_memory ? "memory" : "cache", c.n, r, bytes,
                 2.0 * rows * COLS * c.n);
}

static void bench_matmul(const struct world *world, const struct kernels *k, const char *set,
                         const char *slot, enum wtype type, void (*run)(const struct job *job))
{
    static const uint16_t token_counts[] = {1, 8, 64, 512};
    char name[96];
    snprintf(name, sizeof name, "%s/%s %s", slot, wtype_name(type), set);
    if (!may_measure(world, k, slot, type, name)) return;
    bench_product(world, k, name, (struct case_of_product){run, type, true, 1});
    for (size_t i = 0; i < COUNT_OF(token_counts); i++)
        bench_product(world, k, name, (struct case_of_product){run, type, false, token_counts[i]});
}

void run_blocks_f16(const struct job *job)
{
    const struct world *w = job->operands;
    const size_t half = ATTENTION_BLOCK * KV_HEAD;
    const struct attention_query q = {w->x, SHARING, KV_HEAD, 1e-4f,
                                      (ptrdiff_t)(2 * half * sizeof(uint16_t))};
    struct softmax_state st[SHARING];
    float acc[SHARING * KV_HEAD] = {0};
    for (int h = 0; h < SHARING; h++) st[h] = (struct softmax_state){-INFINITY, 0};
    for (uint32_t i = job->row0; i < job->row1; i++) {
        const uint16_t *keys = (const uint16_t *)w->memory + i * 2 * half;
        job->k->attention_block_f16(&q, keys, keys + half, ATTENTION_BLOCK, st, acc);
    }
}

void run_blocks_f32(const struct job *job)
{
    const struct world *w = job->operands;
    const size_t half = ATTENTION_BLOCK * KV_HEAD;
    const struct attention_query q = {w->x, SHARING, KV_HEAD, 1e-4f,
                                      (ptrdiff_t)(2 * half * sizeof(float))};
    struct softmax_state st[SHARING];
    float acc[SHARING * KV_HEAD] = {0};
    for (int h = 0; h < SHARING; h++) st[h] = (struct softmax_state){-INFINITY, 0};
    for (uint32_t i = job->row0; i < job->row1; i++) {
        const float *keys = (const float *)w->memory + i * 2 * half;
        job->k->attention_block_f32(&q, keys, keys + half, ATTENTION_BLOCK, st, acc);
    }
}

static void bench_matmul_f32(const struct world *world, const struct kernels *k, const char *set,
                             enum wtype type)
{
    bench_matmul(world, k, set, "matmul_f32", type, run_matmul_f32);
}

static void bench_matmul_i8(const struct world *world, const struct kernels *k, const char *set,
                            enum wtype type)
{
    if (k->matmul_i8[type]) bench_matmul(world, k, set, "matmul_i8", type, run_matmul_i8);
}

static void bench_matmul_bf16(const struct world *world, const struct kernels *k, const char *set,
                              enum wtype type)
{
    if (k->matmul_bf16[type]) bench_matmul(world, k, set, "matmul_bf16", type, run_matmul_bf16);
}

static void run_matmul_t_f32(const struct job *job)
{
    const struct products *p = job->operands;
    job->k->matmul_t_f32[p->w.type](&p->w, job->row0, job->row1, p->x, CACHED_ROWS, job->n, p->y,
                                    p->ldy, job->scratch);
}

static void run_dequant_row(const struct job *job)
{
    const struct products *p = job->operands;
    for (uint32_t row = job->row0; row < job->row1; row++)
        job->k->dequant_row[p->w.type](&p->w, row, p->y + (size_t)row * COLS);
}

/* Of a matrix in cache, split over `rows` of it, or over its columns. */
static void bench_cached(const struct world *world, const struct kernels *k, const char *set,
                         const char *slot, enum wtype type, struct job job, double operations)
{
    char name[96];
    snprintf(name, sizeof name, "%s/%s %s", slot, wtype_name(type), set);
    if (!may_measure(world, k, slot, type, name)) return;
    struct products p = {.x = world->x, .act = world->act, .y = world->y, .ldy = COLS};
    p.w = matrix_of(world, type, CACHED_ROWS);
    set_block_scales(world, type);
    job.k = k;
    job.operands = &p;
    job.scratch = world->scratch;
    print_result(world->options, name, "cache", job.n, measure(&job, world->options->threads),
                 (double)wmat_bytes(&p.w), operations);
}

static void bench_matmul_t_f32(const struct world *world, const struct kernels *k, const char *set,
                               enum wtype type)
{
    const struct job job = {.run = run_matmul_t_f32, .row1 = COLS, .n = 1};
    bench_cached(world, k, set, "matmul_t_f32", type, job, 2.0 * CACHED_ROWS * COLS);
}

static void bench_dequant_row(const struct world *world, const struct kernels *k, const char *set,
                              enum wtype type)
{
    const struct job job = {.run = run_dequant_row, .row1 = CACHED_ROWS, .n = 1};
    bench_cached(world, k, set, "dequant_row", type, job, (double)CACHED_ROWS * COLS);
}

/* Query heads of one token over as many positions as the memory holds. */
static void bench_attention(const struct world *world, const struct kernels *k, const char *set)
{
    static const struct {
        const char *name;
        void (*run)(const struct job *job);
        uint32_t bytes; /* of a block */
    } formats[] = {{"attention_block_f16", run_blocks_f16, ATTENTION_BLOCK * KV_HEAD * 4},
                   {"attention_block_f32", run_blocks_f32, ATTENTION_BLOCK * KV_HEAD * 8}};
    for (size_t i = 0; i < COUNT_OF(formats); i++) {
        char name[96];
        snprintf(name, sizeof name, "%s %s", formats[i].name, set);
        if (!may_measure(world, k, formats[i].name, 0, name)) continue;
        uint32_t blocks = DRAM_BYTES / formats[i].bytes;
        const double bytes = (double)blocks * formats[i].bytes;
        struct job job = {formats[i].run, k, world, 0, blocks, 1, world->scratch, 1};
        print_result(world->options, name, "memory", 1,
                     measure_beside_read(&job, world->memory, bytes, world->options->threads),
                     bytes, (double)blocks * SHARING * ATTENTION_BLOCK * KV_HEAD * 4.0);
    }
}

/* How far int8 activations move the result of Gaussian rows. */
static void print_accuracy(const struct world *world, const struct kernels *k)
{
    enum { ROWS = 256, TOKENS = 16 };
    for (int type = WTYPE_Q2; type <= WTYPE_Q8; type++) {
        struct wmat w = matrix_of(world, (enum wtype)type, ROWS);
        uint8_t *biases = room((size_t)ROWS * COLS / 64 * 2);
        float *exact = room(sizeof(float) * ROWS * TOKENS);
        double error = 0, size = 0;
        for (size_t i = 0; i < (size_t)ROWS * COLS / 64; i++) {
            uint16_t h;
            memcpy(&h, world->bf16 + 2 * i, sizeof h);
            h = f32_to_bf16(bf16_to_f32(h) * -0.5f * (float)((1u << wtype_bits(w.type)) - 1));
            memcpy(biases + 2 * i, &h, sizeof h);
        }
        w.biases = biases;
        k->matmul_f32[type](&w, 0, ROWS, world->x, COLS, TOKENS, exact, ROWS, world->scratch);
        k->matmul_i8[type](&w, 0, ROWS, &world->act, 0, TOKENS, world->y, ROWS, world->scratch);
        for (size_t i = 0; i < (size_t)ROWS * TOKENS; i++) {
            double e = (double)world->y[i] - (double)exact[i];
            error += e * e;
            size += (double)exact[i] * (double)exact[i];
        }
        printf("# matmul_i8/%s: relative error %.2e against matmul_f32, Gaussian activations\n",
               wtype_name(w.type), sqrt(error / size));
        free(biases);
        free(exact);
    }
}

/* The machine's own name of its processor; "unknown" where it has none. */
static void processor_name(char *out, size_t cap)
{
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];
    snprintf(out, cap, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        const char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !value) continue;
        snprintf(out, cap, "%.*s", (int)strcspn(value + 2, "\n"), value + 2);
        break;
    }
    if (f) fclose(f);
    for (char *c = out; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < 0x20) *c = ' ';
}

static void print_machine(const struct bench_options *o, uint64_t seed)
{
    char name[128], sets[128];
    processor_name(name, sizeof name);
    cpu_describe(cpu_detect(), sets, sizeof sets);
    printf(o->json ? "{\"processor\": \"%s\", \"sets\": \"%s\", \"threads\": %u, \"seed\": %llu}\n"
                   : "# %s, %s, %u threads, seed %llu\n",
           name, sets, o->threads, (unsigned long long)seed);
}

static void bench_level(const struct world *world, const char *level, const struct kernels *k)
{
#define K(ret, name, params)
#define KW(ret, name, params)                                                                      \
    for (int type = 0; type < WTYPE_COUNT; type++) bench_##name(world, k, level, (enum wtype)type);
#include "kernel/kernel.def"
#undef K
#undef KW
    bench_rows(world, k, level);
    bench_attention(world, k, level);
}

int bench_run(const struct bench_options *options, uint64_t seed)
{
    static const char *const levels[] = {
        "scalar",
#define F(name, bit, text) text,
#include "kernel/cpu.def"
#undef F
    };
    int n_wrong = 0;
    struct world world = make_world(options, seed, &n_wrong);
    struct kernels last;
    kernels_init(&last, cpu_detect());
    print_machine(options, seed);
    if (!options->json) print_accuracy(&world, &last);
    print_result(options, "streaming read", "memory", 1,
                 measure_read(world.memory, options->threads), DRAM_BYTES, 0);
    struct kernels scalar, before = {0};
    kernels_init(&scalar, 0);
    for (size_t i = 0; i < COUNT_OF(levels); i++) {
        uint32_t features = cpu_detect();
        struct kernels k;
        cpu_mask(levels[i], &features);
        kernels_init(&k, features);
        bool is_new = memcmp(&k, &before, sizeof k) != 0 && memcmp(&k, &scalar, sizeof k) != 0;
        if (i > 0 && !is_new) continue; /* the level adds nothing here */
        before = k;
        bench_level(&world, levels[i], &k);
    }
    free_world(&world);
    return n_wrong;
}
