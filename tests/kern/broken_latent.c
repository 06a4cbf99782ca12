/* Kernels of latent attention with one bug each. */
#include "kerncheck.h"

static void right_product(const struct wmat *w, uint32_t col0, uint32_t col1, const float *x,
                          size_t ldx, uint32_t n, float *y, size_t ldy, void *scratch)
{
    struct kernels right;
    kernels_init(&right, 0);
    right.matmul_t_f32[w->type](w, col0, col1, x, ldx, n, y, ldy, scratch);
}

static void drops_last_row(const struct wmat *w, uint32_t col0, uint32_t col1, const float *x,
                           size_t ldx, uint32_t n, float *y, size_t ldy, void *scratch)
{
    struct wmat shorter = *w;
    shorter.rows--;
    right_product(&shorter, col0, col1, x, ldx, n, y, ldy, scratch);
}

/* Adds to what is there instead of beginning at zero. */
static void adds_to_y(const struct wmat *w, uint32_t col0, uint32_t col1, const float *x,
                      size_t ldx, uint32_t n, float *y, size_t ldy, void *scratch)
{
    float *row = malloc((size_t)w->cols * sizeof *row);
    if (!row) exit(2);
    for (uint32_t t = 0; t < n; t++) {
        right_product(w, col0, col1, x + t * ldx, ldx, 1, row, w->cols, scratch);
        for (uint32_t c = col0; c < col1; c++) y[t * ldy + c] += row[c];
    }
    free(row);
}

/* More tokens than one begin with the last row. */
static void reverses_rows(const struct wmat *w, uint32_t col0, uint32_t col1, const float *x,
                          size_t ldx, uint32_t n, float *y, size_t ldy, void *scratch)
{
    if (n == 1) {
        right_product(w, col0, col1, x, ldx, n, y, ldy, scratch);
        return;
    }
    float *row = malloc((size_t)w->cols * sizeof *row);
    if (!row) exit(2);
    struct kernels right;
    kernels_init(&right, 0);
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t c = col0; c < col1; c++) y[t * ldy + c] = 0;
    for (uint32_t r = w->rows; r-- > 0;) {
        right.dequant_row[w->type](w, r, row);
        for (uint32_t t = 0; t < n; t++)
            for (uint32_t c = col0; c < col1; c++) y[t * ldy + c] += row[c] * x[t * ldx + r];
    }
    free(row);
}

static void latent_right(const struct latent_query *q, const float *rows, uint32_t count,
                         struct softmax_state *st, float *acc)
{
    struct kernels right;
    kernels_init(&right, 0);
    right.latent_block_f32(q, rows, count, st, acc);
}

/* The rotated part of the scores is left out. */
static void latent_not_rotated(const struct latent_query *q, const float *rows, uint32_t count,
                               struct softmax_state *st, float *acc)
{
    struct latent_query still = *q;
    float *rot = calloc((size_t)q->heads * q->rotated, sizeof *rot);
    if (!rot) exit(2);
    still.rot = rot;
    latent_right(&still, rows, count, st, acc);
    free(rot);
}

/* Every head has the sums of the first. */
static void latent_one_head(const struct latent_query *q, const float *rows, uint32_t count,
                            struct softmax_state *st, float *acc)
{
    latent_right(q, rows, count, st, acc);
    for (uint32_t h = 1; h < q->heads; h++) {
        memcpy(acc + (size_t)h * q->rank, acc, q->rank * sizeof *acc);
        st[h] = st[0];
    }
}

#define BROKEN(slot_, bug_, says, function)                                                        \
    {                                                                                              \
        slot_, bug_, says, (any_kernel)function, WTYPE_BF16                                        \
    }

const struct broken broken_latent[] = {
    BROKEN("matmul_t_f32", "the last row left out", "*: y*, not *", drops_last_row),
    BROKEN("matmul_t_f32", "y not begun at zero", "*: y*", adds_to_y),
    BROKEN("matmul_t_f32", "rows in another order", "*: *, not *", reverses_rows),
    BROKEN("latent_block_f32", "no rotated part", "*: *, not *", latent_not_rotated),
    BROKEN("latent_block_f32", "the first head for all", "*: *, not *", latent_one_head),
};
const size_t broken_latent_count = COUNT_OF(broken_latent);
