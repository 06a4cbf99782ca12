/*
 * Split patterns of tokenizers, compiled with PCRE2. They are written for Oniguruma (Ruby's
 * dialect), where the same characters do not always mean the same: regex_translate rewrites what
 * differs (white space, words, scripts, sets of sets, anchors) and refuses what it does not know,
 * so that no pattern is silently understood otherwise.
 */
#ifndef SLUICE_TOKEN_SPLIT_REGEX_H
#define SLUICE_TOKEN_SPLIT_REGEX_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/err.h"
#include "base/text_buffer.h"

/*
 * Appends the PCRE2 form of pattern, valid UTF-8, to out. Errors: NO_TOKENIZER when it uses what
 * is not known here, NOMEM. The message does not name the file.
 */
enum sluice_status regex_translate(struct span pattern, struct text_buffer *out,
                                   struct sluice_error *err);

/* Compiles a pattern of tokenizer.json. Errors: NO_TOKENIZER, NOMEM. Free with pcre2_code_free. */
enum sluice_status regex_compile(struct span pattern, pcre2_code **out, struct sluice_error *err);
/* Compiles a pattern that matches the text literally. */
enum sluice_status regex_compile_literal(struct span text, pcre2_code **out,
                                         struct sluice_error *err);

/* Walks over the matches in one piece of text as Rust's onig crate does. Zero-initialise. */
struct regex_walk {
    size_t at;       /* where the next search begins */
    size_t last_end; /* of the last match */
    bool matched;
    pcre2_jit_stack *stack; /* made when a match needs more than the default */
    pcre2_match_context *context;
};

struct regex_match {
    bool found;
    size_t start, end;
};

/*
 * The next match in subject, valid UTF-8. Errors: NOMEM, UNSUPPORTED when the pattern exceeds
 * PCRE2's limits on this text.
 */
enum sluice_status regex_next(const pcre2_code *code, struct span subject,
                              pcre2_match_data *match_data, struct regex_walk *walk,
                              struct regex_match *match, struct sluice_error *err);
void regex_walk_release(struct regex_walk *walk);

#endif
