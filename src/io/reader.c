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
    DEFAULT_FLYING = 8 << 20,
    LEAST_FLIGHTS = 2,
    DEFAULT_WORKERS = 8,
    MAX_TRIES = 64,
    FALLBACK_ALIGN = 4096,
    NO_FLIGHT = -1,
    PREFETCH_SHARE = 8, /* prefetch has one in so many of the reads in flight */
};

struct reader_file {
    int fd;
    bool direct;
    uint32_t align;
    struct file_version version; /* when it was opened */
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
    uint32_t free_flight, stalled; /* lists through next; stalled: to be continued */
    uint32_t n_flights, n_stalled; /* with the driver; not taken by it yet */
    uint32_t n_demand, n_prefetch; /* of both, by what they were submitted as */
    struct queue demand, prefetch;
    uint64_t flying, most_flying; /* bytes of started reads; bound on them */
    uint64_t bytes;
    struct reader_info info;
};

/* Opening */

/*
 * Linux 6.1 says what O_DIRECT needs, 0 where it is not supported; before, a page is safe on every
 * file system of note.
 */
static uint32_t direct_alignment(int fd)
{
#ifdef STATX_DIOALIGN
    struct statx stx;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 && stx.stx_mask & STATX_DIOALIGN)
        return max_u32(stx.stx_dio_mem_align, stx.stx_dio_offset_align);
#else
    (void)fd;
#endif
    return FALLBACK_ALIGN;
}

/* Some file systems take O_DIRECT when a file is opened and refuse every read of it. */
static bool reads_direct(int fd, uint32_t align)
{
    void *block;
    if (posix_memalign(&block, max_u32(align, sizeof(void *)), align) != 0) return true;
    bool refused = pread(fd, block, align, 0) < 0 && (errno == EINVAL || errno == EOPNOTSUPP);
    free(block);
    return !refused;
}

static void open_direct(struct reader_file *f, const char *path)
{
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    uint32_t align = f->fd >= 0 ? direct_alignment(f->fd) : 0;
    f->direct = align > 0 && reads_direct(f->fd, align);
    if (f->direct) {
        f->align = align;
    } else if (f->fd >= 0) {
        close(f->fd);
        f->fd = -1;
    }
}

static enum sluice_status open_file(struct reader_file *f, const char *path, bool buffered,
                                    struct sluice_error *err)
{
    *f = (struct reader_file){.fd = -1, .align = 1};
    if (!buffered) open_direct(f, path);
    if (f->fd < 0) f->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (f->fd < 0 || !file_version_of(f->fd, &f->version))
        return err_set(err, errno == ENOENT ? SLUICE_E_NOT_FOUND : SLUICE_E_IO, "file '%s': %s",
                       path, strerror(errno));
    return SLUICE_OK;
}

static enum sluice_status open_files(struct reader *r, const char *const *paths, uint32_t n,
                                     const struct reader_options *o, struct sluice_error *err)
{
    r->files = calloc(n + 1, sizeof *r->files);
    if (!r->files) return err_nomem(err, "reader", n * sizeof *r->files);
    r->info.direct = true;
    while (r->n_files < n) {
        struct reader_file *f = &r->files[r->n_files++];
        TRY(open_file(f, paths[r->n_files - 1], o->buffered, err));
        if (!f->direct) r->info.direct = false;
    }
    return SLUICE_OK;
}

