/* A tensor as the directory of a weight file lists it, whatever the format. */
#ifndef SLUICE_FORMAT_TENSOR_ENTRY_H
#define SLUICE_FORMAT_TENSOR_ENTRY_H

#include "format/dtype.h"

enum { TENSOR_MAX_RANK = 8 };

struct tensor_entry {
    const char *name; /* NUL-terminated, in the arena */
    enum dtype dtype;
    uint32_t rank;
    uint64_t shape[TENSOR_MAX_RANK]; /* slowest dimension first */
    uint64_t offset;                 /* of the first byte, from the start of the file */
    uint64_t bytes;
};

#endif
