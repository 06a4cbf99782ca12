/* sluice_pack: a model folder becomes a packed store. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/options.h"
#include "io/file.h"
#include "pack/packer.h"

/* With its header, which lists at most 4096 experts, a file then has at most 4 GiB. */
static const uint64_t default_shard_bytes = (4ull << 30) - (32u << 20);
/* Between two calls of progress. */
static const uint64_t tell_bytes = 64u << 10;

void sluice_pack_options_default(struct sluice_pack_options *options)
{
    *options = (struct sluice_pack_options){.size = sizeof *options};
}

char *packer_path(const struct packer *p, const char *name)
{
    size_t cap = strlen(p->folder) + strlen(name) + 2;
    char *path = malloc(cap);
    if (path) snprintf(path, cap, "%s/%s", p->folder, name);
    return path;
}

/* Progress */

static void tell(struct packer *p)
{
    p->told = p->progress;
    if (p->options.progress)
        p->options.progress(p->options.user, p->doing, p->progress, p->progress_total);
}

void packer_phase(struct packer *p, const char *doing, uint64_t total)
{
    p->doing = doing;
    p->progress = 0;
    p->progress_total = total;
    tell(p);
}

static size_t n_done(const struct packer *p)
{
    size_t n = 0;
    for (size_t s = 0; s < p->plan.n_shards; s++) n += p->done[s];
    return n;
}

enum sluice_status packer_advance(struct packer *p, uint64_t bytes)
{
    p->progress += bytes;
    if (p->progress - p->told < tell_bytes && p->progress < p->progress_total) return SLUICE_OK;
    tell(p);
    if (!p->options.cancelled || !p->options.cancelled(p->options.user)) return SLUICE_OK;
    return err_set(p->err, SLUICE_E_CANCELLED, "%s '%s' was stopped", p->doing, p->folder);
}

/* Puts "; " and the hint behind the message. */
static enum sluice_status add_hint(struct packer *p, const char *hint)
{
    struct sluice_error why = *p->err;
    return err_set(p->err, why.code, "%.400s; %s", why.message, hint);
}

/* What failed, and that what is complete is not lost. */
static enum sluice_status resumable(struct packer *p, enum sluice_status status)
{
    char hint[96];
    if (status != SLUICE_E_IO && status != SLUICE_E_CANCELLED) return status;
    snprintf(hint, sizeof hint, "%zu of %zu shards are complete, packing again goes on from there",
             n_done(p), p->plan.n_shards);
    return add_hint(p, hint);
}

/* The model */

static void add_text(struct checksum_state *state, const char *text)
{
    checksum_add(state, text, strlen(text) + 1);
}

static void add_number(struct checksum_state *state, uint64_t number)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(number >> 8 * i);
    checksum_add(state, bytes, sizeof bytes);
}

static void add_directory(struct checksum_state *state, const struct checkpoint *cp)
{
    for (size_t i = 0; i < cp->n_tensors; i++) {
        const struct tensor *t = &cp->tensors[i];
        add_text(state, t->name);
        add_text(state, dtype_name(t->dtype));
        add_text(state, checkpoint_file_name(cp, t));
        add_number(state, t->rank);
        for (uint32_t d = 0; d < t->rank; d++) add_number(state, t->shape[d]);
        add_number(state, t->offset);
    }
}

/* Config and directory of tensors, not the weights themselves. */
static enum sluice_status take_fingerprint(struct packer *p)
{
    static const uint64_t config_max_bytes = 100000000;
    size_t len, cap = strlen(p->cp.path) + sizeof "/config.json";
    char *config, *path = malloc(cap);
    if (!path) return err_nomem(p->err, "config.json", cap);
    snprintf(path, cap, "%s/config.json", p->cp.path);
    enum sluice_status status = file_read(path, config_max_bytes, &config, &len, p->err);
    free(path);
    if (status != SLUICE_OK) return status;
    checksum_reset(p->unit_sum);
    checksum_add(p->unit_sum, config, len);
    add_directory(p->unit_sum, &p->cp);
    p->made.fingerprint = checksum_end(p->unit_sum);
    free(config);
    return SLUICE_OK;
}

static enum sluice_status open_sources(struct packer *p)
{
    size_t n = p->cp.n_files;
    p->sources = calloc(n, sizeof *p->sources);
    p->made.sources = arena_alloc(&p->made.arena, n, sizeof *p->made.sources);
    if (!p->sources || !p->made.sources) return err_nomem(p->err, "files of the model", n);
    for (; p->n_sources < n; p->n_sources++) {
        const struct file_map *file = &p->cp.files[p->n_sources];
        struct file_in *in = &p->sources[p->n_sources];
        TRY(file_in_open(in, file->path, p->err));
        if (in->bytes != file->bytes)
            return err_set(p->err, SLUICE_E_IO, "file '%s' changed its size while it was opened",
                           file->path);
        p->made.sources[p->made.n_sources++] =
            (struct pack_source){.name = file_base_name(file->path),
                                 .bytes = in->bytes,
                                 .modified_ns = in->modified_ns > 0 ? in->modified_ns : 0};
    }
    return SLUICE_OK;
}

/* Room for the checksums of all shards. */
static enum sluice_status prepare_manifest(struct packer *p)
{
    struct pack_manifest *m = &p->made;
    m->shards = arena_alloc(&m->arena, p->plan.n_shards, sizeof *m->shards);
    p->done = calloc(p->plan.n_shards, sizeof *p->done);
    if (!m->shards || !p->done) return err_nomem(p->err, PACK_MANIFEST_NAME, p->plan.n_shards);
    for (; m->n_shards < p->plan.n_shards; m->n_shards++) {
        const struct plan_shard *s = &p->plan.shards[m->n_shards];
        struct pack_shard *sums = &m->shards[m->n_shards];
        *sums = (struct pack_shard){.name = s->name, .bytes = s->bytes, .n_experts = s->n_experts};
        sums->n_tensors = s->end - s->first - s->n_experts;
        sums->experts = arena_alloc(&m->arena, sums->n_experts + 1, sizeof *sums->experts);
        sums->tensors = arena_alloc(&m->arena, sums->n_tensors + 1, sizeof *sums->tensors);
        if (!sums->experts || !sums->tensors)
            return err_nomem(p->err, PACK_MANIFEST_NAME, s->bytes);
    }
    return SLUICE_OK;
}

