/* UTF-8 with errors, character classes, the byte alphabet, normalization, the pair table. */
#include <utf8proc.h>

#include "base/rng.h"
#include "token/unicode.h"
#include "token_make.h"

static struct text_buffer lossy(const char *bytes, size_t len)
{
    struct text_buffer out = {0};
    utf8_append_lossy(&out, span_of(bytes, len));
    text_append(&out, "", 1);
    return out;
}

#define R "\xef\xbf\xbd"

static void test_errors_are_maximal_subparts(void)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain", "plain"},
        /* Tables 3-8 to 3-11 of the standard. */
        {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", R R R R R R R R "A"},
        {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", R R R R R R R R "A"},
        {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", R R R R R "A" R R "B"},
        {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", R R R R "A"},
        {"\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64", R R R "b" R "c" R R "d"},
        {"abcdefgh\xe4\xb8\xad\xe4\xb8", "abcdefgh\xe4\xb8\xad" R},
        {"\xf4\x8f\xbf\xbf\xee\x80\x80\xc2\x80", "\xf4\x8f\xbf\xbf\xee\x80\x80\xc2\x80"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct text_buffer out = lossy(cases[i].in, strlen(cases[i].in));
        CHECK_STR((const char *)out.data, cases[i].out);
        CHECK(utf8_valid(span_str(cases[i].in)) == (strcmp(cases[i].in, cases[i].out) == 0));
        text_release(&out);
    }
}

static void test_every_character_survives(void)
{
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        uint8_t bytes[4];
        size_t n = utf8_put(cp, bytes), len;
        uint32_t back = 0;
        bool surrogate = cp >= 0xd800 && cp < 0xe000;
        enum utf8_kind kind = utf8_next(bytes, n, &len, &back);
        if ((kind == UTF8_CHAR) == surrogate) CHECK(false, "U+%04X", cp);
        if (surrogate) continue;
        if (back != cp || len != n || utf8_char(bytes, &len) != cp || len != n ||
            utf8_prev(bytes + n) != bytes)
            CHECK(false, "U+%04X", cp);
        for (size_t k = 1; k < n; k++)
            if (utf8_next(bytes, k, &len, &back) != UTF8_PARTIAL || len != k)
                CHECK(false, "U+%04X cut to %zu", cp, k);
    }
}

static void test_character_classes(void)
{
    static const uint32_t spaces[] = {9,      10,     11,     12,     13,     32,     0x85,
                                      0xa0,   0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004,
                                      0x2005, 0x2006, 0x2007, 0x2008, 0x2009, 0x200a, 0x2028,
                                      0x2029, 0x202f, 0x205f, 0x3000};
    size_t k = 0;
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        bool want = k < COUNT_OF(spaces) && spaces[k] == cp;
        k += want;
        if (unicode_is_space(cp) != want) CHECK(false, "U+%04X", cp);
    }
    CHECK(k == COUNT_OF(spaces));
    static const uint32_t words[] = {'a',    'Z',    '0',    '_',    0xe9,  0x330,
                                     0x4e2d, 0x2160, 0x200d, 0x24b6, 0x203f};
    static const uint32_t others[] = {' ', '-', 0xb2, 0x25cc, 0x1f600, 0x3001, 0x2460};
    for (size_t i = 0; i < COUNT_OF(words); i++) CHECK(unicode_is_word(words[i]), "%x", words[i]);
    for (size_t i = 0; i < COUNT_OF(others); i++)
        CHECK(!unicode_is_word(others[i]), "%x", others[i]);
}

static void test_byte_alphabet(void)
{
    struct byte_alphabet alphabet;
    byte_alphabet_init(&alphabet);
    uint8_t out[32];
    size_t len;
    REQUIRE(
        byte_alphabet_decode(&alphabet, span_str("\xc4\xa0hi\xc4\x8a\xc3\xa9\xc5\x83"), out, &len));
    CHECK(len == 6 && memcmp(out, " hi\n\xe9\xad", 6) == 0);
    CHECK(!byte_alphabet_decode(&alphabet, span_str("a b"), out, &len));
    CHECK(!byte_alphabet_decode(&alphabet, span_str("\xc5\x84"), out, &len));
    CHECK(!byte_alphabet_decode(&alphabet, span_str("\xe4\xb8\xad"), out, &len));
    CHECK(!byte_alphabet_decode(&alphabet, span_str("\xc2\xad"), out, &len));
    bool seen[256] = {false};
    for (size_t cp = 0; cp < BYTE_ALPHABET_END; cp++)
        if (alphabet.byte_of[cp] >= 0) seen[alphabet.byte_of[cp]] = true;
    for (size_t b = 0; b < 256; b++) CHECK(seen[b], "%zu", b);
}

static bool nfc_equals(struct span text, const char *want)
{
    struct text_buffer buffer = {0};
    struct normalize_scratch scratch = {0};
    struct span out;
    bool equal = normalize_nfc(text, &buffer, &scratch, &out) && span_equal(out, span_str(want));
    text_release(&buffer);
    normalize_scratch_release(&scratch);
    return equal;
}

static void test_nfc_of_known_texts(void)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"", ""},
        {"ascii", "ascii"},
        {"e\u0301", "\u00e9"},
        {"xe\u0301y", "x\u00e9y"},
        {"a\u0323\u0308", "\u1ea1\u0308"},
        {"a\u0308\u0323", "\u1ea1\u0308"},
        {"\u212b\u2126", "\u00c5\u03a9"},
        {"\u1100\u1161\u11a8", "\uac01"},
        {"\u304b\u3099", "\u304c"},
        {"\u0958", "\u0915\u093c"},
        {"\u0301", "\u0301"},
        {"\u4e2d\u6587\u0301x", "\u4e2d\u6587\u0301x"},
        {"\u2000", "\u2002"},
        {"\U0001d15e", "\U0001d157\U0001d165"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        CHECK(nfc_equals(span_str(cases[i].in), cases[i].out), "case %zu", i);
}

