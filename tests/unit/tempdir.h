/* A folder for one test case: make it, write files into it, remove it with all it holds. */
#ifndef TESTS_TEMPDIR_H
#define TESTS_TEMPDIR_H

#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct tempdir {
    char path[256];
};

static inline bool tempdir_make(struct tempdir *dir)
{
    const char *base = getenv("TMPDIR");
    snprintf(dir->path, sizeof dir->path, "%.200s/sluice-test-XXXXXX", base ? base : "/tmp");
    return mkdtemp(dir->path) != NULL;
}

/* A file's path; valid until the fourth call after this one. */
static inline const char *tempdir_path(const struct tempdir *dir, const char *name)
{
    static char paths[4][1024];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", dir->path, name);
    return path;
}

/* When a file was written last; put back, it is the same file again to those who look at that. */
static inline struct timespec tempdir_time(const char *path)
{
    struct stat st = {0};
    if (stat(path, &st) != 0) st.st_mtim = (struct timespec){0};
    return st.st_mtim;
}

static inline bool tempdir_set_time(const char *path, struct timespec modified)
{
    struct timespec times[2] = {modified, modified};
    return utimensat(AT_FDCWD, path, times, 0) == 0;
}

static inline bool tempdir_write(const struct tempdir *dir, const char *name, const void *data,
                                 size_t len)
{
    FILE *f = fopen(tempdir_path(dir, name), "wb");
    if (!f) return false;
    bool ok = fwrite(data, 1, len, f) == len;
    return fclose(f) == 0 && ok;
}

static inline bool tempdir_write_text(const struct tempdir *dir, const char *name, const char *text)
{
    return tempdir_write(dir, name, text, strlen(text));
}

static inline bool tempdir_mkdir(const struct tempdir *dir, const char *name)
{
    return mkdir(tempdir_path(dir, name), 0700) == 0;
}

static inline int tempdir_remove_entry_(const char *path, const struct stat *st, int type,
                                        struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline void tempdir_remove(struct tempdir *dir)
{
    nftw(dir->path, tempdir_remove_entry_, 16, FTW_DEPTH | FTW_PHYS);
    dir->path[0] = '\0';
}

#endif
