#include "base/pace.h"

/* A window is longer than a time slice of the scheduler, so that it sees both fortunes. */
enum { WINDOW_NS = 20 * 1000 * 1000, WINDOW_RUNS = 4, LOSS_NS = 2 * 1000 * 1000 };
static const uint64_t first_rest_ns = 100ull * 1000 * 1000, longest_rest_ns = 3200ull * 1000 * 1000;

void pace_init(struct pace *pace, uint32_t n_threads, uint32_t n_cores)
{
    uint32_t most = n_threads < n_cores ? n_threads : n_cores;
    *pace = (struct pace){.most = most, .n = n_threads, .rest_ns = first_rest_ns};
}

static double rate(const struct pace_window *w)
{
    return w->ns ? (double)w->work / (double)w->ns : 0;
}

/* A prompt does more work a run than a token, and more of it a second. */
static bool comparable(const struct pace_window *a, const struct pace_window *b)
{
    double x = (double)a->work * b->runs, y = (double)b->work * a->runs;
    return x <= 1.1 * y && y <= 1.1 * x;
}

/*
 * As many threads as were at work on average, if that is fewer: n (1 - waited / ns), with a tenth
 * off, because waiting itself costs. 0: thread 0 waited little.
 */
static uint32_t fewer(const struct pace *p)
{
    if (p->n > p->most) return p->most;
    double busy = 1 - (double)p->window.waited_ns / (double)p->window.ns;
    if (p->n == 1 || busy > 0.7) return 0;
    uint32_t n = 1 + (uint32_t)(0.9 * busy * p->n);
    return n < p->n ? n : p->n - 1;
}

static uint32_t more(const struct pace *p)
{
    if (p->n >= p->most) return 0;
    return p->n > p->most / 2 ? p->most : 2 * p->n;
}

/* What can be seen by now: a trial that goes badly is over soon. */
static bool seen_enough(const struct pace *p)
{
    const struct pace_window *w = &p->window;
    if (p->in_trial && w->ns >= LOSS_NS && 2 * rate(w) < rate(&p->steady)) return true;
    if (w->runs < WINDOW_RUNS) return false;
    return w->ns >= WINDOW_NS || p->n > p->most;
}

static void begin_trial(struct pace *p)
{
    uint32_t up = more(p), down = fewer(p);
    uint32_t n = up && (p->up_next || !down) ? up : down;
    p->up_next = !p->up_next;
    if (!n) return;
    p->steady = p->window;
    p->before = p->n;
    p->n = n;
    p->in_trial = true;
}

static void end_trial(struct pace *p, uint64_t now_ns)
{
    double needed = p->n < p->before ? 1.1 : 1.05;
    bool won = comparable(&p->window, &p->steady) && rate(&p->window) > needed * rate(&p->steady);
    if (!won) p->n = p->before;
    p->rest_ns = won ? first_rest_ns : 2 * p->rest_ns;
    if (p->rest_ns > longest_rest_ns) p->rest_ns = longest_rest_ns;
    p->trial_at = now_ns + p->rest_ns;
    p->in_trial = false;
}

void pace_note(struct pace *p, uint64_t now_ns, uint64_t ns, uint64_t waited_ns, uint64_t work)
{
    struct pace_window *w = &p->window;
    w->ns += ns;
    w->waited_ns += waited_ns;
    w->work += work;
    w->runs++;
    if (!seen_enough(p)) return;
    if (p->in_trial) {
        end_trial(p, now_ns);
    } else if (now_ns >= p->trial_at) {
        begin_trial(p);
    }
    *w = (struct pace_window){0};
}
