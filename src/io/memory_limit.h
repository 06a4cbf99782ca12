/* How much memory this process may still take: what the system has, and what its cgroup allows. */
#ifndef SLUICE_IO_MEMORY_LIMIT_H
#define SLUICE_IO_MEMORY_LIMIT_H

#include <stdint.h>

/*
 * The lower of MemAvailable and the room under every memory limit of the process's cgroup and its
 * parents (version 1 and 2, where memory.high counts as a limit; page cache that can be dropped
 * counts as room). root stands before /proc and /sys: "" in earnest, a folder in tests. 0: nothing
 * could be read, or nothing is left.
 */
uint64_t memory_available(const char *root);

#endif
