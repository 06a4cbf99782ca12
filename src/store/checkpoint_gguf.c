#include "store/checkpoint_gguf.h"

#include <dirent.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "io/file_parts.h"

static const char extension[] = ".gguf";

static bool ends_with(const char *name, const char *end)
{
    size_t len = strlen(name), n = strlen(end);
    return len > n && strcmp(name + len - n, end) == 0;
}

static bool begins_like_gguf(const char *path)
{
    struct file_map file;
    if (file_map_open(&file, path, NULL) != SLUICE_OK) return false;
    bool is = file.bytes >= 4 && memcmp(file.data, "GGUF", 4) == 0;
    file_map_release(&file);
    return is;
}

/* GGUF files and no weights in safetensors; reference.safetensors holds outputs. */
static bool holds_only_gguf(const char *folder)
{
    bool gguf = false, other = false;
    DIR *dir = opendir(folder);
    if (!dir) return false;
    for (const struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        gguf = gguf || (e->d_name[0] != '.' && ends_with(e->d_name, extension));
        if (strcmp(e->d_name, "reference.safetensors") == 0) continue;
        other = other || ends_with(e->d_name, ".safetensors") ||
                ends_with(e->d_name, ".safetensors.index.json");
    }
    closedir(dir);
    return gguf && !other;
}

bool checkpoint_is_gguf(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) return ends_with(path, extension);
    if (S_ISDIR(st.st_mode)) return holds_only_gguf(path);
    return S_ISREG(st.st_mode) && (ends_with(path, extension) || begins_like_gguf(path));
}

static enum sluice_status map_parts(struct checkpoint *cp, const struct file_parts *parts,
                                    struct sluice_error *err)
{
    cp->files = arena_alloc(&cp->arena, parts->n, sizeof *cp->files);
    if (!cp->files) return err_nomem(err, cp->path, parts->n * sizeof *cp->files);
    for (size_t i = 0; i < parts->n; i++) {
        TRY(file_map_open(&cp->files[i], parts->items[i], err));
        cp->n_files = i + 1;
    }
    return SLUICE_OK;
}

/* A key that says where in a split model the file is; absent when it is none. */
static enum sluice_status expect_number(const struct gguf_header *h, const char *key, uint64_t want,
                                        const char *file, struct sluice_error *err)
{
    uint64_t n;
    const struct gguf_value *value = gguf_find(h, key);
    if (!value) return SLUICE_OK;
    if (!gguf_u64(value, &n))
        return err_set(err, SLUICE_E_FORMAT, "%s: key '%s' is no number", file, key);
    if (n == want) return SLUICE_OK;
    return err_set(err, SLUICE_E_MISMATCH,
                   "%s: key '%s' is %" PRIu64 " where %" PRIu64 " is needed; the parts of a model "
                   "are named NAME-00001-of-00003.gguf and lie in one folder",
                   file, key, n, want);
}

static enum sluice_status check_split(const struct gguf_header *h, size_t number, size_t total,
                                      const char *file, struct sluice_error *err)
{
    TRY(expect_number(h, "split.no", number, file, err));
    /* A file that is none of several says 0 or 1. */
    uint64_t n = 0;
    if (total == 1 && gguf_u64(gguf_find(h, "split.count"), &n) && n <= 1) return SLUICE_OK;
    return expect_number(h, "split.count", total, file, err);
}

static enum sluice_status read_parts(struct checkpoint *cp, struct gguf_header *headers,
                                     struct tensor_list *lists, struct sluice_error *err)
{
    for (size_t i = 0; i < cp->n_files; i++) {
        const struct file_map *file = &cp->files[i];
        const char *name = file_base_name(file->path);
        TRY(gguf_parse(span_of(file->data, (size_t)file->bytes), file->bytes, name, &cp->arena,
                       &headers[i], err));
        TRY(check_split(&headers[i], i, cp->n_files, name, err));
        lists[i] = (struct tensor_list){headers[i].tensors, headers[i].n_tensors};
        cp->n_tensors += lists[i].n;
    }
    return expect_number(&headers[0], "split.tensors.count", cp->n_tensors,
                         file_base_name(cp->files[0].path), err);
}

static enum sluice_status open_parts(struct checkpoint *cp, const struct file_parts *parts,
                                     struct sluice_error *err)
{
    TRY(map_parts(cp, parts, err));
    struct gguf_header *headers = arena_alloc(&cp->arena, cp->n_files, sizeof *headers);
    struct tensor_list *lists = arena_alloc(&cp->arena, cp->n_files, sizeof *lists);
    if (!headers || !lists) return err_nomem(err, cp->path, cp->n_files * sizeof *headers);
    cp->gguf = headers;
    TRY(read_parts(cp, headers, lists, err));
    if (cp->n_tensors) return checkpoint_list(cp, lists, err);
    return err_set(err, SLUICE_E_NOT_FOUND,
                   "'%s' holds no tensors: it is a vocabulary, of use to 'sluice tokenize' alone",
                   cp->path);
}

enum sluice_status checkpoint_open_gguf(struct checkpoint *cp, const char *path,
                                        struct sluice_error *err)
{
    struct file_parts parts;
    cp->path = arena_copy(&cp->arena, path, strlen(path));
    if (!cp->path) return err_nomem(err, path, strlen(path));
    TRY(file_parts_find(&parts, path, extension, &cp->arena, err));
    enum sluice_status status = open_parts(cp, &parts, err);
    file_parts_release(&parts);
    return status;
}
