/* Kernels that carry state: convolution, DeltaNet, attention. */
#include "kerncheck.h"

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

void check_conv_silu(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    for (c->round = 0; c->round < LENGTH_ROUNDS; c->round++) {
        operands_reset(c);
        uint32_t n = length_of(c), width = 1 + rng_below(&c->rng, 5);
        size_t ldw = n + rng_below(&c->rng, 4), n_weights = (width - 1) * ldw + n;
        float *w = in_f32(c, "w", n_weights), *y = out_f32(c, "y", n);
        const float *rows[5];
        float *row = NULL;
        for (uint32_t j = 0; j < width; j++) {
            row = in_f32(c, "a row", n);
            fill(c, row, n, c->round % 3 ? PATTERN_UNIFORM : pattern_of(c));
            rows[j] = row;
        }
        if (c->round % 6 == 5) row[n - 1] = NAN;
        fill_uniform(c, w, n_weights, -3, 3);
        operands_begin(c);
        k->conv_silu(rows, w, ldw, width, n, y);
        operands_end(c);
        for (uint32_t i = 0; i < n; i++) {
            double sum = 0, size = 0;
            for (uint32_t j = 0; j < width; j++) {
                double term = (double)w[j * ldw + i] * (double)rows[j][i];
                sum += term;
                size += fabs(term);
            }
            /* The slope of silu is at most 1.1. */
            double want = sum * sigmoid(sum);
            double bound = 1.1 * (width + 1) * EPS * size + 8 * EPS * fabs(want) + 1e-36;
            expect_near(c, "y", i, y[i], want, bound);
        }
    }
}

void check_decay_beta(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    for (c->round = 0; c->round < LENGTH_ROUNDS; c->round++) {
        operands_reset(c);
        uint32_t n = length_of(c) % 130 + 1;
        float *alpha = in_f32(c, "alpha", n), *beta = in_f32(c, "beta", n);
        float *neg_a = in_f32(c, "neg_a", n), *bias = in_f32(c, "dt_bias", n);
        float *g = out_f32(c, "g", n), *b = out_f32(c, "b", n);
        float range = c->round % 3 == 0 ? 100.0f : c->round % 3 == 1 ? 5.0f : 0.5f;
        fill_uniform(c, alpha, n, -range, range);
        fill_uniform(c, beta, n, -range, range);
        fill_uniform(c, neg_a, n, -16, 0);
        fill_uniform(c, bias, n, -2, 2);
        if (c->round % 6 == 5) alpha[n - 1] = beta[n - 1] = NAN;
        operands_begin(c);
        k->decay_beta(alpha, beta, neg_a, bias, n, g, b);
        operands_end(c);
        for (uint32_t i = 0; i < n; i++) {
            /* The rounding of the sum moves softplus by its slope, which is at most its value. */
            float sum = alpha[i] + bias[i];
            double s = (double)sum, step = fmax(s, 0) + log1p(exp(-fabs(s)));
            double want = isnan(sum) ? (double)NAN : exp((double)neg_a[i] * step);
            double relative = (fabs((double)neg_a[i] * step) * 8 + 8) * EPS;
            expect_near(c, "g", i, g[i], want, relative * want + 1e-38);
            double gate = sigmoid((double)beta[i]);
            expect_near(c, "b", i, b[i], gate, 8 * EPS * gate + 1e-38);
        }
    }
}

struct step {
    const float *state, *q, *k, *v; /* before the step */
    float g, beta;
    uint32_t dk, dv;
};

