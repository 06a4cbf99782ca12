/*
 * Evaluation: the segments of a call are cut into batches that fit the plan. A batch takes the next
 * tokens of every segment that still has some; the body of the graph runs once a batch, the tail
 * once for each group of rows whose logits are wanted.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/options.h"
#include "engine/internal.h"

void sluice_eval_options_default(struct sluice_eval_options *options)
{
    *options = (struct sluice_eval_options){.size = sizeof *options};
}

/* Where a segment of the call stands. */
struct call_segment {
    size_t done;      /* ids evaluated */
    size_t first_id;  /* its place among all ids of the call */
    size_t first_row; /* its place among all logit rows */
};

/* Where the results of a row of the tail go; NULL: not wanted. */
struct tail_row {
    float *logits, *normed;
};

/*
 * Memory of calls, kept by the engine and grown when a call has more segments than any before, so
 * that decoding allocates nothing.
 */
struct call_memory {
    size_t cap;
    struct call_segment *at;
    struct batch_segment *segments;
    size_t *owner;         /* segment of the call behind the batch's segment i */
    struct tail_row *tail; /* per row of the tail */
};

/* A call in progress. */
struct call {
    struct sluice_engine *e;
    const struct sluice_segment *segments;
    size_t n_segments;
    struct sluice_eval_options options;
    float *logits;
    struct call_segment *at; /* per segment */
    size_t total, total_done;
    struct call_memory *memory;
    struct sluice_error *err;
};

static enum sluice_status check_segment(const struct call *c, size_t i)
{
    const struct sluice_segment *s = &c->segments[i];
    const struct model *m = &c->e->model;
    if (!s->session) return err_set(c->err, SLUICE_E_ARGUMENT, "segment %zu has no session", i);
    if (s->n_ids == 0) return err_set(c->err, SLUICE_E_ARGUMENT, "segment %zu has no tokens", i);
    if (!s->ids) return err_set(c->err, SLUICE_E_ARGUMENT, "segment %zu has no ids", i);
    if (s->n_logits > s->n_ids)
        return err_set(c->err, SLUICE_E_ARGUMENT,
                       "segment %zu asks for logits of %zu tokens, but has %zu", i, s->n_logits,
                       s->n_ids);
    if (s->session->engine != c->e)
        return err_set(c->err, SLUICE_E_ARGUMENT, "segment %zu: its session is of another engine",
                       i);
    if (s->session->in_call)
        return err_set(c->err, SLUICE_E_ARGUMENT, "segment %zu: its session is in the call twice",
                       i);
    for (size_t t = 0; t < s->n_ids; t++)
        if (s->ids[t] < 0 || (uint32_t)s->ids[t] >= m->vocab_size)
            return err_set(c->err, SLUICE_E_ARGUMENT,
                           "id %d at position %zu is outside the vocabulary of %u", s->ids[t], t,
                           m->vocab_size);
    const struct sequence *seq = &s->session->sequence;
    if (s->n_ids > seq->n_ctx - seq->position)
        return err_set(c->err, SLUICE_E_CONTEXT_FULL,
                       "the context of %u tokens is full: it holds %u and %zu more were given",
                       seq->n_ctx, seq->position, s->n_ids);
    return SLUICE_OK;
}

static enum sluice_status check_call(const struct call *c)
{
    enum sluice_status status = SLUICE_OK;
    size_t n = 0; /* segments that are checked and marked */
    if (c->options.hidden && !c->e->options.keep_hidden)
        return err_set(c->err, SLUICE_E_STATE,
                       "hidden states were asked for, but the engine was opened without "
                       "keep_hidden");
    for (; n < c->n_segments; n++) {
        status = check_segment(c, n);
        if (status != SLUICE_OK) break;
        c->segments[n].session->in_call = true;
    }
    for (size_t i = 0; i < n; i++) c->segments[i].session->in_call = false;
    return status;
}

void call_memory_free(struct call_memory **memory)
{
    struct call_memory *m = *memory;
    if (!m) return;
    *memory = NULL;
    free(m->at);
    free(m->segments);
    free(m->owner);
    free(m->tail);
    free(m);
}

static struct call_memory *call_memory_new(size_t n_segments, size_t tail_rows)
{
    struct call_memory *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    m->cap = n_segments;
    m->at = calloc(n_segments, sizeof *m->at);
    m->segments = calloc(n_segments, sizeof *m->segments);
    m->owner = calloc(n_segments, sizeof *m->owner);
    m->tail = calloc(tail_rows, sizeof *m->tail);
    if (!m->at || !m->segments || !m->owner || !m->tail) call_memory_free(&m);
    return m;
}

