/* What an op must leave behind, and whether it did. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "opcheck.h"

void gen_node(struct world *w, const struct node *node)
{
    switch (node->op) {
#define P(op)                                                                                      \
    case OP_KIND_##op: gen_##op(w, &node->u.op); break;
        OPS(P)
#undef P
    case OP_COUNT: break;
    }
}

static void ref_node(const struct world *w, const struct node *node, struct expected *e)
{
    switch (node->op) {
#define P(op)                                                                                      \
    case OP_KIND_##op: ref_##op(w, &node->u.op, e); break;
        OPS(P)
#undef P
    case OP_COUNT: break;
    }
}

/* An op without a row in limits.def does not build. */
enum {
#define L(op, limit) HAS_LIMIT_##op,
#include "limits.def"
#undef L
};
#define P(op) _Static_assert(HAS_LIMIT_##op >= 0, "limits.def has no row for " #op);
OPS(P)
#undef P

double limit_of(const struct world *w, const struct node *node)
{
    static const double limits[] = {
#define L(op, limit) [OP_KIND_##op] = limit,
#include "limits.def"
#undef L
    };
    if (node->op == OP_KIND_experts && w->int8) return INT8_EXPERTS_LIMIT;
    return limits[node->op];
}

static void *copy_of(const void *data, size_t bytes)
{
    void *copy = malloc(bytes + 1);
    if (!copy) abort();
    memcpy(copy, data, bytes);
    return copy;
}

static bool is_result(const struct operand *o)
{
    return o->kind == OPERAND_BUFFER && o->mode == MODE_OUT;
}

static void take_results(const struct world *w, const struct node *node, struct expected *e)
{
    const struct op_info *info = op_info(node->op);
    for (uint32_t i = 0, n = 0; i < info->n_operands; i++) {
        if (!is_result(&info->operands[i])) continue;
        uint32_t id = operand_id(node, &info->operands[i]);
        e->out[n] = calloc((size_t)rows_of(w, id) * width_of(w, id) + 1, sizeof *e->out[n]);
        if (!e->out[n++]) abort();
    }
}

struct expected *expect(const struct world *w, const struct node *node)
{
    struct expected *e = calloc(1, sizeof *e);
    if (!e) abort();
    if (node) take_results(w, node, e);
    size_t bytes = w->layout->recurrent_floats * sizeof(float);
    for (uint32_t s = 0; s < w->batch.n_segments; s++) {
        const struct sequence *seq = w->batch.segments[s].sequence;
        e->recurrent[s] = copy_of(seq->recurrent[seq->committed ^ 1], bytes);
        e->committed[s] = copy_of(seq->recurrent[seq->committed], bytes);
        e->pages[s] = copy_of(seq->pages, seq->pages_bytes);
    }
    if (node) ref_node(w, node, e);
    return e;
}

void expected_free(struct expected *e)
{
    for (uint32_t i = 0; i < MAX_RESULTS; i++) free(e->out[i]);
    for (uint32_t s = 0; s < MAX_SEGMENTS; s++) {
        free(e->recurrent[s]);
        free(e->committed[s]);
        free(e->pages[s]);
    }
    free(e);
}

