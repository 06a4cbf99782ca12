#include "state/sequence.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/rng.h"

static size_t kv_elem_bytes(enum kv_type type)
{
    return type == KV_F16 ? 2 : 4;
}

/* Blocks of rows in a page: one for keys and one for values, or one for both. */
static bool add_paged(struct state_layout *layout, uint32_t n_heads, uint32_t head_dim,
                      uint32_t n_blocks, uint32_t *index)
{
    size_t half;
    if (!mul_size((size_t)SEQUENCE_PAGE * n_heads, head_dim, &half) ||
        !mul_size(half, kv_elem_bytes(layout->kv_type), &half) || half > SIZE_MAX / 4)
        return false;
    half = align_up(half, MEM_ALIGN);
    struct kv_shape *kv = realloc(layout->kv, (layout->n_kv + 1) * sizeof *kv);
    if (!kv) return false;
    layout->kv = kv;
    size_t total;
    if (!add_size(layout->page_bytes, n_blocks * half, &total)) return false;
    kv[layout->n_kv] = (struct kv_shape){.n_heads = n_heads,
                                         .head_dim = head_dim,
                                         .keys_off = layout->page_bytes,
                                         .values_off = layout->page_bytes + (n_blocks - 1) * half};
    layout->page_bytes = total;
    *index = layout->n_kv++;
    return true;
}

bool layout_add_kv(struct state_layout *layout, uint32_t n_heads, uint32_t head_dim,
                   uint32_t *index)
{
    return add_paged(layout, n_heads, head_dim, 2, index);
}

bool layout_add_latent(struct state_layout *layout, uint32_t rank, uint32_t rotated,
                       uint32_t *index)
{
    if (rotated > UINT32_MAX - rank) return false;
    return add_paged(layout, 1, rank + rotated, 1, index);
}

bool layout_add_recurrent(struct state_layout *layout, size_t n_floats, uint32_t *index)
{
    struct recurrent_shape *r = realloc(layout->recurrent, (layout->n_recurrent + 1) * sizeof *r);
    if (!r) return false;
    layout->recurrent = r;
    size_t total;
    if (n_floats > SIZE_MAX / 8 ||
        !add_size(layout->recurrent_floats, align_up(n_floats, 16), &total))
        return false;
    r[layout->n_recurrent] = (struct recurrent_shape){layout->recurrent_floats, n_floats};
    layout->recurrent_floats = total;
    *index = layout->n_recurrent++;
    return true;
}

void layout_release(struct state_layout *layout)
{
    free(layout->kv);
    free(layout->recurrent);
    *layout = (struct state_layout){0};
}

size_t layout_kv_bytes_per_token(const struct state_layout *layout)
{
    return layout->page_bytes / SEQUENCE_PAGE;
}

size_t layout_recurrent_bytes(const struct state_layout *layout)
{
    return 2 * layout->recurrent_floats * sizeof(float);
}

uint64_t layout_session_bytes(const struct state_layout *layout, uint32_t n_ctx)
{
    const uint64_t most = (uint64_t)1 << 60;
    uint64_t bytes, recurrent = layout_recurrent_bytes(layout);
    bool ok = mul_u64(div_up_u32(n_ctx, SEQUENCE_PAGE), layout->page_bytes, &bytes);
    return ok && bytes <= most && recurrent <= most - bytes ? bytes + recurrent : most;
}

static void forget_picks(struct sequence *seq)
{
    for (size_t i = 0; i < seq->layout->n_picks; i++) seq->picks[i] = -1;
}

