#include "store/checkpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "store/checkpoint_gguf.h"
#include "store/pack_manifest.h"
#include "store/shard_headers.h"
#include "store/weight_index.h"

/* Far above any real configuration or index (a few MB). */
static const uint64_t json_max_bytes = 100000000;

enum {
    NAME_SHOWN = 256, /* bytes of a tensor's name */
    FETCHED_AHEAD = 8 /* names; memory needs as long as so many take */
};

static bool has_suffix(const char *s, const char *suffix)
{
    size_t len = strlen(s), n = strlen(suffix);
    return len >= n && strcmp(s + len - n, suffix) == 0;
}

static char *path_in_folder(struct checkpoint *cp, const char *name)
{
    const char *slash = has_suffix(cp->path, "/") ? "" : "/";
    return arena_printf(&cp->arena, "%s%s%s", cp->path, slash, name);
}

/* True for a broken link too, and when memory runs out: opening it then says what is wrong. */
static bool has_file(struct checkpoint *cp, const char *name)
{
    struct stat st;
    const char *path = path_in_folder(cp, name);
    return !path || lstat(path, &st) == 0;
}

static enum sluice_status not_a_folder(const char *path, struct sluice_error *err)
{
    return err_set(err, SLUICE_E_UNSUPPORTED,
                   "'%s' is neither a folder nor a GGUF file; give the folder that holds "
                   "config.json and *.safetensors",
                   path);
}

/* Sets cp->path, without trailing slashes. */
static enum sluice_status find_folder(struct checkpoint *cp, const char *path,
                                      struct sluice_error *err)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') len--;
    cp->path = arena_copy(&cp->arena, path, len);
    if (!cp->path) return err_nomem(err, path, len);
    struct stat st;
    if (stat(path, &st) == 0) return S_ISDIR(st.st_mode) ? SLUICE_OK : not_a_folder(path, err);
    if (errno == ENOENT)
        return err_set(err, SLUICE_E_NOT_FOUND,
                       "'%s' does not exist; give the folder that holds config.json and "
                       "*.safetensors",
                       path);
    char text[128];
    const char *reason = strerror_r(errno, text, sizeof text);
    if (errno == ENOTDIR) return err_set(err, SLUICE_E_NOT_FOUND, "'%s': %s", path, reason);
    return err_set(err, SLUICE_E_IO, "'%s': %s", path, reason);
}

/* A file of the folder; the caller frees the text. NOT_FOUND when there is no such file. */
static enum sluice_status load_text(struct checkpoint *cp, const char *name, char **text,
                                    size_t *len, struct sluice_error *err)
{
    *text = NULL;
    const char *path = path_in_folder(cp, name);
    if (!path) return err_nomem(err, name, strlen(cp->path));
    return file_read(path, json_max_bytes, text, len, err);
}

/* An object in a file of the folder. NOT_FOUND when there is no such file. */
static enum sluice_status load_json(struct checkpoint *cp, const char *name, json_t **out,
                                    struct sluice_error *err)
{
    char *text;
    size_t len;
    TRY(load_text(cp, name, &text, &len, err));
    enum sluice_status status = json_parse(span_of(text, len), name, out, err);
    free(text);
    if (status != SLUICE_OK) return status;
    status = json_expect_object(*out, name, "", err);
    if (status == SLUICE_OK) return SLUICE_OK;
    json_decref(*out);
    *out = NULL;
    return status;
}

static enum sluice_status load_configs(struct checkpoint *cp, struct sluice_error *err)
{
    if (!has_file(cp, "config.json") && has_file(cp, "snapshots"))
        return err_set(err, SLUICE_E_NOT_FOUND,
                       "'%s' has no config.json; it is the root of a cached repository: give one "
                       "of the folders in its snapshots folder",
                       cp->path);
    if (!has_file(cp, "config.json") && has_file(cp, PACK_MANIFEST_NAME))
        return err_set(err, SLUICE_E_NOT_FOUND,
                       "'%s' holds a pack that is not complete; 'sluice pack' with the same model "
                       "and folder completes it",
                       cp->path);
    enum sluice_status status = load_json(cp, "config.json", &cp->config, err);
    if (status == SLUICE_E_NOT_FOUND)
        return err_wrap(err, status, "'%s' is not a model folder", cp->path);
    if (status != SLUICE_OK) return status;
    if (!has_file(cp, "generation_config.json")) return SLUICE_OK;
    return load_json(cp, "generation_config.json", &cp->generation_config, err);
}

