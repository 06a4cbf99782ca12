/* From Oniguruma's dialect (Ruby's syntax, UTF-8) to PCRE2's (split_regex.h). */
#include <stdio.h>

#include "base/utf8.h"
#include "token/split_regex.h"

/* Items of character classes, without brackets. White_Space, and what is not. */
#define SPACE_ITEMS                                                                                \
    "\\t-\\r\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"                     \
    "\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACE_ITEMS                                                                            \
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}"                          \
    "\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}"                 \
    "\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
#define WORD_ITEMS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define HEX_ITEMS "0-9A-Fa-f"
/* Outside of a set, Oniguruma counts these Latin-1 numbers as part of words, too. */
#define WORD "[" WORD_ITEMS "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}]"
#define ANY "(?s:.)"

enum { MAX_DEPTH = 50 };

struct translator {
    const uint8_t *start, *p, *end;
    struct text_buffer *out;
    struct sluice_error *err;
    int depth; /* of groups, or of sets within sets */
};

/* The construct from `from` on, len bytes as far as there are that many. */
static enum sluice_status refuse(const struct translator *t, const uint8_t *from, size_t len)
{
    return err_set(
        t->err, SLUICE_E_NO_TOKENIZER, "'%.*s' at byte %zu is a construct that is not known here",
        (int)min_size(len, (size_t)(t->end - from)), (const char *)from, (size_t)(from - t->start));
}

static enum sluice_status emit(struct translator *t, const void *data, size_t len)
{
    if (text_append(t->out, data, len)) return SLUICE_OK;
    return err_nomem(t->err, "regular expression", t->out->n);
}

static enum sluice_status emit_str(struct translator *t, const char *s)
{
    return emit(t, s, strlen(s));
}

static bool at_str(const struct translator *t, const char *s)
{
    size_t len = strlen(s);
    return (size_t)(t->end - t->p) >= len && memcmp(t->p, s, len) == 0;
}

/* Consumes s when it comes next. */
static bool take(struct translator *t, const char *s)
{
    if (!at_str(t, s)) return false;
    t->p += strlen(s);
    return true;
}

static bool is_alnum(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* One character, given by its code, as text that is no operator anywhere. */
static enum sluice_status emit_char(struct translator *t, uint32_t cp)
{
    char text[16];
    if (cp < 0x80 && is_alnum((uint8_t)cp))
        snprintf(text, sizeof text, "%c", (char)cp);
    else
        snprintf(text, sizeof text, "\\x{%x}", cp);
    return emit_str(t, text);
}

/* Long names of general categories, which PCRE2 knows by their short ones. */
static const char *const categories[][2] = {
    {"letter", "L"},
    {"uppercaseletter", "Lu"},
    {"lowercaseletter", "Ll"},
    {"titlecaseletter", "Lt"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"mark", "M"},
    {"nonspacingmark", "Mn"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"number", "N"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"punctuation", "P"},
    {"symbol", "S"},
    {"mathsymbol", "Sm"},
    {"currencysymbol", "Sc"},
    {"separator", "Z"},
    {"spaceseparator", "Zs"},
    {"lineseparator", "Zl"},
    {"other", "C"},
    {"control", "Cc"},
    {"paragraphseparator", "Zp"},
    {"format", "Cf"},
    {"dashpunctuation", "Pd"},
    {"connectorpunctuation", "Pc"},
    {"openpunctuation", "Ps"},
    {"closepunctuation", "Pe"},
    {"otherpunctuation", "Po"},
    {"modifiersymbol", "Sk"},
    {"initialpunctuation", "Pi"},
    {"finalpunctuation", "Pf"},
    {"othersymbol", "So"},
    {"unassigned", "Cn"},
    {"privateuse", "Co"},
};

/* name without blanks, hyphens and underscores, in lower case; false: too long or odd. */
static bool loose_name(struct span name, char out[40])
{
    size_t n = 0;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];
        if (c == ' ' || c == '-' || c == '_') continue;
        if (!is_alnum(c) || n == 39) return false;
        out[n++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
    }
    out[n] = '\0';
    return n > 0;
}

static bool is_script(const char *name)
{
    char pattern[64];
    int code;
    PCRE2_SIZE at;
    snprintf(pattern, sizeof pattern, "\\p{sc:%s}", name);
    pcre2_code *compiled =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &code, &at, NULL);
    pcre2_code_free(compiled);
    return compiled != NULL;
}

