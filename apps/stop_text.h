/*
 * Ending a text before a stop string. Text arrives in pieces; what could be the beginning of a
 * stop string is held back until it is clear that it is none.
 */
#ifndef APPS_STOP_TEXT_H
#define APPS_STOP_TEXT_H

#include "buffer.h"

struct stop_text {
    const char *const *stops; /* none of them empty */
    size_t n_stops;
    struct buffer held;
};

/*
 * Adds a piece and appends to out what can be printed. True: a stop string is complete (the one
 * that ends first; of two that end together, the longer); out then has the text before it, and
 * nothing more is to be pushed. How the text is cut into pieces does not matter.
 */
bool stop_text_push(struct stop_text *stop, const char *piece, size_t len, struct buffer *out);
/* What is still held back goes to out: no more text comes. */
void stop_text_finish(struct stop_text *stop, struct buffer *out);
void stop_text_release(struct stop_text *stop);

#endif
