#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

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

void mem_unreserve(void *p, size_t bytes)
{
    if (p) munmap(p, bytes);
}
