#include "io/processors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/cgroup.h"

enum { PATH_CAP = 4096 };

/* A list as the kernel writes it: "0-3,8,10-11". Numbers beyond the set are left out. */
static void parse_list(const char *text, cpu_set_t *out)
{
    CPU_ZERO(out);
    for (const char *at = text; at && *at >= '0' && *at <= '9';) {
        char *end;
        unsigned long first = strtoul(at, &end, 10), last = first;
        if (*end == '-') last = strtoul(end + 1, &end, 10);
        for (unsigned long c = first; c <= last && c < MOST_PROCESSORS; c++) CPU_SET(c, out);
        at = *end == ',' ? end + 1 : NULL;
    }
}

/* False: the file is not there. */
static bool read_list(const char *root, const char *name, cpu_set_t *out)
{
    char *text = cgroup_slurp(root, name);
    parse_list(text, out);
    bool ok = text != NULL;
    free(text);
    return ok;
}

static uint64_t cpu_number(const char *root, uint32_t cpu, const char *name)
{
    char path[128];
    uint64_t value = 0;
    snprintf(path, sizeof path, "sys/devices/system/cpu/cpu%u/%s", cpu, name);
    return cgroup_read_number(root, path, &value) ? value : 0;
}

/* The logical processors of one core, itself among them. */
static void siblings_of(const char *root, uint32_t cpu, cpu_set_t *out)
{
    char path[128];
    snprintf(path, sizeof path, "sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", cpu);
    (void)read_list(root, path, out);
    CPU_SET(cpu, out);
}

/* ARM says how much a core can do, others how fast it may run. */
static uint32_t speed_of(const char *root, uint32_t cpu)
{
    uint64_t speed = cpu_number(root, cpu, "cpu_capacity");
    if (!speed) speed = cpu_number(root, cpu, "cpufreq/cpuinfo_max_freq");
    return speed < UINT32_MAX ? (uint32_t)speed : UINT32_MAX;
}

static void list_cores(struct processors *p, const char *root, const cpu_set_t *allowed)
{
    cpu_set_t small, left = *allowed;
    (void)read_list(root, "sys/devices/cpu_atom/cpus", &small);
    for (uint32_t cpu = 0; cpu < MOST_PROCESSORS; cpu++) {
        if (!CPU_ISSET(cpu, &left)) continue;
        struct core *core = &p->cores[p->n_cores++];
        siblings_of(root, cpu, &core->threads);
        CPU_AND(&core->threads, &core->threads, &left);
        CPU_XOR(&left, &left, &core->threads);
        core->speed = speed_of(root, cpu);
        core->slow = CPU_ISSET(cpu, &small);
        p->n_logical += (uint32_t)CPU_COUNT(&core->threads);
    }
}

static void find_nodes(struct processors *p, const char *root)
{
    cpu_set_t nodes, cpus;
    (void)read_list(root, "sys/devices/system/node/online", &nodes);
    for (uint16_t node = 0; node < MOST_PROCESSORS; node++) {
        char path[128];
        if (!CPU_ISSET(node, &nodes)) continue;
        snprintf(path, sizeof path, "sys/devices/system/node/node%u/cpulist", node);
        if (!read_list(root, path, &cpus)) continue;
        for (uint32_t c = 0; c < p->n_cores; c++) {
            cpu_set_t both;
            CPU_AND(&both, &cpus, &p->cores[c].threads);
            if (CPU_COUNT(&both)) p->cores[c].node = node;
        }
    }
}

/* Turbo makes some cores a little faster than others; half as fast again is another kind. */
static void mark_slow(struct processors *p)
{
    uint32_t most = 0;
    for (uint32_t c = 0; c < p->n_cores; c++)
        if (!p->cores[c].slow && p->cores[c].speed > most) most = p->cores[c].speed;
    for (uint32_t c = 0; c < p->n_cores; c++) {
        p->cores[c].slow |= p->cores[c].speed && p->cores[c].speed < most / 3 * 2;
        p->n_fast += !p->cores[c].slow;
    }
    if (p->n_fast) return;
    for (uint32_t c = 0; c < p->n_cores; c++) p->cores[c].slow = false;
    p->n_fast = p->n_cores;
}

/* How many cores of the same kind and node come before this one. */
static uint32_t turn_of(const struct processors *p, uint32_t core)
{
    uint32_t turn = 0;
    for (uint32_t c = 0; c < core; c++)
        turn += p->cores[c].slow == p->cores[core].slow && p->cores[c].node == p->cores[core].node;
    return turn;
}

