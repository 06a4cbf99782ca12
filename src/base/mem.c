#include "base/mem.h"

#include <linux/mempolicy.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"

enum { PAGE = 4096, HUGE_PAGE = 2 << 20 };

static uint8_t *map_memory(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* Of a range that is a huge page too long, what begins at one. */
static uint8_t *map_at_huge_page(size_t bytes)
{
    if (bytes > SIZE_MAX / 2) return NULL;
    size_t kept = align_up(bytes, PAGE), all = kept + HUGE_PAGE;
    uint8_t *p = map_memory(all);
    if (!p) return NULL;
    size_t before = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
    if (before) munmap(p, before);
    if (all - before > kept) munmap(p + before + kept, all - before - kept);
    return p + before;
}

bool mem_reserve(size_t bytes, void **out)
{
    *out = NULL;
    if (bytes == 0) return true;
    uint8_t *p = bytes >= HUGE_PAGE ? map_at_huge_page(bytes) : NULL;
    *out = p ? p : map_memory(bytes);
    return *out != NULL;
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

void mem_large_pages(void *p, size_t bytes)
{
    if (p) (void)madvise(p, bytes, MADV_HUGEPAGE);
}

size_t mem_held(const void *p, size_t bytes)
{
    enum { STEP = 16384 }; /* pages asked for at once */
    unsigned char there[STEP];
    size_t held = 0;
    for (size_t at = 0; at < bytes; at += (size_t)STEP * PAGE) {
        size_t n = min_size(bytes - at, (size_t)STEP * PAGE);
        if (mincore((char *)(uintptr_t)p + at, n, there) != 0) continue;
        for (size_t i = 0; i < (n + PAGE - 1) / PAGE; i++) held += there[i] & 1 ? PAGE : 0;
    }
    return held;
}

void mem_unreserve(void *p, size_t bytes)
{
    if (p) munmap(p, align_up(bytes, PAGE));
}

/* A range of its own: nothing beside it can be taken with its large pages. */
void *mem_alloc(size_t bytes)
{
    void *p;
    if (!mem_reserve(max_size(bytes, 1), &p)) return NULL;
    mem_large_pages(p, bytes / HUGE_PAGE * HUGE_PAGE);
    memset(p, 0, bytes);
    return p;
}

void mem_free(void *p, size_t bytes)
{
    mem_unreserve(p, max_size(bytes, 1));
}
