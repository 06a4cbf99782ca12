#include "store/pack_manifest.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/bits.h"
#include "format/json.h"
#include "io/file.h"
#include "io/file_out.h"

enum { VERSION = 1, PART_DIGITS = 8, EXPERT_DIGITS = CHECKSUM_DIGITS + EXPERT_PARTS * PART_DIGITS };

static const char file[] = PACK_MANIFEST_NAME;
static const char kind[] = "sluice pack";
static const uint64_t max_bytes = 100000000;

/* Reading */

struct parser {
    struct pack_manifest *m;
    struct sluice_error *err;
};

static enum sluice_status malformed(const struct parser *p, const char *what)
{
    return err_set(p->err, SLUICE_E_FORMAT, "%s: %s; pack the model again into an empty folder",
                   file, what);
}

static enum sluice_status nomem(const struct parser *p)
{
    return err_nomem(p->err, file, p->m->arena.bytes);
}

static enum sluice_status get_string(const struct parser *p, const json_t *object, const char *key,
                                     const char **out)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value)) return malformed(p, "a name is missing or no string");
    *out = arena_copy(&p->m->arena, json_string_value(value), json_string_length(value));
    return *out ? SLUICE_OK : nomem(p);
}

static enum sluice_status get_count(const struct parser *p, const json_t *object, const char *key,
                                    uint64_t max, uint64_t *out)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        (uint64_t)json_integer_value(value) > max)
        return malformed(p, "a number is missing or out of range");
    *out = (uint64_t)json_integer_value(value);
    return SLUICE_OK;
}

static struct span text_of(const json_t *value)
{
    return json_is_string(value) ? span_of(json_string_value(value), json_string_length(value))
                                 : (struct span){0};
}

static bool parse_expert(struct span text, struct pack_expert *out)
{
    if (text.len != EXPERT_DIGITS || !checksum_parse(text, &out->sum)) return false;
    for (uint32_t i = 0; i < EXPERT_PARTS; i++) {
        char digits[CHECKSUM_DIGITS];
        struct checksum part;
        memset(digits, '0', sizeof digits);
        memcpy(digits + CHECKSUM_DIGITS - PART_DIGITS,
               text.data + CHECKSUM_DIGITS + PART_DIGITS * i, PART_DIGITS);
        if (!checksum_parse(span_of(digits, sizeof digits), &part)) return false;
        out->part[i] = (uint32_t)part.low;
    }
    return true;
}

/* One run of experts of a layer: {"layer": 3, "first": 0, "sums": [...]}. */
static enum sluice_status read_run(const struct parser *p, const json_t *run,
                                   struct pack_shard *shard)
{
    uint64_t layer = 0, first = 0;
    const json_t *sums = json_object_get(run, "sums");
    TRY(get_count(p, run, "layer", UINT32_MAX, &layer));
    TRY(get_count(p, run, "first", UINT32_MAX, &first));
    for (size_t i = 0; i < json_array_size(sums); i++) {
        struct pack_expert *e = &shard->experts[shard->n_experts++];
        *e = (struct pack_expert){.layer = (uint32_t)layer, .expert = (uint32_t)(first + i)};
        if (!parse_expert(text_of(json_array_get(sums, i)), e))
            return malformed(p, "the checksum of an expert is malformed");
    }
    return SLUICE_OK;
}

static enum sluice_status read_experts(const struct parser *p, const json_t *runs,
                                       struct pack_shard *shard)
{
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(runs); i++)
        n += json_array_size(json_object_get(json_array_get(runs, i), "sums"));
    shard->experts = arena_alloc(&p->m->arena, n + 1, sizeof *shard->experts);
    if (!shard->experts) return nomem(p);
    for (size_t i = 0; i < json_array_size(runs); i++)
        TRY(read_run(p, json_array_get(runs, i), shard));
    return SLUICE_OK;
}