static enum sluice_status alloc_flights(struct reader *r, struct sluice_error *err)
{
    uint32_t depth = r->info.depth;
    r->flights = calloc(depth, sizeof *r->flights);
    if (!r->flights) return err_nomem(err, "reader", depth * sizeof *r->flights);
    for (uint32_t i = 0; i < depth; i++) r->flights[i].next = i + 1;
    r->flights[depth - 1].next = (uint32_t)NO_FLIGHT;
    r->stalled = (uint32_t)NO_FLIGHT;
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

enum sluice_status reader_open(struct reader **out, const char *const *paths, uint32_t n_paths,
                               const struct reader_options *options, struct sluice_error *err)
{
    *out = NULL;
    struct reader *r = calloc(1, sizeof *r);
    if (!r) {
        if (options->driver) options->driver->close(options->driver_state);
        return err_nomem(err, "reader", sizeof *r);
    }
    r->driver = options->driver;
    r->state = options->driver_state;
    r->info.reason = "";
    r->info.nameless = -1;
    r->info.depth = options->depth ? options->depth : DEFAULT_DEPTH;
    r->most_flying = options->depth ? UINT64_MAX : DEFAULT_FLYING;
    enum sluice_status status = open_files(r, paths, n_paths, options, err);
    if (status == SLUICE_OK) status = alloc_flights(r, err);
    if (status == SLUICE_OK && !r->driver) status = choose_driver(r, options, err);
    if (status == SLUICE_OK)
        describe(r, options);
    else
        reader_close(&r);
    *out = r;
    return status;
}

static enum sluice_status check_maps(const struct reader *r, const struct file_map *maps,
                                     struct sluice_error *err)
{
    for (uint32_t f = 0; f < r->n_files; f++)
        if (!file_version_equal(&r->files[f].version, &maps[f].version))
            return err_set(err, SLUICE_E_IO,
                           "file '%s' was written to or replaced while it was opened",
                           maps[f].path);
    return SLUICE_OK;
}

enum sluice_status reader_open_mapped(struct reader **r, const struct file_map *maps,
                                      uint32_t n_maps, const struct reader_options *options,
                                      struct sluice_error *err)
{
    const char **paths = calloc(n_maps + 1, sizeof *paths);
    *r = NULL;
    if (!paths) {
        if (options->driver) options->driver->close(options->driver_state);
        return err_nomem(err, "reader", n_maps * sizeof *paths);
    }
    for (uint32_t f = 0; f < n_maps; f++) paths[f] = maps[f].path;
    enum sluice_status status = reader_open(r, paths, n_maps, options, err);
    free(paths);
    if (status == SLUICE_OK) status = check_maps(*r, maps, err);
    if (status != SLUICE_OK) reader_close(r);
    return status;
}

/* Nothing may write into the callers' memory any more. */
static void wait_for_flights(struct reader *r)
{
    struct flight_result results[32];
    while (r->n_flights)
        r->n_flights -= (uint32_t)r->driver->reap(r->state, results, COUNT_OF(results), true);
}

void reader_close(struct reader **out)
{
    struct reader *r = *out;
    if (!r) return;
    *out = NULL;
    if (r->state) {
        wait_for_flights(r);
        r->driver->close(r->state);
    }
    for (uint32_t i = 0; i < r->n_files; i++)
        if (r->files[i].fd >= 0) close(r->files[i].fd);
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

const struct file_version *reader_file_version(const struct reader *r, uint32_t file)
{
    return &r->files[file].version;
}

const char *reader_error_text(int error)
{
    bool changed = error == READER_EOF || error == READER_CHANGED;
    return changed ? file_change_text(error == READER_EOF) : strerror(error);
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

void reader_forget_buffer(struct reader *r)
{
    if (r->info.registered_buffers) r->driver->forget_buffer(r->state);
    r->info.registered_buffers = false;
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

/* Hands a flight to the driver and takes it off the list that begins with it. */
static bool start_flight(struct reader *r, uint32_t *list)
{
    uint32_t i = *list, next = r->flights[i].next;
    if (!r->driver->start(r->state, i, &r->flights[i])) return false;
    *list = next;
    r->n_flights++;
    return true;
}

static bool continue_stalled(struct reader *r)
{
    if (r->stalled == (uint32_t)NO_FLIGHT || !start_flight(r, &r->stalled)) return false;
    r->n_stalled--;
    return true;
}

/*
 * The queue whose turn it is; NULL: none. Prefetch has the drive while no demand read does, and
 * only a part of the depth, so that a demand read that comes finds little ahead of it.
 */
static struct queue *next_queue(struct reader *r)
{
    if (r->demand.n) return &r->demand;
    if (r->prefetch.n == 0 || r->n_demand) return NULL;
    bool sure = r->prefetch.ops[r->prefetch.head].sure;
    uint32_t most = sure ? r->info.depth : max_u32(r->info.depth / PREFETCH_SHARE, 1);
    return r->n_prefetch < most ? &r->prefetch : NULL;
}

static uint32_t *count_of(struct reader *r, const struct read_op *op)
{
    return op->prefetch ? &r->n_prefetch : &r->n_demand;
}

/* Whether one more read would only wait in the drive, and make those before it finish later. */
static bool is_enough(const struct reader *r, const struct read_op *op)
{
    bool bounded = !(op->prefetch && op->sure);
    return bounded && r->n_flights >= LEAST_FLIGHTS && r->flying + op->bytes > r->most_flying;
}

static bool start_next(struct reader *r)
{
    struct queue *q = next_queue(r);
    if (r->n_stalled || !q || r->free_flight == (uint32_t)NO_FLIGHT) return false;
    if (is_enough(r, &q->ops[q->head])) return false;
    struct flight *f = &r->flights[r->free_flight];
    f->op = q->ops[q->head];
    f->done = f->tries = 0;
    f->fd = r->files[f->op.file].fd;
    if (!start_flight(r, &r->free_flight)) {
        f->op.prefetch = false; /* as in all that are free */
        return false;
    }
    r->flying += f->op.bytes;
    ++*count_of(r, &f->op);
    queue_pop(q);
    return true;
}

/* Starts what was interrupted, then waiting reads as their turn comes, until the depth is reached.
 */
static void start_waiting(struct reader *r)
{
    bool any = false;
    while (continue_stalled(r)) any = true;
    while (start_next(r)) any = true;
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

/* Moves the reads with that tag from the one queue into the other, or out of it (to NULL). */
static bool sift(struct queue *from, uint64_t tag, struct queue *to, struct reads_moved *moved)
{
    size_t n = from->n;
    *moved = (struct reads_moved){0};
    for (size_t i = 0; i < n; i++) {
        struct read_op op = from->ops[from->head];
        if (op.tag != tag) {
            queue_pop(from);
            queue_push(from, &op); /* there is room: one was just taken out */
            continue;
        }
        op.prefetch = false;
        if (to && !queue_push(to, &op)) return false;
        queue_pop(from);
        moved->n++;
        moved->bytes += op.need;
    }
    return true;
}

enum sluice_status reader_promote(struct reader *r, uint64_t tag, struct sluice_error *err)
{
    struct reads_moved moved;
    for (uint32_t i = 0; i < r->info.depth; i++) {
        struct read_op *op = &r->flights[i].op;
        if (!op->prefetch || op->tag != tag) continue;
        r->n_prefetch--;
        r->n_demand++;
        op->prefetch = false;
    }
    if (!sift(&r->prefetch, tag, &r->demand, &moved))
        return err_nomem(err, "read queue", r->demand.cap * sizeof *r->demand.ops);
    start_waiting(r);
    return SLUICE_OK;
}

struct reads_moved reader_withdraw(struct reader *r, uint64_t tag)
{
    struct reads_moved moved;
    (void)sift(&r->prefetch, tag, NULL, &moved);
    return moved;
}

size_t reader_pending(const struct reader *r)
{
    return r->demand.n + r->prefetch.n + r->n_flights + r->n_stalled;
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
 * What happened to the file since it was opened: 0, READER_EOF or READER_CHANGED. Asked after the
 * bytes came, so that none of a later version is taken for those of the first.
 */
static int file_change(struct reader *r, const struct flight *f)
{
    const struct file_version *then = &r->files[f->op.file].version;
    struct file_version now;
    if (!file_version_of(f->fd, &now)) return 0;
    if (now.nameless && r->info.nameless < 0) r->info.nameless = (int32_t)f->op.file;
    if (file_version_equal(&now, then)) return 0;
    return now.bytes < then->bytes ? READER_EOF : READER_CHANGED;
}

/*
 * Takes in what one try brought. True: the flight is over, with *error set. A short read goes on
 * where it stopped, at the last aligned byte so that O_DIRECT accepts it.
 */
static bool advance(struct reader *r, struct flight *f, int64_t n, int *error)
{
    uint32_t before = f->done;
    *error = n < 0 && !is_transient(n) ? (int)-n : 0;
    if (*error) return true;
    if (n > 0) f->done += (uint32_t)n;
    if (n >= 0) *error = file_change(r, f);
    if (*error || f->done >= f->op.need) return true;
    if (n == 0) {
        *error = READER_EOF;
        return true;
    }
    f->done -= f->done % r->files[f->op.file].align;
    f->tries = f->done > before ? 0 : f->tries + 1;
    if (f->tries > MAX_TRIES) *error = n < 0 ? (int)-n : EIO;
    return *error != 0;
}

static void free_flight(struct reader *r, uint32_t index)
{
    r->flights[index].next = r->free_flight;
    r->flights[index].op.prefetch = false;
    r->free_flight = index;
}

static struct read_result result_of(const struct read_op *op, int error)
{
    return (struct read_result){
        .tag = op->tag, .file = op->file, .offset = op->offset, .error = error};
}

static struct read_result land(struct reader *r, uint32_t index, int error)
{
    struct flight *f = &r->flights[index];
    struct read_result result = result_of(&f->op, error);
    --*count_of(r, &f->op);
    r->flying -= f->op.bytes;
    if (!error) r->bytes += f->done;
    free_flight(r, index);
    return result;
}

/* One round of reaping; gives the number of finished reads written to results. */
static size_t reap(struct reader *r, struct read_result *results, size_t cap, bool wait)
{
    struct flight_result raw[32];
    size_t n = r->driver->reap(r->state, raw, min_size(cap, COUNT_OF(raw)), wait);
    size_t out = 0;
    r->n_flights -= (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        struct flight *f = &r->flights[raw[i].flight];
        int error;
        if (advance(r, f, raw[i].n, &error)) {
            results[out++] = land(r, raw[i].flight, error);
        } else {
            f->next = r->stalled;
            r->stalled = raw[i].flight;
            r->n_stalled++;
        }
    }
    return out;
}

/* A driver that takes nothing although nothing is in flight will not take it later either. */
static struct read_result give_up_one(struct reader *r)
{
    if (r->n_stalled) {
        uint32_t i = r->stalled;
        r->stalled = r->flights[i].next;
        r->n_stalled--;
        return land(r, i, EAGAIN);
    }
    struct queue *q = next_queue(r);
    struct read_op op = q->ops[q->head];
    queue_pop(q);
    return result_of(&op, EAGAIN);
}

size_t reader_poll(struct reader *r, struct read_result *results, size_t cap, bool wait)
{
    size_t out = 0;
    while (out == 0 && reader_pending(r)) {
        start_waiting(r);
        if (r->n_flights == 0) {
            results[out++] = give_up_one(r);
            break;
        }
        out = reap(r, results, cap, wait);
        start_waiting(r);
        if (!wait) break;
    }
    return out;
}
