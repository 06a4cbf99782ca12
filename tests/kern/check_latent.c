/* Products the other way round, and latent attention. */
#include "kerncheck.h"

enum { TOKENS = 9, MAX_ROWS = 40 };

struct transposed {
    struct weights m;
    const float *x;
    size_t ldx;
};

static void check_columns(struct check *c, const struct transposed *p, uint32_t col0, uint32_t col1,
                          uint32_t t0, uint32_t n, const float *y, size_t ldy)
{
    const struct wmat *w = &p->m.w;
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t i = 0; i < w->cols; i++) {
            float got = y[t * ldy + i];
            if (i < col0 || i >= col1) {
                if (f32_bits(got) != POISON)
                    fail(c, "y[%u][%u] is outside the columns, but was written", t, i);
                continue;
            }
            double sum = 0, magnitude = 0;
            for (uint32_t r = 0; r < w->rows; r++) {
                double term = (double)p->m.dense[(size_t)r * w->cols + i] *
                              (double)p->x[(t0 + t) * p->ldx + r];
                sum += term;
                magnitude += fabs(term);
            }
            double bound = (w->rows + 2) * EPS * magnitude + (w->rows + 2) * 0x1p-149;
            expect_near(c, "y", t * w->cols + i, got, sum, bound);
        }
}

/* All of it, then parts: the same bits whatever the columns and tokens. */
void check_matmul_t_f32(struct check *c, const struct kernels *k, enum wtype type)
{
    static const uint8_t token_counts[] = {1, 2, 4, 5, 9};
    for (c->round = 0; c->round < 40; c->round++) {
        operands_reset(c);
        uint32_t rows = c->round < 20 ? c->round + 1 : 1 + rng_below(&c->rng, MAX_ROWS), group = 0;
        uint32_t cols = c->round < 20 ? 2 * c->round + 1 : 1 + rng_below(&c->rng, 300);
        if (wtype_is_packed(type)) random_columns(c, type, &cols, &group);
        struct transposed p = {.m = random_weights(c, type, rows, cols, group),
                               .ldx = rows + rng_below(&c->rng, 4)};
        float *x = in_f32(c, "x", (TOKENS - 1) * p.ldx + rows);
        fill(c, x, (TOKENS - 1) * p.ldx + rows, pattern_of(c));
        if (c->round % 6 == 5) x[rng_below(&c->rng, TOKENS) * p.ldx] = NAN;
        p.x = x;
        float *all = out_f32(c, "y", (size_t)TOKENS * cols);
        void *scratch = operand_out("the scratch", c, matmul_scratch_bytes(cols), 1);
        operands_begin(c);
        k->matmul_t_f32[type](&p.m.w, 0, cols, x, p.ldx, TOKENS, all, cols, scratch);
        operands_end(c);
        check_columns(c, &p, 0, cols, 0, TOKENS, all, cols);
        for (size_t i = 0; i < COUNT_OF(token_counts); i++) {
            uint32_t n = token_counts[i], t0 = rng_below(&c->rng, TOKENS - n + 1);
            uint32_t col0 = rng_below(&c->rng, cols);
            uint32_t col1 = col0 + 1 + rng_below(&c->rng, cols - col0);
            size_t ldy = cols + rng_below(&c->rng, 3);
            float *y = out_f32(c, "part of y", (n - 1) * ldy + cols);
            operands_begin(c);
            k->matmul_t_f32[type](&p.m.w, col0, col1, x + t0 * p.ldx, p.ldx, n, y, ldy, scratch);
            operands_end(c);
            check_columns(c, &p, col0, col1, t0, n, y, ldy);
            for (uint32_t t = 0; t < n; t++)
                for (uint32_t j = col0; j < col1; j++)
                    expect_bits(c, "part of y", j, y[t * ldy + j], all[(t0 + t) * cols + j]);
        }
    }
}

struct heads_case {
    struct latent_query q;
    float *rows; /* f32 copies of what the kernel reads */
    uint32_t count;
    struct softmax_state *before;
    const float *acc_before;
};

static double value_of(const struct heads_case *b, uint32_t row, uint32_t i)
{
    return (double)b->rows[(size_t)row * (b->q.rank + b->q.rotated) + i];
}

/* Against the softmax in double, shifted by the maximum that the kernel found. */
static void check_head(struct check *c, const struct heads_case *b, uint32_t head,
                       const struct softmax_state *st, const float *acc)
{
    uint32_t rank = b->q.rank, rotated = b->q.rotated;
    const float *q = b->q.latent + (size_t)head * rank, *rot = b->q.rot + (size_t)head * rotated;
    double scores[ATTENTION_BLOCK], max = (double)b->before[head].max, error = 0, largest = 0;
    for (uint32_t j = 0; j < b->count; j++) {
        double dot = 0, size = 0;
        for (uint32_t i = 0; i < rank + rotated; i++) {
            double term = (double)(i < rank ? q[i] : rot[i - rank]) * value_of(b, j, i);
            dot += term;
            size += fabs(term);
        }
        scores[j] = dot * (double)b->q.scale;
        error =
            fmax(error, (dot_bound(rank + rotated, size) + 2 * EPS * size) * (double)b->q.scale);
        max = fmax(max, scores[j]);
        largest = fmax(largest, fabs(scores[j]));
    }
    expect_near(c, "max", head, st->max, max, error);
    double shift = (double)st->max, old = exp((double)b->before[head].max - shift);
    double relative = 2 * error + (largest + fabs(shift)) * 2 * EPS + (b->count + 16) * EPS;
    double sum = (double)b->before[head].sum * old;
    for (uint32_t j = 0; j < b->count; j++) sum += exp(scores[j] - shift);
    expect_near(c, "sum", head, st->sum, sum, (exp(relative) - 1) * sum);
    for (uint32_t i = 0; i < rank; i++) {
        double want = (double)b->acc_before[(size_t)head * rank + i] * old, size = fabs(want);
        for (uint32_t j = 0; j < b->count; j++) {
            double term = exp(scores[j] - shift) * value_of(b, j, i);
            want += term;
            size += fabs(term);
        }
        expect_near(c, "acc", i, acc[i], want, (exp(relative) - 1) * size + 1e-38);
    }
}