/* The weights of the folder while it is opened. */
struct folder {
    struct shards shards;
    struct span index_text; /* data NULL: there is no index */
    struct weight_index index;
};

static enum sluice_status find_shards(struct checkpoint *cp, struct folder *folder,
                                      struct sluice_error *err)
{
    if (!has_file(cp, SHARDS_INDEX_NAME))
        return shards_from_folder(&folder->shards, cp->path, &cp->arena, err);
    char *text;
    size_t len;
    TRY(load_text(cp, SHARDS_INDEX_NAME, &text, &len, err));
    folder->index_text = span_of(text, len);
    return weight_index_parse(&folder->index, &folder->shards, folder->index_text, &cp->arena, err);
}

static enum sluice_status map_files(struct checkpoint *cp, const struct shards *shards,
                                    bool from_index, struct sluice_error *err)
{
    cp->files = arena_alloc(&cp->arena, shards->n, sizeof *cp->files);
    if (!cp->files) return err_nomem(err, cp->path, shards->n * sizeof *cp->files);
    for (size_t i = 0; i < shards->n; i++) {
        const char *path = path_in_folder(cp, shards->items[i]);
        if (!path) return err_nomem(err, shards->items[i], strlen(cp->path));
        enum sluice_status status = file_map_open(&cp->files[i], path, err);
        if (status == SLUICE_E_NOT_FOUND && from_index)
            return err_wrap(err, status,
                            "'%s', a file that " SHARDS_INDEX_NAME " names, is missing",
                            shards->items[i]);
        if (status != SLUICE_OK) return status;
        cp->n_files = i + 1;
    }
    return SLUICE_OK;
}

static enum sluice_status parse_headers(struct checkpoint *cp, struct tensor_list *lists,
                                        struct sluice_error *err)
{
    struct safetensors_header *headers = calloc(cp->n_files + 1, sizeof *headers);
    if (!headers) return err_nomem(err, cp->path, cp->n_files * sizeof *headers);
    enum sluice_status status =
        shard_headers_read(cp->files, cp->n_files, &cp->arena, headers, err);
    for (size_t i = 0; i < cp->n_files && status == SLUICE_OK; i++) {
        lists[i] = (struct tensor_list){headers[i].entries, headers[i].n_entries};
        cp->n_tensors += headers[i].n_entries;
        if (strcmp(headers[i].format, "mlx") == 0) cp->any_mlx = true;
    }
    free(headers);
    if (status != SLUICE_OK || cp->n_tensors) return status;
    return err_set(err, SLUICE_E_NOT_FOUND, "'%s': its *.safetensors files hold no tensors",
                   cp->path);
}

static enum sluice_status add_tensor(struct checkpoint *cp, uint32_t at,
                                     const struct tensor_entry *entry, uint32_t file,
                                     struct sluice_error *err)
{
    struct tensor *t = &cp->tensors[at];
    *t = (struct tensor){.name = entry->name,
                         .dtype = entry->dtype,
                         .rank = entry->rank,
                         .data = cp->files[file].data + entry->offset,
                         .bytes = entry->bytes,
                         .file = file,
                         .offset = entry->offset};
    memcpy(t->shape, entry->shape, sizeof t->shape);
    enum map_put put = map_put(&cp->by_name, span_str(t->name), at);
    if (put == MAP_NEW) return SLUICE_OK;
    if (put == MAP_NOMEM) return err_nomem(err, "directory of tensors", cp->n_tensors);
    return err_set(err, SLUICE_E_MISMATCH, "tensor '%s' is in both '%s' and '%s'", t->name,
                   checkpoint_file_name(cp, checkpoint_find(cp, t->name)),
                   checkpoint_file_name(cp, t));
}

