#include "token/bpe.h"
#include "base/utf8.h"

/* A symbol of a long piece, linked to its neighbours by index. */
struct bpe_symbol {
    uint32_t id;
    uint32_t rank; /* of the merge with the next one; NO_RANK: none, or this symbol is gone */
    uint32_t prev, next;
};

enum { SHORT_PIECE = 64 };
#define NO_RANK UINT32_MAX
#define NO_SYMBOL UINT32_MAX

void bpe_release(struct bpe *bpe)
{
    pair_table_release(&bpe->merges);
    free(bpe->results);
    *bpe = (struct bpe){0};
}

void bpe_scratch_release(struct bpe_scratch *scratch)
{
    free(scratch->symbols);
    array_release(&scratch->heap);
    *scratch = (struct bpe_scratch){0};
}

static uint32_t pair_rank(const struct bpe *bpe, uint32_t left, uint32_t right)
{
    const struct pair_slot *slot = pair_table_find(&bpe->merges, left, right);
    return slot ? slot->first : NO_RANK;
}

/* What a result of rank is: the token of left and right together. */
static uint32_t joined(const struct bpe *bpe, uint32_t rank, uint32_t left, uint32_t right)
{
    return bpe->results ? bpe->results[rank] : pair_table_find(&bpe->merges, left, right)->second;
}

/* A walk over the symbols that a piece begins as. Zero-initialise but for the piece. */
struct first_symbols {
    struct span piece;
    size_t at;
    size_t bytes_end; /* up to here bytes are symbols */
    bool after_unk;
};

/* The token of the character at walk->at, its length, or -1; it may be one that becomes bytes. */
static int32_t char_token(const struct bpe *bpe, const struct vocabulary *vocab,
                          struct first_symbols *walk, size_t *len)
{
    const uint8_t *p = walk->piece.data + walk->at;
    (void)utf8_char(p, len);
    int32_t id = vocabulary_find_bytes(vocab, span_of(p, *len));
    if (id >= 0) return id;
    bool has_bytes = true;
    for (size_t i = 0; i < *len; i++) has_bytes = has_bytes && bpe->byte_ids[p[i]] >= 0;
    if (!has_bytes) return -1;
    walk->bytes_end = walk->at + *len;
    *len = 1;
    return bpe->byte_ids[*p];
}

/* The next symbol; false at the end. What is unknown may give none. */
static bool next_symbol(const struct bpe *bpe, const struct vocabulary *vocab,
                        struct first_symbols *walk, uint32_t *id)
{
    while (walk->at < walk->piece.len) {
        size_t len = 1;
        bool is_byte = !bpe->by_chars || walk->at < walk->bytes_end;
        int32_t token = is_byte ? bpe->byte_ids[walk->piece.data[walk->at]]
                                : char_token(bpe, vocab, walk, &len);
        walk->at += len;
        bool fused = token < 0 && bpe->fuse_unk && walk->after_unk;
        walk->after_unk = token < 0;
        if (token < 0) token = fused ? -1 : bpe->unk_id;
        *id = (uint32_t)token;
        if (token >= 0) return true;
    }
    return false;
}

static size_t lowest(const uint32_t *ranks, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (ranks[i] < ranks[best]) best = i;
    return best;
}

static void encode_short(const struct bpe *bpe, const struct vocabulary *vocab, struct span piece,
                         struct id_sink *sink)
{
    uint32_t ids[SHORT_PIECE], ranks[SHORT_PIECE], id;
    size_t n = 0;
    struct first_symbols walk = {.piece = piece};
    while (next_symbol(bpe, vocab, &walk, &id)) ids[n++] = id;
    for (size_t i = 0; i + 1 < n; i++) ranks[i] = pair_rank(bpe, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t at = lowest(ranks, n - 1);
        if (ranks[at] == NO_RANK) break;
        ids[at] = joined(bpe, ranks[at], ids[at], ids[at + 1]);
        n--;
        memmove(ids + at + 1, ids + at + 2, (n - at - 1) * sizeof *ids);
        if (at + 1 < n) {
            memmove(ranks + at + 1, ranks + at + 2, (n - at - 2) * sizeof *ranks);
            ranks[at] = pair_rank(bpe, ids[at], ids[at + 1]);
        }
        if (at > 0) ranks[at - 1] = pair_rank(bpe, ids[at - 1], ids[at]);
    }
    for (size_t i = 0; i < n; i++) id_sink_put(sink, ids[i]);
}

