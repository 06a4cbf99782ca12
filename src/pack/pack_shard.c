/* Writing one shard, and comparing one with its checksums: the same walk over its bytes. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "io/file_out.h"
#include "pack/packer.h"

/* A walk over the bytes of a shard in order. */
struct walk {
    struct packer *p;
    const struct plan_shard *shard;
    struct pack_shard *sums; /* of the shard: written or compared */
    size_t n_experts, n_tensors;
    struct file_out *out;     /* writing: pieces are collected in p->piece */
    size_t filled;            /* of p->piece */
    const struct file_in *in; /* comparing */
    uint64_t at;              /* offset in the shard's file */
};

static enum sluice_status flush(struct walk *w)
{
    size_t n = w->filled;
    w->filled = 0;
    TRY(file_out_write(w->out, w->p->piece, n, w->p->err));
    return packer_advance(w->p, n);
}

/* The next bytes of an entry, at most max, from the source on their way to the shard. */
static enum sluice_status take_from_source(struct walk *w, const struct pack_entry *e, uint64_t at,
                                           size_t *n, const uint8_t **data)
{
    struct packer *p = w->p;
    if (w->filled == PIECE_BYTES) TRY(flush(w));
    *n = min_size(*n, PIECE_BYTES - w->filled);
    *data = p->piece + w->filled;
    if (e->filling)
        memset(p->piece + w->filled, 0, *n);
    else
        TRY(file_in_read(&p->sources[e->from.file], e->from.offset + at, p->piece + w->filled, *n,
                         p->err));
    w->filled += *n;
    return SLUICE_OK;
}

static enum sluice_status take_from_shard(struct walk *w, size_t *n, const uint8_t **data)
{
    *n = min_size(*n, PIECE_BYTES);
    *data = w->p->piece;
    TRY(file_in_read(w->in, w->at, w->p->piece, *n, w->p->err));
    return packer_advance(w->p, *n);
}

static bool all_zero(const uint8_t *data, size_t n)
{
    return n == 0 || (data[0] == 0 && memcmp(data, data + 1, n - 1) == 0);
}

static enum sluice_status damaged(const struct walk *w, const struct pack_unit *u,
                                  const struct pack_entry *e)
{
    char where[64] = "";
    if (u->bank != NO_BANK)
        snprintf(where, sizeof where, "layer %u, expert %u: ", w->p->model.banks[u->bank]->layer,
                 u->index);
    return err_set(w->p->err, SLUICE_E_FORMAT,
                   "%stensor '%s' of file '%s/%s' is damaged: its checksum is not the one "
                   "in " PACK_MANIFEST_NAME,
                   where, e->name, w->p->folder, w->shard->name);
}

/* One tensor: adds its bytes to the unit's checksum and gives the tensor's own. */
static enum sluice_status walk_entry(struct walk *w, const struct pack_unit *u,
                                     const struct pack_entry *e, struct checksum *sum)
{
    struct packer *p = w->p;
    checksum_reset(p->part_sum);
    for (uint64_t at = 0; at < e->bytes;) {
        const uint8_t *data;
        size_t n = (size_t)(e->bytes - at);
        TRY(w->out ? take_from_source(w, e, at, &n, &data) : take_from_shard(w, &n, &data));
        if (e->filling && !all_zero(data, n)) return damaged(w, u, e);
        if (!e->filling) checksum_add(p->unit_sum, data, n);
        checksum_add(p->part_sum, data, n);
        at += n;
        w->at += n;
    }
    *sum = checksum_end(p->part_sum);
    return SLUICE_OK;
}

static enum sluice_status note_tensor(struct walk *w, const struct pack_unit *u,
                                      const struct pack_entry *e)
{
    struct checksum sum = checksum_end(w->p->unit_sum);
    struct pack_tensor *t = &w->sums->tensors[w->n_tensors++];
    if (w->out)
        *t = (struct pack_tensor){w->p->cp.tensors[u->index].name, sum};
    else if (!checksum_equal(t->sum, sum))
        return damaged(w, u, e);
    return SLUICE_OK;
}

