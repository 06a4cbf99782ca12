/* Files written under a temporary name, and files read in pieces. */
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>

#include "check.h"
#include "io/file.h"
#include "io/file_in.h"
#include "io/file_out.h"
#include "tempdir.h"

static struct sluice_error err;

static bool has(const struct tempdir *dir, const char *name)
{
    return access(tempdir_path(dir, name), F_OK) == 0;
}

static void expect_content(const struct tempdir *dir, const char *name, const char *text)
{
    char *data;
    size_t len;
    CHECK_OK(file_read(tempdir_path(dir, name), 1000, &data, &len, &err));
    CHECK(data && strcmp(data, text) == 0, "%s", data);
    free(data);
}

static void test_name_comes_with_commit(void)
{
    struct tempdir dir;
    struct file_out out;
    REQUIRE(tempdir_make(&dir));
    CHECK_OK(file_out_open(&out, tempdir_path(&dir, "a"), 8, &err));
    CHECK(has(&dir, ".a.part") && !has(&dir, "a"));
    CHECK_OK(file_out_write(&out, "tele", 4, &err));
    CHECK_OK(file_out_write(&out, "gram", 4, &err));
    CHECK_OK(file_out_commit(&out, &err));
    CHECK(!has(&dir, ".a.part"));
    expect_content(&dir, "a", "telegram");
    CHECK_OK(file_out_open(&out, tempdir_path(&dir, "a"), 0, &err));
    CHECK_OK(file_out_write(&out, "new", 3, &err));
    expect_content(&dir, "a", "telegram");
    CHECK_OK(file_out_commit(&out, &err));
    expect_content(&dir, "a", "new");
    tempdir_remove(&dir);
}

static void test_abort_leaves_nothing(void)
{
    struct tempdir dir;
    struct file_out out;
    REQUIRE(tempdir_make(&dir));
    CHECK_OK(file_out_open(&out, tempdir_path(&dir, "a"), 100, &err));
    CHECK_OK(file_out_write(&out, "x", 1, &err));
    file_out_abort(&out);
    CHECK(!has(&dir, ".a.part") && !has(&dir, "a"));
    file_out_abort(&out);
    tempdir_remove(&dir);
}

static void test_what_cannot_be_written(void)
{
    struct tempdir dir;
    struct file_out out;
    REQUIRE(tempdir_make(&dir));
    CHECK(file_out_open(&out, tempdir_path(&dir, "no/a"), 0, &err) == SLUICE_E_IO);
    CHECK(strstr(err.message, "no/a") && strstr(err.message, "No such file"), "%s", err.message);
    CHECK(tempdir_mkdir(&dir, "taken"));
    CHECK_OK(file_out_open(&out, tempdir_path(&dir, "taken"), 0, &err));
    CHECK(file_out_commit(&out, &err) == SLUICE_E_IO);
    CHECK(strstr(err.message, "taken"), "%s", err.message);
    CHECK(!has(&dir, ".taken.part"));
    tempdir_remove(&dir);
}

/* A limit on the size of files stands for a disk without room. */
static void test_no_room(void)
{
    struct tempdir dir;
    struct file_out out;
    struct rlimit old, small;
    static const char data[4096];
    REQUIRE(tempdir_make(&dir) && getrlimit(RLIMIT_FSIZE, &old) == 0);
    signal(SIGXFSZ, SIG_IGN);
    small = (struct rlimit){6000, old.rlim_max};
    REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
    CHECK(file_out_open(&out, tempdir_path(&dir, "a"), 8192, &err) == SLUICE_E_IO);
    CHECK(strstr(err.message, "File too large"), "%s", err.message);
    CHECK(!has(&dir, ".a.part"));
    CHECK_OK(file_out_open(&out, tempdir_path(&dir, "a"), 0, &err));
    CHECK_OK(file_out_write(&out, data, sizeof data, &err));
    CHECK(file_out_write(&out, data, sizeof data, &err) == SLUICE_E_IO);
    CHECK(strstr(err.message, "writing file") && strstr(err.message, "File too large"), "%s",
          err.message);
    file_out_abort(&out);
    CHECK(setrlimit(RLIMIT_FSIZE, &old) == 0);
    CHECK(!has(&dir, ".a.part") && !has(&dir, "a"));
    tempdir_remove(&dir);
}

static void test_temporary_names(void)
{
    CHECK(file_out_is_temporary(".a.part"));
    CHECK(!file_out_is_temporary("a.part") && !file_out_is_temporary(".part"));
    CHECK(!file_out_is_temporary(".a.parts") && !file_out_is_temporary(""));
}

static void test_reading_in_pieces(void)
{
    struct tempdir dir;
    struct file_in in;
    char piece[8] = "";
    REQUIRE(tempdir_make(&dir));
    CHECK(tempdir_write_text(&dir, "a", "0123456789"));
    CHECK_OK(file_in_open(&in, tempdir_path(&dir, "a"), &err));
    CHECK(in.bytes == 10 && in.modified_ns > 0);
    CHECK_OK(file_in_read(&in, 3, piece, 4, &err));
    CHECK(memcmp(piece, "3456", 4) == 0);
    file_in_drop_cache(&in);
    CHECK_OK(file_in_read(&in, 6, piece, 4, &err));
    CHECK(memcmp(piece, "6789", 4) == 0);
    CHECK(file_in_read(&in, 7, piece, 4, &err) == SLUICE_E_IO);
    CHECK(strstr(err.message, "offset 10") && strstr(err.message, "shorter"), "%s", err.message);
    file_in_close(&in);
    file_in_close(&in);
    CHECK(file_in_open(&in, tempdir_path(&dir, "b"), &err) == SLUICE_E_NOT_FOUND);
    CHECK(strstr(err.message, "/b'"), "%s", err.message);
    CHECK_OK(file_in_open(&in, dir.path, &err));
    CHECK(file_in_read(&in, 0, piece, 4, &err) == SLUICE_E_IO);
    CHECK(strstr(err.message, strerror(EISDIR)), "%s", err.message);
    file_in_close(&in);
    tempdir_remove(&dir);
}

#define CASES(C)                                                                                   \
    C(name_comes_with_commit)                                                                      \
    C(abort_leaves_nothing)                                                                        \
    C(what_cannot_be_written)                                                                      \
    C(no_room)                                                                                     \
    C(temporary_names)                                                                             \
    C(reading_in_pieces)
CHECK_MAIN(CASES)
