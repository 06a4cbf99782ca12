/*
 * How SentencePiece vocabularies (Kudo and Richardson, EMNLP 2018) spell tokens: a blank is U+2581,
 * a byte is <0x0A>. Here both are what they mean, in tokens and in texts.
 */
#ifndef SLUICE_TOKEN_SENTENCEPIECE_H
#define SLUICE_TOKEN_SENTENCEPIECE_H

#include "base/span.h"

/* The byte that a token of this text stands for; -1: it stands for none. */
int sentencepiece_byte(struct span text);
/* Writes text with every U+2581 as a blank to out, which may be text.data; gives the length. */
size_t sentencepiece_blanks(struct span text, uint8_t *out);

#endif