static enum sluice_status prepare_call(struct call *c)
{
    struct sluice_engine *e = c->e;
    if (!e->call_memory || e->call_memory->cap < c->n_segments) {
        struct call_memory *grown = call_memory_new(c->n_segments, e->max_outputs);
        if (!grown) return err_nomem(c->err, "evaluation", c->n_segments);
        call_memory_free(&e->call_memory);
        e->call_memory = grown;
    }
    c->memory = e->call_memory;
    c->at = c->memory->at;
    size_t rows = 0;
    for (size_t i = 0; i < c->n_segments; i++) {
        c->at[i] = (struct call_segment){.first_id = c->total, .first_row = rows};
        c->total += c->segments[i].n_ids;
        rows += c->segments[i].n_logits;
    }
    return SLUICE_OK;
}

/*
 * Takes the next tokens of each segment while there is room; fills the ids. c->memory->owner[i]
 * becomes the segment of the call behind the batch's segment i.
 */
static enum sluice_status next_piece(const struct call *c, struct batch *batch)
{
    struct sluice_engine *e = c->e;
    int32_t *ids = CPU_BUFFER(e->backend, e->model.token_ids);
    uint32_t room = e->options.max_batch_tokens;
    *batch = (struct batch){.segments = c->memory->segments};
    for (size_t i = 0; i < c->n_segments && batch->n_tokens < room; i++) {
        const struct sluice_segment *s = &c->segments[i];
        size_t left = s->n_ids - c->at[i].done;
        if (c->options.chunk) left = min_size(left, c->options.chunk);
        uint32_t count = (uint32_t)min_size(left, room - batch->n_tokens);
        if (count == 0) continue;
        TRY(sequence_reserve(&s->session->sequence, count, c->err));
        memcpy(ids + batch->n_tokens, s->ids + c->at[i].done, count * sizeof *ids);
        batch->segments[batch->n_segments] =
            (struct batch_segment){&s->session->sequence, batch->n_tokens, count};
        c->memory->owner[batch->n_segments++] = i;
        batch->n_tokens += count;
    }
    return SLUICE_OK;
}

/* Copies the kept residual streams of the batch's rows to where the caller wants them. */
static void copy_hidden(const struct call *c, const struct batch *batch)
{
    const struct model *m = &c->e->model;
    size_t width = m->hidden_size;
    for (uint32_t l = 0; l < m->n_layers; l++) {
        const float *x = CPU_BUFFER(c->e->backend, m->hidden[l]);
        float *out = c->options.hidden + l * c->total * width;
        for (uint32_t i = 0; i < batch->n_segments; i++) {
            const struct batch_segment *s = &batch->segments[i];
            size_t row = c->at[c->memory->owner[i]].first_id + c->at[c->memory->owner[i]].done;
            memcpy(out + row * width, x + s->first * width, s->count * width * sizeof *out);
        }
    }
}

static enum sluice_status run_tail(const struct call *c, struct batch *batch)
{
    struct sluice_engine *e = c->e;
    const struct model *m = &e->model;
    if (batch->n_outputs == 0) return SLUICE_OK;
    TRY(cpu_run(e->backend, batch, m->tail_node, (uint32_t)m->graph.nodes.n, c->err));
    const float *logits = CPU_BUFFER(e->backend, m->logits);
    const float *normed = CPU_BUFFER(e->backend, m->tail_normed);
    for (size_t i = 0; i < batch->n_outputs; i++) {
        if (c->memory->tail[i].logits)
            memcpy(c->memory->tail[i].logits, logits + i * m->vocab_size,
                   m->vocab_size * sizeof *logits);
        if (c->memory->tail[i].normed)
            memcpy(c->memory->tail[i].normed, normed + i * m->hidden_size,
                   m->hidden_size * sizeof *normed);
        e->stats.logit_rows += c->memory->tail[i].logits != NULL;
    }
    batch->n_outputs = 0;
    return SLUICE_OK;
}

/* The tail over the wanted rows of the batch, in groups that fit. */
static enum sluice_status run_tails(const struct call *c, struct batch *batch)
{
    struct sluice_engine *e = c->e;
    const struct model *m = &e->model;
    int32_t *rows = CPU_BUFFER(e->backend, m->output_rows);
    float *last =
        c->options.hidden ? c->options.hidden + m->n_layers * c->total * m->hidden_size : NULL;
    for (uint32_t i = 0; i < batch->n_segments; i++) {
        const struct sluice_segment *s = &c->segments[c->memory->owner[i]];
        for (uint32_t t = 0; t < batch->segments[i].count; t++) {
            size_t at = c->at[c->memory->owner[i]].done + t; /* among the segment's ids */
            bool wanted = at + s->n_logits >= s->n_ids;
            if (!wanted && !last) continue;
            size_t row = c->at[c->memory->owner[i]].first_row + (at + s->n_logits - s->n_ids);
            c->memory->tail[batch->n_outputs] = (struct tail_row){
                wanted && c->logits ? c->logits + row * m->vocab_size : NULL,
                last ? last + (c->at[c->memory->owner[i]].first_id + at) * m->hidden_size : NULL};
            rows[batch->n_outputs++] = (int32_t)(batch->segments[i].first + t);
            if (batch->n_outputs == e->max_outputs) TRY(run_tail(c, batch));
        }
    }
    return run_tail(c, batch);
}

