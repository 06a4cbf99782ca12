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
    _Alignas(ALIGN) unsigned char data[];
};

static struct arena_block *block_new(size_t cap)
{
    size_t bytes;
    if (!add_size(sizeof(struct arena_block), cap, &bytes) || bytes > SIZE_MAX - ALIGN) return NULL;
    bytes = align_up(bytes, ALIGN);
    struct arena_block *block = aligned_alloc(ALIGN, bytes);
    if (!block) return NULL;
    memset(block, 0, bytes);
    block->cap = cap;
    return block;
}

void *arena_alloc(struct arena *arena, size_t n, size_t item_bytes)
{
    size_t bytes;
    if (!mul_size(n, item_bytes, &bytes) || bytes > SIZE_MAX - 2 * ALIGN) return NULL;
    bytes = align_up(bytes ? bytes : 1, ALIGN);
    struct arena_block *block = arena->blocks;
    if (!block || block->cap - block->used < bytes) {
        block = block_new(max_size(bytes, BLOCK_BYTES));
        if (!block) return NULL;
        block->next = arena->blocks;
        arena->blocks = block;
    }
    void *p = block->data + block->used;
    block->used += bytes;
    arena->bytes += bytes;
    return p;
}

char *arena_copy(struct arena *arena, const void *data, size_t len)
{
    if (len == SIZE_MAX) return NULL;
    char *p = arena_alloc(arena, len + 1, 1);
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
    char *p = arena_alloc(arena, (size_t)n + 1, 1);
    if (!p) return NULL;
    va_start(args, fmt);
    vsnprintf(p, (size_t)n + 1, fmt, args);
    va_end(args);
    return p;
}

void arena_release(struct arena *arena)
{
    struct arena_block *block = arena->blocks;
    while (block) {
        struct arena_block *next = block->next;
        free(block);
        block = next;
    }
    *arena = (struct arena){0};
}
