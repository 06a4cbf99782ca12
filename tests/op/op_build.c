/* Makes random worlds: graph, weights, sessions with a past, batch, and lanes to run on. */
#include <stdio.h>
#include <stdlib.h>

#include "../unit/sample_graph.h"
#include "base/bits.h"
#include "base/fp16.h"
#include "op_random.h"

enum { SLACK_TOKENS = 130, SLACK_ROWS = 3, BAD_PICK = 0x7fc00001 };

/*
 * Sizes that no vector width divides; f32, f16 and bf16 weights; v heads in tiled order; a window
 * that begins and ends within blocks.
 */
static const struct sample_dims odd = {.hidden = 52,
                                       .vocab = 41,
                                       .heads = 6,
                                       .kv_heads = 2,
                                       .head_dim = 14,
                                       .rotary_dim = 6,
                                       .k_heads = 2,
                                       .v_heads = 6,
                                       .dk = 11,
                                       .dv = 9,
                                       .conv_width = 4,
                                       .experts = 7,
                                       .guess = true,
                                       .picks = 3,
                                       .expert_inter = 19,
                                       .shared_inter = 23,
                                       .tiled = true,
                                       .others = true,
                                       .window = 70};
/* Packed weights of every width; four query heads to a key head. */
static const struct sample_dims packed = {.hidden = 128,
                                          .vocab = 70,
                                          .heads = 4,
                                          .kv_heads = 1,
                                          .head_dim = 32,
                                          .rotary_dim = 8,
                                          .k_heads = 2,
                                          .v_heads = 4,
                                          .dk = 16,
                                          .dv = 24,
                                          .conv_width = 4,
                                          .experts = 9,
                                          .guess = true,
                                          .picks = 4,
                                          .expert_inter = 64,
                                          .shared_inter = 96,
                                          .others = true,
                                          .n_groups = 3,
                                          .top_groups = 2};
/* One of everything, rotated whole and in pairs, a window of one position, a convolution without
 * memory; all experts chosen. */
static const struct sample_dims single = {.hidden = 32,
                                          .vocab = 33,
                                          .heads = 1,
                                          .kv_heads = 1,
                                          .head_dim = 64,
                                          .rotary_dim = 64,
                                          .k_heads = 1,
                                          .v_heads = 1,
                                          .dk = 32,
                                          .dv = 64,
                                          .conv_width = 1,
                                          .experts = 2,
                                          .guess = true,
                                          .picks = 2,
                                          .expert_inter = 32,
                                          .shared_inter = 32,
                                          .pairs = true,
                                          .window = 1,
                                          .others = true};
/* Wide heads; one expert a token of many. */
static const struct sample_dims wide = {.hidden = 64,
                                        .vocab = 40,
                                        .heads = 2,
                                        .kv_heads = 2,
                                        .head_dim = 128,
                                        .rotary_dim = 32,
                                        .k_heads = 1,
                                        .v_heads = 2,
                                        .dk = 128,
                                        .dv = 128,
                                        .conv_width = 7,
                                        .experts = 40,
                                        .guess = true,
                                        .picks = 1,
                                        .expert_inter = 128,
                                        .shared_inter = 64,
                                        .window = 64,
                                        .others = true,
                                        .n_groups = 8,
                                        .top_groups = 3};

