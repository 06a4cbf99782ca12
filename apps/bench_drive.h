/*
 * How fast the drive gives random pieces of the size of an expert, out of a model's own files: the
 * limit of streamed decoding. Reads bypass the page cache where the file system allows it.
 */
#ifndef APPS_BENCH_DRIVE_H
#define APPS_BENCH_DRIVE_H

#include "sluice/sluice.h"

enum { DRIVE_DEPTHS = 4 };

struct drive_file {
    char *path;
    int fd;
    uint64_t blocks; /* places to read from, 4 KiB apart */
};

struct drive_probe {
    struct drive_file *files;
    size_t n_files;
    uint64_t n_blocks; /* of all files */
    size_t piece;      /* bytes of a read */
    unsigned char *memory;
    size_t memory_bytes;
    uint32_t most_depth; /* what the memory has room for */
    bool direct;         /* reads bypass the page cache */
    bool uring;          /* else a thread per read in flight */
    uint64_t random;
};

extern const uint32_t drive_depths[DRIVE_DEPTHS]; /* 1, 4, 16, 64 */

/* The files with expert weights of the model. Errors: NOT_FOUND, IO, NOMEM. */
SLUICE_NODISCARD enum sluice_status
drive_open(struct drive_probe *probe, const sluice_engine *engine, struct sluice_error *err);
void drive_close(struct drive_probe *probe);
/* Bytes a second with depth reads in flight, over about that many seconds. Errors: IO, SYSTEM. */
SLUICE_NODISCARD enum sluice_status drive_measure(struct drive_probe *probe, uint32_t depth,
                                                  double seconds, double *rate,
                                                  struct sluice_error *err);

#endif
