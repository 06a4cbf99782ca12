/* What may still be taken, read from made-up trees of /proc and /sys. */
#include "check.h"
#include "fake_tree.h"
#include "io/memory_limit.h"

#define MIB 1048576u

static void expect(const struct entry *entries, uint64_t bytes)
{
    struct tempdir root;
    REQUIRE(tempdir_make(&root));
    for (const struct entry *e = entries; e->path; e++) CHECK(entry_write(&root, e), "%s", e->path);
    uint64_t got = memory_available(root.path);
    CHECK(got == bytes, "%" PRIu64 ", not %" PRIu64, got, bytes);
    tempdir_remove(&root);
}

#define EXPECT(bytes, ...) expect((const struct entry[]){__VA_ARGS__, {NULL, NULL}}, bytes)

/* 8000 MiB available */
#define MEMINFO                                                                                    \
    {                                                                                              \
        "proc/meminfo", "MemTotal:       16384000 kB\nMemFree:          512000 kB\n"               \
                        "MemAvailable:    8192000 kB\nBuffers:          1000 kB\n"                 \
    }
#define V2(dir) "sys/fs/cgroup" dir
#define V1(dir) "sys/fs/cgroup/memory" dir
#define IN_V2                                                                                      \
    {                                                                                              \
        "proc/self/cgroup", "0::/user.slice/app.scope\n"                                           \
    }
#define IN_V1                                                                                      \
    {                                                                                              \
        "proc/self/cgroup", "12:cpu,cpuacct:/other\n5:memory:/docker/abc\n1:name=systemd:/x\n"     \
                            "0::/system.slice\n"                                                   \
    }
#define APP V2("/user.slice/app.scope")
#define ABC V1("/docker/abc")

static void test_system_only(void)
{
    EXPECT(8000ull * MIB, MEMINFO);
    EXPECT(8000ull * MIB, MEMINFO, {"proc/self/cgroup", "0::/\n"});
    EXPECT(1024, {"proc/meminfo", "MemAvailable: 1 kB"});
    EXPECT(0, {"proc/meminfo", "MemAvailable: 0 kB\n"});
    EXPECT(0, {"proc/meminfo", "MemTotal: 16384000 kB\nNotMemAvailable: 12 kB\n"});
    EXPECT(2048, {"proc/meminfo", "MemAvailableSoon: 1 kB\nMemAvailable: 2 kB\n"});
    EXPECT(0, {"proc/meminfo", ""});
    EXPECT(0, {"proc/other", ""});
    /* a number whose bytes no 64 bits hold is no number */
    EXPECT(0, {"proc/meminfo", "MemAvailable: 18446744073709551615 kB\n"});
}

static void test_version_2(void)
{
    EXPECT(600ull * MIB, MEMINFO, IN_V2, {APP "/memory.max", "1048576000\n"},
           {APP "/memory.current", "419430400\n"});
    /* cache that was not used lately is room */
    EXPECT(700ull * MIB, MEMINFO, IN_V2, {APP "/memory.max", "1048576000\n"},
           {APP "/memory.current", "419430400\n"},
           {APP "/memory.stat", "anon 1\nfile 2\ninactive_anon 77\ninactive_file 104857600\n"});
    /* more cache than usage; usage above the limit */
    EXPECT(1000ull * MIB, MEMINFO, IN_V2, {APP "/memory.max", "1048576000\n"},
           {APP "/memory.current", "4096\n"}, {APP "/memory.stat", "inactive_file 8192\n"});
    EXPECT(0, MEMINFO, IN_V2, {APP "/memory.max", "1048576\n"},
           {APP "/memory.current", "2097152\n"});
    /* without a limit; with one above what the system has */
    EXPECT(8000ull * MIB, MEMINFO, IN_V2, {APP "/memory.max", "max\n"},
           {APP "/memory.current", "419430400\n"});
    EXPECT(8000ull * MIB, MEMINFO, IN_V2, {APP "/memory.max", "18446744073709551615\n"},
           {APP "/memory.current", "419430400\n"});
    EXPECT(8000ull * MIB, MEMINFO, IN_V2, {APP "/memory.max", "9223372036854771712\n"},
           {APP "/memory.current", "419430400\n"});
}

static void test_version_2_high(void)
{
    EXPECT(100ull * MIB, MEMINFO, IN_V2, {APP "/memory.max", "1048576000\n"},
           {APP "/memory.high", "524288000\n"}, {APP "/memory.current", "419430400\n"});
    EXPECT(600ull * MIB, MEMINFO, IN_V2, {APP "/memory.max", "1048576000\n"},
           {APP "/memory.high", "max\n"}, {APP "/memory.current", "419430400\n"});
    EXPECT(600ull * MIB, MEMINFO, IN_V2, {APP "/memory.max", "1048576000\n"},
           {APP "/memory.high", "2097152000\n"}, {APP "/memory.current", "419430400\n"});
    EXPECT(600ull * MIB, MEMINFO, IN_V2, {APP "/memory.max", "max\n"},
           {APP "/memory.high", "1048576000\n"}, {APP "/memory.current", "419430400\n"});
}

