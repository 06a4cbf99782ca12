/*
 * The kernels of one row, in cache, by one thread. kernel.def is the list: each slot NAME needs
 * COST(NAME, bytes, operations) of a call and run_NAME, which calls it REPEATS times.
 */
#include "bench.h"

enum { REPEATS = 256, HEAD = 128, EXPERTS = 256, CHOSEN = 8, RANK = 512, ROTATED = 64 };
enum { LATENT_VALUES = ATTENTION_BLOCK * (RANK + ROTATED) };

struct cost {
    double bytes, operations;
};

#define COST(name, bytes, operations)                                                              \
    static const struct cost cost_##name = {(double)(bytes), (double)(operations)}

/* Calls a kernel with w, the world, in sight. */
#define RUN(name, ...)                                                                             \
    static void run_##name(const struct job *job)                                                  \
    {                                                                                              \
        const struct world *w = job->operands;                                                     \
        for (int i = 0; i < REPEATS; i++) job->k->name(__VA_ARGS__);                               \
    }

COST(quantize_act8, COLS * 5, COLS * 3);
RUN(quantize_act8, w->x, COLS, w->act.q, w->act.scale, w->act.sum)
COST(add, COLS * 12, COLS);
RUN(add, w->x, w->x + COLS, COLS, w->y)
COST(swiglu, COLS * 12, COLS * 4);
RUN(swiglu, w->x, w->x + COLS, COLS, w->y)
COST(swiglu_clamped, COLS * 12, COLS * 8);
RUN(swiglu_clamped, w->x, w->x + COLS, COLS, 7, w->y)
COST(sigmoid_gate, COLS * 12, COLS * 3);
RUN(sigmoid_gate, w->x, w->x + COLS, COLS, w->y)
COST(combine, COLS * 16, COLS * 3);
RUN(combine, w->x, w->x + COLS, w->x + 2 * COLS, 0.5f, COLS, w->y)
COST(weighted_sum, COLS * 4 * (CHOSEN + 1), COLS * 2 * CHOSEN);
static void run_weighted_sum(const struct job *job)
{
    const struct world *w = job->operands;
    const float *rows[CHOSEN];
    for (int j = 0; j < CHOSEN; j++) rows[j] = w->x + (size_t)j * COLS;
    for (int i = 0; i < REPEATS; i++)
        job->k->weighted_sum(rows, w->x + CHOSEN * COLS, CHOSEN, COLS, w->y);
}
COST(rms_norm, COLS * 12, COLS * 4);
RUN(rms_norm, w->x, w->x + COLS, COLS, 1e-6f, w->y)
COST(l2_norm, HEAD * 8, HEAD * 3);
RUN(l2_norm, w->x, HEAD, 1e-6f, 0.1f, w->y)
COST(gated_rms_norm, HEAD * 16, HEAD * 8);
RUN(gated_rms_norm, w->x, w->x + HEAD, w->x + 2 * HEAD, HEAD, 1e-6f, w->y)
COST(rope, KV_HEAD * 8 + ROTATED * 4, ROTATED * 3);
RUN(rope, w->x, w->x + KV_HEAD, KV_HEAD, ROTATED, w->y)
COST(rope_pairs, KV_HEAD * 8 + ROTATED * 4, ROTATED * 3);
RUN(rope_pairs, w->x, w->x + KV_HEAD, KV_HEAD, ROTATED, w->y)
COST(scale, COLS * 8, COLS);
RUN(scale, w->x, 0.5f, COLS, w->y)
COST(f32_to_f16_row, COLS * 6, COLS);
RUN(f32_to_f16_row, w->x, COLS, (uint16_t *)w->y)
COST(decay_beta, 32 * 24, 32 * 10);
RUN(decay_beta, w->x, w->x + 32, w->x + 64, w->x + 96, 32, w->y, w->y + 32)

COST(conv_silu, COLS * 36, COLS * 11);
static void run_conv_silu(const struct job *job)
{
    const struct world *w = job->operands;
    const float *rows[4] = {w->x, w->x + COLS, w->x + 2 * COLS, w->x + 3 * COLS};
    for (int i = 0; i < REPEATS; i++) job->k->conv_silu(rows, w->x + 4 * COLS, COLS, 4, COLS, w->y);
}

COST(softmax_top_k, EXPERTS * 4, EXPERTS *CHOSEN);
static void run_softmax_top_k(const struct job *job)
{
    const struct world *w = job->operands;
    int32_t ids[CHOSEN];
    float weights[CHOSEN];
    for (int i = 0; i < REPEATS; i++)
        job->k->softmax_top_k(w->x, EXPERTS, CHOSEN, true, ids, weights, w->y);
}

