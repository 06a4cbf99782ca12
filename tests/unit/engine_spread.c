/*
 * Memory on machines with several nodes: which ranges are spread over which of them. System calls
 * and the list of nodes are made up (-Wl,--wrap), as few machines that run tests have two.
 */
#include <errno.h>
#include <linux/mempolicy.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"
#include "check.h"
#include "engine/internal.h"
#include "store/store_parts.h"

enum { MOST_BINDS = 64 };

struct bind {
    const void *p;
    unsigned long bytes;
    int mode;
    unsigned long mask, n_bits;
    unsigned flags;
    size_t n_touched; /* pages that had memory by then */
};

/* What the made-up system says, and what it was asked for. */
static struct {
    uint64_t nodes; /* 0: those that there are */
    int policy, policy_errno, bind_errno;
    size_t n_gets, n_binds;
    struct bind binds[MOST_BINDS];
} fake;

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
enum sluice_status __real_processors_here(struct processors *out, struct sluice_error *err);
enum sluice_status __wrap_processors_here(struct processors *out, struct sluice_error *err);

enum sluice_status __wrap_processors_here(struct processors *out, struct sluice_error *err)
{
    enum sluice_status status = __real_processors_here(out, err);
    if (status == SLUICE_OK && fake.nodes) out->nodes = fake.nodes;
    return status;
}

static size_t pages_touched(void *p, size_t bytes)
{
    size_t n = (bytes + 4095) / 4096, touched = 0;
    unsigned char *resident = calloc(n, 1);
    if (!resident || mincore(p, bytes, resident) != 0) abort();
    for (size_t i = 0; i < n; i++) touched += resident[i] & 1;
    free(resident);
    return touched;
}

static long fail_with(int error)
{
    errno = error;
    return error ? -1 : 0;
}

long __wrap_syscall(long number, ...)
{
    va_list args;
    long word[6];
    va_start(args, number);
    for (int i = 0; i < 6; i++) word[i] = va_arg(args, long);
    va_end(args);
    if (number == SYS_get_mempolicy) {
        fake.n_gets++;
        *(int *)word[0] = fake.policy; // NOLINT(performance-no-int-to-ptr)
        return fail_with(fake.policy_errno);
    }
    if (number != SYS_mbind)
        return __real_syscall(number, word[0], word[1], word[2], word[3], word[4], word[5]);
    if (fake.n_binds == MOST_BINDS) abort();
    void *p = (void *)word[0];                            // NOLINT(performance-no-int-to-ptr)
    const unsigned long *mask = (unsigned long *)word[3]; // NOLINT(performance-no-int-to-ptr)
    fake.binds[fake.n_binds++] = (struct bind){.p = p,
                                               .bytes = (unsigned long)word[1],
                                               .mode = (int)word[2],
                                               .mask = *mask,
                                               .n_bits = (unsigned long)word[4],
                                               .flags = (unsigned)word[5],
                                               .n_touched = pages_touched(p, (size_t)word[1])};
    return fail_with(fake.bind_errno);
}

static void fake_reset(uint64_t nodes)
{
    memset(&fake, 0, sizeof fake);
    fake.nodes = nodes;
    fake.policy = MPOL_DEFAULT;
}

/* The kernel takes off a bit of what it is told, so one more covers all of the mask. */
static void check_bind(const struct bind *b, const void *p, size_t bytes, uint64_t nodes)
{
    CHECK(b->p == p && b->bytes == bytes, "%p %lu", b->p, b->bytes);
    CHECK(b->mode == MPOL_INTERLEAVE && b->flags == 0, "%d %u", b->mode, b->flags);
    CHECK(b->mask == nodes && b->n_bits == 65, "%lx of %lu bits", b->mask, b->n_bits);
    CHECK(b->n_touched == 0, "%zu pages were touched before", b->n_touched);
}