/* Row i of the recurrence in double, with the error that f32 may make at each of its four steps. */
static void check_step_row(struct check *c, const struct step *s, uint32_t i, const float *state,
                           float out)
{
    double memory = 0, memory_size = 0, result = 0, result_size = 0, carried = 0;
    const float *before = s->state + (size_t)i * s->dk;
    for (uint32_t j = 0; j < s->dk; j++) {
        double term = (double)s->g * (double)before[j] * (double)s->k[j];
        memory += term;
        memory_size += fabs(term);
    }
    double delta = (double)s->beta * ((double)s->v[i] - memory);
    double delta_error = fabs((double)s->beta) * (dot_bound(s->dk, memory_size) +
                                                  4 * EPS * (fabs((double)s->v[i]) + fabs(memory)));
    for (uint32_t j = 0; j < s->dk; j++) {
        double decayed = (double)s->g * (double)before[j], key = (double)s->k[j];
        double want = decayed + delta * key;
        double bound =
            delta_error * fabs(key) + 4 * EPS * (fabs(decayed) + fabs(delta * key)) + 0x1p-145;
        expect_near(c, "state", (size_t)i * s->dk + j, state[(size_t)i * s->dk + j], want, bound);
        result += want * (double)s->q[j];
        result_size += fabs(want * (double)s->q[j]);
        carried += bound * fabs((double)s->q[j]);
    }
    expect_near(c, "out", i, out, result, dot_bound(s->dk, result_size) + carried);
}

/* What a run of tokens gave, with the state after each: the step before is taken as it is. */
static void check_run(struct check *c, const struct delta_tokens *x, const float *states,
                      uint32_t dk, uint32_t dv)
{
    for (uint32_t t = 0; t < x->n; t++) {
        struct step s = {.state = states + (size_t)t * dk * dv,
                         .q = x->q + t * x->ld,
                         .k = x->k + t * x->ld,
                         .v = x->v + t * x->ld,
                         .g = x->g[t * x->ldg],
                         .beta = x->b[t * x->ldg],
                         .dk = dk,
                         .dv = dv};
        for (uint32_t i = 0; i < dv; i++)
            check_step_row(c, &s, i, states + (size_t)(t + 1) * dk * dv, x->out[t * x->ldo + i]);
    }
}

/* The states after 0, 1, ... tokens, one token at a time from one to the next. */
static float *step_by_step(const struct kernels *k, const struct delta_tokens *x,
                           const float *state, uint32_t dk, uint32_t dv)
{
    size_t n = (size_t)dk * dv;
    float *states = temporary((x->n + 1) * n * sizeof *states);
    float *out = temporary(dv * sizeof *out);
    memcpy(states, state, n * sizeof *states);
    for (uint32_t t = 0; t < x->n; t++) {
        struct delta_tokens one = *x;
        one.n = 1;
        one.streams = false;
        one.q += t * x->ld;
        one.k += t * x->ld;
        one.v += t * x->ld;
        one.g += t * x->ldg;
        one.b += t * x->ldg;
        one.out = out;
        k->delta_net(states + t * n, states + (t + 1) * n, &one, dk, dv);
    }
    return states;
}

static void fill_tokens(struct check *c, struct delta_tokens *x, uint32_t dk, uint32_t dv)
{
    uint32_t n = x->n, gap = rng_below(&c->rng, 3);
    x->ld = 2 * dk + dv + gap;
    x->ldg = 2 + gap;
    x->ldo = dv + gap;
    float *rows = in_f32(c, "q, k and v", (n - 1) * x->ld + 2 * dk + dv);
    float *gates = in_f32(c, "g and b", (n - 1) * x->ldg + 2);
    x->q = rows;
    x->k = rows + dk;
    x->v = rows + 2 * dk;
    x->g = gates;
    x->b = gates + 1;
    x->out = out_f32(c, "out", (n - 1) * x->ldo + dv);
    fill_uniform(c, rows, (n - 1) * x->ld + 2 * dk + dv, -1, 1);
    fill_uniform(c, gates, (n - 1) * x->ldg + 2, 0, 1);
    if (c->round % 6 == 5) rows[(n - 1) * x->ld + 2 * dk - 1] = NAN;
}

