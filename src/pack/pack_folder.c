/* The folder of a packed store: what is in it already, and its files beside the shards. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/bits.h"
#include "io/file.h"
#include "io/file_out.h"
#include "pack/packer.h"
#include "store/shards.h"

static const char config_name[] = "config.json";
static const char index_name[] = SHARDS_INDEX_NAME;

/* What published models have beside config and weights, as far as text needs it. */
static const char *const copied[] = {
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
};

static enum sluice_status folder_error(const struct packer *p, int error)
{
    char text[128];
    return err_set(p->err, SLUICE_E_IO, "folder '%s': %s", p->folder,
                   strerror_r(error, text, sizeof text));
}

/* Opening */

static enum sluice_status open_and_lock(struct packer *p)
{
    struct stat folder, source;
    if (mkdir(p->folder, 0777) != 0 && errno != EEXIST) return folder_error(p, errno);
    p->folder_fd = open(p->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p->folder_fd < 0 || fstat(p->folder_fd, &folder) != 0) return folder_error(p, errno);
    if (stat(p->cp.path, &source) == 0 && source.st_dev == folder.st_dev &&
        source.st_ino == folder.st_ino)
        return err_set(p->err, SLUICE_E_ARGUMENT,
                       "folder '%s' is the model itself; give another one for the pack", p->folder);
    if (flock(p->folder_fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return err_set(p->err, SLUICE_E_STATE, "folder '%s': another process is packing into it",
                       p->folder);
    return SLUICE_OK;
}

/* Calls fn for every name in the folder until it gives an error. */
static enum sluice_status each_name(const struct packer *p,
                                    enum sluice_status (*fn)(const struct packer *, const char *))
{
    DIR *dir = opendir(p->folder);
    if (!dir) return folder_error(p, errno);
    enum sluice_status status = SLUICE_OK;
    while (status == SLUICE_OK) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry) {
            if (errno) status = folder_error(p, errno);
            break;
        }
        status = fn(p, entry->d_name);
    }
    closedir(dir);
    return status;
}

/* Without a manifest, nothing but what an interrupted beginning or mkfs left may be there. */
static enum sluice_status refuse_strange(const struct packer *p, const char *name)
{
    static const char *const fine[] = {".", "..", "lost+found", "." PACK_MANIFEST_NAME ".part"};
    for (size_t i = 0; i < COUNT_OF(fine); i++)
        if (strcmp(name, fine[i]) == 0) return SLUICE_OK;
    return err_set(p->err, SLUICE_E_ARGUMENT,
                   "folder '%s' holds '%s' and no pack; give a new or an empty folder", p->folder,
                   name);
}

static bool is_planned(const struct packer *p, const char *name)
{
    for (size_t s = 0; s < p->plan.n_shards; s++)
        if (strcmp(p->plan.shards[s].name, name) == 0) return true;
    return false;
}

/* Shards of another size, from an earlier call, would be read as part of the model. */
static bool is_old_shard(const struct packer *p, const char *name)
{
    static const char begin[] = "model-", end[] = ".safetensors";
    size_t len = strlen(name), n = sizeof end - 1;
    return strncmp(name, begin, sizeof begin - 1) == 0 && len > n &&
           strcmp(name + len - n, end) == 0 && !is_planned(p, name);
}

static enum sluice_status remove_remains(const struct packer *p, const char *name)
{
    if (!file_out_is_temporary(name) && !is_old_shard(p, name)) return SLUICE_OK;
    if (unlinkat(p->folder_fd, name, 0) == 0) return SLUICE_OK;
    return folder_error(p, errno);
}

static enum sluice_status check_same_model(const struct packer *p)
{
    if (!checksum_equal(p->found.fingerprint, p->made.fingerprint))
        return err_set(p->err, SLUICE_E_MISMATCH,
                       "folder '%s' holds a pack of another model, or '%s' has changed since; give "
                       "another folder or remove this one",
                       p->folder, p->cp.path);
    bool same = p->found.n_sources == p->made.n_sources;
    for (size_t i = 0; i < p->made.n_sources && same; i++) {
        const struct pack_source *then = &p->found.sources[i], *now = &p->made.sources[i];
        if (strcmp(then->name, now->name) == 0 && then->bytes == now->bytes &&
            then->modified_ns == now->modified_ns)
            continue;
        return err_set(p->err, SLUICE_E_MISMATCH,
                       "file '%s' has changed since the pack in '%s' was begun; remove that folder "
                       "and pack again",
                       p->sources[i].path, p->folder);
    }
    return same ? SLUICE_OK
                : err_set(p->err, SLUICE_E_MISMATCH,
                          "'%s' has not the files that the pack in '%s' was begun with", p->cp.path,
                          p->folder);
}

