#include "io/memory_limit.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

enum { FILE_MAX = 1 << 20, PATH_CAP = 4096 };

/* dir/name, a small file of the kernel's, NUL-terminated; the caller frees. NULL: not there. */
static char *slurp(const char *dir, const char *name)
{
    char path[PATH_CAP];
    int len = snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = len > 0 && len < PATH_CAP ? fopen(path, "re") : NULL;
    if (!f) return NULL;
    char *text = calloc(1, FILE_MAX + 1);
    if (text && fread(text, 1, FILE_MAX, f) == 0) {
        free(text);
        text = NULL;
    }
    fclose(f);
    return text;
}

/* The number in dir/name; false when there is none, as in "max". */
static bool read_number(const char *dir, const char *name, uint64_t *out)
{
    char *text = slurp(dir, name);
    char *end = text;
    if (text) *out = strtoull(text, &end, 10);
    bool ok = text && end != text;
    free(text);
    return ok;
}

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
    char *text = slurp(dir, "memory.stat");
    if (text && !find_number(text, "total_inactive_file", &cache))
        (void)find_number(text, "inactive_file", &cache);
    free(text);
    return cache;
}

/* Above high, version 2 slows a group down until it is below again. */
struct version {
    const char *mount, *limit, *high, *usage;
};
static const struct version v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", NULL,
                                  "memory.usage_in_bytes"};
static const struct version v2 = {"/sys/fs/cgroup", "memory.max", "memory.high", "memory.current"};

/* Room under the limits of one folder of the tree; UINT64_MAX when it has none. */
static uint64_t room_in(const struct version *v, const char *dir)
{
    uint64_t limit = UINT64_MAX, high = UINT64_MAX, usage = 0;
    if (!read_number(dir, v->limit, &limit)) limit = UINT64_MAX;
    if (v->high && read_number(dir, v->high, &high) && high < limit) limit = high;
    if (limit == UINT64_MAX) return UINT64_MAX;
    (void)read_number(dir, v->usage, &usage);
    uint64_t cache = droppable(dir);
    uint64_t held = usage > cache ? usage - cache : 0;
    return limit > held ? limit - held : 0;
}

/* The least room from the group at path up to the mount. */
static uint64_t room_up(const char *root, const struct version *v, const char *path)
{
    char dir[PATH_CAP];
    uint64_t least = UINT64_MAX;
    int len = snprintf(dir, sizeof dir, "%s%s%s", root, v->mount, path);
    if (len < 0 || len >= PATH_CAP) return least;
    size_t base = strlen(root) + strlen(v->mount);
    while (strlen(dir) >= base) {
        uint64_t room = room_in(v, dir);
        if (room < least) least = room;
        char *slash = strrchr(dir, '/');
        if (!slash || (size_t)(slash - dir) < base) break;
        *slash = '\0';
    }
    return least;
}

/* A line of /proc/self/cgroup is "id:controllers:path"; version 2 has id 0 and no controllers. */
static uint64_t room_of_line(const char *root, char *line)
{
    char *controllers = strchr(line, ':');
    char *path = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!path) return UINT64_MAX;
    *path++ = '\0';
    controllers++;
    if (strcmp(path, "/") == 0) path++;
    if (controllers[0] == '\0') return room_up(root, &v2, path);
    for (const char *c = controllers; c; c = strchr(c, ',')) {
        if (*c == ',') c++;
        if (strncmp(c, "memory", 6) == 0 && (c[6] == ',' || c[6] == '\0'))
            return room_up(root, &v1, path);
    }
    return UINT64_MAX;
}

static uint64_t cgroup_room(const char *root)
{
    char *text = slurp(root, "proc/self/cgroup");
    uint64_t least = UINT64_MAX;
    for (char *line = text; line && *line;) {
        char *next = strchr(line, '\n');
        if (next) *next++ = '\0';
        uint64_t room = room_of_line(root, line);
        if (room < least) least = room;
        line = next;
    }
    free(text);
    return least;
}

static uint64_t system_room(const char *root)
{
    uint64_t kib, bytes;
    char *text = slurp(root, "proc/meminfo");
    bool known = text && find_number(text, "MemAvailable", &kib) && mul_u64(kib, 1024, &bytes);
    free(text);
    return known ? bytes : UINT64_MAX;
}

uint64_t memory_available(const char *root)
{
    uint64_t system = system_room(root), group = cgroup_room(root);
    uint64_t least = system < group ? system : group;
    return least == UINT64_MAX ? 0 : least;
}
