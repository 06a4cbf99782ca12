/* Structs of options that callers fill, perhaps with an older or a newer header than ours. */
#ifndef SLUICE_BASE_OPTIONS_H
#define SLUICE_BASE_OPTIONS_H

#include "base/err.h"

/*
 * Takes what options has over the defaults that *to, of to_bytes, holds; both begin with a uint32_t
 * size. options NULL: the defaults stay. name is that of sluice_<name>_options_default(). Errors:
 * ARGUMENT, when the size says that this function was not called.
 */
enum sluice_status options_take(void *to, uint32_t to_bytes, const void *options, const char *name,
                                struct sluice_error *err);

#endif
