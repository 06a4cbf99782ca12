/*
 * Memory and system calls. This program is linked with --wrap for the calls below, so that they can
 * be counted, and the k-th of them made to fail. Evaluating a token allocates nothing and enters
 * the kernel only to wake or wait; every failure while opening or evaluating is a clean error.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine_run.h"

static atomic_bool armed;
static atomic_long calls, fail_at;

/* One more call; true: it is to fail. */
static bool fails_now(void)
{
    return atomic_load(&armed) && atomic_fetch_add(&calls, 1) == atomic_load(&fail_at);
}

static void arm(long k)
{
    atomic_store(&calls, 0);
    atomic_store(&fail_at, k);
    atomic_store(&armed, true);
}

static long disarm(void)
{
    atomic_store(&armed, false);
    return atomic_load(&calls);
}

#define WRAP(ret, name, params, args, failure)                                                     \
    ret __real_##name params;                                                                      \
    ret __wrap_##name params;                                                                      \
    ret __wrap_##name params                                                                       \
    {                                                                                              \
        return fails_now() ? (errno = ENOMEM, failure) : __real_##name args;                       \
    }
WRAP(void *, malloc, (size_t n), (n), NULL)
WRAP(void *, calloc, (size_t n, size_t size), (n, size), NULL)
WRAP(void *, realloc, (void *p, size_t n), (p, n), NULL)
WRAP(void *, aligned_alloc, (size_t align, size_t n), (align, n), NULL)
WRAP(char *, strdup, (const char *text), (text), NULL)
WRAP(void *, mmap, (void *at, size_t n, int prot, int flags, int fd, off_t off),
     (at, n, prot, flags, fd, off), MAP_FAILED)
WRAP(int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg),
     (thread, attr, fn, arg), EAGAIN)

/* A few tokens at once, then decode steps: everything that grows has grown. */
static void warm_up(sluice_engine *engine, sluice_session *session, struct prompt *p)
{
    struct sluice_error err = {0};
    CHECK_OK(prompt_eval(p, engine, session, 0, 20, p->logits, &err));
    for (size_t t = 20; t < 24; t++)
        CHECK_OK(prompt_eval(p, engine, session, t, 1, p->logits, &err));
}

static void check_decode(enum sluice_precision precision, uint32_t threads, enum sluice_io io)
{
    struct sluice_error err = {0};
    struct sluice_engine_options o = run_options(precision, threads);
    o.io = io;
    sluice_engine *engine = run_engine(packed_model, &o);
    sluice_session *session = run_session(engine);
    struct prompt p = prompt_make(run_vocab(engine), 200, 1);
    warm_up(engine, session, &p);
    arm(-1);
    for (size_t t = 24; t < 200 && err.code == SLUICE_OK; t++)
        (void)prompt_eval(&p, engine, session, t, 1, p.logits, &err);
    long n = disarm();
    CHECK(err.code == SLUICE_OK, "%s", err.message);
    CHECK(n == 0, "%ld allocations, %u threads, io %d", n, threads, (int)io);
    prompt_release(&p);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
}

static void test_decoding_allocates_nothing(void)
{
    for (int io = SLUICE_IO_AUTO; io <= SLUICE_IO_MMAP; io++) {
        if (io == SLUICE_IO_URING) continue;
        check_decode(SLUICE_EXACT, 1, (enum sluice_io)io);
        check_decode(SLUICE_FAST, 1, (enum sluice_io)io);
        check_decode(SLUICE_FAST, 2, (enum sluice_io)io);
    }
}

/* Two sessions decoding, after one call of that many segments. */
static void test_batches_allocate_nothing(void)
{
    struct sluice_error err = {0};
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    sluice_engine *engine = run_engine(packed_model, &o);
    sluice_session *a = run_session(engine), *b = run_session(engine);
    struct prompt p = prompt_make(run_vocab(engine), 100, 1);
    warm_up(engine, a, &p);
    warm_up(engine, b, &p);
    for (size_t t = 24; t < 90 && err.code == SLUICE_OK; t += 5) {
        struct sluice_segment segments[] = {prompt_segment(&p, a, t, 5),
                                            prompt_segment(&p, b, t, 1)};
        CHECK_OK(sluice_eval(engine, segments, 2, NULL, p.logits, &err));
        if (t == 24) arm(-1);
    }
    long n = disarm();
    CHECK(err.code == SLUICE_OK, "%s", err.message);
    CHECK(n == 0, "%ld allocations", n);
    prompt_release(&p);
    sluice_session_close(&a);
    sluice_session_close(&b);
    sluice_engine_close(&engine);
}

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#else
#define THIS_ARCH AUDIT_ARCH_AARCH64
#endif

#define ALLOW(name)                                                                                \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1),                                         \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/*
 * From here on, in all threads: what a thread that waits does (futex, and it offers its core); the
 * clock where it is no plain function; the way out.
 */
static bool forbid_system_calls(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(futex),
        ALLOW(sched_yield),
        ALLOW(clock_gettime),
        ALLOW(exit_group),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}

enum { ENDED_WELL = 0, COULD_NOT_TRY = 77, FAILED = 1 };

/* In a process of its own. intruder: makes a system call that must end it. */
static int decode_confined(uint32_t threads, enum sluice_io io, bool intruder)
{
    struct sluice_error err = {0};
    struct sluice_engine_options o = run_options(SLUICE_FAST, threads);
    o.io = io;
    sluice_engine *engine = run_engine(packed_model, &o);
    sluice_session *session = run_session(engine);
    struct prompt p = prompt_make(run_vocab(engine), 180, 1);
    for (size_t t = 0; t < 140; t++)
        if (prompt_eval(&p, engine, session, t, 1, p.logits, &err) != SLUICE_OK) return FAILED;
    if (!forbid_system_calls()) return COULD_NOT_TRY;
    for (size_t t = 140; t < 180; t++)
        if (prompt_eval(&p, engine, session, t, 1, p.logits, &err) != SLUICE_OK) return FAILED;
    if (intruder) (void)getppid();
    return ENDED_WELL;
}