const struct variant variants[] = {
    {"odd, a first token", &odd, false, false, KV_F32, 1, 1, {1}, {0}},
    {"odd, one token", &odd, false, false, KV_F16, 1, 1, {1}, {63}},
    {"odd, two sessions", &odd, false, false, KV_F32, 2, 2, {1, 1}, {0, 130}},
    {"odd, mixed", &odd, false, false, KV_F32, 5, 4, {1, 11, 3, 2}, {64, 60, 0, 200}},
    {"odd, a long prompt", &odd, false, false, KV_F16, 9, 3, {100, 1, 155}, {0, 127, 61}},
    {"odd, one token far on", &odd, false, false, KV_F16, 1, 1, {1}, {900}},
    {"odd, tokens far on", &odd, false, false, KV_F32, 2, 2, {1, 2}, {510, 767}},
    {"wide, one token far on", &wide, true, false, KV_F16, 1, 1, {1}, {600}},
    {"odd, one token in fast", &odd, false, true, KV_F16, 1, 1, {1}, {66}},
    {"odd, mixed in fast", &odd, false, true, KV_F16, 2, 2, {3, 6}, {0, 61}},
    {"packed, one token", &packed, true, false, KV_F32, 1, 1, {1}, {5}},
    {"packed, one token in int8", &packed, true, true, KV_F16, 1, 1, {1}, {64}},
    {"packed, two tokens in int8", &packed, true, true, KV_F16, 0, 1, {2}, {127}},
    {"packed, mixed", &packed, true, false, KV_F16, 17, 5, {1, 1, 8, 1, 6}, {3, 64, 0, 0, 250}},
    {"packed, mixed in int8", &packed, true, true, KV_F32, 3, 3, {9, 1, 7}, {0, 65, 120}},
    {"packed, a long prompt in int8", &packed, true, true, KV_F16, 1, 1, {256}, {63}},
    {"single, mixed", &single, true, true, KV_F16, 2, 2, {4, 13}, {0, 1}},
    {"single, two tokens", &single, false, false, KV_F32, 2, 1, {2}, {0}},
    {"wide, mixed", &wide, true, false, KV_F32, 4, 2, {16, 1}, {56, 128}},
    {"wide, a long prompt in int8", &wide, true, true, KV_F32, 2, 2, {255, 1}, {0, 300}},
};
const size_t n_variants = COUNT_OF(variants);

static void *take(struct random_world *r, size_t bytes)
{
    void *p = calloc(bytes + 1, 1);
    if (!p || r->n_allocs == MAX_ALLOCS) abort();
    r->allocs[r->n_allocs++] = p;
    return p;
}

/* An odd address; what lies past the end is no memory of ours. */
static uint8_t *take_odd(struct random_world *r, size_t bytes)
{
    return (uint8_t *)take(r, bytes) + 1;
}

static void random_halves(struct random_world *r, uint8_t *out, size_t n, float lo, float hi,
                          bool brain)
{
    for (size_t i = 0; i < n; i++) {
        float value = rng_float(&r->w.rng, lo, hi);
        uint16_t half = brain ? f32_to_bf16(value) : f32_to_f16(value);
        memcpy(out + 2 * i, &half, sizeof half);
    }
}

static void random_float_matrix(struct random_world *r, struct wmat *m)
{
    static const enum wtype types[] = {WTYPE_F32, WTYPE_F16, WTYPE_BF16};
    size_t n = (size_t)m->rows * m->cols;
    m->type = types[rng_below(&r->w.rng, COUNT_OF(types))];
    uint8_t *data = take_odd(r, n * (m->type == WTYPE_F32 ? 4 : 2));
    m->data = data;
    if (m->type != WTYPE_F32) random_halves(r, data, n, -1, 1, m->type == WTYPE_BF16);
    for (size_t i = 0; i < n && m->type == WTYPE_F32; i++) {
        float value = rng_float(&r->w.rng, -1, 1);
        memcpy(data + 4 * i, &value, sizeof value);
    }
}

static void random_packed_matrix(struct random_world *r, struct wmat *m)
{
    static const enum wtype types[] = {WTYPE_Q2, WTYPE_Q3, WTYPE_Q4, WTYPE_Q5, WTYPE_Q6, WTYPE_Q8};
    m->type = types[rng_below(&r->w.rng, COUNT_OF(types))];
    m->group = 32u << rng_below(&r->w.rng, 3);
    while (m->cols % m->group) m->group /= 2;
    uint32_t bits = wtype_bits(m->type);
    size_t bytes = (size_t)m->rows * m->cols * bits / 8,
           groups = (size_t)m->rows * m->cols / m->group;
    uint8_t *data = take_odd(r, bytes), *scales = take_odd(r, 2 * groups);
    uint8_t *biases = take_odd(r, 2 * groups);
    float step = 2.0f / (float)((1u << bits) - 1);
    for (size_t i = 0; i < bytes; i++) data[i] = (uint8_t)rng_u64(&r->w.rng);
    m->f16_scales = rng_below(&r->w.rng, 2);
    random_halves(r, scales, groups, 0.3f * step, step, !m->f16_scales);
    random_halves(r, biases, groups, -1.2f, -0.2f, !m->f16_scales);
    m->data = data;
    m->scales = scales;
    m->biases = biases;
}

