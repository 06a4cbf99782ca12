/* Reads by io_uring. Files and buffers are registered when the kernel allows it. */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

#include "base/spin.h"
#include "io/reader_driver.h"

struct ring {
    struct io_uring uring;
    int *fd_copy;
    uint32_t n_fds;
    const uint8_t *buffer; /* registered range, NULL: none */
    size_t buffer_bytes;
    struct patience patience;
};

static void ring_close(void *state)
{
    struct ring *ring = state;
    io_uring_queue_exit(&ring->uring);
    free(ring->fd_copy);
    free(ring);
}

/* Containers forbid io_uring as a whole or its read operation; both show here. */
void *driver_uring_open(uint32_t depth, const char **why)
{
    struct ring *ring = calloc(1, sizeof *ring);
    *why = "out of memory";
    if (!ring) return NULL;
    int e = io_uring_queue_init(depth, &ring->uring, 0);
    if (e < 0) {
        *why = e == -ENOSYS   ? "this kernel has no io_uring"
               : e == -EPERM  ? "io_uring is forbidden here"
               : e == -ENOMEM ? "io_uring needs more lockable memory than this user has"
                              : "io_uring could not be set up";
        free(ring);
        return NULL;
    }
    struct io_uring_probe *probe = io_uring_get_probe_ring(&ring->uring);
    bool reads = probe && io_uring_opcode_supported(probe, IORING_OP_READ);
    io_uring_free_probe(probe);
    if (reads) return ring;
    *why = "this kernel's io_uring cannot read";
    ring_close(ring);
    return NULL;
}

static int fixed_index(const struct ring *ring, int fd)
{
    for (uint32_t i = 0; i < ring->n_fds; i++)
        if (ring->fd_copy[i] == fd) return (int)i;
    return -1;
}

static bool in_buffer(const struct ring *ring, const uint8_t *p, size_t bytes)
{
    return ring->buffer && p >= ring->buffer && bytes <= ring->buffer_bytes &&
           (size_t)(p - ring->buffer) <= ring->buffer_bytes - bytes;
}

static bool ring_start(void *state, uint32_t index, const struct flight *f)
{
    struct ring *ring = state;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
    if (!sqe) {
        io_uring_submit(&ring->uring);
        sqe = io_uring_get_sqe(&ring->uring);
    }
    if (!sqe) return false;
    uint8_t *into = (uint8_t *)f->op.into + f->done;
    unsigned bytes = f->op.bytes - f->done;
    uint64_t offset = f->op.offset + f->done;
    int fixed = fixed_index(ring, f->fd);
    int fd = fixed >= 0 ? fixed : f->fd;
    if (in_buffer(ring, into, bytes))
        io_uring_prep_read_fixed(sqe, fd, into, bytes, offset, 0);
    else
        io_uring_prep_read(sqe, fd, into, bytes, offset);
    if (fixed >= 0) sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, index);
    return true;
}

static void ring_flush(void *state)
{
    struct ring *ring = state;
    /* A submission the kernel has no memory for now stays in the ring until the next try. */
    (void)io_uring_submit(&ring->uring);
}

/* Blocks until a read is finished, or a signal comes. */
static void wait_for_one(struct ring *ring)
{
    struct spin spin = spin_begin(&ring->patience);
    if (io_uring_sq_ready(&ring->uring)) (void)io_uring_submit(&ring->uring);
    while (!io_uring_cq_ready(&ring->uring) && spin_on(&spin)) {
    }
    if (!io_uring_cq_ready(&ring->uring)) (void)io_uring_submit_and_wait(&ring->uring, 1);
    spin_end(&spin, &ring->patience);
}

static size_t ring_reap(void *state, struct flight_result *out, size_t cap, bool wait)
{
    struct ring *ring = state;
    struct io_uring_cqe *cqe;
    size_t n = 0;
    while (n < cap) {
        if (wait && n == 0) wait_for_one(ring);
        if (io_uring_peek_cqe(&ring->uring, &cqe) != 0) {
            if (wait && n == 0) continue;
            break;
        }
        out[n++] = (struct flight_result){(uint32_t)io_uring_cqe_get_data64(cqe), cqe->res};
        io_uring_cqe_seen(&ring->uring, cqe);
    }
    return n;
}

static bool ring_register_files(void *state, const int *fds, uint32_t n)
{
    struct ring *ring = state;
    if (io_uring_register_files(&ring->uring, fds, n) != 0) return false;
    ring->fd_copy = calloc(n + 1, sizeof *ring->fd_copy);
    if (!ring->fd_copy) return false;
    for (uint32_t i = 0; i < n; i++) ring->fd_copy[i] = fds[i];
    ring->n_fds = n;
    return true;
}

static bool ring_register_buffer(void *state, void *base, size_t bytes)
{
    struct ring *ring = state;
    enum { LARGEST = 1 << 30 }; /* the kernel takes no more in one piece */
    if (bytes > LARGEST) return false;
    struct iovec iov = {base, bytes};
    if (io_uring_register_buffers(&ring->uring, &iov, 1) != 0) return false;
    ring->buffer = base;
    ring->buffer_bytes = bytes;
    return true;
}

static void ring_forget_buffer(void *state)
{
    struct ring *ring = state;
    (void)io_uring_unregister_buffers(&ring->uring);
    ring->buffer = NULL;
    ring->buffer_bytes = 0;
}

const struct driver driver_uring = {
    .name = "io_uring",
    .start = ring_start,
    .flush = ring_flush,
    .reap = ring_reap,
    .register_files = ring_register_files,
    .register_buffer = ring_register_buffer,
    .forget_buffer = ring_forget_buffer,
    .close = ring_close,
};
