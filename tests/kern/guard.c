#include <sys/mman.h>
#include <unistd.h>

#include "kerncheck.h"

enum { REGIONS = 32, CANARY = 256, CANARY_BYTE = 0xa5, MARGIN = 4096 };

static struct region {
    const char *name;
    uint8_t *pages; /* the accessible part; an inaccessible page on either side */
    size_t capacity;
    uint8_t *operand;
    size_t bytes;
    bool input;
} regions[REGIONS];
static int used;

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static void protect(struct region *r, int how)
{
    if (r->pages && mprotect(r->pages, r->capacity, how) != 0) {
        perror("mprotect");
        exit(2);
    }
}

static void grow(struct region *r, size_t bytes)
{
    size_t page = page_bytes();
    if (r->pages) munmap(r->pages - page, r->capacity + 2 * page);
    r->capacity = align_up(bytes, page);
    uint8_t *all =
        mmap(NULL, r->capacity + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    r->pages = all + page;
    protect(r, PROT_READ | PROT_WRITE);
}

static void *temporaries[4];
static size_t temporary_count;

void *temporary(size_t bytes)
{
    void *p = temporary_count < COUNT_OF(temporaries) ? malloc(bytes) : NULL;
    if (!p) {
        fprintf(stderr, "kerncheck: no temporary of %zu bytes\n", bytes);
        exit(2);
    }
    temporaries[temporary_count++] = p;
    return p;
}

void operands_reset(struct check *c)
{
    (void)c;
    while (temporary_count > 0) free(temporaries[--temporary_count]);
    for (int i = 0; i < used; i++) protect(&regions[i], PROT_READ | PROT_WRITE);
    used = 0;
}

/* Flush at the end (half of all), flush at the start, or at any offset in between. */
static uint8_t *place(struct check *c, const struct region *r, size_t bytes, size_t align)
{
    switch (rng_below(&c->rng, 4)) {
    case 0: return r->pages;
    case 1: return r->pages + MARGIN / 2 + rng_below(&c->rng, (uint32_t)(64 / align)) * align;
    default: return r->pages + r->capacity - bytes;
    }
}

static void paint_canaries(struct region *r)
{
    uint8_t *end = r->operand + r->bytes;
    size_t before = min_size(CANARY, (size_t)(r->operand - r->pages));
    size_t after = min_size(CANARY, (size_t)(r->pages + r->capacity - end));
    memset(r->operand - before, CANARY_BYTE, before);
    memset(end, CANARY_BYTE, after);
}

static void *take(const char *name, struct check *c, size_t bytes, size_t align, bool input)
{
    if (used == REGIONS) {
        fprintf(stderr, "kerncheck: too many operands\n");
        exit(2);
    }
    struct region *r = &regions[used++];
    if (r->capacity < bytes + MARGIN) grow(r, bytes + MARGIN);
    r->name = name;
    r->operand = place(c, r, bytes, align);
    r->bytes = bytes;
    r->input = input;
    paint_canaries(r);
    return r->operand;
}

void *operand_in(const char *name, struct check *c, size_t bytes, size_t align)
{
    return take(name, c, bytes, align, true);
}

void *operand_out(const char *name, struct check *c, size_t bytes, size_t align)
{
    uint8_t *p = take(name, c, bytes, align, false);
    const uint32_t poison = POISON;
    for (size_t i = 0; i < bytes; i += 4) memcpy(p + i, &poison, min_size(4, bytes - i));
    return p;
}

void operands_begin(struct check *c)
{
    (void)c;
    for (int i = 0; i < used; i++)
        if (regions[i].input) protect(&regions[i], PROT_READ);
}

static bool canary_intact(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != CANARY_BYTE) return false;
    return true;
}

void operands_end(struct check *c)
{
    for (int i = 0; i < used; i++) {
        const struct region *r = &regions[i];
        const uint8_t *end = r->operand + r->bytes;
        size_t before = min_size(CANARY, (size_t)(r->operand - r->pages));
        size_t after = min_size(CANARY, (size_t)(r->pages + r->capacity - end));
        if (r->input) protect(&regions[i], PROT_READ | PROT_WRITE);
        if (!canary_intact(r->operand - before, before)) fail(c, "wrote before %s", r->name);
        if (!canary_intact(end, after)) fail(c, "wrote past the end of %s", r->name);
    }
}

void operands_describe(const void *address, char *out, size_t cap)
{
    const uint8_t *at = address;
    size_t page = page_bytes();
    for (int i = 0; i < used; i++) {
        const struct region *r = &regions[i];
        if (at < r->pages - page || at >= r->pages + r->capacity + page) continue;
        const char *where = at < r->pages                  ? "before"
                            : at >= r->pages + r->capacity ? "past the end of"
                                                           : "into the read-only";
        snprintf(out, cap, "touched memory %s %s", where, r->name);
        return;
    }
    snprintf(out, cap, "touched address %p", address);
}
