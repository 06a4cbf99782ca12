/*
 * Cuts text into the pieces that byte-pair encoding works on: the steps of a tokenizer.json's
 * pre_tokenizer one after the other, each on every piece that the one before it gave. The last
 * step is ByteLevel; with a SentencePiece vocabulary there is Metaspace alone, or nothing.
 * Immutable after reading.
 */
#ifndef SLUICE_TOKEN_PRETOKENIZE_H
#define SLUICE_TOKEN_PRETOKENIZE_H

#include "format/json.h"
#include "token/split_regex.h"

enum { PRETOKENIZE_MAX_STEPS = 32 };

/* What becomes of the matches of a split (of what is between them, when inverted). */
enum split_behavior {
    SPLIT_ISOLATED,             /* a piece of their own */
    SPLIT_REMOVED,              /* dropped */
    SPLIT_MERGED_WITH_PREVIOUS, /* the end of the piece before */
    SPLIT_MERGED_WITH_NEXT,     /* the beginning of the piece behind */
    SPLIT_CONTIGUOUS,           /* neighbouring matches are one piece */
};

struct pretokenize_step {
    pcre2_code *code;
    enum split_behavior behavior;
    bool invert;
};

struct pretokenizer {
    struct pretokenize_step steps[PRETOKENIZE_MAX_STEPS];
    size_t n_steps;
    bool prefix_space; /* each piece gets a blank in front, before the last n_after steps */
    bool only_first;   /* only where the text begins */
    bool blanks;       /* U+2581 is a blank */
    size_t n_after;
    bool has_byte_level;
};

/*
 * Reads the value of pre_tokenizer. sentencepiece: that is how the vocabulary is spelled. Errors:
 * NO_TOKENIZER for kinds that are not known here, FORMAT, NOMEM. Release after an error, too.
 */
enum sluice_status pretokenizer_read(struct pretokenizer *pre, const json_t *value,
                                     bool sentencepiece, const char *file,
                                     struct sluice_error *err);
void pretokenizer_release(struct pretokenizer *pre);

/* Receives one piece, never empty; the memory is the call's. */
typedef enum sluice_status piece_fn(void *user, struct span piece, struct sluice_error *err);

/* Memory of one thread. Zero-initialise. */
struct pretokenize_scratch {
    pcre2_match_data *match_data;
    struct text_buffer prefixed, blanks;
};

void pretokenize_scratch_release(struct pretokenize_scratch *scratch);

/*
 * Calls piece for each piece of text, valid UTF-8, in order. first: nothing is before text. Errors:
 * NOMEM, UNSUPPORTED, piece's.
 */
enum sluice_status pretokenize(const struct pretokenizer *pre, struct span text, bool first,
                               struct pretokenize_scratch *scratch, piece_fn *piece, void *user,
                               struct sluice_error *err);

#endif
