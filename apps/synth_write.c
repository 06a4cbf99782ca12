/* Writing a synthetic checkpoint: shards of at most 4 GiB, their index, and the config. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "buffer.h"
#include "interrupt.h"
#include "report.h"
#include "synth.h"

enum { CHUNK_BYTES = 4 << 20 };
static const uint64_t shard_bytes = 4ull << 30;

/* splitmix64 (Steele, Lea, Flood, OOPSLA 2014) */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* The nearest bf16; never NaN here. */
static uint16_t to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float uniform(const struct synth_tensor *t, uint32_t random)
{
    return t->lo + (t->hi - t->lo) * ((float)(random >> 8) * 0x1p-24f);
}

static void fill_bf16(const struct synth_tensor *t, uint64_t *state, uint16_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = to_bf16(t->fill == SYNTH_CONST ? t->lo
                                                : uniform(t, (uint32_t)(next_random(state) >> 32)));
}

void synth_fill(const struct synth_tensor *t, uint64_t *state, void *out, size_t bytes)
{
    uint8_t *to = out;
    if (t->fill == SYNTH_CONST || t->fill == SYNTH_UNIFORM) {
        fill_bf16(t, state, out, bytes / 2);
    } else if (t->fill == SYNTH_F32) {
        float *f = out;
        for (size_t i = 0; i < bytes / 4; i++)
            f[i] = uniform(t, (uint32_t)(next_random(state) >> 32));
    } else if (t->fill == SYNTH_BYTES) {
        for (size_t i = 0; i < bytes; i++)
            to[i] = (uint8_t)uniform(t, (uint32_t)(next_random(state) >> 32));
    } else {
        for (size_t i = 0; i < bytes; i += 8) {
            uint64_t r = next_random(state);
            memcpy(to + i, &r, bytes - i < 8 ? bytes - i : 8);
        }
    }
}

/* The tensors of one shard: [first, end). */
struct shard {
    size_t first, end;
};

struct writer {
    const struct synth_model *m;
    const char *folder;
    struct shard *shards;
    size_t n_shards;
    uint64_t state;
    uint64_t done;
    uint8_t *chunk;
    struct progress *progress;
    struct sluice_error *err;
};

static void shard_name(char out[64], size_t i, size_t n)
{
    snprintf(out, 64, "model-%05zu-of-%05zu.safetensors", i + 1, n);
}

static enum sluice_status cut_shards(struct writer *w)
{
    size_t n = 1;
    uint64_t bytes = 0;
    w->shards = calloc(w->m->n + 1, sizeof *w->shards);
    if (!w->shards) return fail_nomem(w->err, "shards");
    for (size_t i = 0; i < w->m->n; i++) {
        if (bytes && bytes + w->m->tensors[i].bytes > shard_bytes) {
            w->shards[n - 1].end = i;
            w->shards[n++].first = i;
            bytes = 0;
        }
        bytes += w->m->tensors[i].bytes;
    }
    w->shards[n - 1].end = w->m->n;
    w->n_shards = n;
    return SLUICE_OK;
}

static enum sluice_status check_room(const struct writer *w)
{
    struct statvfs fs;
    if (statvfs(w->folder, &fs) != 0)
        return fail(w->err, SLUICE_E_IO, "folder '%s': %s", w->folder, strerror(errno));
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (free_bytes > w->m->bytes + (64u << 20)) return SLUICE_OK;
    return fail(w->err, SLUICE_E_IO, "folder '%s': %.2f GiB are needed and %.2f GiB are free",
                w->folder, (double)w->m->bytes / 0x1p30, (double)free_bytes / 0x1p30);
}

static enum sluice_status write_bytes(const struct writer *w, int fd, const char *name,
                                      const void *data, size_t len)
{
    const char *p = data;
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return fail(w->err, SLUICE_E_IO, "writing '%s/%s': %s", w->folder, name,
                        n < 0 ? strerror(errno) : "nothing was taken");
        p += n;
        len -= (size_t)n;
    }
    return SLUICE_OK;
}

/* Length, then the JSON object of the shard's tensors, padded so that the data is aligned. */
static enum sluice_status write_header(const struct writer *w, int fd, const char *name,
                                       const struct shard *s)
{
    struct buffer json = {0};
    uint64_t at = 0;
    buffer_printf(&json, "{\"__metadata__\":{\"format\":\"%s\"}",
                  strncmp(w->m->tensors[0].name, "language_model.", 15) == 0 ? "mlx" : "pt");
    for (size_t i = s->first; i < s->end; i++) {
        const struct synth_tensor *t = &w->m->tensors[i];
        buffer_printf(&json, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, t->dtype);
        for (uint32_t d = 0; d < t->rank; d++)
            buffer_printf(&json, d ? ",%llu" : "%llu", (unsigned long long)t->shape[d]);
        buffer_printf(&json, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                      (unsigned long long)(at + t->bytes));
        at += t->bytes;
    }
    buffer_text(&json, "}");
    while (!json.failed && json.len % 8 != 0) buffer_text(&json, " ");
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)json.len >> 8 * i);
    enum sluice_status status = json.failed ? fail_nomem(w->err, "header")
                                            : write_bytes(w, fd, name, length, sizeof length);
    if (status == SLUICE_OK) status = write_bytes(w, fd, name, json.data, json.len);
    buffer_release(&json);
    return status;
}