/* \p{Name}, \p{^Name}, \P{Name} and \pL, behind the backslash. */
static enum sluice_status property(struct translator *t, const uint8_t *escape)
{
    bool negated = *t->p++ == 'P';
    const uint8_t *close = t->p < t->end ? memchr(t->p, '}', (size_t)(t->end - t->p)) : NULL;
    if (t->p == t->end || *t->p != '{' || !close) return refuse(t, escape, (size_t)(t->p - escape));
    t->p++;
    if (t->p < close && *t->p == '^') {
        negated = !negated;
        t->p++;
    }
    char name[40], text[80];
    if (!loose_name(span_of(t->p, (size_t)(close - t->p)), name))
        return refuse(t, escape, (size_t)(close + 1 - escape));
    t->p = close + 1;
    const char *found = name;
    for (size_t i = 0; i < COUNT_OF(categories); i++)
        if (strcmp(name, categories[i][0]) == 0) found = categories[i][1];
    /* A bare script name means Script_Extensions to PCRE2. */
    const char *prefix = strlen(found) > 2 && is_script(found) ? "sc:" : "";
    snprintf(text, sizeof text, "\\%c{%s%s}", negated ? 'P' : 'p', prefix, found);
    return emit_str(t, text);
}

static int digit_of(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* \xHH, \x{H...} and \uHHHH, behind the backslash. */
static enum sluice_status code_escape(struct translator *t, const uint8_t *escape)
{
    size_t want = *t->p == 'u' ? 4 : 2;
    bool braces = *t->p++ == 'x' && take(t, "{");
    uint32_t cp = 0;
    size_t n = 0;
    if (braces) want = 6;
    for (; n < want && t->p < t->end && digit_of(*t->p) >= 0; n++)
        cp = cp << 4 | (uint32_t)digit_of(*t->p++);
    bool complete = braces ? n > 0 && take(t, "}") : n == want;
    if (!complete || cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000))
        return refuse(t, escape, (size_t)(t->p - escape));
    /* \x80 to \xff without braces are bytes of UTF-8 there. */
    if (want == 2 && cp >= 0x80) return refuse(t, escape, (size_t)(t->p - escape));
    return emit_char(t, cp);
}

/* Escapes that mean one character, wherever they stand; -1: another kind. */
static int32_t char_escape(uint8_t c)
{
    switch (c) {
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'f': return '\f';
    case 'v': return '\v';
    case 'a': return 7;
    case 'e': return 27;
    default: return c < 0x80 && !is_alnum(c) ? c : -1;
    }
}

/* What an escape letter becomes inside [...] and outside. */
static const struct shorthand {
    char letter;
    const char *in_set, *alone;
} shorthands[] = {
    {'s', SPACE_ITEMS, "[" SPACE_ITEMS "]"},
    {'S', NOT_SPACE_ITEMS, "[^" SPACE_ITEMS "]"},
    {'d', "\\p{Nd}", "\\p{Nd}"},
    {'D', "\\P{Nd}", "\\P{Nd}"},
    {'w', WORD_ITEMS, WORD},
    {'W', NULL, "(?:(?!" WORD ")" ANY ")"},
    {'h', HEX_ITEMS, "[" HEX_ITEMS "]"},
    {'H', NULL, "[^" HEX_ITEMS "]"},
    {'b', NULL, "(?:(?<!" WORD ")(?=" WORD ")|(?<=" WORD ")(?!" WORD "))"},
    {'B', NULL, "(?:(?<!" WORD ")(?!" WORD ")|(?<=" WORD ")(?=" WORD "))"},
    {'A', NULL, "\\A"},
    {'z', NULL, "\\z"},
    {'Z', NULL, "\\Z"},
};

/* A backslash and what belongs to it. */
static enum sluice_status escape(struct translator *t, bool in_set)
{
    const uint8_t *start = t->p++;
    if (t->p == t->end) return refuse(t, start, 1);
    uint8_t c = *t->p;
    if (c == 'p' || c == 'P') return property(t, start);
    if (c == 'x' || c == 'u') return code_escape(t, start);
    size_t len;
    uint32_t cp = utf8_char(t->p, &len);
    t->p += len;
    if (cp >= 0x80) return emit_char(t, cp);
    int32_t code = char_escape(c);
    if (code >= 0) return emit_char(t, (uint32_t)code);
    for (size_t i = 0; i < COUNT_OF(shorthands); i++) {
        if ((uint8_t)shorthands[i].letter != c) continue;
        const char *text = in_set ? shorthands[i].in_set : shorthands[i].alone;
        if (text) return emit_str(t, text);
    }
    return refuse(t, start, 2);
}

