/* Reads by a pool of threads that call pread: works everywhere, one system call a read. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "io/reader_driver.h"

struct job {
    uint32_t flight;
    int fd;
    uint8_t *into;
    size_t bytes;
    uint64_t offset;
};

/* Both rings have room for every flight, so neither can overflow. */
struct pread_pool {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_t *threads;
    uint32_t n_threads;
    uint32_t depth;
    struct job *jobs;
    uint32_t job_head, n_jobs;
    struct flight_result *results;
    uint32_t result_head, n_results;
    bool stop;
};

static void *worker(void *arg)
{
    struct pread_pool *p = arg;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->n_jobs == 0 && !p->stop) pthread_cond_wait(&p->work, &p->lock);
        if (p->n_jobs == 0) break;
        struct job job = p->jobs[p->job_head];
        p->job_head = (p->job_head + 1) % p->depth;
        p->n_jobs--;
        pthread_mutex_unlock(&p->lock);
        ssize_t n = pread(job.fd, job.into, job.bytes, (off_t)job.offset);
        int64_t result = n < 0 ? -(int64_t)errno : n;
        pthread_mutex_lock(&p->lock);
        p->results[(p->result_head + p->n_results++) % p->depth] =
            (struct flight_result){job.flight, result};
        pthread_cond_signal(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void pread_close(void *state)
{
    struct pread_pool *p = state;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (uint32_t i = 0; i < p->n_threads; i++) pthread_join(p->threads[i], NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->done);
    free(p->threads);
    free(p->jobs);
    free(p->results);
    free(p);
}

void *driver_pread_open(uint32_t workers, uint32_t depth, const char **why)
{
    *why = "out of memory";
    struct pread_pool *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->depth = depth;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    p->threads = calloc(workers, sizeof *p->threads);
    p->jobs = calloc(depth, sizeof *p->jobs);
    p->results = calloc(depth, sizeof *p->results);
    bool ok = p->threads && p->jobs && p->results;
    for (uint32_t i = 0; i < workers && ok; i++) {
        ok = pthread_create(&p->threads[i], NULL, worker, p) == 0;
        if (ok)
            p->n_threads++;
        else
            *why = "the system refuses more threads";
    }
    if (ok) return p;
    pread_close(p);
    return NULL;
}

static bool pread_start(void *state, uint32_t index, const struct flight *f)
{
    struct pread_pool *p = state;
    struct job job = {.flight = index,
                      .fd = f->fd,
                      .into = (uint8_t *)f->op.into + f->done,
                      .bytes = f->op.bytes - f->done,
                      .offset = f->op.offset + f->done};
    pthread_mutex_lock(&p->lock);
    p->jobs[(p->job_head + p->n_jobs++) % p->depth] = job;
    pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->lock);
    return true;
}

static void pread_flush(void *state)
{
    (void)state;
}

static size_t pread_reap(void *state, struct flight_result *out, size_t cap, bool wait)
{
    struct pread_pool *p = state;
    size_t n = 0;
    pthread_mutex_lock(&p->lock);
    while (wait && p->n_results == 0) pthread_cond_wait(&p->done, &p->lock);
    for (; n < cap && p->n_results; n++) {
        out[n] = p->results[p->result_head];
        p->result_head = (p->result_head + 1) % p->depth;
        p->n_results--;
    }
    pthread_mutex_unlock(&p->lock);
    return n;
}

const struct driver driver_pread = {
    .name = "pread",
    .start = pread_start,
    .flush = pread_flush,
    .reap = pread_reap,
    .close = pread_close,
};
