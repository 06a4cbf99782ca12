#include "token/pretokenize.h"

#include "token/sentencepiece.h"

/* One call: where pieces go. */
struct run {
    const struct pretokenizer *pre;
    bool prefix; /* pieces get a blank in front */
    struct pretokenize_scratch *scratch;
    piece_fn *piece;
    void *user;
    struct sluice_error *err;
};

/* The parts of one piece at one step, as they come. A part waits here while it may still grow. */
struct splitter {
    struct run *run;
    size_t step;
    struct span piece;
    enum split_behavior behavior;
    bool waiting;
    size_t start, end;  /* the part that waits */
    bool last_is_match; /* kind of the part before */
};

static enum sluice_status run_steps(struct run *run, size_t step, struct span piece);

static enum sluice_status give(const struct splitter *s, size_t start, size_t end)
{
    if (start == end) return SLUICE_OK;
    return run_steps(s->run, s->step + 1, span_of(s->piece.data + start, end - start));
}

static enum sluice_status give_waiting(struct splitter *s)
{
    if (!s->waiting) return SLUICE_OK;
    s->waiting = false;
    return give(s, s->start, s->end);
}

/* True when a part joins the one that waits. */
static bool joins(const struct splitter *s, bool is_match)
{
    if (!s->waiting) return false;
    switch (s->behavior) {
    case SPLIT_CONTIGUOUS: return is_match == s->last_is_match;
    case SPLIT_MERGED_WITH_PREVIOUS: return is_match && !s->last_is_match;
    case SPLIT_MERGED_WITH_NEXT: return !is_match && s->last_is_match;
    case SPLIT_ISOLATED:
    case SPLIT_REMOVED: break;
    }
    return false;
}

static enum sluice_status take_part(struct splitter *s, size_t start, size_t end, bool is_match)
{
    if (s->behavior == SPLIT_ISOLATED) return give(s, start, end);
    if (s->behavior == SPLIT_REMOVED) return is_match ? SLUICE_OK : give(s, start, end);
    if (joins(s, is_match)) {
        s->end = end;
    } else {
        TRY(give_waiting(s));
        s->waiting = true;
        s->start = start;
        s->end = end;
    }
    s->last_is_match = is_match;
    return SLUICE_OK;
}

static enum sluice_status split(struct run *run, size_t step, struct span piece,
                                struct regex_walk *walk)
{
    const struct pretokenize_step *how = &run->pre->steps[step];
    struct splitter s = {.run = run, .step = step, .piece = piece, .behavior = how->behavior};
    size_t done = 0;
    for (;;) {
        struct regex_match match;
        TRY(regex_next(how->code, piece, run->scratch->match_data, walk, &match, run->err));
        if (!match.found) break;
        if (match.start > done) TRY(take_part(&s, done, match.start, how->invert));
        TRY(take_part(&s, match.start, match.end, !how->invert));
        done = match.end;
    }
    if (done < piece.len) TRY(take_part(&s, done, piece.len, how->invert));
    return give_waiting(&s);
}

/* piece with a blank in front, unless it begins with one. */
static enum sluice_status add_prefix(struct run *run, struct span *piece)
{
    if (piece->data[0] == ' ') return SLUICE_OK;
    struct text_buffer *text = &run->scratch->prefixed;
    text->n = 0;
    if (!text_append(text, " ", 1) || !text_append(text, piece->data, piece->len))
        return err_nomem(run->err, "piece of text", piece->len);
    *piece = text_span(text);
    return SLUICE_OK;
}

/* Steps from `step` on. The depth of the recursion is the number of steps. */
static enum sluice_status run_steps(struct run *run, size_t step, struct span piece)
{
    const struct pretokenizer *pre = run->pre;
    if (run->prefix && step + pre->n_after == pre->n_steps) TRY(add_prefix(run, &piece));
    if (step == pre->n_steps) return run->piece(run->user, piece, run->err);
    struct regex_walk walk = {0};
    enum sluice_status status = split(run, step, piece, &walk);
    regex_walk_release(&walk);
    return status;
}

static enum sluice_status read_blanks(struct span *text, struct text_buffer *out,
                                      struct sluice_error *err)
{
    out->n = 0;
    if (!text_reserve(out, text->len)) return err_nomem(err, "piece of text", text->len);
    out->n = sentencepiece_blanks(*text, out->data);
    *text = text_span(out);
    return SLUICE_OK;
}

enum sluice_status pretokenize(const struct pretokenizer *pre, struct span text, bool first,
                               struct pretokenize_scratch *scratch, piece_fn *piece, void *user,
                               struct sluice_error *err)
{
    if (text.len == 0) return SLUICE_OK;
    if (pre->blanks) TRY(read_blanks(&text, &scratch->blanks, err));
    /* The bounds of the whole match are all that is asked for. */
    if (!scratch->match_data) scratch->match_data = pcre2_match_data_create(1, NULL);
    if (!scratch->match_data) return err_nomem(err, "regular expression", sizeof(size_t));
    bool prefix = pre->prefix_space && (first || !pre->only_first);
    struct run run = {pre, prefix, scratch, piece, user, err};
    return run_steps(&run, 0, text);
}

void pretokenize_scratch_release(struct pretokenize_scratch *scratch)
{
    pcre2_match_data_free(scratch->match_data);
    text_release(&scratch->prefixed);
    text_release(&scratch->blanks);
    *scratch = (struct pretokenize_scratch){0};
}

void pretokenizer_release(struct pretokenizer *pre)
{
    for (size_t i = 0; i < pre->n_steps; i++) pcre2_code_free(pre->steps[i].code);
    *pre = (struct pretokenizer){0};
}
