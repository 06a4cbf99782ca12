/*
 * The CPU backend over an expert store with few slots: rounds of experts, and slots that are given
 * back however a run ends. A slot that is not would be missing in the next step.
 */
#include "backend_bench.h"
#include "base/bits.h"
#include "store/expert_store.h"

static const char storyteller[] = "models/storyteller";

/* Refuses the expert whose turn it is, of those that are read for the first time. */
struct refusal {
    uint32_t left; /* experts until then; 0: none is refused */
    const struct expert_bank *bank;
    uint32_t expert;
};

static enum sluice_status refuse(const void *user, const struct expert_bank *bank, uint32_t expert,
                                 const struct expert_view *view, struct sluice_error *err)
{
    struct refusal *r = (void *)(uintptr_t)user;
    (void)view;
    /* Asked again with err, it is to say why. */
    if (!err && r->left && --r->left == 0) *r = (struct refusal){0, bank, expert};
    if (r->bank != bank || r->expert != expert) return SLUICE_OK;
    return err_set(err, SLUICE_E_FORMAT, "layer %u, expert %u", bank->layer, expert);
}

struct store_bench {
    struct bench b;
    struct expert_store *store;
    struct refusal refusal;
};

/* How threads come to the rows of a round. */
struct variant {
    uint32_t threads, n_slots;
    enum pool_order order;
    uint64_t pieces_from;
};

static const struct variant variants[] = {
    {1, 2, POOL_TOGETHER, 0}, {2, 1, POOL_RISING, UINT64_MAX},  {2, 3, POOL_FALLING, 1},
    {3, 2, POOL_RISING, 1},   {3, 3, POOL_FALLING, UINT64_MAX}, {3, 1, POOL_TOGETHER, 1},
};

/* Where everything is slow: pieces, in an order and as threads come to them. */
static size_t next_variant(size_t v)
{
    return v + (is_instrumented() ? 3 : 1);
}

static size_t first_variant(void)
{
    return is_instrumented() ? 2 : 0;
}

/* The same model with all experts mapped, on one thread, and over a store. */
static void open_both(struct bench *mapped, struct store_bench *s, const struct variant *v)
{
    struct sluice_error err = {0};
    bench_open(mapped, storyteller, true, true, 1);
    *s = (struct store_bench){0};
    bench_open_in(&s->b, storyteller, true, v->threads, v->order, v->pieces_from);
    struct store_options o = {.n_slots = v->n_slots, .check = refuse, .check_user = &s->refusal};
    CHECK_OK(store_open(&s->store, s->b.cp.files, (uint32_t)s->b.cp.n_files, s->b.m.banks,
                        s->b.m.n_banks, &o, &err));
    cpu_use_store(s->b.be, s->store);
}

static void close_both(struct bench *mapped, struct store_bench *s)
{
    bench_close(mapped);
    bench_close(&s->b);
    store_close(&s->store);
}

static void test_rounds_change_no_bit(void)
{
    static const uint32_t steps[][2] = {{9, 3}, {1, 0}, {1, 0}, {0, 1}, {1, 1}, {1, 0}};
    for (size_t v = first_variant(); v < COUNT_OF(variants); v = next_variant(v)) {
        struct bench mapped;
        struct store_bench stored;
        open_both(&mapped, &stored, &variants[v]);
        struct rng a = {8}, b = {8};
        for (uint32_t i = 0; i < COUNT_OF(steps); i++) {
            bench_step(&mapped, &a, steps[i][0], steps[i][1], true);
            bench_step(&stored.b, &b, steps[i][0], steps[i][1], true);
            bool same = same_logits(&mapped, &stored.b, steps[i][0] + steps[i][1]);
            CHECK(same && same_states(&mapped, &stored.b), "variant %zu, step %u", v, i);
        }
        close_both(&mapped, &stored);
    }
}

/* One token of the first sequence. */
static struct batch token_batch(struct bench *b, int32_t id)
{
    b->segments[0] = (struct batch_segment){&b->seq[0], 0, 1};
    *(int32_t *)CPU_BUFFER(b->be, b->m.token_ids) = id;
    *(int32_t *)CPU_BUFFER(b->be, b->m.output_rows) = 0;
    return (struct batch){.n_tokens = 1, .n_outputs = 1, .n_segments = 1, .segments = b->segments};
}

