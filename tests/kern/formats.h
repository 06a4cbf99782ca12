/* What stored weights are worth, as the formats are described; formats.c. */
#ifndef TESTS_KERN_FORMATS_H
#define TESTS_KERN_FORMATS_H

#include "kerncheck.h"

/* A weight is mul - sub, rounded to f32. */
struct format_value {
    double mul, sub;
};
struct format_value format_value(const struct wmat *w, uint32_t row, uint32_t col);
/* Whether weights of the type have a second part at all: 0 - 0 is another zero than -0. */
bool format_has_sub(enum wtype type);
/* Where the half-precision numbers of a block are; how many. */
uint32_t format_halves(enum wtype type, uint32_t at[2]);

static inline float format_f32(enum wtype type, struct format_value v)
{
    return (float)(format_has_sub(type) ? v.mul - v.sub : v.mul);
}

#endif