/* Rounds take turns: another state, or the same one, receives the results. */
void check_delta_net(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    for (c->round = 0; c->round < LENGTH_ROUNDS; c->round++) {
        operands_reset(c);
        bool in_place = c->round % 2;
        /* Most states that stream are whole lines, as they must be for it to matter. */
        bool streams = rng_below(&c->rng, 2);
        uint32_t dk = c->round < 33 ? c->round + 1 : 64u << rng_below(&c->rng, 2);
        if (streams && c->round % 4) dk = div_up_u32(dk, 16) * 16;
        uint32_t dv = 1 + rng_below(&c->rng, c->round < 33 ? 9 : 70);
        uint32_t most = streams ? 2 : c->round % 4 ? 3 : 35;
        struct delta_tokens x = {.n = 1 + rng_below(&c->rng, most), .streams = streams};
        size_t n = (size_t)dk * dv;
        float *to = out_f32(c, "the state", n);
        float *from = in_place ? to : in_f32(c, "the state before", n);
        fill(c, from, n, pattern_of(c) == PATTERN_LARGE ? PATTERN_MIXED : pattern_of(c));
        if (!in_place) fill(c, to, n, PATTERN_MIXED);
        fill_tokens(c, &x, dk, dv);
        float *states = step_by_step(k, &x, from, dk, dv);
        operands_begin(c);
        k->delta_net(from, to, &x, dk, dv);
        operands_end(c);
        check_run(c, &x, states, dk, dv);
        for (size_t i = 0; i < n; i++)
            expect_bits(c, "state after all", i, to[i], states[x.n * n + i]);
    }
}

struct block {
    const float *q;
    float *keys, *values; /* f32 copies of what the kernel reads */
    uint32_t count, head_dim;
    float scale;
    struct softmax_state before;
    const float *acc_before;
};

/* Against the softmax in double, shifted by the maximum that the kernel found. */
static void check_block(struct check *c, const struct block *b, const struct softmax_state *st,
                        const float *acc)
{
    double scores[ATTENTION_BLOCK], max = (double)b->before.max, error = 0, largest = 0;
    for (uint32_t j = 0; j < b->count; j++) {
        double dot = 0, size = 0;
        for (uint32_t d = 0; d < b->head_dim; d++) {
            double term = (double)b->q[d] * (double)b->keys[(size_t)j * b->head_dim + d];
            dot += term;
            size += fabs(term);
        }
        scores[j] = dot * (double)b->scale;
        error = fmax(error, (dot_bound(b->head_dim, size) + 2 * EPS * size) * (double)b->scale);
        max = fmax(max, scores[j]);
        largest = fmax(largest, fabs(scores[j]));
    }
    expect_near(c, "max", 0, st->max, max, error);
    double shift = (double)st->max, old = exp((double)b->before.max - shift);
    double relative = 2 * error + (largest + fabs(shift)) * 2 * EPS + (b->count + 16) * EPS;
    double sum = (double)b->before.sum * old;
    for (uint32_t j = 0; j < b->count; j++) sum += exp(scores[j] - shift);
    expect_near(c, "sum", 0, st->sum, sum, (exp(relative) - 1) * sum);
    for (uint32_t d = 0; d < b->head_dim; d++) {
        double want = (double)b->acc_before[d] * old, size = fabs(want);
        for (uint32_t j = 0; j < b->count; j++) {
            double term = exp(scores[j] - shift) * (double)b->values[(size_t)j * b->head_dim + d];
            want += term;
            size += fabs(term);
        }
        expect_near(c, "acc", d, acc[d], want, (exp(relative) - 1) * size + 1e-38);
    }
}

/* Both halves of copies, n values each, in the format of the cache; copies become what it holds. */
static void store_cache(bool half, float *copies, size_t n, void *keys, void *values)
{
    for (size_t i = 0; half && i < 2 * n; i++) {
        ((uint16_t *)(i < n ? keys : values))[i % n] = f32_to_f16(copies[i]);
        copies[i] = f16_to_f32(f32_to_f16(copies[i]));
    }
    if (half) return;
    memcpy(keys, copies, n * sizeof *copies);
    memcpy(values, copies + n, n * sizeof *copies);
}

static void run_block(struct check *c, const struct kernels *k, bool half,
                      const struct attention_query *q, const void *keys, const void *values,
                      uint32_t count, struct softmax_state *st, float *acc)
{
    operands_begin(c);
    if (half)
        k->attention_block_f16(q, keys, values, count, st, acc);
    else
        k->attention_block_f32(q, keys, values, count, st, acc);
    operands_end(c);
}

