/*
 * Drawing an id from logits. Order: bias, penalties, temperature, top-k, top-p, min-p, draw.
 *
 * The vocabulary is never sorted. Top-k keeps a heap of the k best. Top-p and min-p both keep a
 * prefix of the ids in falling order of probability, so their order among each other does not
 * matter once the total that top-p refers to is known: min-p filters by a threshold, and top-p
 * finds its prefix by a selection that partitions by weight (quickselect with sums).
 *
 * Logits are looked at in blocks, most of which have none that matters.
 *
 * NaN counts as -inf. When every logit is -inf the answer is id 0; when one is +inf, the first
 * such id. Among equal logits the lower id is the better one.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "base/rng.h"

enum { BLOCK = 256 };
static const uint32_t DONE = UINT32_C(1) << 31;

struct candidate {
    int32_t id;
    float logit;
    double weight; /* exp((logit - largest) / temperature) */
};

struct sluice_sampler {
    struct sluice_sampler_options options; /* bias points to own memory */
    uint32_t vocab_size;
    struct rng rng;
    struct sluice_logit_bias *bias;
    struct candidate *candidates; /* room for what top-k leaves */
    uint32_t *counts;             /* [vocab_size] occurrences in the window; NULL: no penalties */
    int32_t *window;              /* ring of the last accepted ids */
    uint32_t n_window, oldest;
};

void sluice_sampler_options_default(struct sluice_sampler_options *options)
{
    *options = (struct sluice_sampler_options){
        .size = sizeof *options,
        .temperature = 0.8f,
        .top_k = 40,
        .top_p = 0.95f,
        .min_p = 0.05f,
        .repeat_penalty = 1.0f,
        .penalty_window = 64,
    };
}

static enum sluice_status check_number(bool good, const char *name, float value, const char *range,
                                       struct sluice_error *err)
{
    if (good) return SLUICE_OK;
    return err_set(err, SLUICE_E_ARGUMENT, "sampler option %s is %g, not in %s", name,
                   (double)value, range);
}

static enum sluice_status check_options(const struct sluice_sampler_options *o, uint32_t vocab_size,
                                        struct sluice_error *err)
{
    if (vocab_size == 0 || vocab_size > INT32_MAX)
        return err_set(err, SLUICE_E_ARGUMENT, "vocabulary size %u is not in [1, %d]", vocab_size,
                       INT32_MAX);
    float t = o->temperature;
    TRY(check_number(t >= 0 && isfinite(t), "temperature", t, "[0, inf)", err));
    TRY(check_number(o->top_p > 0 && o->top_p <= 1, "top_p", o->top_p, "(0, 1]", err));
    TRY(check_number(o->min_p >= 0 && o->min_p < 1, "min_p", o->min_p, "[0, 1)", err));
    float r = o->repeat_penalty;
    TRY(check_number(r > 0 && isfinite(r), "repeat_penalty", r, "(0, inf)", err));
    float p = o->presence_penalty;
    TRY(check_number(isfinite(p), "presence_penalty", p, "(-inf, inf)", err));
    float f = o->frequency_penalty;
    TRY(check_number(isfinite(f), "frequency_penalty", f, "(-inf, inf)", err));
    if (o->n_bias && !o->bias)
        return err_set(err, SLUICE_E_ARGUMENT, "%zu logit biases are announced, none is given",
                       o->n_bias);
    for (size_t i = 0; i < o->n_bias; i++) {
        int32_t id = o->bias[i].id;
        if (id < 0 || (uint32_t)id >= vocab_size)
            return err_set(err, SLUICE_E_ARGUMENT,
                           "logit bias for id %d: the vocabulary has %u ids", id, vocab_size);
        if (isnan(o->bias[i].bias))
            return err_set(err, SLUICE_E_ARGUMENT, "logit bias for id %d is not a number", id);
    }
    return SLUICE_OK;
}

static bool has_penalties(const struct sluice_sampler_options *o)
{
    bool some = o->repeat_penalty != 1 || o->presence_penalty != 0 || o->frequency_penalty != 0;
    return some && o->penalty_window > 0;
}

/* top_k with "off" spelt as the whole vocabulary. */
static uint32_t n_kept_by_top_k(const struct sluice_sampler *s)
{
    uint32_t k = s->options.top_k;
    return k == 0 || k > s->vocab_size ? s->vocab_size : k;
}

