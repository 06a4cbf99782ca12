/*
 * Streaming in the engine: no way to hold or read experts changes a bit of the storyteller's
 * logits; files that vanish and come back; the memory plan holds.
 */
#include <sys/mman.h>
#include <sys/wait.h>

#include "base/bits.h"
#include "engine_run.h"
#include "tempdir.h"

static const char storyteller[] = "models/storyteller";
static const char *const shards[] = {"model-00001-of-00002.safetensors",
                                     "model-00002-of-00002.safetensors"};
static const char *const small_files[] = {"config.json", "model.safetensors.index.json"};

enum { PREFILL = 24, TOKENS = 36 };

static struct sluice_error err;

static struct sluice_engine_info info_of(const sluice_engine *engine)
{
    struct sluice_engine_info info = {.size = sizeof info};
    sluice_engine_get_info(engine, &info);
    return info;
}

static struct sluice_stats stats_of(const sluice_engine *engine)
{
    struct sluice_stats stats = {.size = sizeof stats};
    sluice_engine_get_stats(engine, &stats);
    return stats;
}

/* Ids from at on: what is left of the prefill in one call, then token by token. */
static void run_from(const struct prompt *p, sluice_engine *engine, sluice_session *session,
                     size_t at, float *logits)
{
    while (at < p->n && !check_failures) {
        size_t n = at < PREFILL ? min_size(PREFILL, p->n) - at : 1;
        CHECK_OK(prompt_eval(p, engine, session, at, n, logits + at * p->vocab, &err));
        at += n;
    }
}

static void expect_same(const struct prompt *p, const float *logits, const char *what)
{
    size_t row = first_difference(p, logits);
    CHECK(row == p->n, "%s: other bits from token %zu on", what, row);
}

/* The logits with all experts mapped. */
static struct prompt make_reference(enum sluice_precision precision)
{
    struct sluice_engine_options o = run_options(precision, 2);
    o.io = SLUICE_IO_MMAP;
    sluice_engine *engine = run_engine(storyteller, &o);
    sluice_session *session = run_session(engine);
    struct prompt p = prompt_make(run_vocab(engine), TOKENS, 3);
    run_from(&p, engine, session, 0, p.logits);
    CHECK(info_of(engine).mapped && stats_of(engine).bytes_read == 0);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    return p;
}

struct config {
    uint32_t slots, depth, threads;
    enum sluice_io io;
    enum sluice_policy policy;
    bool preload;
    enum sluice_prefetch prefetch;
};

