/* The memory plan against brute force: over random graphs, no two live buffers share storage. */
#include <stdlib.h>

#include "base/rng.h"
#include "check.h"
#include "random_graph.h"
#include "toy_run.h"

enum { N_GRAPHS = 4000, MAX_BUFFERS = 2000 };

struct interval {
    uint32_t first, last;
};

static uint32_t from_rng(void *source, uint32_t n)
{
    return rng_below(source, n);
}

static bool random_built(struct graph *g, struct rng *rng, uint32_t n_layers, uint32_t n_rounds)
{
    struct sluice_error err = {0};
    graph_init(g, 1 + rng_below(rng, 4095));
    struct random_graph r = {.g = g, .below = from_rng, .source = rng};
    random_graph(&r, n_layers, n_rounds);
    bool ok = graph_finish(g, &err) == SLUICE_OK && g->buffers.n <= MAX_BUFFERS;
    CHECK(ok, "%zu buffers: %s", g->buffers.n, err.message);
    return ok;
}

static bool transient(const struct graph *g, uint32_t b)
{
    return g->buffers.items[b].lifetime == LIFE_TRANSIENT;
}

/* Lifetimes by asking of every node which buffers it touches. */
static void brute_lifetimes(const struct graph *g, struct interval *life)
{
    for (uint32_t b = 0; b < g->buffers.n; b++) life[b] = (struct interval){UINT32_MAX, 0};
    for (uint32_t n = 0; n < g->nodes.n; n++) {
        const struct op_info *info = op_info(g->nodes.items[n].op);
        for (uint32_t i = 0; i < info->n_operands; i++) {
            uint32_t b;
            if (info->operands[i].kind != OPERAND_BUFFER) continue;
            if (!graph_buffer_index(g, operand_id(&g->nodes.items[n], &info->operands[i]), &b))
                continue;
            life[b].first = min_u32(life[b].first, n);
            life[b].last = n;
        }
    }
}

static uint32_t brute_most_alive(const struct graph *g, const struct interval *life)
{
    uint32_t most = 0;
    for (uint32_t n = 0; n < g->nodes.n; n++) {
        uint32_t alive = 0;
        for (uint32_t b = 0; b < g->buffers.n; b++)
            alive += transient(g, b) && life[b].first <= n && n <= life[b].last;
        most = max_u32(most, alive);
    }
    return most;
}

static void check_no_overlap(const struct graph *g, const struct plan *plan,
                             const struct interval *life)
{
    for (uint32_t a = 0; a < g->buffers.n; a++) {
        bool borrowed = g->buffers.items[a].lifetime == LIFE_BORROWED;
        CHECK(borrowed == (plan->slot[a] == (uint32_t)PLAN_BORROWED));
        if (borrowed) continue;
        CHECK(plan->slot[a] < plan->n_slots);
        for (uint32_t b = a + 1; b < g->buffers.n; b++) {
            if (plan->slot[a] != plan->slot[b]) continue;
            bool apart = life[a].last < life[b].first || life[b].last < life[a].first;
            CHECK(apart && transient(g, a) && transient(g, b), "%%%u and %%%u share", a + 1, b + 1);
        }
    }
}

static void check_sizes(const struct graph *g, const struct plan *plan, struct plan_dims dims)
{
    static size_t largest[MAX_BUFFERS];
    memset(largest, 0, sizeof largest);
    for (uint32_t b = 0; b < g->buffers.n; b++) {
        const struct buffer *buffer = &g->buffers.items[b];
        enum rows rows = role_rows(buffer->role);
        size_t n = rows == ROWS_TOKENS    ? dims.tokens
                   : rows == ROWS_OUTPUTS ? dims.outputs
                   : rows == ROWS_PICKS   ? dims.tokens * g->n_picks
                                          : 1;
        CHECK(plan->bytes[b] == n * buffer->width * 4);
        uint32_t slot = plan->slot[b];
        if (slot < plan->n_slots) largest[slot] = max_size(largest[slot], plan->bytes[b]);
    }
    size_t total = 0;
    for (uint32_t s = 0; s < plan->n_slots; s++) {
        CHECK(plan->slot_bytes[s] == align_up(largest[s], 64));
        total += plan->slot_bytes[s];
    }
    CHECK(plan->total_bytes == total);
}

