/* graph_verify(): what each rule says. That the rules suffice is for ir_mutants.c. */
#include "change_graph.h"
#include "check.h"
#include "sample_graph.h"

static void refuse(const struct graph *m, const char *message)
{
    struct sluice_error err = {0};
    CHECK(graph_verify(m, &err) == SLUICE_E_INTERNAL);
    CHECK(strcmp(err.message, message) == 0, "'%s' for '%s'", err.message, message);
}

/* A finished sample graph, and a copy of it to break. */
static struct graph changeable(struct graph *g)
{
    struct sluice_error err = {0};
    graph_init(g, 9);
    sample_graph(g, &sample_alike);
    CHECK_OK(graph_finish(g, &err));
    return graph_copy(g);
}

static struct node *first_of(struct graph *g, enum op op, uint32_t layer)
{
    for (size_t n = 0; n < g->nodes.n; n++)
        if (g->nodes.items[n].op == op && g->nodes.items[n].layer == layer)
            return &g->nodes.items[n];
    abort();
}

static void test_messages_of_wiring(void)
{
    struct graph g;
    struct graph m = changeable(&g);
    struct node *a = first_of(&m, OP_KIND_rms_norm, 0), *b = first_of(&m, OP_KIND_rms_norm, 1);
    struct node *combine = first_of(&m, OP_KIND_combine, 0);
    uint32_t was = a->u.rms_norm.x.id;
    a->u.rms_norm.x.id = combine->u.combine.y.id;
    refuse(&m, "graph: node 2 (rms_norm): operand 'x' is read before it is written");
    a->u.rms_norm.x.id = 0;
    refuse(&m, "graph: node 2 (rms_norm): operand 'x' is no buffer of this graph");
    a->u.rms_norm.x.id = a->u.rms_norm.y.id;
    refuse(&m, "graph: node 2 (rms_norm): operand 'x' has a role that does not fit");
    a->u.rms_norm.x.id = was;
    was = a->u.rms_norm.y.id;
    a->u.rms_norm.y.id = b->u.rms_norm.y.id;
    refuse(&m, "graph: node 2 (rms_norm): operand 'y' is written by another node or the caller");
    a->u.rms_norm.y.id = was;
    was = b->u.rms_norm.x.id;
    b->u.rms_norm.x.id = first_of(&m, OP_KIND_embed, UINT32_MAX)->u.embed.y.id;
    refuse(&m, "graph: node 27 (rms_norm): operand 'x' is not the newest residual stream");
    b->u.rms_norm.x.id = was;
    first_of(&m, OP_KIND_combine, 1)->u.combine.moe.id = combine->u.combine.moe.id;
    refuse(&m, "graph: node 53 (combine): operand 'moe' is a value of another layer");
    graph_release(&m);
    graph_release(&g);
}

static void test_messages_of_weights_and_states(void)
{
    struct graph g;
    struct graph m = changeable(&g);
    struct node *conv = first_of(&m, OP_KIND_conv, 0);
    struct node *norm = first_of(&m, OP_KIND_rms_norm, 0);
    struct node *append = first_of(&m, OP_KIND_kv_append, 1);
    struct node *attention = first_of(&m, OP_KIND_attention, 1);
    uint32_t was = conv->u.conv.w.id, cache = append->u.kv_append.cache.id;
    conv->u.conv.w.id = 0;
    refuse(&m, "graph: node 7 (conv): operand 'w' is no weight of this graph");
    conv->u.conv.w.id = norm->u.rms_norm.w.id;
    refuse(&m, "graph: node 7 (conv): operand 'w' has a role that does not fit");
    conv->u.conv.w.id = was;
    norm->u.rms_norm.w.id = first_of(&m, OP_KIND_rms_norm, 1)->u.rms_norm.w.id;
    refuse(&m, "graph: node 2 (rms_norm): operand 'w' is a weight of another layer");
    norm->u.rms_norm.w.id = first_of(&g, OP_KIND_rms_norm, 0)->u.rms_norm.w.id;
    attention->u.attention.cache.id = 0;
    refuse(&m, "graph: node 37 (attention): operand 'cache' is no state of this graph");
    attention->u.attention.cache.id = conv->u.conv.state.id;
    refuse(&m, "graph: node 37 (attention): operand 'cache' is another kind of state");
    attention->u.attention.cache.id = cache;
    m.states.items[2].layer = 0;
    refuse(&m, "graph: node 36 (kv_append): operand 'cache' is the state of another layer");
    m.states.items[2].layer = 1;
    struct node late = *append;
    *append = *attention;
    *attention = late;
    note_writers(&m);
    refuse(&m, "graph: node 36 (attention): operand 'cache' is read before the batch is in it");
    *append = late;
    note_writers(&m);
    refuse(&m, "graph: node 37 (kv_append): operand 'cache' is changed a second time");
    graph_release(&m);
    graph_release(&g);
}

static void test_messages_of_leftovers(void)
{
    struct graph g;
    struct graph m = changeable(&g);
    m.finished = false;
    graph_set_layer(&m, 5);
    (void)WEIGHT(&m, qg_proj, 3, 4);
    refuse(&m, "graph: layer 5: weight qg_proj is never used");
    m.weights.n--;
    graph_state_conv(&m, 2, 2);
    refuse(&m, "graph: layer 5: state conv is never used");
    m.states.n--;
    struct buffer more = {.role = ROLE_hidden, .width = 1, .writer = (uint32_t)BUFFER_UNWRITTEN};
    if (!array_push(&m.buffers, more)) abort();
    refuse(&m, "graph: %72:hidden is never written");
    m.buffers.n--;
    m.buffers.items[m.buffers.n - 1].lifetime = LIFE_TRANSIENT;
    refuse(&m, "graph: %71:logits is never read");
    m.nodes.n = 0;
    refuse(&m, "graph: it has no ops");
    graph_release(&m);
    graph_release(&g);
}

static void test_messages_of_rebuilding(void)
{
    struct graph g;
    struct graph m = changeable(&g);
    m.buffers.items[m.buffers.n - 1].width++;
    refuse(&m, "graph: logits: %71 was changed");
    m.buffers.items[m.buffers.n - 1].width--;
    struct node *norm = first_of(&m, OP_KIND_rms_norm, 1);
    norm->u.rms_norm.dim--;
    refuse(&m, "graph: layer 1: rms_norm: the node was changed");
    norm->u.rms_norm.dim++;
    m.weights.items[1].cols++;
    refuse(&m, "graph: layer 0: attn_norm: row width is 16 where 17 is needed");
    m.weights.items[1].cols--;
    m.states.items[2].dims[3] = 1;
    refuse(&m, "graph: layer 1: kv: its declaration was changed");
    m.states.items[2].dims[3] = 0;
    m.n_picks = 0;
    refuse(&m, "graph: buffers: their number was changed");
    graph_release(&m);
    graph_release(&g);
}

#define CASES(C)                                                                                   \
    C(messages_of_wiring)                                                                          \
    C(messages_of_weights_and_states)                                                              \
    C(messages_of_leftovers)                                                                       \
    C(messages_of_rebuilding)
CHECK_MAIN(CASES)