struct ranked {
    struct core core;
    uint32_t turn;
};

static int compare_cores(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->core.slow != y->core.slow) return x->core.slow ? 1 : -1;
    if (x->turn != y->turn) return x->turn < y->turn ? -1 : 1;
    return (x->core.node > y->core.node) - (x->core.node < y->core.node);
}

static bool order_cores(struct processors *p)
{
    struct ranked *ranked = calloc(p->n_cores + 1, sizeof *ranked);
    if (!ranked) return false;
    for (uint32_t c = 0; c < p->n_cores; c++)
        ranked[c] = (struct ranked){p->cores[c], turn_of(p, c)};
    qsort(ranked, p->n_cores, sizeof *ranked, compare_cores);
    for (uint32_t c = 0; c < p->n_cores; c++) p->cores[c] = ranked[c].core;
    free(ranked);
    return true;
}

static void count_nodes(struct processors *p)
{
    cpu_set_t nodes;
    CPU_ZERO(&nodes);
    for (uint32_t c = 0; c < p->n_fast; c++) CPU_SET(p->cores[c].node, &nodes);
    p->n_nodes = (uint32_t)CPU_COUNT(&nodes);
    for (uint32_t n = 0; n < 64; n++)
        if (CPU_ISSET(n, &nodes)) p->nodes |= 1ull << n;
}

/* Whole processors of one group's quota; 0: it has none. */
static uint32_t quota_in(int version, const char *dir)
{
    uint64_t quota = 0, period = 0;
    if (version == 1) {
        /* no limit is written -1, which reads as more than any machine has */
        if (!cgroup_read_number(dir, "cpu.cfs_quota_us", &quota)) return 0;
        if (!cgroup_read_number(dir, "cpu.cfs_period_us", &period)) return 0;
    } else {
        char *text = cgroup_slurp(dir, "cpu.max");
        char *end = text;
        if (text) quota = strtoull(text, &end, 10);
        if (end != text) period = strtoull(end, NULL, 10);
        free(text);
    }
    if (period == 0 || quota / period >= MOST_PROCESSORS) return 0;
    return quota < period ? 1 : (uint32_t)(quota / period);
}

static void visit_quota(void *user, int version, const char *dir)
{
    struct processors *p = user;
    uint32_t quota = quota_in(version, dir);
    if (quota && (!p->quota || quota < p->quota)) p->quota = quota;
}

enum sluice_status processors_read(struct processors *p, const char *root, const cpu_set_t *allowed,
                                   struct sluice_error *err)
{
    size_t n = (size_t)CPU_COUNT(allowed) + 1;
    *p = (struct processors){.cores = calloc(n, sizeof *p->cores)};
    if (!p->cores) return err_nomem(err, "list of processors", n * sizeof *p->cores);
    list_cores(p, root, allowed);
    find_nodes(p, root);
    mark_slow(p);
    if (!order_cores(p)) {
        processors_release(p);
        return err_nomem(err, "list of processors", n * sizeof(struct ranked));
    }
    count_nodes(p);
    cgroup_visit(root, "cpu", visit_quota, p);
    p->n_threads = p->n_fast ? p->n_fast : 1;
    if (p->quota && p->quota < p->n_threads) p->n_threads = p->quota;
    return SLUICE_OK;
}

enum sluice_status processors_here(struct processors *p, struct sluice_error *err)
{
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    /* It fails where there are more processors than a set holds. */
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        long n = sysconf(_SC_NPROCESSORS_ONLN);
        for (unsigned c = 0; c < MOST_PROCESSORS && ((long)c < n || c == 0); c++)
            CPU_SET(c, &allowed);
    }
    return processors_read(p, "", &allowed, err);
}

void processors_release(struct processors *p)
{
    free(p->cores);
    *p = (struct processors){0};
}

bool processors_place(const struct processors *p, uint32_t n_threads, cpu_set_t *out)
{
    bool alike = p->n_logical == p->n_cores && p->n_nodes <= 1 && p->n_fast == p->n_cores;
    if (alike || n_threads < p->n_fast || n_threads > p->n_cores) return false;
    for (uint32_t t = 0; t < n_threads; t++) out[t] = p->cores[t].threads;
    return true;
}
