#include "store/resident.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/populate.h"

enum { PIECE_BYTES = 4 << 20, RESULTS = 32 };

/* One array of a matrix: where it is mapped, its size, and the pointer to move. */
struct array_ref {
    const uint8_t **pointer;
    uint64_t bytes;
};

static uint32_t list_arrays(struct wmat *w, struct array_ref out[3])
{
    struct wmat_bytes bytes = wmat_array_bytes(w);
    uint32_t n = 0;
    out[n++] = (struct array_ref){&w->data, bytes.data};
    if (bytes.scales) out[n++] = (struct array_ref){&w->scales, bytes.scales};
    if (bytes.biases) out[n++] = (struct array_ref){&w->biases, bytes.biases};
    return n;
}

/* Room for bytes that begin anywhere in a window that begins at a multiple of align. */
static size_t room_for(uint64_t bytes, uint32_t align)
{
    return align_up((size_t)bytes + align, max_size(align, MEM_ALIGN));
}

size_t resident_bytes(struct wmat *const *matrices, uint32_t n, uint32_t align)
{
    size_t total = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct array_ref arrays[3];
        uint32_t n_arrays = list_arrays(matrices[i], arrays);
        for (uint32_t a = 0; a < n_arrays; a++) total += room_for(arrays[a].bytes, align);
    }
    return total;
}

/* One array to be read: where it lies, and the slab's window for it. */
struct job {
    uint32_t matrix, file;
    uint64_t offset, bytes;
    uint64_t left;   /* of them, not read yet; guarded by the load's lock */
    uint8_t *window; /* for the file from the last multiple of align before offset on */
};

struct resident_load {
    const struct file_map *files;
    uint32_t n_files;
    struct reader *reader;
    struct populate *populate;
    struct job *jobs;
    size_t n_jobs;
    uint32_t n_matrices;
    uint64_t total; /* bytes of arrays */
    pthread_t thread;
    bool started;
    _Atomic bool stop;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    uint64_t done, told; /* of total; what resident_next() has given */
    size_t n_read;       /* jobs, the first ones, that are done */
    bool over;
    /* The thread's, until it is joined. */
    const uint8_t *failed;
    enum sluice_status status;
    struct sluice_error err;
};

static uint64_t end_of(const struct job *job)
{
    return job->offset + job->bytes;
}

/* Bytes of the array in the piece of its window that begins at offset. */
static uint64_t bytes_of_piece(const struct job *job, uint64_t offset)
{
    uint64_t end = end_of(job) - offset < PIECE_BYTES ? end_of(job) : offset + PIECE_BYTES;
    return end - (offset < job->offset ? job->offset : offset);
}

