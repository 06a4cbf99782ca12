/*
 * graph_verify() against changed graphs: a valid graph is changed in every systematic way below,
 * and each change must be refused, or the toy run must show that nothing else is computed.
 */
#include <stdlib.h>

#include "change_graph.h"
#include "check.h"
#include "sample_graph.h"
#include "toy_run.h"

struct judge {
    struct graph g; /* the valid graph; every mutant is a copy */
    uint64_t digest;
    uint32_t refused, equivalent;
};

/* Digest without sharing of storage. */
static uint64_t digest_of(const struct graph *g, const struct graph *kept)
{
    struct plan plan;
    if (plan_init(&plan, g, (struct plan_dims){2, 1}, false, NULL) != SLUICE_OK) return 0;
    uint64_t h = toy_digest(g, &plan, kept, 7);
    plan_release(&plan);
    return h;
}

static void judge_init(struct judge *j, const struct sample_dims *d)
{
    struct sluice_error err = {0};
    *j = (struct judge){.refused = 0};
    graph_init(&j->g, 9);
    sample_graph(&j->g, d);
    CHECK_OK(graph_finish(&j->g, &err));
    j->digest = digest_of(&j->g, &j->g);
    CHECK(j->digest != 0);
}

/* Takes the mutant. */
static void judge_mutant(struct judge *j, struct graph *mutant, const char *what, size_t a,
                         size_t b)
{
    struct sluice_error err = {0};
    if (graph_verify(mutant, &err) != SLUICE_OK) {
        j->refused++;
        CHECK(err.code == SLUICE_E_INTERNAL && strncmp(err.message, "graph: ", 7) == 0, "%s %s",
              what, err.message);
    } else {
        j->equivalent++;
        CHECK(digest_of(mutant, &j->g) == j->digest, "%s %zu %zu was let through", what, a, b);
    }
    graph_release(mutant);
}

static void judge_end(struct judge *j, const char *what, uint32_t at_least)
{
    printf("# %s: %u mutants refused, %u equivalent\n", what, j->refused, j->equivalent);
    CHECK(j->refused >= at_least);
    graph_release(&j->g);
}

/* A sample graph with the layers of other families. */
static struct sample_dims with_others(struct sample_dims d)
{
    d.others = true;
    return d;
}

/* Runs the body as a test on each of the two sample graphs; a sanitizer looks at the second. */
#define FOR_SAMPLES(j, what, at_least)                                                             \
    const struct sample_dims alike_ = with_others(sample_alike);                                   \
    const struct sample_dims distinct_ = with_others(sample_distinct);                             \
    for (int sample_ = is_instrumented(); sample_ < 2; judge_end(&(j), what, at_least), sample_++) \
        if (judge_init(&(j), sample_ ? &alike_ : &distinct_), true)

static size_t n_of_kind(const struct graph *g, uint8_t kind)
{
    return kind == OPERAND_BUFFER   ? g->buffers.n
           : kind == OPERAND_WEIGHT ? g->weights.n
           : kind == OPERAND_STATE  ? g->states.n
                                    : 0;
}

/* Every operand of every node becomes every other buffer, weight or state of the graph. */
static void test_other_operands(void)
{
    struct judge j;
    FOR_SAMPLES(j, "other operands", 10000)
    {
        for (size_t n = 0; n < j.g.nodes.n; n++) {
            const struct op_info *info = op_info(j.g.nodes.items[n].op);
            for (uint32_t i = 0; i < info->n_operands; i++) {
                const struct operand *o = &info->operands[i];
                for (size_t other = 0; other < n_of_kind(&j.g, o->kind); other++) {
                    uint32_t id = id_of(&j.g, other);
                    if (operand_id(&j.g.nodes.items[n], o) == id) continue;
                    for (int noted = 0; noted < 2; noted++) {
                        struct graph m = graph_copy(&j.g);
                        set_u32(&m.nodes.items[n], o, id);
                        if (noted) note_writers(&m);
                        judge_mutant(&j, &m, o->name, n, other);
                    }
                }
            }
        }
    }
}