static void heap_down(uint64_t *heap, size_t n, size_t at)
{
    uint64_t moved = heap[at];
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= moved) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static void heap_up(uint64_t *heap, size_t at)
{
    uint64_t moved = heap[at];
    while (at > 0 && heap[(at - 1) / 2] > moved) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = moved;
}

static uint64_t heap_pop(struct bpe_scratch *scratch)
{
    uint64_t *heap = scratch->heap.items;
    uint64_t top = heap[0];
    heap[0] = heap[--scratch->heap.n];
    if (scratch->heap.n) heap_down(heap, scratch->heap.n, 0);
    return top;
}

/* Looks up the merge of symbol at with its next one and queues it. */
static bool offer(const struct bpe *bpe, struct bpe_scratch *scratch, uint32_t at)
{
    struct bpe_symbol *s = &scratch->symbols[at];
    s->rank = NO_RANK;
    if (s->next == NO_SYMBOL) return true;
    s->rank = pair_rank(bpe, s->id, scratch->symbols[s->next].id);
    if (s->rank == NO_RANK) return true;
    if (!array_push(&scratch->heap, (uint64_t)s->rank << 32 | at)) return false;
    heap_up(scratch->heap.items, scratch->heap.n - 1);
    return true;
}

/* The symbols of piece with all their ranks, and the heap of these. */
static bool start_long(const struct bpe *bpe, const struct vocabulary *vocab, struct span piece,
                       struct bpe_scratch *scratch, uint32_t *n)
{
    if (scratch->cap < piece.len) {
        free(scratch->symbols);
        scratch->cap = 0;
        scratch->symbols = malloc(piece.len * sizeof *scratch->symbols);
        if (!scratch->symbols) return false;
        scratch->cap = piece.len;
    }
    *n = 0;
    uint32_t id;
    struct first_symbols walk = {.piece = piece};
    for (; next_symbol(bpe, vocab, &walk, &id); ++*n)
        scratch->symbols[*n] = (struct bpe_symbol){id, NO_RANK, *n - 1, *n + 1};
    if (*n) scratch->symbols[*n - 1].next = NO_SYMBOL;
    scratch->heap.n = 0;
    for (uint32_t i = 0; i < *n; i++)
        if (!offer(bpe, scratch, i)) return false;
    return true;
}

static bool encode_long(const struct bpe *bpe, const struct vocabulary *vocab, struct span piece,
                        struct bpe_scratch *scratch, struct id_sink *sink)
{
    uint32_t n;
    if (!start_long(bpe, vocab, piece, scratch, &n)) return false;
    struct bpe_symbol *symbols = scratch->symbols;
    while (scratch->heap.n) {
        uint64_t top = heap_pop(scratch);
        struct bpe_symbol *left = &symbols[(uint32_t)top];
        /* A neighbour changed since this was queued. */
        if (left->rank != (uint32_t)(top >> 32)) continue;
        struct bpe_symbol *right = &symbols[left->next];
        left->id = joined(bpe, left->rank, left->id, right->id);
        left->next = right->next;
        right->rank = NO_RANK;
        if (left->next != NO_SYMBOL) symbols[left->next].prev = (uint32_t)top;
        if (!offer(bpe, scratch, (uint32_t)top)) return false;
        if (left->prev != NO_SYMBOL && !offer(bpe, scratch, left->prev)) return false;
    }
    for (uint32_t i = 0; n && i != NO_SYMBOL; i = symbols[i].next) id_sink_put(sink, symbols[i].id);
    return true;
}

bool bpe_encode(const struct bpe *bpe, const struct vocabulary *vocab, struct span piece,
                struct bpe_scratch *scratch, struct id_sink *sink)
{
    if (bpe->ignore_merges) {
        int32_t id = vocabulary_find_bytes(vocab, piece);
        if (id >= 0) {
            id_sink_put(sink, (uint32_t)id);
            return true;
        }
    }
    if (piece.len > SHORT_PIECE) return encode_long(bpe, vocab, piece, scratch, sink);
    encode_short(bpe, vocab, piece, sink);
    return true;
}
