#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

enum { BLOCK_BYTES = 64 * 1024, ALIGN = 64 };

struct arena_block {
    struct arena_block *next;
    size_t used, cap;
    unsigned char *data; /* behind this, at a multiple of ALIGN */
};

/* Memory that others took; in a block. */
struct arena_kept {
    struct arena_kept *next;
    void *p;
};

/* calloc leaves large blocks, which are new and so zero, untouched. */
static struct arena_block *block_new(size_t cap)
{
    size_t bytes;
    if (!add_size(sizeof(struct arena_block) + ALIGN, cap, &bytes)) return NULL;
    struct arena_block *block = calloc(1, bytes);
    if (!block) return NULL;
    unsigned char *behind = (unsigned char *)(block + 1);
    block->data = behind + (ALIGN - (uintptr_t)behind % ALIGN) % ALIGN;
    block->cap = cap;
    return block;
}

/* bytes at a multiple of align, which is one of ALIGN. */
static void *take(struct arena *arena, size_t bytes, size_t align)
{
    if (bytes > SIZE_MAX - 2 * ALIGN) return NULL;
    struct arena_block *block = arena->blocks;
    size_t at = block ? align_up(block->used, align) : 0;
    if (!block || at > block->cap || block->cap - at < bytes) {
        block = block_new(max_size(align_up(bytes, ALIGN), BLOCK_BYTES));
        if (!block) return NULL;
        block->next = arena->blocks;
        arena->blocks = block;
        at = 0;
    }
    arena->bytes += at + bytes - block->used;
    block->used = at + bytes;
    return block->data + at;
}

void *arena_alloc(struct arena *arena, size_t n, size_t item_bytes)
{
    size_t bytes;
    if (!mul_size(n, item_bytes, &bytes)) return NULL;
    return take(arena, bytes ? bytes : 1, ALIGN);
}

char *arena_copy(struct arena *arena, const void *data, size_t len)
{
    if (len == SIZE_MAX) return NULL;
    char *p = take(arena, len + 1, 1);
    if (p && len) memcpy(p, data, len);
    return p;
}

char *arena_printf(struct arena *arena, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) return NULL;
    char *p = take(arena, (size_t)n + 1, 1);
    if (!p) return NULL;
    va_start(args, fmt);
    vsnprintf(p, (size_t)n + 1, fmt, args);
    va_end(args);
    return p;
}

bool arena_keep(struct arena *arena, void *p)
{
    struct arena_kept *kept = arena_alloc(arena, 1, sizeof *kept);
    if (!kept) return false;
    *kept = (struct arena_kept){arena->kept, p};
    arena->kept = kept;
    return true;
}

/* What is free in the last block of arena stays in use. */
void arena_join(struct arena *arena, struct arena *other)
{
    struct arena_block **blocks = arena->blocks ? &arena->blocks->next : &arena->blocks;
    while (*blocks) blocks = &(*blocks)->next;
    *blocks = other->blocks;
    struct arena_kept **kept = &arena->kept;
    while (*kept) kept = &(*kept)->next;
    *kept = other->kept;
    arena->bytes += other->bytes;
    *other = (struct arena){0};
}

void arena_release(struct arena *arena)
{
    for (struct arena_kept *kept = arena->kept; kept; kept = kept->next) free(kept->p);
    struct arena_block *block = arena->blocks;
    while (block) {
        struct arena_block *next = block->next;
        free(block);
        block = next;
    }
    *arena = (struct arena){0};
}