/* What was last read inside a set, for the meaning of a hyphen. */
enum set_item { ITEM_NONE, ITEM_CHAR, ITEM_MANY, ITEM_RANGE };

/* An operand of a set: what stands in one pair of brackets, and sets beside it. */
struct set_operand {
    struct text_buffer plain;  /* items without brackets */
    struct text_buffer nested; /* alternatives, '|' between */
    enum set_item last;
};

static enum sluice_status set(struct translator *t);

static enum sluice_status set_hyphen(struct translator *t, struct set_operand *operand)
{
    const uint8_t *start = t->p++;
    bool literal = operand->last == ITEM_NONE || at_str(t, "]") || at_str(t, "&&");
    if (!literal && operand->last != ITEM_CHAR) return refuse(t, start - 1, 3);
    operand->last = literal ? ITEM_CHAR : ITEM_RANGE;
    return emit_str(t, literal ? "\\-" : "-");
}

static enum sluice_status set_item(struct translator *t, struct set_operand *operand)
{
    const uint8_t *start = t->p;
    bool many = *t->p == '[' ||
                (*t->p == '\\' && t->p + 1 < t->end && strchr("sSdDwWhHpP", t->p[1]) && t->p[1]);
    if (many && operand->last == ITEM_RANGE) return refuse(t, start, 2);
    if (*t->p == '-') return set_hyphen(t, operand);
    operand->last = many ? ITEM_MANY : operand->last == ITEM_RANGE ? ITEM_NONE : ITEM_CHAR;
    if (*t->p == '\\') return escape(t, true);
    if (*t->p == '[') return set(t);
    size_t len;
    uint32_t cp = utf8_char(t->p, &len);
    t->p += len;
    return emit_char(t, cp);
}

/* Reads items up to && or the end of the set; ']' is an item only where a set begins. */
static enum sluice_status read_operand(struct translator *t, struct set_operand *operand,
                                       bool begins)
{
    struct text_buffer *out = t->out;
    const uint8_t *start = t->p;
    enum sluice_status status = SLUICE_OK;
    while (status == SLUICE_OK && t->p < t->end && !at_str(t, "&&")) {
        if (*t->p == ']' && !(begins && t->p == start)) break;
        t->out = *t->p == '[' ? &operand->nested : &operand->plain;
        if (*t->p == '[' && t->out->n) status = emit_str(t, "|");
        if (status == SLUICE_OK) status = set_item(t, operand);
    }
    t->out = out;
    if (status == SLUICE_OK && t->p == start) status = refuse(t, start - 1, 2);
    return status;
}

/* The operand as a pattern that matches one character. */
static enum sluice_status emit_operand(struct translator *t, const struct set_operand *operand,
                                       const char *open)
{
    if (operand->nested.n) TRY(emit_str(t, "(?:"));
    if (operand->plain.n) {
        TRY(emit_str(t, open));
        TRY(emit(t, operand->plain.data, operand->plain.n));
        TRY(emit_str(t, operand->nested.n ? "]|" : "]"));
    }
    if (!operand->nested.n) return SLUICE_OK;
    TRY(emit(t, operand->nested.data, operand->nested.n));
    return emit_str(t, ")");
}

/* Reads one operand and emits it between before and after. */
static enum sluice_status wrap_operand(struct translator *t, bool begins, const char *before,
                                       const char *after)
{
    struct set_operand operand = {.last = ITEM_NONE};
    enum sluice_status status = read_operand(t, &operand, begins);
    if (status == SLUICE_OK) status = emit_str(t, before);
    if (status == SLUICE_OK) status = emit_operand(t, &operand, "[");
    if (status == SLUICE_OK) status = emit_str(t, after);
    text_release(&operand.plain);
    text_release(&operand.nested);
    return status;
}

/* Where the set whose first item is at p has its bracket, and whether it is one pair of brackets.
 */
static bool is_plain_set(const struct translator *t)
{
    const uint8_t *p = t->p;
    if (p < t->end && *p == ']') p++;
    for (; p < t->end && *p != ']'; p++) {
        if (*p == '[' || (*p == '&' && p + 1 < t->end && p[1] == '&')) return false;
        if (*p == '\\') p++;
    }
    return true;
}