static bool allocate(struct sluice_sampler *s)
{
    const struct sluice_sampler_options *o = &s->options;
    if (o->n_bias) {
        s->bias = calloc(o->n_bias, sizeof *s->bias);
        if (!s->bias) return false;
        memcpy(s->bias, o->bias, o->n_bias * sizeof *s->bias);
    }
    s->options.bias = s->bias;
    if (o->temperature > 0) {
        s->candidates = calloc(n_kept_by_top_k(s), sizeof *s->candidates);
        if (!s->candidates) return false;
    }
    if (has_penalties(o)) {
        s->counts = calloc(s->vocab_size, sizeof *s->counts);
        s->window = calloc(o->penalty_window, sizeof *s->window);
        if (!s->counts || !s->window) return false;
    }
    return true;
}

enum sluice_status sluice_sampler_open(sluice_sampler **sampler, uint32_t vocab_size,
                                       const struct sluice_sampler_options *options,
                                       struct sluice_error *err)
{
    *sampler = NULL;
    struct sluice_sampler_options o;
    sluice_sampler_options_default(&o);
    TRY(options_take(&o, sizeof o, options, "sampler", err));
    TRY(check_options(&o, vocab_size, err));
    struct sluice_sampler *s = calloc(1, sizeof *s);
    if (!s) return err_nomem(err, "a sampler", sizeof *s);
    s->options = o;
    s->vocab_size = vocab_size;
    s->rng.state = o.seed;
    if (!allocate(s)) {
        sluice_sampler_close(&s);
        return err_nomem(err, "the candidates of a sampler", vocab_size * sizeof(struct candidate));
    }
    *sampler = s;
    return SLUICE_OK;
}

void sluice_sampler_close(sluice_sampler **sampler)
{
    struct sluice_sampler *s = *sampler;
    if (!s) return;
    free(s->bias);
    free(s->candidates);
    free(s->counts);
    free(s->window);
    free(s);
    *sampler = NULL;
}

void sluice_sampler_accept(sluice_sampler *s, int32_t id)
{
    if (!s->counts || id < 0 || (uint32_t)id >= s->vocab_size) return;
    if (s->n_window < s->options.penalty_window) {
        s->window[s->n_window++] = id;
    } else {
        s->counts[s->window[s->oldest]]--;
        s->window[s->oldest] = id;
        s->oldest = (s->oldest + 1) % s->options.penalty_window;
    }
    s->counts[id]++;
}

static float penalized(const struct sluice_sampler_options *o, float logit, uint32_t count)
{
    logit = logit > 0 ? logit / o->repeat_penalty : logit * o->repeat_penalty;
    return logit - o->presence_penalty - (float)count * o->frequency_penalty;
}

/* Ids of the window, each once: the highest bit of its count says that it was dealt with. */
static void apply_penalties(const struct sluice_sampler *s, float *logits)
{
    for (uint32_t i = 0; i < s->n_window; i++) {
        int32_t id = s->window[i];
        if (s->counts[id] & DONE) continue;
        logits[id] = penalized(&s->options, logits[id], s->counts[id]);
        s->counts[id] |= DONE;
    }
    for (uint32_t i = 0; i < s->n_window; i++) s->counts[s->window[i]] &= ~DONE;
}

/* Whether a logit of the block exceeds the bound; NaN never does. A count is what compilers turn
 * into vectors. */
static bool any_above(const float *logits, uint32_t n, float bound)
{
    int32_t above = 0;
    for (uint32_t i = 0; i < n; i++) above += logits[i] > bound;
    return above != 0;
}

static uint32_t block_size(uint32_t n, uint32_t begin)
{
    return n - begin < BLOCK ? n - begin : BLOCK;
}

/* The id of the largest logit; NaN never is. */
static int32_t largest(const float *logits, uint32_t n)
{
    uint32_t best = 0;
    float most = -INFINITY;
    for (uint32_t begin = 0; begin < n; begin += BLOCK) {
        uint32_t count = block_size(n, begin);
        if (!any_above(logits + begin, count, most)) continue;
        for (uint32_t i = begin; i < begin + count; i++) {
            if (!(logits[i] > most)) continue;
            most = logits[i];
            best = i;
        }
    }
    return (int32_t)best;
}

