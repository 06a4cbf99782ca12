#include "store/shard_headers.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/thread.h"

enum {
    MOST_THREADS = 4,
    SHARED_BYTES = 1 << 20 /* of headers, from which on several threads read them */
};

/* The header of one file, read by any thread. */
struct job {
    const struct file_map *file;
    struct safetensors_header header;
    enum sluice_status status;
    struct sluice_error err;
};

struct jobs {
    struct job *items;
    size_t n;
    struct arena arenas[MOST_THREADS]; /* of each thread */
    _Atomic size_t next;
    _Atomic bool failed;
};

/*
 * Weights, which follow headers, are not read now. What is in a header is not checked yet. Gives
 * the bytes of all headers.
 */
static uint64_t want_headers(const struct file_map *files, size_t n)
{
    enum { LENGTH = sizeof(uint64_t), MOST = 16 << 20 };
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        if (files[i].bytes >= LENGTH) file_want(files[i].data, LENGTH);
    for (size_t i = 0; i < n; i++) {
        const struct file_map *file = &files[i];
        if (file->bytes < LENGTH) continue;
        uint64_t rest = file->bytes - LENGTH, header = load_u64le(file->data);
        if (header > rest) continue;
        if (header <= MOST) file_want(file->data, LENGTH + header);
        bytes += header;
    }
    return bytes;
}

/* Files are taken in order, so that whatever fails, all those before it are read as well. */
static void read_headers(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct jobs *jobs = arg;
    (void)n_threads;
    while (!atomic_load(&jobs->failed)) {
        size_t i = atomic_fetch_add(&jobs->next, 1);
        if (i >= jobs->n) return;
        struct job *job = &jobs->items[i];
        const struct file_map *file = job->file;
        job->status = safetensors_parse(span_of(file->data, (size_t)file->bytes), file->bytes,
                                        file_base_name(file->path), &jobs->arenas[thread],
                                        &job->header, &job->err);
        if (job->status != SLUICE_OK) atomic_store(&jobs->failed, true);
    }
}

/* A few threads where that pays and the system has them. */
static void share_headers(struct jobs *jobs, uint64_t bytes)
{
    struct pool_options options = {.n_threads = min_u32(thread_cores(), MOST_THREADS)};
    struct pool *pool = NULL;
    if (jobs->n > 1 && options.n_threads > 1 && bytes >= SHARED_BYTES)
        (void)pool_open(&pool, &options, NULL);
    if (!pool) {
        read_headers(jobs, 0, 1);
        return;
    }
    pool_run(pool, read_headers, jobs, 1);
    pool_close(&pool);
}

/* Takes what was read, up to the first file that failed. */
static enum sluice_status take_headers(struct jobs *jobs, struct arena *arena,
                                       struct safetensors_header *out, struct sluice_error *err)
{
    for (size_t i = 0; i < jobs->n; i++) {
        struct job *job = &jobs->items[i];
        if (job->status != SLUICE_OK && err) *err = job->err;
        if (job->status != SLUICE_OK) return job->status;
        out[i] = job->header;
    }
    for (size_t i = 0; i < MOST_THREADS; i++) arena_join(arena, &jobs->arenas[i]);
    return SLUICE_OK;
}

enum sluice_status shard_headers_read(const struct file_map *files, size_t n, struct arena *arena,
                                      struct safetensors_header *out, struct sluice_error *err)
{
    struct jobs jobs = {.items = calloc(n + 1, sizeof *jobs.items), .n = n};
    if (!jobs.items) return err_nomem(err, "headers of weight files", n * sizeof *jobs.items);
    for (size_t i = 0; i < n; i++) jobs.items[i].file = &files[i];
    share_headers(&jobs, want_headers(files, n));
    enum sluice_status status = take_headers(&jobs, arena, out, err);
    for (size_t i = 0; i < MOST_THREADS; i++) arena_release(&jobs.arenas[i]);
    free(jobs.items);
    return status;
}