enum sluice_status checkpoint_list(struct checkpoint *cp, const struct tensor_list *lists,
                                   struct sluice_error *err)
{
    cp->tensors = arena_alloc(&cp->arena, cp->n_tensors, sizeof *cp->tensors);
    if (!cp->tensors || !map_init(&cp->by_name, cp->n_tensors))
        return err_nomem(err, "directory of tensors", cp->n_tensors * sizeof *cp->tensors);
    uint32_t at = 0;
    for (uint32_t i = 0; i < cp->n_files; i++)
        for (size_t k = 0; k < lists[i].n; k++) {
            size_t later = k + FETCHED_AHEAD;
            if (later < lists[i].n) map_fetch(&cp->by_name, span_str(lists[i].items[later].name));
            TRY(add_tensor(cp, at++, &lists[i].items[k], i, err));
        }
    return SLUICE_OK;
}

static enum sluice_status collect_tensors(struct checkpoint *cp, struct sluice_error *err)
{
    struct tensor_list *lists = arena_alloc(&cp->arena, cp->n_files, sizeof *lists);
    if (!lists) return err_nomem(err, cp->path, cp->n_files * sizeof *lists);
    TRY(parse_headers(cp, lists, err));
    return checkpoint_list(cp, lists, err);
}

static enum sluice_status check_entry(const struct checkpoint *cp,
                                      const struct weight_index_entry *entry,
                                      struct sluice_error *err)
{
    const char *name = (const char *)entry->tensor.data;
    int shown = entry->tensor.len < NAME_SHOWN ? (int)entry->tensor.len : NAME_SHOWN;
    const uint32_t *at = map_find(&cp->by_name, entry->tensor);
    if (!at)
        return err_set(err, SLUICE_E_MISMATCH,
                       "tensor '%.*s' is not in '%s', where " SHARDS_INDEX_NAME " puts it", shown,
                       name, entry->file);
    const char *file = checkpoint_file_name(cp, &cp->tensors[*at]);
    if (strcmp(file, entry->file) == 0) return SLUICE_OK;
    return err_set(err, SLUICE_E_MISMATCH,
                   "tensor '%.*s' is in '%s', but " SHARDS_INDEX_NAME " puts it in '%s'", shown,
                   name, file, entry->file);
}

/* The file of that name, which is mostly the same one as last time; n_files: there is none. */
static size_t file_named(const struct checkpoint *cp, const char *name, size_t last)
{
    if (last < cp->n_files && strcmp(file_base_name(cp->files[last].path), name) == 0) return last;
    for (size_t f = 0; f < cp->n_files; f++)
        if (strcmp(file_base_name(cp->files[f].path), name) == 0) return f;
    return cp->n_files;
}

/* next[f]: the first tensor of file f; the last one is behind all tensors. */
static void begin_files(const struct checkpoint *cp, size_t *next)
{
    for (size_t f = 0, t = 0; f <= cp->n_files; f++) {
        while (t < cp->n_tensors && cp->tensors[t].file < f) t++;
        next[f] = t;
    }
}

/*
 * True: the index has each tensor of the files once, with its file, and nothing else. It is enough
 * that as many names as there are tensors are, file by file, the next one each.
 */
static bool goes_along(const struct checkpoint *cp, const struct weight_index *index, size_t *next)
{
    size_t file = 0;
    begin_files(cp, next);
    for (size_t i = 0; i < index->n; i++) {
        file = file_named(cp, index->items[i].file, file);
        size_t t = file < cp->n_files ? next[file]++ : cp->n_tensors;
        if (t == cp->n_tensors || cp->tensors[t].file != file ||
            !span_equal(index->items[i].tensor, span_str(cp->tensors[t].name)))
            return false;
    }
    return index->n == cp->n_tensors;
}

/* Every tensor of the index is in its file, and every tensor of the files is in the index. */
static enum sluice_status check_index(const struct checkpoint *cp, struct weight_index *index,
                                      struct span text, struct sluice_error *err)
{
    size_t *next = calloc(cp->n_files + 1, sizeof *next);
    if (!next) return err_nomem(err, SHARDS_INDEX_NAME, cp->n_files * sizeof *next);
    bool same = goes_along(cp, index, next);
    free(next);
    if (same) return SLUICE_OK;
    TRY(weight_index_map(index, text, err));
    for (size_t i = 0; i < index->n; i++) TRY(check_entry(cp, &index->items[i], err));
    if (index->n == cp->n_tensors) return SLUICE_OK;
    for (size_t i = 0; i < cp->n_tensors; i++)
        if (!map_find(&index->by_tensor, span_str(cp->tensors[i].name)))
            return err_set(err, SLUICE_E_MISMATCH,
                           "tensor '%s' of '%s' is not in " SHARDS_INDEX_NAME, cp->tensors[i].name,
                           checkpoint_file_name(cp, &cp->tensors[i]));
    return SLUICE_OK;
}

