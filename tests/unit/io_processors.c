/* Threads and places on made-up machines. */
#include "io/processors.h"

#include <stdarg.h>

#include "check.h"
#include "fake_tree.h"

/* A machine: its tree, and the processors the affinity mask leaves. */
struct machine {
    struct tempdir root;
    struct processors p;
    cpu_set_t allowed;
};

static void machine_make(struct machine *m, uint32_t n_allowed)
{
    CHECK(tempdir_make(&m->root));
    CPU_ZERO(&m->allowed);
    for (uint32_t c = 0; c < n_allowed; c++) CPU_SET(c, &m->allowed);
}

PRINTF_LIKE(3, 4)
static void put(const struct machine *m, const char *text, const char *path, ...)
{
    char full[256];
    va_list args;
    va_start(args, path);
    vsnprintf(full, sizeof full, path, args);
    va_end(args);
    CHECK(entry_write(&m->root, &(struct entry){full, text}), "%s", full);
}

#define CPU_FILE "sys/devices/system/cpu/cpu%u/"

static void put_siblings(const struct machine *m, uint32_t cpu, const char *list)
{
    put(m, list, CPU_FILE "topology/thread_siblings_list", cpu);
}

static void machine_read(struct machine *m)
{
    struct sluice_error err = {0};
    CHECK_OK(processors_read(&m->p, m->root.path, &m->allowed, &err));
}

static void machine_remove(struct machine *m)
{
    processors_release(&m->p);
    tempdir_remove(&m->root);
}

static void check_places(const struct machine *m, const cpu_set_t *places, uint32_t n,
                         const char *want)
{
    char got[1024] = "";
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t c = 0; c < 64; c++)
            if (CPU_ISSET(c, &places[t]))
                snprintf(got + strlen(got), sizeof got - strlen(got), "%u ", c);
        snprintf(got + strlen(got), sizeof got - strlen(got), "| ");
    }
    CHECK(strcmp(got, want) == 0, "%u cores: %s", m->p.n_cores, got);
}

/* Where nothing is known, each processor is a core, and no thread has a place of its own. */
static void test_nothing_known(void)
{
    struct machine m;
    cpu_set_t places[8];
    machine_make(&m, 3);
    machine_read(&m);
    CHECK(m.p.n_threads == 3 && m.p.n_cores == 3 && m.p.n_logical == 3 && m.p.n_nodes == 1);
    CHECK(m.p.quota == 0 && !processors_place(&m.p, 3, places));
    machine_remove(&m);
}

/* Two logical processors a core: one thread each, wherever on the core. */
static void test_smt(void)
{
    struct machine m;
    cpu_set_t places[8];
    machine_make(&m, 8);
    static const char *const lists[] = {"0,4\n", "1,5\n", "2,6\n", "3,7\n"};
    for (uint32_t c = 0; c < 8; c++) put_siblings(&m, c, lists[c % 4]);
    machine_read(&m);
    CHECK(m.p.n_threads == 4 && m.p.n_cores == 4 && m.p.n_logical == 8);
    REQUIRE(processors_place(&m.p, 4, places));
    check_places(&m, places, 4, "0 4 | 1 5 | 2 6 | 3 7 | ");
    /* part of the cores, or more threads than cores, have no places */
    CHECK(!processors_place(&m.p, 3, places) && !processors_place(&m.p, 5, places));
    machine_remove(&m);
}

/* The mask cuts cores in half and leaves others out. */
static void test_affinity(void)
{
    struct machine m;
    cpu_set_t places[8];
    machine_make(&m, 0);
    for (uint32_t c = 2; c < 6; c++) CPU_SET(c, &m.allowed);
    static const char *const lists[] = {"0-1", "2-3", "4-5", "6-7"};
    for (uint32_t c = 0; c < 8; c++) put_siblings(&m, c, lists[c / 2]);
    CPU_CLR(5, &m.allowed);
    machine_read(&m);
    CHECK(m.p.n_threads == 2 && m.p.n_logical == 3);
    REQUIRE(processors_place(&m.p, 2, places));
    check_places(&m, places, 2, "2 3 | 4 | ");
    machine_remove(&m);
}

/* Large cores with two logical processors, small ones with one: the large ones compute. */
static void test_hybrid_x86(void)
{
    struct machine m;
    cpu_set_t places[16];
    machine_make(&m, 8);
    for (uint32_t c = 0; c < 4; c++) {
        put_siblings(&m, c, c < 2 ? "0-1" : "2-3");
        put(&m, c < 2 ? "5200000\n" : "5000000\n", CPU_FILE "cpufreq/cpuinfo_max_freq", c);
    }
    for (uint32_t c = 4; c < 8; c++) put(&m, "3900000\n", CPU_FILE "cpufreq/cpuinfo_max_freq", c);
    put(&m, "0-3\n", "sys/devices/cpu_core/cpus");
    put(&m, "4-7\n", "sys/devices/cpu_atom/cpus");
    machine_read(&m);
    CHECK(m.p.n_threads == 2 && m.p.n_cores == 6 && m.p.n_fast == 2, "%u", m.p.n_threads);
    REQUIRE(processors_place(&m.p, 2, places));
    check_places(&m, places, 2, "0 1 | 2 3 | ");
    REQUIRE(processors_place(&m.p, 4, places));
    check_places(&m, places, 4, "0 1 | 2 3 | 4 | 5 | ");
    processors_release(&m.p);
    /* only small ones are left: they are what there is */
    for (uint32_t c = 0; c < 4; c++) CPU_CLR(c, &m.allowed);
    machine_read(&m);
    CHECK(m.p.n_threads == 4 && m.p.n_fast == 4 && !processors_place(&m.p, 4, places));
    machine_remove(&m);
}