/* What goes into an op and what comes out of it, or is scratch, never meet. */
static void check_no_alias(const struct graph *g, const struct plan *plan)
{
    for (uint32_t n = 0; n < g->nodes.n; n++) {
        const struct node *node = &g->nodes.items[n];
        const struct op_info *info = op_info(node->op);
        for (uint32_t i = 0; i < info->n_operands; i++) {
            for (uint32_t j = 0; j < info->n_operands; j++) {
                const struct operand *p = &info->operands[i], *q = &info->operands[j];
                uint32_t a, b;
                if (i == j || p->kind != OPERAND_BUFFER || q->kind != OPERAND_BUFFER) continue;
                if (p->mode == MODE_IN) continue;
                REQUIRE(graph_buffer_index(g, operand_id(node, p), &a));
                REQUIRE(graph_buffer_index(g, operand_id(node, q), &b));
                CHECK(a != b && plan->slot[a] != plan->slot[b], "%s of node %u", p->name, n);
            }
        }
    }
}

static struct plan_dims random_batch(struct rng *rng)
{
    uint32_t tokens = 1 + rng_below(rng, 4);
    return (struct plan_dims){.tokens = tokens, .outputs = 1 + rng_below(rng, tokens)};
}

static uint32_t n_of(const struct graph *g, enum lifetime life)
{
    uint32_t n = 0;
    for (uint32_t b = 0; b < g->buffers.n; b++) n += g->buffers.items[b].lifetime == life;
    return n;
}

static void test_live_buffers_never_share(void)
{
    struct rng rng = {1};
    static struct interval life[MAX_BUFFERS];
    size_t shared = 0, buffers = 0;
    for (uint32_t i = 0; i < N_GRAPHS; i++) {
        struct graph g;
        struct plan plan;
        struct sluice_error err = {0};
        if (random_built(&g, &rng, 3, 2)) {
            struct plan_dims dims = random_batch(&rng);
            REQUIRE(plan_init(&plan, &g, dims, true, &err) == SLUICE_OK, "%s", err.message);
            CHECK(plan.n_buffers == g.buffers.n);
            brute_lifetimes(&g, life);
            check_no_overlap(&g, &plan, life);
            check_no_alias(&g, &plan);
            check_sizes(&g, &plan, dims);
            CHECK(plan.n_slots == n_of(&g, LIFE_PERSISTENT) + brute_most_alive(&g, life));
            shared += n_of(&g, LIFE_PERSISTENT) + n_of(&g, LIFE_TRANSIENT) - plan.n_slots;
            buffers += g.buffers.n;
            plan_release(&plan);
        }
        graph_release(&g);
    }
    printf("# %d graphs, %zu buffers, %zu of them in a slot of another\n", N_GRAPHS, buffers,
           shared);
    CHECK(shared > buffers / 4);
}

/* A slot that rests is nobody's for so many nodes, and no buffer is smaller than it was. */
static void test_slots_rest(void)
{
    struct rng rng = {6};
    static struct interval life[MAX_BUFFERS];
    for (uint32_t i = 0; i < N_GRAPHS / 4; i++) {
        struct graph g;
        struct plan plan;
        struct sluice_error err = {0};
        if (random_built(&g, &rng, 3, 2)) {
            uint32_t rest = rng_below(&rng, 20);
            struct plan_dims dims = random_batch(&rng);
            REQUIRE(plan_init_without(&plan, &g, dims, true, NULL, rest, &err) == SLUICE_OK);
            brute_lifetimes(&g, life);
            check_no_overlap(&g, &plan, life);
            check_sizes(&g, &plan, dims);
            for (uint32_t a = 0; a < g.buffers.n; a++)
                for (uint32_t b = 0; b < g.buffers.n; b++)
                    CHECK(a == b || plan.slot[a] != plan.slot[b] ||
                          plan.slot[a] == (uint32_t)PLAN_BORROWED ||
                          life[a].first > life[b].first || life[a].last + rest < life[b].first);
            plan_release(&plan);
        }
        graph_release(&g);
    }
}

static void test_sharing_changes_no_result(void)
{
    struct rng rng = {2};
    for (uint32_t i = 0; i < N_GRAPHS / 4; i++) {
        struct graph g;
        struct plan tight, loose;
        struct sluice_error err = {0};
        if (random_built(&g, &rng, 3, 2)) {
            struct plan_dims dims = random_batch(&rng);
            REQUIRE(plan_init(&tight, &g, dims, true, &err) == SLUICE_OK);
            REQUIRE(plan_init(&loose, &g, dims, false, &err) == SLUICE_OK);
            CHECK(loose.n_slots == n_of(&g, LIFE_PERSISTENT) + n_of(&g, LIFE_TRANSIENT));
            uint64_t want = toy_digest(&g, &loose, &g, rng_u64(&rng));
            CHECK(toy_digest(&g, &tight, &g, rng_u64(&rng)) == want);
            plan_release(&tight);
            plan_release(&loose);
        }
        graph_release(&g);
    }
}

