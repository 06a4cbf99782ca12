#include "clean_text.h"

/* Length of the well-formed character at s[0..n), or 0 (Unicode 15, table 3-7). */
static size_t character(const unsigned char *s, size_t n)
{
    unsigned char c = s[0];
    if (c < 0x80) return 1;
    if (c < 0xc2 || c > 0xf4) return 0;
    size_t len = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    if (len > n) return 0;
    unsigned char low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    unsigned char high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < len; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    return len;
}

void clean_text(const char *text, size_t len, struct buffer *out)
{
    const unsigned char *s = (const unsigned char *)text;
    for (size_t i = 0; i < len;) {
        size_t n = character(s + i, len - i);
        if (n) {
            buffer_add(out, text + i, n);
            i += n;
        } else {
            buffer_text(out, "\xef\xbf\xbd");
            i++;
        }
    }
}