/* Against utf8proc's own way, and each character between neighbours that it may join with. */
static void test_nfc_of_every_character(void)
{
    for (uint32_t cp = 1; cp < 0x110000; cp++) {
        if (cp >= 0xd800 && cp < 0xe000) continue;
        uint8_t text[32];
        size_t n = utf8_put('a', text);
        n += utf8_put(cp, text + n);
        n += utf8_put(0x301, text + n);
        n += utf8_put(cp, text + n);
        n += utf8_put(0x323, text + n);
        text[n] = '\0';
        utf8proc_uint8_t *want = utf8proc_NFC(text);
        REQUIRE(want);
        if (!nfc_equals(span_of(text, n), (const char *)want)) CHECK(false, "U+%04X", cp);
        free(want);
    }
}

static void test_nfc_of_random_texts(void)
{
    static const uint32_t points[] = {'a',    'e',    0xe9,   0x301,  0x308,  0x323,   0x327,
                                      0x345,  0x1100, 0x1161, 0x11a8, 0xac00, 0x304b,  0x3099,
                                      0x4e2d, 0x2126, 0x3b1,  0x430,  0x306,  0x1d157, 0x1d165,
                                      0x2014, 0x9fff, 0x5d0,  0x5b0,  0xfb1d, 0x915,   0x93c};
    struct rng rng = {7};
    for (int round = 0; round < 20000; round++) {
        uint8_t text[128];
        size_t n = 0;
        for (uint32_t i = rng_below(&rng, 24); i > 0; i--)
            n += utf8_put(points[rng_below(&rng, COUNT_OF(points))], text + n);
        text[n] = '\0';
        utf8proc_uint8_t *want = utf8proc_NFC(text);
        REQUIRE(want);
        if (!nfc_equals(span_of(text, n), (const char *)want)) CHECK(false, "round %d", round);
        free(want);
    }
}

/* Two million marks out of order: a sort that is quadratic would take hours. */
static void test_nfc_is_linear_in_marks(void)
{
    enum { PAIRS = 1000000 };
    struct text_buffer text = {0}, out = {0};
    struct normalize_scratch scratch = {0};
    struct span result;
    REQUIRE(text_append(&text, "q", 1));
    for (int i = 0; i < PAIRS; i++) REQUIRE(text_append(&text, "\u0301\u0323", 4));
    REQUIRE(normalize_nfc(text_span(&text), &out, &scratch, &result));
    CHECK(result.len == text.n);
    CHECK(result.len > 4 && memcmp(result.data, "q\u0323\u0323", 5) == 0);
    CHECK(memcmp(result.data + result.len - 4, "\u0301\u0301", 4) == 0);
    text_release(&text);
    text_release(&out);
    normalize_scratch_release(&scratch);
}

static void test_pair_table(void)
{
    struct pair_table table;
    enum { N = 5000 };
    REQUIRE(pair_table_init(&table, N));
    for (uint32_t i = 0; i < N; i++) pair_table_put(&table, i % 71, i, i * 3, i + 1);
    pair_table_put(&table, 0, 0, 99, 98);
    CHECK(table.n == N);
    for (uint32_t i = 1; i < N; i++) {
        const struct pair_slot *slot = pair_table_find(&table, i % 71, i);
        CHECK(slot && slot->first == i * 3 && slot->second == i + 1);
    }
    CHECK(pair_table_find(&table, 0, 0)->first == 99);
    CHECK(!pair_table_find(&table, 70, 1) && !pair_table_find(&table, 1, N + 1));
    pair_table_release(&table);
}

#define CASES(C)                                                                                   \
    C(errors_are_maximal_subparts)                                                                 \
    C(every_character_survives)                                                                    \
    C(character_classes)                                                                           \
    C(byte_alphabet)                                                                               \
    C(nfc_of_known_texts)                                                                          \
    C(nfc_of_every_character)                                                                      \
    C(nfc_of_random_texts)                                                                         \
    C(nfc_is_linear_in_marks)                                                                      \
    C(pair_table)
CHECK_MAIN(CASES)
