#include "token/split_regex.h"

/* More steps than the default of ten million, for long pieces, but not hours of backtracking. */
enum { STACK_START = 32 << 10, STACK_MAX = 64 << 20, MATCH_LIMIT = 100000000 };

static enum sluice_status compile(struct span pattern, uint32_t options, pcre2_code **out,
                                  struct sluice_error *err)
{
    *out = NULL;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context) return err_nomem(err, "regular expression", pattern.len);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int code;
    PCRE2_SIZE at;
    *out = pcre2_compile(pattern.data, pattern.len, options, &code, &at, context);
    pcre2_compile_context_free(context);
    if (!*out) {
        PCRE2_UCHAR text[160];
        pcre2_get_error_message(code, text, sizeof text);
        return err_set(err, SLUICE_E_NO_TOKENIZER, "%s at byte %zu of '%.*s'", (const char *)text,
                       at, (int)min_size(pattern.len, 200), (const char *)pattern.data);
    }
    /* Without a compiler for this machine the interpreter does the same, slower. */
    pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);
    return SLUICE_OK;
}

enum sluice_status regex_compile(struct span pattern, pcre2_code **out, struct sluice_error *err)
{
    struct text_buffer text = {0};
    *out = NULL;
    enum sluice_status status = regex_translate(pattern, &text, err);
    if (status == SLUICE_OK)
        status = compile(text_span(&text), PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, out, err);
    text_release(&text);
    return status;
}

enum sluice_status regex_compile_literal(struct span text, pcre2_code **out,
                                         struct sluice_error *err)
{
    return compile(text, PCRE2_UTF | PCRE2_LITERAL, out, err);
}

void regex_walk_release(struct regex_walk *walk)
{
    pcre2_match_context_free(walk->context);
    pcre2_jit_stack_free(walk->stack);
    *walk = (struct regex_walk){0};
}

static bool grow_stack(struct regex_walk *walk)
{
    if (walk->stack) return false;
    walk->context = pcre2_match_context_create(NULL);
    walk->stack = pcre2_jit_stack_create(STACK_START, STACK_MAX, NULL);
    if (!walk->context || !walk->stack) return false;
    pcre2_set_match_limit(walk->context, MATCH_LIMIT);
    pcre2_jit_stack_assign(walk->context, NULL, walk->stack);
    return true;
}

static int search(const pcre2_code *code, struct span subject, pcre2_match_data *match_data,
                  struct regex_walk *walk)
{
    int rc = pcre2_match(code, subject.data, subject.len, walk->at, PCRE2_NO_UTF_CHECK, match_data,
                         walk->context);
    if ((rc == PCRE2_ERROR_JIT_STACKLIMIT || rc == PCRE2_ERROR_MATCHLIMIT) && grow_stack(walk))
        rc = pcre2_match(code, subject.data, subject.len, walk->at, PCRE2_NO_UTF_CHECK, match_data,
                         walk->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(code, subject.data, subject.len, walk->at,
                         PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match_data, walk->context);
    return rc;
}

enum sluice_status regex_next(const pcre2_code *code, struct span subject,
                              pcre2_match_data *match_data, struct regex_walk *walk,
                              struct regex_match *match, struct sluice_error *err)
{
    match->found = false;
    while (walk->at <= subject.len) {
        int rc = search(code, subject, match_data, walk);
        if (rc == PCRE2_ERROR_NOMATCH) return SLUICE_OK;
        if (rc == PCRE2_ERROR_NOMEMORY || rc == PCRE2_ERROR_HEAPLIMIT)
            return err_nomem(err, "regular expression", subject.len);
        if (rc < 0)
            return err_set(err, SLUICE_E_UNSUPPORTED,
                           "text: the tokenizer's regular expression exceeds a limit (PCRE2 error "
                           "%d) on a piece of %zu bytes",
                           rc, subject.len);
        const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(match_data);
        size_t start = ends[0], end = ends[1];
        if (start == end && walk->matched && walk->last_end == end) {
            /* An empty match directly behind the last one does not count. */
            do walk->at++;
            while (walk->at < subject.len && (subject.data[walk->at] & 0xc0) == 0x80);
            continue;
        }
        walk->at = walk->last_end = end;
        walk->matched = true;
        *match = (struct regex_match){true, start, end};
        return SLUICE_OK;
    }
    return SLUICE_OK;
}