static const struct config configs[] = {
    {1, 0, 1, SLUICE_IO_AUTO, SLUICE_POLICY_LRU, false, SLUICE_PREFETCH_LAST},
    {1, 1, 4, SLUICE_IO_PREAD, SLUICE_POLICY_AUTO, false, SLUICE_PREFETCH_ROUTER},
    {4, 4, 2, SLUICE_IO_AUTO, SLUICE_POLICY_LFU, false, SLUICE_PREFETCH_AUTO},
    {4, 64, 1, SLUICE_IO_PREAD, SLUICE_POLICY_LFUDA, true, SLUICE_PREFETCH_LAST},
    {8, 64, 4, SLUICE_IO_AUTO, SLUICE_POLICY_AUTO, false, SLUICE_PREFETCH_ROUTER},
    {8, 4, 2, SLUICE_IO_PREAD, SLUICE_POLICY_LRU, false, SLUICE_PREFETCH_OFF},
    {16, 1, 2, SLUICE_IO_AUTO, SLUICE_POLICY_LFUDA, true, SLUICE_PREFETCH_ROUTER},
    {16, 0, 1, SLUICE_IO_PREAD, SLUICE_POLICY_LFU, false, SLUICE_PREFETCH_LAST},
    {64, 4, 4, SLUICE_IO_AUTO, SLUICE_POLICY_AUTO, true, SLUICE_PREFETCH_AUTO},
    {64, 64, 2, SLUICE_IO_PREAD, SLUICE_POLICY_AUTO, false, SLUICE_PREFETCH_ROUTER},
    {256, 0, 2, SLUICE_IO_AUTO, SLUICE_POLICY_AUTO, false, SLUICE_PREFETCH_LAST},
    {256, 1, 1, SLUICE_IO_PREAD, SLUICE_POLICY_LRU, true, SLUICE_PREFETCH_ROUTER},
    {0, 0, 2, SLUICE_IO_AUTO, SLUICE_POLICY_AUTO, false, SLUICE_PREFETCH_OFF},
    {0, 64, 4, SLUICE_IO_PREAD, SLUICE_POLICY_LFU, true, SLUICE_PREFETCH_AUTO},
    {4, 0, 2, SLUICE_IO_AUTO, SLUICE_POLICY_AUTO, false, SLUICE_PREFETCH_ROUTER},
    {8, 8, 1, SLUICE_IO_PREAD, SLUICE_POLICY_AUTO, false, SLUICE_PREFETCH_ROUTER},
    {8, 0, 4, SLUICE_IO_AUTO, SLUICE_POLICY_LRU, false, SLUICE_PREFETCH_LAST},
    {16, 64, 4, SLUICE_IO_PREAD, SLUICE_POLICY_AUTO, false, SLUICE_PREFETCH_ROUTER},
    {16, 0, 2, SLUICE_IO_AUTO, SLUICE_POLICY_AUTO, false, SLUICE_PREFETCH_LAST},
    {32, 1, 2, SLUICE_IO_AUTO, SLUICE_POLICY_LFU, false, SLUICE_PREFETCH_AUTO},
    {64, 0, 1, SLUICE_IO_AUTO, SLUICE_POLICY_LRU, false, SLUICE_PREFETCH_OFF},
    {64, 0, 4, SLUICE_IO_AUTO, SLUICE_POLICY_LRU, false, SLUICE_PREFETCH_ROUTER},
    {64, 8, 2, SLUICE_IO_PREAD, SLUICE_POLICY_LFUDA, true, SLUICE_PREFETCH_LAST},
    {128, 0, 2, SLUICE_IO_AUTO, SLUICE_POLICY_LFU, false, SLUICE_PREFETCH_ROUTER},
};

static struct sluice_engine_options options_of(const struct config *c,
                                               enum sluice_precision precision)
{
    struct sluice_engine_options o = run_options(precision, c->threads);
    o.n_slots = c->slots;
    o.queue_depth = c->depth;
    o.io = c->io;
    o.policy = c->policy;
    o.preload = c->preload;
    o.prefetch = c->prefetch;
    return o;
}

static void run_config(const struct prompt *p, uint32_t i, enum sluice_precision precision)
{
    const struct config *c = &configs[i];
    char what[32];
    snprintf(what, sizeof what, "%s, row %u", precision == SLUICE_EXACT ? "exact" : "fast", i);
    struct sluice_engine_options o = options_of(c, precision);
    sluice_engine *engine = run_engine(storyteller, &o);
    sluice_session *session = run_session(engine);
    float *logits = must(calloc(TOKENS * p->vocab, sizeof *logits));
    run_from(p, engine, session, 0, logits);
    expect_same(p, logits, what);
    struct sluice_stats stats = stats_of(engine);
    struct sluice_engine_info info = info_of(engine);
    bool whole = c->slots == 256 || c->slots == 0;
    CHECK(stats.expert_hits + stats.expert_misses == stats.expert_uses);
    CHECK(whole ? info.n_slots == 256 : info.n_slots < 256, "%u slots", info.n_slots);
    CHECK(c->slots == 0 || info.n_slots == c->slots);
    CHECK(stats.bytes_read > 0 && info.slot_bytes > 0);
    if (whole && c->preload) CHECK(stats.expert_misses == 0);
    if (whole) CHECK(stats.expert_misses <= 256);
    uint64_t ahead = stats.prefetch_useful + stats.prefetch_late;
    CHECK(c->prefetch || stats.prefetch_predicted == 0);
    CHECK(stats.prefetch_right <= stats.prefetch_predicted);
    CHECK(stats.prefetch_useful <= stats.prefetch_read);
    if (c->prefetch == SLUICE_PREFETCH_ROUTER) {
        CHECK(stats.prefetch_right > stats.prefetch_predicted / 2);
        if (c->slots == 64 && !c->preload) CHECK(ahead > 10, "%" PRIu64 " of use", ahead);
    }
    if (c->slots == 1) CHECK(stats.expert_hits < stats.expert_misses);
    CHECK(c->io == SLUICE_IO_AUTO || strcmp(info.io_engine, "pread") == 0, "%s", info.io_engine);
    free(logits);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
}