static enum sluice_status prepare(struct packer *p, const char *model)
{
    struct model_options options = {.log = &p->log};
    TRY(checkpoint_open(&p->cp, model, p->err));
    if (p->cp.gguf)
        return err_set(p->err, SLUICE_E_UNSUPPORTED,
                       "'%s' is a GGUF model; its types have no names in the safetensors files of "
                       "a pack, so it can only be streamed as it is",
                       model);
    TRY(model_init(&p->model, &p->cp, &options, p->err));
    p->piece = malloc(PIECE_BYTES);
    p->unit_sum = checksum_begin();
    p->part_sum = checksum_begin();
    if (!p->piece || !p->unit_sum || !p->part_sum) return err_nomem(p->err, "packing", PIECE_BYTES);
    TRY(take_fingerprint(p));
    return open_sources(p);
}

static enum sluice_status make_plan(struct packer *p)
{
    struct pack_manifest *m = &p->made;
    m->shard_bytes = p->options.shard_bytes ? p->options.shard_bytes : p->found.shard_bytes;
    if (m->shard_bytes == 0) m->shard_bytes = default_shard_bytes;
    TRY(pack_plan_make(&p->plan, &p->cp, &p->model, m->shard_bytes, p->err));
    return prepare_manifest(p);
}

/* Packing */

static uint64_t shard_bytes(const struct packer *p, bool done)
{
    uint64_t bytes = 0;
    for (size_t s = 0; s < p->plan.n_shards; s++)
        if (p->done[s] == done) bytes += p->plan.shards[s].bytes;
    return bytes;
}

/* Shards of an earlier call are kept when their checksums hold. */
static enum sluice_status check_kept(struct packer *p)
{
    if (n_done(p) == 0) return SLUICE_OK;
    packer_phase(p, "checking", shard_bytes(p, true));
    for (size_t s = 0; s < p->plan.n_shards; s++) {
        if (!p->done[s]) continue;
        enum sluice_status status = pack_check_shard(p, s);
        if (status == SLUICE_E_CANCELLED || status == SLUICE_E_NOMEM) return status;
        if (status == SLUICE_OK) continue;
        p->done[s] = false;
        log_write(&p->log, SLUICE_LOG_WARNING, "%s; the shard is written again", p->err->message);
    }
    return SLUICE_OK;
}

static enum sluice_status write_missing(struct packer *p)
{
    packer_phase(p, "packing", shard_bytes(p, false));
    TRY(pack_unfinish(p));
    TRY(pack_write_manifest(p));
    for (size_t s = 0; s < p->plan.n_shards; s++) {
        if (p->done[s]) continue;
        TRY(pack_write_shard(p, s));
        p->done[s] = true;
        TRY(pack_write_manifest(p));
    }
    return pack_write_rest(p);
}

static enum sluice_status complete(struct packer *p)
{
    if (pack_is_complete(p)) {
        log_write(&p->log, SLUICE_LOG_INFO, "the pack in '%s' is complete already", p->folder);
        return SLUICE_OK;
    }
    TRY(pack_check_room(p));
    TRY(check_kept(p));
    TRY(pack_check_room(p));
    return write_missing(p);
}

static enum sluice_status verify(struct packer *p)
{
    packer_phase(p, "verifying", p->plan.bytes);
    for (size_t s = 0; s < p->plan.n_shards; s++) {
        enum sluice_status status = pack_check_shard(p, s);
        if (status == SLUICE_E_FORMAT) return add_hint(p, "remove the file and pack again");
        if (status != SLUICE_OK) return status;
    }
    return SLUICE_OK;
}

static enum sluice_status pack(struct packer *p, const char *model)
{
    TRY(prepare(p, model));
    TRY(pack_open_folder(p));
    TRY(make_plan(p));
    TRY(pack_take_over(p));
    enum sluice_status status = complete(p);
    if (status != SLUICE_OK) return resumable(p, status);
    return p->options.verify ? verify(p) : SLUICE_OK;
}

static void release(struct packer *p)
{
    for (uint32_t i = 0; i < p->n_sources; i++) file_in_close(&p->sources[i]);
    if (p->folder_fd >= 0) close(p->folder_fd);
    free(p->sources);
    free(p->done);
    free(p->piece);
    checksum_free(p->unit_sum);
    checksum_free(p->part_sum);
    manifest_release(&p->found);
    manifest_release(&p->made);
    pack_plan_release(&p->plan);
    model_release(&p->model);
    checkpoint_release(&p->cp);
}

enum sluice_status sluice_pack(const char *model, const char *folder,
                               const struct sluice_pack_options *options, struct sluice_error *err)
{
    struct sluice_error own = {0};
    struct packer p = {.folder = folder, .folder_fd = -1, .err = err ? err : &own};
    sluice_pack_options_default(&p.options);
    TRY(options_take(&p.options, sizeof p.options, options, "pack", err));
    if (!model || !folder)
        return err_set(err, SLUICE_E_ARGUMENT, "no path of a model or of a folder was given");
    p.log = (struct log){p.options.log, p.options.log_user};
    enum sluice_status status = pack(&p, model);
    release(&p);
    return status;
}
