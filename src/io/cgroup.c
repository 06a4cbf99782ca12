#include "io/cgroup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX = 1 << 20, PATH_CAP = 4096 };

char *cgroup_slurp(const char *dir, const char *name)
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

bool cgroup_read_number(const char *dir, const char *name, uint64_t *out)
{
    char *text = cgroup_slurp(dir, name);
    char *end = text;
    if (text) *out = strtoull(text, &end, 10);
    bool ok = text && end != text;
    free(text);
    return ok;
}

struct visitor {
    const char *root, *controller;
    cgroup_visit_fn *visit;
    void *user;
};

/* From the group at path up to the mount. */
static void visit_up(const struct visitor *v, int version, const char *path)
{
    char dir[PATH_CAP];
    const char *sub = version == 1 ? v->controller : "";
    int mount = snprintf(dir, sizeof dir, "%s/sys/fs/cgroup%s%s", v->root, *sub ? "/" : "", sub);
    if (mount < 0 || (size_t)mount + strlen(path) >= sizeof dir) return;
    memcpy(dir + mount, path, strlen(path) + 1);
    for (char *slash = dir + strlen(dir); slash && slash - dir >= mount;) {
        *slash = '\0';
        v->visit(v->user, version, dir);
        slash = strrchr(dir, '/');
    }
}

/* A line of /proc/self/cgroup is "id:controllers:path"; version 2 has id 0 and no controllers. */
static void visit_line(const struct visitor *v, char *line)
{
    char *controllers = strchr(line, ':');
    char *path = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!path) return;
    *path++ = '\0';
    controllers++;
    if (strcmp(path, "/") == 0) path++;
    if (controllers[0] == '\0') {
        visit_up(v, 2, path);
        return;
    }
    size_t len = strlen(v->controller);
    for (const char *c = controllers; c; c = strchr(c, ',')) {
        if (*c == ',') c++;
        if (strncmp(c, v->controller, len) != 0 || (c[len] != ',' && c[len] != '\0')) continue;
        visit_up(v, 1, path);
        return;
    }
}

void cgroup_visit(const char *root, const char *controller, cgroup_visit_fn *visit, void *user)
{
    struct visitor v = {root, controller, visit, user};
    char *text = cgroup_slurp(root, "proc/self/cgroup");
    for (char *line = text; line && *line;) {
        char *next = strchr(line, '\n');
        if (next) *next++ = '\0';
        visit_line(&v, line);
        line = next;
    }
    free(text);
}