static void run_configs(enum sluice_precision precision)
{
    struct prompt p = make_reference(precision);
    /* The store does not know the precision: every second row has every kind of everything. */
    uint32_t step = precision == SLUICE_EXACT ? 2 : 1;
    if (is_instrumented()) step = 3;
    for (uint32_t i = 0; i < COUNT_OF(configs); i += step) run_config(&p, i, precision);
    prompt_release(&p);
}

static void test_same_bits_fast(void)
{
    run_configs(SLUICE_FAST);
}

static void test_same_bits_exact(void)
{
    run_configs(SLUICE_EXACT);
}

/* A copy of the model whose shards can be cut and made whole again. */
struct copy {
    struct tempdir dir;
    char *data[COUNT_OF(shards)];
    size_t len[COUNT_OF(shards)];
    struct timespec written; /* all of them */
};

static char *read_whole(const char *name, size_t *len)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", storyteller, name);
    FILE *f = must(fopen(path, "rb"));
    CHECK(fseek(f, 0, SEEK_END) == 0);
    *len = (size_t)ftell(f);
    rewind(f);
    char *data = must(malloc(*len + 1));
    CHECK(fread(data, 1, *len, f) == *len);
    fclose(f);
    return data;
}

static void restore(const struct copy *c)
{
    for (uint32_t s = 0; s < COUNT_OF(shards); s++) {
        CHECK(tempdir_write(&c->dir, shards[s], c->data[s], c->len[s]));
        CHECK(tempdir_set_time(tempdir_path(&c->dir, shards[s]), c->written));
    }
}

static void cut(const struct copy *c, size_t len)
{
    for (uint32_t s = 0; s < COUNT_OF(shards); s++)
        CHECK(truncate(tempdir_path(&c->dir, shards[s]), (off_t)len) == 0);
}

static bool copy_make(struct copy *c)
{
    if (!tempdir_make(&c->dir)) return false;
    for (uint32_t i = 0; i < COUNT_OF(small_files); i++) {
        size_t len;
        char *data = read_whole(small_files[i], &len);
        CHECK(tempdir_write(&c->dir, small_files[i], data, len));
        free(data);
    }
    for (uint32_t s = 0; s < COUNT_OF(shards); s++) c->data[s] = read_whole(shards[s], &c->len[s]);
    c->written = (struct timespec){.tv_sec = 1000000000};
    restore(c);
    return true;
}

static void copy_release(struct copy *c)
{
    for (uint32_t s = 0; s < COUNT_OF(shards); s++) free(c->data[s]);
    tempdir_remove(&c->dir);
}

/* A call that fails for want of its file, and leaves the session where it was. */
static void expect_io_error(const struct prompt *p, sluice_engine *engine, sluice_session *session,
                            size_t at, size_t n)
{
    float *logits = must(calloc(n * p->vocab, sizeof *logits));
    CHECK(prompt_eval(p, engine, session, at, n, logits, &err) == SLUICE_E_IO, "%s", err.message);
    CHECK(err.code == SLUICE_E_IO && strncmp(err.message, "layer ", 6) == 0, "%s", err.message);
    CHECK(strstr(err.message, ", expert ") && strstr(err.message, "safetensors' at offset ") &&
              strstr(err.message, "shorter than when it was opened"),
          "%s", err.message);
    CHECK(sluice_session_position(session) == at);
    size_t touched = 0;
    for (size_t i = 0; i < n * p->vocab; i++) touched += logits[i] != 0;
    CHECK(touched == 0, "logits without experts");
    free(logits);
}

