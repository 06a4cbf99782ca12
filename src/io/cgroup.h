/*
 * The control groups of this process: its own and all above it, in versions 1 and 2 of the file
 * tree. root stands before /proc and /sys: "" in earnest, a folder in tests.
 */
#ifndef SLUICE_IO_CGROUP_H
#define SLUICE_IO_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

/* dir/name, a small file of the kernel's, NUL-terminated; the caller frees. NULL: not there. */
char *cgroup_slurp(const char *dir, const char *name);
/* The number in dir/name; false when there is none, as in "max". */
bool cgroup_read_number(const char *dir, const char *name, uint64_t *out);

/*
 * Calls visit with the folder of each group that controls the process: those of version 2, where
 * version is 2, and those of version 1 that have the controller, as in "memory".
 */
typedef void cgroup_visit_fn(void *user, int version, const char *dir);
void cgroup_visit(const char *root, const char *controller, cgroup_visit_fn *visit, void *user);

#endif
