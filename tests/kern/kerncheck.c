#include <fnmatch.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include "kerncheck.h"

enum { MAX_SLOTS = 256, MAX_VERSIONS = 8, STACK_BYTES = 256 * 1024 };

static struct slot slots[MAX_SLOTS];
static size_t slot_count;

static void add_slot(const char *name, size_t offset, bool typed,
                     void (*check)(struct check *, const struct kernels *, enum wtype))
{
    for (int type = 0; type < (typed ? WTYPE_COUNT : 1); type++)
        slots[slot_count++] = (struct slot){.name = name,
                                            .offset = offset + (size_t)type * sizeof(any_kernel),
                                            .type = (enum wtype)type,
                                            .typed = typed,
                                            .check = check};
}

static void list_slots(void)
{
#define K(ret, name, params) add_slot(#name, offsetof(struct kernels, name), false, check_##name);
#define KW(ret, name, params) add_slot(#name, offsetof(struct kernels, name), true, check_##name);
#include "kernel/kernel.def"
#undef K
#undef KW
}

any_kernel slot_get(const struct kernels *k, const struct slot *s)
{
    any_kernel f;
    memcpy(&f, (const char *)k + s->offset, sizeof f);
    return f;
}

void slot_set(struct kernels *k, const struct slot *s, any_kernel f)
{
    memcpy((char *)k + s->offset, &f, sizeof f);
}

static sigjmp_buf escape;
static volatile sig_atomic_t checking;
static char failure[512];

_Noreturn void fail(struct check *c, const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    snprintf(failure, sizeof failure, "round %u: %s", c->round, text);
    siglongjmp(escape, 1);
}

/* The fault is synchronous and in a kernel, which holds no lock: formatting is safe enough here. */
static void on_fault(int sig, siginfo_t *info, void *context)
{
    (void)context;
    if (!checking) {
        signal(sig, SIG_DFL);
        return;
    }
    /* si_code tells a fault from a signal that someone sent. */
    if ((sig == SIGSEGV || sig == SIGBUS) && info->si_code > 0) {
        operands_describe(info->si_addr, failure, sizeof failure);
    } else {
        snprintf(failure, sizeof failure, "signal %d", sig);
    }
    siglongjmp(escape, 1);
}

static void catch_faults(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < COUNT_OF(signals); i++) sigaction(signals[i], &action, NULL);
}

/* True if the check of s accepts f; else failure says why not. */
static bool accepts(const struct slot *s, any_kernel f, const struct kernels *ref, uint64_t seed)
{
    struct kernels k = *ref;
    struct check c = {.rng = {seed}, .ref = ref};
    slot_set(&k, s, f);
    operands_reset(&c);
    failure[0] = '\0';
    if (sigsetjmp(escape, 1) == 0) {
        checking = 1;
        s->check(&c, &k, s->type);
        checking = 0;
        return true;
    }
    checking = 0;
    return false;
}

bool kernel_accepted(const char *name, enum wtype type, const struct kernels *k, uint64_t seed)
{
    struct kernels ref;
    kernels_init(&ref, 0);
    for (size_t i = 0; i < slot_count; i++) {
        const struct slot *s = &slots[i];
        if (strcmp(s->name, name) != 0 || (s->typed && s->type != type)) continue;
        if (accepts(s, slot_get(k, s), &ref, seed)) return true;
        fprintf(stderr, "kerncheck: %s\n", failure);
        return false;
    }
    return false;
}

struct version {
    any_kernel kernel;
    uint32_t features; /* the first set that chose it */
};

/* Every function that any subset of the features present puts into the slot. */
static size_t find_versions(const struct slot *s, uint32_t present, struct version *out)
{
    size_t n = 0;
    uint32_t features = 0;
    do {
        struct kernels k;
        size_t i = 0;
        kernels_init(&k, features);
        any_kernel f = slot_get(&k, s);
        while (i < n && out[i].kernel != f) i++;
        if (f && i == n && n < MAX_VERSIONS) out[n++] = (struct version){f, features};
        features = (features - present) & present;
    } while (features);
    return n;
}

static void version_name(const struct slot *s, uint32_t features, char *out, size_t cap)
{
    char set[128];
    cpu_describe(features, set, sizeof set);
    snprintf(out, cap, "%s%s%s %s", s->name, s->typed ? "/" : "",
             s->typed ? wtype_name(s->type) : "", set);
}

struct options {
    uint64_t seed;
    bool list, self_test, bench;
    struct bench_options bench_options;
    char **globs;
    int n_globs;
};

static bool wanted(const struct options *o, const char *name)
{
    for (int i = 0; i < o->n_globs; i++)
        if (fnmatch(o->globs[i], name, 0) == 0) return true;
    return o->n_globs == 0;
}

static int total, failed;

static void report(bool ok, const char *name)
{
    total++;
    if (!ok) failed++;
    printf("%s %d - %s\n", ok ? "ok" : "not ok", total, name);
    if (failure[0]) printf("# %s\n", failure);
    fflush(stdout);
}