/* The lowest of the group and all above it, each with its own usage. */
static void test_nested(void)
{
    const struct entry inner[] = {{APP "/memory.max", "2097152000\n"},
                                  {APP "/memory.current", "1048576\n"}};
    EXPECT(50ull * MIB, MEMINFO, IN_V2, inner[0], inner[1],
           {V2("/user.slice/memory.max"), "1048576000\n"},
           {V2("/user.slice/memory.current"), "996147200\n"});
    EXPECT(1999ull * MIB, MEMINFO, IN_V2, inner[0], inner[1],
           {V2("/user.slice/memory.max"), "max\n"},
           {V2("/user.slice/memory.current"), "996147200\n"});
    /* a namespace shows the group's own files at the mount */
    EXPECT(30ull * MIB, MEMINFO, {"proc/self/cgroup", "0::/\n"}, {V2("/memory.max"), "41943040\n"},
           {V2("/memory.current"), "10485760\n"});
    EXPECT(30ull * MIB, MEMINFO, IN_V2, {V2("/memory.max"), "41943040\n"},
           {V2("/memory.current"), "10485760\n"});
    /* what lies outside the tree of groups is none */
    EXPECT(8000ull * MIB, MEMINFO, IN_V2, {"sys/fs/memory.max", "1"},
           {"sys/fs/memory.current", "0"});
}

static void test_version_1(void)
{
    EXPECT(600ull * MIB, MEMINFO, IN_V1, {ABC "/memory.limit_in_bytes", "1048576000\n"},
           {ABC "/memory.usage_in_bytes", "419430400\n"});
    /* the total counts the groups below too */
    EXPECT(800ull * MIB, MEMINFO, IN_V1, {ABC "/memory.limit_in_bytes", "1048576000\n"},
           {ABC "/memory.usage_in_bytes", "419430400\n"},
           {ABC "/memory.stat", "inactive_file 4096\ntotal_inactive_file 209715200\n"});
    /* the mount's own numbers, when the container sees nothing else */
    EXPECT(90ull * MIB, MEMINFO, IN_V1, {V1("/memory.limit_in_bytes"), "104857600\n"},
           {V1("/memory.usage_in_bytes"), "10485760\n"});
    /* "none" of version 1 is the largest number of pages */
    EXPECT(8000ull * MIB, MEMINFO, IN_V1, {ABC "/memory.limit_in_bytes", "9223372036854771712\n"},
           {ABC "/memory.usage_in_bytes", "419430400\n"});
    EXPECT(70ull * MIB, MEMINFO, IN_V1, {ABC "/memory.limit_in_bytes", "9223372036854771712\n"},
           {ABC "/memory.usage_in_bytes", "10485760\n"},
           {V1("/docker/memory.limit_in_bytes"), "104857600\n"},
           {V1("/docker/memory.usage_in_bytes"), "31457280\n"});
    /* memory beside another controller; one that only begins like it */
    EXPECT(90ull * MIB, MEMINFO, {"proc/self/cgroup", "3:cpu,memory:/a\n"},
           {V1("/a/memory.limit_in_bytes"), "104857600\n"},
           {V1("/a/memory.usage_in_bytes"), "10485760\n"});
    EXPECT(8000ull * MIB, MEMINFO, {"proc/self/cgroup", "3:memoryless,cpu:/a\n"},
           {V1("/a/memory.limit_in_bytes"), "104857600\n"},
           {V1("/a/memory.usage_in_bytes"), "10485760\n"});
}

/* Version 2 groups beside version 1 controllers, and the lower of both. */
static void test_both_versions(void)
{
    EXPECT(20ull * MIB, MEMINFO, IN_V1, {ABC "/memory.limit_in_bytes", "104857600\n"},
           {ABC "/memory.usage_in_bytes", "10485760\n"},
           {V2("/system.slice/memory.max"), "31457280\n"},
           {V2("/system.slice/memory.current"), "10485760\n"});
}

static void test_missing_and_odd_files(void)
{
    /* a limit without usage is a limit */
    EXPECT(40ull * MIB, MEMINFO, IN_V2, {APP "/memory.max", "41943040\n"});
    EXPECT(8000ull * MIB, MEMINFO, IN_V2, {APP "/memory.current", "41943040\n"});
    EXPECT(8000ull * MIB, MEMINFO, IN_V2, {APP "/memory.max", ""}, {APP "/memory.current", "1\n"});
    /* only the group is known */
    EXPECT(30ull * MIB, IN_V2, {APP "/memory.max", "41943040"},
           {APP "/memory.current", "10485760"});
    EXPECT(8000ull * MIB, MEMINFO, {"proc/self/cgroup", ""});
    EXPECT(8000ull * MIB, MEMINFO, {"proc/self/cgroup", "\n::\nno colons\n7:memory\n0::nowhere\n"});
}

/* A group too deep for any path is not looked at, and breaks nothing. */
static void test_long_path(void)
{
    static char line[9000] = "0::";
    memset(line + 3, 'x', sizeof line - 5);
    for (size_t i = 3; i < sizeof line - 2; i += 200) line[i] = '/';
    EXPECT(8000ull * MIB, MEMINFO, {"proc/self/cgroup", line});
}

static void test_this_machine(void)
{
    CHECK(memory_available("") > MIB, "%" PRIu64, memory_available(""));
}

#define CASES(C)                                                                                   \
    C(system_only)                                                                                 \
    C(version_2)                                                                                   \
    C(version_2_high)                                                                              \
    C(nested)                                                                                      \
    C(version_1)                                                                                   \
    C(both_versions)                                                                               \
    C(missing_and_odd_files)                                                                       \
    C(long_path)                                                                                   \
    C(this_machine)

CHECK_MAIN(CASES)
