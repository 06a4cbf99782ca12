#include "bench_drive.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "report.h"

enum { BLOCK = 4096, MOST_DEPTH = 64 };

#define FASTEST 16e9 /* bytes a second; no drive is read faster */

#define MOST_MEMORY ((size_t)256 << 20)

const uint32_t drive_depths[DRIVE_DEPTHS] = {1, 4, 16, MOST_DEPTH};

/* Files */

static bool is_known(const struct drive_probe *probe, const char *path)
{
    for (size_t i = 0; i < probe->n_files; i++)
        if (strcmp(probe->files[i].path, path) == 0) return true;
    return false;
}

static int open_direct(const char *path, bool *direct)
{
    int fd = *direct ? open(path, O_RDONLY | O_CLOEXEC | O_DIRECT) : -1;
    if (fd >= 0) return fd;
    *direct = false;
    return open(path, O_RDONLY | O_CLOEXEC);
}

static enum sluice_status add_file(struct drive_probe *probe, const char *path,
                                   struct sluice_error *err)
{
    struct drive_file *grown = realloc(probe->files, (probe->n_files + 1) * sizeof *grown);
    if (!grown) return fail_nomem(err, path);
    probe->files = grown;
    struct drive_file *file = &grown[probe->n_files];
    *file = (struct drive_file){.path = strdup(path), .fd = open_direct(path, &probe->direct)};
    probe->n_files++;
    struct stat info;
    if (!file->path) return fail_nomem(err, path);
    if (file->fd < 0 || fstat(file->fd, &info) != 0)
        return fail(err, errno == ENOENT ? SLUICE_E_NOT_FOUND : SLUICE_E_IO, "%s: %s", path,
                    strerror(errno));
    /* Whole pieces, and the tail of a file is no multiple of a block. */
    uint64_t bytes = (uint64_t)info.st_size;
    if (bytes > probe->piece) file->blocks = (bytes - probe->piece) / BLOCK;
    probe->n_blocks += file->blocks;
    return SLUICE_OK;
}

static enum sluice_status add_files(struct drive_probe *probe, const sluice_engine *engine,
                                    const char *folder, struct sluice_error *err)
{
    for (size_t i = 0; i < sluice_engine_tensor_count(engine); i++) {
        struct sluice_tensor_info tensor = {.size = sizeof tensor};
        sluice_engine_get_tensor(engine, i, &tensor);
        if (strcmp(tensor.kind, "expert") != 0) continue;
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, tensor.file);
        if (!is_known(probe, path)) TRY(add_file(probe, path, err));
    }
    if (probe->n_blocks) return SLUICE_OK;
    return fail(err, SLUICE_E_ARGUMENT, "%s: no file with experts is large enough to measure with",
                folder);
}

static bool uring_works(void)
{
    struct io_uring ring;
    if (io_uring_queue_init(MOST_DEPTH, &ring, 0) != 0) return false;
    io_uring_queue_exit(&ring);
    return true;
}

enum sluice_status drive_open(struct drive_probe *probe, const sluice_engine *engine,
                              struct sluice_error *err)
{
    struct sluice_engine_info info = {.size = sizeof info};
    sluice_engine_get_info(engine, &info);
    *probe = (struct drive_probe){.direct = true, .uring = uring_works(), .random = clock_ns() | 1};
    probe->piece = (size_t)(info.bytes_per_expert + BLOCK - 1) / BLOCK * BLOCK;
    size_t fit = MOST_MEMORY / (probe->piece ? probe->piece : BLOCK);
    probe->most_depth = fit < 1 ? 1 : fit < MOST_DEPTH ? (uint32_t)fit : MOST_DEPTH;
    enum sluice_status status = add_files(probe, engine, info.path, err);
    probe->memory_bytes = probe->piece * (fit < 1 ? 1 : fit);
    if (status == SLUICE_OK) {
        void *memory = mmap(NULL, probe->memory_bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) status = fail_nomem(err, "the memory to read into");
        if (memory != MAP_FAILED) probe->memory = memory;
    }
    if (status == SLUICE_OK) {
        (void)madvise(probe->memory, probe->memory_bytes, MADV_HUGEPAGE);
    } else {
        drive_close(probe);
    }
    return status;
}