static bool has_size(const struct packer *p, const char *name, uint64_t bytes)
{
    struct stat st;
    return fstatat(p->folder_fd, name, &st, 0) == 0 && (uint64_t)st.st_size == bytes;
}

/* Copies the checksums of a shard from the manifest that was found. False: not all are there. */
static bool take_over_shard(struct packer *p, size_t s)
{
    const struct plan_shard *shard = &p->plan.shards[s];
    const struct pack_shard *then = manifest_shard(&p->found, shard->name);
    size_t n_experts = 0, n_tensors = 0;
    if (!then || then->bytes != shard->bytes || !has_size(p, shard->name, shard->bytes))
        return false;
    for (size_t i = shard->first; i < shard->end; i++) {
        const struct pack_unit *u = &p->plan.units[i];
        if (u->bank == NO_BANK) {
            const char *name = p->cp.tensors[u->index].name;
            const struct pack_tensor *t = manifest_tensor(&p->found, name);
            if (!t) return false;
            p->made.shards[s].tensors[n_tensors++] = (struct pack_tensor){name, t->sum};
        } else {
            uint32_t layer = p->model.banks[u->bank]->layer;
            const struct pack_expert *e = manifest_expert(&p->found, layer, u->index);
            if (!e) return false;
            p->made.shards[s].experts[n_experts++] = *e;
        }
    }
    return true;
}

enum sluice_status pack_open_folder(struct packer *p)
{
    TRY(open_and_lock(p));
    enum sluice_status status = manifest_read(&p->found, p->folder, p->err);
    if (status == SLUICE_E_NOT_FOUND)
        TRY(each_name(p, refuse_strange));
    else if (status == SLUICE_OK)
        TRY(check_same_model(p));
    else
        return err_wrap(p->err, status, "folder '%s'", p->folder);
    return SLUICE_OK;
}

enum sluice_status pack_take_over(struct packer *p)
{
    for (size_t s = 0; s < p->plan.n_shards; s++) p->done[s] = take_over_shard(p, s);
    return each_name(p, remove_remains);
}

enum sluice_status pack_unfinish(struct packer *p)
{
    if (unlinkat(p->folder_fd, config_name, 0) != 0 && errno != ENOENT)
        return folder_error(p, errno);
    return SLUICE_OK;
}

bool pack_is_complete(const struct packer *p)
{
    for (size_t s = 0; s < p->plan.n_shards; s++)
        if (!p->done[s]) return false;
    return faccessat(p->folder_fd, config_name, R_OK, 0) == 0;
}

/* Room */

/* Bytes of a file on the disk, and of its name. */
static uint64_t on_disk(uint64_t bytes, uint64_t block)
{
    return (bytes + block - 1) / block * block;
}

/* The manifest, which is there twice while it is replaced. */
static uint64_t manifest_bytes(const struct packer *p)
{
    enum { EXPERT_LINE = 128, TENSOR_LINE = 64 };
    uint64_t bytes = PIECE_BYTES / 64;
    for (size_t i = 0; i < p->plan.n_units; i++) {
        const struct pack_unit *u = &p->plan.units[i];
        bytes += u->bank == NO_BANK ? TENSOR_LINE + strlen(p->cp.tensors[u->index].name)
                                    : (uint64_t)EXPERT_LINE;
    }
    return 2 * bytes;
}

static enum sluice_status index_bytes(const struct packer *p, uint64_t *bytes)
{
    *bytes = 128;
    for (size_t s = 0; s < p->plan.n_shards; s++) {
        size_t len;
        char *lines = pack_plan_index_lines(&p->plan, &p->plan.shards[s], &len);
        if (!lines) return err_nomem(p->err, index_name, 0);
        free(lines);
        *bytes += len;
    }
    return SLUICE_OK;
}

static uint64_t source_bytes(const struct packer *p, const char *name)
{
    struct stat st;
    char *path = NULL;
    size_t cap = strlen(p->cp.path) + strlen(name) + 2;
    path = malloc(cap);
    if (!path) return 0;
    snprintf(path, cap, "%s/%s", p->cp.path, name);
    uint64_t bytes = stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
    free(path);
    return bytes;
}

