#include "token/sentencepiece.h"

static const uint8_t blank_sign[3] = {0xe2, 0x96, 0x81}; /* U+2581 */

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

int sentencepiece_byte(struct span text)
{
    if (text.len != 6 || memcmp(text.data, "<0x", 3) != 0 || text.data[5] != '>') return -1;
    int high = hex_digit(text.data[3]), low = hex_digit(text.data[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

size_t sentencepiece_blanks(struct span text, uint8_t *out)
{
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        bool blank = text.len - i >= sizeof blank_sign &&
                     memcmp(text.data + i, blank_sign, sizeof blank_sign) == 0;
        out[n++] = blank ? ' ' : text.data[i];
        if (blank) i += sizeof blank_sign - 1;
    }
    return n;
}
