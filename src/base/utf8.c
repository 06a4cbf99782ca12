#include "base/utf8.h"

/* The second byte of a character lies in [lo, hi], which depends on the first; n_bytes 0: none. */
struct lead {
    uint8_t n_bytes, lo, hi;
};

static struct lead lead_of(uint8_t b)
{
    if (b < 0x80) return (struct lead){1, 0, 0};
    if (b < 0xc2 || b > 0xf4) return (struct lead){0, 0, 0};
    if (b < 0xe0) return (struct lead){2, 0x80, 0xbf};
    if (b < 0xf0) return (struct lead){3, b == 0xe0 ? 0xa0 : 0x80, b == 0xed ? 0x9f : 0xbf};
    return (struct lead){4, b == 0xf0 ? 0x90 : 0x80, b == 0xf4 ? 0x8f : 0xbf};
}

enum utf8_kind utf8_next(const uint8_t *p, size_t n, size_t *len, uint32_t *cp)
{
    struct lead lead = lead_of(p[0]);
    *len = 1;
    if (lead.n_bytes == 0) return UTF8_INVALID;
    uint32_t c = lead.n_bytes == 1 ? p[0] : p[0] & (0x7fu >> lead.n_bytes);
    for (size_t i = 1; i < lead.n_bytes; i++) {
        *len = i;
        if (i == n) return UTF8_PARTIAL;
        uint8_t lo = i == 1 ? lead.lo : 0x80;
        uint8_t hi = i == 1 ? lead.hi : 0xbf;
        if (p[i] < lo || p[i] > hi) return UTF8_INVALID;
        c = c << 6 | (p[i] & 0x3fu);
    }
    *len = lead.n_bytes;
    *cp = c;
    return UTF8_CHAR;
}

uint32_t utf8_char(const uint8_t *p, size_t *len)
{
    if (p[0] < 0x80) {
        *len = 1;
        return p[0];
    }
    size_t n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    uint32_t c = p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) c = c << 6 | (p[i] & 0x3fu);
    *len = n;
    return c;
}

const uint8_t *utf8_prev(const uint8_t *p)
{
    do p--;
    while ((*p & 0xc0) == 0x80);
    return p;
}

size_t utf8_put(uint32_t cp, uint8_t out[4])
{
    if (cp < 0x80) {
        out[0] = (uint8_t)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, cp >>= 6) out[i] = (uint8_t)(0x80 | (cp & 0x3f));
    out[0] = (uint8_t)((0xf00u >> n & 0xf0u) | cp);
    return n;
}

/* The first position at or after i that holds a byte above 0x7f. */
static size_t skip_ascii(struct span text, size_t i)
{
    while (i + 8 <= text.len) {
        uint64_t word;
        memcpy(&word, text.data + i, sizeof word);
        if (word & 0x8080808080808080u) break;
        i += 8;
    }
    while (i < text.len && text.data[i] < 0x80) i++;
    return i;
}

/* The first position at or after i that is not inside a valid character. */
static size_t skip_valid(struct span text, size_t i)
{
    for (;;) {
        i = skip_ascii(text, i);
        if (i == text.len) return i;
        size_t len;
        uint32_t cp;
        if (utf8_next(text.data + i, text.len - i, &len, &cp) != UTF8_CHAR) return i;
        i += len;
    }
}

size_t utf8_valid_prefix(struct span text)
{
    return skip_valid(text, 0);
}

bool utf8_valid(struct span text)
{
    return skip_valid(text, 0) == text.len;
}

bool utf8_append_lossy(struct text_buffer *out, struct span text)
{
    size_t i = 0;
    while (i < text.len) {
        size_t end = skip_valid(text, i);
        if (!text_append(out, text.data + i, end - i)) return false;
        if (end == text.len) break;
        size_t len;
        uint32_t cp;
        utf8_next(text.data + end, text.len - end, &len, &cp);
        if (!text_append(out, "\xef\xbf\xbd", 3)) return false;
        i = end + len;
    }
    return true;
}