enum sluice_status sequence_init(struct sequence *seq, const struct state_layout *layout,
                                 uint32_t n_ctx, struct sluice_error *err)
{
    *seq = (struct sequence){.layout = layout, .n_ctx = n_ctx};
    size_t state_bytes, bytes = 0;
    bool ok = mul_size(layout->recurrent_floats, sizeof(float), &state_bytes) &&
              mul_size(div_up_u32(n_ctx, SEQUENCE_PAGE), layout->page_bytes, &bytes);
    if (ok) {
        void *pages = NULL;
        seq->recurrent[0] = mem_alloc(state_bytes);
        seq->recurrent[1] = mem_alloc(state_bytes);
        seq->picks = malloc((layout->n_picks + 1) * sizeof *seq->picks);
        ok = seq->recurrent[0] && seq->recurrent[1] && seq->picks && mem_reserve(bytes, &pages);
        seq->pages = pages;
        seq->pages_bytes = bytes;
        mem_large_pages(pages, bytes);
    }
    if (ok) {
        forget_picks(seq);
        return SLUICE_OK;
    }
    sequence_release(seq);
    return err_nomem(err, "session", bytes);
}

void sequence_release(struct sequence *seq)
{
    mem_unreserve(seq->pages, seq->pages_bytes);
    for (int i = 0; i < 2; i++)
        if (seq->recurrent[i])
            mem_free(seq->recurrent[i], seq->layout->recurrent_floats * sizeof(float));
    free(seq->picks);
    *seq = (struct sequence){0};
}

void sequence_reset(struct sequence *seq)
{
    seq->position = 0;
    seq->committed = 0;
    forget_picks(seq);
    memset(seq->recurrent[0], 0, seq->layout->recurrent_floats * sizeof(float));
}

enum sluice_status sequence_reserve(struct sequence *seq, uint32_t n, struct sluice_error *err)
{
    if (n > seq->n_ctx - seq->position)
        return err_set(err, SLUICE_E_CONTEXT_FULL,
                       "the context of %u tokens is full: it holds %u and %u more were given",
                       seq->n_ctx, seq->position, n);
    return SLUICE_OK;
}

void sequence_commit(struct sequence *seq, uint32_t n)
{
    seq->position += n;
    seq->committed ^= 1;
}

/* Signs and fractions are random, exponents are not: no number is huge, tiny or none. */
enum sluice_status sequence_fill(struct sequence *seq, uint32_t n, uint64_t seed,
                                 struct sluice_error *err)
{
    TRY(sequence_reserve(seq, n, err));
    bool half = seq->layout->kv_type == KV_F16;
    const uint64_t keep = half ? 0x83ff83ff83ff83ffu : 0x807fffff807fffffu;
    const uint64_t exponents = half ? 0x3400340034003400u : 0x3e8000003e800000u;
    size_t bytes = div_up_u32(n, SEQUENCE_PAGE) * seq->layout->page_bytes, i = 0;
    struct rng rng = {seed};
    for (; i < bytes; i += sizeof(uint64_t)) {
        uint64_t x = (rng_u64(&rng) & keep) | exponents;
        memcpy(seq->pages + i, &x, sizeof x);
    }
    seq->position = n;
    return SLUICE_OK;
}

void *sequence_keys(const struct sequence *seq, uint32_t kv, uint32_t page, uint32_t head)
{
    const struct kv_shape *s = &seq->layout->kv[kv];
    size_t head_bytes = (size_t)SEQUENCE_PAGE * s->head_dim * kv_elem_bytes(seq->layout->kv_type);
    return seq->pages + page * seq->layout->page_bytes + s->keys_off + head * head_bytes;
}

void *sequence_values(const struct sequence *seq, uint32_t kv, uint32_t page, uint32_t head)
{
    const struct kv_shape *s = &seq->layout->kv[kv];
    size_t head_bytes = (size_t)SEQUENCE_PAGE * s->head_dim * kv_elem_bytes(seq->layout->kv_type);
    return seq->pages + page * seq->layout->page_bytes + s->values_off + head * head_bytes;
}

const float *sequence_recurrent(const struct sequence *seq, uint32_t index)
{
    return seq->recurrent[seq->committed] + seq->layout->recurrent[index].off;
}

float *sequence_recurrent_next(struct sequence *seq, uint32_t index)
{
    return seq->recurrent[seq->committed ^ 1] + seq->layout->recurrent[index].off;
}
