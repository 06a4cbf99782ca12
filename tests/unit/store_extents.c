/* Windows of experts: where parts land in a slot, and that there is always room for them. */
#include "base/bits.h"
#include "base/rng.h"
#include "check.h"
#include "store/expert_extents.h"

enum { CASES_TRIED = 20000, MOST_FILES = 3 };

/* A file that is never read; its address only stands for its bytes. */
static const struct file_map fake_files[MOST_FILES] = {
    {.data = (const uint8_t *)(uintptr_t)(1ull << 40), .bytes = 1ull << 32},
    {.data = (const uint8_t *)(uintptr_t)(2ull << 40), .bytes = 1ull << 32},
    {.data = (const uint8_t *)(uintptr_t)(3ull << 40), .bytes = 1ull << 32},
};

/* Bytes anywhere, half of the time right behind the last ones. */
static const uint8_t *random_place(struct rng *rng, const uint8_t *last_end)
{
    if (last_end && rng_below(rng, 2)) return last_end;
    return fake_files[rng_below(rng, MOST_FILES)].data + rng_below(rng, 1u << 31);
}

static struct expert_view random_view(struct rng *rng)
{
    struct expert_view v = {0};
    struct wmat *mats[3] = {&v.gate, &v.up, &v.down};
    const uint8_t *end = NULL;
    for (uint32_t m = 0; m < 3; m++) {
        struct wmat *w = mats[m];
        uint32_t groups = 1 + rng_below(rng, 8);
        *w = (struct wmat){.type = rng_below(rng, 2) ? WTYPE_Q4 : WTYPE_BF16,
                           .rows = 1 + rng_below(rng, rng_below(rng, 2) ? 40 : 2000),
                           .cols = 64 * groups,
                           .group = 64};
        w->data = random_place(rng, end);
        end = w->data + wmat_array_bytes(w).data;
        if (w->type == WTYPE_BF16) continue;
        w->scales = random_place(rng, end);
        w->biases = random_place(rng, w->scales + 2ull * w->rows * groups);
        end = w->biases + 2ull * w->rows * groups;
    }
    return v;
}

static void check_part(const struct expert_extents *e, const struct expert_windows *windows,
                       uint32_t p)
{
    const struct extent *x = &e->part[p];
    uint32_t holding = 0;
    for (uint32_t i = 0; i < windows->n; i++) {
        const struct window *w = &windows->window[i];
        if (x->file != w->file || x->offset < w->offset) continue;
        if (x->offset + x->bytes > w->offset + w->need) continue;
        holding += windows->part_off[p] == w->slot_off + (x->offset - w->offset);
    }
    CHECK(holding == 1, "part %u is in %u windows", p, holding);
}

static void check_windows(const struct expert_windows *windows, uint32_t align, uint64_t room)
{
    uint64_t end = 0;
    for (uint32_t i = 0; i < windows->n; i++) {
        const struct window *w = &windows->window[i];
        CHECK(w->offset % align == 0 && w->bytes % align == 0 && w->slot_off % align == 0);
        CHECK(w->slot_off >= end, "window %u begins in another", i);
        CHECK(w->bytes < LARGE_WINDOW || w->slot_off % WINDOW_PAGE == 0, "window %u: %llu", i,
              (unsigned long long)w->slot_off);
        end = w->slot_off + w->bytes;
    }
    CHECK(end <= room, "%llu bytes in a slot of %llu", (unsigned long long)end,
          (unsigned long long)room);
    CHECK(room < LARGE_WINDOW || room % WINDOW_PAGE == 0);
}

static void test_windows_fit(void)
{
    static const uint32_t aligns[] = {1, 64, 512, 4096};
    struct rng rng = {7};
    for (uint32_t n = 0; n < CASES_TRIED; n++) {
        struct expert_view v = random_view(&rng);
        struct expert_extents e;
        struct expert_windows windows;
        uint32_t align = aligns[n % COUNT_OF(aligns)];
        REQUIRE(extents_find(&v, fake_files, MOST_FILES, &e));
        extents_windows(&e, align, &windows);
        check_windows(&windows, align, extents_slot_bytes(&v, align));
        for (uint32_t p = 0; p < EXPERT_PARTS; p++)
            if (e.part[p].bytes) check_part(&e, &windows, p);
    }
}

#define CASES(C) C(windows_fit)

CHECK_MAIN(CASES)
