#include "bench_passes.h"

#include <pthread.h>
#include <stdlib.h>

#include "clock.h"
#include "report.h"

/* Threads wait for go, which says whether all of them could be started. */
struct passes {
    pthread_mutex_t gate; /* held until then */
    bool go;
    pthread_barrier_t barrier;
    pass_fn *pass;
    void *user;
};

struct worker {
    pthread_t thread;
    struct passes *passes;
    uint32_t index;
};

static void *work(void *user)
{
    const struct worker *w = user;
    struct passes *p = w->passes;
    pthread_mutex_lock(&p->gate);
    bool go = p->go;
    pthread_mutex_unlock(&p->gate);
    for (int pass = 0; go && pass <= PASSES; pass++) {
        pthread_barrier_wait(&p->barrier);
        if (pass < PASSES) p->pass(p->user, w->index);
    }
    return NULL;
}

static void time_passes(struct passes *p, double ns[PASSES])
{
    uint64_t began = 0;
    for (int pass = 0; pass <= PASSES; pass++) {
        pthread_barrier_wait(&p->barrier);
        uint64_t now = clock_ns();
        if (pass) ns[pass - 1] = (double)(now - began);
        began = now;
        if (pass < PASSES) p->pass(p->user, 0);
    }
}

enum sluice_status passes_time(uint32_t n_threads, pass_fn *pass, void *user, double ns[PASSES],
                               struct sluice_error *err)
{
    struct worker *workers = calloc(n_threads, sizeof *workers);
    if (!workers) return fail_nomem(err, "threads that measure");
    struct passes p = {.gate = PTHREAD_MUTEX_INITIALIZER, .pass = pass, .user = user};
    pthread_barrier_init(&p.barrier, NULL, n_threads);
    uint32_t started = 1;
    pthread_mutex_lock(&p.gate);
    for (; started < n_threads; started++) {
        workers[started] = (struct worker){.passes = &p, .index = started};
        if (pthread_create(&workers[started].thread, NULL, work, &workers[started]) != 0) break;
    }
    p.go = started == n_threads;
    pthread_mutex_unlock(&p.gate);
    if (p.go) time_passes(&p, ns);
    for (uint32_t i = 1; i < started; i++) pthread_join(workers[i].thread, NULL);
    pthread_barrier_destroy(&p.barrier);
    free(workers);
    if (started < n_threads)
        return fail(err, SLUICE_E_SYSTEM, "%u threads cannot be started", n_threads);
    return SLUICE_OK;
}