/* Every node in a run of its own: runs that end behind experts, or begin with them. */
static void test_runs_of_one_node(void)
{
    for (size_t v = first_variant(); v < COUNT_OF(variants); v = next_variant(v)) {
        struct sluice_error err = {0};
        struct bench mapped;
        struct store_bench stored;
        open_both(&mapped, &stored, &variants[v]);
        const uint32_t n_nodes = (uint32_t)mapped.m.graph.nodes.n;
        for (int32_t id = 7; id < 9; id++) {
            struct batch whole = token_batch(&mapped, id), batch = token_batch(&stored.b, id);
            CHECK_OK(cpu_run(mapped.be, &whole, 0, n_nodes, &err));
            for (uint32_t n = 0; n < n_nodes; n++)
                CHECK_OK(cpu_run(stored.b.be, &batch, n, n + 1, &err));
            sequence_commit(&mapped.seq[0], 1);
            sequence_commit(&stored.b.seq[0], 1);
            CHECK(same_logits(&mapped, &stored.b, 1) && same_states(&mapped, &stored.b),
                  "variant %zu, id %d", v, id);
        }
        close_both(&mapped, &stored);
    }
}

/* Every refused expert ends its run, in whatever round it comes; the same token is then taken. */
static void fail_often(const struct variant *v, uint32_t *n_failed)
{
    struct sluice_error err = {0};
    struct bench mapped;
    struct store_bench stored;
    open_both(&mapped, &stored, v);
    const uint32_t n_nodes = (uint32_t)mapped.m.graph.nodes.n;
    for (int32_t id = 20; id < 26; id++) {
        struct batch whole = token_batch(&mapped, id), batch = token_batch(&stored.b, id);
        CHECK_OK(cpu_run(mapped.be, &whole, 0, n_nodes, &err));
        enum sluice_status status = SLUICE_E_FORMAT;
        while (status == SLUICE_E_FORMAT) {
            stored.refusal = (struct refusal){.left = 1 + *n_failed % 5};
            status = cpu_run(stored.b.be, &batch, 0, n_nodes, &err);
            *n_failed += status != SLUICE_OK;
        }
        CHECK_OK(status);
        CHECK(same_logits(&mapped, &stored.b, 1), "id %d", id);
        sequence_commit(&mapped.seq[0], 1);
        sequence_commit(&stored.b.seq[0], 1);
        CHECK(same_states(&mapped, &stored.b), "id %d", id);
    }
    close_both(&mapped, &stored);
}

static void test_a_failed_round_leaves_no_trace(void)
{
    for (size_t v = first_variant(); v < COUNT_OF(variants); v = next_variant(v)) {
        uint32_t n_failed = 0;
        fail_often(&variants[v], &n_failed);
        CHECK(n_failed > 20, "variant %zu: %u", v, n_failed);
    }
}

/* A caller that gives up at a layer; left: layers until then. */
static bool gives_up(void *user)
{
    uint32_t *left = user;
    return (*left)-- == 0;
}

static void test_a_cancelled_run_leaves_no_trace(void)
{
    for (size_t v = first_variant(); v < COUNT_OF(variants); v = next_variant(v)) {
        struct sluice_error err = {0};
        struct bench mapped;
        struct store_bench stored;
        open_both(&mapped, &stored, &variants[v]);
        const uint32_t n_nodes = (uint32_t)mapped.m.graph.nodes.n;
        struct batch whole = token_batch(&mapped, 5), batch = token_batch(&stored.b, 5);
        CHECK_OK(cpu_run(mapped.be, &whole, 0, n_nodes, &err));
        for (uint32_t layer = 0; layer + 1 < mapped.m.n_layers; layer++) {
            uint32_t left = layer;
            batch.cancelled = gives_up;
            batch.user = &left;
            CHECK(cpu_run(stored.b.be, &batch, 0, n_nodes, &err) == SLUICE_E_CANCELLED);
            batch.cancelled = NULL;
            CHECK_OK(cpu_run(stored.b.be, &batch, 0, n_nodes, &err));
            CHECK(same_logits(&mapped, &stored.b, 1), "variant %zu, layer %u", v, layer);
        }
        close_both(&mapped, &stored);
    }
}

#define CASES(C)                                                                                   \
    C(rounds_change_no_bit)                                                                        \
    C(runs_of_one_node)                                                                            \
    C(a_failed_round_leaves_no_trace)                                                              \
    C(a_cancelled_run_leaves_no_trace)
CHECK_MAIN(CASES)
