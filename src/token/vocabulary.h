/*
 * The tokens of a model: bytes of each id, in one block, and the ids of texts and of bytes. Ids
 * that no token has (holes) have no bytes. Immutable after loading.
 */
#ifndef SLUICE_TOKEN_VOCABULARY_H
#define SLUICE_TOKEN_VOCABULARY_H

#include "base/err.h"
#include "base/map.h"
#include "base/text_buffer.h"
#include "token/byte_alphabet.h"

enum {
    VOCABULARY_MAX_IDS = 1 << 22, /* ids are below this */
    VOCABULARY_MAX_BYTES = 1 << 30,
};

enum token_flags {
    TOKEN_USED = 1,    /* not a hole */
    TOKEN_ADDED = 2,   /* listed in added_tokens */
    TOKEN_SPECIAL = 4, /* marked as special there */
};

/* How a file writes down the bytes of tokens. */
enum vocabulary_spelling {
    SPELLED_IN_BYTES,      /* in the byte alphabet, where that is possible */
    SPELLED_SENTENCEPIECE, /* as text, see sentencepiece.h */
};

struct token {
    uint32_t off; /* into vocabulary.bytes */
    uint32_t len : 24;
    uint32_t flags : 8; /* enum token_flags */
};

struct vocabulary {
    enum vocabulary_spelling spelling;
    struct byte_alphabet alphabet;
    struct text_buffer bytes; /* never moves after init: keys of the maps point into it */
    struct token *tokens;     /* [n_ids] */
    uint32_t n_ids;           /* one past the largest id */
    uint32_t cap;
    uint32_t n_model;    /* tokens of model.vocab */
    struct map by_bytes; /* tokens of model.vocab in the byte alphabet, by the bytes they mean */
    struct map by_text;  /* all others, by their text */
    int32_t byte_tokens[256]; /* SentencePiece's tokens for one byte, in no map; -1: none */
};

/* Room for n_bytes of token texts, of model.vocab and added ones together. Errors: NOMEM, FORMAT
 * when that is too much. */
enum sluice_status vocabulary_init(struct vocabulary *vocab, enum vocabulary_spelling spelling,
                                   size_t n_bytes, struct sluice_error *err);
void vocabulary_release(struct vocabulary *vocab);

/* Reads model.vocab, {"text": id, ...}. Errors: FORMAT, NOMEM. */
enum sluice_status vocabulary_read(struct vocabulary *vocab, struct span json, const char *file,
                                   struct sluice_error *err);

/*
 * Gives id the bytes of text and flags besides, for a token of added_tokens. A token of model.vocab
 * may become an added one, under its own id. Errors: FORMAT, NOMEM.
 */
enum sluice_status vocabulary_add(struct vocabulary *vocab, struct span text, uint32_t id,
                                  unsigned flags, const char *file, struct sluice_error *err);

/* Id of the token of model.vocab that has this text in tokenizer.json; -1: none. Errors: NOMEM. */
enum sluice_status vocabulary_find_text(const struct vocabulary *vocab, struct span text,
                                        int32_t *id, struct sluice_error *err);
/* Id of the token of model.vocab that means these bytes; -1: none. */
int32_t vocabulary_find_bytes(const struct vocabulary *vocab, struct span bytes);

/* Frees what the two searches need, once all that refers to tokens is read. */
void vocabulary_forget_names(struct vocabulary *vocab);

static inline struct span vocabulary_bytes(const struct vocabulary *vocab, uint32_t id)
{
    return span_of(vocab->bytes.data + vocab->tokens[id].off, vocab->tokens[id].len);
}

#endif
