#include "io/file_parts.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/array.h"

/* Reads the digits that end at name[end]; returns where they begin. At most 9 count. */
static int digits_before(const char *name, int end, uint32_t *value)
{
    int begin = end;
    while (begin > 0 && end - begin < 9 && name[begin - 1] >= '0' && name[begin - 1] <= '9')
        begin--;
    *value = 0;
    for (int i = begin; i < end; i++) *value = *value * 10 + (uint32_t)(name[i] - '0');
    return begin;
}

bool file_part_parse(const char *name, const char *extension, struct file_part *part)
{
    static const char of[] = "-of-";
    enum { OF = sizeof of - 1 };
    int end = (int)(strlen(name) - strlen(extension));
    int total_at = digits_before(name, end, &part->total);
    if (total_at == end || total_at < OF || memcmp(name + total_at - OF, of, OF) != 0) return false;
    part->stem = digits_before(name, total_at - OF, &part->number);
    part->width = total_at - OF - part->stem;
    part->total_width = end - total_at;
    return part->width > 0 && part->number > 0 && part->number <= part->total;
}

char *file_part_name(const char *name, const struct file_part *part, uint32_t number,
                     const char *extension, struct arena *arena)
{
    return arena_printf(arena, "%.*s%0*" PRIu32 "-of-%0*" PRIu32 "%s", part->stem, name,
                        part->width, number, part->total_width, part->total, extension);
}

void file_parts_release(struct file_parts *parts)
{
    array_release(parts);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool ends_with(const char *name, const char *end)
{
    size_t len = strlen(name), n = strlen(end);
    return len > n && strcmp(name + len - n, end) == 0;
}

static enum sluice_status add(struct file_parts *parts, char *path, struct sluice_error *err)
{
    if (path && array_push(parts, path)) return SLUICE_OK;
    return err_nomem(err, "list of weight files", (parts->n + 1) * sizeof *parts->items);
}

/* The file at path alone, or all parts it is one of. */
static enum sluice_status add_all(struct file_parts *parts, const char *path, const char *extension,
                                  struct arena *arena, struct sluice_error *err)
{
    struct file_part part;
    const char *name = base_name(path);
    int folder = (int)(name - path);
    if (!ends_with(name, extension) || !file_part_parse(name, extension, &part))
        return add(parts, arena_copy(arena, path, strlen(path)), err);
    for (uint32_t i = 1; i <= part.total; i++) {
        struct stat st;
        char *other = file_part_name(name, &part, i, extension, arena);
        if (!other) return err_nomem(err, "name of a weight file", strlen(name));
        char *full = arena_printf(arena, "%.*s%s", folder, path, other);
        if (full && lstat(full, &st) != 0)
            return err_set(err, SLUICE_E_NOT_FOUND,
                           "'%s' does not exist, although '%s' does; incomplete download?", full,
                           name);
        TRY(add(parts, full, err));
    }
    return SLUICE_OK;
}

static bool counts(const char *name, const char *extension)
{
    return name[0] != '.' && ends_with(name, extension) && strncmp(name, "mmproj", 6) != 0;
}

static bool same_model(const char *a, const char *b, const char *extension)
{
    struct file_part x, y;
    return file_part_parse(a, extension, &x) && file_part_parse(b, extension, &y) &&
           x.stem == y.stem && x.total == y.total && memcmp(a, b, (size_t)x.stem) == 0;
}

/* *found is some file of the folder's one model, in arena; NULL when there is none. */
static enum sluice_status search(DIR *dir, const char *folder, const char *extension,
                                 struct arena *arena, char **found, struct sluice_error *err)
{
    *found = NULL;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry && errno)
            return err_set(err, SLUICE_E_IO, "'%s': cannot list the folder", folder);
        if (!entry) return SLUICE_OK;
        if (!counts(entry->d_name, extension)) continue;
        if (*found && !same_model(*found, entry->d_name, extension)) {
            bool sorted = strcmp(*found, entry->d_name) < 0;
            return err_set(err, SLUICE_E_MISMATCH,
                           "'%s' holds several models, '%.200s' and '%.200s' among them; give the "
                           "path of one of the files",
                           folder, sorted ? *found : entry->d_name,
                           sorted ? entry->d_name : *found);
        }
        if (*found) continue;
        *found = arena_copy(arena, entry->d_name, strlen(entry->d_name));
        if (!*found) return err_nomem(err, folder, strlen(entry->d_name));
    }
}

static enum sluice_status find_in_folder(const char *folder, const char *extension,
                                         struct arena *arena, const char **path,
                                         struct sluice_error *err)
{
    char *name;
    DIR *dir = opendir(folder);
    if (!dir) return err_set(err, SLUICE_E_IO, "'%s': cannot list the folder", folder);
    enum sluice_status status = search(dir, folder, extension, arena, &name, err);
    closedir(dir);
    if (status != SLUICE_OK) return status;
    if (!name) return err_set(err, SLUICE_E_NOT_FOUND, "'%s' has no *%s file", folder, extension);
    *path = arena_printf(arena, "%s%s%s", folder, ends_with(folder, "/") ? "" : "/", name);
    return *path ? SLUICE_OK : err_nomem(err, folder, strlen(name));
}

enum sluice_status file_parts_find(struct file_parts *parts, const char *path,
                                   const char *extension, struct arena *arena,
                                   struct sluice_error *err)
{
    struct stat st;
    *parts = (struct file_parts){0};
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        TRY(find_in_folder(path, extension, arena, &path, err));
    enum sluice_status status = add_all(parts, path, extension, arena, err);
    if (status != SLUICE_OK) file_parts_release(parts);
    return status;
}
