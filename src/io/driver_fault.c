#include "io/driver_fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/array.h"
#include "base/rng.h"

enum fate { FATE_READ, FATE_SHORT, FATE_ERROR };

/* A read in flight, at the place of its flight. */
struct faulty_read {
    enum fate fate;
    int64_t result; /* FATE_ERROR: what comes back */
    uint8_t *into;
    uint32_t bytes;
    int fd;
    uint64_t offset;
    uint64_t dice;
};

/* A result that waits to be given. */
struct held {
    struct flight_result result;
    uint32_t delay;
};

struct fault_driver {
    struct fault_options options;
    const struct driver *inner;
    void *inner_state;
    uint32_t depth;
    struct faulty_read *reads; /* per flight */
    uint32_t *queue;           /* flights that this driver answers itself, in order */
    uint32_t n_queued;
    uint32_t n_inner; /* with inner */
    struct held *held;
    uint32_t n_held;
    uint32_t most;
    uint64_t n_started, n_calls;
    ARRAY(struct fault_read) log;
};

static void fault_close(void *state)
{
    struct fault_driver *d = state;
    if (d->inner) d->inner->close(d->inner_state);
    free(d->reads);
    free(d->queue);
    free(d->held);
    array_release(&d->log);
    free(d);
}

void *driver_fault_open(uint32_t depth, const struct fault_options *options,
                        const struct driver *inner, void *inner_state)
{
    struct fault_driver *d = calloc(1, sizeof *d);
    if (!d) {
        if (inner) inner->close(inner_state);
        return NULL;
    }
    d->options = *options;
    d->inner = inner;
    d->inner_state = inner_state;
    d->depth = depth;
    d->reads = calloc(depth, sizeof *d->reads);
    d->queue = calloc(depth, sizeof *d->queue);
    d->held = calloc(depth, sizeof *d->held);
    if (d->reads && d->queue && d->held) return d;
    fault_close(d);
    return NULL;
}

void driver_fault_set(void *state, const struct fault_options *options)
{
    struct fault_driver *d = state;
    d->options = *options;
    d->n_started = 0;
    d->log.n = 0;
}

const struct fault_read *driver_fault_reads(const void *state, size_t *n)
{
    const struct fault_driver *d = state;
    *n = d->log.n;
    return d->log.items;
}

uint32_t driver_fault_most(const void *state)
{
    const struct fault_driver *d = state;
    return d->most;
}

static uint32_t in_flight(const struct fault_driver *d)
{
    return d->n_queued + d->n_inner + d->n_held;
}

static bool rolls(struct rng *rng, uint32_t chance)
{
    return rng_below(rng, 100) < chance;
}

static bool is_failing(const struct fault_options *o, uint64_t number)
{
    uint64_t last = o->fail_last > o->fail_first ? o->fail_last : o->fail_first;
    return o->fail_first && number >= o->fail_first && number <= last;
}

static void decide(const struct fault_driver *d, struct faulty_read *r)
{
    const struct fault_options *o = &d->options;
    struct rng rng = {o->seed * 0x9e3779b97f4a7c15u + d->n_started};
    int64_t failure = o->fail_error ? -(int64_t)o->fail_error : -EIO;
    bool eintr = rolls(&rng, o->eintr_chance), eagain = rolls(&rng, o->eagain_chance);
    bool cut = rolls(&rng, o->short_chance);
    r->dice = rng_u64(&rng);
    r->fate = FATE_ERROR;
    if (is_failing(o, d->n_started))
        r->result = o->fail_error == READER_EOF ? 0 : failure;
    else if (eintr)
        r->result = -EINTR;
    else if (eagain)
        r->result = -EAGAIN;
    else
        r->fate = cut ? FATE_SHORT : FATE_READ;
}