static enum sluice_status note_expert(struct walk *w, const struct pack_unit *u,
                                      const struct pack_entry *entries, size_t n,
                                      const uint32_t parts[EXPERT_PARTS])
{
    struct checksum sum = checksum_end(w->p->unit_sum);
    struct pack_expert *x = &w->sums->experts[w->n_experts++];
    if (w->out) {
        *x = (struct pack_expert){
            .layer = w->p->model.banks[u->bank]->layer, .expert = u->index, .sum = sum};
        memcpy(x->part, parts, sizeof x->part);
        return SLUICE_OK;
    }
    if (checksum_equal(x->sum, sum)) return SLUICE_OK;
    for (size_t i = 0; i < n; i++)
        if (!entries[i].filling && x->part[entries[i].part] != parts[entries[i].part])
            return damaged(w, u, &entries[i]);
    return damaged(w, u, &entries[0]);
}

static enum sluice_status walk_unit(struct walk *w, const struct pack_unit *u)
{
    struct pack_entry entries[MAX_ENTRIES];
    uint32_t parts[EXPERT_PARTS] = {0};
    size_t n = pack_plan_entries(&w->p->plan, u, entries);
    checksum_reset(w->p->unit_sum);
    for (size_t i = 0; i < n; i++) {
        struct checksum sum;
        TRY(walk_entry(w, u, &entries[i], &sum));
        if (!entries[i].filling) parts[entries[i].part] = (uint32_t)sum.low;
    }
    return u->bank == NO_BANK ? note_tensor(w, u, &entries[0])
                              : note_expert(w, u, entries, n, parts);
}

static enum sluice_status walk_units(struct walk *w)
{
    w->at = w->shard->header_bytes;
    for (size_t u = w->shard->first; u < w->shard->end; u++)
        TRY(walk_unit(w, &w->p->plan.units[u]));
    return w->out ? flush(w) : SLUICE_OK;
}

static enum sluice_status write_all(struct walk *w)
{
    size_t len;
    char *header = pack_plan_header(&w->p->plan, w->shard, &len);
    if (!header) return err_nomem(w->p->err, w->shard->name, 0);
    enum sluice_status status = file_out_write(w->out, header, len, w->p->err);
    free(header);
    if (status == SLUICE_OK) status = packer_advance(w->p, len);
    return status == SLUICE_OK ? walk_units(w) : status;
}

enum sluice_status pack_write_shard(struct packer *p, size_t shard)
{
    struct file_out out;
    struct walk w = {
        .p = p, .shard = &p->plan.shards[shard], .sums = &p->made.shards[shard], .out = &out};
    char *path = packer_path(p, w.shard->name);
    if (!path) return err_nomem(p->err, w.shard->name, 0);
    enum sluice_status status = file_out_open(&out, path, w.shard->bytes, p->err);
    free(path);
    if (status != SLUICE_OK) return status;
    status = write_all(&w);
    if (status == SLUICE_OK) return file_out_commit(&out, p->err);
    file_out_abort(&out);
    return status;
}

static enum sluice_status check_header(struct walk *w)
{
    size_t len;
    char *wanted = pack_plan_header(&w->p->plan, w->shard, &len);
    char *header = wanted ? malloc(len) : NULL;
    enum sluice_status status = header ? file_in_read(w->in, 0, header, len, w->p->err)
                                       : err_nomem(w->p->err, w->shard->name, 0);
    if (status == SLUICE_OK && memcmp(header, wanted, len) != 0)
        status =
            err_set(w->p->err, SLUICE_E_FORMAT, "file '%s': its header is damaged", w->in->path);
    free(header);
    free(wanted);
    return status == SLUICE_OK ? packer_advance(w->p, len) : status;
}

static enum sluice_status check_all(struct walk *w)
{
    if (w->in->bytes != w->shard->bytes)
        return err_set(w->p->err, SLUICE_E_FORMAT,
                       "file '%s' has %" PRIu64 " bytes instead of %" PRIu64, w->in->path,
                       w->in->bytes, w->shard->bytes);
    file_in_drop_cache(w->in);
    TRY(check_header(w));
    return walk_units(w);
}

enum sluice_status pack_check_shard(struct packer *p, size_t shard)
{
    struct file_in in;
    struct walk w = {
        .p = p, .shard = &p->plan.shards[shard], .sums = &p->made.shards[shard], .in = &in};
    char *path = packer_path(p, w.shard->name);
    if (!path) return err_nomem(p->err, w.shard->name, 0);
    enum sluice_status status = file_in_open(&in, path, p->err);
    if (status == SLUICE_OK) {
        status = check_all(&w);
        file_in_close(&in);
    }
    free(path);
    return status;
}