/* The toy run must notice storage that is shared wrongly, or the test above proves nothing. */
static void test_toy_run_notices_overlap(void)
{
    struct graph g;
    struct plan plan;
    struct sluice_error err = {0};
    struct plan_dims dims = {2, 1};
    static struct interval life[MAX_BUFFERS];
    graph_init(&g, 1);
    sample_graph(&g, &sample_alike);
    REQUIRE(graph_finish(&g, &err) == SLUICE_OK, "%s", err.message);
    REQUIRE(plan_init(&plan, &g, dims, false, &err) == SLUICE_OK);
    brute_lifetimes(&g, life);
    uint64_t right = toy_digest(&g, &plan, &g, 1);
    uint32_t wrong = 0, noticed = 0;
    for (uint32_t a = 0; a < g.buffers.n; a++) {
        for (uint32_t b = 0; b < g.buffers.n; b++) {
            bool apart = life[a].last < life[b].first || life[b].last < life[a].first;
            bool meet = a != b && transient(&g, a) && transient(&g, b) && !apart;
            if (!meet || plan.bytes[a] > plan.bytes[b]) continue;
            uint32_t own = plan.slot[a];
            plan.slot[a] = plan.slot[b];
            wrong++;
            noticed += toy_digest(&g, &plan, &g, 1) != right;
            plan.slot[a] = own;
        }
    }
    printf("# %u of %u wrong plans noticed\n", noticed, wrong);
    CHECK(wrong > 100 && noticed == wrong);
    plan_release(&plan);
    graph_release(&g);
}

static bool same_plan(const struct plan *a, const struct plan *b)
{
    size_t n = a->n_buffers;
    return n == b->n_buffers && a->n_slots == b->n_slots && a->total_bytes == b->total_bytes &&
           memcmp(a->slot, b->slot, n * sizeof *a->slot) == 0 &&
           memcmp(a->bytes, b->bytes, n * sizeof *a->bytes) == 0 &&
           memcmp(a->first, b->first, n * sizeof *a->first) == 0 &&
           memcmp(a->last, b->last, n * sizeof *a->last) == 0 &&
           memcmp(a->slot_bytes, b->slot_bytes, a->n_slots * sizeof *a->slot_bytes) == 0;
}

static void test_planning_twice_is_planning_once(void)
{
    struct rng rng = {3};
    for (uint32_t i = 0; i < 200; i++) {
        struct graph g;
        struct plan a, b;
        struct sluice_error err = {0};
        if (random_built(&g, &rng, 3, 2)) {
            struct plan_dims dims = random_batch(&rng);
            REQUIRE(plan_init(&a, &g, dims, i % 2, &err) == SLUICE_OK);
            REQUIRE(plan_init(&b, &g, dims, i % 2, &err) == SLUICE_OK);
            CHECK(same_plan(&a, &b));
            plan_release(&a);
            plan_release(&b);
        }
        graph_release(&g);
    }
}

/* Every op is met often, or the random graphs prove little. */
static void test_random_graphs_use_every_op(void)
{
    struct rng rng = {4};
    uint32_t seen[OP_COUNT] = {0};
    for (uint32_t i = 0; i < 500; i++) {
        struct graph g;
        if (random_built(&g, &rng, 3, 2))
            for (size_t n = 0; n < g.nodes.n; n++) seen[g.nodes.items[n].op]++;
        graph_release(&g);
    }
    for (uint32_t op = 0; op < OP_COUNT; op++)
        CHECK(seen[op] >= 20, "%s only %u times", op_info((enum op)op)->name, seen[op]);
}