static struct wmat random_matrix(struct random_world *r, uint32_t rows, uint32_t cols)
{
    struct wmat m = {.rows = rows, .cols = cols};
    if (r->v->packed && cols % 32 == 0 && rng_below(&r->w.rng, 8))
        random_packed_matrix(r, &m);
    else
        random_float_matrix(r, &m);
    return m;
}

static const float *random_values(struct random_world *r, size_t n, float lo, float hi)
{
    float *values = take(r, n * sizeof *values);
    for (size_t i = 0; i < n; i++) values[i] = rng_float(&r->w.rng, lo, hi);
    return values;
}

/* Gate and up in one matrix, transposed or not. */
static struct expert_view random_pair(struct random_world *r, const struct weight_decl *d,
                                      bool transposed)
{
    struct expert_view v = {0};
    if (!transposed) {
        v.gate = random_matrix(r, 2 * d->n_inter, d->cols);
        v.down = random_matrix(r, d->cols, d->n_inter);
        return v;
    }
    v.gate = (struct wmat){.rows = d->cols, .cols = 2 * d->n_inter};
    v.down = (struct wmat){.rows = d->n_inter, .cols = d->cols};
    random_float_matrix(r, &v.gate);
    random_float_matrix(r, &v.down);
    return v;
}

/* Each expert's matrices have types of their own. */
static const struct expert_bank *random_bank(struct random_world *r, const struct weight_decl *d)
{
    struct expert_bank *bank = take(r, sizeof *bank);
    *bank = (struct expert_bank){.layer = d->layer, .n_experts = d->n_experts};
    bank->experts = take(r, d->n_experts * sizeof *bank->experts);
    if (d->biased) {
        size_t n = d->n_experts;
        bank->gate_up_bias = random_values(r, n * 2 * d->n_inter, -1, 1);
        bank->down_bias = random_values(r, n * d->cols, -1, 1);
        bank->paired = rng_below(&r->w.rng, 3) != 0;
        bank->transposed = bank->paired && rng_below(&r->w.rng, 2);
    }
    for (uint32_t e = 0; e < d->n_experts && bank->paired; e++)
        bank->experts[e] = random_pair(r, d, bank->transposed);
    for (uint32_t e = 0; e < d->n_experts && !bank->paired; e++) {
        bank->experts[e].gate = random_matrix(r, d->n_inter, d->cols);
        bank->experts[e].up = random_matrix(r, d->n_inter, d->cols);
        bank->experts[e].down = random_matrix(r, d->cols, d->n_inter);
    }
    return bank;
}

/* Some rows that are no head's lie before, between and behind. */
static struct weight_data random_heads(struct random_world *r, const struct weight_decl *d)
{
    struct weight_data w = {0};
    w.heads.transposed = d->role == WEIGHT_k_b_proj && rng_below(&r->w.rng, 2);
    uint32_t rows = w.heads.transposed ? d->cols : d->rows;
    uint32_t cols = w.heads.transposed ? d->rows : d->cols;
    w.heads.first = rng_below(&r->w.rng, 3);
    w.heads.stride = rows + rng_below(&r->w.rng, 3);
    w.matrix = random_matrix(r, w.heads.first + d->n_heads * w.heads.stride, cols);
    return w;
}

static void random_weights(struct random_world *r)
{
    struct weight_data *weights = take(r, r->g.weights.n * sizeof *weights);
    for (size_t i = 0; i < r->g.weights.n; i++) {
        const struct weight_decl *d = &r->g.weights.items[i];
        enum weight_kind kind = weight_role_kind(d->role);
        if (kind == WEIGHT_KIND_MATRIX) weights[i].matrix = random_matrix(r, d->rows, d->cols);
        if (kind == WEIGHT_KIND_HEADS) weights[i] = random_heads(r, d);
        if (kind == WEIGHT_KIND_BANK) weights[i].bank = random_bank(r, d);
        if (kind != WEIGHT_KIND_VECTOR && kind != WEIGHT_KIND_CONV) continue;
        float lo = d->role == WEIGHT_neg_a ? -2.0f : 0.3f, hi = d->role == WEIGHT_neg_a ? 0 : 1.7f;
        weights[i].values = random_values(r, (size_t)d->rows * d->cols, lo, hi);
    }
    r->w.weights = weights;
}