static bool fault_start(void *state, uint32_t index, const struct flight *f)
{
    struct fault_driver *d = state;
    struct rng rng = {d->options.seed + ++d->n_calls};
    bool refused = in_flight(d) && rolls(&rng, d->options.refuse_chance);
    if (d->options.refuse_all || refused || in_flight(d) == d->depth) return false;
    struct faulty_read *r = &d->reads[index];
    *r = (struct faulty_read){.into = (uint8_t *)f->op.into + f->done,
                              .bytes = f->op.bytes - f->done,
                              .fd = f->fd,
                              .offset = f->op.offset + f->done};
    struct fault_read entry = {f->op.tag, r->offset, (uint32_t)f->fd, f->op.prefetch};
    if (!array_push(&d->log, entry)) return false;
    d->n_started++;
    decide(d, r);
    bool inside = d->inner && r->fate != FATE_ERROR;
    if (inside && !d->inner->start(d->inner_state, index, f)) return false;
    if (inside)
        d->n_inner++;
    else
        d->queue[d->n_queued++] = index;
    if (in_flight(d) > d->most) d->most = in_flight(d);
    return true;
}

static void fault_flush(void *state)
{
    struct fault_driver *d = state;
    if (d->inner) d->inner->flush(d->inner_state);
}

/* What the driver above is told when n bytes came; the others are spoilt. */
static int64_t spoil(const struct faulty_read *r, uint32_t most, int64_t n)
{
    if (r->fate == FATE_ERROR) n = r->result;
    if (most && n > (int64_t)most) n = most;
    if (r->fate == FATE_SHORT && n > 1) n = 1 + (int64_t)(r->dice % (uint64_t)n);
    size_t whole = n > 0 ? (size_t)n : 0;
    memset(r->into + whole, 0xdb, r->bytes - whole);
    return n;
}

static void hold(struct fault_driver *d, uint32_t index, int64_t n)
{
    const struct faulty_read *r = &d->reads[index];
    uint32_t delay = d->options.delay ? (uint32_t)(r->dice >> 40) % (d->options.delay + 1) : 0;
    d->held[d->n_held++] = (struct held){{index, spoil(r, d->options.most_bytes, n)}, delay};
}

static void answer_queued(struct fault_driver *d)
{
    for (uint32_t i = 0; i < d->n_queued; i++) {
        const struct faulty_read *r = &d->reads[d->queue[i]];
        ssize_t n = 0;
        if (r->fate != FATE_ERROR) n = pread(r->fd, r->into, r->bytes, (off_t)r->offset);
        hold(d, d->queue[i], n < 0 ? -(int64_t)errno : n);
    }
    d->n_queued = 0;
}

static void take_inner(struct fault_driver *d, bool wait)
{
    struct flight_result results[32];
    size_t n = d->inner->reap(d->inner_state, results, 32, wait);
    d->n_inner -= (uint32_t)n;
    for (size_t i = 0; i < n; i++) hold(d, results[i].flight, results[i].n);
}

/* The held result to give next, n_held when all are still delayed. */
static uint32_t choose_held(struct fault_driver *d)
{
    struct rng rng = {d->options.seed ^ ++d->n_calls << 32};
    uint32_t at = d->options.reorder && d->n_held ? rng_below(&rng, d->n_held) : 0;
    for (uint32_t i = 0; i < d->n_held; i++, at++)
        if (d->held[at % d->n_held].delay == 0) return at % d->n_held;
    return d->n_held;
}

static void shorten_delays(struct fault_driver *d)
{
    for (uint32_t i = 0; i < d->n_held; i++)
        if (d->held[i].delay) d->held[i].delay--;
}

static size_t fault_reap(void *state, struct flight_result *out, size_t cap, bool wait)
{
    struct fault_driver *d = state;
    size_t n = 0;
    do {
        answer_queued(d);
        if (d->n_inner) take_inner(d, wait && d->n_held == 0);
        uint32_t at;
        while (n < cap && (at = choose_held(d)) < d->n_held) {
            out[n++] = d->held[at].result;
            memmove(&d->held[at], &d->held[at + 1], (--d->n_held - at) * sizeof *d->held);
        }
        shorten_delays(d);
    } while (wait && n == 0);
    return n;
}

const struct driver driver_fault = {
    .name = "fault",
    .start = fault_start,
    .flush = fault_flush,
    .reap = fault_reap,
    .close = fault_close,
};