static void count(struct resident_load *l, struct job *job, uint64_t bytes)
{
    pthread_mutex_lock(&l->lock);
    l->done += bytes;
    job->left -= bytes;
    while (l->n_read < l->n_jobs && l->jobs[l->n_read].left == 0) l->n_read++;
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

/* The tag of a read is the number of its job. */
static enum sluice_status take_one(struct resident_load *l)
{
    struct read_result r;
    if (reader_poll(l->reader, &r, 1, true) == 0) return SLUICE_OK;
    struct job *job = &l->jobs[r.tag];
    if (r.error == 0) {
        count(l, job, bytes_of_piece(job, r.offset));
        return SLUICE_OK;
    }
    l->failed = l->files[job->file].data + end_of(job) - 1;
    return err_set(&l->err, SLUICE_E_IO, "reading file '%s' at offset %llu: %s",
                   l->files[r.file].path, (unsigned long long)r.offset, reader_error_text(r.error));
}

static enum sluice_status load_array(struct resident_load *l, size_t index)
{
    const struct job *job = &l->jobs[index];
    uint32_t align = reader_alignment(l->reader, job->file);
    uint64_t begin = job->offset / align * align;
    for (uint64_t at = begin; at < end_of(job) && !atomic_load(&l->stop); at += PIECE_BYTES) {
        uint64_t need = end_of(job) - at < PIECE_BYTES ? end_of(job) - at : PIECE_BYTES;
        struct read_op op = {.file = job->file,
                             .offset = at,
                             .bytes = (uint32_t)align_up((size_t)need, align),
                             .need = (uint32_t)need,
                             .into = job->window + (at - begin),
                             .tag = index};
        populate_avoid(l->populate, op.into, op.bytes);
        TRY(reader_submit(l->reader, &op, &l->err));
        while (reader_pending(l->reader) > 2 * (size_t)RESULTS) TRY(take_one(l));
    }
    return SLUICE_OK;
}

static enum sluice_status load_all(struct resident_load *l)
{
    for (size_t i = 0; i < l->n_jobs && !atomic_load(&l->stop); i++) TRY(load_array(l, i));
    while (reader_pending(l->reader) && !atomic_load(&l->stop)) TRY(take_one(l));
    return SLUICE_OK;
}

static void *load_thread(void *arg)
{
    struct resident_load *l = arg;
    l->status = load_all(l);
    pthread_mutex_lock(&l->lock);
    l->over = true;
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static bool find_file(const struct resident_load *l, const struct array_ref *a, struct job *job)
{
    for (uint32_t f = 0; f < l->n_files; f++) {
        uintptr_t base = (uintptr_t)l->files[f].data, at = (uintptr_t)*a->pointer;
        if (at < base || at - base > l->files[f].bytes) continue;
        if (a->bytes > l->files[f].bytes - (at - base)) continue;
        job->file = f;
        job->offset = at - base;
        job->bytes = a->bytes;
        return true;
    }
    return false;
}

/* What is to be read to where; the pointers move at once. */
static enum sluice_status list_jobs(struct resident_load *l, struct wmat *const *matrices,
                                    uint32_t n, uint8_t *slab, uint32_t align,
                                    struct sluice_error *err)
{
    l->jobs = calloc(3 * (size_t)n + 1, sizeof *l->jobs);
    if (!l->jobs) return err_nomem(err, "dense weights", 3 * (size_t)n * sizeof *l->jobs);
    l->n_matrices = n;
    for (uint32_t i = 0; i < n; i++) {
        struct array_ref arrays[3];
        uint32_t n_arrays = list_arrays(matrices[i], arrays);
        for (uint32_t a = 0; a < n_arrays; a++) {
            struct job *job = &l->jobs[l->n_jobs++];
            if (!find_file(l, &arrays[a], job))
                return err_set(err, SLUICE_E_INTERNAL, "a dense weight lies in no file");
            job->matrix = i;
            job->left = job->bytes;
            job->window = slab;
            *arrays[a].pointer = slab + job->offset % reader_alignment(l->reader, job->file);
            l->total += job->bytes;
            slab += room_for(job->bytes, align);
        }
    }
    return SLUICE_OK;
}

/* Memory for the slab, which others begin to take while the first reads are on their way. */
static enum sluice_status make_slab(struct resident *resident, size_t bytes,
                                    const struct resident_options *o, struct populate **populate,
                                    struct sluice_error *err)
{
    if (!mem_reserve(bytes, &resident->slab)) return err_nomem(err, "dense weights", bytes);
    resident->slab_bytes = bytes;
    (void)madvise(resident->slab, bytes, MADV_HUGEPAGE);
    mem_spread(resident->slab, bytes, o->reader.memory_nodes);
    struct mem_range slab = {resident->slab, bytes};
    *populate = populate_start(&slab, 1, bytes ? o->n_populaters : 0, 0);
    return SLUICE_OK;
}

static enum sluice_status begin(struct resident *resident, struct resident_load *l,
                                struct wmat *const *matrices, uint32_t n,
                                const struct resident_options *options, struct sluice_error *err)
{
    uint32_t align = MEM_ALIGN;
    for (uint32_t f = 0; f < l->n_files; f++)
        align = max_u32(align, reader_alignment(l->reader, f));
    size_t bytes = resident_bytes(matrices, n, align);
    TRY(make_slab(resident, bytes, options, &l->populate, err));
    TRY(list_jobs(l, matrices, n, resident->slab, align, err));
    int error = pthread_create(&l->thread, NULL, load_thread, l);
    l->started = error == 0;
    if (l->started) return SLUICE_OK;
    return err_set(err, SLUICE_E_SYSTEM, "starting a thread that reads dense weights: %s",
                   strerror(error));
}

enum sluice_status resident_begin(struct resident *resident, struct resident_load **load,
                                  const struct file_map *files, uint32_t n_files,
                                  struct wmat *const *matrices, uint32_t n,
                                  const struct resident_options *options, struct sluice_error *err)
{
    struct reader *reader;
    *resident = (struct resident){0};
    *load = NULL;
    TRY(reader_open_mapped(&reader, files, n_files, &options->reader, err));
    struct resident_load *l = *load = calloc(1, sizeof *l);
    if (!l) {
        reader_close(&reader);
        return err_nomem(err, "dense weights", sizeof *l);
    }
    l->files = files;
    l->n_files = n_files;
    l->reader = reader;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    enum sluice_status status = begin(resident, l, matrices, n, options, err);
    if (status == SLUICE_OK) return SLUICE_OK;
    resident_abandon(load);
    resident_release(resident);
    return status;
}

bool resident_next(struct resident_load *l, struct resident_progress *progress)
{
    pthread_mutex_lock(&l->lock);
    while (l->done == l->told && !l->over) pthread_cond_wait(&l->changed, &l->lock);
    bool more = l->done != l->told;
    l->told = l->done;
    *progress = (struct resident_progress){
        .done = l->done,
        .total = l->total,
        .n_read = l->n_read < l->n_jobs ? l->jobs[l->n_read].matrix : l->n_matrices,
        .has_memory = !populate_runs(l->populate)};
    pthread_mutex_unlock(&l->lock);
    return more;
}

void resident_abandon(struct resident_load **load)
{
    struct resident_load *l = *load;
    if (!l) return;
    *load = NULL;
    atomic_store(&l->stop, true);
    if (l->started) pthread_join(l->thread, NULL);
    populate_stop(&l->populate);
    reader_close(&l->reader);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    free(l->jobs);
    free(l);
}

enum sluice_status resident_end(struct resident *resident, struct resident_load **load,
                                const uint8_t **failed, struct sluice_error *err)
{
    struct resident_load *l = *load;
    pthread_join(l->thread, NULL);
    l->started = false;
    enum sluice_status status = l->status;
    if (failed) *failed = l->failed;
    if (status != SLUICE_OK && err) *err = l->err;
    resident_abandon(load);
    if (status != SLUICE_OK) resident_release(resident);
    return status;
}

uint64_t resident_held(const struct resident *resident)
{
    return mem_held(resident->slab, resident->slab_bytes);
}

void resident_release(struct resident *resident)
{
    mem_unreserve(resident->slab, resident->slab_bytes);
    *resident = (struct resident){0};
}