void drive_close(struct drive_probe *probe)
{
    for (size_t i = 0; i < probe->n_files; i++) {
        if (probe->files[i].fd >= 0) close(probe->files[i].fd);
        free(probe->files[i].path);
    }
    free(probe->files);
    if (probe->memory) munmap(probe->memory, probe->memory_bytes);
    *probe = (struct drive_probe){0};
}

/* Reading */

struct place {
    const struct drive_file *file;
    off_t offset;
};

/* The xorshift64* generator of Vigna (2016). */
static uint64_t next_random(struct drive_probe *probe)
{
    uint64_t x = probe->random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    probe->random = x;
    return x * 0x2545f4914f6cdd1du;
}

static struct place next_place(struct drive_probe *probe)
{
    uint64_t block = (next_random(probe) >> 8) % probe->n_blocks;
    const struct drive_file *file = probe->files;
    while (block >= file->blocks) block -= (file++)->blocks;
    return (struct place){file, (off_t)(block * BLOCK)};
}

static enum sluice_status read_failed(const struct place *place, ssize_t result,
                                      struct sluice_error *err)
{
    return fail(err, SLUICE_E_IO, "%s: at %lld: %s", place->file->path, (long long)place->offset,
                result < 0 ? strerror((int)-result) : "a short read");
}

/*
 * One measurement. Each read in flight goes from buffer to buffer: memory that stays in the caches
 * takes data faster than slots for experts ever can.
 */
struct reading {
    struct drive_probe *probe;
    uint32_t depth;
    size_t memory_bytes;                 /* in use */
    uint32_t turns[MOST_DEPTH];          /* of the reads in flight: so many have been before it */
    uint64_t began_at, ends_at, last_at; /* ns */
    uint64_t bytes;
    struct place places[MOST_DEPTH]; /* of the reads in flight */
};

/* Where the next read of this one of those in flight goes. */
static unsigned char *next_buffer(struct reading *r, uint32_t slot)
{
    const struct drive_probe *probe = r->probe;
    size_t each = r->memory_bytes / probe->piece / r->depth;
    return probe->memory + (slot + r->turns[slot]++ % each * r->depth) * probe->piece;
}

static void submit(struct reading *r, struct io_uring *ring, uint32_t slot)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    struct place place = r->places[slot] = next_place(r->probe);
    size_t piece = r->probe->piece;
    io_uring_prep_read(sqe, place.file->fd, next_buffer(r, slot), (unsigned)piece,
                       (uint64_t)place.offset);
    io_uring_sqe_set_data64(sqe, slot);
}

static enum sluice_status read_by_ring(struct reading *r, struct sluice_error *err)
{
    struct io_uring ring;
    uint32_t depth = r->depth;
    int result = io_uring_queue_init(depth, &ring, 0);
    if (result != 0) return fail(err, SLUICE_E_SYSTEM, "io_uring: %s", strerror(-result));
    uint32_t in_flight = depth;
    enum sluice_status status = SLUICE_OK;
    for (uint32_t slot = 0; slot < depth; slot++) submit(r, &ring, slot);
    while (in_flight) {
        struct io_uring_cqe *cqe;
        result = io_uring_submit_and_wait(&ring, 1);
        if (result < 0 && result != -EINTR && result != -EAGAIN) {
            status = fail(err, SLUICE_E_SYSTEM, "io_uring: %s", strerror(-result));
            break;
        }
        while (io_uring_peek_cqe(&ring, &cqe) == 0) {
            uint32_t slot = (uint32_t)io_uring_cqe_get_data64(cqe);
            ssize_t n = cqe->res;
            io_uring_cqe_seen(&ring, cqe);
            in_flight--;
            r->last_at = clock_ns();
            if (n == (ssize_t)r->probe->piece) {
                r->bytes += r->probe->piece;
            } else if (n != -EINTR && n != -EAGAIN && status == SLUICE_OK) {
                status = read_failed(&r->places[slot], n, err);
            }
            if (status != SLUICE_OK || r->last_at >= r->ends_at) continue;
            submit(r, &ring, slot);
            in_flight++;
        }
    }
    io_uring_queue_exit(&ring);
    return status;
}

