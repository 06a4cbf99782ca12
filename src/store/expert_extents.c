#include "store/expert_extents.h"

#include "base/bits.h"

void extents_parts(const struct expert_view *v, struct part_ref parts[EXPERT_PARTS])
{
    const struct wmat *mats[3] = {&v->gate, &v->up, &v->down};
    for (uint32_t m = 0; m < 3; m++) {
        const struct wmat *w = mats[m];
        struct wmat_bytes bytes = wmat_array_bytes(w);
        parts[3 * m] = (struct part_ref){w->data, bytes.data};
        parts[3 * m + 1] = (struct part_ref){w->scales, bytes.scales};
        parts[3 * m + 2] = (struct part_ref){w->biases, bytes.biases};
    }
}

static bool find_part(const struct part_ref *part, const struct file_map *files, uint32_t n_files,
                      struct extent *out)
{
    for (uint32_t f = 0; f < n_files; f++) {
        uintptr_t base = (uintptr_t)files[f].data;
        uintptr_t at = (uintptr_t)part->data;
        if (at < base || at - base > files[f].bytes) continue;
        if (part->bytes > files[f].bytes - (at - base)) continue;
        *out = (struct extent){f, at - base, part->bytes};
        return true;
    }
    return false;
}

bool extents_find(const struct expert_view *mapped, const struct file_map *files, uint32_t n_files,
                  struct expert_extents *out)
{
    struct part_ref parts[EXPERT_PARTS];
    extents_parts(mapped, parts);
    for (uint32_t p = 0; p < EXPERT_PARTS; p++) {
        out->part[p] = (struct extent){0};
        if (parts[p].bytes && !find_part(&parts[p], files, n_files, &out->part[p])) return false;
    }
    return true;
}

/* Part numbers in order of file and offset; absent parts last. */
static uint32_t sort_parts(const struct expert_extents *e, uint32_t order[EXPERT_PARTS])
{
    uint32_t n = 0;
    for (uint32_t p = 0; p < EXPERT_PARTS; p++) {
        if (e->part[p].bytes == 0) continue;
        uint32_t at = n++;
        for (; at > 0; at--) {
            const struct extent *before = &e->part[order[at - 1]];
            if (before->file < e->part[p].file) break;
            if (before->file == e->part[p].file && before->offset <= e->part[p].offset) break;
            order[at] = order[at - 1];
        }
        order[at] = p;
    }
    return n;
}

/* Joins the parts to windows; part_off: for now from the beginning of the part's window. */
static void join_parts(const struct expert_extents *e, uint32_t align, struct expert_windows *out,
                       uint32_t window_of[EXPERT_PARTS])
{
    uint32_t order[EXPERT_PARTS];
    uint32_t n = sort_parts(e, order);
    for (uint32_t i = 0; i < n; i++) {
        const struct extent *x = &e->part[order[i]];
        struct window *w = out->n ? &out->window[out->n - 1] : NULL;
        uint64_t end = x->offset + x->bytes;
        bool touches = w && w->file == x->file && x->offset <= w->offset + w->bytes;
        if (!touches) {
            w = &out->window[out->n++];
            *w = (struct window){.file = x->file, .offset = x->offset / align * align};
        }
        if (end - w->offset > w->need) w->need = end - w->offset;
        w->bytes = align_up(w->need, align);
        window_of[order[i]] = out->n - 1;
        out->part_off[order[i]] = x->offset - w->offset;
    }
}

void extents_windows(const struct expert_extents *e, uint32_t align, struct expert_windows *out)
{
    uint32_t window_of[EXPERT_PARTS];
    uint64_t slot_off = 0;
    *out = (struct expert_windows){0};
    join_parts(e, align, out, window_of);
    for (uint32_t i = 0; i < out->n; i++) {
        struct window *w = &out->window[i];
        if (w->bytes >= LARGE_WINDOW) slot_off = align_up(slot_off, WINDOW_PAGE);
        w->slot_off = slot_off;
        slot_off += w->bytes;
    }
    for (uint32_t p = 0; p < EXPERT_PARTS; p++)
        if (e->part[p].bytes) out->part_off[p] += out->window[window_of[p]].slot_off;
}

uint64_t extents_slot_bytes(const struct expert_view *shape, uint32_t align)
{
    struct part_ref parts[EXPERT_PARTS];
    uint64_t total = 0;
    uint32_t n = 0;
    extents_parts(shape, parts);
    for (uint32_t p = 0; p < EXPERT_PARTS; p++) {
        if (parts[p].bytes == 0) continue;
        total += align_up(parts[p].bytes + align - 1, align);
        n++;
    }
    if (total < LARGE_WINDOW) return total;
    uint64_t most_large = total / LARGE_WINDOW;
    return align_up(total + (most_large < n ? most_large : n) * WINDOW_PAGE, WINDOW_PAGE);
}

struct expert_view extents_view(const struct expert_view *mapped,
                                const struct expert_windows *windows, const uint8_t *slot)
{
    struct expert_view v = *mapped;
    struct wmat *mats[3] = {&v.gate, &v.up, &v.down};
    for (uint32_t m = 0; m < 3; m++) {
        mats[m]->data = slot + windows->part_off[3 * m];
        if (mats[m]->scales) mats[m]->scales = slot + windows->part_off[3 * m + 1];
        if (mats[m]->biases) mats[m]->biases = slot + windows->part_off[3 * m + 2];
    }
    return v;
}