static enum sluice_status read_tensors(const struct parser *p, json_t *sums,
                                       struct pack_shard *shard)
{
    shard->tensors = arena_alloc(&p->m->arena, json_object_size(sums) + 1, sizeof *shard->tensors);
    if (!shard->tensors) return nomem(p);
    for (void *it = json_object_iter(sums); it; it = json_object_iter_next(sums, it)) {
        const char *name = json_object_iter_key(it);
        struct pack_tensor *t = &shard->tensors[shard->n_tensors++];
        struct span text = text_of(json_object_iter_value(it));
        t->name = arena_copy(&p->m->arena, name, strlen(name));
        if (!t->name) return nomem(p);
        if (text.len != CHECKSUM_DIGITS || !checksum_parse(text, &t->sum))
            return malformed(p, "the checksum of a tensor is malformed");
    }
    return SLUICE_OK;
}

static enum sluice_status read_shards(const struct parser *p, const json_t *list)
{
    struct pack_manifest *m = p->m;
    m->shards = arena_alloc(&m->arena, json_array_size(list) + 1, sizeof *m->shards);
    if (!m->shards) return nomem(p);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *object = json_array_get(list, i);
        struct pack_shard *shard = &m->shards[m->n_shards++];
        TRY(get_string(p, object, "name", &shard->name));
        TRY(get_count(p, object, "bytes", INT64_MAX, &shard->bytes));
        TRY(read_experts(p, json_object_get(object, "experts"), shard));
        TRY(read_tensors(p, json_object_get(object, "tensors"), shard));
    }
    return SLUICE_OK;
}

static enum sluice_status read_sources(const struct parser *p, const json_t *list)
{
    struct pack_manifest *m = p->m;
    m->sources = arena_alloc(&m->arena, json_array_size(list) + 1, sizeof *m->sources);
    if (!m->sources) return nomem(p);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *object = json_array_get(list, i);
        struct pack_source *source = &m->sources[m->n_sources++];
        uint64_t modified = 0;
        TRY(get_string(p, object, "name", &source->name));
        TRY(get_count(p, object, "bytes", INT64_MAX, &source->bytes));
        TRY(get_count(p, object, "modified_ns", INT64_MAX, &modified));
        source->modified_ns = (int64_t)modified;
    }
    return SLUICE_OK;
}

static int compare_experts(const void *a, const void *b)
{
    const struct pack_expert *x = a, *y = b;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    return x->expert == y->expert ? 0 : x->expert < y->expert ? -1 : 1;
}

static enum sluice_status index_experts(const struct parser *p)
{
    struct pack_manifest *m = p->m;
    size_t n = 0;
    for (size_t s = 0; s < m->n_shards; s++) n += m->shards[s].n_experts;
    m->experts = arena_alloc(&m->arena, n + 1, sizeof *m->experts);
    if (!m->experts) return nomem(p);
    for (size_t s = 0; s < m->n_shards; s++)
        for (size_t i = 0; i < m->shards[s].n_experts; i++)
            m->experts[m->n_experts++] = m->shards[s].experts[i];
    qsort(m->experts, n, sizeof *m->experts, compare_experts);
    for (size_t i = 1; i < n; i++)
        if (compare_experts(&m->experts[i - 1], &m->experts[i]) == 0)
            return malformed(p, "an expert is listed twice");
    return SLUICE_OK;
}

static enum sluice_status index_tensors(const struct parser *p)
{
    struct pack_manifest *m = p->m;
    size_t n = 0;
    uint32_t at = 0;
    for (size_t s = 0; s < m->n_shards; s++) n += m->shards[s].n_tensors;
    m->tensors = arena_alloc(&m->arena, n + 1, sizeof *m->tensors);
    if (!m->tensors || !map_init(&m->by_name, n)) return nomem(p);
    for (size_t s = 0; s < m->n_shards; s++)
        for (size_t i = 0; i < m->shards[s].n_tensors; i++) {
            const struct pack_tensor *t = &m->shards[s].tensors[i];
            m->tensors[at] = *t;
            enum map_put put = map_put(&m->by_name, span_str(t->name), at++);
            if (put == MAP_NOMEM) return nomem(p);
            if (put == MAP_EXISTS) return malformed(p, "a tensor is listed twice");
        }
    return SLUICE_OK;
}

