#include "pack/pack_plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bits.h"

enum { LENGTH_BYTES = 8, MAX_SHARD_UNITS = 4096 };

static const char filling_prefix[] = "__pad__.";

/* Units */

static bool is_filling(const char *name)
{
    return strncmp(name, filling_prefix, sizeof filling_prefix - 1) == 0;
}

static void add_unit(struct pack_plan *plan, uint32_t bank, uint32_t index, uint64_t bytes)
{
    uint64_t filling = bank == NO_BANK ? 0 : align_up(bytes, PACK_ALIGN) - bytes;
    plan->units[plan->n_units++] =
        (struct pack_unit){.bank = bank, .index = index, .bytes = bytes, .filling = filling};
}

static enum sluice_status add_experts(struct pack_plan *plan, uint32_t bank,
                                      struct sluice_error *err)
{
    const struct expert_bank *b = plan->model->banks[bank];
    struct expert_extents extents;
    for (uint32_t e = 0; e < b->n_experts; e++) {
        uint64_t bytes = 0;
        if (!extents_find(&b->experts[e], plan->cp->files, (uint32_t)plan->cp->n_files, &extents))
            return err_set(err, SLUICE_E_INTERNAL, "layer %u, expert %u lies in no file", b->layer,
                           e);
        for (uint32_t p = 0; p < EXPERT_PARTS; p++) bytes += extents.part[p].bytes;
        add_unit(plan, bank, e, bytes);
    }
    return SLUICE_OK;
}

static enum sluice_status list_units(struct pack_plan *plan, struct sluice_error *err)
{
    const struct model *m = plan->model;
    size_t most = plan->cp->n_tensors;
    for (uint32_t b = 0; b < m->n_banks; b++) most += m->banks[b]->n_experts;
    plan->units = arena_alloc(&plan->arena, most, sizeof *plan->units);
    if (!plan->units) return err_nomem(err, "plan of the pack", most * sizeof *plan->units);
    for (size_t t = 0; t < plan->cp->n_tensors; t++) {
        const struct tensor *tensor = &plan->cp->tensors[t];
        if (m->tensor_kind[t] != TENSOR_EXPERT && !is_filling(tensor->name))
            add_unit(plan, NO_BANK, (uint32_t)t, tensor->bytes);
    }
    for (uint32_t b = 0; b < m->n_banks; b++) TRY(add_experts(plan, b, err));
    return SLUICE_OK;
}

/* "model.layers.3.mlp" of "model.layers.3.mlp.experts.0.gate_proj.weight" and the like. */
static enum sluice_status find_module(struct pack_plan *plan, const struct expert_bank *bank,
                                      const char **out, struct sluice_error *err)
{
    static const char *const ends[] = {".switch_mlp.", ".experts."};
    const struct tensor *t = checkpoint_tensor_at(plan->cp, bank->experts[0].gate.data);
    for (size_t i = 0; t && i < COUNT_OF(ends); i++) {
        const char *end = strstr(t->name, ends[i]);
        if (!end) continue;
        *out = arena_copy(&plan->arena, t->name, (size_t)(end - t->name));
        return *out ? SLUICE_OK : err_nomem(err, "plan of the pack", strlen(t->name));
    }
    return err_set(err, SLUICE_E_INTERNAL, "layer %u: the experts' tensors have no known name",
                   bank->layer);
}

/* Entries */

static void set_name(struct pack_entry *e, const char *text)
{
    snprintf(e->name, sizeof e->name, "%s", text);
}

static void tensor_entry(const struct tensor *t, struct pack_entry *e)
{
    *e = (struct pack_entry){.dtype = t->dtype,
                             .rank = t->rank,
                             .bytes = t->bytes,
                             .from = {t->file, t->offset, t->bytes}};
    memcpy(e->shape, t->shape, sizeof e->shape);
    set_name(e, t->name);
}

/* One array of a matrix as a tensor. GGUF's blocks have no place in safetensors. */
struct array_form {
    const char *name;
    enum dtype dtype;
    uint64_t rows, cols;
};

static struct array_form plain_form(const struct wmat *w)
{
    enum dtype dtype = w->type == WTYPE_F32 ? DTYPE_F32 : DTYPE_BF16;
    if (w->type == WTYPE_F16) dtype = DTYPE_F16;
    return (struct array_form){"weight", dtype, w->rows, w->cols};
}

