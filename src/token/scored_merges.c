/* The merges of a vocabulary with scores (bpe.h). */
#include "base/utf8.h"
#include "token/bpe.h"

/* Ways to cut a token grow with its length; those of real vocabularies have at most 16 characters.
 */
enum { MAX_SCORED_BYTES = 1024 };

struct scored {
    float score;
    uint32_t id;
};

static int by_score(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* Tokens of model.vocab that no single byte is, best first. */
static bool sort_tokens(const struct vocabulary *vocab, const float *scores, struct scored *list,
                        size_t *n)
{
    *n = 0;
    for (uint32_t id = 0; id < vocab->n_ids; id++) {
        struct span bytes = vocabulary_bytes(vocab, id);
        if (!vocab->tokens[id].flags || vocabulary_find_bytes(vocab, bytes) != (int32_t)id)
            continue;
        if (bytes.len > MAX_SCORED_BYTES) return false;
        list[(*n)++] = (struct scored){scores[id], id};
    }
    qsort(list, *n, sizeof *list, by_score);
    return true;
}

typedef void pair_fn(struct bpe *bpe, uint32_t left, uint32_t right, uint32_t rank, uint32_t both);

static void count_pair(struct bpe *bpe, uint32_t left, uint32_t right, uint32_t rank, uint32_t both)
{
    (void)left, (void)right, (void)rank, (void)both;
    bpe->n_merges++;
}

static void put_pair(struct bpe *bpe, uint32_t left, uint32_t right, uint32_t rank, uint32_t both)
{
    pair_table_put(&bpe->merges, left, right, rank, both);
}

/* Calls pair for each way to make a token of two. */
static void each_pair(struct bpe *bpe, const struct vocabulary *vocab, const struct scored *list,
                      size_t n, pair_fn *pair)
{
    uint32_t rank = 0;
    for (size_t i = 0; i < n; i++) {
        struct span all = vocabulary_bytes(vocab, list[i].id);
        if (i > 0 && list[i].score != list[i - 1].score) rank++;
        for (size_t at = 0, len; at < all.len; at += len) {
            (void)utf8_char(all.data + at, &len);
            int32_t left = vocabulary_find_bytes(vocab, span_of(all.data, at));
            int32_t right = vocabulary_find_bytes(vocab, span_of(all.data + at, all.len - at));
            if (at > 0 && left >= 0 && right >= 0)
                pair(bpe, (uint32_t)left, (uint32_t)right, rank, list[i].id);
        }
    }
}

enum sluice_status bpe_from_scores(struct bpe *bpe, const struct vocabulary *vocab,
                                   const float *scores, const char *file, struct sluice_error *err)
{
    size_t n, bytes = (vocab->n_ids + (size_t)1) * sizeof(struct scored);
    struct scored *list = malloc(bytes);
    if (!list) return err_nomem(err, "merges", bytes);
    bool fits = sort_tokens(vocab, scores, list, &n);
    bool done = true;
    memcpy(bpe->byte_ids, vocab->byte_tokens, sizeof bpe->byte_ids);
    bpe->by_chars = true;
    bpe->n_merges = 0;
    if (fits) {
        each_pair(bpe, vocab, list, n, count_pair);
        done = pair_table_init(&bpe->merges, bpe->n_merges);
    }
    if (fits && done) each_pair(bpe, vocab, list, n, put_pair);
    free(list);
    if (!done) return err_nomem(err, "merges", bpe->n_merges * sizeof(struct pair_slot));
    if (fits) return SLUICE_OK;
    return err_set(err, SLUICE_E_NO_TOKENIZER,
                   "%s: a token of the SentencePiece vocabulary has more than %d bytes", file,
                   MAX_SCORED_BYTES);
}
