/* Rows of GGUF's blocks, MXFP4 and FP8: the reference unpacks them, products are vectors. */
#include "kernel/ref/ref.h"
#include "kernel/simd/sets.h"

void SET(dequant_block_row)(const struct wmat *w, uint32_t row, float *y)
{
    ref_dequant_row(w, row, y);
}