/* Operands that are missing, stale, or beyond the end. */
static void test_bad_ids(void)
{
    struct judge j;
    FOR_SAMPLES(j, "bad ids", 1000)
    {
        for (size_t n = 0; n < j.g.nodes.n; n++) {
            const struct op_info *info = op_info(j.g.nodes.items[n].op);
            for (uint32_t i = 0; i < info->n_operands; i++) {
                const struct operand *o = &info->operands[i];
                if (o->kind == OPERAND_SCALAR) continue;
                uint32_t id = operand_id(&j.g.nodes.items[n], o);
                uint32_t end = id_of(&j.g, n_of_kind(&j.g, o->kind));
                uint32_t bad[] = {0,   id & ((1u << ID_BITS) - 1),  id + (1u << ID_BITS),
                                  end, id & ~((1u << ID_BITS) - 1), UINT32_MAX};
                for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
                    struct graph m = graph_copy(&j.g);
                    set_u32(&m.nodes.items[n], o, bad[k]);
                    judge_mutant(&j, &m, o->name, n, k);
                }
            }
        }
    }
}

/* Two operands of one node change places; so do those of two nodes of the same op. */
static void test_exchanged_operands(void)
{
    struct judge j;
    FOR_SAMPLES(j, "exchanged operands", 200)
    {
        for (size_t n = 0; n < j.g.nodes.n; n++) {
            const struct op_info *info = op_info(j.g.nodes.items[n].op);
            for (size_t other = n; other < j.g.nodes.n; other++) {
                if (j.g.nodes.items[other].op != j.g.nodes.items[n].op) continue;
                for (uint32_t i = 0; i < info->n_operands; i++) {
                    for (uint32_t k = n == other ? i + 1 : i; k < info->n_operands; k++) {
                        const struct operand *p = &info->operands[i], *q = &info->operands[k];
                        if (p->kind == OPERAND_SCALAR || p->kind != q->kind) continue;
                        struct graph m = graph_copy(&j.g);
                        uint32_t was = operand_id(&m.nodes.items[n], p);
                        set_u32(&m.nodes.items[n], p, operand_id(&m.nodes.items[other], q));
                        set_u32(&m.nodes.items[other], q, was);
                        note_writers(&m);
                        judge_mutant(&j, &m, p->name, n, other);
                    }
                }
            }
        }
    }
}

static void remove_node(struct graph *g, size_t n)
{
    memmove(&g->nodes.items[n], &g->nodes.items[n + 1],
            (g->nodes.n - n - 1) * sizeof *g->nodes.items);
    g->nodes.n--;
}

static void test_dropped_nodes(void)
{
    struct judge j;
    FOR_SAMPLES(j, "dropped nodes", 100)
    {
        for (size_t n = 0; n < j.g.nodes.n; n++) {
            for (size_t more = 0; n + more < j.g.nodes.n && more < 4; more++) {
                struct graph m = graph_copy(&j.g);
                for (size_t k = 0; k <= more; k++) remove_node(&m, n);
                note_writers(&m);
                judge_mutant(&j, &m, "dropped", n, more);
            }
        }
    }
}

/* Node n goes to every other place. */
static void test_reordered_nodes(void)
{
    struct judge j;
    FOR_SAMPLES(j, "reordered nodes", 1000)
    {
        for (size_t n = 0; n < j.g.nodes.n; n++) {
            for (size_t to = 0; to < j.g.nodes.n; to++) {
                if (to == n) continue;
                struct graph m = graph_copy(&j.g);
                struct node moved = m.nodes.items[n];
                remove_node(&m, n);
                memmove(&m.nodes.items[to + 1], &m.nodes.items[to],
                        (m.nodes.n - to) * sizeof moved);
                m.nodes.items[to] = moved;
                m.nodes.n++;
                note_writers(&m);
                judge_mutant(&j, &m, "moved", n, to);
            }
        }
    }
}

/* Node n once more at every later place: as it is, or with results of its own. */
static void test_duplicated_nodes(void)
{
    struct judge j;
    FOR_SAMPLES(j, "duplicated nodes", 1000)
    {
        for (size_t n = 0; n < j.g.nodes.n; n++) {
            const struct op_info *info = op_info(j.g.nodes.items[n].op);
            for (size_t to = n + 1; to <= j.g.nodes.n; to++) {
                for (int fresh = 0; fresh < 2; fresh++) {
                    struct graph m = graph_copy(&j.g);
                    struct node twin = m.nodes.items[n];
                    for (uint32_t i = 0; fresh && i < info->n_operands; i++) {
                        const struct operand *o = &info->operands[i];
                        uint32_t b = 0;
                        if (o->kind != OPERAND_BUFFER || o->mode == MODE_IN) continue;
                        graph_buffer_index(&m, operand_id(&twin, o), &b);
                        struct buffer copy = m.buffers.items[b];
                        copy.lifetime = LIFE_TRANSIENT;
                        if (!array_push(&m.buffers, copy)) abort();
                        set_u32(&twin, o, id_of(&m, m.buffers.n - 1));
                    }
                    struct node last = twin;
                    if (!array_push(&m.nodes, last)) abort();
                    memmove(&m.nodes.items[to + 1], &m.nodes.items[to],
                            (m.nodes.n - 1 - to) * sizeof twin);
                    m.nodes.items[to] = twin;
                    note_writers(&m);
                    judge_mutant(&j, &m, "twice", n, to);
                }
            }
        }
    }
}

