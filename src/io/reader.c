#include "io/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "io/reader_driver.h"

enum {
    DEFAULT_DEPTH = 32,
    DEFAULT_WORKERS = 8,
    MAX_TRIES = 64,
    FALLBACK_ALIGN = 4096,
    NO_FLIGHT = -1,
};

struct reader_file {
    int fd;
    uint32_t align;
    uint64_t bytes;
};

/* A ring of waiting reads. */
struct queue {
    struct read_op *ops;
    size_t head, n, cap;
};

struct reader {
    const struct driver *driver;
    void *state;
    struct reader_file *files;
    uint32_t n_files;
    struct flight *flights;
    uint32_t free_flight; /* list through next_free */
    uint32_t n_flights;   /* in the air */
    struct queue demand, prefetch;
    uint64_t bytes;
    struct reader_info info;
};

/* Opening */

/* Linux 6.1 says what O_DIRECT needs; before, a page is safe on every file system of note. */
static uint32_t direct_alignment(const char *path)
{
#ifdef STATX_DIOALIGN
    struct statx stx;
    if (statx(AT_FDCWD, path, 0, STATX_DIOALIGN, &stx) == 0 && stx.stx_mask & STATX_DIOALIGN) {
        uint32_t align = max_u32(stx.stx_dio_mem_align, stx.stx_dio_offset_align);
        if (align) return align;
    }
#else
    (void)path;
#endif
    return FALLBACK_ALIGN;
}

static enum sluice_status open_file(struct reader_file *f, const char *path, bool buffered,
                                    struct sluice_error *err)
{
    f->fd = -1;
    if (!buffered) f->fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    f->align = f->fd >= 0 ? direct_alignment(path) : 1;
    if (f->fd < 0) f->fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (f->fd < 0 || fstat(f->fd, &st) != 0)
        return err_set(err, errno == ENOENT ? SLUICE_E_NOT_FOUND : SLUICE_E_IO, "file '%s': %s",
                       path, strerror(errno));
    f->bytes = (uint64_t)st.st_size;
    return SLUICE_OK;
}

static enum sluice_status open_files(struct reader *r, const char *const *paths, uint32_t n,
                                     const struct reader_options *o, struct sluice_error *err)
{
    r->files = calloc(n + 1, sizeof *r->files);
    if (!r->files) return err_nomem(err, "reader", n * sizeof *r->files);
    r->info.direct = true;
    for (; r->n_files < n; r->n_files++) {
        TRY(open_file(&r->files[r->n_files], paths[r->n_files], o->buffered, err));
        if (r->files[r->n_files].align == 1) r->info.direct = false;
    }
    return SLUICE_OK;
}

static enum sluice_status alloc_flights(struct reader *r, struct sluice_error *err)
{
    uint32_t depth = r->info.depth;
    r->flights = calloc(depth, sizeof *r->flights);
    if (!r->flights) return err_nomem(err, "reader", depth * sizeof *r->flights);
    for (uint32_t i = 0; i < depth; i++) r->flights[i].next_free = i + 1;
    r->flights[depth - 1].next_free = (uint32_t)NO_FLIGHT;
    return SLUICE_OK;
}

static enum sluice_status choose_driver(struct reader *r, const struct reader_options *o,
                                        struct sluice_error *err)
{
    const char *why = "";
    r->info.reason = "";
    if (o->kind != READER_PREAD) {
        r->driver = &driver_uring;
        r->state = driver_uring_open(r->info.depth, &why);
        if (r->state) return SLUICE_OK;
        if (o->kind == READER_URING)
            return err_set(err, SLUICE_E_SYSTEM, "io_uring was asked for, but %s", why);
        r->info.reason = why;
    }
    r->driver = &driver_pread;
    r->state = driver_pread_open(o->workers ? o->workers : DEFAULT_WORKERS, r->info.depth, &why);
    if (r->state) return SLUICE_OK;
    return err_set(err, SLUICE_E_SYSTEM, "starting read threads: %s", why);
}

static void describe(struct reader *r, const struct reader_options *o)
{
    r->info.engine = r->driver->name;
    if (!r->info.direct && !r->info.reason[0])
        r->info.reason =
            o->buffered ? "buffered reads were asked for" : "the file system refuses O_DIRECT";
    int *fds = calloc(r->n_files + 1, sizeof *fds);
    for (uint32_t i = 0; fds && i < r->n_files; i++) fds[i] = r->files[i].fd;
    r->info.registered_files =
        fds && r->driver->register_files && r->driver->register_files(r->state, fds, r->n_files);
    free(fds);
}

enum sluice_status reader_open_driver(struct reader **out, const char *const *paths,
                                      uint32_t n_paths, const struct reader_options *options,
                                      const struct driver *driver, void *state,
                                      struct sluice_error *err)
{
    *out = NULL;
    struct reader *r = calloc(1, sizeof *r);
    if (!r) return err_nomem(err, "reader", sizeof *r);
    r->driver = driver;
    r->state = state;
    r->info.reason = "";
    r->info.depth = options->depth ? options->depth : DEFAULT_DEPTH;
    enum sluice_status status = open_files(r, paths, n_paths, options, err);
    if (status == SLUICE_OK) status = alloc_flights(r, err);
    if (status == SLUICE_OK && !driver) status = choose_driver(r, options, err);
    if (status == SLUICE_OK)
        describe(r, options);
    else
        reader_close(&r);
    *out = r;
    return status;
}

enum sluice_status reader_open(struct reader **out, const char *const *paths, uint32_t n_paths,
                               const struct reader_options *options, struct sluice_error *err)
{
    return reader_open_driver(out, paths, n_paths, options, NULL, NULL, err);
}

