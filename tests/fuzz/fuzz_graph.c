/*
 * Random pushes from bytes: nothing crashes, and a graph that is called finished can be dumped,
 * planned, and computes the same with and without shared storage.
 */
#include "../unit/random_graph.h"
#include "../unit/toy_run.h"
#include "fuzz.h"

struct bytes {
    const uint8_t *data;
    size_t size, at;
};

static uint32_t from_bytes(void *source, uint32_t n)
{
    struct bytes *b = source;
    uint32_t x = 0;
    for (uint32_t reach = n - 1; reach > 0; reach >>= 8) {
        if (b->at == b->size) return n - 1;
        x = x << 8 | b->data[b->at++];
    }
    return x % n;
}

/* Memory that a plan of a few tokens needs is a matter of widths alone. */
static size_t widths(const struct graph *g)
{
    size_t sum = 0;
    for (size_t b = 0; b < g->buffers.n; b++) sum += g->buffers.items[b].width;
    return sum + g->n_picks;
}

static void run_both_ways(const struct graph *g, struct plan_dims dims)
{
    struct plan tight;
    struct plan loose;
    struct sluice_error err = {0};
    if (widths(g) > 1u << 16) {
        /* Too much to run; planning must still not crash. */
        if (plan_init(&tight, g, dims, true, &err) == SLUICE_OK)
            plan_release(&tight);
        else
            FUZZ_CHECK(err.code == SLUICE_E_NOMEM);
        return;
    }
    FUZZ_CHECK(plan_init(&tight, g, dims, true, &err) == SLUICE_OK);
    FUZZ_CHECK(plan_init(&loose, g, dims, false, &err) == SLUICE_OK);
    FUZZ_CHECK(tight.total_bytes <= loose.total_bytes && tight.n_slots <= loose.n_slots);
    FUZZ_CHECK(toy_digest(g, &tight, g, 1) == toy_digest(g, &loose, g, 2));
    plan_release(&tight);
    plan_release(&loose);
}

static void dump(const struct graph *g)
{
    size_t need = graph_dump(g, NULL, 0);
    char *text = malloc(need);
    FUZZ_CHECK(text && graph_dump(g, text, need) == need && strlen(text) == need - 1);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    struct bytes source = {data, size, 2};
    struct graph g;
    struct sluice_error err = {0};
    graph_init(&g, 1 + data[0] % 2);
    struct random_graph r = {
        .g = &g, .below = from_bytes, .source = &source, .careless = data[0] & 2};
    random_graph(&r, 3, 2);
    enum sluice_status status = graph_finish(&g, &err);
    FUZZ_CHECK(r.careless || status == SLUICE_OK);
    FUZZ_CHECK(status == SLUICE_OK || (err.code == status && err.message[0] != '\0'));
    if (status == SLUICE_OK) run_both_ways(&g, (struct plan_dims){1 + data[1] % 3, 1});
    dump(&g);
    graph_release(&g);
    return 0;
}
