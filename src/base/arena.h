/*
 * Bump allocation for objects that die together (a model description, a graph). Memory is zeroed
 * and lives until arena_release.
 */
#ifndef SLUICE_BASE_ARENA_H
#define SLUICE_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct arena_block;
struct arena_kept;

struct arena {
    struct arena_block *blocks;
    struct arena_kept *kept;
    size_t bytes; /* handed out so far */
};

/* n objects of item_bytes, aligned for any of them. NULL on overflow or out of memory. */
void *arena_alloc(struct arena *arena, size_t n, size_t item_bytes);
/* A NUL-terminated copy of len bytes. NULL: out of memory. */
char *arena_copy(struct arena *arena, const void *data, size_t len);
/* printf into the arena. NULL: out of memory. */
char *arena_printf(struct arena *arena, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* p, of malloc, lives as long from now on. False: out of memory, p is the caller's still. */
bool arena_keep(struct arena *arena, void *p);
/* All that other has is arena's from now on; other is empty. */
void arena_join(struct arena *arena, struct arena *other);
void arena_release(struct arena *arena);

#endif