/* The shards are cut before token k, for two calls; then the same session goes on. */
static void run_through_cut(const struct copy *c, const struct prompt *p, size_t k, uint32_t round)
{
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1u << round % 3);
    o.n_slots = 1 + round % 4;
    o.io = round % 2 ? SLUICE_IO_PREAD : SLUICE_IO_AUTO;
    o.queue_depth = 1 + round;
    sluice_engine *engine = run_engine(c->dir.path, &o);
    sluice_session *session = run_session(engine);
    float *logits = must(calloc(TOKENS * p->vocab, sizeof *logits));
    if (k) CHECK_OK(prompt_eval(p, engine, session, 0, k, logits, &err));
    cut(c, 4096 * (round % 3) + round);
    expect_io_error(p, engine, session, k, 1);
    expect_io_error(p, engine, session, k, TOKENS - k < 9 ? TOKENS - k : 9);
    restore(c);
    run_from(p, engine, session, k, logits);
    expect_same(p, logits, "after the files came back");
    CHECK(sluice_session_position(session) == TOKENS);
    free(logits);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
}

/* A prompt that needs nearly every expert of a layer has the next layer's read ahead. */
static void test_prompt_reads_on(void)
{
    enum { LONG = 72, SLOTS = 96 };
    struct prompt p = prompt_mapped(storyteller, LONG, 5);
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    o.n_slots = SLOTS;
    sluice_engine *engine = run_engine(storyteller, &o);
    sluice_session *session = run_session(engine);
    float *logits = must(calloc((size_t)LONG * p.vocab, sizeof *logits));
    CHECK_OK(prompt_eval(&p, engine, session, 0, LONG - 4, logits, &err));
    struct sluice_stats prompt = stats_of(engine);
    uint64_t ahead = prompt.prefetch_useful + prompt.prefetch_late;
    CHECK(ahead > 0 && prompt.prefetch_right > prompt.prefetch_predicted / 2);
    for (size_t t = LONG - 4; t < LONG; t++)
        CHECK_OK(prompt_eval(&p, engine, session, t, 1, logits + t * p.vocab, &err));
    expect_same(&p, logits, "a long prompt");
    CHECK(stats_of(engine).prefetch_predicted == prompt.prefetch_predicted);
    free(logits);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    prompt_release(&p);
}

/* Mapped files that were cut are not touched: the call says so and the session goes on later. */
static void test_mapped_and_cut(void)
{
    struct copy c;
    REQUIRE(copy_make(&c));
    struct prompt p = make_reference(SLUICE_FAST);
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    o.io = SLUICE_IO_MMAP;
    sluice_engine *engine = run_engine(c.dir.path, &o);
    sluice_session *session = run_session(engine);
    float *logits = must(calloc(TOKENS * p.vocab, sizeof *logits));
    CHECK_OK(prompt_eval(&p, engine, session, 0, PREFILL, logits, &err));
    cut(&c, 4096);
    CHECK(prompt_eval(&p, engine, session, PREFILL, 2, logits, &err) == SLUICE_E_IO);
    CHECK(strstr(err.message, shards[0]) && strstr(err.message, "shorter than when it was opened"),
          "%s", err.message);
    CHECK(sluice_session_position(session) == PREFILL);
    free(logits);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    prompt_release(&p);
    copy_release(&c);
}

static void test_cut_and_restored(void)
{
    static const size_t at[] = {0, 1, PREFILL - 1, PREFILL, TOKENS - 1};
    struct copy c;
    REQUIRE(copy_make(&c));
    struct prompt p = make_reference(SLUICE_FAST);
    uint32_t step = is_instrumented() ? 2 : 1;
    for (uint32_t i = 0; i < COUNT_OF(at); i += step) run_through_cut(&c, &p, at[i], i);
    prompt_release(&p);
    copy_release(&c);
}

struct cutter {
    const struct copy *copy;
    size_t at;
};

static void cut_later(void *user, size_t done, size_t total)
{
    const struct cutter *c = user;
    (void)total;
    if (done == c->at) cut(c->copy, 0);
}

