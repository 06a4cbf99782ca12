/* Lists of token ids as text: decimal numbers between blanks, commas or newlines. */
#ifndef APPS_IDFILE_H
#define APPS_IDFILE_H

#include "buffer.h"
#include "sluice/sluice.h"

struct ids {
    int32_t *items;
    size_t n, cap;
};

/* False: out of memory. */
bool ids_push(struct ids *ids, int32_t id);
void ids_release(struct ids *ids);

/*
 * Adds the ids of text[0..len). name is for messages, which give line and column of what is
 * malformed or does not fit an id. Errors: FORMAT, NOMEM.
 */
SLUICE_NODISCARD enum sluice_status ids_parse(struct ids *ids, const char *name, const char *text,
                                              size_t len, struct sluice_error *err);
/* The same from a file; "-" is standard input. */
SLUICE_NODISCARD enum sluice_status ids_read(struct ids *ids, const char *path,
                                             struct sluice_error *err);
/* Error ARGUMENT when an id is not below vocab_size; it names the id and its number in the list. */
SLUICE_NODISCARD enum sluice_status ids_check(const struct ids *ids, const char *path,
                                              uint32_t vocab_size, struct sluice_error *err);
/* The ids on one line, without the newline. */
void ids_print(const struct ids *ids, struct buffer *out);

#endif