void reader_close(struct reader **out)
{
    struct reader *r = *out;
    if (!r) return;
    *out = NULL;
    struct read_result result;
    r->demand.n = r->prefetch.n = 0;
    while (r->state && r->flights && r->n_flights) (void)reader_poll(r, &result, 1, true);
    if (r->state) r->driver->close(r->state);
    for (uint32_t i = 0; r->files && i < r->n_files; i++) close(r->files[i].fd);
    free(r->files);
    free(r->flights);
    free(r->demand.ops);
    free(r->prefetch.ops);
    free(r);
}

uint32_t reader_alignment(const struct reader *r, uint32_t file)
{
    return r->files[file].align;
}

uint64_t reader_file_bytes(const struct reader *r, uint32_t file)
{
    return r->files[file].bytes;
}

const struct reader_info *reader_get_info(const struct reader *r)
{
    return &r->info;
}

void reader_register_buffer(struct reader *r, void *base, size_t bytes)
{
    r->info.registered_buffers =
        r->driver->register_buffer && r->driver->register_buffer(r->state, base, bytes);
}

/* Queues */

static bool queue_push(struct queue *q, const struct read_op *op)
{
    if (q->n == q->cap) {
        size_t cap = q->cap ? 2 * q->cap : 64;
        struct read_op *ops = calloc(cap, sizeof *ops);
        if (!ops) return false;
        for (size_t i = 0; i < q->n; i++) ops[i] = q->ops[(q->head + i) % q->cap];
        free(q->ops);
        *q = (struct queue){.ops = ops, .n = q->n, .cap = cap};
    }
    q->ops[(q->head + q->n++) % q->cap] = *op;
    return true;
}

static void queue_pop(struct queue *q)
{
    q->head = (q->head + 1) % q->cap;
    q->n--;
}

/* Starts waiting reads, demand first, until the depth is reached. */
static void start_waiting(struct reader *r)
{
    bool any = false;
    while (r->free_flight != (uint32_t)NO_FLIGHT) {
        struct queue *q = r->demand.n ? &r->demand : &r->prefetch;
        if (q->n == 0) break;
        uint32_t i = r->free_flight;
        struct flight *f = &r->flights[i];
        uint32_t next = f->next_free;
        f->op = q->ops[q->head];
        f->done = f->tries = 0;
        f->fd = r->files[f->op.file].fd;
        if (!r->driver->start(r->state, i, f)) break;
        r->free_flight = next;
        r->n_flights++;
        queue_pop(q);
        any = true;
    }
    if (any) r->driver->flush(r->state);
}

enum sluice_status reader_submit(struct reader *r, const struct read_op *op,
                                 struct sluice_error *err)
{
    struct queue *q = op->prefetch ? &r->prefetch : &r->demand;
    if (!queue_push(q, op)) return err_nomem(err, "read queue", q->cap * sizeof *q->ops);
    start_waiting(r);
    return SLUICE_OK;
}

size_t reader_pending(const struct reader *r)
{
    return r->demand.n + r->prefetch.n + r->n_flights;
}

uint64_t reader_bytes(const struct reader *r)
{
    return r->bytes;
}

/* Completions */

static bool is_transient(int64_t n)
{
    return n == -EINTR || n == -EAGAIN;
}

/*
 * Takes in what one try brought. True: the flight is over, with *error set. A short read goes on
 * where it stopped, at the last aligned byte so that O_DIRECT accepts it.
 */
static bool advance(const struct reader *r, struct flight *f, int64_t n, int *error)
{
    *error = 0;
    if (n < 0 && !(is_transient(n) && f->tries < MAX_TRIES)) {
        *error = (int)-n;
        return true;
    }
    if (n > 0) f->done += (uint32_t)n;
    if (f->done >= f->op.need) return true;
    if (n == 0) {
        *error = READER_EOF;
        return true;
    }
    if (n > 0) f->done -= f->done % r->files[f->op.file].align;
    if (n > 0 && f->tries >= MAX_TRIES) *error = EIO;
    f->tries++;
    return *error != 0;
}

static struct read_result land(struct reader *r, uint32_t index, int error)
{
    struct flight *f = &r->flights[index];
    f->next_free = r->free_flight;
    r->free_flight = index;
    r->n_flights--;
    if (!error) r->bytes += f->done;
    return (struct read_result){
        .tag = f->op.tag, .file = f->op.file, .offset = f->op.offset, .error = error};
}

/* One round of reaping; gives the number of finished reads written to results. */
static size_t reap(struct reader *r, struct read_result *results, size_t cap, bool wait)
{
    struct flight_result raw[32];
    size_t n = r->driver->reap(r->state, raw, min_size(cap, COUNT_OF(raw)), wait);
    size_t out = 0;
    bool restarted = false;
    for (size_t i = 0; i < n; i++) {
        struct flight *f = &r->flights[raw[i].flight];
        int error;
        bool over = advance(r, f, raw[i].n, &error);
        if (!over && r->driver->start(r->state, raw[i].flight, f)) {
            restarted = true;
            continue;
        }
        results[out++] = land(r, raw[i].flight, over ? error : EIO);
    }
    if (restarted) r->driver->flush(r->state);
    return out;
}

size_t reader_poll(struct reader *r, struct read_result *results, size_t cap, bool wait)
{
    size_t out = 0;
    while (r->n_flights && out == 0) {
        out = reap(r, results, cap, wait);
        start_waiting(r);
        if (!wait) break;
    }
    return out;
}