static struct array_form array_form(const struct wmat *w, uint32_t array)
{
    static const char *const names[] = {"weight", "scales", "biases"};
    enum wkind kind = wtype_kind(w->type);
    if (kind == WKIND_FLOAT) return plain_form(w);
    if (kind == WKIND_TILED && array == 0)
        return (struct array_form){"weight", DTYPE_F8_E4M3, w->rows, w->cols};
    if (kind == WKIND_TILED)
        return (struct array_form){"weight_scale_inv", w->f32_scales ? DTYPE_F32 : DTYPE_BF16,
                                   div_up_u32(w->rows, WTILE), div_up_u32(w->cols, WTILE)};
    if (array == 0)
        return (struct array_form){"weight", DTYPE_U32, w->rows,
                                   wtype_row_bytes(w->type, w->cols) / 4};
    if (kind == WKIND_SPLIT)
        return (struct array_form){names[array], DTYPE_U8, w->rows, w->cols / 32};
    return (struct array_form){names[array], w->f16_scales ? DTYPE_F16 : DTYPE_BF16, w->rows,
                               w->cols / w->group};
}

static void part_entry(const char *module, bool paired, uint32_t expert, uint32_t part,
                       const struct wmat *w, const struct extent *from, struct pack_entry *e)
{
    const char *const matrices[] = {paired ? "gate_up_proj" : "gate_proj", "up_proj", "down_proj"};
    struct array_form form = array_form(w, part % 3);
    *e = (struct pack_entry){.dtype = form.dtype,
                             .rank = 2,
                             .shape = {form.rows, form.cols},
                             .bytes = from->bytes,
                             .part = part,
                             .from = *from};
    snprintf(e->name, sizeof e->name, "%s.experts.%u.%s.%s", module, expert, matrices[part / 3],
             form.name);
}

static void filling_entry(size_t number, uint64_t bytes, struct pack_entry *e)
{
    *e = (struct pack_entry){
        .dtype = DTYPE_U8, .rank = 1, .shape = {bytes}, .bytes = bytes, .filling = true};
    snprintf(e->name, sizeof e->name, "%s%zu", filling_prefix, number);
}

size_t pack_plan_entries(const struct pack_plan *plan, const struct pack_unit *unit,
                         struct pack_entry entries[MAX_ENTRIES])
{
    if (unit->bank == NO_BANK) {
        tensor_entry(&plan->cp->tensors[unit->index], &entries[0]);
        return 1;
    }
    const struct expert_bank *bank = plan->model->banks[unit->bank];
    const struct expert_view *view = &bank->experts[unit->index];
    const struct wmat *mats[3] = {&view->gate, &view->up, &view->down};
    struct expert_extents extents;
    size_t n = 0;
    if (!extents_find(view, plan->cp->files, (uint32_t)plan->cp->n_files, &extents)) return 0;
    for (uint32_t p = 0; p < EXPERT_PARTS; p++)
        if (extents.part[p].bytes)
            part_entry(plan->modules[unit->bank], bank->paired, unit->index, p, mats[p / 3],
                       &extents.part[p], &entries[n++]);
    if (unit->filling) filling_entry((size_t)(unit - plan->units), unit->filling, &entries[n++]);
    return n;
}

/* Text. A name may have any character that is no control character. */

static void put_name(FILE *out, const char *name)
{
    putc('"', out);
    for (const char *c = name; *c; c++) {
        if (*c == '"' || *c == '\\') putc('\\', out);
        putc(*c, out);
    }
    putc('"', out);
}

static void put_number(FILE *out, uint64_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, number);
    fputs(text, out);
}

static void put_entry(FILE *out, const struct pack_entry *e, uint64_t begin)
{
    putc(',', out);
    put_name(out, e->name);
    fputs(":{\"dtype\":\"", out);
    fputs(dtype_name(e->dtype), out);
    fputs("\",\"shape\":[", out);
    for (uint32_t d = 0; d < e->rank; d++) {
        if (d) putc(',', out);
        put_number(out, e->shape[d]);
    }
    fputs("],\"data_offsets\":[", out);
    put_number(out, begin);
    putc(',', out);
    put_number(out, begin + e->bytes);
    fputs("]}", out);
}

/* Closes a stream in memory. NULL: memory ran out while it was written. */
static char *finish(FILE *out, char **text)
{
    bool good = !ferror(out);
    if (fclose(out) != 0) good = false;
    if (good) return *text;
    free(*text);
    return NULL;
}

char *pack_plan_header(const struct pack_plan *plan, const struct plan_shard *shard, size_t *len)
{
    struct pack_entry entries[MAX_ENTRIES];
    char *text = NULL;
    FILE *out = open_memstream(&text, len);
    if (!out) return NULL;
    /* The length comes into the first eight bytes when it is known. */
    fputs(plan->cp->any_mlx ? "        {\"__metadata__\":{\"format\":\"mlx\"}"
                            : "        {\"__metadata__\":{\"format\":\"pt\"}",
          out);
    for (size_t u = shard->first; u < shard->end; u++) {
        uint64_t at = plan->units[u].offset;
        size_t n = pack_plan_entries(plan, &plan->units[u], entries);
        for (size_t i = 0; i < n; i++) {
            put_entry(out, &entries[i], at);
            at += entries[i].bytes;
        }
    }
    putc('}', out);
    fflush(out);
    for (size_t n = *len; n % PACK_ALIGN != 0; n++) putc(' ', out);
    text = finish(out, &text);
    for (int i = 0; text && i < LENGTH_BYTES; i++)
        text[i] = (char)((uint64_t)(*len - LENGTH_BYTES) >> 8 * i);
    return text;
}

