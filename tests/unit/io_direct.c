/* O_DIRECT that is taken when a file is opened and refused when it is read. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/bits.h"
#include "fault_run.h"

static struct sluice_error err;
static int refuse_with; /* what direct reads fail with; 0: they do not */
static unsigned n_refused;

/* What pread is called where offsets have 64 bits. */
ssize_t __real_pread64(int fd, void *into, size_t bytes, off_t offset);
ssize_t __wrap_pread64(int fd, void *into, size_t bytes, off_t offset);

ssize_t __wrap_pread64(int fd, void *into, size_t bytes, off_t offset)
{
    if (!refuse_with || !(fcntl(fd, F_GETFL) & O_DIRECT))
        return __real_pread64(fd, into, bytes, offset);
    n_refused++;
    errno = refuse_with;
    return -1;
}

/* Reads the file's first bytes, which must be those that were written. */
static void expect_bytes(struct reader *r, const struct corpus *c)
{
    static _Alignas(4096) uint8_t into[8192];
    struct read_op op = {.bytes = 8192, .need = 5000, .into = into};
    struct read_result result = {0};
    memset(into, 0, sizeof into);
    CHECK_OK(reader_submit(r, &op, &err));
    CHECK(reader_poll(r, &result, 1, true) == 1 && result.error == 0, "error %d", result.error);
    CHECK(memcmp(into, c->bytes[0], op.need) == 0);
}

static void open_and_read(int error, enum reader_kind kind, bool direct)
{
    struct corpus c = {0};
    REQUIRE(tempdir_make(&c.dir) && corpus_add(&c, 100000, 1));
    const char *path = c.paths[0];
    struct reader_options o = {.kind = kind};
    struct reader *r;
    refuse_with = error;
    CHECK_OK(reader_open(&r, &path, 1, &o, &err));
    const struct reader_info *info = reader_get_info(must(r));
    if (direct) {
        refuse_with = 0;
    } else {
        CHECK(!info->direct && reader_alignment(r, 0) == 1);
        if (strcmp(info->engine, "io_uring") == 0 || kind == READER_PREAD)
            CHECK(strstr(info->reason, "refuses O_DIRECT"), "%s", info->reason);
    }
    expect_bytes(r, &c);
    refuse_with = 0;
    reader_close(&r);
    corpus_release(&c);
}

static void test_refused_reads_go_through_the_cache(void)
{
    static const enum reader_kind kinds[] = {READER_AUTO, READER_PREAD};
    static const int errors[] = {EINVAL, EOPNOTSUPP};
    n_refused = 0;
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        for (size_t e = 0; e < COUNT_OF(errors); e++) open_and_read(errors[e], kinds[i], false);
    if (n_refused == 0) SKIP("O_DIRECT is refused here when a file is opened");
    CHECK(n_refused == 4);
}

/* A drive that fails is no reason to read in another way: the reads themselves say so. */
static void test_other_errors_change_nothing(void)
{
    open_and_read(EIO, READER_PREAD, true);
}

#define CASES(C)                                                                                   \
    C(refused_reads_go_through_the_cache)                                                          \
    C(other_errors_change_nothing)
CHECK_MAIN(CASES)