/* Quiet NaNs, which are also numbers that no id or row may be. */
static void fill_bad(void *data, size_t bytes)
{
    uint32_t bad = BAD_PICK;
    for (size_t i = 0; i + 4 <= bytes; i += 4) memcpy((unsigned char *)data + i, &bad, 4);
}

/* Of all sequences of a world: what any of them comes to hold, and some pages that none touches. */
static uint32_t context_of(const struct variant *v)
{
    uint32_t most = 0;
    for (uint32_t s = 0; s < v->n_segments; s++)
        if (v->start[s] + v->count[s] > most) most = v->start[s] + v->count[s];
    return most + SLACK_TOKENS;
}

/* Held positions hold numbers; the others, and the state that a step writes, NaN. */
static void random_sequence(struct random_world *r, struct sequence *seq, uint32_t position)
{
    struct sluice_error err;
    if (sequence_init(seq, &r->layout, context_of(r->v), &err) != SLUICE_OK) abort();
    seq->position = position;
    seq->committed = rng_below(&r->w.rng, 2);
    fill_bad(seq->pages, seq->pages_bytes);
    fill_bad(seq->recurrent[seq->committed ^ 1], r->layout.recurrent_floats * sizeof(float));
    for (size_t i = 0; i < r->layout.recurrent_floats; i++)
        seq->recurrent[seq->committed][i] = rng_float(&r->w.rng, -1, 1);
    for (uint32_t s = 0; s < r->g.states.n; s++) {
        const struct state_decl *d = &r->g.states.items[s];
        for (uint32_t p = 0; p < position && d->kind == STATE_latent; p++)
            for (uint32_t i = 0; i < d->dims[0] + d->dims[1]; i++)
                cache_store(&r->w, seq->pages, cache_at(&r->w, s + 1, p, 0, false), i,
                            rng_float(&r->w.rng, -2, 2));
        for (uint32_t p = 0; p < position && d->kind == STATE_kv; p++)
            for (uint32_t i = 0; i < 2 * d->dims[0] * d->dims[1]; i++)
                cache_store(&r->w, seq->pages,
                            cache_at(&r->w, s + 1, p, i / d->dims[1] / 2, i / d->dims[1] % 2),
                            i % d->dims[1], rng_float(&r->w.rng, -2, 2));
    }
}

static void make_batch(struct random_world *r)
{
    struct world *w = &r->w;
    for (uint32_t s = 0; s < r->v->n_segments; s++) {
        random_sequence(r, &r->sequences[s], r->v->start[s]);
        w->segments[s] =
            (struct batch_segment){&r->sequences[s], w->batch.n_tokens, r->v->count[s]};
        w->batch.n_tokens += r->v->count[s];
    }
    w->batch.n_segments = r->v->n_segments;
    w->batch.n_outputs = r->v->n_outputs;
    w->batch.segments = w->segments;
}

/* Both: inputs of weights in bf16 are rounded to it in fast. */
enum { PAIRS = CPU_AVX512_BF16 | CPU_BF16_PAIRS };

static void add_lane(struct random_world *r, const char *level, uint32_t features, uint32_t threads)
{
    struct sluice_error err;
    struct lane *lane = &r->lanes[r->n_lanes++];
    *lane = (struct lane){.features = features,
                          .threads = threads,
                          .bf16 = r->v->int8 && (features & PAIRS) == PAIRS,
                          .level = level};
    struct cpu_options o = {
        .pool = {.n_threads = threads},
        .features = features,
        .int8 = r->v->int8,
        .pieces_from = r->n_lanes % 2, /* rows in pieces in every other lane */
        .prefetch = PREFETCH_ROUTER,
        .dims = {r->w.batch.n_tokens + SLACK_ROWS, r->w.batch.n_outputs + SLACK_ROWS}};
    if (cpu_open(&lane->be, &r->g, r->w.weights, &o, &err) != SLUICE_OK) abort();
    for (uint32_t b = 0; b < r->g.buffers.n; b++) {
        uint32_t id = r->g.generation << 20 | (b + 1);
        if (r->g.buffers.items[b].lifetime == LIFE_BORROWED) {
            lane->at[b] = take(r, r->w.bytes[b]);
            if (!cpu_bind_borrowed(lane->be, id, lane->at[b])) abort();
        }
        if (r->g.buffers.items[b].lifetime != LIFE_BORROWED) lane->at[b] = cpu_buffer(lane->be, id);
        memcpy(lane->at[b], r->w.at[b], r->w.bytes[b]);
    }
}

