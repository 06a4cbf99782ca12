/* State of a timeline: pages that do not overlap, steps that count only when committed. */
#include <stdlib.h>

#include "check.h"
#include "state/sequence.h"

enum { N_CTX = 130 };

/* Two caches of other shapes, three recurrent states, one of them empty. */
static bool make_layout(struct state_layout *layout, enum kv_type type)
{
    uint32_t kv[2], recurrent[3];
    *layout = (struct state_layout){.kv_type = type};
    bool ok = layout_add_kv(layout, 3, 5, &kv[0]) && layout_add_recurrent(layout, 7, &recurrent[0]);
    ok = ok && layout_add_kv(layout, 1, 64, &kv[1]);
    ok = ok && layout_add_recurrent(layout, 0, &recurrent[1]);
    ok = ok && layout_add_recurrent(layout, 33, &recurrent[2]);
    return ok && kv[0] == 0 && kv[1] == 1 && recurrent[0] == 0 && recurrent[1] == 1 &&
           recurrent[2] == 2;
}

static void check_sizes(enum kv_type type, size_t elem)
{
    struct state_layout layout;
    REQUIRE(make_layout(&layout, type));
    for (uint32_t i = 0; i < layout.n_kv; i++) {
        const struct kv_shape *kv = &layout.kv[i];
        size_t need = (size_t)SEQUENCE_PAGE * kv->n_heads * kv->head_dim * elem;
        CHECK(kv->keys_off % 64 == 0 && kv->values_off % 64 == 0);
        CHECK(kv->keys_off + need <= kv->values_off);
        CHECK(kv->values_off + need <= (i ? layout.page_bytes : layout.kv[1].keys_off));
    }
    CHECK(layout_kv_bytes_per_token(&layout) == layout.page_bytes / SEQUENCE_PAGE);
    CHECK(layout_kv_bytes_per_token(&layout) >= 2 * (15 + 64) * elem);
    CHECK(layout_recurrent_bytes(&layout) == 2 * layout.recurrent_floats * sizeof(float));
    layout_release(&layout);
    CHECK(layout.n_kv == 0 && layout.kv == NULL);
    layout_release(&layout);
}

static void test_layout(void)
{
    check_sizes(KV_F32, 4);
    check_sizes(KV_F16, 2);
}

/* One block of rows, which are keys and values. */
static void test_latent_layout(void)
{
    struct state_layout layout = {.kv_type = KV_F16};
    uint32_t kv, latent;
    REQUIRE(layout_add_kv(&layout, 1, 8, &kv) && layout_add_latent(&layout, 24, 6, &latent));
    const struct kv_shape *shape = &layout.kv[latent];
    CHECK(latent == 1 && shape->n_heads == 1 && shape->head_dim == 30);
    CHECK(shape->keys_off == shape->values_off);
    CHECK(layout.page_bytes - shape->keys_off == (size_t)SEQUENCE_PAGE * 30 * 2);
    CHECK(!layout_add_latent(&layout, UINT32_MAX, 2, &latent) && layout.n_kv == 2);
    layout_release(&layout);
}

static void test_layout_too_large(void)
{
    struct state_layout layout;
    uint32_t index = 99;
    REQUIRE(make_layout(&layout, KV_F32));
    size_t page = layout.page_bytes, floats = layout.recurrent_floats;
    CHECK(!layout_add_kv(&layout, UINT32_MAX, UINT32_MAX, &index));
    CHECK(!layout_add_recurrent(&layout, SIZE_MAX, &index));
    CHECK(!layout_add_recurrent(&layout, SIZE_MAX / 8 + 1, &index));
    CHECK(index == 99 && layout.n_kv == 2 && layout.n_recurrent == 3);
    CHECK(layout.page_bytes == page && layout.recurrent_floats == floats);
    layout_release(&layout);
}

/* Every place of every cache gets its own number; none is lost. */
static uint32_t number_at(uint32_t kv, uint32_t position, uint32_t head, uint32_t i, bool value)
{
    return 1 + (((kv * 256 + position) * 4 + head) * 64 + i) * 2 + value;
}

static uint32_t *place(const struct sequence *seq, uint32_t kv, uint32_t position, uint32_t head,
                       uint32_t i, bool value)
{
    uint32_t page = position / SEQUENCE_PAGE, dim = seq->layout->kv[kv].head_dim;
    void *block = value ? sequence_values(seq, kv, page, head) : sequence_keys(seq, kv, page, head);
    return (uint32_t *)block + (size_t)(position % SEQUENCE_PAGE) * dim + i;
}

/* Writes all numbers, or counts those that are not there. */
static uint32_t visit_cache(const struct sequence *seq, bool write)
{
    uint32_t wrong = 0;
    for (uint32_t kv = 0; kv < seq->layout->n_kv; kv++)
        for (uint32_t p = 0; p < seq->n_ctx; p++)
            for (uint32_t h = 0; h < seq->layout->kv[kv].n_heads; h++)
                for (uint32_t i = 0; i < 2 * seq->layout->kv[kv].head_dim; i++) {
                    uint32_t *at = place(seq, kv, p, h, i / 2, i % 2);
                    if (write) *at = number_at(kv, p, h, i / 2, i % 2);
                    wrong += *at != number_at(kv, p, h, i / 2, i % 2);
                }
    return wrong;
}

