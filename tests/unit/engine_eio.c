/*
 * A drive that fails: the k-th read of a running engine ends with EIO, for every k up to 200. No
 * token is made from a missing expert, and the session goes on with the same bits.
 */
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/bits.h"
#include "engine_run.h"

static const char storyteller[] = "models/storyteller";
enum { TOKENS = 40, READS = 200 };

static struct sluice_error err;
static atomic_int left; /* reads until one fails; 0: none does */

/* What pread is called where offsets have 64 bits. */
ssize_t __real_pread64(int fd, void *into, size_t bytes, off_t offset);
ssize_t __wrap_pread64(int fd, void *into, size_t bytes, off_t offset);

ssize_t __wrap_pread64(int fd, void *into, size_t bytes, off_t offset)
{
    /* Trying what a file allows is no read of weights; it happens beside these, and may fail. */
    if (offset == 0) return __real_pread64(fd, into, bytes, offset);
    int now = atomic_load(&left);
    while (now > 0 && !atomic_compare_exchange_weak(&left, &now, now - 1)) {
    }
    if (now != 1) return __real_pread64(fd, into, bytes, offset);
    errno = EIO;
    return -1;
}

static struct sluice_engine_options pread_options(void)
{
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    o.io = SLUICE_IO_PREAD;
    o.n_slots = 4;
    return o;
}

/* The failed call says what it could not read, and has done nothing. */
static void expect_failure(const struct prompt *p, const sluice_session *session, size_t at,
                           const float *row)
{
    CHECK(err.code == SLUICE_E_IO && strncmp(err.message, "layer ", 6) == 0, "%s", err.message);
    CHECK(strstr(err.message, ", expert ") && strstr(err.message, "safetensors' at offset ") &&
              strstr(err.message, "Input/output error"),
          "%s", err.message);
    CHECK(sluice_session_position(session) == at);
    for (uint32_t i = 0; i < p->vocab; i++)
        if (row[i] != 0) CHECK(false, "logits without an expert");
}

struct walk {
    const struct prompt *p;
    sluice_engine *engine;
    sluice_session *session;
    float *logits;
    uint32_t n_failed, n_rounds;
};

/* All tokens have been there: the bits are compared, and another session begins. */
static void begin_again(struct walk *w)
{
    CHECK(first_difference(w->p, w->logits) == w->p->n);
    memset(w->logits, 0, w->p->n * w->p->vocab * sizeof *w->logits);
    sluice_session_close(&w->session);
    w->session = run_session(w->engine);
    w->n_rounds++;
}

/* Token after token until the k-th read from here fails; that token is then taken again. */
static void fail_kth_read(struct walk *w, int k)
{
    enum sluice_status status = SLUICE_OK;
    atomic_store(&left, k);
    while (status == SLUICE_OK && !check_failures) {
        size_t at = sluice_session_position(w->session);
        if (at == w->p->n) begin_again(w);
        at %= w->p->n;
        float *row = w->logits + at * w->p->vocab;
        status = prompt_eval(w->p, w->engine, w->session, at, 1, row, &err);
        if (status == SLUICE_OK) continue;
        w->n_failed++;
        expect_failure(w->p, w->session, at, row);
        CHECK(atomic_load(&left) == 0);
        CHECK_OK(prompt_eval(w->p, w->engine, w->session, at, 1, row, &err));
    }
}

static void test_kth_read_fails(void)
{
    struct prompt p = prompt_mapped(storyteller, TOKENS, 11);
    struct sluice_engine_options o = pread_options();
    struct walk w = {.p = &p, .engine = run_engine(storyteller, &o)};
    w.session = run_session(w.engine);
    w.logits = must(calloc(p.n * p.vocab, sizeof *w.logits));
    int step = is_instrumented() ? 7 : 1;
    uint32_t n = 0;
    for (int k = 1; k <= READS && !check_failures; k += step, n++) fail_kth_read(&w, k);
    CHECK(w.n_failed == n && (w.n_rounds > 0 || step > 1), "%u of %u reads failed, %u rounds",
          w.n_failed, n, w.n_rounds);
    atomic_store(&left, 0);
    free(w.logits);
    sluice_session_close(&w.session);
    sluice_engine_close(&w.engine);
    prompt_release(&p);
}

static void test_dense_read_fails(void)
{
    struct sluice_engine_options o = pread_options();
    sluice_engine *engine;
    uint32_t n_failed = 0;
    for (int k = 5; k <= 65; k += 4) {
        atomic_store(&left, k);
        enum sluice_status status = sluice_engine_open(&engine, storyteller, &o, &err);
        if (status == SLUICE_OK) {
            sluice_engine_close(&engine);
            continue;
        }
        n_failed++;
        CHECK(status == SLUICE_E_IO && !engine);
        CHECK(strncmp(err.message, "tensor '", 8) == 0 &&
                  strstr(err.message, "': reading file '") && strstr(err.message, "at offset ") &&
                  strstr(err.message, "Input/output error"),
              "%s", err.message);
    }
    CHECK(n_failed == 16, "%u", n_failed);
    atomic_store(&left, 0);
}

#define CASES(C)                                                                                   \
    C(kth_read_fails)                                                                              \
    C(dense_read_fails)
CHECK_MAIN(CASES)