char *pack_plan_index_lines(const struct pack_plan *plan, const struct plan_shard *shard,
                            size_t *len)
{
    struct pack_entry entries[MAX_ENTRIES];
    char *text = NULL;
    FILE *out = open_memstream(&text, len);
    if (!out) return NULL;
    bool first = shard->first == 0;
    for (size_t u = shard->first; u < shard->end; u++) {
        size_t n = pack_plan_entries(plan, &plan->units[u], entries);
        for (size_t i = 0; i < n; i++) {
            fputs(first ? "\n  " : ",\n  ", out);
            put_name(out, entries[i].name);
            fputs(": ", out);
            put_name(out, shard->name);
            first = false;
        }
    }
    return finish(out, &text);
}

/* Shards */

static bool begins_shard(const struct pack_plan *plan, const struct plan_shard *shard, size_t unit,
                         uint64_t bytes, uint64_t data_bytes)
{
    const struct pack_unit *u = &plan->units[unit];
    if (unit == shard->first) return false;
    if (unit - shard->first >= MAX_SHARD_UNITS) return true;
    if (u[-1].bank == NO_BANK && u->bank != NO_BANK) return true;
    return bytes + u->bytes + u->filling > data_bytes;
}

static void cut_shards(struct pack_plan *plan, uint64_t data_bytes)
{
    struct plan_shard *shard = plan->shards;
    uint64_t bytes = 0;
    *shard = (struct plan_shard){0};
    for (size_t i = 0; i < plan->n_units; i++) {
        struct pack_unit *u = &plan->units[i];
        if (begins_shard(plan, shard, i, bytes, data_bytes)) {
            *++shard = (struct plan_shard){.first = i};
            bytes = 0;
        }
        u->offset = bytes;
        bytes += u->bytes + u->filling;
        shard->bytes = bytes;
        shard->end = i + 1;
        shard->n_experts += u->bank != NO_BANK;
    }
    plan->n_shards = (size_t)(shard - plan->shards) + 1;
}

static enum sluice_status measure_headers(struct pack_plan *plan, struct sluice_error *err)
{
    for (size_t i = 0; i < plan->n_shards; i++) {
        struct plan_shard *shard = &plan->shards[i];
        size_t len;
        snprintf(shard->name, sizeof shard->name, "model-%05zu-of-%05zu.safetensors", i + 1,
                 plan->n_shards);
        char *header = pack_plan_header(plan, shard, &len);
        if (!header) return err_nomem(err, shard->name, 0);
        free(header);
        shard->header_bytes = len;
        shard->bytes += len;
        plan->bytes += shard->bytes;
    }
    return SLUICE_OK;
}

static enum sluice_status make(struct pack_plan *plan, uint64_t data_bytes,
                               struct sluice_error *err)
{
    const struct model *m = plan->model;
    if (m->n_banks == 0)
        return err_set(err, SLUICE_E_UNSUPPORTED, "'%s' has no routed experts to pack",
                       plan->cp->path);
    plan->modules = arena_alloc(&plan->arena, m->n_banks, sizeof *plan->modules);
    if (!plan->modules) return err_nomem(err, "plan of the pack", m->n_banks);
    for (uint32_t b = 0; b < m->n_banks; b++)
        TRY(find_module(plan, m->banks[b], &plan->modules[b], err));
    TRY(list_units(plan, err));
    plan->shards = arena_alloc(&plan->arena, plan->n_units, sizeof *plan->shards);
    if (!plan->shards) return err_nomem(err, "plan of the pack", plan->n_units);
    cut_shards(plan, data_bytes);
    return measure_headers(plan, err);
}

enum sluice_status pack_plan_make(struct pack_plan *plan, const struct checkpoint *cp,
                                  const struct model *model, uint64_t data_bytes,
                                  struct sluice_error *err)
{
    *plan = (struct pack_plan){.cp = cp, .model = model};
    enum sluice_status status = make(plan, data_bytes, err);
    if (status != SLUICE_OK) pack_plan_release(plan);
    return status;
}

void pack_plan_release(struct pack_plan *plan)
{
    arena_release(&plan->arena);
    *plan = (struct pack_plan){0};
}