static enum sluice_status write_tensor(struct writer *w, int fd, const char *name,
                                       const struct synth_tensor *t)
{
    for (uint64_t left = t->bytes; left;) {
        size_t n = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
        synth_fill(t, &w->state, w->chunk, n);
        TRY(write_bytes(w, fd, name, w->chunk, n));
        left -= n;
        w->done += n;
        progress_update(w->progress, (size_t)(w->done >> 20));
        if (interrupt_signal()) return fail(w->err, SLUICE_E_CANCELLED, "interrupted");
    }
    return SLUICE_OK;
}

static enum sluice_status write_shard(struct writer *w, size_t i)
{
    char name[64];
    struct buffer part = {0}, path = {0};
    shard_name(name, i, w->n_shards);
    buffer_printf(&path, "%s/%s", w->folder, name);
    buffer_printf(&part, "%s/.%s.part", w->folder, name);
    int fd = part.failed || path.failed
                 ? -1
                 : open(part.data, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    enum sluice_status status = SLUICE_OK;
    if (fd < 0) status = fail(w->err, SLUICE_E_IO, "file '%s': %s", part.data, strerror(errno));
    if (status == SLUICE_OK) status = write_header(w, fd, name, &w->shards[i]);
    for (size_t t = w->shards[i].first; t < w->shards[i].end && status == SLUICE_OK; t++)
        status = write_tensor(w, fd, name, &w->m->tensors[t]);
    if (fd >= 0 && close(fd) != 0 && status == SLUICE_OK)
        status = fail(w->err, SLUICE_E_IO, "file '%s': %s", part.data, strerror(errno));
    if (status == SLUICE_OK && rename(part.data, path.data) != 0)
        status = fail(w->err, SLUICE_E_IO, "file '%s': %s", path.data, strerror(errno));
    if (status != SLUICE_OK && fd >= 0) unlink(part.data);
    buffer_release(&part);
    buffer_release(&path);
    return status;
}

static enum sluice_status write_json(const struct writer *w, const char *name, const json_t *json)
{
    struct buffer path = {0};
    buffer_printf(&path, "%s/%s", w->folder, name);
    bool ok = !path.failed && json && json_dump_file(json, path.data, JSON_INDENT(1)) == 0;
    enum sluice_status status =
        ok ? SLUICE_OK
           : fail(w->err, SLUICE_E_IO, "file '%s/%s' cannot be written", w->folder, name);
    buffer_release(&path);
    return status;
}

static enum sluice_status write_index(const struct writer *w)
{
    json_t *map = json_object();
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)w->m->bytes,
                              "weight_map", map);
    for (size_t i = 0; index && i < w->n_shards; i++) {
        char name[64];
        shard_name(name, i, w->n_shards);
        for (size_t t = w->shards[i].first; t < w->shards[i].end; t++)
            json_object_set_new(map, w->m->tensors[t].name, json_string(name));
    }
    enum sluice_status status = write_json(w, "model.safetensors.index.json", index);
    json_decref(index);
    return status;
}

static enum sluice_status write_all(struct writer *w)
{
    TRY(cut_shards(w));
    TRY(check_room(w));
    w->chunk = malloc(CHUNK_BYTES);
    if (!w->chunk) return fail_nomem(w->err, "a piece of a tensor");
    progress_begin(w->progress, "writing", "MiB", (size_t)(w->m->bytes >> 20));
    for (size_t i = 0; i < w->n_shards; i++) TRY(write_shard(w, i));
    progress_end(w->progress);
    TRY(write_index(w));
    return write_json(w, "config.json", w->m->config);
}

enum sluice_status synth_write(const struct synth_model *m, const char *folder, uint64_t seed,
                               struct progress *progress, struct sluice_error *err)
{
    struct writer w = {.m = m, .folder = folder, .state = seed, .progress = progress, .err = err};
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return fail(err, SLUICE_E_IO, "folder '%s': %s", folder, strerror(errno));
    struct buffer config = {0};
    buffer_printf(&config, "%s/config.json", folder);
    bool taken = !config.failed && access(config.data, F_OK) == 0;
    buffer_release(&config);
    if (taken) return fail(err, SLUICE_E_ARGUMENT, "folder '%s' holds a model already", folder);
    enum sluice_status status = write_all(&w);
    free(w.shards);
    free(w.chunk);
    return status;
}
