/*
 * The tokenizer behind a pipe, for comparison with another implementation.
 *
 *     tokenize_lines FOLDER encode   records of text -> a line of ids each, without special tokens
 *     tokenize_lines FOLDER decode   records of ids (i32) -> records of text
 *     tokenize_lines FOLDER pieces   records of text -> a line with the bytes of each piece, as the
 *                                    pre-tokenizer alone cuts it
 *     tokenize_lines points          a line with the code points that the Unicode tables know
 *
 * A record is its length in bytes (u32) and the bytes; numbers are little-endian.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/span.h"
#include "base/utf8.h"
#include "sluice/sluice.h"
#include "token/tokenizer.h"

static int fail(const char *what)
{
    fprintf(stderr, "tokenize_lines: %s\n", what);
    return 1;
}

/* The next record of stdin; false at the end. *data is reused from call to call. */
static bool read_record(uint8_t **data, size_t *len)
{
    uint8_t head[4];
    if (fread(head, 1, 4, stdin) != 4) return false;
    *len = load_u32le(head);
    uint8_t *grown = realloc(*data, *len + 1);
    if (!grown) return false;
    *data = grown;
    return fread(*data, 1, *len, stdin) == *len;
}

static int encode_record(const sluice_tokenizer *tokenizer, struct span text)
{
    struct sluice_error err;
    size_t n, cap = text.len * 4 + 64;
    int32_t *ids = malloc(cap * sizeof *ids);
    if (!ids) return fail("out of memory");
    enum sluice_status status = sluice_tokenize(tokenizer, (const char *)text.data, text.len,
                                                SLUICE_TOKENIZE_NO_SPECIAL, ids, cap, &n, &err);
    if (status != SLUICE_OK || n > cap) return fail(status ? err.message : "too many ids");
    for (size_t i = 0; i < n; i++) printf(i ? " %d" : "%d", ids[i]);
    putchar('\n');
    free(ids);
    return 0;
}

static int decode_record(const sluice_tokenizer *tokenizer, struct span record)
{
    struct sluice_error err;
    size_t n = record.len / 4, len;
    int32_t *ids = calloc(n + 1, sizeof *ids);
    for (size_t i = 0; ids && i < n; i++) ids[i] = (int32_t)load_u32le(record.data + 4 * i);
    if (!ids || sluice_detokenize(tokenizer, ids, n, 0, NULL, 0, &len, &err))
        return fail(ids ? err.message : "out of memory");
    char *text = malloc(len + 1);
    if (!text || sluice_detokenize(tokenizer, ids, n, 0, text, len, &len, &err))
        return fail(text ? err.message : "out of memory");
    const uint8_t head[4] = {(uint8_t)len, (uint8_t)(len >> 8), (uint8_t)(len >> 16),
                             (uint8_t)(len >> 24)};
    fwrite(head, 1, 4, stdout);
    fwrite(text, 1, len, stdout);
    free(ids);
    free(text);
    return 0;
}

static enum sluice_status print_piece(void *user, struct span piece, struct sluice_error *err)
{
    (void)user, (void)err;
    printf("%zu ", piece.len);
    return SLUICE_OK;
}

static int piece_record(const sluice_tokenizer *tokenizer, struct span text)
{
    struct sluice_error err;
    struct pretokenize_scratch scratch = {0};
    enum sluice_status status =
        pretokenize(&tokenizer->pre, text, true, &scratch, print_piece, NULL, &err);
    pretokenize_scratch_release(&scratch);
    putchar('\n');
    return status ? fail(err.message) : 0;
}

static int print_points(void)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *assigned = pcre2_compile((PCRE2_SPTR) "\\A\\P{Cn}", PCRE2_ZERO_TERMINATED,
                                         PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    pcre2_match_data *match = assigned ? pcre2_match_data_create(1, NULL) : NULL;
    if (!match) return fail("out of memory");
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
        uint8_t text[4];
        if (cp >= 0xd800 && cp <= 0xdfff) continue;
        size_t len = utf8_put(cp, text);
        if (pcre2_match(assigned, text, len, 0, 0, match, NULL) >= 0) printf("%u ", cp);
    }
    putchar('\n');
    pcre2_match_data_free(match);
    pcre2_code_free(assigned);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "points") == 0) return print_points();
    if (argc != 3) return fail("usage: tokenize_lines FOLDER encode|decode|pieces, or points");
    struct sluice_error err;
    sluice_tokenizer *tokenizer;
    if (sluice_tokenizer_open(&tokenizer, argv[1], &err)) return fail(err.message);
    int (*handle)(const sluice_tokenizer *, struct span) =
        strcmp(argv[2], "decode") == 0   ? decode_record
        : strcmp(argv[2], "pieces") == 0 ? piece_record
                                         : encode_record;
    uint8_t *data = NULL;
    size_t len;
    int bad = 0;
    while (!bad && read_record(&data, &len)) bad = handle(tokenizer, span_of(data, len));
    free(data);
    sluice_tokenizer_close(&tokenizer);
    return bad;
}