static void test_other_ops_and_layers(void)
{
    struct judge j;
    FOR_SAMPLES(j, "other ops and layers", 1000)
    {
        static const uint32_t layers[] = {0, 1, 2, UINT32_MAX};
        for (size_t n = 0; n < j.g.nodes.n; n++) {
            for (uint32_t op = 0; op < OP_COUNT; op++) {
                if (op == j.g.nodes.items[n].op) continue;
                for (int noted = 0; noted < 2; noted++) {
                    struct graph m = graph_copy(&j.g);
                    m.nodes.items[n].op = (enum op)op;
                    if (noted) note_writers(&m);
                    judge_mutant(&j, &m, "op", n, op);
                }
            }
            for (size_t l = 0; l < sizeof layers / sizeof layers[0]; l++) {
                if (layers[l] == j.g.nodes.items[n].layer) continue;
                struct graph m = graph_copy(&j.g);
                m.nodes.items[n].layer = layers[l];
                judge_mutant(&j, &m, "layer", n, l);
            }
        }
    }
}

static bool is_free(const char *scalar)
{
    static const char *const names[] = {"window", "n_groups", "top_groups"};
    bool found = false;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        found |= strcmp(scalar, names[i]) == 0;
    return found;
}

/*
 * Scalars that are shapes. How large an eps is, whether weights are normalised, how far back
 * attention looks, or how a router groups its experts, is no rule.
 */
static void test_other_scalars(void)
{
    struct judge j;
    FOR_SAMPLES(j, "other scalars", 100)
    {
        for (size_t n = 0; n < j.g.nodes.n; n++) {
            const struct op_info *info = op_info(j.g.nodes.items[n].op);
            for (uint32_t i = 0; i < info->n_operands; i++) {
                const struct operand *o = &info->operands[i];
                if (o->kind != OPERAND_SCALAR || o->role != SCALAR_u32) continue;
                if (is_free(o->name)) continue;
                uint32_t v = operand_id(&j.g.nodes.items[n], o);
                uint32_t other[] = {0, 1, v - 1, v + 1, 2 * v, v / 2, v + (1u << 31), UINT32_MAX};
                for (size_t k = 0; k < sizeof other / sizeof other[0]; k++) {
                    if (other[k] == v) continue;
                    struct graph m = graph_copy(&j.g);
                    set_u32(&m.nodes.items[n], o, other[k]);
                    judge_mutant(&j, &m, o->name, n, other[k]);
                }
            }
        }
    }
}

static void test_other_buffers(void)
{
    struct judge j;
    FOR_SAMPLES(j, "other buffers", 3000)
    {
        for (size_t b = 0; b < j.g.buffers.n; b++) {
            struct buffer was = j.g.buffers.items[b];
            uint32_t w = was.width;
            uint32_t widths[] = {0, w - 1, w + 1, 2 * w, w + (1u << 31), UINT32_MAX};
            for (size_t k = 0; k < sizeof widths / sizeof widths[0]; k++) {
                struct graph m = graph_copy(&j.g);
                m.buffers.items[b].width = widths[k];
                if (widths[k] == w)
                    graph_release(&m);
                else
                    judge_mutant(&j, &m, "width", b, widths[k]);
            }
            for (uint32_t role = 0; role < ROLE_COUNT; role++) {
                if (role == was.role) continue;
                struct graph m = graph_copy(&j.g);
                m.buffers.items[b].role = (enum role)role;
                judge_mutant(&j, &m, "role", b, role);
            }
            for (uint32_t n = 0; n < j.g.nodes.n + 3; n++) {
                uint32_t writer = n - 2; /* from BUFFER_UNWRITTEN on */
                if (writer == was.writer) continue;
                struct graph m = graph_copy(&j.g);
                m.buffers.items[b].writer = writer;
                judge_mutant(&j, &m, "writer", b, writer);
            }
        }
    }
}