static bool better(const struct candidate *a, const struct candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static void swap(struct candidate *a, struct candidate *b)
{
    struct candidate t = *a;
    *a = *b;
    *b = t;
}

/* Restores the heap whose root is the worst candidate, after c[i] changed. */
static void sift_down(struct candidate *c, uint32_t n, uint32_t i)
{
    for (;;) {
        uint32_t worst = i;
        for (uint64_t child = 2 * (uint64_t)i + 1; child < n && child <= 2 * (uint64_t)i + 2;
             child++)
            if (better(&c[worst], &c[child])) worst = (uint32_t)child;
        if (worst == i) return;
        swap(&c[i], &c[worst]);
        i = worst;
    }
}

/* The candidates of top-k: a heap whose root is the worst as soon as there are k. */
struct best_of {
    struct candidate *c;
    uint32_t kept, k;
    bool all; /* k is the whole vocabulary: nothing leaves, so no order is needed */
};

static void offer(struct best_of *b, int32_t id, float logit)
{
    struct candidate new = {.id = id, .logit = logit};
    if (!(logit > -INFINITY)) return;
    if (b->kept < b->k) {
        b->c[b->kept++] = new;
        if (b->kept == b->k && !b->all)
            for (uint32_t j = b->k / 2; j-- > 0;) sift_down(b->c, b->k, j);
    } else if (logit > b->c[0].logit) {
        b->c[0] = new;
        sift_down(b->c, b->k, 0);
    }
}

/* Puts the k best of logits[n] into c, in no useful order; ids that cannot be drawn stay out. */
static uint32_t keep_top_k(const float *logits, uint32_t n, uint32_t k, struct candidate *c)
{
    struct best_of b = {.c = c, .k = k, .all = k == n};
    for (uint32_t begin = 0; begin < n; begin += BLOCK) {
        uint32_t count = block_size(n, begin);
        bool full = b.kept == k && !b.all;
        if (full && !any_above(logits + begin, count, c[0].logit)) continue;
        for (uint32_t i = begin; i < begin + count; i++) offer(&b, (int32_t)i, logits[i]);
    }
    return b.kept;
}

/* Moves the better ones of c[0..n) to the front of the pivot, whose place is returned. */
static uint32_t partition(struct candidate *c, uint32_t n)
{
    uint32_t last = n - 1;
    uint32_t mid = n / 2;
    if (better(&c[mid], &c[0])) swap(&c[mid], &c[0]);
    if (better(&c[last], &c[0])) swap(&c[last], &c[0]);
    if (better(&c[mid], &c[last])) swap(&c[mid], &c[last]);
    uint32_t place = 0;
    for (uint32_t i = 0; i < last; i++)
        if (better(&c[i], &c[last])) swap(&c[i], &c[place++]);
    swap(&c[place], &c[last]);
    return place;
}

/* The fewest best candidates whose weights reach mass are moved to the front; their number. */
static uint32_t keep_top_p(struct candidate *c, uint32_t n, double mass)
{
    uint32_t kept = 0;
    while (n - kept > 1) {
        uint32_t place = partition(c + kept, n - kept);
        double before = 0;
        for (uint32_t i = kept; i < kept + place; i++) before += c[i].weight;
        if (before >= mass) {
            n = kept + place;
            continue;
        }
        mass -= before + c[kept + place].weight;
        kept += place + 1;
        if (mass <= 0) return kept;
    }
    return n;
}

static uint32_t keep_min_p(struct candidate *c, uint32_t n, double min_weight)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++)
        if (c[i].weight >= min_weight) c[kept++] = c[i];
    return kept;
}

static int32_t draw_by_weight(struct rng *rng, const struct candidate *c, uint32_t n)
{
    double total = 0;
    for (uint32_t i = 0; i < n; i++) total += c[i].weight;
    double left = rng_unit(rng) * total;
    uint32_t last = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (c[i].weight <= 0) continue;
        last = i;
        if (left < c[i].weight) break;
        left -= c[i].weight;
    }
    return c[last].id;
}

int32_t sluice_sampler_draw(sluice_sampler *s, float *logits)
{
    const struct sluice_sampler_options *o = &s->options;
    for (size_t i = 0; i < o->n_bias; i++) logits[s->bias[i].id] += s->bias[i].bias;
    if (s->counts) apply_penalties(s, logits);
    int32_t best = largest(logits, s->vocab_size);
    float most = logits[best];
    /* Also true when nothing can be drawn: then the best is id 0, be it NaN or -inf. */
    if (o->temperature <= 0 || !isfinite(most)) return best;

    struct candidate *c = s->candidates;
    uint32_t n = keep_top_k(logits, s->vocab_size, n_kept_by_top_k(s), c);
    double total = 0;
    for (uint32_t i = 0; i < n; i++) {
        c[i].weight = exp(((double)c[i].logit - (double)most) / (double)o->temperature);
        total += c[i].weight;
    }
    if (o->min_p > 0) n = keep_min_p(c, n, (double)o->min_p);
    if (o->top_p < 1) {
        /* What lies below this bound cannot together make up the mass outside of top-p. */
        double outside = 1 - (double)o->top_p;
        n = keep_min_p(c, n, total * outside / s->vocab_size * 0.5);
        n = keep_top_p(c, n, total * (double)o->top_p);
    }
    return draw_by_weight(&s->rng, c, n);
}
