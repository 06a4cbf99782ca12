#include "synth_make.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

static uint64_t element_bytes(const char *dtype)
{
    if (strcmp(dtype, "U8") == 0) return 1;
    return strcmp(dtype, "BF16") == 0 ? 2 : 4;
}

enum sluice_status synth_add(struct synth_maker *k, const char *name, const char *dtype,
                             uint32_t rank, const uint64_t *shape, enum synth_fill fill, float lo,
                             float hi)
{
    struct synth_model *m = k->m;
    if (m->n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 1024;
        struct synth_tensor *grown = realloc(m->tensors, cap * sizeof *grown);
        if (!grown) return fail(k->err, SLUICE_E_NOMEM, "tensors: %s", "out of memory");
        m->tensors = grown;
        m->cap = cap;
    }
    struct synth_tensor *t = &m->tensors[m->n++];
    *t = (struct synth_tensor){.dtype = dtype,
                               .rank = rank,
                               .bytes = element_bytes(dtype),
                               .fill = fill,
                               .lo = lo,
                               .hi = hi};
    snprintf(t->name, sizeof t->name, "%s", name);
    bool fits = true;
    for (uint32_t i = 0; i < rank; i++) {
        t->shape[i] = shape[i];
        fits = fits && !__builtin_mul_overflow(t->bytes, shape[i], &t->bytes);
    }
    fits = fits && !__builtin_add_overflow(m->bytes, t->bytes, &m->bytes) && m->bytes <= INT64_MAX;
    if (fits) return SLUICE_OK;
    return fail(k->err, SLUICE_E_FORMAT, "with tensor '%s' the model is larger than any file",
                name);
}

enum sluice_status synth_add_matrix(struct synth_maker *k, const char *base, uint64_t n_stack,
                                    uint64_t rows, uint64_t cols, uint32_t bits, float gain)
{
    char name[SYNTH_NAME];
    uint64_t shape[3] = {n_stack, rows, cols};
    uint32_t rank = n_stack ? 3 : 2;
    uint64_t *dims = n_stack ? shape : shape + 1;
    float deviation = gain / sqrtf((float)cols);
    if (k->o->layout != SYNTH_MLX) {
        snprintf(name, sizeof name, n_stack ? "%s" : "%s.weight", base);
        float range = deviation * sqrtf(3.0f);
        return synth_add(k, name, "BF16", rank, dims, SYNTH_UNIFORM, -range, range);
    }
    if (cols % k->o->group)
        return fail(k->err, SLUICE_E_ARGUMENT,
                    "'%s' has rows of %llu weights, which groups of %u do not divide; give a "
                    "smaller --group",
                    base, (unsigned long long)cols, k->o->group);
    float levels = (float)((1u << bits) - 1);
    float scale = deviation * sqrtf(12.0f / (levels * (levels + 2.0f)));
    shape[2] = cols * bits / 32;
    snprintf(name, sizeof name, "%s.weight", base);
    TRY(synth_add(k, name, "U32", rank, dims, SYNTH_BITS, 0, 0));
    shape[2] = cols / k->o->group;
    snprintf(name, sizeof name, "%s.scales", base);
    TRY(synth_add(k, name, "BF16", rank, dims, SYNTH_CONST, scale, scale));
    snprintf(name, sizeof name, "%s.biases", base);
    return synth_add(k, name, "BF16", rank, dims, SYNTH_CONST, -scale * levels / 2, 0);
}

enum sluice_status synth_add_mxfp4(struct synth_maker *k, const char *base, uint64_t n_stack,
                                   uint64_t rows, uint64_t cols, float gain)
{
    /* Of a code, times that of a power of two from 1/2 to 2, are the root mean square. */
    static const float size = 2.93f * 1.32f;
    char name[SYNTH_NAME];
    uint64_t shape[4] = {n_stack, rows, cols / 32, 16};
    float middle = 127.0f + roundf(log2f(gain / sqrtf((float)cols) / size));
    if (cols % 32)
        return fail(k->err, SLUICE_E_ARGUMENT,
                    "'%s' has rows of %llu weights, which blocks of 32 do not divide", base,
                    (unsigned long long)cols);
    snprintf(name, sizeof name, "%s_blocks", base);
    TRY(synth_add(k, name, "U8", 4, shape, SYNTH_BITS, 0, 0));
    snprintf(name, sizeof name, "%s_scales", base);
    return synth_add(k, name, "U8", 3, shape, SYNTH_BYTES, middle - 1, middle + 2);
}

enum sluice_status synth_add_vector(struct synth_maker *k, const char *name, uint64_t n, float lo,
                                    float hi)
{
    return synth_add(k, name, "BF16", 1, &n, lo == hi ? SYNTH_CONST : SYNTH_UNIFORM, lo, hi);
}

enum sluice_status synth_add_norm(struct synth_maker *k, const char *name, uint64_t n)
{
    float one = k->s.family->centred && k->o->layout != SYNTH_MLX ? 0.0f : 1.0f;
    return synth_add_vector(k, name, n, one, one);
}

const char *synth_prefix(const struct synth_maker *k)
{
    const struct synth_family *f = k->s.family;
    const char *prefix = k->o->layout == SYNTH_MLX ? f->mlx : f->original;
    return prefix ? prefix : "model.";
}

const char *synth_in_layer(char out[SYNTH_NAME], const struct synth_maker *k, uint32_t layer,
                           const char *rest)
{
    snprintf(out, SYNTH_NAME, "%slayers.%u.%s", synth_prefix(k), layer, rest);
    return out;
}

const char *synth_in_moe(char out[SYNTH_NAME], const struct synth_maker *k, uint32_t layer,
                         const char *module, const char *rest)
{
    snprintf(out, SYNTH_NAME, "%slayers.%u.%s.%s%s%s", synth_prefix(k), layer,
             synth_moe_module(k->s.family), module, module[0] ? "." : "", rest);
    return out;
}

float synth_writer_gain(const struct synth_maker *k)
{
    return 0.5f / sqrtf((float)k->s.layers);
}