/* The judge itself: what verify lets through and does change results is noticed. */
static void test_digest_notices_change(void)
{
    struct judge j;
    judge_init(&j, &sample_distinct);
    uint32_t changed = 0;
    for (size_t n = 0; n < j.g.nodes.n; n++) {
        const struct op_info *info = op_info(j.g.nodes.items[n].op);
        for (uint32_t i = 0; i < info->n_operands; i++) {
            const struct operand *o = &info->operands[i];
            if (o->kind != OPERAND_SCALAR || o->role != SCALAR_f32) continue;
            struct graph m = graph_copy(&j.g);
            set_u32(&m.nodes.items[n], o, 0x3f000000u); /* 0.5 */
            CHECK(graph_verify(&m, NULL) == SLUICE_OK);
            CHECK(digest_of(&m, &j.g) != j.digest, "%s of node %zu", o->name, n);
            graph_release(&m);
            changed++;
        }
    }
    CHECK(changed >= 8, "%u", changed);
    graph_release(&j.g);
}

/* What is kept is the caller's choice; who owns an input is not. */
static void test_other_lifetimes(void)
{
    struct judge j;
    FOR_SAMPLES(j, "other lifetimes", 70)
    {
        static const enum lifetime lives[] = {LIFE_TRANSIENT, LIFE_PERSISTENT, LIFE_BORROWED};
        for (size_t b = 0; b < j.g.buffers.n; b++) {
            for (size_t k = 0; k < 3; k++) {
                if (lives[k] == j.g.buffers.items[b].lifetime) continue;
                struct graph m = graph_copy(&j.g);
                m.buffers.items[b].lifetime = lives[k];
                judge_mutant(&j, &m, "lifetime", b, k);
            }
        }
    }
}

/* How many rows the embedding table has is between the checkpoint and its tokenizer. */
static void test_other_declarations(void)
{
    struct judge j;
    FOR_SAMPLES(j, "other declarations", 800)
    {
        for (size_t w = 0; w < j.g.weights.n; w++) {
            size_t fields = sizeof(struct weight_decl) / sizeof(uint32_t);
            for (size_t f = 0; f < fields; f++) {
                for (int k = 0; k < 5; k++) {
                    struct graph m = graph_copy(&j.g);
                    uint32_t *field = (uint32_t *)(void *)&m.weights.items[w] + f;
                    uint32_t v = *field;
                    *field = k == 0 ? v + 1 : k == 1 ? v - 1 : k == 2 ? 0 : k == 3 ? 2 * v : v / 2;
                    if (*field == v)
                        graph_release(&m);
                    else
                        judge_mutant(&j, &m, "weight", w, f);
                }
            }
        }
        for (size_t s = 0; s < j.g.states.n; s++) {
            size_t fields = sizeof(struct state_decl) / sizeof(uint32_t);
            for (size_t f = 0; f < fields; f++) {
                for (uint32_t k = 1; k < 5; k++) {
                    struct graph m = graph_copy(&j.g);
                    ((uint32_t *)(void *)&m.states.items[s])[f] += k == 4 ? UINT32_MAX : k;
                    judge_mutant(&j, &m, "state", s, f);
                }
            }
        }
    }
}

static void test_other_graphs(void)
{
    struct judge j;
    FOR_SAMPLES(j, "other graphs", 4)
    {
        struct graph m = graph_copy(&j.g);
        m.generation++;
        judge_mutant(&j, &m, "generation", 0, 0);
        m = graph_copy(&j.g);
        m.n_picks++;
        judge_mutant(&j, &m, "picks", 0, 0);
        m = graph_copy(&j.g);
        m.nodes.n = 0;
        judge_mutant(&j, &m, "no nodes", 0, 0);
        m = graph_copy(&j.g);
        m.buffers.n--;
        judge_mutant(&j, &m, "a buffer less", 0, 0);
    }
}

#define CASES(C)                                                                                   \
    C(other_operands)                                                                              \
    C(bad_ids)                                                                                     \
    C(exchanged_operands)                                                                          \
    C(dropped_nodes)                                                                               \
    C(reordered_nodes)                                                                             \
    C(duplicated_nodes)                                                                            \
    C(other_ops_and_layers)                                                                        \
    C(other_scalars)                                                                               \
    C(other_buffers)                                                                               \
    C(digest_notices_change)                                                                       \
    C(other_lifetimes)                                                                             \
    C(other_declarations)                                                                          \
    C(other_graphs)
CHECK_MAIN(CASES)