/*
 * Each level there is with one or two numbers of threads, the last one with all; in fast, where
 * nothing is packed, also inputs in bf16 with the scalar kernel, which is theirs without AVX-512.
 */
static void add_lanes(struct random_world *r)
{
    static const char *const levels[] = {"scalar",     "neon",       "avx2",
                                         "avxvnni",    "avx512",     "avx512vnni",
                                         "avx512vbmi", "avx512bf16", "bf16pairs"};
    static const uint32_t some[COUNT_OF(levels)][2] = {{1, 3}, {2, 0}, {2, 0}, {3, 0}, {5, 0},
                                                       {2, 0}, {3, 0}, {2, 0}, {1, 0}};
    static const uint32_t all[] = {1, 2, 3, 5};
    uint32_t best = cpu_detect(), seen = UINT32_MAX;
    for (size_t i = 0; i < COUNT_OF(levels); i++) {
        uint32_t features = best;
        if (!cpu_mask(levels[i], &features) || features == seen) continue;
        seen = features;
        for (size_t t = 0; t < (features == best ? COUNT_OF(all) : 2); t++) {
            uint32_t threads = features == best ? all[t] : some[i][t];
            if (threads) add_lane(r, levels[i], features, threads);
        }
    }
    if (!cpu_mask("avx2", &best)) abort();
    for (uint32_t threads = 1; threads < 4 && r->v->int8 && !r->v->packed; threads += 2)
        add_lane(r, "scalar products of bf16", best | PAIRS, threads);
}

void world_open(struct random_world *r, const struct variant *v, uint64_t seed)
{
    struct sluice_error err = {0};
    *r = (struct random_world){.v = v, .w = {.g = &r->g, .layout = &r->layout, .int8 = v->int8}};
    r->w.rng.state = seed;
    graph_init(&r->g, 7);
    sample_graph(&r->g, v->dims);
    for (size_t n = 0, routers = 0; n < r->g.nodes.n; n++)
        if (r->g.nodes.items[n].op == OP_KIND_router)
            r->g.nodes.items[n].u.router.normalize = routers++ == 0;
    if (graph_finish(&r->g, &err) != SLUICE_OK ||
        layout_from_graph(&r->layout, &r->g, v->kv, &err) != SLUICE_OK) {
        printf("# %s: %s\n", v->name, err.message);
        abort();
    }
    random_weights(r);
    make_batch(r);
    struct plan_dims dims = {r->w.batch.n_tokens + SLACK_ROWS, r->w.batch.n_outputs + SLACK_ROWS};
    if (plan_init(&r->plan, &r->g, dims, false, &err) != SLUICE_OK) abort();
    r->w.bytes = r->plan.bytes;
    r->w.at = take(r, r->g.buffers.n * sizeof *r->w.at);
    for (uint32_t b = 0; b < r->g.buffers.n; b++) {
        r->w.at[b] = take(r, r->w.bytes[b]);
        fill_bad(r->w.at[b], r->w.bytes[b]);
    }
    add_lanes(r);
}

void world_close(struct random_world *r)
{
    for (uint32_t i = 0; i < r->n_lanes; i++) cpu_close(&r->lanes[i].be);
    for (uint32_t s = 0; s < r->v->n_segments; s++) sequence_release(&r->sequences[s]);
    plan_release(&r->plan);
    layout_release(&r->layout);
    graph_release(&r->g);
    for (uint32_t i = 0; i < r->n_allocs; i++) free(r->allocs[i]);
}
