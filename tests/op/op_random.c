/*
 * Worlds of random shapes, weights and states. Every node of the sample graph is an op to check:
 * its inputs are filled by the op's generator, everything else with NaN, and it runs alone on lanes
 * of several instruction sets and numbers of threads. Rows past the batch, buffers that are no
 * result, and positions that are not yet held must stay as they were, so what an op reads or writes
 * beyond its own shows.
 */
#include <stdio.h>
#include <stdlib.h>

#include "op_random.h"

/* The buffers that a node touches become again what the world says. */
static void copy_operands(const struct random_world *r, const struct lane *lane,
                          const struct node *node)
{
    const struct op_info *info = op_info(node->op);
    for (uint32_t i = 0; i < info->n_operands; i++) {
        if (info->operands[i].kind != OPERAND_BUFFER) continue;
        uint32_t b = index_of(operand_id(node, &info->operands[i]));
        memcpy(lane->at[b], r->w.at[b], r->w.bytes[b]);
    }
}

static bool is_projection(const struct node *node, uint32_t *x, uint32_t *w)
{
    bool plain = node->op == OP_KIND_matmul;
    *x = plain ? node->u.matmul.x.id : node->u.affine.x.id;
    *w = plain ? node->u.matmul.w.id : node->u.affine.w.id;
    return plain || node->op == OP_KIND_affine;
}

/* What a node finds prepared by earlier ones: the int8 form of its input, the list of experts. */
static bool prepares(const struct node *earlier, const struct node *node)
{
    uint32_t x, earlier_x, w;
    if (is_projection(earlier, &earlier_x, &w) && is_projection(node, &x, &w))
        return earlier_x == x;
    return earlier->op == OP_KIND_group_picks && node->op == OP_KIND_experts &&
           earlier->u.group_picks.offsets.id == node->u.experts.offsets.id;
}

static enum sluice_status run_node(const struct random_world *r, const struct lane *lane,
                                   uint32_t n, struct sluice_error *err)
{
    const struct node *nodes = r->g.nodes.items;
    for (uint32_t i = 0; i < n; i++) {
        if (!prepares(&nodes[i], &nodes[n])) continue;
        copy_operands(r, lane, &nodes[i]);
        TRY(cpu_run(lane->be, &r->w.batch, i, i + 1, err));
        copy_operands(r, lane, &nodes[i]);
    }
    copy_operands(r, lane, &nodes[n]);
    return cpu_run(lane->be, &r->w.batch, n, n + 1, err);
}

/* The caches and states of before, for the next lane. */
static void restore_states(struct random_world *r, const struct expected *before)
{
    size_t bytes = r->layout.recurrent_floats * sizeof(float);
    for (uint32_t s = 0; s < r->v->n_segments; s++) {
        struct sequence *seq = &r->sequences[s];
        memcpy(seq->pages, before->pages[s], seq->pages_bytes);
        memcpy(seq->recurrent[seq->committed], before->committed[s], bytes);
        memcpy(seq->recurrent[seq->committed ^ 1], before->recurrent[s], bytes);
    }
}

static bool same_results(const struct random_world *r, const struct node *node,
                         const struct lane *a, const struct lane *b)
{
    const struct op_info *info = op_info(node->op);
    bool same = true;
    for (uint32_t i = 0; i < info->n_operands; i++) {
        const struct operand *o = &info->operands[i];
        if (o->kind != OPERAND_BUFFER || o->mode != MODE_OUT) continue;
        uint32_t at = index_of(operand_id(node, o));
        same &= memcmp(a->at[at], b->at[at], r->w.bytes[at]) == 0;
    }
    return same;
}

/* Integer sums are the same at every level; elsewhere only lanes of one level agree to the bit. */
static const struct lane *peer_of(const struct random_world *r, const struct node *node,
                                  const struct lane *lane)
{
    uint32_t x, w;
    if (is_projection(node, &x, &w) && inputs_of(&r->w, w) == IN_INT8) return &r->lanes[0];
    const struct lane *peer = lane;
    while (peer > r->lanes && peer[-1].features == lane->features) peer--;
    return peer;
}

static void keep_states(const struct random_world *r, struct expected *kept)
{
    size_t bytes = r->layout.recurrent_floats * sizeof(float);
    for (uint32_t s = 0; s < r->v->n_segments; s++)
        memcpy(kept->recurrent[s], r->sequences[s].recurrent[r->sequences[s].committed ^ 1], bytes);
}

static bool same_states(const struct random_world *r, const struct expected *kept)
{
    size_t bytes = r->layout.recurrent_floats * sizeof(float);
    bool same = true;
    for (uint32_t s = 0; s < r->v->n_segments; s++)
        same &= memcmp(kept->recurrent[s], r->sequences[s].recurrent[r->sequences[s].committed ^ 1],
                       bytes) == 0;
    return same;
}

struct states {
    struct expected *before, *of_level;
};

