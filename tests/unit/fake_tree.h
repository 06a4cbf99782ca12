/* Made-up trees of /proc and /sys. */
#ifndef TESTS_FAKE_TREE_H
#define TESTS_FAKE_TREE_H

#include "tempdir.h"

/* A file of the tree: its path below the root, and its text. NULL: no more. */
struct entry {
    const char *path, *text;
};

static inline bool entry_write(const struct tempdir *root, const struct entry *e)
{
    char path[512];
    snprintf(path, sizeof path, "%s", e->path);
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        struct stat st;
        if (stat(tempdir_path(root, path), &st) != 0 && !tempdir_mkdir(root, path)) return false;
        *slash = '/';
    }
    return tempdir_write_text(root, path, e->text);
}

#endif
