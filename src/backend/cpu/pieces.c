/*
 * How threads divide the rows of large weights. Fixed shares end at different times: a neighbour
 * takes a part of a core, or memory serves one thread first. What is small stays in shares, which
 * cost nothing and let a thread go on with the columns that it computed itself (program.c).
 */
#include <stdlib.h>

#include "backend/cpu/cpu_internal.h"
#include "base/bits.h"

/*
 * Bytes of a matrix whose rows are taken in pieces, unless the options say otherwise; and of a
 * piece, unless there are not so many for each thread. Kernels go through longer ones faster.
 */
enum { PIECES_FROM = 256 << 10 };
/* So many times as much pays for the barrier that its result needs and columns do not. */
enum { WORTH_A_BARRIER = 16 };

static uint64_t pieces_from(const struct cpu_backend *be)
{
    return be->options.pieces_from ? be->options.pieces_from : PIECES_FROM;
}

uint32_t cpu_least_piece(const struct cpu_backend *be, uint64_t grain_bytes, uint32_t n_tokens)
{
    return (uint32_t)(pieces_from(be) / (grain_bytes * n_tokens + 1)) + 1;
}

struct pieces cpu_rows_in_pieces(const struct task *t, const struct node *node,
                                 const struct wmat *w, uint32_t n_tokens)
{
    const size_t at = (size_t)(node - t->be->graph->nodes.items);
    if (!cpu_is_in_pieces(t->be, node)) return (struct pieces){0};
    const uint32_t n = div_up_u32(w->rows, row_grain(w));
    return (struct pieces){.turn = &t->be->turns[at],
                           .n = n,
                           .least = cpu_least_piece(t->be, wmat_bytes(w) / n, n_tokens)};
}

bool cpu_next_piece(const struct task *t, const struct pieces *pieces, uint32_t *begin,
                    uint32_t *end)
{
    const uint32_t least = min_u32(pieces->least, div_up_u32(pieces->n, t->n_threads));
    uint32_t at = atomic_load_explicit(pieces->turn, memory_order_relaxed), size;
    do {
        if (at >= pieces->n) return false;
        size = (pieces->n - at) / (2 * t->n_threads);
        size = min_u32(max_u32(size, least), pieces->n - at);
    } while (!atomic_compare_exchange_weak_explicit(pieces->turn, &at, at + size,
                                                    memory_order_relaxed, memory_order_relaxed));
    *begin = at;
    *end = at + size;
    return true;
}

/* Whether an activation goes on with the columns of a projection's result. */
static bool is_activated(const struct cpu_backend *be, const struct buffer *y)
{
    for (uint32_t n = 0; n < be->graph->nodes.n; n++) {
        const struct node *node = &be->graph->nodes.items[n];
        if (node->op != OP_KIND_swiglu) continue;
        if (y == BUFFER_DECL(be, node->u.swiglu.gate) || y == BUFFER_DECL(be, node->u.swiglu.up))
            return true;
    }
    return false;
}

static bool is_projection_large(const struct cpu_backend *be, const struct weight_data *w,
                                const struct buffer *y)
{
    uint64_t bytes = wmat_bytes(&w->matrix), from = pieces_from(be);
    return bytes / WORTH_A_BARRIER >= from || (bytes >= from && !is_activated(be, y));
}

static bool is_large(const struct cpu_backend *be, const struct node *node)
{
    struct projection p;
    if (cpu_projection(be, node, &p)) return is_projection_large(be, &be->weights[p.w], p.y);
    if (node->op != OP_KIND_experts) return false;
    const struct expert_bank *bank = be->weights[WEIGHT_INDEX(node->u.experts.bank)].bank;
    return wmat_bytes(&bank->experts[0].gate) >= pieces_from(be) / 2;
}

enum sluice_status cpu_plan_pieces(struct cpu_backend *be, struct sluice_error *err)
{
    const uint32_t n_nodes = (uint32_t)be->graph->nodes.n;
    be->turns = calloc(n_nodes + 1, sizeof *be->turns);
    be->in_pieces = calloc(n_nodes + 1, sizeof *be->in_pieces);
    if (!be->turns || !be->in_pieces) return err_nomem(err, "backend", n_nodes);
    for (uint32_t n = 0; n < n_nodes && be->options.pool.n_threads > 1; n++)
        be->in_pieces[n] = is_large(be, &be->graph->nodes.items[n]);
    return SLUICE_OK;
}
