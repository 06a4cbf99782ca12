#include "token/added_tokens.h"

#include "base/utf8.h"
#include "token/unicode.h"

bool added_trie_init(struct added_trie *trie, const struct added_token *tokens, size_t n,
                     bool normalized)
{
    *trie = (struct added_trie){.tokens = tokens};
    size_t n_bytes = 0;
    for (size_t i = 0; i < n; i++) n_bytes += tokens[i].text.len;
    if (!pair_table_init(&trie->edges, n_bytes)) return false;
    uint32_t n_nodes = 1;
    for (size_t i = 0; i < n; i++) {
        struct span text = tokens[i].text;
        if (tokens[i].normalized != normalized || text.len == 0) continue;
        trie->first[text.data[0]] = true;
        uint32_t node = 0;
        for (size_t k = 0; k < text.len; k++) {
            const struct pair_slot *edge = pair_table_find(&trie->edges, node, text.data[k]);
            uint32_t next = edge ? edge->first : n_nodes++;
            uint32_t token = edge ? edge->second : 0;
            if (k + 1 == text.len && !token) token = (uint32_t)i + 1;
            pair_table_put(&trie->edges, node, text.data[k], next, token);
            node = next;
        }
    }
    return true;
}

void added_trie_release(struct added_trie *trie)
{
    pair_table_release(&trie->edges);
    *trie = (struct added_trie){0};
}

/* The longest token that text begins with at i, or NULL. */
static const struct added_token *longest(const struct added_trie *trie, struct span text, size_t i)
{
    const struct added_token *best = NULL;
    uint32_t node = 0;
    for (; i < text.len; i++) {
        const struct pair_slot *edge = pair_table_find(&trie->edges, node, text.data[i]);
        if (!edge) break;
        if (edge->second) best = &trie->tokens[edge->second - 1];
        node = edge->first;
    }
    return best;
}

static bool is_single_word(struct span text, size_t start, size_t end)
{
    size_t len;
    const uint8_t *p = text.data;
    if (start > 0 && unicode_is_word(utf8_char(utf8_prev(p + start), &len))) return false;
    return end == text.len || !unicode_is_word(utf8_char(p + end, &len));
}

static size_t strip_left(struct span text, size_t start, size_t limit)
{
    while (start > limit) {
        size_t len;
        const uint8_t *prev = utf8_prev(text.data + start);
        if (!unicode_is_space(utf8_char(prev, &len))) break;
        start -= len;
    }
    return max_size(start, limit);
}

static size_t strip_right(struct span text, size_t end)
{
    size_t len;
    for (; end < text.len; end += len)
        if (!unicode_is_space(utf8_char(text.data + end, &len))) break;
    return end;
}

void added_walk_init(struct added_walk *walk, const struct added_trie *trie, struct span text,
                     bool plain)
{
    *walk = (struct added_walk){.trie = trie, .text = text, .plain = plain, .queued = -1};
}

/* The next token that counts, from walk->at on; walk->at moves behind it. NULL: none. */
static const struct added_token *find(struct added_walk *walk, size_t *start)
{
    struct span text = walk->text;
    while (walk->at < text.len) {
        size_t i = walk->at++;
        if (!walk->trie->first[text.data[i]]) continue;
        const struct added_token *token = longest(walk->trie, text, i);
        if (!token) continue;
        walk->at = i + token->text.len;
        /* A match that does not count hides shorter ones all the same, as in the reference. */
        if (walk->plain && token->special) continue;
        if (token->single_word && !is_single_word(text, i, walk->at)) continue;
        *start = i;
        return token;
    }
    return NULL;
}

bool added_walk_next(struct added_walk *walk, struct added_part *part)
{
    if (walk->queued >= 0) {
        *part = (struct added_part){span_of(walk->text.data, 0), walk->queued};
        walk->queued = -1;
        walk->done = walk->queued_end;
        return true;
    }
    size_t start = 0;
    const struct added_token *token = find(walk, &start);
    size_t from = walk->done;
    if (!token) {
        walk->done = walk->text.len;
        *part = (struct added_part){span_of(walk->text.data + from, walk->text.len - from), -1};
        return from < walk->text.len;
    }
    size_t end = walk->at;
    if (token->lstrip) start = strip_left(walk->text, start, from);
    if (token->rstrip) end = strip_right(walk->text, end);
    if (from < start) {
        walk->queued = (int32_t)token->id;
        walk->queued_end = end;
        *part = (struct added_part){span_of(walk->text.data + from, start - from), -1};
        return true;
    }
    walk->done = end;
    *part = (struct added_part){span_of(walk->text.data + from, 0), (int32_t)token->id};
    return true;
}