static enum sluice_status read_all(const struct parser *p, const json_t *root)
{
    uint64_t version = 0;
    struct span name = text_of(json_object_get(root, "format"));
    struct span fingerprint = text_of(json_object_get(root, "fingerprint"));
    if (!span_equal(name, span_str(kind))) return malformed(p, "it is no manifest of a pack");
    TRY(get_count(p, root, "version", UINT32_MAX, &version));
    if (version != VERSION)
        return err_set(p->err, SLUICE_E_UNSUPPORTED,
                       "%s: version %llu is not known, only %d; pack the model again", file,
                       (unsigned long long)version, VERSION);
    if (fingerprint.len != CHECKSUM_DIGITS || !checksum_parse(fingerprint, &p->m->fingerprint))
        return malformed(p, "the fingerprint is malformed");
    TRY(get_count(p, root, "shard_bytes", INT64_MAX, &p->m->shard_bytes));
    TRY(read_sources(p, json_object_get(root, "sources")));
    TRY(read_shards(p, json_object_get(root, "shards")));
    TRY(index_experts(p));
    return index_tensors(p);
}

static char *path_in(const char *folder)
{
    size_t cap = strlen(folder) + sizeof file + 1;
    char *path = malloc(cap);
    if (path) snprintf(path, cap, "%s/%s", folder, file);
    return path;
}

static enum sluice_status load(const char *folder, json_t **root, struct sluice_error *err)
{
    char *path = path_in(folder), *text = NULL;
    size_t len;
    *root = NULL;
    if (!path) return err_nomem(err, folder, strlen(folder));
    enum sluice_status status = file_read(path, max_bytes, &text, &len, err);
    if (status == SLUICE_OK) status = json_parse(span_of(text, len), file, root, err);
    free(text);
    free(path);
    return status;
}

enum sluice_status manifest_read(struct pack_manifest *m, const char *folder,
                                 struct sluice_error *err)
{
    *m = (struct pack_manifest){0};
    struct parser p = {m, err};
    json_t *root;
    TRY(load(folder, &root, err));
    enum sluice_status status = read_all(&p, root);
    json_decref(root);
    if (status != SLUICE_OK) manifest_release(m);
    return status;
}

void manifest_release(struct pack_manifest *m)
{
    map_release(&m->by_name);
    arena_release(&m->arena);
    *m = (struct pack_manifest){0};
}

/* Writing */

static json_t *expert_json(const struct pack_expert *e)
{
    char text[EXPERT_DIGITS + 1];
    checksum_format(e->sum, text);
    for (uint32_t i = 0; i < EXPERT_PARTS; i++)
        snprintf(text + CHECKSUM_DIGITS + PART_DIGITS * i, PART_DIGITS + 1, "%08x", e->part[i]);
    return json_string(text);
}

/* Each of these gives NULL when memory runs out: a list must never lack an entry. */
static json_t *whole(json_t *list, bool good)
{
    if (good) return list;
    json_decref(list);
    return NULL;
}

static json_t *experts_json(const struct pack_shard *shard)
{
    json_t *runs = json_array(), *sums = NULL;
    bool good = runs != NULL;
    for (size_t i = 0; i < shard->n_experts && good; i++) {
        const struct pack_expert *e = &shard->experts[i];
        bool follows = i && e[-1].layer == e->layer && e[-1].expert + 1 == e->expert;
        if (!follows) {
            sums = json_array();
            json_t *run = json_pack("{s:I, s:I, s:o}", "layer", (json_int_t)e->layer, "first",
                                    (json_int_t)e->expert, "sums", sums);
            good = json_array_append_new(runs, run) == 0;
        }
        good = good && json_array_append_new(sums, expert_json(e)) == 0;
    }
    return whole(runs, good);
}

