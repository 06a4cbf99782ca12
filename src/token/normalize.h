/*
 * What becomes of text before it is cut: Unicode normalization form C over utf8proc's tables, in
 * time linear in the text, and the blanks of SentencePiece.
 */
#ifndef SLUICE_TOKEN_NORMALIZE_H
#define SLUICE_TOKEN_NORMALIZE_H

#include "base/array.h"
#include "base/text_buffer.h"

struct normalizer {
    bool nfc;
    bool blanks;       /* U+2581 is a blank */
    bool prefix_blank; /* a text that is not empty gets a blank in front; only with blanks */
};

struct normalize_scratch {
    ARRAY(int32_t) points;
    ARRAY(int32_t) sorted;
};

void normalize_scratch_release(struct normalize_scratch *scratch);

/*
 * *out is NFC of valid UTF-8 text: text itself when it is so at a glance, else bytes that are
 * appended to buffer, which must be empty. False: out of memory.
 */
bool normalize_nfc(struct span text, struct text_buffer *buffer, struct normalize_scratch *scratch,
                   struct span *out);

/* All of it, NFC first; likewise. */
bool normalize(const struct normalizer *normalizer, struct span text, struct text_buffer *buffer,
               struct normalize_scratch *scratch, struct span *out);

#endif