/* One very large, three large, four small; the first two kinds are near enough. */
static void test_hybrid_arm(void)
{
    struct machine m;
    machine_make(&m, 8);
    for (uint32_t c = 0; c < 8; c++)
        put(&m, c < 4 ? "250\n" : c < 7 ? "870\n" : "1024\n", CPU_FILE "cpu_capacity", c);
    machine_read(&m);
    CHECK(m.p.n_threads == 4 && m.p.n_cores == 8, "%u", m.p.n_threads);
    for (uint32_t c = 0; c < 4; c++) CHECK(CPU_ISSET(c + 4, &m.p.cores[c].threads));
    machine_remove(&m);
}

/* Cores of two nodes take turns, so that few threads have the memory of both. */
static void test_nodes(void)
{
    struct machine m;
    cpu_set_t places[8];
    machine_make(&m, 6);
    put(&m, "0,2\n", "sys/devices/system/node/online");
    put(&m, "0-2\n", "sys/devices/system/node/node0/cpulist");
    put(&m, "3-5\n", "sys/devices/system/node/node2/cpulist");
    machine_read(&m);
    CHECK(m.p.n_nodes == 2 && m.p.nodes == 5, "%u", m.p.n_nodes);
    REQUIRE(processors_place(&m.p, 6, places));
    check_places(&m, places, 6, "0 | 3 | 1 | 4 | 2 | 5 | ");
    processors_release(&m.p);
    for (uint32_t c = 0; c < 3; c++) CPU_CLR(c, &m.allowed);
    machine_read(&m);
    CHECK(m.p.n_nodes == 1 && m.p.nodes == 4 && !processors_place(&m.p, 3, places));
    machine_remove(&m);
}

/* What the cgroup grants, its own and its parents', rounded down to whole processors. */
static void check_quota(const char *cgroup, const char *path, const char *text, uint32_t quota,
                        uint32_t n_threads)
{
    struct machine m;
    machine_make(&m, 8);
    put(&m, cgroup, "proc/self/cgroup");
    put(&m, text, "sys/fs/cgroup/%s", path);
    put(&m, "100000\n", "sys/fs/cgroup/cpu/a/cpu.cfs_period_us");
    machine_read(&m);
    CHECK(m.p.quota == quota && m.p.n_threads == n_threads, "%s: %u, %u threads", text, m.p.quota,
          m.p.n_threads);
    machine_remove(&m);
}

static void test_quota(void)
{
    static const char v2[] = "0::/a/b\n", v1[] = "4:cpu,cpuacct:/a/b\n3:memory:/x\n";
    check_quota(v2, "a/b/cpu.max", "250000 100000\n", 2, 2);
    check_quota(v2, "a/cpu.max", "300000 100000\n", 3, 3);
    check_quota(v2, "cpu.max", "100000 100000\n", 1, 1);
    check_quota(v2, "a/b/cpu.max", "50000 100000\n", 1, 1);
    check_quota(v2, "a/b/cpu.max", "1600000 100000\n", 16, 8);
    check_quota(v2, "a/b/cpu.max", "max 100000\n", 0, 8);
    check_quota(v2, "a/b/cpu.max", "", 0, 8);
    check_quota(v2, "a/b/cpu.max", "5\n", 0, 8);
    check_quota(v2, "a/b/c/cpu.max", "100000 100000\n", 0, 8);
    check_quota(v1, "cpu/a/cpu.cfs_quota_us", "250000\n", 2, 2);
    check_quota(v1, "cpu/a/cpu.cfs_quota_us", "-1\n", 0, 8);
    check_quota(v1, "cpu/a/b/cpu.cfs_quota_us", "100000\n", 0, 8); /* no period */
}

static void test_this_machine(void)
{
    struct processors p;
    struct sluice_error err = {0};
    CHECK_OK(processors_here(&p, &err));
    CHECK(p.n_threads >= 1 && p.n_threads <= p.n_cores && p.n_cores <= p.n_logical);
    CHECK(p.n_nodes >= 1);
    processors_release(&p);
}

#define CASES(C)                                                                                   \
    C(nothing_known)                                                                               \
    C(smt)                                                                                         \
    C(affinity)                                                                                    \
    C(hybrid_x86)                                                                                  \
    C(hybrid_arm)                                                                                  \
    C(nodes)                                                                                       \
    C(quota)                                                                                       \
    C(this_machine)
CHECK_MAIN(CASES)
