/* A growable run of bytes. Zero-initialise; free with text_release. */
#ifndef SLUICE_BASE_TEXT_BUFFER_H
#define SLUICE_BASE_TEXT_BUFFER_H

#include <stdlib.h>

#include "base/bits.h"
#include "base/span.h"

struct text_buffer {
    uint8_t *data;
    size_t n, cap;
};

/* Makes room for more bytes behind n. False: out of memory, nothing changed. */
static inline bool text_reserve(struct text_buffer *text, size_t more)
{
    size_t want;
    if (!add_size(text->n, more, &want)) return false;
    if (want <= text->cap) return true;
    size_t cap = max_size(want, text->cap + text->cap / 2 + 64);
    uint8_t *grown = realloc(text->data, cap);
    if (!grown) return false;
    text->data = grown;
    text->cap = cap;
    return true;
}

static inline bool text_append(struct text_buffer *text, const void *data, size_t len)
{
    if (!text_reserve(text, len)) return false;
    if (len) memcpy(text->data + text->n, data, len);
    text->n += len;
    return true;
}

static inline struct span text_span(const struct text_buffer *text)
{
    return span_of(text->data, text->n);
}

static inline void text_release(struct text_buffer *text)
{
    free(text->data);
    *text = (struct text_buffer){0};
}

#endif
