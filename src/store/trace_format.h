/* Where the fields of a trace's header are, for its reader and its writer. */
#ifndef SLUICE_STORE_TRACE_FORMAT_H
#define SLUICE_STORE_TRACE_FORMAT_H

#include "store/trace.h"

#define TRACE_MAGIC "SluiceRT"

enum { TRACE_VERSION = 1, MAGIC_BYTES = 8, VERSION_AT = 8, FINGERPRINT_AT = 12, SHAPE_AT = 28 };

/* Errors: FORMAT. */
enum sluice_status trace_check_header(const struct trace_header *h, struct sluice_error *err);

#endif
