#ifndef APPS_CLEAN_TEXT_H
#define APPS_CLEAN_TEXT_H

#include "buffer.h"

/* Adds text to out; each byte that is not part of well-formed UTF-8 becomes U+FFFD. */
void clean_text(const char *text, size_t len, struct buffer *out);

#endif
