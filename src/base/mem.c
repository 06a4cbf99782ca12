#include "base/mem.h"

#include <linux/mempolicy.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"

void *mem_alloc(size_t bytes)
{
    if (bytes > SIZE_MAX - MEM_ALIGN) return NULL;
    size_t padded = align_up(bytes ? bytes : 1, MEM_ALIGN);
    void *p = aligned_alloc(MEM_ALIGN, padded);
    if (p) memset(p, 0, padded);
    return p;
}

void mem_free(void *p)
{
    free(p);
}

bool mem_reserve(size_t bytes, void **out)
{
    *out = NULL;
    if (bytes == 0) return true;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED) return false;
    *out = p;
    return true;
}

void mem_spread(void *p, size_t bytes, uint64_t nodes)
{
    int policy = MPOL_DEFAULT;
    if (!p || (nodes & (nodes - 1)) == 0) return;
    /* Whoever chose a policy for the process, as numactl does, knows better. */
    if (syscall(SYS_get_mempolicy, &policy, NULL, 0, NULL, 0) != 0 || policy != MPOL_DEFAULT)
        return;
    /* The kernel reads one bit less than it is told. */
    (void)syscall(SYS_mbind, p, bytes, MPOL_INTERLEAVE, &nodes, 8 * sizeof nodes + 1, 0);
}

void mem_unreserve(void *p, size_t bytes)
{
    if (p) munmap(p, bytes);
}
