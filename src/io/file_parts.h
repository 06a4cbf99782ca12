/*
 * Files that hold one model in parts, named NAME-00001-of-00003.EXT. Knows names only; opens no
 * file.
 */
#ifndef SLUICE_IO_FILE_PARTS_H
#define SLUICE_IO_FILE_PARTS_H

#include "base/arena.h"
#include "base/err.h"

/* Such a base name taken apart. */
struct file_part {
    int stem; /* bytes before the number */
    int width, total_width;
    uint32_t number, total;
};

/* False: name, which ends with extension (".gguf"), is not the name of a part. */
bool file_part_parse(const char *name, const char *extension, struct file_part *part);
/* The name of another part of the same model, in arena. NULL: out of memory. */
char *file_part_name(const char *name, const struct file_part *part, uint32_t number,
                     const char *extension, struct arena *arena);

struct file_parts {
    char **items; /* in order; strings in the arena */
    size_t n, cap;
};

/*
 * The files of the one model at path: a file, or any part of a model, or a folder with files of
 * that extension. Hidden files do not count, and "mmproj" files, the image parts of other models.
 * Errors: NOT_FOUND (nothing there; a part is missing, by name), MISMATCH (a folder with several
 * models), IO, NOMEM.
 */
enum sluice_status file_parts_find(struct file_parts *parts, const char *path,
                                   const char *extension, struct arena *arena,
                                   struct sluice_error *err);
/* The strings live on in the arena. */
void file_parts_release(struct file_parts *parts);

#endif
