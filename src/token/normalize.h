/* Unicode normalization form C over utf8proc's tables, in time linear in the text. */
#ifndef SLUICE_TOKEN_NORMALIZE_H
#define SLUICE_TOKEN_NORMALIZE_H

#include "base/array.h"
#include "token/text_buffer.h"

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

#endif
