#include "io/memory_limit.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "io/cgroup.h"

/* The number behind "key " or "key:" at the beginning of a line. */
static bool find_number(const char *text, const char *key, uint64_t *out)
{
    size_t len = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, key, len) != 0 || (line[len] != ' ' && line[len] != ':')) continue;
        *out = strtoull(line + len + 1, NULL, 10);
        return true;
    }
    return false;
}

static uint64_t droppable(const char *dir)
{
    uint64_t cache = 0;
    char *text = cgroup_slurp(dir, "memory.stat");
    if (text && !find_number(text, "total_inactive_file", &cache))
        (void)find_number(text, "inactive_file", &cache);
    free(text);
    return cache;
}

/* Above high, version 2 slows a group down until it is below again. */
struct version {
    const char *limit, *high, *usage;
};
static const struct version v1 = {"memory.limit_in_bytes", NULL, "memory.usage_in_bytes"};
static const struct version v2 = {"memory.max", "memory.high", "memory.current"};

/* Room under the limits of one folder of the tree; UINT64_MAX when it has none. */
static uint64_t room_in(const struct version *v, const char *dir)
{
    uint64_t limit = UINT64_MAX, high = UINT64_MAX, usage = 0;
    if (!cgroup_read_number(dir, v->limit, &limit)) limit = UINT64_MAX;
    if (v->high && cgroup_read_number(dir, v->high, &high) && high < limit) limit = high;
    if (limit == UINT64_MAX) return UINT64_MAX;
    (void)cgroup_read_number(dir, v->usage, &usage);
    uint64_t cache = droppable(dir);
    uint64_t held = usage > cache ? usage - cache : 0;
    return limit > held ? limit - held : 0;
}

static void visit_group(void *user, int version, const char *dir)
{
    uint64_t *least = user;
    uint64_t room = room_in(version == 1 ? &v1 : &v2, dir);
    if (room < *least) *least = room;
}

static uint64_t system_room(const char *root)
{
    uint64_t kib, bytes;
    char *text = cgroup_slurp(root, "proc/meminfo");
    bool known = text && find_number(text, "MemAvailable", &kib) && mul_u64(kib, 1024, &bytes);
    free(text);
    return known ? bytes : UINT64_MAX;
}

uint64_t memory_available(const char *root)
{
    uint64_t least = system_room(root);
    cgroup_visit(root, "memory", visit_group, &least);
    return least == UINT64_MAX ? 0 : least;
}