COST(sigmoid_top_k, EXPERTS * 8, EXPERTS *CHOSEN);
static void run_sigmoid_top_k(const struct job *job)
{
    const struct world *w = job->operands;
    int32_t ids[CHOSEN];
    float weights[CHOSEN];
    struct sigmoid_choice how = {w->x + EXPERTS, CHOSEN, 8, 4, true, 2.5f};
    for (int i = 0; i < REPEATS; i++)
        job->k->sigmoid_top_k(w->x, EXPERTS, &how, ids, weights, w->y);
}

COST(delta_net, HEAD *HEAD * 8, HEAD *HEAD * 7);
static void run_delta_net(const struct job *job)
{
    const struct world *w = job->operands;
    const float gates[2] = {0.9f, 0.01f};
    const struct delta_tokens x = {.q = w->x,
                                   .k = w->x + HEAD,
                                   .v = w->x + 2 * HEAD,
                                   .g = gates,
                                   .b = gates + 1,
                                   .out = w->y + HEAD * HEAD,
                                   .n = 1};
    for (int i = 0; i < REPEATS; i++) job->k->delta_net(w->y, w->y, &x, HEAD, HEAD);
}

COST(attention_block_f16, ATTENTION_BLOCK *KV_HEAD * 4, SHARING *ATTENTION_BLOCK *KV_HEAD * 4);
static void run_attention_block_f16(const struct job *job)
{
    for (int i = 0; i < REPEATS; i++) run_blocks_f16(job);
}

COST(attention_block_f32, ATTENTION_BLOCK *KV_HEAD * 8, SHARING *ATTENTION_BLOCK *KV_HEAD * 4);
static void run_attention_block_f32(const struct job *job)
{
    for (int i = 0; i < REPEATS; i++) run_blocks_f32(job);
}

/* Heads of latent attention over one block: key and value are the same memory. */
struct latents {
    struct latent_query q;
    struct softmax_state st[SHARING];
    float acc[SHARING * RANK];
};

static void latents_begin(struct latents *l, const struct world *w)
{
    *l = (struct latents){.q = {w->x, w->x + SHARING * RANK, SHARING, RANK, ROTATED, 1e-4f}};
    for (int h = 0; h < SHARING; h++) l->st[h] = (struct softmax_state){-INFINITY, 0};
}

COST(latent_block_f16, LATENT_VALUES * 2, SHARING *ATTENTION_BLOCK * 2 * (2 * RANK + ROTATED));
static void run_latent_block_f16(const struct job *job)
{
    const struct world *w = job->operands;
    struct latents l;
    latents_begin(&l, w);
    for (int i = 0; i < REPEATS; i++)
        job->k->latent_block_f16(&l.q, (const uint16_t *)w->memory, ATTENTION_BLOCK, l.st, l.acc);
}

COST(latent_block_f32, LATENT_VALUES * 4, SHARING *ATTENTION_BLOCK * 2 * (2 * RANK + ROTATED));
static void run_latent_block_f32(const struct job *job)
{
    const struct world *w = job->operands;
    struct latents l;
    latents_begin(&l, w);
    for (int i = 0; i < REPEATS; i++)
        job->k->latent_block_f32(&l.q, (const float *)w->memory, ATTENTION_BLOCK, l.st, l.acc);
}

static const struct row_bench {
    const char *name;
    void (*run)(const struct job *job);
    const struct cost *cost; /* of a call */
} row_benches[] = {
#define K(ret, name, params) {#name, run_##name, &cost_##name},
#define KW(ret, name, params)
#include "kernel/kernel.def"
#undef K
#undef KW
};

void bench_rows(const struct world *world, const struct kernels *k, const char *set)
{
    for (size_t i = 0; i < COUNT_OF(row_benches); i++) {
        const struct row_bench *b = &row_benches[i];
        char name[96];
        snprintf(name, sizeof name, "%s %s", b->name, set);
        if (!may_measure(world, k, b->name, 0, name)) continue;
        memset(world->y, 0, (HEAD * HEAD + HEAD) * sizeof(float));
        struct job job = {b->run, k, world, 0, 1, 1, world->scratch, 1};
        struct result r = measure(&job, 1);
        r = (struct result){.median = r.median / REPEATS,
                            .low = r.low / REPEATS,
                            .high = r.high / REPEATS,
                            .best = r.best / REPEATS,
                            .hz = r.hz};
        print_result(world->options, name, "cache", 1, r, b->cost->bytes, b->cost->operations);
    }
}
