#include "format/dtype.h"

#include "base/bits.h"

struct dtype_row {
    const char *name;
    size_t block, bytes;
    int gguf; /* -1: not in GGUF files */
    bool safetensors;
};

static const struct dtype_row dtypes[] = {
#define D(name, text, bytes, gguf) {text, 1, bytes, gguf, true},
#define B(name, text, weights, bytes, gguf) {text, weights, bytes, gguf, false},
#include "format/dtype.def"
#undef D
#undef B
};

_Static_assert(COUNT_OF(dtypes) == DTYPE_COUNT, "one row per dtype");

size_t dtype_block(enum dtype dtype)
{
    return dtypes[dtype].block;
}

size_t dtype_bytes(enum dtype dtype)
{
    return dtypes[dtype].bytes;
}

const char *dtype_name(enum dtype dtype)
{
    return dtypes[dtype].name;
}

bool dtype_from_name(struct span name, enum dtype *dtype)
{
    for (size_t i = 0; i < COUNT_OF(dtypes); i++) {
        if (!dtypes[i].safetensors || !span_equal(name, span_str(dtypes[i].name))) continue;
        *dtype = (enum dtype)i;
        return true;
    }
    return false;
}

bool dtype_from_gguf(uint32_t number, enum dtype *dtype)
{
    for (size_t i = 0; i < COUNT_OF(dtypes); i++) {
        if (dtypes[i].gguf < 0 || (uint32_t)dtypes[i].gguf != number) continue;
        *dtype = (enum dtype)i;
        return true;
    }
    return false;
}