static void test_cache_places_are_apart(void)
{
    struct state_layout layout;
    struct sequence seq;
    struct sluice_error err = {0};
    REQUIRE(make_layout(&layout, KV_F32));
    CHECK_OK(sequence_init(&seq, &layout, N_CTX, &err));
    CHECK(seq.pages_bytes == 3 * layout.page_bytes);
    for (size_t i = 0; i < seq.pages_bytes; i++)
        if (seq.pages[i]) CHECK(0, "a new page is not zero at %zu", i);
    visit_cache(&seq, true);
    CHECK(visit_cache(&seq, false) == 0);
    for (uint32_t p = 0; p < 3; p++)
        for (uint32_t kv = 0; kv < 2; kv++) {
            uint8_t *keys = sequence_keys(&seq, kv, p, 0);
            CHECK((uintptr_t)keys % 64 == 0 && keys >= seq.pages);
        }
    sequence_release(&seq);
    layout_release(&layout);
}

static void fill_next(struct sequence *seq, float value)
{
    for (uint32_t i = 0; i < seq->layout->n_recurrent; i++)
        for (size_t k = 0; k < seq->layout->recurrent[i].n; k++)
            sequence_recurrent_next(seq, i)[k] = value + (float)i;
}

static bool holds(const struct sequence *seq, float value)
{
    bool all = true;
    for (uint32_t i = 0; i < seq->layout->n_recurrent; i++)
        for (size_t k = 0; k < seq->layout->recurrent[i].n; k++)
            all &= sequence_recurrent(seq, i)[k] == (value == 0 ? 0 : value + (float)i);
    return all;
}

static void test_steps_count_when_committed(void)
{
    struct state_layout layout;
    struct sequence seq;
    struct sluice_error err = {0};
    REQUIRE(make_layout(&layout, KV_F16));
    CHECK_OK(sequence_init(&seq, &layout, N_CTX, &err));
    CHECK(seq.position == 0 && holds(&seq, 0));
    fill_next(&seq, 10);
    CHECK(holds(&seq, 0) && seq.position == 0);
    fill_next(&seq, 20); /* the step again: nothing was committed */
    sequence_commit(&seq, 7);
    CHECK(holds(&seq, 20) && seq.position == 7);
    fill_next(&seq, 30);
    CHECK(holds(&seq, 20));
    sequence_commit(&seq, 1);
    CHECK(holds(&seq, 30) && seq.position == 8);
    fill_next(&seq, 40);
    sequence_reset(&seq);
    CHECK(holds(&seq, 0) && seq.position == 0 && seq.n_ctx == N_CTX);
    fill_next(&seq, 50);
    sequence_commit(&seq, 3);
    CHECK(holds(&seq, 50) && seq.position == 3);
    sequence_reset(&seq);
    CHECK(holds(&seq, 0) && seq.position == 0);
    sequence_release(&seq);
    layout_release(&layout);
}

static void test_reserve(void)
{
    struct state_layout layout;
    struct sequence seq;
    struct sluice_error err = {0};
    REQUIRE(make_layout(&layout, KV_F32));
    CHECK_OK(sequence_init(&seq, &layout, N_CTX, &err));
    CHECK_OK(sequence_reserve(&seq, N_CTX, &err));
    CHECK(sequence_reserve(&seq, N_CTX + 1, &err) == SLUICE_E_CONTEXT_FULL);
    CHECK(strcmp(err.message, "the context of 130 tokens is full: it holds 0 and 131 more were "
                              "given") == 0,
          "%s", err.message);
    sequence_commit(&seq, 129);
    CHECK_OK(sequence_reserve(&seq, 1, &err));
    CHECK(sequence_reserve(&seq, 2, &err) == SLUICE_E_CONTEXT_FULL);
    CHECK(sequence_reserve(&seq, UINT32_MAX, NULL) == SLUICE_E_CONTEXT_FULL);
    sequence_release(&seq);
    layout_release(&layout);
}

/* Addresses that no machine has. */
static void test_too_large(void)
{
    struct state_layout layout = {0};
    struct sequence seq;
    struct sluice_error err = {0};
    uint32_t index;
    REQUIRE(layout_add_kv(&layout, 1 << 20, 1 << 20, &index));
    CHECK(sequence_init(&seq, &layout, UINT32_MAX, &err) == SLUICE_E_NOMEM);
    CHECK(strstr(err.message, "session: out of memory") == err.message, "%s", err.message);
    CHECK(seq.pages == NULL && seq.recurrent[0] == NULL && seq.recurrent[1] == NULL);
    layout_release(&layout);
}

static void test_nothing_to_keep(void)
{
    struct state_layout layout = {0};
    struct sequence seq;
    struct sluice_error err = {0};
    CHECK_OK(sequence_init(&seq, &layout, 10, &err));
    CHECK_OK(sequence_reserve(&seq, 10, &err));
    sequence_commit(&seq, 10);
    sequence_reset(&seq);
    CHECK(seq.position == 0);
    sequence_release(&seq);
    sequence_release(&seq);
}

#define CASES(C)                                                                                   \
    C(layout)                                                                                      \
    C(latent_layout)                                                                               \
    C(layout_too_large)                                                                            \
    C(cache_places_are_apart)                                                                      \
    C(steps_count_when_committed)                                                                  \
    C(reserve)                                                                                     \
    C(too_large)                                                                                   \
    C(nothing_to_keep)
CHECK_MAIN(CASES)
