/*
 * UTF-8 as the Unicode standard defines it, with malformed input cut into maximal subparts: the
 * longest prefix of a character that never completes counts as one error (Unicode 15, 3.9, U+FFFD
 * Substitution of Maximal Subparts).
 */
#ifndef SLUICE_BASE_UTF8_H
#define SLUICE_BASE_UTF8_H

#include "base/span.h"
#include "base/text_buffer.h"

enum utf8_kind {
    UTF8_CHAR,    /* *len bytes are the character *cp */
    UTF8_INVALID, /* *len bytes can never become a character */
    UTF8_PARTIAL, /* all n bytes are the beginning of a character; *len is n */
};

/* What the n > 0 bytes at p begin with. *cp is set for UTF8_CHAR only. */
enum utf8_kind utf8_next(const uint8_t *p, size_t n, size_t *len, uint32_t *cp);

/* The character at p of text that is valid; *len its bytes. */
uint32_t utf8_char(const uint8_t *p, size_t *len);
/* Where the character that ends before p begins; p is inside valid text, not at its start. */
const uint8_t *utf8_prev(const uint8_t *p);
/* Writes cp, a valid code point, to out; gives the number of bytes. */
size_t utf8_put(uint32_t cp, uint8_t out[4]);

/* Bytes of text up to the first error. */
size_t utf8_valid_prefix(struct span text);
bool utf8_valid(struct span text);
/* Appends text with each error replaced by U+FFFD. False: out of memory. */
bool utf8_append_lossy(struct text_buffer *out, struct span text);

#endif
