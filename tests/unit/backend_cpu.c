/* The CPU backend as a whole: shared storage, steps that are not committed, what it refuses. */
#include <stdlib.h>

#include "backend_bench.h"
#include "base/bits.h"
#include "sample_graph.h"

static void check_same(struct bench *one, struct bench *other, const char *path)
{
    static const uint32_t steps[][2] = {{40, 8}, {1, 0}, {1, 1}, {3, 44}, {0, 1}};
    struct rng a = {5}, b = {5};
    for (int i = 0; i < 5; i++) {
        bench_step(one, &a, steps[i][0], steps[i][1], true);
        bench_step(other, &b, steps[i][0], steps[i][1], true);
        CHECK(same_logits(one, other, steps[i][0] + steps[i][1]), "%s, step %d", path, i);
        CHECK(same_states(one, other), "%s, step %d", path, i);
    }
    CHECK(cpu_expert_uses(one->be) == cpu_expert_uses(other->be));
}

/* The plan's shared storage beside a buffer for everything. */
static void check_sharing(const char *path, bool int8)
{
    struct bench shared, apart;
    bench_open(&shared, path, int8, true, 2);
    bench_open(&apart, path, int8, false, 3);
    CHECK(cpu_scratch_bytes(shared.be) < cpu_scratch_bytes(apart.be));
    check_same(&shared, &apart, path);
    bench_close(&shared);
    bench_close(&apart);
}

static void test_shared_storage_changes_no_bit(void)
{
    check_sharing("models/storyteller", true);
    check_sharing("tests/reference/qwen3_5_moe-mlx4", false);
    check_sharing("tests/reference/tied", false);
}

/* Threads that take rows as they come to them, of every matrix, beside fixed shares. */
static void check_pieces(const char *path, bool int8)
{
    struct bench shares, pieces;
    bench_open_in(&shares, path, int8, 3, POOL_TOGETHER, UINT64_MAX);
    bench_open_in(&pieces, path, int8, 3, POOL_TOGETHER, 1);
    check_same(&shares, &pieces, path);
    bench_close(&shares);
    bench_close(&pieces);
}

static void test_pieces_change_no_bit(void)
{
    check_pieces("models/storyteller", true);
    check_pieces("tests/reference/qwen3_5_moe-mlx4", false);
    check_pieces("tests/reference/gpt_oss", true);
}

/* Threads that go one after the other from barrier to barrier, as far apart as these let them. */
static void check_order(const char *path, bool int8, uint32_t threads, enum pool_order order,
                        uint64_t pieces_from)
{
    struct bench alone, many;
    bench_open(&alone, path, int8, true, 1);
    bench_open_in(&many, path, int8, threads, order, pieces_from);
    static const uint32_t steps[][2] = {{40, 8}, {1, 0}, {1, 0}, {0, 1}, {1, 1}, {1, 0}};
    struct rng a = {8}, b = {8};
    for (uint32_t i = 0; i < COUNT_OF(steps); i++) {
        bench_step(&alone, &a, steps[i][0], steps[i][1], true);
        bench_step(&many, &b, steps[i][0], steps[i][1], true);
        bool same = same_logits(&alone, &many, steps[i][0] + steps[i][1]);
        CHECK(same && same_states(&alone, &many), "%s, %u threads, order %d, step %u", path,
              threads, order, i);
    }
    bench_close(&alone);
    bench_close(&many);
}

static void test_no_order_of_threads_changes_a_bit(void)
{
    static const char *const models[] = {"models/storyteller",
                                         "tests/reference/qwen3_5_moe-mlx4",
                                         "tests/reference/qwen3_next-interval",
                                         "tests/reference/all-full",
                                         "tests/reference/deepseek_v3",
                                         "tests/reference/gpt_oss",
                                         "tests/reference/glm4_moe-groups",
                                         "tests/reference/mixtral-window"};
    static const uint32_t threads[] = {2, 3, 7};
    const size_t step = is_instrumented() ? 3 : 1;
    for (size_t m = 0; m < COUNT_OF(models); m += step)
        for (size_t i = is_instrumented(); i < COUNT_OF(threads); i++) {
            check_order(models[m], i != 1, threads[i], POOL_RISING, i == 2);
            check_order(models[m], i != 1, threads[i], POOL_FALLING, i == 2);
        }
}

