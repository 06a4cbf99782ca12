#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

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