static enum sluice_status open_weights(struct checkpoint *cp, struct sluice_error *err)
{
    struct folder folder = {0};
    enum sluice_status status = find_shards(cp, &folder, err);
    bool has_index = folder.index_text.data != NULL;
    if (status == SLUICE_OK) status = map_files(cp, &folder.shards, has_index, err);
    if (status == SLUICE_OK) status = collect_tensors(cp, err);
    if (status == SLUICE_OK && has_index)
        status = check_index(cp, &folder.index, folder.index_text, err);
    weight_index_release(&folder.index);
    shards_release(&folder.shards);
    free((void *)(uintptr_t)folder.index_text.data);
    return status;
}

static enum sluice_status open_folder(struct checkpoint *cp, const char *path,
                                      struct sluice_error *err)
{
    TRY(find_folder(cp, path, err));
    TRY(load_configs(cp, err));
    return open_weights(cp, err);
}

enum sluice_status checkpoint_open(struct checkpoint *cp, const char *path,
                                   struct sluice_error *err)
{
    *cp = (struct checkpoint){0};
    enum sluice_status status =
        checkpoint_is_gguf(path) ? checkpoint_open_gguf(cp, path, err) : open_folder(cp, path, err);
    if (status != SLUICE_OK) checkpoint_release(cp);
    return status;
}

void checkpoint_release(struct checkpoint *cp)
{
    for (size_t i = 0; i < cp->n_files; i++) {
        if (cp->gguf) gguf_release(&cp->gguf[i]);
        file_map_release(&cp->files[i]);
    }
    map_release(&cp->by_name);
    json_decref(cp->config);
    json_decref(cp->generation_config);
    arena_release(&cp->arena);
    *cp = (struct checkpoint){0};
}

const struct tensor *checkpoint_find(const struct checkpoint *cp, const char *name)
{
    const uint32_t *at = map_find(&cp->by_name, span_str(name));
    return at ? &cp->tensors[*at] : NULL;
}

const struct tensor *checkpoint_find_near(const struct checkpoint *cp, const char *name,
                                          size_t *near)
{
    for (size_t i = *near; i < cp->n_tensors && i - *near < 2; i++) {
        if (strcmp(cp->tensors[i].name, name) != 0) continue;
        *near = i;
        return &cp->tensors[i];
    }
    const struct tensor *t = checkpoint_find(cp, name);
    if (t) *near = (size_t)(t - cp->tensors);
    return t;
}

void checkpoint_want(const struct tensor *t)
{
    file_want(t->data, t->bytes);
}

/* The last tensor of the file that begins at or before offset; they are in order. */
static const struct tensor *last_before(const struct checkpoint *cp, uint32_t file, uint64_t offset)
{
    size_t begin = 0, end = cp->n_tensors;
    while (begin < end) {
        size_t mid = begin + (end - begin) / 2;
        const struct tensor *t = &cp->tensors[mid];
        if (t->file < file || (t->file == file && t->offset <= offset))
            begin = mid + 1;
        else
            end = mid;
    }
    return begin ? &cp->tensors[begin - 1] : NULL;
}

const struct tensor *checkpoint_tensor_at(const struct checkpoint *cp, const uint8_t *data)
{
    for (uint32_t f = 0; f < cp->n_files; f++) {
        uintptr_t base = (uintptr_t)cp->files[f].data, at = (uintptr_t)data;
        if (at < base || at - base >= cp->files[f].bytes) continue;
        const struct tensor *t = last_before(cp, f, at - base);
        return t && t->file == f && at - base - t->offset < t->bytes ? t : NULL;
    }
    return NULL;
}

const char *checkpoint_file_name(const struct checkpoint *cp, const struct tensor *tensor)
{
    return file_base_name(cp->files[tensor->file].path);
}
