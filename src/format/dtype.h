/* Element types of stored tensors. dtype.def is the one table of names and sizes. */
#ifndef SLUICE_FORMAT_DTYPE_H
#define SLUICE_FORMAT_DTYPE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

enum dtype {
#define D(name, text, bytes) DTYPE_##name,
#include "format/dtype.def"
#undef D
    DTYPE_COUNT
};

/* Bytes of one element. */
size_t dtype_bytes(enum dtype dtype);
/* The name safetensors files use. */
const char *dtype_name(enum dtype dtype);
/* False: no type of that name. */
bool dtype_from_name(struct span name, enum dtype *dtype);

#endif