static struct verdict check_lane(struct random_world *r, uint32_t n, const struct lane *lane,
                                 const struct expected *e, struct states *states)
{
    const struct node *node = &r->g.nodes.items[n];
    struct sluice_error err = {0};
    struct verdict v = {.text = ""};
    if (run_node(r, lane, n, &err) != SLUICE_OK) {
        snprintf(v.text, sizeof v.text, "%.200s", err.message);
        return v;
    }
    v = judge(&r->w, node, lane->at, r->w.at, e);
    const struct lane *peer = peer_of(r, node, lane);
    if (peer == lane) keep_states(r, states->of_level);
    if (!v.text[0] && (!same_results(r, node, lane, peer) ||
                       (peer->features == lane->features && !same_states(r, states->of_level))))
        snprintf(v.text, sizeof v.text, "the bits are not those of %s with %u threads", peer->level,
                 peer->threads);
    return v;
}

/* The lanes whose products of weights in bf16 round their inputs to it, or those that do not. */
static void check_lanes(struct random_world *r, uint32_t n, bool bf16, struct states *states,
                        report_fn *report)
{
    const struct node *node = &r->g.nodes.items[n];
    struct expected *e = NULL;
    r->w.bf16 = bf16;
    for (uint32_t i = 0; i < r->n_lanes; i++) {
        char where[128];
        const struct lane *lane = &r->lanes[i];
        if (lane->bf16 != bf16) continue;
        if (!e) e = expect(&r->w, node);
        struct verdict v = check_lane(r, n, lane, e, states);
        snprintf(where, sizeof where, "%s: node %u: %s, %u threads", r->v->name, n, lane->level,
                 lane->threads);
        report(node, where, &v);
        restore_states(r, states->before);
    }
    if (e) expected_free(e);
}

static void check_node(struct random_world *r, uint32_t n, report_fn *report)
{
    const struct node *node = &r->g.nodes.items[n];
    gen_node(&r->w, node);
    struct states states = {expect(&r->w, NULL), expect(&r->w, NULL)};
    check_lanes(r, n, false, &states, report);
    check_lanes(r, n, true, &states, report);
    for (uint32_t i = 0; i < r->n_lanes; i++) copy_operands(r, &r->lanes[i], node);
    expected_free(states.before);
    expected_free(states.of_level);
}

/* What races shows in a few worlds, and each takes the thread sanitizer a minute. */
#ifdef __SANITIZE_THREAD__
enum { WORLD_STEP = 4 };
#else
enum { WORLD_STEP = 1 };
#endif

void check_random_worlds(report_fn *report)
{
    static struct random_world r;
    for (size_t i = 0; i < n_variants; i += WORLD_STEP) {
        world_open(&r, &variants[i], 1000 + i);
        for (uint32_t n = 0; n < r.g.nodes.n; n++) check_node(&r, n, report);
        world_close(&r);
    }
}

/* Changes one byte's bit 6, a large change in a float's exponent when it is the last of four. */
static void flip(void *data, size_t at)
{
    ((unsigned char *)data)[at] ^= 0x40;
}

/* Judges the node with one fault; the fault is taken back. */
static uint32_t judged_good(const struct random_world *r, const struct node *node,
                            const struct expected *e, void *data, size_t at)
{
    flip(data, at);
    struct verdict v = judge(&r->w, node, r->lanes[0].at, r->w.at, e);
    flip(data, at);
    if (!v.text[0]) printf("# a planted fault in %s was not found\n", op_info(node->op)->name);
    return !v.text[0];
}

static uint32_t plant_in_buffers(struct random_world *r, const struct node *node,
                                 const struct expected *e)
{
    const struct op_info *info = op_info(node->op);
    uint32_t missed = 0;
    for (uint32_t i = 0; i < info->n_operands; i++) {
        const struct operand *o = &info->operands[i];
        if (o->kind != OPERAND_BUFFER || o->mode == MODE_SCRATCH) continue;
        uint32_t b = index_of(operand_id(node, o));
        missed += judged_good(r, node, e, r->lanes[0].at[b], 3);
        missed += judged_good(r, node, e, r->lanes[0].at[b], r->w.bytes[b] - 1);
    }
    return missed;
}

static uint32_t plant_in_states(struct random_world *r, const struct node *node,
                                const struct expected *e)
{
    struct sequence *last = &r->sequences[r->v->n_segments - 1];
    uint32_t missed = judged_good(r, node, e, last->pages, 1);
    missed += judged_good(r, node, e, last->pages, last->pages_bytes - 1);
    for (uint32_t i = 0; i < r->layout.n_recurrent; i++) {
        size_t at = r->layout.recurrent[i].off * 4 + 3;
        missed += judged_good(r, node, e, last->recurrent[0], at);
        missed += judged_good(r, node, e, last->recurrent[1], at);
    }
    return missed;
}

uint32_t check_the_checker(void)
{
    static struct random_world r;
    struct sluice_error err;
    uint32_t missed = 0;
    world_open(&r, &variants[3], 1);
    for (uint32_t n = 0; n < r.g.nodes.n; n++) {
        const struct node *node = &r.g.nodes.items[n];
        gen_node(&r.w, node);
        struct expected *before = expect(&r.w, NULL), *e = expect(&r.w, node);
        if (run_node(&r, &r.lanes[0], n, &err) != SLUICE_OK) abort();
        missed += plant_in_buffers(&r, node, e) + plant_in_states(&r, node, e);
        restore_states(&r, before);
        copy_operands(&r, &r.lanes[0], node);
        expected_free(before);
        expected_free(e);
    }
    world_close(&r);
    return missed;
}
