#include "stop_text.h"

#include <stdint.h>
#include <string.h>

struct found {
    size_t begin, end; /* of the complete stop string that ends first; end SIZE_MAX: none */
    size_t partial;    /* where a stop string that is not complete may begin; or the length */
};

static struct found search(const struct stop_text *stop)
{
    const struct buffer *held = &stop->held;
    struct found f = {.end = SIZE_MAX, .partial = held->len};
    for (size_t at = 0; at < held->len; at++) {
        size_t rest = held->len - at;
        for (size_t i = 0; i < stop->n_stops; i++) {
            size_t len = strlen(stop->stops[i]);
            size_t n = len < rest ? len : rest;
            if (memcmp(held->data + at, stop->stops[i], n) != 0) continue;
            if (len > rest) {
                if (at < f.partial) f.partial = at;
            } else if (at + len < f.end) {
                f.begin = at;
                f.end = at + len;
            }
        }
    }
    return f;
}

bool stop_text_push(struct stop_text *stop, const char *piece, size_t len, struct buffer *out)
{
    struct buffer *held = &stop->held;
    buffer_add(held, piece, len);
    if (held->failed) out->failed = true;
    struct found f = search(stop);
    bool complete = f.end != SIZE_MAX;
    size_t safe = complete ? f.begin : f.partial;
    if (!safe) return complete;
    buffer_add(out, held->data, safe);
    held->len -= safe;
    memmove(held->data, held->data + safe, held->len);
    return complete;
}

void stop_text_finish(struct stop_text *stop, struct buffer *out)
{
    buffer_add(out, stop->held.data, stop->held.len);
    stop->held.len = 0;
}

void stop_text_release(struct stop_text *stop)
{
    buffer_release(&stop->held);
}
