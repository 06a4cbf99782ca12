/* Files read and mapped whole, and what is refused: absent, folders, pipes, devices, too large. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "check.h"
#include "io/file.h"
#include "tempdir.h"

static struct sluice_error err;

static void test_map_sees_the_bytes(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    CHECK(tempdir_write(&dir, "a.bin", "sluice\0gate", 11));
    CHECK(symlink("a.bin", tempdir_path(&dir, "link.bin")) == 0);
    struct file_map map;
    CHECK_OK(file_map_open(&map, tempdir_path(&dir, "link.bin"), &err));
    CHECK(map.bytes == 11 && map.data && memcmp(map.data, "sluice\0gate", 11) == 0);
    CHECK(map.path && strcmp(map.path, tempdir_path(&dir, "link.bin")) == 0);
    file_map_release(&map);
    CHECK(map.data == NULL && map.path == NULL && map.bytes == 0);
    file_map_release(&map);
    tempdir_remove(&dir);
}

static void test_empty_file(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    CHECK(tempdir_write(&dir, "empty", "", 0));
    struct file_map map;
    CHECK_OK(file_map_open(&map, tempdir_path(&dir, "empty"), &err));
    CHECK(map.bytes == 0 && map.data == NULL && map.path != NULL);
    file_map_release(&map);
    char *data;
    size_t len = 9;
    CHECK_OK(file_read(tempdir_path(&dir, "empty"), 0, &data, &len, &err));
    CHECK(len == 0 && data && data[0] == '\0');
    free(data);
    tempdir_remove(&dir);
}

static void test_read(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    CHECK(tempdir_write_text(&dir, "a.json", "{\"a\": 1}"));
    char *data;
    size_t len;
    CHECK_OK(file_read(tempdir_path(&dir, "a.json"), 8, &data, &len, &err));
    CHECK(len == 8 && data && strcmp(data, "{\"a\": 1}") == 0);
    free(data);
    CHECK(file_read(tempdir_path(&dir, "a.json"), 7, &data, &len, &err) == SLUICE_E_FORMAT);
    CHECK(strstr(err.message, "a.json' has 8 bytes, more than the limit of 7"), "%s", err.message);
    CHECK(data == NULL && len == 0);
    tempdir_remove(&dir);
}

/* Both ways to open must refuse path with this status and these words, and name it. */
static void expect_refused(const char *path, enum sluice_status status, const char *says)
{
    struct file_map map;
    char *data;
    size_t len;
    CHECK(file_map_open(&map, path, &err) == status && err.code == status, "%s", err.message);
    CHECK(strstr(err.message, path) && strstr(err.message, says), "%s", err.message);
    CHECK(map.data == NULL && map.path == NULL);
    err.message[0] = '\0';
    CHECK(file_read(path, 1000, &data, &len, &err) == status && err.code == status);
    CHECK(strstr(err.message, path) && strstr(err.message, says), "%s", err.message);
    CHECK(data == NULL && len == 0);
}

static void test_refused(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    CHECK(tempdir_write_text(&dir, "file", "x"));
    CHECK(symlink("../blobs/gone", tempdir_path(&dir, "broken")) == 0);
    CHECK(mkfifo(tempdir_path(&dir, "pipe"), 0600) == 0);
    CHECK(symlink("loop", tempdir_path(&dir, "loop")) == 0);
    expect_refused(tempdir_path(&dir, "absent"), SLUICE_E_NOT_FOUND, "does not exist");
    expect_refused(tempdir_path(&dir, "file/x"), SLUICE_E_NOT_FOUND, "Not a directory");
    expect_refused(tempdir_path(&dir, "broken"), SLUICE_E_NOT_FOUND,
                   "is a symbolic link to a file that does not exist");
    expect_refused(dir.path, SLUICE_E_IO, "is a folder");
    expect_refused(tempdir_path(&dir, "pipe"), SLUICE_E_IO, "is not a regular file");
    expect_refused("/dev/null", SLUICE_E_IO, "is not a regular file");
    expect_refused(tempdir_path(&dir, "loop"), SLUICE_E_IO, "cannot open");
    tempdir_remove(&dir);
}

static void test_unreadable(void)
{
    if (geteuid() == 0) SKIP("the superuser may read every file");
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    CHECK(tempdir_write_text(&dir, "secret", "x"));
    CHECK(chmod(tempdir_path(&dir, "secret"), 0) == 0);
    expect_refused(tempdir_path(&dir, "secret"), SLUICE_E_IO, "Permission denied");
    tempdir_remove(&dir);
}

