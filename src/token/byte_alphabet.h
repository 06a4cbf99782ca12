/*
 * The alphabet of byte-level BPE (GPT-2): each byte is written as one printable character, itself
 * where it is printable in Latin-1, else the next free one from U+0100 on.
 */
#ifndef SLUICE_TOKEN_BYTE_ALPHABET_H
#define SLUICE_TOKEN_BYTE_ALPHABET_H

#include "base/span.h"

enum { BYTE_ALPHABET_END = 0x144 }; /* one past the largest character of the alphabet */

struct byte_alphabet {
    int16_t byte_of[BYTE_ALPHABET_END]; /* by code point; -1: not in the alphabet */
};

void byte_alphabet_init(struct byte_alphabet *alphabet);
/*
 * Writes the bytes that valid UTF-8 text stands for to out, which may be text.data and needs
 * text.len bytes. False: text has a character outside the alphabet; then out is undefined.
 */
bool byte_alphabet_decode(const struct byte_alphabet *alphabet, struct span text, uint8_t *out,
                          size_t *len);

#endif