static json_t *tensors_json(const struct pack_shard *shard)
{
    json_t *sums = json_object();
    bool good = sums != NULL;
    for (size_t i = 0; i < shard->n_tensors && good; i++) {
        char text[CHECKSUM_DIGITS + 1];
        checksum_format(shard->tensors[i].sum, text);
        good = json_object_set_new(sums, shard->tensors[i].name, json_string(text)) == 0;
    }
    return whole(sums, good);
}

static json_t *shards_json(const struct pack_manifest *m)
{
    json_t *shards = json_array();
    bool good = shards != NULL;
    for (size_t i = 0; i < m->n_shards && good; i++) {
        const struct pack_shard *s = &m->shards[i];
        json_t *shard =
            json_pack("{s:s, s:I, s:o, s:o}", "name", s->name, "bytes", (json_int_t)s->bytes,
                      "experts", experts_json(s), "tensors", tensors_json(s));
        good = json_array_append_new(shards, shard) == 0;
    }
    return whole(shards, good);
}

static json_t *sources_json(const struct pack_manifest *m)
{
    json_t *sources = json_array();
    bool good = sources != NULL;
    for (size_t i = 0; i < m->n_sources && good; i++) {
        const struct pack_source *s = &m->sources[i];
        json_t *source = json_pack("{s:s, s:I, s:I}", "name", s->name, "bytes",
                                   (json_int_t)s->bytes, "modified_ns", (json_int_t)s->modified_ns);
        good = json_array_append_new(sources, source) == 0;
    }
    return whole(sources, good);
}

static json_t *manifest_json(const struct pack_manifest *m)
{
    char fingerprint[CHECKSUM_DIGITS + 1];
    checksum_format(m->fingerprint, fingerprint);
    return json_pack("{s:s, s:i, s:s, s:s, s:I, s:o, s:o}", "format", kind, "version", VERSION,
                     "tool", "sluice " SLUICE_VERSION_STRING, "fingerprint", fingerprint,
                     "shard_bytes", (json_int_t)m->shard_bytes, "sources", sources_json(m),
                     "shards", shards_json(m));
}

struct sink {
    struct file_out out;
    struct sluice_error *err;
};

static int write_piece(const char *data, size_t len, void *user)
{
    struct sink *sink = user;
    return file_out_write(&sink->out, data, len, sink->err) == SLUICE_OK ? 0 : -1;
}

static enum sluice_status write_json(const json_t *root, const char *path, struct sluice_error *err)
{
    struct sink sink = {.err = err};
    struct sluice_error unset = {.code = SLUICE_OK};
    if (err) *err = unset;
    TRY(file_out_open(&sink.out, path, 0, err));
    if (json_dump_callback(root, write_piece, &sink, JSON_INDENT(1)) == 0)
        return file_out_commit(&sink.out, err);
    file_out_abort(&sink.out);
    if (err && err->code != SLUICE_OK) return err->code;
    return err_nomem(err, file, 0);
}

enum sluice_status manifest_write(const struct pack_manifest *m, const char *folder,
                                  struct sluice_error *err)
{
    char *path = path_in(folder);
    json_t *root = path ? manifest_json(m) : NULL;
    enum sluice_status status =
        root ? write_json(root, path, err) : err_nomem(err, file, m->arena.bytes);
    json_decref(root);
    free(path);
    return status;
}

/* Finding */

const struct pack_expert *manifest_expert(const struct pack_manifest *m, uint32_t layer,
                                          uint32_t expert)
{
    const struct pack_expert key = {.layer = layer, .expert = expert};
    if (m->n_experts == 0) return NULL;
    return bsearch(&key, m->experts, m->n_experts, sizeof *m->experts, compare_experts);
}

const struct pack_tensor *manifest_tensor(const struct pack_manifest *m, const char *name)
{
    const uint32_t *at = map_find(&m->by_name, span_str(name));
    return at ? &m->tensors[*at] : NULL;
}

const struct pack_shard *manifest_shard(const struct pack_manifest *m, const char *name)
{
    for (size_t i = 0; i < m->n_shards; i++)
        if (strcmp(m->shards[i].name, name) == 0) return &m->shards[i];
    return NULL;
}