static int confined(uint32_t threads, enum sluice_io io, bool intruder)
{
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int result = decode_confined(threads, io, intruder);
        syscall(SYS_exit_group, result);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) return COULD_NOT_TRY;
    return status;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#elif defined(__has_feature)
enum { SANITIZED = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) };
#else
enum { SANITIZED = 0 };
#endif

static void test_decoding_stays_out_of_the_kernel(void)
{
    if (SANITIZED) SKIP("the sanitizer makes system calls of its own");
    int caught = confined(1, SLUICE_IO_MMAP, true);
    if (WIFEXITED(caught) && WEXITSTATUS(caught) == COULD_NOT_TRY)
        SKIP("this system does not filter system calls");
    CHECK(WIFSIGNALED(caught) && WTERMSIG(caught) == SIGSYS, "%x", caught);
    static const enum sluice_io io[] = {SLUICE_IO_MMAP, SLUICE_IO_AUTO};
    for (int i = 0; i < 2; i++)
        for (uint32_t threads = 1; threads <= 2; threads++) {
            int status = confined(threads, io[i], false);
            CHECK(status == 0, "%u threads, io %d: status %x", threads, (int)io[i], status);
        }
}

/*
 * Fails the k-th call for k = 0, 1, 2, ... until there is none. The scenario may succeed where it
 * can do without what it asked for.
 */
#define SWEEP(what, code_)                                                                         \
    do {                                                                                           \
        long k = 0, failed = 0;                                                                    \
        for (long n = 1; n >= k && k < 100000; k++) {                                              \
            struct sluice_error err = {0};                                                         \
            arm(k);                                                                                \
            enum sluice_status status = (what);                                                    \
            n = disarm();                                                                          \
            failed += status != SLUICE_OK;                                                         \
            CHECK(status == SLUICE_OK || n > k, "call %ld: %s", k, err.message);                   \
            CHECK(status == err.code && (status == SLUICE_OK) == !err.message[0],                  \
                  "call %ld: %d, %d, %s", k, (int)status, (int)err.code, err.message);             \
            CHECK(status == SLUICE_OK || code_, "call %ld: %d, %s", k, (int)status, err.message);  \
        }                                                                                          \
        CHECK(failed > 1 && 2 * failed > k, "%ld of %ld calls", failed, k);                        \
    } while (0)

static bool is_resource(enum sluice_status status)
{
    return status == SLUICE_E_NOMEM || status == SLUICE_E_SYSTEM || status == SLUICE_E_IO;
}

static enum sluice_status open_and_close(const char *path, const struct sluice_engine_options *o,
                                         struct sluice_error *err)
{
    sluice_engine *engine;
    enum sluice_status status = sluice_engine_open(&engine, path, o, err);
    CHECK((engine != NULL) == (status == SLUICE_OK));
    sluice_engine_close(&engine);
    return status;
}

static void sweep_open(const char *path, enum sluice_io io)
{
    struct sluice_engine_options o = run_options(SLUICE_FAST, 3);
    o.io = io;
    SWEEP(open_and_close(path, &o, &err), is_resource(status));
}

static void test_opening_runs_out_of_memory(void)
{
    sweep_open(packed_model, SLUICE_IO_MMAP);
    sweep_open(packed_model, SLUICE_IO_PREAD);
    sweep_open("tests/reference/sharded", SLUICE_IO_MMAP);
}

static enum sluice_status open_session(sluice_engine *engine, struct sluice_error *err)
{
    sluice_session *session;
    enum sluice_status status = sluice_session_open(&session, engine, NULL, err);
    CHECK((session != NULL) == (status == SLUICE_OK));
    sluice_session_close(&session);
    return status;
}

static void test_sessions_run_out_of_memory(void)
{
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    sluice_engine *engine = run_engine(packed_model, &o);
    SWEEP(open_session(engine, &err), status == SLUICE_E_NOMEM);
    sluice_engine_close(&engine);
}

/* Failed calls leave the session where it was; the one that succeeds has the right bits. */
static void test_evaluating_runs_out_of_memory(void)
{
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    sluice_engine *other = run_engine(packed_model, &o);
    struct prompt want = prompt_make(run_vocab(other), 5, 1);
    prompt_run(&want, other);
    sluice_engine_close(&other);
    sluice_engine *engine = run_engine(packed_model, &o);
    sluice_session *session = run_session(engine);
    float *logits = must(calloc(5 * want.vocab, sizeof *logits));
    SWEEP(sluice_session_position(session) == 0
              ? prompt_eval(&want, engine, session, 0, 5, logits, &err)
              : SLUICE_E_INTERNAL,
          status == SLUICE_E_NOMEM);
    CHECK(sluice_session_position(session) == 5 && first_difference(&want, logits) == 5);
    free(logits);
    prompt_release(&want);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
}

#define CASES(C)                                                                                   \
    C(decoding_allocates_nothing)                                                                  \
    C(batches_allocate_nothing)                                                                    \
    C(decoding_stays_out_of_the_kernel)                                                            \
    C(opening_runs_out_of_memory)                                                                  \
    C(sessions_run_out_of_memory)                                                                  \
    C(evaluating_runs_out_of_memory)

CHECK_MAIN(CASES)
