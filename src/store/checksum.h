/* XXH3-128 checksums (https://xxhash.com) of bytes that come in pieces, and their text form. */
#ifndef SLUICE_STORE_CHECKSUM_H
#define SLUICE_STORE_CHECKSUM_H

#include "base/err.h"
#include "base/span.h"

struct checksum {
    uint64_t high, low;
};

enum { CHECKSUM_DIGITS = 32 };

struct checksum checksum_of(const void *data, size_t len);
static inline bool checksum_equal(struct checksum a, struct checksum b)
{
    return a.high == b.high && a.low == b.low;
}

/* 32 hexadecimal digits, as xxhsum -H2 prints them. */
void checksum_format(struct checksum sum, char text[CHECKSUM_DIGITS + 1]);
/* False: text does not begin with 32 hexadecimal digits in lower case. */
bool checksum_parse(struct span text, struct checksum *sum);

/* A running checksum; NULL from checksum_begin: out of memory. */
struct checksum_state;
struct checksum_state *checksum_begin(void);
void checksum_reset(struct checksum_state *state);
void checksum_add(struct checksum_state *state, const void *data, size_t len);
struct checksum checksum_end(const struct checksum_state *state);
void checksum_free(struct checksum_state *state);

#endif
