#include "store/checksum.h"

#include <inttypes.h>
#include <stdio.h>
#include <xxhash.h>

static struct checksum from_xxh(XXH128_hash_t h)
{
    return (struct checksum){.high = h.high64, .low = h.low64};
}

struct checksum checksum_of(const void *data, size_t len)
{
    return from_xxh(XXH3_128bits(data, len));
}

void checksum_format(struct checksum sum, char text[CHECKSUM_DIGITS + 1])
{
    snprintf(text, CHECKSUM_DIGITS + 1, "%016" PRIx64 "%016" PRIx64, sum.high, sum.low);
}

static bool parse_digit(uint8_t c, uint64_t *value)
{
    if (c >= '0' && c <= '9')
        *value = *value << 4 | (uint64_t)(c - '0');
    else if (c >= 'a' && c <= 'f')
        *value = *value << 4 | (uint64_t)(c - 'a' + 10);
    else
        return false;
    return true;
}

bool checksum_parse(struct span text, struct checksum *sum)
{
    *sum = (struct checksum){0};
    if (text.len < CHECKSUM_DIGITS) return false;
    for (size_t i = 0; i < CHECKSUM_DIGITS; i++)
        if (!parse_digit(text.data[i], i < CHECKSUM_DIGITS / 2 ? &sum->high : &sum->low))
            return false;
    return true;
}

struct checksum_state *checksum_begin(void)
{
    XXH3_state_t *state = XXH3_createState();
    if (state) XXH3_128bits_reset(state);
    return (struct checksum_state *)state;
}

void checksum_reset(struct checksum_state *state)
{
    XXH3_128bits_reset((XXH3_state_t *)state);
}

void checksum_add(struct checksum_state *state, const void *data, size_t len)
{
    XXH3_128bits_update((XXH3_state_t *)state, data, len);
}

struct checksum checksum_end(const struct checksum_state *state)
{
    return from_xxh(XXH3_128bits_digest((const XXH3_state_t *)state));
}

void checksum_free(struct checksum_state *state)
{
    XXH3_freeState((XXH3_state_t *)state);
}
