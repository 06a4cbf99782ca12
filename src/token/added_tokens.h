/*
 * Tokens that are found in the text itself before it is cut into pieces: those of added_tokens.
 * Two tries, since some are looked for in the text as it is and some after normalization. Among
 * several that begin at one place the longest wins; the text is walked from left to right.
 */
#ifndef SLUICE_TOKEN_ADDED_TOKENS_H
#define SLUICE_TOKEN_ADDED_TOKENS_H

#include "base/array.h"
#include "base/err.h"
#include "base/span.h"
#include "token/pair_table.h"

struct added_token {
    struct span text; /* what is looked for */
    uint32_t id;
    bool special;
    bool normalized;  /* is looked for after normalization */
    bool single_word; /* not next to a word's characters */
    bool lstrip;      /* takes the white space before it */
    bool rstrip;      /* takes the white space behind it */
};

/* Nodes are numbered; 0 is the root. */
struct added_trie {
    struct pair_table edges; /* (node, byte) -> (node, index of the token that ends there + 1) */
    bool first[256];         /* bytes that some token begins with */
    const struct added_token *tokens;
};

/*
 * A trie of those of tokens[n], which live as long as the trie, whose normalized is as given.
 * Earlier ones win over later ones with the same text. False: out of memory.
 */
bool added_trie_init(struct added_trie *trie, const struct added_token *tokens, size_t n,
                     bool normalized);
void added_trie_release(struct added_trie *trie);

/* A part of the text: a token when id >= 0, else what lies between tokens. */
struct added_part {
    struct span text;
    int32_t id;
};

/* Walks over text, valid UTF-8. */
struct added_walk {
    const struct added_trie *trie;
    struct span text;
    bool plain;     /* special tokens are text */
    size_t done;    /* parts up to here were given */
    size_t at;      /* matches are looked for from here on */
    int32_t queued; /* a token to give after the text before it; -1: none */
    size_t queued_end;
};

void added_walk_init(struct added_walk *walk, const struct added_trie *trie, struct span text,
                     bool plain);
/* The next part, which may be empty for a token only. False: there is none. */
bool added_walk_next(struct added_walk *walk, struct added_part *part);

#endif
