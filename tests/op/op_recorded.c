/* The ops of a real model, node by node, on the activations that its own earlier nodes left. */
#include <stdio.h>
#include <stdlib.h>

#include "model/model.h"
#include "opcheck.h"

enum { MAX_TOKENS = 48, N_CTX = 192 };

struct recorded {
    struct world w;
    struct checkpoint cp;
    struct model m;
    struct state_layout layout;
    struct cpu_backend *be;
    struct sequence sequences[2];
    struct plan plan; /* for the sizes of buffers */
    int32_t ids[MAX_TOKENS];
};

static const char text[] =
    "Once upon a time there was a little dog who liked to run in the park. One "
    "day he found a big red ball and";

static enum sluice_status open_model(struct recorded *r, const char *path, bool int8,
                                     struct sluice_error *err)
{
    struct model_options options = {.guess = true};
    struct cpu_options o = {.pool = {.n_threads = 2},
                            .features = cpu_detect(),
                            .int8 = int8,
                            .dims = {MAX_TOKENS, MAX_TOKENS},
                            .prefetch = PREFETCH_ROUTER};
    TRY(checkpoint_open(&r->cp, path, err));
    TRY(model_init(&r->m, &r->cp, &options, err));
    TRY(layout_from_graph(&r->layout, &r->m.graph, int8 ? KV_F16 : KV_F32, err));
    TRY(plan_init(&r->plan, &r->m.graph, o.dims, false, err));
    TRY(cpu_open(&r->be, &r->m.graph, r->m.weights, &o, err));
    for (int s = 0; s < 2; s++) TRY(sequence_init(&r->sequences[s], &r->layout, N_CTX, err));
    if (!cpu_bind_borrowed(r->be, r->m.rope_freqs.id, r->m.rope_values))
        return err_set(err, SLUICE_E_INTERNAL, "no rope frequencies");
    return SLUICE_OK;
}

static enum sluice_status encode(struct recorded *r, const char *path, size_t *n,
                                 struct sluice_error *err)
{
    sluice_tokenizer *tokenizer;
    TRY(sluice_tokenizer_open(&tokenizer, path, err));
    enum sluice_status status =
        sluice_tokenize(tokenizer, text, sizeof text - 1, 0, r->ids, MAX_TOKENS, n, err);
    sluice_tokenizer_close(&tokenizer);
    return status;
}

static void set_batch(struct recorded *r, const int32_t *ids, uint32_t n_first, uint32_t n_second)
{
    struct world *w = &r->w;
    w->segments[0] = (struct batch_segment){&r->sequences[0], 0, n_first};
    w->segments[1] = (struct batch_segment){&r->sequences[1], n_first, n_second};
    w->batch = (struct batch){.n_tokens = n_first + n_second,
                              .n_outputs = 3,
                              .n_segments = n_second ? 2 : 1,
                              .segments = w->segments};
    memcpy(cpu_buffer(r->be, r->m.token_ids.id), ids, (n_first + n_second) * sizeof *ids);
    int32_t *rows = cpu_buffer(r->be, r->m.output_rows.id);
    for (int i = 0; i < 3; i++) rows[i] = (int32_t)(n_first + n_second) - 3 + i;
}

static enum sluice_status check_nodes(struct recorded *r, report_fn *report,
                                      struct sluice_error *err)
{
    const struct graph *g = &r->m.graph;
    for (uint32_t n = 0; n < g->nodes.n; n++) {
        char where[64];
        const struct node *node = &g->nodes.items[n];
        struct expected *e = expect(&r->w, node);
        enum sluice_status status = cpu_run(r->be, &r->w.batch, n, n + 1, err);
        struct verdict v = judge(&r->w, node, r->w.at, NULL, e);
        snprintf(where, sizeof where, "recorded: node %u of layer %d", n, (int)node->layer);
        if (status == SLUICE_OK) report(node, where, &v);
        expected_free(e);
        TRY(status);
    }
    return SLUICE_OK;
}

/* A first part of the text alone; then its next part beside another session's first. */
static enum sluice_status run(struct recorded *r, const char *path, report_fn *report,
                              struct sluice_error *err)
{
    size_t n;
    TRY(encode(r, path, &n, err));
    if (n < 20 || n > MAX_TOKENS)
        return err_set(err, SLUICE_E_INTERNAL, "the text has %zu tokens", n);
    set_batch(r, r->ids, 12, 0);
    TRY(cpu_run(r->be, &r->w.batch, 0, r->m.tail_node, err));
    sequence_commit(&r->sequences[0], 12);
    set_batch(r, r->ids + 12, 5, (uint32_t)n - 17);
    return check_nodes(r, report, err);
}

static void point_at_buffers(struct recorded *r, unsigned char **at)
{
    const struct graph *g = &r->m.graph;
    for (uint32_t b = 0; b < g->buffers.n; b++)
        at[b] = cpu_buffer(r->be, g->generation << 20 | (b + 1));
    r->w.g = g;
    r->w.weights = r->m.weights;
    r->w.layout = &r->layout;
    r->w.at = at;
    r->w.bytes = r->plan.bytes;
}

void check_recorded(const char *path, bool int8, report_fn *report)
{
    struct sluice_error err = {0};
    struct recorded *r = calloc(1, sizeof *r);
    if (!r) abort();
    const uint32_t pairs = CPU_AVX512_BF16 | CPU_BF16_PAIRS;
    r->w.int8 = int8;
    r->w.bf16 = int8 && (cpu_detect() & pairs) == pairs;
    enum sluice_status status = open_model(r, path, int8, &err);
    unsigned char **at = calloc(r->m.graph.buffers.n + 1, sizeof *at);
    if (!at) abort();
    if (status == SLUICE_OK) {
        point_at_buffers(r, at);
        status = run(r, path, report, &err);
    }
    struct verdict v = {.text = ""};
    snprintf(v.text, sizeof v.text, "%.200s", status == SLUICE_OK ? "" : err.message);
    if (status != SLUICE_OK) report(NULL, path, &v);
    free(at);
    for (int s = 0; s < 2; s++) sequence_release(&r->sequences[s]);
    cpu_close(&r->be);
    plan_release(&r->plan);
    layout_release(&r->layout);
    model_release(&r->m);
    checkpoint_release(&r->cp);
    free(r);
}