/* [...], with sets inside and &&: a character that each operand accepts. */
static enum sluice_status set(struct translator *t)
{
    const uint8_t *start = t->p++;
    if (++t->depth > MAX_DEPTH || at_str(t, ":") || at_str(t, "=") || at_str(t, "."))
        return refuse(t, start, 8);
    bool negated = take(t, "^");
    if (is_plain_set(t)) {
        struct set_operand operand = {.last = ITEM_NONE};
        enum sluice_status status = read_operand(t, &operand, true);
        if (status == SLUICE_OK) status = emit_operand(t, &operand, negated ? "[^" : "[");
        text_release(&operand.plain);
        TRY(status);
    } else {
        TRY(emit_str(t, negated ? "(?:(?!" : "(?:"));
        TRY(wrap_operand(t, true, "(?=", ")"));
        while (take(t, "&&")) TRY(wrap_operand(t, false, "(?=", ")"));
        TRY(emit_str(t, negated ? ")" ANY ")" : ANY ")"));
    }
    t->depth--;
    return take(t, "]") ? SLUICE_OK : refuse(t, start, 8);
}

/* (?i:, (?m-i: and the like; also (?i) where the pattern begins. m is PCRE2's s. */
static enum sluice_status option_group(struct translator *t, const uint8_t *start)
{
    TRY(emit_str(t, "(?"));
    while (t->p < t->end && strchr("im-", *t->p) && *t->p) {
        uint8_t c = *t->p++;
        TRY(emit_str(t, c == 'm' ? "s" : c == 'i' ? "i" : "-"));
    }
    if (take(t, ":")) {
        t->depth++;
        return emit_str(t, ":");
    }
    if (start == t->start && take(t, ")")) return emit_str(t, ")");
    return refuse(t, start, 8);
}

/* An opening parenthesis. Nothing refers to groups, so none needs to capture. */
static enum sluice_status group(struct translator *t)
{
    static const char *const kinds[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    const uint8_t *start = t->p;
    if (t->depth >= MAX_DEPTH) return refuse(t, start, 8);
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        if (!take(t, kinds[i])) continue;
        t->depth++;
        return emit_str(t, kinds[i]);
    }
    if (take(t, "(?")) return option_group(t, start);
    t->p++;
    if (at_str(t, "*")) return refuse(t, start, 8);
    t->depth++;
    return emit_str(t, "(?:");
}

/* Digits at t->p as a number of at most 65535; false: none, or more. */
static bool number(struct translator *t, unsigned *out)
{
    const uint8_t *start = t->p;
    *out = 0;
    while (t->p < t->end && *t->p >= '0' && *t->p <= '9' && *out <= 65535)
        *out = *out * 10 + (unsigned)(*t->p++ - '0');
    return t->p > start && *out <= 65535;
}

/* {n}, {n,}, {n,m} or {,m}; any other brace is a character. */
static enum sluice_status interval(struct translator *t)
{
    const uint8_t *start = t->p++;
    unsigned low, high;
    char text[32];
    bool has_low = number(t, &low);
    bool comma = take(t, ",");
    bool has_high = comma && number(t, &high);
    if (!(has_low || has_high) || !take(t, "}")) {
        t->p = start + 1;
        return emit_char(t, '{');
    }
    /* There, x{2}+ repeats x{2}, and x{2}? makes it optional; here they are other kinds. */
    if (at_str(t, "+") || (!comma && at_str(t, "?")))
        return refuse(t, start, (size_t)(t->p - start) + 1);
    if (has_high)
        snprintf(text, sizeof text, "{%u,%u}", has_low ? low : 0, high);
    else
        snprintf(text, sizeof text, comma ? "{%u,}" : "{%u}", low);
    return emit_str(t, text);
}

static enum sluice_status translate_next(struct translator *t)
{
    switch (*t->p) {
    case '\\': return escape(t, false);
    case '[': return set(t);
    case '(': return group(t);
    case '{': return interval(t);
    case ')': t->depth--; return emit(t, t->p++, 1);
    case '+':
    case '*':
    case '?':
    case '.':
    case '^':
    case '$':
    case '|': return emit(t, t->p++, 1);
    default: break;
    }
    size_t len;
    uint32_t cp = utf8_char(t->p, &len);
    t->p += len;
    return emit_char(t, cp);
}

enum sluice_status regex_translate(struct span pattern, struct text_buffer *out,
                                   struct sluice_error *err)
{
    if (!utf8_valid(pattern))
        return err_set(err, SLUICE_E_NO_TOKENIZER, "the pattern is not UTF-8");
    const uint8_t *end = pattern.data + pattern.len;
    struct translator t = {pattern.data, pattern.data, end, out, err, 0};
    while (t.p < t.end) TRY(translate_next(&t));
    return SLUICE_OK;
}
