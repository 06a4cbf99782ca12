/*
 * Taking memory for reserved ranges ahead of their first touch. A page that nobody touched yet
 * costs whoever does a fault and the clearing of it, and on a virtual machine whose host lends
 * memory on demand several times that; a read into such pages pays for all of them in the call that
 * submits it. Here threads of their own do it, which run only while cores have nothing else to do.
 */
#ifndef SLUICE_BASE_POPULATE_H
#define SLUICE_BASE_POPULATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mem_range {
    void *base;
    size_t bytes;
};

struct populate;

/*
 * Begins to take the memory of all ranges, each from its beginning on, side by side. What is in
 * them stays as it is, so that they may be used meanwhile, by the kernel too. ahead: bytes that may
 * wait to be touched; with that many threads sleep until half of them are, as populate_avoid()
 * tells; 0: as many as there are. NULL: the system cannot (it is older than Linux 5.14, or refuses
 * threads), and pages come as they are touched.
 */
struct populate *populate_start(const struct mem_range *ranges, uint32_t n, uint32_t n_threads,
                                size_t ahead);
/*
 * The caller touches this part of a range next, and then what follows it: threads leave that to it
 * and go on further behind, since two that take the same page at once clear two. What was left out
 * comes in the end. Cheap; any thread.
 */
void populate_avoid(struct populate *populate, const void *at, size_t bytes);
/* Whether it still takes memory; NULL does not. */
bool populate_runs(const struct populate *populate);
/* Ends it, finished or not, after the pieces of 2 MiB under way; ranges may be given back then. */
void populate_stop(struct populate **populate);

#endif