/* Cut in the middle of a call: the session holds the pieces that were done, and goes on from there.
 */
static void test_cut_within_a_call(void)
{
    enum { CHUNK = 5, DONE = 10 };
    struct copy c;
    REQUIRE(copy_make(&c));
    struct prompt p = make_reference(SLUICE_FAST);
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    struct sluice_eval_options e;
    o.n_slots = 8;
    sluice_engine *engine = run_engine(c.dir.path, &o);
    sluice_session *session = run_session(engine);
    float *logits = must(calloc(TOKENS * p.vocab, sizeof *logits));
    struct cutter cutter = {&c, DONE};
    sluice_eval_options_default(&e);
    e.chunk = CHUNK;
    e.progress = cut_later;
    e.user = &cutter;
    struct sluice_segment all = prompt_segment(&p, session, 0, TOKENS);
    CHECK(sluice_eval(engine, &all, 1, &e, logits, &err) == SLUICE_E_IO, "%s", err.message);
    CHECK(sluice_session_position(session) == DONE);
    restore(&c);
    run_from(&p, engine, session, DONE, logits);
    expect_same(&p, logits, "after a call that was cut");
    free(logits);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    prompt_release(&p);
    copy_release(&c);
}

/* Other weights written over an open file: no token is made of them. */
static void test_overwritten_shard(void)
{
    struct copy c;
    REQUIRE(copy_make(&c));
    struct prompt p = make_reference(SLUICE_FAST);
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    o.n_slots = 4;
    sluice_engine *engine = run_engine(c.dir.path, &o);
    sluice_session *session = run_session(engine);
    float *logits = must(calloc(TOKENS * p.vocab, sizeof *logits));
    CHECK_OK(prompt_eval(&p, engine, session, 0, 7, logits, &err));
    for (uint32_t s = 0; s < COUNT_OF(shards); s++) {
        FILE *f = must(fopen(tempdir_path(&c.dir, shards[s]), "r+b"));
        for (size_t i = 0; i < c.len[s]; i++) CHECK(fputc(0x11, f) == 0x11);
        CHECK(fclose(f) == 0);
    }
    CHECK(prompt_eval(&p, engine, session, 7, 1, logits, &err) == SLUICE_E_IO, "%s", err.message);
    CHECK(strncmp(err.message, "layer ", 6) == 0 &&
              strstr(err.message, ": the file was written to since it was opened"),
          "%s", err.message);
    restore(&c);
    run_from(&p, engine, session, 7, logits);
    expect_same(&p, logits, "after the file was as before");
    free(logits);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    prompt_release(&p);
    copy_release(&c);
}

/* Another model's file under the name of an open one: the engine reads on from its own. */
static void count_warnings(void *user, enum sluice_log_level level, const char *message)
{
    uint32_t *n = user;
    *n += level == SLUICE_LOG_WARNING && strstr(message, "was replaced or deleted") != NULL;
}

static void test_replaced_shard(void)
{
    struct copy c;
    REQUIRE(copy_make(&c));
    struct prompt p = make_reference(SLUICE_FAST);
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    uint32_t n_told = 0;
    o.n_slots = 4;
    o.log = count_warnings;
    o.log_user = &n_told;
    sluice_engine *engine = run_engine(c.dir.path, &o);
    sluice_session *session = run_session(engine);
    float *logits = must(calloc(TOKENS * p.vocab, sizeof *logits));
    CHECK_OK(prompt_eval(&p, engine, session, 0, 7, logits, &err));
    CHECK(n_told == 0);
    memset(c.data[0], 0x11, c.len[0]);
    CHECK(tempdir_write(&c.dir, "new", c.data[0], c.len[0]));
    CHECK(rename(tempdir_path(&c.dir, "new"), tempdir_path(&c.dir, shards[0])) == 0);
    CHECK(remove(tempdir_path(&c.dir, shards[1])) == 0);
    run_from(&p, engine, session, 7, logits);
    expect_same(&p, logits, "after another file took the name");
    CHECK(n_told == 1, "told %u times", n_told);
    free(logits);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    prompt_release(&p);
    copy_release(&c);
}

