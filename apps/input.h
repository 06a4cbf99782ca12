/* Whole files and standard input as bytes. */
#ifndef APPS_INPUT_H
#define APPS_INPUT_H

#include "buffer.h"
#include "sluice/sluice.h"

/* Adds the contents of the file at path, or of standard input for "-", to out. */
SLUICE_NODISCARD enum sluice_status input_read(const char *path, struct buffer *out,
                                               struct sluice_error *err);
/* How a message calls path: itself, or "standard input". */
const char *input_name(const char *path);

#endif
