/* Split patterns and behaviours: what they cut, and which constructs are refused by name. */
#include "token_make.h"

static enum sluice_status join_piece(void *user, struct span piece, struct sluice_error *err)
{
    (void)err;
    struct text_buffer *out = user;
    if (out->n) text_append(out, "|", 1);
    text_append(out, piece.data, piece.len);
    return SLUICE_OK;
}

/* The pieces of text with '|' between, in static memory; a message when it fails. */
static const char *pieces(const char *pre, const char *text)
{
    static struct sluice_error err;
    static char line[2048];
    struct sluice_tokenizer *t;
    const struct recipe r = {.pre = pre};
    if (make_open(&r, &t, &err)) return err.message;
    struct text_buffer out = {0};
    struct pretokenize_scratch scratch = {0};
    enum sluice_status status =
        pretokenize(&t->pre, span_str(text), true, &scratch, join_piece, &out, &err);
    snprintf(line, sizeof line, "%.*s", (int)out.n, (const char *)out.data);
    pretokenize_scratch_release(&scratch);
    text_release(&out);
    tokenizer_close(t);
    return status ? err.message : line;
}

/* The vectors of the reference implementation's own tests. */
static void test_behaviors(void)
{
#define WORDS(behavior) SEQUENCE(SPLIT("Regex", "\\\\w+|[^\\\\w\\\\s]+", behavior, "true"))
    const char *text = "How are you doing?";
    CHECK_STR(pieces(WORDS("Removed"), text), "How|are|you|doing|?");
    CHECK_STR(pieces(WORDS("Isolated"), text), "How| |are| |you| |doing|?");
    CHECK_STR(pieces(WORDS("MergedWithPrevious"), text), "How |are |you |doing|?");
    CHECK_STR(pieces(WORDS("MergedWithNext"), text), "How| are| you| doing|?");
    CHECK_STR(pieces(WORDS("Contiguous"), text), "How| |are| |you| |doing?");
#undef WORDS
    CHECK_STR(pieces(SEQUENCE(SPLIT("String", "-", "MergedWithPrevious", "false")), "--a-b--"),
              "-|-|a-|b-|-");
    CHECK_STR(pieces(SEQUENCE(SPLIT("String", "-", "MergedWithNext", "false")), "--a-b--"),
              "-|-a|-b|-|-");
    CHECK_STR(pieces(SEQUENCE(SPLIT("String", "-", "Contiguous", "false")), "--a-b--"),
              "--|a|-|b|--");
    CHECK_STR(pieces(SEQUENCE(SPLIT("String", "-", "Removed", "false")), "--a-b--"), "a|b");
}

static void test_strings_are_literal(void)
{
    CHECK_STR(pieces(SEQUENCE(SPLIT("String", ".", "Isolated", "false")), "a.b"), "a|.|b");
    CHECK_STR(pieces(SEQUENCE(SPLIT("String", "(a", "Isolated", "false")), "x(ay"), "x|(a|y");
    CHECK_STR(pieces(SEQUENCE(SPLIT("String", "", "Isolated", "false")), "ab"), "ab");
    CHECK_STR(pieces(SEQUENCE(SPLIT("String", "\\u00e9", "Isolated", "false")), "x\u00e9y"),
              "x|\u00e9|y");
}

static void test_steps_follow_each_other(void)
{
    CHECK_STR(pieces(SEQUENCE(SPLIT("Regex", "\\\\s", "Isolated",
                                    "false") ","
                                             "{\"type\":\"Digits\",\"individual_digits\":true}"),
                     "ab12 3"),
              "ab|1|2| |3");
    CHECK_STR(
        pieces(SEQUENCE("{\"type\":\"Digits\",\"individual_digits\":false}"), "a12\u00bd\u0663b"),
        "a|12\u00bd\u0663|b");
    /* A piece is a text of its own: what surrounds it is not seen. */
    CHECK_STR(pieces(SEQUENCE(SPLIT("String", "x", "Isolated",
                                    "false") "," SPLIT("Regex", "(?<=x)a|^b", "Isolated", "false")),
                     "xaxbb"),
              "x|a|x|b|b");
}

