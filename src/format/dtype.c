#include "format/dtype.h"

#include "base/bits.h"

struct dtype_row {
    const char *name;
    size_t bytes;
};

static const struct dtype_row dtypes[] = {
#define D(name, text, bytes) {text, bytes},
#include "format/dtype.def"
#undef D
};

_Static_assert(COUNT_OF(dtypes) == DTYPE_COUNT, "one row per dtype");

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
        if (!span_equal(name, span_str(dtypes[i].name))) continue;
        *dtype = (enum dtype)i;
        return true;
    }
    return false;
}
