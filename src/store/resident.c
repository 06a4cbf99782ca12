#include "store/resident.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/populate.h"

enum { PIECE_BYTES = 4 << 20, RESULTS = 32 };

/* One array of a matrix: where it is mapped, its size, and the pointer to move. */
struct array_ref {
    const uint8_t **pointer;
    uint64_t bytes;
};

static uint32_t list_arrays(struct wmat *w, struct array_ref out[3])
{
    struct wmat_bytes bytes = wmat_array_bytes(w);
    uint32_t n = 0;
    out[n++] = (struct array_ref){&w->data, bytes.data};
    if (bytes.scales) out[n++] = (struct array_ref){&w->scales, bytes.scales};
    if (bytes.biases) out[n++] = (struct array_ref){&w->biases, bytes.biases};
    return n;
}

/* Room for bytes that begin anywhere in a window that begins at a multiple of align. */
static size_t room_for(uint64_t bytes, uint32_t align)
{
    return align_up((size_t)bytes + align, max_size(align, MEM_ALIGN));
}

size_t resident_bytes(struct wmat *const *matrices, uint32_t n, uint32_t align)
{
    size_t total = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct array_ref arrays[3];
        uint32_t n_arrays = list_arrays(matrices[i], arrays);
        for (uint32_t a = 0; a < n_arrays; a++) total += room_for(arrays[a].bytes, align);
    }
    return total;
}

struct loader {
    const struct file_map *files;
    uint32_t n_files;
    struct reader *reader;
    uint64_t done, total; /* bytes of arrays */
    const struct resident_options *options;
    const uint8_t *failed;
    struct sluice_error *err;
};

/* A read's tag: how many bytes it needs, and how many of them lie before the array. */
static uint64_t tag_of(uint64_t need, uint64_t before)
{
    return before << 32 | need;
}

static uint64_t tag_need(uint64_t tag)
{
    return tag & UINT32_MAX;
}

static uint64_t tag_before(uint64_t tag)
{
    return tag >> 32;
}

static enum sluice_status take_one(struct loader *l)
{
    struct read_result r;
    if (reader_poll(l->reader, &r, 1, true) == 0) return SLUICE_OK;
    l->done += tag_need(r.tag) - tag_before(r.tag);
    if (r.error == 0) {
        if (l->options->progress) l->options->progress(l->options->user, l->done, l->total);
        return SLUICE_OK;
    }
    l->failed = l->files[r.file].data + r.offset + tag_need(r.tag) - 1;
    return err_set(l->err, SLUICE_E_IO, "reading file '%s' at offset %llu: %s",
                   l->files[r.file].path, (unsigned long long)r.offset, reader_error_text(r.error));
}

static bool find_file(const struct loader *l, const struct array_ref *a, uint32_t *file,
                      uint64_t *offset)
{
    for (uint32_t f = 0; f < l->n_files; f++) {
        uintptr_t base = (uintptr_t)l->files[f].data, at = (uintptr_t)*a->pointer;
        if (at < base || at - base > l->files[f].bytes) continue;
        if (a->bytes > l->files[f].bytes - (at - base)) continue;
        *file = f;
        *offset = at - base;
        return true;
    }
    return false;
}

/* Starts the reads of one array into room at to; the pointer moves at once. */
static enum sluice_status load_array(struct loader *l, const struct array_ref *a, uint8_t *to)
{
    uint32_t file = 0;
    uint64_t offset = 0;
    if (!find_file(l, a, &file, &offset))
        return err_set(l->err, SLUICE_E_INTERNAL, "a dense weight lies in no file");
    uint32_t align = reader_alignment(l->reader, file);
    uint64_t begin = offset / align * align, need_end = offset + a->bytes;
    *a->pointer = to + (offset - begin);
    for (uint64_t at = begin; at < need_end; at += PIECE_BYTES) {
        uint64_t need = need_end - at < PIECE_BYTES ? need_end - at : PIECE_BYTES;
        struct read_op op = {.file = file,
                             .offset = at,
                             .bytes = (uint32_t)align_up((size_t)need, align),
                             .need = (uint32_t)need,
                             .into = to + (at - begin),
                             .tag = tag_of(need, at < offset ? offset - at : 0)};
        TRY(reader_submit(l->reader, &op, l->err));
        while (reader_pending(l->reader) > 2 * (size_t)RESULTS) TRY(take_one(l));
    }
    return SLUICE_OK;
}

static enum sluice_status load_all(struct loader *l, struct wmat *const *matrices, uint32_t n,
                                   uint8_t *slab, uint32_t align)
{
    size_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct array_ref arrays[3];
        uint32_t n_arrays = list_arrays(matrices[i], arrays);
        for (uint32_t a = 0; a < n_arrays; a++) {
            TRY(load_array(l, &arrays[a], slab + at));
            at += room_for(arrays[a].bytes, align);
        }
    }
    while (reader_pending(l->reader)) TRY(take_one(l));
    return SLUICE_OK;
}

static uint64_t count_bytes(struct wmat *const *matrices, uint32_t n)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct array_ref arrays[3];
        uint32_t n_arrays = list_arrays(matrices[i], arrays);
        for (uint32_t a = 0; a < n_arrays; a++) total += arrays[a].bytes;
    }
    return total;
}

/* Memory for the slab, which others begin to take while the first reads are on their way. */
static enum sluice_status make_slab(struct resident *resident, size_t bytes,
                                    const struct resident_options *o, struct populate **populate,
                                    struct sluice_error *err)
{
    if (!mem_reserve(bytes, &resident->slab)) return err_nomem(err, "dense weights", bytes);
    resident->slab_bytes = bytes;
    (void)madvise(resident->slab, bytes, MADV_HUGEPAGE);
    mem_spread(resident->slab, bytes, o->reader.memory_nodes);
    struct mem_range slab = {resident->slab, bytes};
    *populate = populate_start(&slab, 1, bytes ? o->n_populaters : 0);
    return SLUICE_OK;
}

enum sluice_status resident_load(struct resident *resident, const struct file_map *files,
                                 uint32_t n_files, struct wmat *const *matrices, uint32_t n,
                                 const struct resident_options *options, const uint8_t **failed,
                                 struct sluice_error *err)
{
    struct loader l = {.files = files, .n_files = n_files, .options = options, .err = err};
    struct populate *populate = NULL;
    *resident = (struct resident){0};
    if (failed) *failed = NULL;
    TRY(reader_open_mapped(&l.reader, files, n_files, &options->reader, err));
    uint32_t align = MEM_ALIGN;
    for (uint32_t f = 0; f < n_files; f++) align = max_u32(align, reader_alignment(l.reader, f));
    l.total = count_bytes(matrices, n);
    enum sluice_status status =
        make_slab(resident, resident_bytes(matrices, n, align), options, &populate, err);
    if (status == SLUICE_OK) status = load_all(&l, matrices, n, resident->slab, align);
    populate_stop(&populate);
    reader_close(&l.reader);
    if (status != SLUICE_OK) resident_release(resident);
    if (failed) *failed = l.failed;
    return status;
}

void resident_release(struct resident *resident)
{
    mem_unreserve(resident->slab, resident->slab_bytes);
    *resident = (struct resident){0};
}