static void test_byte_level_prefix_and_regex(void)
{
    CHECK_STR(pieces("{\"type\":\"ByteLevel\"}", "Hello my friend, it's"),
              " Hello| my| friend|,| it|'s");
    CHECK_STR(pieces("{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", " Hello"), " Hello");
    CHECK_STR(pieces(GPT2_LEVEL, "a   b\n\n c12 '"), "a|  | b|\n\n| c|12| '");
    CHECK_STR(pieces("{\"type\":\"Sequence\",\"pretokenizers\":[" SPLIT(
                         "String", "-", "Removed", "false") ",{\"type\":\"ByteLevel\",\"add_prefix_"
                                                            "space\":true,\"use_regex\":false}]}",
                     "a- b-c"),
              " a| b| c");
}

static void test_dialect(void)
{
#define ISOLATED(pattern) SEQUENCE(SPLIT("Regex", pattern, "Isolated", "false"))
    /* White space is White_Space: U+0085 is, U+180E and U+200B are not. */
    CHECK_STR(pieces(ISOLATED("\\\\s+"), "a\xc2\x85"
                                         "b\u180ec\u200bd"),
              "a|\xc2\x85|"
              "b\u180ec\u200bd");
    CHECK_STR(pieces(ISOLATED("[^\\\\S\\\\n]"), "a b\n"
                                                "c\xc2\x85"),
              "a| |b\nc|\xc2\x85");
    CHECK_STR(pieces(ISOLATED("\\\\S"), " a\u180e "), " |a|\u180e| ");
    /* Case folding goes beyond ASCII. */
    CHECK_STR(pieces(ISOLATED("(?i:'s)x"), "a'\u017fxb"), "a|'\u017fx|b");
    CHECK_STR(pieces(ISOLATED("(?i)k"), "a\u212ab"), "a|\u212a|b");
    CHECK_STR(pieces(ISOLATED("(?m:a.)b"), "a\nb"), "a\nb");
    CHECK_STR(pieces(ISOLATED("a."), "a\nab"), "a\n|ab");
    CHECK_STR(pieces(ISOLATED("(?-i:a)|(?i-m:B)"), "ABab"), "A|B|a|b");
    /* ^ and $ are at every line. */
    CHECK_STR(pieces(ISOLATED("^b$"), "a\nb\nc"), "a\n|b|\nc");
    CHECK_STR(pieces(ISOLATED("\\\\Ab|b\\\\z"), "b\nb\nb"), "b|\nb\n|b");
    /* A script is the script alone, without what else its texts use. */
    CHECK_STR(pieces(ISOLATED("\\\\p{Han}+"), "\u4e2d\u3001x"), "\u4e2d|\u3001x");
    CHECK_STR(pieces(ISOLATED("\\\\p{^Han}\\\\P{Letter}"), "\u4e2da.\u4e2d"), "\u4e2d|a.|\u4e2d");
    CHECK_STR(pieces(ISOLATED("\\\\p{Uppercase_Letter}"), "aBc"), "a|B|c");
    CHECK_STR(pieces(ISOLATED("\\\\w+"), "a\u0301_\u203f\u00b2-b"), "a\u0301_\u203f\u00b2|-|b");
    CHECK_STR(pieces(ISOLATED("\\\\d"), "a\u0663b"), "a|\u0663|b");
    CHECK_STR(pieces(ISOLATED("\\\\h+"), "xaF09g"), "x|aF09|g");
    CHECK_STR(pieces(ISOLATED("\\\\b"), "ab cd"), "ab| |cd");
    CHECK_STR(pieces(ISOLATED("\\\\u0062|\\\\x63|\\\\x{1f600}"), "abc\U0001f600"),
              "a|b|c|\U0001f600");
    CHECK_STR(pieces(ISOLATED("\\\\v|\\\\/|\\\\-"), "a\vb\nc/d-"), "a|\v|b\nc|/|d|-");
    CHECK_STR(pieces(ISOLATED("a{,2}b|x{2}|{"), "aaabxx{"), "a|aab|xx|{");
    CHECK_STR(pieces(ISOLATED("[]a]+|[b-]"), "x]ab-"), "x|]a|b|-");
    CHECK_STR(pieces(ISOLATED("[a-z&&[^aeiou]]+"), "abcde"), "a|bcd|e");
    CHECK_STR(pieces(ISOLATED("[^a-z&&[^aeiou]]+"), "abcde1"), "a|bcd|e1");
    CHECK_STR(pieces(ISOLATED("[x[a-c]y]+"), "zxaybz"), "z|xayb|z");
    CHECK_STR(pieces(ISOLATED("[^[a-c]]+"), "abzx"), "ab|zx");
    CHECK_STR(pieces(ISOLATED("x(?#c)?"), "x"),
              "tokenizer.json: pre_tokenizer[0].pattern: '(?#c)?' "
              "at byte 1 is a construct that is not known here");
    /* Empty matches cut, but not next to a match that ends there. */
    CHECK_STR(pieces(ISOLATED("b*"), "abbc\u00e9"), "a|bb|c|\u00e9");
}