/* Of a step that is not committed: what it gave, and the states it would leave. */
static bool same_result(struct bench *a, struct bench *b)
{
    bool same = same_logits(a, b, 1);
    for (uint32_t i = 0; i < a->layout.n_recurrent; i++)
        same &=
            memcmp(sequence_recurrent_next(&a->seq[0], i), sequence_recurrent_next(&b->seq[0], i),
                   a->layout.recurrent[i].n * sizeof(float)) == 0;
    return same;
}

/* The same token behind the same ones, in both orders. */
static bool is_noticed(struct bench *right, struct bench orders[2], struct rng ids)
{
    bool same = true;
    struct rng again = ids;
    bench_step(right, &again, 1, 0, false);
    for (int i = 0; i < 2; i++) {
        again = ids;
        bench_step(&orders[i], &again, 1, 0, false);
        same &= same_result(right, &orders[i]);
    }
    return !same;
}

/*
 * What no order shows: units of attention go to the first thread that asks, so it has all of them,
 * and the tail is a run of its own.
 */
static bool is_hidden(const struct bench *b, const struct step *step)
{
    const struct node *node = &b->m.graph.nodes.items[step->node];
    return node->op == OP_KIND_sigmoid_gate || step->node == b->m.tail_node;
}

/* The orders must notice a barrier that is missing, and none may be there for nothing. */
static void test_every_barrier_of_a_token_is_needed(void)
{
    struct bench right, orders[2];
    const char *path = "models/storyteller";
    bench_open(&right, path, true, true, 1);
    bench_open_in(&orders[0], path, true, 2, POOL_RISING, 0);
    bench_open_in(&orders[1], path, true, 2, POOL_FALLING, 0);
    struct bench *all[] = {&right, &orders[0], &orders[1]};
    for (int i = 0; i < 3; i++) {
        struct rng ids = {3};
        bench_step(all[i], &ids, 30, 0, true);
    }
    uint32_t barriers = 0, noticed = 0;
    for (uint32_t s = 0; s < right.be->n_steps; s++) {
        if (!right.be->steps[s].barrier[1] || (is_instrumented() && s % 4)) continue;
        for (int i = 0; i < 2; i++) orders[i].be->steps[s].barrier[1] = false;
        bool found = is_noticed(&right, orders, (struct rng){100 + s});
        for (int i = 0; i < 2; i++) orders[i].be->steps[s].barrier[1] = true;
        CHECK(!is_noticed(&right, orders, (struct rng){200 + s}), "step %u", s);
        CHECK(found || is_hidden(&right, &right.be->steps[s]),
              "without the barrier before step %u nothing changes", s);
        barriers++;
        noticed += found;
    }
    printf("# %u of %u missing barriers noticed\n", noticed, barriers);
    CHECK(noticed > 0 && noticed + 3 >= barriers);
    for (int i = 0; i < 3; i++) bench_close(all[i]);
}

/* A step that is not committed leaves no trace; repeated, it gives the same. */
static void test_steps_can_be_given_up(void)
{
    struct bench straight, wavering;
    bench_open(&straight, "tests/reference/qwen3_5_moe-mlx4", true, true, 1);
    bench_open(&wavering, "tests/reference/qwen3_5_moe-mlx4", true, true, 2);
    struct rng a = {1}, b = {1}, other = {77};
    for (uint32_t i = 0; i < 6; i++) {
        struct rng again = b;
        bench_step(&wavering, &other, 5 + i, 3, false);
        bench_step(&wavering, &b, 4 + i, i % 2, false);
        bench_step(&wavering, &again, 4 + i, i % 2, true);
        bench_step(&straight, &a, 4 + i, i % 2, true);
        CHECK(same_logits(&straight, &wavering, 4 + i + i % 2), "step %u", i);
    }
    bench_close(&straight);
    bench_close(&wavering);
}

/*
 * A model in bf16 under features that this machine may not have: without AVX-512 their kernel is
 * the scalar one.
 */
static void open_bf16(struct bench *b, bool int8, uint32_t more, uint32_t threads,
                      uint64_t pieces_from)
{
    struct cpu_options o = {.pool = {.n_threads = threads},
                            .features = cpu_detect(),
                            .int8 = int8,
                            .dims = {TOKENS, TOKENS},
                            .share_buffers = true,
                            .pieces_from = pieces_from};
    if (!cpu_mask("avx2", &o.features)) abort();
    o.features |= more;
    bench_open_with(b, "tests/reference/tied", &o);
}

