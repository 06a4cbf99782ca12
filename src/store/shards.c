#include "store/shards.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "io/file_parts.h"

static const char extension[] = ".safetensors";

static bool ends_with(const char *name, const char *end)
{
    size_t len = strlen(name), n = strlen(end);
    return len > n && strcmp(name + len - n, end) == 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

enum sluice_status shards_add(struct shards *shards, const char *name, struct arena *arena,
                              struct sluice_error *err)
{
    char *copy = arena_copy(arena, name, strlen(name));
    if (copy && array_push(shards, copy)) return SLUICE_OK;
    return err_nomem(err, "list of weight files", (shards->n + 1) * sizeof *shards->items);
}

void shards_sort(struct shards *shards)
{
    if (shards->n) qsort(shards->items, shards->n, sizeof *shards->items, compare_names);
}

void shards_release(struct shards *shards)
{
    array_release(shards);
}

bool shards_is_plain_name(const char *name)
{
    return name[0] != '.' && !strchr(name, '/') && ends_with(name, extension);
}

static enum sluice_status require_part(const struct shards *shards, const char *name,
                                       const struct file_part *part, uint32_t number,
                                       const char *folder, struct arena *arena,
                                       struct sluice_error *err)
{
    char *wanted = file_part_name(name, part, number, extension, arena);
    if (!wanted) return err_nomem(err, "name of a weight file", strlen(name));
    if (bsearch(&wanted, shards->items, shards->n, sizeof *shards->items, compare_names))
        return SLUICE_OK;
    return err_set(err, SLUICE_E_NOT_FOUND,
                   "'%s/%s' does not exist, although '%s' does; incomplete download?", folder,
                   wanted, name);
}

/* A set is whole when each part's neighbours are there. */
static enum sluice_status check_parts(const struct shards *shards, const char *folder,
                                      struct arena *arena, struct sluice_error *err)
{
    for (size_t i = 0; i < shards->n; i++) {
        const char *name = shards->items[i];
        struct file_part p;
        if (!file_part_parse(name, extension, &p)) continue;
        if (p.number > 1) TRY(require_part(shards, name, &p, p.number - 1, folder, arena, err));
        if (p.number < p.total)
            TRY(require_part(shards, name, &p, p.number + 1, folder, arena, err));
    }
    return SLUICE_OK;
}

/*
 * model.safetensors alone when it is there, as the folder's other files are then other forms of
 * the same weights. Else all but the reference outputs that test models carry.
 */
static void choose(struct shards *shards)
{
    size_t n = 0;
    for (size_t i = 0; i < shards->n; i++) {
        char *name = shards->items[i];
        if (strcmp(name, "model.safetensors") == 0) {
            shards->items[0] = name;
            shards->n = 1;
            return;
        }
        if (strcmp(name, "reference.safetensors") != 0) shards->items[n++] = name;
    }
    if (n > 0) shards->n = n;
}

static bool is_other_format(const char *name)
{
    return ends_with(name, ".gguf") || ends_with(name, ".bin") || ends_with(name, ".pt") ||
           ends_with(name, ".pth");
}

/* Adds the *.safetensors files. *other names a file of weights in a format not read, or is "". */
static enum sluice_status list_folder(struct shards *shards, DIR *dir, const char *folder,
                                      char other[256], struct arena *arena,
                                      struct sluice_error *err)
{
    other[0] = '\0';
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry && errno)
            return err_set(err, SLUICE_E_IO, "'%s': cannot list the folder", folder);
        if (!entry) return SLUICE_OK;
        if (shards_is_plain_name(entry->d_name)) TRY(shards_add(shards, entry->d_name, arena, err));
        if (is_other_format(entry->d_name)) memcpy(other, entry->d_name, strlen(entry->d_name) + 1);
    }
}

static enum sluice_status no_weights(const char *folder, const char *other,
                                     struct sluice_error *err)
{
    if (other[0])
        return err_set(err, SLUICE_E_NOT_FOUND,
                       "'%s' has no *.safetensors file; weights like '%s' are not read", folder,
                       other);
    return err_set(err, SLUICE_E_NOT_FOUND,
                   "'%s' has config.json but no *.safetensors file; incomplete download?", folder);
}

enum sluice_status shards_from_folder(struct shards *shards, const char *folder,
                                      struct arena *arena, struct sluice_error *err)
{
    *shards = (struct shards){0};
    DIR *dir = opendir(folder);
    if (!dir) return err_set(err, SLUICE_E_IO, "'%s': cannot list the folder", folder);
    char other[256];
    enum sluice_status status = list_folder(shards, dir, folder, other, arena, err);
    closedir(dir);
    if (status == SLUICE_OK) {
        choose(shards);
        shards_sort(shards);
        status =
            shards->n ? check_parts(shards, folder, arena, err) : no_weights(folder, other, err);
    }
    if (status != SLUICE_OK) shards_release(shards);
    return status;
}