/* Files of sysfs say they have a page of bytes and then give fewer. */
static void test_short_file(void)
{
    static const char path[] = "/sys/devices/system/cpu/online";
    struct stat st;
    if (stat(path, &st) != 0 || st.st_size < 1024) SKIP("no such file on this machine");
    char *data;
    size_t len;
    CHECK(file_read(path, 100000, &data, &len, &err) == SLUICE_E_IO);
    CHECK(strstr(err.message, path) && strstr(err.message, "ended after"), "%s", err.message);
    CHECK(data == NULL);
}

static void test_exists(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    CHECK(tempdir_write_text(&dir, "file", "x"));
    CHECK(symlink("gone", tempdir_path(&dir, "broken")) == 0);
    CHECK(file_exists(tempdir_path(&dir, "file")));
    CHECK(file_exists(dir.path));
    CHECK(!file_exists(tempdir_path(&dir, "broken")));
    CHECK(!file_exists(tempdir_path(&dir, "absent")));
    tempdir_remove(&dir);
    CHECK(!file_exists("/tmp/sluice-test-absent/file"));
}

/* What a mapped file's path leads to now: the file, cut or written to, or another one. */
static void test_check_mapped(void)
{
    struct tempdir dir;
    struct file_map map;
    REQUIRE(tempdir_make(&dir));
    CHECK(tempdir_write_text(&dir, "file", "0123456789"));
    const char *path = tempdir_path(&dir, "file");
    CHECK_OK(file_map_open(&map, path, &err));
    CHECK_OK(file_map_check(&map, &err));
    CHECK(truncate(map.path, 3) == 0);
    CHECK(file_map_check(&map, &err) == SLUICE_E_IO);
    CHECK(strstr(err.message, map.path) && strstr(err.message, "shorter than when"), "%s",
          err.message);
    CHECK(truncate(map.path, 20) == 0);
    CHECK(file_map_check(&map, &err) == SLUICE_E_IO);
    CHECK(strstr(err.message, "written to since"), "%s", err.message);
    CHECK(remove(map.path) == 0);
    CHECK_OK(file_map_check(&map, &err));
    CHECK(tempdir_write_text(&dir, "file", "another"));
    CHECK_OK(file_map_check(&map, &err));
    file_map_release(&map);
    tempdir_remove(&dir);
}

static size_t pages_there(const struct file_map *map, size_t page, size_t first, size_t n)
{
    unsigned char there[256];
    size_t count = 0;
    if (n > sizeof there) return 0;
    if (mincore((void *)(uintptr_t)(map->data + first * page), n * page, there) != 0) return 0;
    for (size_t i = 0; i < n; i++) count += there[i] & 1;
    return count;
}

/* Pages 40 to 79 of a file that no cache holds are there soon, without a touch. */
static void test_wanted_bytes_come(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = 200 * page;
    struct tempdir dir;
    struct file_map map;
    REQUIRE(tempdir_make(&dir));
    char *data = malloc(bytes);
    REQUIRE(data);
    for (size_t i = 0; i < bytes; i++) data[i] = (char)(i / 7);
    CHECK(tempdir_write(&dir, "file", data, bytes));
    int fd = open(tempdir_path(&dir, "file"), O_RDONLY);
    CHECK(fd >= 0 && fsync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
    close(fd);
    CHECK_OK(file_map_open(&map, tempdir_path(&dir, "file"), &err));
    file_want(map.data, 0);
    file_want(map.data + 40 * page + 1, 40 * page - 1);
    uint64_t end = clock_ns() + 20u * 1000000000u;
    while (clock_ns() < end && pages_there(&map, page, 40, 40) < 40)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    CHECK(pages_there(&map, page, 40, 40) == 40);
    CHECK(memcmp(map.data, data, bytes) == 0);
    file_map_release(&map);
    free(data);
    tempdir_remove(&dir);
}

#define CASES(C)                                                                                   \
    C(map_sees_the_bytes)                                                                          \
    C(empty_file)                                                                                  \
    C(read)                                                                                        \
    C(refused)                                                                                     \
    C(unreadable)                                                                                  \
    C(short_file)                                                                                  \
    C(exists)                                                                                      \
    C(check_mapped)                                                                                \
    C(wanted_bytes_come)
CHECK_MAIN(CASES)
