/* Guessing which experts a layer will need, and telling the store. Nothing is computed from it. */
#include "backend/cpu/cpu_internal.h"

/* Lists an expert once. */
static void list_guess(struct cpu_backend *be, uint32_t *n, uint32_t expert)
{
    if (be->guessed[expert]) return;
    be->guessed[expert] = true;
    be->guess[(*n)++] = expert;
}

static void tell_store(struct cpu_backend *be, const struct expert_bank *bank, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) be->guessed[be->guess[i]] = false;
    if (n && be->options.store) store_guess(be->options.store, bank, be->guess, n);
}

/* What the last tokens used */

static int32_t *picks_of(const struct sequence *seq, const struct expert_bank *bank, uint32_t k)
{
    size_t first = (size_t)bank->index * k;
    return first + k <= seq->layout->n_picks ? seq->picks + first : NULL;
}

void cpu_remember_picks(const struct task *t, const struct node *node)
{
    const struct op_group_picks *op = &node->u.group_picks;
    const struct expert_bank *bank = t->be->next_bank[node - t->be->graph->nodes.items];
    uint32_t k = WIDTH(t, op->ids);
    for (uint32_t i = 0; bank && i < t->be->batch->n_segments; i++) {
        const struct batch_segment *s = &t->be->batch->segments[i];
        int32_t *picks = picks_of(s->sequence, bank, k);
        const int32_t *ids = BUF_I32(t, op->ids) + (size_t)(s->first + s->count - 1) * k;
        for (uint32_t j = 0; picks && j < k; j++) picks[j] = ids[j];
    }
}

void cpu_guess_last(struct cpu_backend *be, const struct expert_bank *bank)
{
    const struct expert_bank *next = be->banks[(bank->index + 1) % be->n_banks];
    uint32_t k = be->graph->n_picks, n = 0;
    for (uint32_t i = 0; next && i < be->batch->n_segments; i++) {
        const int32_t *picks = picks_of(be->batch->segments[i].sequence, next, k);
        for (uint32_t j = 0; picks && j < k; j++)
            if (picks[j] >= 0) list_guess(be, &n, (uint32_t)picks[j]);
    }
    if (next) tell_store(be, next, n);
}

/* What the router says before its time */

/* A row's experts, the heaviest first; their weights are used up. */
static void list_row(struct cpu_backend *be, const int32_t *ids, float *weights, uint32_t k,
                     uint32_t *n)
{
    for (uint32_t i = 0; i < k; i++) {
        uint32_t best = 0;
        for (uint32_t j = 1; j < k; j++)
            if (weights[j] > weights[best]) best = j;
        list_guess(be, n, (uint32_t)ids[best]);
        weights[best] = -1;
    }
}

/* What both guesses have. */
struct guess {
    const float *x, *norm;
    const struct wmat *router;
    const struct expert_bank *bank;
    float *input, *logits, *weights;
    int32_t *ids;
    uint32_t rows, k;
    float eps;
    const struct sigmoid_choice *sigmoid; /* NULL: a softmax */
};

/* The scores of all rows: norm, then router. */
static void guess_scores(const struct task *t, const struct guess *g)
{
    const struct wmat *w = g->router;
    size_t width = w->cols;
    uint32_t begin, end;
    share(t, g->rows, 1, &begin, &end);
    for (size_t r = begin; r < end; r++)
        t->k->rms_norm(g->x + r * width, g->norm, (uint32_t)width, g->eps, g->input + r * width);
    pool_barrier(t->be->pool);
    share(t, w->rows, ROW_GRAIN, &begin, &end);
    if (begin < end)
        t->k->matmul_f32[w->type](w, begin, end, g->input, w->cols, g->rows, g->logits, w->rows,
                                  scratch_of(t));
    pool_barrier(t->be->pool);
}

static void guess_row(const struct task *t, const struct guess *g, size_t r)
{
    uint32_t n = g->router->rows;
    const float *logits = g->logits + r * n;
    int32_t *ids = g->ids + r * g->k;
    float *weights = g->weights + r * g->k;
    if (g->sigmoid)
        t->k->sigmoid_top_k(logits, n, g->sigmoid, ids, weights, scratch_of(t));
    else
        t->k->softmax_top_k(logits, n, g->k, true, ids, weights, scratch_of(t));
}

static void guess(const struct task *t, const struct guess *g)
{
    if (t->be->prefetch != PREFETCH_ROUTER) return;
    uint32_t begin, end, n = 0;
    guess_scores(t, g);
    share(t, g->rows, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) guess_row(t, g, r);
    pool_barrier(t->be->pool);
    if (t->thread != 0) return;
    for (size_t r = 0; r < g->rows; r++)
        list_row(t->be, g->ids + r * g->k, g->weights + r * g->k, g->k, &n);
    tell_store(t->be, g->bank, n);
}

#define GUESS(op)                                                                                  \
    {                                                                                              \
        .x = BUF(t, op->x), .norm = WT(t, op->norm)->values, .router = &WT(t, op->router)->matrix, \
        .bank = WT(t, op->bank)->bank, .input = BUF(t, op->input), .logits = BUF(t, op->logits),   \
        .weights = BUF(t, op->weights), .ids = BUF_I32(t, op->ids), .rows = N_ROWS(t, op->x),      \
        .k = op->k, .eps = op->eps                                                                 \
    }

void cpu_guess_experts(const struct task *t, const struct node *node)
{
    const struct op_guess_experts *op = &node->u.guess_experts;
    struct guess g = GUESS(op);
    guess(t, &g);
}

void cpu_guess_by_sigmoid(const struct task *t, const struct node *node)
{
    const struct op_guess_by_sigmoid *op = &node->u.guess_by_sigmoid;
    struct sigmoid_choice how = {.correction = WT(t, op->correction)->values,
                                 .k = op->k,
                                 .n_groups = op->n_groups,
                                 .top_groups = op->top_groups,
                                 .scale = 1};
    struct guess g = GUESS(op);
    g.sigmoid = &how;
    guess(t, &g);
}
#undef GUESS