struct read_thread {
    pthread_t thread;
    struct reading *reading;
    pthread_mutex_t *lock; /* guards the reading */
    uint32_t slot;
    enum sluice_status status;
    struct sluice_error error;
};

static void *read_pieces(void *user)
{
    struct read_thread *t = user;
    struct reading *r = t->reading;
    size_t piece = r->probe->piece;
    while (t->status == SLUICE_OK && clock_ns() < r->ends_at) {
        pthread_mutex_lock(t->lock);
        struct place place = next_place(r->probe);
        pthread_mutex_unlock(t->lock);
        ssize_t n = pread(place.file->fd, next_buffer(r, t->slot), piece, place.offset);
        if (n < 0 && errno == EINTR) continue;
        if (n != (ssize_t)piece) t->status = read_failed(&place, n < 0 ? -errno : n, &t->error);
        pthread_mutex_lock(t->lock);
        r->bytes += n == (ssize_t)piece ? piece : 0;
        r->last_at = clock_ns();
        pthread_mutex_unlock(t->lock);
    }
    return NULL;
}

static enum sluice_status read_by_threads(struct reading *r, struct sluice_error *err)
{
    struct read_thread threads[MOST_DEPTH];
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    enum sluice_status status = SLUICE_OK;
    uint32_t started = 0;
    for (; started < r->depth; started++) {
        struct read_thread *t = &threads[started];
        *t = (struct read_thread){.reading = r, .lock = &lock, .slot = started};
        if (pthread_create(&t->thread, NULL, read_pieces, t) != 0) break;
    }
    if (started < r->depth)
        status = fail(err, SLUICE_E_SYSTEM, "%u threads cannot be started", r->depth);
    for (uint32_t i = 0; i < started; i++) {
        pthread_join(threads[i].thread, NULL);
        if (threads[i].status == SLUICE_OK || status != SLUICE_OK) continue;
        status = threads[i].status;
        *err = threads[i].error;
    }
    return status;
}

/* What can be read in that time needs no more memory, but a buffer for each read in flight. */
static size_t memory_for(const struct drive_probe *probe, uint32_t depth, double seconds)
{
    size_t least = depth * probe->piece;
    double most = (double)(probe->memory_bytes - least);
    return least + (size_t)(seconds * FASTEST < most ? seconds * FASTEST : most);
}

enum sluice_status drive_measure(struct drive_probe *probe, uint32_t depth, double seconds,
                                 double *rate, struct sluice_error *err)
{
    *rate = 0;
    if (depth > probe->most_depth) depth = probe->most_depth;
    /* Pages that someone cached would be no reads. */
    for (size_t i = 0; i < probe->n_files && !probe->direct; i++)
        (void)posix_fadvise(probe->files[i].fd, 0, 0, POSIX_FADV_DONTNEED);
    struct reading r = {
        .probe = probe, .depth = depth, .memory_bytes = memory_for(probe, depth, seconds)};
    memset(probe->memory, 0, r.memory_bytes);
    r.began_at = clock_ns();
    r.ends_at = r.began_at + (uint64_t)(seconds * 1e9);
    enum sluice_status status = probe->uring ? read_by_ring(&r, err) : read_by_threads(&r, err);
    /* An engine that opens next counts what the program holds as used. */
    (void)madvise(probe->memory, probe->memory_bytes, MADV_DONTNEED);
    if (status != SLUICE_OK) return status;
    if (r.last_at > r.began_at) *rate = (double)r.bytes * 1e9 / (double)(r.last_at - r.began_at);
    return SLUICE_OK;
}
