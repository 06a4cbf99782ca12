/* Files of random bytes, child processes, and drivers by name: what tests of reads share. */
#ifndef TESTS_FAULT_RUN_H
#define TESTS_FAULT_RUN_H

#include <stdlib.h>
#include <sys/wait.h>

#include "base/rng.h"
#include "check.h"
#include "io/driver_fault.h"
#include "tempdir.h"

static inline void *must(void *p)
{
    if (!p) abort();
    return p;
}

enum { MAX_FILES = 4, MAX_PATH = 512 };

struct corpus {
    struct tempdir dir;
    uint32_t n;
    char paths[MAX_FILES][MAX_PATH];
    uint8_t *bytes[MAX_FILES];
    size_t len[MAX_FILES];
};

static inline bool corpus_add(struct corpus *c, size_t len, uint64_t seed)
{
    struct rng rng = {seed};
    char name[32];
    uint32_t f = c->n++;
    c->len[f] = len;
    c->bytes[f] = must(malloc(len + 8));
    for (size_t i = 0; i < len; i += 8) {
        uint64_t word = rng_u64(&rng);
        memcpy(c->bytes[f] + i, &word, 8);
    }
    snprintf(name, sizeof name, "part-%u.bin", f);
    snprintf(c->paths[f], MAX_PATH, "%s", tempdir_path(&c->dir, name));
    return tempdir_write(&c->dir, name, c->bytes[f], len);
}

static inline void corpus_release(struct corpus *c)
{
    for (uint32_t f = 0; f < c->n; f++) free(c->bytes[f]);
    tempdir_remove(&c->dir);
}

/* Gives reader_options a faulty driver over pread threads, io_uring or nothing; false: refused. */
enum inner_kind { INNER_NONE, INNER_PREAD, INNER_URING };
static inline bool use_faults(struct reader_options *o, enum inner_kind kind,
                              const struct fault_options *faults)
{
    const char *why;
    uint32_t depth = o->depth ? o->depth : 32;
    const struct driver *inner = NULL;
    void *state = NULL;
    if (kind == INNER_PREAD) {
        inner = &driver_pread;
        state = driver_pread_open(o->workers ? o->workers : 2, depth, &why);
    } else if (kind == INNER_URING) {
        inner = &driver_uring;
        state = driver_uring_open(depth, &why);
    }
    if (inner && !state) return false;
    o->driver = &driver_fault;
    o->driver_state = must(driver_fault_open(depth, faults, inner, state));
    return true;
}

static inline bool has_uring(void)
{
    const char *why;
    void *state = driver_uring_open(4, &why);
    if (state) driver_uring.close(state);
    return state != NULL;
}

/* Runs fn in a child process, where it may spoil limits and rights; its failures count here. */
static inline void check_in_child(void (*fn)(void *arg), void *arg)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        check_failures = 0;
        fn(arg);
        fflush(stdout);
        _exit(check_failures ? 1 : 0);
    }
    int status = -1;
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child ended with %x", (unsigned)status);
}

#endif