/* The memory plan. Each engine gets a process of its own, so that nothing is left of another. */
struct plan_run {
    const char *model;
    struct sluice_engine_options options;
    enum sluice_status status;
    struct sluice_error err;
    uint64_t plan, smallest, peak;
    uint32_t n_slots;
    bool same;
};

static uint64_t peak_rss(void)
{
    char line[256];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %llu", &kib) == 1) break;
    if (f) fclose(f);
    return (uint64_t)kib * 1024;
}

static void run_plan(struct plan_run *r, const struct prompt *p)
{
    sluice_engine *engine;
    r->status = sluice_engine_open(&engine, r->model, &r->options, &r->err);
    if (r->status != SLUICE_OK) return;
    struct sluice_engine_info info = info_of(engine);
    r->plan = info.plan_bytes;
    r->smallest = info.smallest_plan_bytes;
    r->n_slots = info.n_slots;
    sluice_session *session = run_session_of(engine, r->options.plan_ctx);
    float *logits = must(calloc(p->n * p->vocab, sizeof *logits));
    run_from(p, engine, session, 0, logits);
    r->same = first_difference(p, logits) == p->n;
    r->peak = peak_rss();
    free(logits);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
}

/* Runs in a child; what it finds comes back in memory that both see. */
static struct plan_run plan_of(const char *model, const struct sluice_engine_options *o,
                               const struct prompt *p)
{
    struct plan_run *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) abort();
    *shared = (struct plan_run){.model = model, .options = *o, .status = SLUICE_E_INTERNAL};
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        check_failures = 0;
        run_plan(shared, p);
        fflush(stdout);
        _exit(check_failures ? 1 : 0);
    }
    int status = -1;
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0, "child ended with %x",
          (unsigned)status);
    struct plan_run r = *shared;
    munmap(shared, sizeof *shared);
    return r;
}

static struct sluice_engine_options plan_options(uint32_t threads)
{
    struct sluice_engine_options o = run_options(SLUICE_FAST, threads);
    o.plan_ctx = 256;
    return o;
}

/* The figure in "the smallest budget that works is 12.3 MiB". */
static double budget_in(const char *message)
{
    double mib = 0;
    const char *at = strstr(message, "the smallest budget that works is ");
    if (!at || sscanf(at + 34, "%lf MiB", &mib) != 1) mib = 0;
    return mib;
}

/* A refusal names a budget that works, and the plan's own figure works too. */
static void test_smallest_budget(void)
{
    if (is_instrumented()) SKIP(INSTRUMENTED);
    struct prompt p = make_reference(SLUICE_FAST);
    for (uint32_t threads = 1; threads <= 4; threads *= 2) {
        struct sluice_engine_options o = plan_options(threads);
        struct plan_run any = plan_of(storyteller, &o, &p);
        CHECK(any.status == SLUICE_OK && any.smallest > 1 << 20 && any.same, "%s", any.err.message);
        for (uint32_t again = 0; again < 3; again++) {
            o.ram_bytes = any.smallest;
            struct plan_run least = plan_of(storyteller, &o, &p);
            CHECK(least.status == SLUICE_OK && least.same && least.n_slots >= 1, "%s",
                  least.err.message);
        }
        o.ram_bytes = any.smallest / 2;
        struct plan_run refused = plan_of(storyteller, &o, &p);
        CHECK(refused.status == SLUICE_E_BUDGET, "%s", refused.err.message);
        double mib = budget_in(refused.err.message);
        CHECK(mib > 1, "%s", refused.err.message);
        o.ram_bytes = (uint64_t)(mib * 1048576);
        struct plan_run named = plan_of(storyteller, &o, &p);
        CHECK(named.status == SLUICE_OK && named.same, "%s", named.err.message);
    }
    prompt_release(&p);
}