/* With operands missing, stale or of a wrong shape: an error or a graph that can be planned. */
static void test_careless_graphs_are_refused(void)
{
    struct rng rng = {5};
    uint32_t refused = 0;
    for (uint32_t i = 0; i < 20000; i++) {
        struct graph g;
        struct plan plan;
        struct sluice_error err = {0};
        graph_init(&g, 1 + i % 3);
        struct random_graph r = {.g = &g, .below = from_rng, .source = &rng, .careless = true};
        random_graph(&r, 2, 2);
        if (graph_finish(&g, &err) != SLUICE_OK) {
            refused++;
            CHECK(err.code == SLUICE_E_INTERNAL && strncmp(err.message, "graph: ", 7) == 0);
        } else if (plan_init(&plan, &g, random_batch(&rng), true, &err) == SLUICE_OK) {
            plan_release(&plan);
        } else {
            CHECK(err.code == SLUICE_E_NOMEM, "%s", err.message);
        }
        graph_release(&g);
    }
    printf("# %u of 20000 refused\n", refused);
    CHECK(refused > 10000 && refused < 20000);
}

static void check_too_large(struct graph *g, struct plan_dims dims)
{
    struct plan plan;
    struct sluice_error err = {0};
    REQUIRE(graph_finish(g, &err) == SLUICE_OK, "%s", err.message);
    CHECK(plan_init(&plan, g, dims, true, &err) == SLUICE_E_NOMEM);
    CHECK(strcmp(err.message, "memory plan: the batch is too large") == 0, "%s", err.message);
    CHECK(plan.slot == NULL && plan.total_bytes == 0);
    graph_release(g);
}

/* One buffer that overflows: in rows times width, in bytes, in rounding up to whole lines. */
static void test_absurd_rows_are_errors(void)
{
    static const uint32_t cases[][2] = {
        {UINT32_MAX, UINT32_MAX}, {1u << 31, 1u << 31}, {(1u << 31) - 1, (1u << 31) + 1}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct graph g;
        graph_init(&g, 1);
        buf_token_ids ids = graph_token_ids(&g);
        wt_embed table = WEIGHT(&g, embed, 2, cases[i][1]);
        graph_keep(&g, PUSH(&g, embed, .ids = ids, .table = table));
        check_too_large(&g, (struct plan_dims){cases[i][0], 1});
    }
}

static void test_absurd_batches_are_errors(void)
{
    struct graph g;
    struct sample_dims d = sample_distinct;
    d.hidden = 1u << 30; /* each buffer can be had, their sum cannot */
    graph_init(&g, 1);
    sample_graph(&g, &d);
    check_too_large(&g, (struct plan_dims){1u << 30, 1});
    d.hidden = 1u << 28; /* picks x tokens x hidden is 2^64, and all else fits */
    d.experts = d.picks = 64;
    graph_init(&g, 1);
    sample_graph(&g, &d);
    check_too_large(&g, (struct plan_dims){1u << 30, 1});
}

static void test_rows(void)
{
    struct plan_dims dims = {.tokens = UINT32_MAX, .outputs = 7};
    CHECK(plan_rows(ROWS_TOKENS, dims, 3) == UINT32_MAX);
    CHECK(plan_rows(ROWS_OUTPUTS, dims, 3) == 7);
    CHECK(plan_rows(ROWS_PICKS, dims, 3) == UINT64_C(3) * UINT32_MAX);
    CHECK(plan_rows(ROWS_FIXED, dims, 3) == 1);
}

static void test_a_batch_of_nothing(void)
{
    struct graph g;
    struct plan plan;
    struct sluice_error err = {0};
    graph_init(&g, 1);
    sample_graph(&g, &sample_distinct);
    CHECK_OK(graph_finish(&g, &err));
    REQUIRE(plan_init(&plan, &g, (struct plan_dims){0, 0}, true, &err) == SLUICE_OK);
    /* What has one row whatever the batch still needs room. */
    size_t fixed = align_up((sample_distinct.experts + 1) * 4, 64);
    CHECK(plan.total_bytes == fixed || plan.total_bytes == 2 * fixed, "%zu", plan.total_bytes);
    plan_release(&plan);
    plan_release(&plan);
    graph_release(&g);
}

#define CASES(C)                                                                                   \
    C(live_buffers_never_share)                                                                    \
    C(slots_rest)                                                                                  \
    C(sharing_changes_no_result)                                                                   \
    C(toy_run_notices_overlap)                                                                     \
    C(planning_twice_is_planning_once)                                                             \
    C(random_graphs_use_every_op)                                                                  \
    C(careless_graphs_are_refused)                                                                 \
    C(absurd_rows_are_errors)                                                                      \
    C(absurd_batches_are_errors)                                                                   \
    C(rows)                                                                                        \
    C(a_batch_of_nothing)
CHECK_MAIN(CASES)