static void test_interleaves_over_the_nodes(void)
{
    static const uint64_t masks[] = {0x3, 0x5, 0xf0, UINT64_C(1) << 63 | 1, UINT64_MAX};
    void *p;
    REQUIRE(mem_reserve(1 << 20, &p));
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        fake_reset(0);
        mem_spread(p, 1 << 20, masks[i]);
        REQUIRE(fake.n_binds == 1 && fake.n_gets == 1);
        check_bind(&fake.binds[0], p, 1 << 20, masks[i]);
    }
    mem_unreserve(p, 1 << 20);
}

static void test_one_node_and_no_memory_are_left_alone(void)
{
    char page[64];
    fake_reset(0);
    mem_spread(page, sizeof page, 0);
    mem_spread(page, sizeof page, 1);
    mem_spread(page, sizeof page, UINT64_C(1) << 63);
    mem_spread(NULL, 0, 3);
    CHECK(fake.n_gets == 0 && fake.n_binds == 0);
}

static void test_a_policy_of_the_process_stays(void)
{
    static const int policies[] = {MPOL_PREFERRED, MPOL_BIND, MPOL_INTERLEAVE, MPOL_LOCAL};
    char page[64];
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        fake_reset(0);
        fake.policy = policies[i];
        mem_spread(page, sizeof page, 3);
        CHECK(fake.n_gets == 1 && fake.n_binds == 0, "%d", policies[i]);
    }
    fake_reset(0);
    fake.policy_errno = ENOSYS;
    mem_spread(page, sizeof page, 3);
    CHECK(fake.n_binds == 0);
}

static const struct bind *bind_of(const void *p)
{
    for (size_t i = 0; i < fake.n_binds; i++)
        if (fake.binds[i].p == p) return &fake.binds[i];
    return NULL;
}

static void open_on(uint64_t nodes, int bind_errno, sluice_engine **engine)
{
    struct sluice_error err;
    struct sluice_engine_options options;
    sluice_engine_options_default(&options);
    options.n_threads = 1;
    options.n_slots = 32;
    fake_reset(nodes);
    fake.bind_errno = bind_errno;
    CHECK(sluice_engine_open(engine, "models/storyteller", &options, &err) == SLUICE_OK, "%s",
          err.message);
}

/* Dense weights and all slots, whole, before anything is read into them. */
static void test_an_engine_spreads_weights_and_slots(void)
{
    sluice_engine *e = NULL;
    open_on(0x6, 0, &e);
    REQUIRE(e);
    CHECK(fake.n_binds == 1 + e->store->n_classes, "%zu", fake.n_binds);
    const struct bind *dense = bind_of(e->resident.slab);
    REQUIRE(dense);
    check_bind(dense, e->resident.slab, e->resident.slab_bytes, 0x6);
    for (uint32_t c = 0; c < e->store->n_classes; c++) {
        const struct slot_class *k = &e->store->classes[c];
        const struct bind *slots = bind_of(k->slab);
        REQUIRE(slots);
        CHECK(k->slab_bytes >= k->n * k->slot_bytes);
        check_bind(slots, k->slab, k->slab_bytes, 0x6);
    }
    sluice_engine_close(&e);
}

static void test_one_node_or_a_refusal_is_no_error(void)
{
    sluice_engine *e = NULL;
    open_on(0x2, 0, &e);
    CHECK(e && fake.n_binds == 0);
    sluice_engine_close(&e);
    open_on(0x3, EPERM, &e);
    CHECK(e && fake.n_binds >= 2);
    sluice_engine_close(&e);
}

#define CASES(C)                                                                                   \
    C(interleaves_over_the_nodes)                                                                  \
    C(one_node_and_no_memory_are_left_alone)                                                       \
    C(a_policy_of_the_process_stays)                                                               \
    C(an_engine_spreads_weights_and_slots)                                                         \
    C(one_node_or_a_refusal_is_no_error)
CHECK_MAIN(CASES)