static void keep_budget(enum sluice_precision precision)
{
    static const uint32_t more_mib[] = {0, 1, 3, 5, 8, 12, 40};
    if (is_instrumented()) SKIP(INSTRUMENTED);
    struct prompt p = make_reference(precision);
    struct sluice_engine_options o = plan_options(2);
    o.precision = precision;
    uint64_t smallest = plan_of(storyteller, &o, &p).smallest, slots = 0;
    for (uint32_t i = 0; i < COUNT_OF(more_mib); i++) {
        o.preload = i % 2;
        o.ram_bytes = smallest + ((uint64_t)more_mib[i] << 20);
        struct plan_run r = plan_of(storyteller, &o, &p);
        uint64_t margin = r.plan * 3 / 100 > 16 << 20 ? r.plan * 3 / 100 : 16 << 20;
        printf("# budget %.1f MiB, plan %.1f, peak %.1f, %u slots\n", (double)o.ram_bytes / 1048576,
               (double)r.plan / 1048576, (double)r.peak / 1048576, r.n_slots);
        CHECK(r.status == SLUICE_OK && r.same, "%s", r.err.message);
        CHECK(r.plan <= o.ram_bytes && r.peak > 0 && r.peak <= r.plan + margin);
        CHECK(r.n_slots >= slots);
        slots = r.n_slots;
    }
    CHECK(slots == 256);
    prompt_release(&p);
}

/* What was planned is also used, once experts have filled the slots. */
static void test_budget_is_used(void)
{
    if (is_instrumented()) SKIP(INSTRUMENTED);
    struct prompt p = make_reference(SLUICE_FAST);
    struct sluice_engine_options o = plan_options(2);
    o.max_batch_tokens = PREFILL;
    o.max_logit_rows = 1;
    o.plan_ctx = TOKENS;
    o.preload = true;
    for (uint32_t i = 0; i < 2; i++) {
        o.ram_bytes = plan_of(storyteller, &o, &p).smallest + ((uint64_t)8 << 20) * i;
        struct plan_run r = plan_of(storyteller, &o, &p);
        printf("# plan %.1f MiB, peak %.1f\n", (double)r.plan / 1048576, (double)r.peak / 1048576);
        CHECK(r.status == SLUICE_OK && r.same, "%s", r.err.message);
        CHECK(r.peak >= r.plan - r.plan / 10);
    }
    prompt_release(&p);
}

static void test_budget_is_kept_fast(void)
{
    keep_budget(SLUICE_FAST);
}

static void test_budget_is_kept_exact(void)
{
    keep_budget(SLUICE_EXACT);
}

/* Slots that were asked for and a budget that has no room for them. */
static void test_slots_against_budget(void)
{
    if (is_instrumented()) SKIP(INSTRUMENTED);
    struct prompt p = make_reference(SLUICE_FAST);
    struct sluice_engine_options o = plan_options(1);
    uint64_t smallest = plan_of(storyteller, &o, &p).smallest;
    o.n_slots = 256;
    o.ram_bytes = smallest + (1 << 20);
    struct plan_run refused = plan_of(storyteller, &o, &p);
    CHECK(refused.status == SLUICE_E_BUDGET, "%s", refused.err.message);
    o.ram_bytes = (uint64_t)(budget_in(refused.err.message) * 1048576);
    struct plan_run named = plan_of(storyteller, &o, &p);
    CHECK(named.status == SLUICE_OK && named.n_slots == 256, "%s", named.err.message);
    prompt_release(&p);
}

static void test_mapped_advice(void)
{
    struct prompt p = make_reference(SLUICE_FAST);
    float *logits = must(calloc(p.n * p.vocab, sizeof *logits));
    for (int advice = SLUICE_MMAP_RANDOM; advice <= SLUICE_MMAP_WILLNEED; advice++) {
        struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
        o.io = SLUICE_IO_MMAP;
        o.mmap_advice = (enum sluice_mmap_advice)advice;
        sluice_engine *engine = run_engine(storyteller, &o);
        sluice_session *session = run_session(engine);
        run_from(&p, engine, session, 0, logits);
        expect_same(&p, logits, advice == SLUICE_MMAP_RANDOM ? "random" : "willneed");
        sluice_session_close(&session);
        sluice_engine_close(&engine);
    }
    free(logits);
    prompt_release(&p);
}