static void check_versions(const struct options *o, const struct kernels *ref)
{
    for (size_t i = 0; i < slot_count; i++) {
        struct version versions[MAX_VERSIONS];
        size_t n = find_versions(&slots[i], cpu_detect(), versions);
        for (size_t v = 0; v < n; v++) {
            char name[192];
            version_name(&slots[i], versions[v].features, name, sizeof name);
            if (!wanted(o, name)) continue;
            if (o->list) {
                puts(name);
            } else {
                report(accepts(&slots[i], versions[v].kernel, ref, o->seed), name);
            }
        }
    }
}

static const struct slot *slot_of(const struct broken *b)
{
    for (size_t i = 0; i < slot_count; i++)
        if (strcmp(slots[i].name, b->slot) == 0 && (!slots[i].typed || slots[i].type == b->type))
            return &slots[i];
    fprintf(stderr, "kerncheck: no slot '%s'\n", b->slot);
    exit(2);
}

static void check_broken(const struct options *o, const struct kernels *ref,
                         const struct broken *broken, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s: %s is caught", broken[i].slot, broken[i].bug);
        if (!wanted(o, name)) continue;
        if (o->list) {
            puts(name);
        } else {
            bool caught = !accepts(slot_of(&broken[i]), broken[i].kernel, ref, o->seed);
            report(caught && fnmatch(broken[i].message, failure, 0) == 0, name);
        }
    }
}

/* --bench asks the same checks: a version with any of the bugs is not measured. */
static void check_refusal(const struct options *o, const struct kernels *ref)
{
    static const char name[] = "bench: a wrong kernel is refused, a right one is not";
    const struct broken *bug = &broken_rows[0];
    struct kernels k = *ref;
    if (o->list || !wanted(o, name)) return;
    bool right = kernel_accepted(bug->slot, bug->type, &k, o->seed);
    slot_set(&k, slot_of(bug), bug->kernel);
    report(right && !kernel_accepted(bug->slot, bug->type, &k, o->seed), name);
}

static const char usage[] =
    "usage: kerncheck [--seed N] [--list] [--self-test] [--bench [--threads N] [--json]] "
    "[GLOB...]\n"
    "Checks every version of every kernel whose name matches a glob (\"matmul_i8/q4 avx2\").\n"
    "  --seed N      the inputs; printed at the start of every run\n"
    "  --list        names only\n"
    "  --self-test   runs the checks on kernels with planted bugs: each must be caught\n"
    "  --bench       measures instead what its check accepts, beside the memory bandwidth\n";

static uint64_t number(const char *text)
{
    char *end;
    uint64_t n = strtoull(text ? text : "", &end, 0);
    if (!text || !*text || *end) {
        fputs(usage, stderr);
        exit(2);
    }
    return n;
}

static struct options parse(int argc, char **argv)
{
    struct options o = {.seed = (uint64_t)time(NULL), .bench_options = {.threads = 1}};
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--seed") == 0) {
            o.seed = number(argv[++i]);
        } else if (strcmp(argv[i], "--list") == 0) {
            o.list = true;
        } else if (strcmp(argv[i], "--self-test") == 0) {
            o.self_test = true;
        } else if (strcmp(argv[i], "--bench") == 0) {
            o.bench = true;
        } else if (strcmp(argv[i], "--json") == 0) {
            o.bench_options.json = true;
        } else if (strcmp(argv[i], "--threads") == 0) {
            o.bench_options.threads = (uint32_t)number(argv[++i]);
        } else {
            bool help = strcmp(argv[i], "--help") == 0;
            fputs(usage, help ? stdout : stderr);
            exit(help ? 0 : 2);
        }
    }
    o.globs = argv + i;
    o.bench_options.globs = argv + i;
    o.n_globs = o.bench_options.n_globs = argc - i;
    return o;
}

int main(int argc, char **argv)
{
    struct options o = parse(argc, argv);
    struct kernels ref;
    char present[128];
    list_slots();
    kernels_init(&ref, 0);
    if (o.bench) {
        catch_faults();
        return bench_run(&o.bench_options, o.seed) != 0;
    }
    if (!o.list) {
        cpu_describe(cpu_detect(), present, sizeof present);
        printf("# seed %llu, processor: %s\n", (unsigned long long)o.seed, present);
        catch_faults();
    }
    if (o.self_test) {
        check_broken(&o, &ref, broken_matmul, broken_matmul_count);
        check_broken(&o, &ref, broken_blocks, broken_blocks_count);
        check_broken(&o, &ref, broken_rows, broken_rows_count);
        check_broken(&o, &ref, broken_state, broken_state_count);
        check_broken(&o, &ref, broken_latent, broken_latent_count);
        check_refusal(&o, &ref);
    } else {
        check_versions(&o, &ref);
    }
    if (!o.list) printf("1..%d\n", total);
    if (failed)
        printf("# %d failed; --seed %llu repeats this run\n", failed, (unsigned long long)o.seed);
    return failed != 0;
}