static void complain(struct verdict *v, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void complain(struct verdict *v, const char *fmt, ...)
{
    if (v->text[0]) return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(v->text, sizeof v->text, fmt, args);
    va_end(args);
}

/* Counts values that are not finite where the reference is; the first other bits, if they must
 * agree. */
static void judge_exact(struct verdict *v, const char *name, const float *have, const double *want,
                        size_t n, uint32_t width)
{
    for (size_t i = 0; i < n; i++) {
        float value = (float)want[i];
        if (memcmp(&have[i], &value, sizeof value) == 0) continue;
        complain(v, "'%s' [%zu][%zu] is %.9g, not %.9g to the bit", name, i / width, i % width,
                 (double)have[i], (double)value);
    }
}

static size_t count_not_finite(const float *have, const double *want, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += isfinite(want[i]) && !isfinite(have[i]);
    return count;
}

static void judge_rows(struct verdict *v, const char *name, const float *have, const double *want,
                       uint32_t rows, uint32_t width, double limit)
{
    size_t n = (size_t)rows * width, lost = count_not_finite(have, want, n);
    if (lost) complain(v, "'%s' has %zu values of %zu that are not finite", name, lost, n);
    if (limit == EXACT) judge_exact(v, name, have, want, n, width);
    if (limit == EXACT || lost) return;
    double energy = 0;
    for (size_t i = 0; i < n; i++) energy += want[i] * want[i] / rows;
    for (uint32_t r = 0; r < rows; r++) {
        double error = 0;
        for (size_t i = (size_t)r * width; i < ((size_t)r + 1) * width; i++)
            error += (have[i] - want[i]) * (have[i] - want[i]);
        double relative = error > 0 ? error / fmax(energy, 1e-300) : 0;
        v->worst = fmax(v->worst, relative);
        if (!(relative <= limit))
            complain(v, "'%s' row %u is off by %.3g, limit %.3g", name, r, relative, limit);
    }
}

static void judge_ints(struct verdict *v, const char *name, const int32_t *have, const double *want,
                       size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((double)have[i] != want[i])
            complain(v, "'%s' [%zu] is %d, not %.0f", name, i, have[i], want[i]);
}

static void judge_results(struct verdict *v, const struct world *w, const struct node *node,
                          unsigned char *const *have, const struct expected *e)
{
    const struct op_info *info = op_info(node->op);
    for (uint32_t i = 0, n = 0; i < info->n_operands; i++) {
        const struct operand *o = &info->operands[i];
        if (!is_result(o)) continue;
        uint32_t id = operand_id(node, o), rows = rows_of(w, id), width = width_of(w, id);
        const void *data = have[index_of(id)];
        if (role_elem(w->g->buffers.items[index_of(id)].role) == ELEM_I32)
            judge_ints(v, o->name, data, e->out[n++], (size_t)rows * width);
        else
            judge_rows(v, o->name, data, e->out[n++], rows, width, limit_of(w, node));
    }
}

/* Bytes from the start of a buffer that the node may change. */
static size_t may_change(const struct world *w, const struct node *node, uint32_t b)
{
    const struct op_info *info = op_info(node->op);
    for (uint32_t i = 0; i < info->n_operands; i++) {
        const struct operand *o = &info->operands[i];
        if (o->kind != OPERAND_BUFFER || o->mode == MODE_IN) continue;
        uint32_t id = operand_id(node, o);
        if (index_of(id) == b) return (size_t)rows_of(w, id) * width_of(w, id) * 4;
    }
    return 0;
}

static void judge_rest(struct verdict *v, const struct world *w, const struct node *node,
                       unsigned char *const *have, unsigned char *const *before)
{
    for (uint32_t b = 0; b < w->g->buffers.n; b++) {
        size_t from = may_change(w, node, b);
        if (memcmp(have[b] + from, before[b] + from, w->bytes[b] - from) == 0) continue;
        complain(v, "%%%u:%s was changed %s", b + 1, role_name(w->g->buffers.items[b].role),
                 from ? "past the rows of the batch" : "though it is no result");
    }
}

/* The state that changes may be off as its op may; every other float is what it was. */
static void judge_recurrent(struct verdict *v, const struct world *w, const float *have,
                            const float *want, uint32_t changed, double limit)
{
    for (uint32_t i = 0; i < w->layout->n_recurrent; i++) {
        size_t off = w->layout->recurrent[i].off, n = w->layout->recurrent[i].n;
        if (i + 1 != changed) {
            if (memcmp(have + off, want + off, n * sizeof *have) != 0)
                complain(v, "recurrent state %u was changed", i);
            continue;
        }
        double *wide = calloc(n + 1, sizeof *wide);
        if (!wide) abort();
        for (size_t k = 0; k < n; k++) wide[k] = want[off + k];
        judge_rows(v, "state", have + off, wide, n != 0, (uint32_t)n, limit);
        free(wide);
    }
}

static void judge_states(struct verdict *v, const struct world *w, const struct node *node,
                         const struct expected *e)
{
    double limit = node->op == OP_KIND_conv ? EXACT : limit_of(w, node);
    size_t bytes = w->layout->recurrent_floats * sizeof(float);
    for (uint32_t s = 0; s < w->batch.n_segments; s++) {
        const struct sequence *seq = w->batch.segments[s].sequence;
        if (memcmp(seq->pages, e->pages[s], seq->pages_bytes) != 0)
            complain(v, "segment %u: the cache holds other bytes than expected", s);
        if (memcmp(seq->recurrent[seq->committed], e->committed[s], bytes) != 0)
            complain(v, "segment %u: the committed state was changed", s);
        judge_recurrent(v, w, seq->recurrent[seq->committed ^ 1], e->recurrent[s],
                        e->changed_recurrent, limit);
    }
}

struct verdict judge(const struct world *w, const struct node *node, unsigned char *const *have,
                     unsigned char *const *before, const struct expected *e)
{
    struct verdict v = {.text = ""};
    judge_results(&v, w, node, have, e);
    if (before) judge_rest(&v, w, node, have, before);
    judge_states(&v, w, node, e);
    return v;
}
