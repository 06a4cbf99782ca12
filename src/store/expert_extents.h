/* Where an expert's bytes lie in files, and where they land in a slot. For store and pack. */
#ifndef SLUICE_STORE_EXPERT_EXTENTS_H
#define SLUICE_STORE_EXPERT_EXTENTS_H

#include "io/file.h"
#include "store/bank.h"

/* gate, up, down: data, scales, biases each */
enum { EXPERT_PARTS = 9 };

struct extent {
    uint32_t file;
    uint64_t offset;
    uint64_t bytes; /* 0: the part does not exist */
};

struct expert_extents {
    struct extent part[EXPERT_PARTS];
};

/*
 * Windows to read: parts that touch in the file are one window; each begins and ends at a multiple
 * of align and lands at slot_off. Lead-in bytes stay in the slot. Large windows land at the
 * beginning of a page of a slot that begins at one: a drive, or the host of a virtual one, may have
 * to copy twice what lands elsewhere.
 */
enum { LARGE_WINDOW = 64 << 10, WINDOW_PAGE = 4096 };

struct window {
    uint32_t file;
    uint64_t offset;
    uint64_t bytes;
    uint64_t need; /* of them up to the end of the last part */
    uint64_t slot_off;
};

struct expert_windows {
    uint32_t n;
    struct window window[EXPERT_PARTS];
    uint64_t part_off[EXPERT_PARTS]; /* of each part, in the slot */
};

/* A part in memory: bytes 0 when it does not exist. */
struct part_ref {
    const uint8_t *data;
    uint64_t bytes;
};

/* The parts of a view, wherever they are. */
void extents_parts(const struct expert_view *view, struct part_ref parts[EXPERT_PARTS]);
/* The parts of a mapped expert. False: a part lies outside the files. */
bool extents_find(const struct expert_view *mapped, const struct file_map *files, uint32_t n_files,
                  struct expert_extents *out);
void extents_windows(const struct expert_extents *extents, uint32_t align,
                     struct expert_windows *out);
/* Room any expert with parts of these sizes needs, wherever they lie. */
uint64_t extents_slot_bytes(const struct expert_view *shape, uint32_t align);
/* The view of an expert whose parts are in slot. */
struct expert_view extents_view(const struct expert_view *mapped,
                                const struct expert_windows *windows, const uint8_t *slot);

#endif