/* The same heads one by one: the same bits. */
static void check_single_heads(struct check *c, const struct kernels *k, const struct heads_case *b,
                               const void *rows, bool half, const struct softmax_state *st,
                               const float *acc)
{
    uint32_t rank = b->q.rank;
    struct softmax_state *one = operand_out("one softmax state", c, sizeof *one, 4);
    float *part = out_f32(c, "acc of one head", rank);
    for (uint32_t h = 0; h < b->q.heads; h++) {
        struct latent_query q = b->q;
        q.latent += (size_t)h * rank;
        q.rot += (size_t)h * q.rotated;
        q.heads = 1;
        *one = b->before[h];
        memcpy(part, b->acc_before + (size_t)h * rank, rank * sizeof *part);
        operands_begin(c);
        if (half)
            k->latent_block_f16(&q, rows, b->count, one, part);
        else
            k->latent_block_f32(&q, rows, b->count, one, part);
        operands_end(c);
        expect_bits(c, "max of one head", h, one->max, st[h].max);
        expect_bits(c, "sum of one head", h, one->sum, st[h].sum);
        for (uint32_t i = 0; i < rank; i++)
            expect_bits(c, "acc of one head", i, part[i], acc[(size_t)h * rank + i]);
    }
}

/* Either format of the cache; two blocks, the second on top of the first. */
static void check_latent(struct check *c, const struct kernels *k, bool half)
{
    for (c->round = 0; c->round < LENGTH_ROUNDS; c->round++) {
        operands_reset(c);
        struct heads_case b = {.count = 1 + rng_below(&c->rng, ATTENTION_BLOCK)};
        uint32_t rank = c->round < 33 ? c->round + 1 : 1 + rng_below(&c->rng, 512);
        uint32_t rotated = 2 * (1 + rng_below(&c->rng, 32)), heads = 1 + rng_below(&c->rng, 9);
        size_t n = (size_t)b.count * (rank + rotated), width = half ? 2 : 4;
        float *q = in_f32(c, "q", (size_t)heads * rank);
        float *rot = in_f32(c, "the rotated q", (size_t)heads * rotated);
        void *rows = operand_in("the latents", c, n * width, width);
        struct softmax_state *st =
            operand_out("the softmax states", c, heads * sizeof *st, sizeof(float));
        float *acc = out_f32(c, "acc", (size_t)heads * rank);
        float *acc_before = temporary((size_t)heads * rank * sizeof *acc_before);
        b.rows = temporary(n * sizeof *b.rows);
        b.before = temporary(heads * sizeof *b.before);
        b.acc_before = acc_before;
        b.q = (struct latent_query){q, rot, heads, rank, rotated, 1 / sqrtf((float)rank)};
        fill_uniform(c, q, (size_t)heads * rank, -2, 2);
        fill_uniform(c, rot, (size_t)heads * rotated, -2, 2);
        fill_uniform(c, b.rows, n, -2, 2);
        if (c->round % 6 == 5) b.rows[rng_below(&c->rng, (uint32_t)n)] = NAN;
        for (size_t i = 0; i < n; i++) {
            if (half) ((uint16_t *)rows)[i] = f32_to_f16(b.rows[i]);
            if (half) b.rows[i] = f16_to_f32(f32_to_f16(b.rows[i]));
            if (!half) ((float *)rows)[i] = b.rows[i];
        }
        for (uint32_t h = 0; h < heads; h++) st[h] = (struct softmax_state){-INFINITY, 0};
        memset(acc, 0, (size_t)heads * rank * sizeof *acc);
        for (int pass = 0; pass < 2; pass++) {
            memcpy(b.before, st, heads * sizeof *st);
            memcpy(acc_before, acc, (size_t)heads * rank * sizeof *acc);
            operands_begin(c);
            if (half)
                k->latent_block_f16(&b.q, rows, b.count, st, acc);
            else
                k->latent_block_f32(&b.q, rows, b.count, st, acc);
            operands_end(c);
            for (uint32_t h = 0; h < heads; h++)
                check_head(c, &b, h, st + h, acc + (size_t)h * rank);
            check_single_heads(c, k, &b, rows, half, st, acc);
            for (size_t i = 0; i < (size_t)heads * rank; i++) q[i] *= -1.5f;
        }
    }
}

void check_latent_block_f32(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    check_latent(c, k, false);
}

void check_latent_block_f16(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    check_latent(c, k, true);
}