/* Each head by itself gives the bits that it gave among the others. */
static void check_alone(struct check *c, const struct kernels *k, bool half,
                        const struct attention_query *q, const void *keys, const void *values,
                        uint32_t count, struct softmax_state *before, float *acc_before,
                        const struct softmax_state *st, const float *acc)
{
    const uint32_t dim = q->head_dim;
    for (uint32_t h = 0; h < q->heads; h++) {
        struct attention_query one = {q->q + (size_t)h * dim, 1, dim, q->scale, 0};
        float *alone = acc_before + (size_t)h * dim;
        run_block(c, k, half, &one, keys, values, count, before + h, alone);
        expect_bits(c, "sum of a head alone", h, before[h].sum, st[h].sum);
        for (uint32_t d = 0; d < dim; d++)
            expect_bits(c, "acc of a head alone", d, alone[d], acc[(size_t)h * dim + d]);
    }
}

/* Either format of the cache; two blocks, the second on top of the first. */
static void check_attention(struct check *c, const struct kernels *k, bool half)
{
    for (c->round = 0; c->round < LENGTH_ROUNDS; c->round++) {
        static const uint16_t head_dims[] = {64, 80, 96, 128, 192, 256};
        operands_reset(c);
        struct block b = {.count = 1 + rng_below(&c->rng, ATTENTION_BLOCK)};
        b.head_dim =
            c->round < 33 ? c->round + 1 : head_dims[rng_below(&c->rng, COUNT_OF(head_dims))];
        if (c->round % 4 == 0) b.count = ATTENTION_BLOCK;
        const uint32_t heads = 1 + rng_below(&c->rng, c->round % 2 ? 9 : 1), dim = b.head_dim;
        size_t n = (size_t)b.count * dim, all = (size_t)heads * dim, width = half ? 2 : 4;
        b.scale = 1 / sqrtf((float)dim);
        float *q = in_f32(c, "q", all), *acc = out_f32(c, "acc", all);
        void *keys = operand_in("the keys", c, n * width, width);
        void *values = operand_in("the values", c, n * width, width);
        struct softmax_state *st = operand_out("the softmax state", c, heads * sizeof *st, 4);
        struct softmax_state *before = temporary(heads * sizeof *before);
        float *copies = temporary((2 * n + all) * sizeof *copies);
        b.keys = copies;
        b.values = copies + n;
        float *acc_before = copies + 2 * n;
        float range = c->round % 5 == 4 ? 12.0f : 2.0f;
        fill_uniform(c, q, all, -range, range);
        fill_uniform(c, b.keys, 2 * n, -range, range);
        if (c->round % 6 == 5) copies[rng_below(&c->rng, (uint32_t)(2 * n))] = NAN;
        store_cache(half, copies, n, keys, values);
        for (uint32_t h = 0; h < heads; h++) st[h] = (struct softmax_state){-INFINITY, 0};
        memset(acc, 0, all * sizeof *acc);
        for (int pass = 0; pass < 2; pass++) {
            memcpy(before, st, heads * sizeof *st);
            memcpy(acc_before, acc, all * sizeof *acc);
            struct attention_query query = {q, heads, dim, b.scale,
                                            c->round % 3 ? 0 : (ptrdiff_t)(n * width)};
            run_block(c, k, half, &query, keys, values, b.count, st, acc);
            for (uint32_t h = 0; h < heads; h++) {
                b.q = q + (size_t)h * dim;
                b.before = before[h];
                b.acc_before = acc_before + (size_t)h * dim;
                check_block(c, &b, st + h, acc + (size_t)h * dim);
            }
            check_alone(c, k, half, &query, keys, values, b.count, before, acc_before, st, acc);
            for (size_t d = 0; d < all; d++) q[d] *= -1.5f;
        }
    }
}

void check_attention_block_f32(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    check_attention(c, k, false);
}

void check_attention_block_f16(struct check *c, const struct kernels *k, enum wtype type)
{
    (void)type;
    check_attention(c, k, true);
}