enum sluice_status pack_check_room(const struct packer *p)
{
    struct statvfs fs;
    uint64_t index;
    if (fstatvfs(p->folder_fd, &fs) != 0) return folder_error(p, errno);
    uint64_t block = fs.f_frsize ? fs.f_frsize : PACK_ALIGN;
    TRY(index_bytes(p, &index));
    uint64_t needed = on_disk(index, block) + on_disk(manifest_bytes(p), block) +
                      on_disk(source_bytes(p, config_name), block);
    for (size_t i = 0; i < COUNT_OF(copied); i++)
        needed += on_disk(source_bytes(p, copied[i]), block);
    for (size_t s = 0; s < p->plan.n_shards; s++)
        if (!p->done[s]) needed += on_disk(p->plan.shards[s].bytes, block);
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (room >= needed) return SLUICE_OK;
    return err_set(p->err, SLUICE_E_IO,
                   "folder '%s': %" PRIu64 " bytes (%.2f GiB) are needed, but only %" PRIu64
                   " (%.2f GiB) are free",
                   p->folder, needed, (double)needed / 0x1p30, room, (double)room / 0x1p30);
}

/* Files beside the shards */

enum sluice_status pack_write_manifest(struct packer *p)
{
    struct pack_manifest listed = p->made;
    listed.shards = calloc(p->plan.n_shards, sizeof *listed.shards);
    if (!listed.shards) return err_nomem(p->err, PACK_MANIFEST_NAME, p->plan.n_shards);
    listed.n_shards = 0;
    for (size_t s = 0; s < p->plan.n_shards; s++)
        if (p->done[s]) listed.shards[listed.n_shards++] = p->made.shards[s];
    enum sluice_status status = manifest_write(&listed, p->folder, p->err);
    free(listed.shards);
    return status;
}

static enum sluice_status copy_bytes(struct packer *p, const struct file_in *in,
                                     struct file_out *out)
{
    for (uint64_t at = 0; at < in->bytes;) {
        size_t n = min_size((size_t)(in->bytes - at), PIECE_BYTES);
        TRY(file_in_read(in, at, p->piece, n, p->err));
        TRY(file_out_write(out, p->piece, n, p->err));
        at += n;
    }
    return SLUICE_OK;
}

static enum sluice_status copy_open(struct packer *p, const struct file_in *in, const char *to)
{
    struct file_out out;
    TRY(file_out_open(&out, to, 0, p->err));
    enum sluice_status status = copy_bytes(p, in, &out);
    if (status == SLUICE_OK) return file_out_commit(&out, p->err);
    file_out_abort(&out);
    return status;
}

/* Copies a file of the model; one that is not there is left out. */
static enum sluice_status copy_file(struct packer *p, const char *name)
{
    struct file_in in;
    size_t cap = strlen(p->cp.path) + strlen(name) + 2;
    char *from = malloc(cap), *to = packer_path(p, name);
    enum sluice_status status = from && to ? SLUICE_OK : err_nomem(p->err, name, cap);
    if (status == SLUICE_OK) {
        snprintf(from, cap, "%s/%s", p->cp.path, name);
        status = file_in_open(&in, from, p->err);
    }
    if (status == SLUICE_OK) {
        status = copy_open(p, &in, to);
        file_in_close(&in);
    } else if (status == SLUICE_E_NOT_FOUND) {
        status = SLUICE_OK;
    }
    free(from);
    free(to);
    return status;
}

static enum sluice_status write_lines(struct packer *p, struct file_out *out)
{
    char text[96];
    uint64_t bytes = 0;
    for (size_t s = 0; s < p->plan.n_shards; s++)
        bytes += p->plan.shards[s].bytes - p->plan.shards[s].header_bytes;
    int n = snprintf(text, sizeof text,
                     "{\n \"metadata\": {\"total_size\": %" PRIu64 "},\n \"weight_map\": {", bytes);
    TRY(file_out_write(out, text, (size_t)n, p->err));
    for (size_t s = 0; s < p->plan.n_shards; s++) {
        size_t len;
        char *lines = pack_plan_index_lines(&p->plan, &p->plan.shards[s], &len);
        if (!lines) return err_nomem(p->err, index_name, 0);
        enum sluice_status status = file_out_write(out, lines, len, p->err);
        free(lines);
        if (status != SLUICE_OK) return status;
    }
    return file_out_write(out, "\n }\n}\n", 6, p->err);
}

static enum sluice_status write_index(struct packer *p)
{
    struct file_out out;
    char *path = packer_path(p, index_name);
    if (!path) return err_nomem(p->err, index_name, 0);
    enum sluice_status status = file_out_open(&out, path, 0, p->err);
    free(path);
    if (status != SLUICE_OK) return status;
    status = write_lines(p, &out);
    if (status == SLUICE_OK) return file_out_commit(&out, p->err);
    file_out_abort(&out);
    return status;
}

enum sluice_status pack_write_rest(struct packer *p)
{
    for (size_t i = 0; i < COUNT_OF(copied); i++) TRY(copy_file(p, copied[i]));
    TRY(write_index(p));
    return copy_file(p, config_name);
}