static void test_refused_patterns(void)
{
    static const char *const patterns[] = {
        "(a)\\\\1",  "(?<n>a)",     "(?P<n>a)", "\\\\k<n>",  "\\\\g<1>",    "\\\\R",
        "\\\\X",     "\\\\K",       "a(?i)b",   "(?x:a b)",  "[[:alpha:]]", "a{1,3}+",
        "a{2}?",     "\\\\p{Nope}", "\\\\pL",   "\\\\p{",    "\\\\xg1",     "\\\\x{110000}",
        "\\\\ud800", "\\\\x80",     "[a",       "[\\\\w-a]", "[a-\\\\s]",   "[a&&]",
        "a)",        "(a",          "*a",       "[z-a]",     "(*UCP)a",     "\\\\",
        "\\\\p{L",   "\\\\c@",      "(?>a",     "(?<=a*)b",  "[[a]",        "\\\\x{d800}",
    };
    for (size_t i = 0; i < COUNT_OF(patterns); i++) {
        char pre[256];
        struct sluice_error err;
        struct sluice_tokenizer *t;
        snprintf(pre, sizeof pre, SEQUENCE(SPLIT("Regex", "%s", "Isolated", "false")), patterns[i]);
        const struct recipe r = {.pre = pre};
        enum sluice_status status = make_open(&r, &t, &err);
        CHECK(status == SLUICE_E_NO_TOKENIZER, "%s: %d", patterns[i], status);
        CHECK(status == SLUICE_OK || strstr(err.message, "pre_tokenizer[0].pattern"), "%s",
              err.message);
        if (status == SLUICE_OK) tokenizer_close(t);
    }
}

static void test_deep_patterns_end(void)
{
    char pattern[400], pre[800];
    memset(pattern, '(', 200);
    snprintf(pattern + 200, sizeof pattern - 200, "a");
    snprintf(pre, sizeof pre, SEQUENCE(SPLIT("Regex", "%s", "Isolated", "false")), pattern);
    CHECK(strstr(pieces(pre, "a"), "not known here") != NULL);
    memset(pattern, '[', 200);
    snprintf(pre, sizeof pre, SEQUENCE(SPLIT("Regex", "%s", "Isolated", "false")), pattern);
    CHECK(strstr(pieces(pre, "a"), "not known here") != NULL);
}

/* A group that repeats needs memory with the text; the walk must give it that. */
static void test_long_matches(void)
{
    enum { N = 300000 };
    const struct recipe r = {.pre = ISOLATED("(?:a|[a-b&&[^c]])+")};
    struct sluice_error err;
    struct sluice_tokenizer *t;
    CHECK_OK(make_open(&r, &t, &err));
    char *text = malloc(N);
    REQUIRE(text);
    memset(text, 'a', N);
    size_t n;
    CHECK_OK(sluice_tokenize(t, text, N, 0, NULL, 0, &n, &err));
    CHECK(n == N);
    free(text);
    tokenizer_close(t);
}

#define CASES(C)                                                                                   \
    C(behaviors)                                                                                   \
    C(strings_are_literal)                                                                         \
    C(steps_follow_each_other)                                                                     \
    C(byte_level_prefix_and_regex)                                                                 \
    C(dialect)                                                                                     \
    C(refused_patterns)                                                                            \
    C(deep_patterns_end)                                                                           \
    C(long_matches)
CHECK_MAIN(CASES)
