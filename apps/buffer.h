/* A growable string of bytes. Running out of memory is remembered in failed, not returned. */
#ifndef APPS_BUFFER_H
#define APPS_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

struct buffer {
    char *data; /* NUL-terminated once anything was added; the NUL is not counted */
    size_t len, cap;
    bool failed;
};

/* Room for n more bytes and a NUL. */
bool buffer_reserve(struct buffer *b, size_t n);
void buffer_add(struct buffer *b, const char *data, size_t n);
void buffer_text(struct buffer *b, const char *text);
void buffer_printf(struct buffer *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buffer_release(struct buffer *b);

#endif
