#include <float.h>

#include "kerncheck.h"

void expect_near(struct check *c, const char *what, size_t i, float got, double want, double bound)
{
    if (f32_bits(got) == POISON) fail(c, "%s[%zu] was not written", what, i);
    if (isnan(want) && isnan(got)) return;
    if (fabs(want) > (double)FLT_MAX * (1 - EPS) && isinf(got) && (got > 0) == (want > 0)) return;
    if (!(fabs((double)got - want) <= bound))
        fail(c, "%s[%zu] is %.9g, not %.12g within %.3g", what, i, (double)got, want, bound);
}

void expect_bits(struct check *c, const char *what, size_t i, float got, float want)
{
    if (isnan(got) && isnan(want) && f32_bits(got) != POISON) return;
    if (f32_bits(got) == f32_bits(want)) return;
    if (f32_bits(got) == POISON) fail(c, "%s[%zu] was not written", what, i);
    fail(c, "%s[%zu] is %a, not %a", what, i, (double)got, (double)want);
}

void expect_nan(struct check *c, const char *what, size_t i, float got)
{
    if (!isnan(got) || f32_bits(got) == POISON)
        fail(c, "%s[%zu] is %g where a NaN went in", what, i, (double)got);
}
