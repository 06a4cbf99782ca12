/*
 * Byte-pair encoding of one piece of text (Sennrich, Haddow, Birch, ACL 2016): of all adjacent
 * pairs that the merges list, the one of lowest rank is joined, the leftmost among equals, until
 * none is left. Short pieces are scanned, long ones use a heap: O(n log n) whatever the text.
 *
 * A piece begins as bytes or, with a vocabulary spelled as SentencePiece does, as characters; one
 * that is no token becomes its bytes.
 */
#ifndef SLUICE_TOKEN_BPE_H
#define SLUICE_TOKEN_BPE_H

#include "base/array.h"
#include "token/pair_table.h"
#include "token/vocabulary.h"

struct bpe {
    struct pair_table merges; /* (left id, right id) -> (rank, id of both together) */
    uint32_t *results;        /* [n_merges] by rank; NULL: a rank may be that of several merges */
    uint32_t n_merges;
    bool by_chars;
    int32_t byte_ids[256]; /* -1: the vocabulary lacks the byte */
    int32_t unk_id;        /* for bytes without a token; -1: they are left out */
    bool fuse_unk;         /* one unk_id for a run of such bytes */
    bool ignore_merges;    /* a piece that is a token is that token */
};

/*
 * Reads model.merges, ["a b", ...] or [["a", "b"], ...], and looks up the 256 bytes. Errors:
 * FORMAT, NOMEM.
 */
enum sluice_status bpe_read(struct bpe *bpe, const struct vocabulary *vocab, struct span json,
                            const char *file, struct sluice_error *err);
/*
 * The merges of a SentencePiece vocabulary, which lists none: any two tokens that are a token
 * together, by falling scores [n_ids of vocab]. Errors: NO_TOKENIZER when a token is too long,
 * NOMEM.
 */
enum sluice_status bpe_from_scores(struct bpe *bpe, const struct vocabulary *vocab,
                                   const float *scores, const char *file, struct sluice_error *err);
void bpe_release(struct bpe *bpe);

/* Ids for the caller: all are counted, the first cap are kept. */
struct id_sink {
    int32_t *ids;
    size_t cap, n;
};

static inline void id_sink_put(struct id_sink *sink, uint32_t id)
{
    if (sink->n < sink->cap) sink->ids[sink->n] = (int32_t)id;
    sink->n++;
}

/* Memory for long pieces, reused from piece to piece. Zero-initialise. */
struct bpe_scratch {
    struct bpe_symbol *symbols;
    size_t cap;
    ARRAY(uint64_t) heap; /* rank << 32 | position of the left symbol */
};

void bpe_scratch_release(struct bpe_scratch *scratch);

/* Appends the ids of a piece. False: out of memory. */
bool bpe_encode(const struct bpe *bpe, const struct vocabulary *vocab, struct span piece,
                struct bpe_scratch *scratch, struct id_sink *sink);

#endif
