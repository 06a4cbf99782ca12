/*
 * Reading pieces of files, many at once. The reader keeps two queues. At most `depth` demand reads
 * are in flight, and by default no more bytes than keep a drive busy: some drives finish all
 * reads they have at the same time, so that what is asked for too early delays what is computed
 * first, and what is asked for too late finds the drive idle. A prefetch read starts only while no
 * demand read is queued or in flight, and at most an eighth of the depth are in flight at once, so
 * that it hardly delays the demand reads that come after it; those that are sure to be asked for
 * may fill the depth. Short reads are continued and interrupted ones repeated, so that a result is
 * either all the bytes that were needed or an error; bytes of a file that was written to since it
 * was opened are an error too. How reads are carried out is a driver's business: io_uring, a pool
 * of pread threads, or a test double.
 *
 * One thread at a time uses a reader.
 */
#ifndef SLUICE_IO_READER_H
#define SLUICE_IO_READER_H

#include "base/err.h"
#include "io/file.h"

enum reader_kind { READER_AUTO, READER_URING, READER_PREAD };

struct driver;

struct reader_options {
    enum reader_kind kind;
    uint32_t depth;        /* most reads in flight; 0: 32, and beyond two of them 8 MiB */
    uint32_t workers;      /* threads of the pread driver; 0: 8 */
    bool buffered;         /* through the page cache even where O_DIRECT works */
    uint64_t memory_nodes; /* over which its owner spreads what is read: see mem_spread */
    /* Tests: reads go through this driver instead; the reader takes its state, even on error. */
    const struct driver *driver;
    void *driver_state;
};

/*
 * One read. With O_DIRECT, offset, bytes and into are multiples of the file's alignment; the window
 * may reach past the end of the file as long as the bytes needed lie in it.
 */
struct read_op {
    uint32_t file; /* index into the paths given at open */
    uint64_t offset;
    uint32_t bytes; /* of the window */
    uint32_t need;  /* of them that must arrive */
    void *into;
    uint64_t tag; /* the caller's */
    bool prefetch;
    bool sure; /* a prefetch that is as good as asked for: nothing else will want the drive */
};

struct read_result {
    uint64_t tag;
    uint32_t file;
    uint64_t offset;
    int error; /* 0, an errno value, or one of these */
};
enum {
    READER_EOF = -1,    /* the file is shorter than when it was opened */
    READER_CHANGED = -2 /* the file was written to since it was opened */
};
/* What an error means, in words; an errno value's too. */
const char *reader_error_text(int error);

/* What was chosen, and why. */
struct reader_info {
    const char *engine; /* "io_uring" or "pread" */
    const char *reason; /* why not io_uring with O_DIRECT; "" when it is */
    bool direct;        /* O_DIRECT on every file */
    bool registered_files, registered_buffers;
    uint32_t depth;
    int32_t nameless; /* the first file seen to be replaced or deleted meanwhile; -1: none */
};

struct reader;

/* Opens the files. Errors: NOT_FOUND, IO, SYSTEM (the kind asked for is refused), NOMEM. */
enum sluice_status reader_open(struct reader **reader, const char *const *paths, uint32_t n_paths,
                               const struct reader_options *options, struct sluice_error *err);
/*
 * The same for files that are mapped, which must be those that are at their paths now and unchanged
 * since: errors also IO.
 */
enum sluice_status reader_open_mapped(struct reader **reader, const struct file_map *maps,
                                      uint32_t n_maps, const struct reader_options *options,
                                      struct sluice_error *err);
/* Waits for reads in flight. */
void reader_close(struct reader **reader);

/* What O_DIRECT wants of offsets, lengths and addresses in that file; 1 when it is not used. */
uint32_t reader_alignment(const struct reader *reader, uint32_t file);
/* The file when it was opened. */
const struct file_version *reader_file_version(const struct reader *reader, uint32_t file);
const struct reader_info *reader_get_info(const struct reader *reader);

/*
 * Memory that reads will go to, registered with the kernel if it lets us (an ordinary user may lock
 * only a few MiB). Whether it did is in reader_info.
 */
void reader_register_buffer(struct reader *reader, void *base, size_t bytes);

/* That memory may go back to the system now; no read is under way. */
void reader_forget_buffer(struct reader *reader);

/* Queues a read and starts what may start. Errors: NOMEM. */
enum sluice_status reader_submit(struct reader *reader, const struct read_op *op,
                                 struct sluice_error *err);
/*
 * What was submitted as prefetch with this tag is wanted now: its reads count as demand from here
 * on, in flight or not. Errors: NOMEM.
 */
enum sluice_status reader_promote(struct reader *reader, uint64_t tag, struct sluice_error *err);
struct reads_moved {
    uint32_t n;
    uint64_t bytes; /* that they need */
};
/* Drops the prefetch reads with this tag that have not started. */
struct reads_moved reader_withdraw(struct reader *reader, uint64_t tag);
/*
 * Finished reads, at most cap. wait: blocks until there is one; without reads under way it gives 0
 * at once.
 */
size_t reader_poll(struct reader *reader, struct read_result *results, size_t cap, bool wait);
/* Reads queued or in flight. */
size_t reader_pending(const struct reader *reader);
/* Bytes of finished reads since the reader was opened. */
uint64_t reader_bytes(const struct reader *reader);

#endif