enum { PAIRS = CPU_AVX512_BF16 | CPU_BF16_PAIRS };

static void test_bf16_inputs_need_both_features(void)
{
    static const uint32_t more[] = {CPU_AVX512_BF16, CPU_BF16_PAIRS, PAIRS};
    for (int int8 = 0; int8 < 2; int8++) {
        struct bench plain;
        open_bf16(&plain, int8, 0, 2, 0);
        bench_step(&plain, &(struct rng){4}, 9, 3, false);
        for (size_t i = 0; i < COUNT_OF(more); i++) {
            struct bench b;
            open_bf16(&b, int8, more[i], 2, 0);
            bench_step(&b, &(struct rng){4}, 9, 3, false);
            CHECK(same_logits(&plain, &b, 12) == !(int8 && more[i] == PAIRS), "%d %zu", int8, i);
            bench_close(&b);
        }
        bench_close(&plain);
    }
}

/* Those that would be int8 if the weights were packed. */
static void test_bf16_inputs_are_not_of_routers(void)
{
    struct bench b;
    uint32_t counts[2] = {0};
    open_bf16(&b, true, PAIRS, 1, 0);
    for (uint32_t n = 0; n < b.m.graph.nodes.n; n++) {
        struct projection p;
        if (!cpu_projection(b.be, &b.m.graph.nodes.items[n], &p)) continue;
        enum weight_role role = b.m.graph.weights.items[p.w].role;
        bool small = role == WEIGHT_router_proj || role == WEIGHT_shared_gate_proj ||
                     role == WEIGHT_alpha_proj || role == WEIGHT_beta_proj;
        CHECK(b.be->node_mode[n] == (small ? NODE_F32 : NODE_BF16), "node %u", n);
        counts[small]++;
    }
    CHECK(counts[0] > 20 && counts[1] > 8, "%u %u", counts[0], counts[1]);
    bench_close(&b);
}

static void test_bf16_inputs_do_not_depend_on_cuts(void)
{
    static const uint32_t cuts[] = {7, 12, 1, 20};
    struct bench whole, cut;
    struct rng a = {6}, b = {6};
    open_bf16(&whole, true, PAIRS, 1, UINT64_MAX);
    open_bf16(&cut, true, PAIRS, 3, 1);
    bench_step(&whole, &a, 40, 0, true);
    for (size_t i = 0; i < COUNT_OF(cuts); i++) bench_step(&cut, &b, cuts[i], 0, true);
    bench_step(&whole, &a, 1, 6, true);
    bench_step(&cut, &b, 1, 6, true);
    CHECK(same_logits(&whole, &cut, 7) && same_states(&whole, &cut));
    bench_close(&whole);
    bench_close(&cut);
}

static void test_ids_of_others_are_refused(void)
{
    struct bench b;
    bench_open(&b, "tests/reference/qwen3_5_moe-mlx4", true, true, 1);
    static const float value;
    CHECK(cpu_buffer(b.be, 0) == NULL);
    CHECK(cpu_buffer(b.be, UINT32_MAX) == NULL);
    CHECK(cpu_buffer(b.be, b.m.logits.id + (1u << 20)) == NULL);
    CHECK(CPU_BUFFER(b.be, b.m.rope_freqs) == b.m.rope_values);
    CHECK(!cpu_bind_borrowed(b.be, 0, &value));
    CHECK(!CPU_BIND_BORROWED(b.be, b.m.logits, &value));
    CHECK(!cpu_bind_borrowed(b.be, b.m.rope_freqs.id + (1u << 20), &value));
    CHECK(CPU_BUFFER(b.be, b.m.rope_freqs) == b.m.rope_values);
    bench_close(&b);
}

/* A graph of the sample's shapes over weights of zeros. */
struct sample {
    struct graph g;
    struct weight_data *weights;
    struct cpu_backend *be;
};

static enum sluice_status sample_backend(struct sample *s, const struct sample_dims *dims,
                                         struct plan_dims room, struct sluice_error *err)
{
    struct cpu_options o = {.pool = {.n_threads = 1}, .dims = room, .share_buffers = true};
    graph_init(&s->g, 1);
    sample_graph(&s->g, dims);
    TRY(graph_finish(&s->g, err));
    s->weights = calloc(s->g.weights.n, sizeof *s->weights);
    if (!s->weights) abort();
    return cpu_open(&s->be, &s->g, s->weights, &o, err);
}

