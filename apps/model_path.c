#include "model_path.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "report.h"

enum { LEVELS = 5 };

static bool has_model(struct buffer *folder)
{
    size_t len = folder->len;
    buffer_text(folder, "/config.json");
    bool found = !folder->failed && access(folder->data, R_OK) == 0;
    if (folder->failed) return false;
    folder->len = len;
    folder->data[len] = '\0';
    return found;
}

static bool try_folder(struct buffer *path, const char *folder, size_t len, const char *below)
{
    path->len = 0;
    buffer_add(path, folder, len);
    buffer_text(path, below);
    return has_model(path);
}

enum sluice_status model_path_find(const char *program, struct buffer *path,
                                   struct sluice_error *err)
{
    const char *slash = strrchr(program, '/');
    size_t len = slash ? (size_t)(slash - program) : 0;
    for (int level = 0; level < LEVELS && len > 0; level++) {
        if (try_folder(path, program, len, "/models/storyteller")) return SLUICE_OK;
        if (try_folder(path, program, len, "/share/sluice/models/storyteller")) return SLUICE_OK;
        while (len > 0 && program[--len] != '/') {
        }
    }
    if (try_folder(path, SLUICE_DATADIR, strlen(SLUICE_DATADIR), "/models/storyteller"))
        return SLUICE_OK;
    return fail(err, SLUICE_E_NOT_FOUND,
                "no MODEL was given, and the storyteller that comes with sluice is neither near "
                "'%s' nor in '%s/models'; give the folder of a model",
                program, SLUICE_DATADIR);
}

void model_path_program(struct buffer *program)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path);
    buffer_add(program, path, n > 0 ? (size_t)n : 0);
}