static void commit(struct call *c, const struct batch *batch)
{
    for (uint32_t i = 0; i < batch->n_segments; i++) {
        const struct batch_segment *s = &batch->segments[i];
        sequence_commit(s->sequence, s->count);
        c->at[c->memory->owner[i]].done += s->count;
        c->total_done += s->count;
    }
    c->e->stats.evaluations++;
    c->e->stats.tokens += batch->n_tokens;
}

static enum sluice_status cancelled(const struct call *c)
{
    return err_set(c->err, SLUICE_E_CANCELLED, "cancelled after %zu of %zu tokens", c->total_done,
                   c->total);
}

/* A long batch takes long: its layers are asked between, too. */
static enum sluice_status run_body(const struct call *c, struct batch *batch)
{
    struct sluice_engine *e = c->e;
    if (batch->n_tokens > LEAST_BATCH) {
        batch->cancelled = c->options.cancelled;
        batch->user = c->options.user;
    }
    enum sluice_status status = cpu_run(e->backend, batch, 0, e->model.tail_node, c->err);
    batch->cancelled = NULL;
    return status == SLUICE_E_CANCELLED ? cancelled(c) : status;
}

static enum sluice_status run_call(struct call *c)
{
    while (c->total_done < c->total) {
        struct batch batch;
        TRY(next_piece(c, &batch));
        uint64_t start = clock_ns();
        prefetch_begin(c->e, &batch);
        TRY(run_body(c, &batch));
        if (c->options.hidden) copy_hidden(c, &batch);
        TRY(run_tails(c, &batch));
        prefetch_end(c->e, &batch, clock_ns() - start);
        commit(c, &batch);
        if (c->options.progress) c->options.progress(c->options.user, c->total_done, c->total);
        if (c->total_done < c->total && c->options.cancelled &&
            c->options.cancelled(c->options.user))
            return cancelled(c);
    }
    return SLUICE_OK;
}

/*
 * What mapped experts and dense weights are read from is still there. Single tokens ask the system
 * nothing.
 */
static enum sluice_status check_mapped(const struct call *c)
{
    const struct checkpoint *cp = &c->e->checkpoint;
    bool asks = c->e->plan.mapped && c->total > c->n_segments;
    for (size_t f = 0; asks && f < cp->n_files; f++) TRY(file_map_check(&cp->files[f], c->err));
    return SLUICE_OK;
}

/* Reading goes on from the file that was opened; whoever replaced it may expect something else. */
static void tell_of_replaced_file(struct sluice_engine *e)
{
    int32_t file = e->store ? store_reader_info(e->store)->nameless : -1;
    if (file < 0 || e->told_of_replaced_file) return;
    e->told_of_replaced_file = true;
    log_write(&e->log, SLUICE_LOG_WARNING,
              "'%s' was replaced or deleted; experts are read on from the file that was opened",
              e->checkpoint.files[file].path);
}

static enum sluice_status checked_call(struct call *c)
{
    TRY(check_call(c));
    TRY(prepare_call(c));
    TRY(check_mapped(c));
    return run_call(c);
}

static enum sluice_status locked_eval(struct call *c)
{
    struct sluice_engine *e = c->e;
    /* The lock is recursive: who holds it already is this thread. */
    if (e->running)
        return err_set(c->err, SLUICE_E_STATE,
                       "sluice_eval() was called out of a callback of sluice_eval() on the same "
                       "engine");
    if (e->options.plan_only)
        return err_set(c->err, SLUICE_E_STATE,
                       "the engine was opened with plan_only: it has read no weights");
    memory_settle(e);
    e->running = true;
    uint64_t start = clock_ns();
    enum sluice_status status = checked_call(c);
    e->stats.eval_ns += clock_ns() - start;
    e->stats.expert_uses = cpu_expert_uses(e->backend);
    tell_of_replaced_file(e);
    e->running = false;
    return status;
}

enum sluice_status sluice_eval(sluice_engine *engine, const struct sluice_segment *segments,
                               size_t n_segments, const struct sluice_eval_options *options,
                               float *logits, struct sluice_error *err)
{
    struct call c = {
        .e = engine, .segments = segments, .n_segments = n_segments, .logits = logits, .err = err};
    sluice_eval_options_default(&c.options);
    TRY(options_take(&c.options, sizeof c.options, options, "eval", err));
    if (!engine) return err_set(err, SLUICE_E_ARGUMENT, "no engine was given");
    if (n_segments == 0 || !segments)
        return err_set(err, SLUICE_E_ARGUMENT, "the call has no segments");
    pthread_mutex_lock(&engine->run_lock);
    enum sluice_status status = locked_eval(&c);
    pthread_mutex_unlock(&engine->run_lock);
    return status;
}
