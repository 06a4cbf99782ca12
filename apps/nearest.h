/* The word that a mistyped one was probably meant to be. */
#ifndef APPS_NEAREST_H
#define APPS_NEAREST_H

#include <stddef.h>

/*
 * The candidate with the smallest edit distance to word[0..len), or NULL when all are too far
 * (more than a third of the word, and more than two edits) or word is longer than 64 bytes.
 * Distance: insert, delete, replace, or swap two neighbours (optimal string alignment).
 */
const char *nearest(const char *word, size_t len, const char *const *candidates, size_t n);

#endif
