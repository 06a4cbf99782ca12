#include "token/normalize.h"

#include <utf8proc.h>

#include "base/utf8.h"
#include "token/sentencepiece.h"

/*
 * Characters that are their own NFC and never join with what comes before them (checked against
 * DerivedNormalizationProps: no composition's second part, no decomposition that NFC keeps, class
 * 0). Text of these alone is NFC; between others they end a run that needs the full algorithm.
 */
static bool is_inert(uint32_t cp)
{
    return cp < 0x300 || (cp >= 0x400 && cp < 0x483) || (cp >= 0x2002 && cp < 0x20d0) ||
           (cp >= 0x3400 && cp < 0xa000);
}

void normalize_scratch_release(struct normalize_scratch *scratch)
{
    array_release(&scratch->points);
    array_release(&scratch->sorted);
}

static unsigned combining_class(int32_t cp)
{
    return (unsigned)utf8proc_get_property(cp)->combining_class;
}

/* Appends the canonical decomposition of cp. */
static bool decompose(struct normalize_scratch *scratch, uint32_t cp)
{
    int32_t parts[8];
    int boundary = UTF8PROC_BOUNDCLASS_START;
    utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)cp, parts, (utf8proc_ssize_t)COUNT_OF(parts),
                                UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &boundary);
    if (n < 1 || n > (utf8proc_ssize_t)COUNT_OF(parts)) {
        parts[0] = (int32_t)cp;
        n = 1;
    }
    for (utf8proc_ssize_t i = 0; i < n; i++)
        if (!array_push(&scratch->points, parts[i])) return false;
    return true;
}

/*
 * Canonical order of n marks: a stable counting sort by class, since a run of marks may be as long
 * as the text.
 */
static bool sort_marks(struct normalize_scratch *scratch, int32_t *marks, size_t n)
{
    size_t starts[257] = {0};
    scratch->sorted.n = 0;
    for (size_t i = 0; i < n; i++) {
        starts[combining_class(marks[i]) + 1]++;
        if (!array_push(&scratch->sorted, marks[i])) return false;
    }
    for (size_t c = 0; c < 256; c++) starts[c + 1] += starts[c];
    for (size_t i = 0; i < n; i++) {
        int32_t cp = scratch->sorted.items[i];
        marks[starts[combining_class(cp)]++] = cp;
    }
    return true;
}

static bool reorder(struct normalize_scratch *scratch)
{
    int32_t *points = scratch->points.items;
    for (size_t i = 0; i < scratch->points.n;) {
        size_t end = i;
        while (end < scratch->points.n && combining_class(points[end])) end++;
        if (end - i > 1 && !sort_marks(scratch, points + i, end - i)) return false;
        i = max_size(end, i + 1);
    }
    return true;
}

static bool append_run(struct span run, struct text_buffer *buffer,
                       struct normalize_scratch *scratch)
{
    scratch->points.n = 0;
    for (size_t i = 0, len; i < run.len; i += len)
        if (!decompose(scratch, utf8_char(run.data + i, &len))) return false;
    if (!reorder(scratch)) return false;
    utf8proc_ssize_t n =
        utf8proc_normalize_utf32(scratch->points.items, (utf8proc_ssize_t)scratch->points.n,
                                 UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    for (utf8proc_ssize_t i = 0; i < n; i++) {
        if (!text_reserve(buffer, 4)) return false;
        buffer->n += utf8_put((uint32_t)scratch->points.items[i], buffer->data + buffer->n);
    }
    return n >= 0;
}

/* The first position at or after i whose inertness is not `inert`, and the character before it. */
static size_t run_end(struct span text, size_t i, bool inert, size_t *last)
{
    *last = i;
    while (i < text.len) {
        size_t len = 1;
        bool is = text.data[i] < 0xcc || is_inert(utf8_char(text.data + i, &len));
        if (text.data[i] >= 0x80 && text.data[i] < 0xcc) len = 2;
        if (is != inert) break;
        *last = i;
        i += len;
    }
    return i;
}

bool normalize_nfc(struct span text, struct text_buffer *buffer, struct normalize_scratch *scratch,
                   struct span *out)
{
    size_t last;
    *out = text;
    if (run_end(text, 0, true, &last) == text.len) return true;
    for (size_t i = 0; i < text.len;) {
        /* The last inert character may join with what follows: the run begins with it. */
        size_t rest = run_end(text, i, true, &last);
        size_t begin = rest < text.len ? last : rest;
        if (!text_append(buffer, text.data + i, begin - i)) return false;
        if (rest == text.len) break;
        size_t end = run_end(text, rest, false, &last);
        if (!append_run(span_of(text.data + begin, end - begin), buffer, scratch)) return false;
        i = end;
    }
    *out = text_span(buffer);
    return true;
}

/* buffer becomes text, which may be in it, with a blank in front if asked for. */
static bool copy_behind_blank(bool blank, struct span text, struct text_buffer *buffer)
{
    bool inside = buffer->n && text.data == buffer->data;
    if (!text_reserve(buffer, inside ? 1 : text.len + 1)) return false;
    memmove(buffer->data + blank, inside ? buffer->data : text.data, text.len);
    if (blank) buffer->data[0] = ' ';
    buffer->n = text.len + blank;
    return true;
}

bool normalize(const struct normalizer *normalizer, struct span text, struct text_buffer *buffer,
               struct normalize_scratch *scratch, struct span *out)
{
    *out = text;
    if (normalizer->nfc && !normalize_nfc(text, buffer, scratch, out)) return false;
    if (!normalizer->blanks || out->len == 0) return true;
    if (!copy_behind_blank(normalizer->prefix_blank, *out, buffer)) return false;
    buffer->n = sentencepiece_blanks(text_span(buffer), buffer->data);
    *out = text_span(buffer);
    return true;
}