static void sample_release(struct sample *s)
{
    cpu_close(&s->be);
    free(s->weights);
    graph_release(&s->g);
}

static void test_shapes_no_kernel_takes(void)
{
    struct sluice_error err = {0};
    struct sample s = {0};
    struct sample_dims dims = sample_distinct;
    dims.conv_width = 65;
    CHECK(sample_backend(&s, &dims, (struct plan_dims){4, 4}, &err) == SLUICE_E_UNSUPPORTED);
    CHECK(strcmp(err.message, "layer 0: a convolution of width 65") == 0, "%s", err.message);
    CHECK(s.be == NULL);
    sample_release(&s);
    s = (struct sample){0};
    dims.conv_width = 64;
    CHECK_OK(sample_backend(&s, &dims, (struct plan_dims){4, 4}, &err));
    sample_release(&s);
}

static void test_batches_too_large(void)
{
    struct sluice_error err = {0};
    struct sample s = {0};
    struct plan_dims room = {UINT32_MAX, UINT32_MAX};
    struct sample_dims dims = sample_distinct;
    dims.hidden = dims.expert_inter = 1 << 20;
    dims.picks = 7;
    CHECK(sample_backend(&s, &dims, room, &err) == SLUICE_E_NOMEM);
    CHECK(err.message[0] && s.be == NULL);
    sample_release(&s);
}

static void test_room_costs_memory(void)
{
    struct sluice_error err = {0};
    struct sample small = {0}, large = {0};
    CHECK_OK(sample_backend(&small, &sample_distinct, (struct plan_dims){1, 1}, &err));
    CHECK_OK(sample_backend(&large, &sample_distinct, (struct plan_dims){256, 64}, &err));
    CHECK(cpu_scratch_bytes(small.be) > 0);
    CHECK(cpu_scratch_bytes(large.be) > 2 * cpu_scratch_bytes(small.be));
    sample_release(&small);
    sample_release(&large);
}

/* DeltaNet, attention, DeltaNet: caches and recurrent states are counted apart. */
static void test_layout_of_a_graph(void)
{
    static const bool linear[] = {true, false, true, false};
    struct sluice_error err = {0};
    struct state_layout layout;
    struct graph g;
    graph_init(&g, 1);
    sample_push(&g, &sample_distinct, linear, 4);
    CHECK_OK(graph_finish(&g, &err));
    CHECK_OK(layout_from_graph(&layout, &g, KV_F16, &err));
    REQUIRE(layout.n_kv == 2 && layout.n_recurrent == 4 && layout.kv_type == KV_F16);
    static const enum state_kind kinds[] = {STATE_conv, STATE_delta, STATE_kv,
                                            STATE_conv, STATE_delta, STATE_kv};
    static const uint32_t places[] = {0, 1, 0, 2, 3, 1};
    for (uint32_t s = 0; s < 6; s++) {
        CHECK(g.states.items[s].kind == kinds[s], "%u", s);
        CHECK(layout_index(&g, s) == places[s], "%u", s);
    }
    CHECK(layout.kv[0].n_heads == 2 && layout.kv[0].head_dim == 6);
    CHECK(layout.recurrent[0].n == 3 * 32 && layout.recurrent[1].n == 4 * 5 * 3);
    layout_release(&layout);
    graph_release(&g);
}

static void test_close_nothing(void)
{
    struct cpu_backend *none = NULL;
    cpu_close(&none);
    CHECK(none == NULL);
}

#define CASES(C)                                                                                   \
    C(shared_storage_changes_no_bit)                                                               \
    C(pieces_change_no_bit)                                                                        \
    C(no_order_of_threads_changes_a_bit)                                                           \
    C(every_barrier_of_a_token_is_needed)                                                          \
    C(steps_can_be_given_up)                                                                       \
    C(bf16_inputs_need_both_features)                                                              \
    C(bf16_inputs_are_not_of_routers)                                                              \
    C(bf16_inputs_do_not_depend_on_cuts)                                                           \
    C(ids_of_others_are_refused)                                                                   \
    C(shapes_no_kernel_takes)                                                                      \
    C(batches_too_large)                                                                           \
    C(room_costs_memory)                                                                           \
    C(layout_of_a_graph)                                                                           \
    C(close_nothing)
CHECK_MAIN(CASES)