static void test_mixed_sizes(void)
{
    static const char model[] = "tests/reference/mlx-mixed";
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    o.io = SLUICE_IO_MMAP;
    sluice_engine *engine = run_engine(model, &o);
    struct prompt p = prompt_make(run_vocab(engine), 20, 5);
    prompt_run(&p, engine);
    sluice_engine_close(&engine);
    for (uint32_t slots = 1; slots < 40; slots += 7) {
        float *logits = must(calloc(p.n * p.vocab, sizeof *logits));
        o = run_options(SLUICE_FAST, 2);
        o.n_slots = slots;
        engine = run_engine(model, &o);
        sluice_session *session = run_session(engine);
        CHECK_OK(prompt_eval(&p, engine, session, 0, p.n, logits, &err));
        expect_same(&p, logits, "experts of several sizes");
        sluice_session_close(&session);
        sluice_engine_close(&engine);
        free(logits);
    }
    o = run_options(SLUICE_FAST, 1);
    o.ram_bytes = plan_of(model, &o, &p).smallest;
    struct plan_run least = plan_of(model, &o, &p);
    if (!is_instrumented()) CHECK(least.status == SLUICE_OK && least.same, "%s", least.err.message);
    prompt_release(&p);
}

static void expect_refused(struct sluice_engine_options o, enum sluice_status status,
                           const char *says)
{
    sluice_engine *engine;
    err.message[0] = '\0';
    CHECK(sluice_engine_open(&engine, storyteller, &o, &err) == status && !engine);
    CHECK(strstr(err.message, says), "%s", err.message);
}

static void test_refused_options(void)
{
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    o.io = SLUICE_IO_MMAP;
    o.n_slots = 4;
    expect_refused(o, SLUICE_E_ARGUMENT, "mapped experts have no slots");
    o.n_slots = 0;
    o.ram_bytes = 1 << 30;
    expect_refused(o, SLUICE_E_ARGUMENT, "and no budget");
    o.ram_bytes = 0;
    o.preload = true;
    expect_refused(o, SLUICE_E_ARGUMENT, "mapped experts");
    o.preload = false;
    o.prefetch = SLUICE_PREFETCH_LAST;
    expect_refused(o, SLUICE_E_ARGUMENT, "mapped experts cannot be read ahead");
    o.prefetch = SLUICE_PREFETCH_ROUTER;
    expect_refused(o, SLUICE_E_ARGUMENT, "mapped experts cannot be read ahead");
    o.prefetch = (enum sluice_prefetch)4;
    expect_refused(o, SLUICE_E_ARGUMENT, "prefetch 4 is unknown");
    o = run_options(SLUICE_FAST, 1);
    o.mmap_advice = (enum sluice_mmap_advice)3;
    expect_refused(o, SLUICE_E_ARGUMENT, "advice 3 is unknown");
    o.mmap_advice = SLUICE_MMAP_RANDOM;
    expect_refused(o, SLUICE_E_ARGUMENT, "experts are not mapped");
    o = run_options(SLUICE_FAST, 1);
    o.ram_bytes = 1;
    expect_refused(o, SLUICE_E_BUDGET, "0.0 MiB of memory are too few");
}

#define CASES(C)                                                                                   \
    C(same_bits_fast)                                                                              \
    C(same_bits_exact)                                                                             \
    C(mapped_advice)                                                                               \
    C(prompt_reads_on)                                                                             \
    C(mapped_and_cut)                                                                              \
    C(cut_and_restored)                                                                            \
    C(cut_within_a_call)                                                                           \
    C(overwritten_shard)                                                                           \
    C(replaced_shard)                                                                              \
    C(smallest_budget)                                                                             \
    C(budget_is_used)                                                                              \
    C(budget_is_kept_fast)                                                                         \
    C(budget_is_kept_exact)                                                                        \
    C(slots_against_budget)                                                                        \
    C(mixed_sizes)                                                                                 \
    C(refused_options)

CHECK_MAIN(CASES)
