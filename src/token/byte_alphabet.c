#include "token/byte_alphabet.h"

static bool is_printable(unsigned b)
{
    return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

void byte_alphabet_init(struct byte_alphabet *alphabet)
{
    for (size_t i = 0; i < BYTE_ALPHABET_END; i++) alphabet->byte_of[i] = -1;
    unsigned next = 0x100;
    for (unsigned b = 0; b < 256; b++) {
        unsigned cp = is_printable(b) ? b : next++;
        alphabet->byte_of[cp] = (int16_t)b;
    }
}

bool byte_alphabet_decode(const struct byte_alphabet *alphabet, struct span text, uint8_t *out,
                          size_t *len)
{
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned cp = text.data[i];
        if (cp >= 0x80) {
            if (cp > 0xc5) return false;
            cp = (cp & 0x1fu) << 6 | (text.data[++i] & 0x3fu);
        }
        if (cp >= BYTE_ALPHABET_END || alphabet->byte_of[cp] < 0) return false;
        out[n++] = (uint8_t)alphabet->byte_of[cp];
    }
    *len = n;
    return true;
}
