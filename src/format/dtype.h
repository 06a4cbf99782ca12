/* Element types of stored tensors. dtype.def is the one table of names and sizes. */
#ifndef SLUICE_FORMAT_DTYPE_H
#define SLUICE_FORMAT_DTYPE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

enum dtype {
#define D(name, text, bytes, gguf) DTYPE_##name,
#define B(name, text, weights, bytes, gguf) DTYPE_##name,
#include "format/dtype.def"
#undef D
#undef B
    DTYPE_COUNT
};

/* Elements of a block: 1 but for the block types of GGUF. */
size_t dtype_block(enum dtype dtype);
/* Bytes of a block, which is one element but for the block types of GGUF. */
size_t dtype_bytes(enum dtype dtype);
/* The name that files and messages use. */
const char *dtype_name(enum dtype dtype);
/* False: safetensors files have no type of that name. */
bool dtype_from_name(struct span name, enum dtype *dtype);
/* False: a type of that number in GGUF files is not known. */
bool dtype_from_gguf(uint32_t number, enum dtype *dtype);

#endif
