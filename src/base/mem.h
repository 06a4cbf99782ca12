/* Aligned memory for data that kernels touch. */
#ifndef SLUICE_BASE_MEM_H
#define SLUICE_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MEM_ALIGN = 64 };

/*
 * Zeroed memory at a multiple of MEM_ALIGN that is taken at once and as it is asked for, 2 MiB and
 * more in large pages where there are some; bytes 0 gives a valid pointer. NULL: out of memory. It
 * is freed by the same bytes.
 */
void *mem_alloc(size_t bytes);
void mem_free(void *p, size_t bytes);

/*
 * A zeroed range of addresses whose pages take memory when they are first touched; one of 2 MiB and
 * more begins at a huge page. bytes 0 gives NULL and true. False: refused.
 */
bool mem_reserve(size_t bytes, void **out);
/*
 * The pages of a reserved range will come from these memory nodes in turn, a bit each: what all
 * threads read is best spread over the memory of all. Nothing changes with less than two nodes, or
 * where the system refuses.
 */
void mem_spread(void *p, size_t bytes, uint64_t nodes);
/*
 * The pages of a reserved range may be large ones, of which fewer are looked up; memory is then
 * taken in their size. Nothing changes where the system refuses.
 */
void mem_large_pages(void *p, size_t bytes);
/* Bytes of the pages of a reserved range that have taken memory. */
size_t mem_held(const void *p, size_t bytes);
void mem_unreserve(void *p, size_t bytes);

#endif
